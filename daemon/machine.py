"""What this machine has (CPUs, memory, limits), and from it the plan of a mount's workers and arena."""

import contextlib
import os
import resource
from dataclasses import dataclass
from pathlib import Path

from ringmount.config.model import MountConfig
from ringmount.config.units import format_cpulist, format_size, parse_cpulist
from ringmount.daemon import text
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.workers.arena import Plan, machine_memory, payload_size

CPU_FOLDER = Path("/sys/devices/system/cpu")
MAX_PAGES_LIMIT = Path("/proc/sys/fs/fuse/max_pages_limit")
URING_SWITCH = Path("/sys/module/fuse/parameters/enable_uring")

NODES = 4 << 20
"""Nodes that the kernel may refer to at a time, over all; their table is sparse."""
HANDLES = 1 << 20
"""Files that may be open at a time; sparse as well."""
RING_MEMORY_SHARE = 4
"""By default the rings' buffers may take one part in so many of the machine's memory."""


class BadSetting(Failure):
    """A setting that cannot be had on this machine. `key` is its key path in the mount's file."""

    def __init__(self, key: str, message: str, hint: str, *, code: ExitCode = ExitCode.CONFIG) -> None:
        super().__init__(message, hint, code=code)
        self.key = key


@dataclass(frozen=True)
class Cpus:
    """CPU numbers. `possible`: each has a queue in the kernel, there or not; `usable`: this process may run on them."""

    possible: int
    online: tuple[int, ...]
    usable: tuple[int, ...]


def cpus(folder: Path = CPU_FOLDER) -> Cpus:
    """This machine's CPUs. The kernel makes one queue per possible CPU (num_possible_cpus). Raises Failure."""
    try:
        possible, online = (parse_cpulist((folder / name).read_text().strip()) for name in ("possible", "online"))
    except OSError as error:
        raise Failure(
            f"cannot read the list of CPUs in {folder}: {error.strerror}",
            "mount /sys: mount -t sysfs none /sys",
            code=ExitCode.UNAVAILABLE,
        ) from error
    return Cpus(max(possible) + 1, online, tuple(sorted(os.sched_getaffinity(0))))


def worker_cpus(config: MountConfig, machine: Cpus, single: bool) -> tuple[int, ...]:
    """The CPU of each worker. Raises BadSetting for CPUs that this machine does not have."""
    wanted = machine.usable if config.cpus is None else config.cpus
    missing = [cpu for cpu in wanted if cpu not in machine.online]
    if missing:
        have = format_cpulist(machine.online)
        raise BadSetting(
            "cpus", f"CPU {format_cpulist(missing)} is not there or not online", f"this machine has {have}"
        )
    barred = [cpu for cpu in wanted if cpu not in machine.usable]
    if barred:
        allowed = format_cpulist(machine.usable)
        hint = f"its affinity (taskset, CPUAffinity=, a cpuset) allows {allowed}"
        raise BadSetting("cpus", f"this process may not run on CPU {format_cpulist(barred)}", hint)
    if config.workers != "auto" and config.workers > len(wanted):
        many = _counted(len(wanted), "CPU", "CPUs")
        hint = f"lower it to {len(wanted)}, or leave it at auto"
        raise BadSetting("workers", f"{config.workers} are more than {many}, and each has one of its own", hint)
    if single:
        return tuple(wanted[:1])
    return tuple(wanted if config.workers == "auto" else wanted[: config.workers])


def _counted(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


def owner_of(cpu: int, workers: tuple[int, ...]) -> int:
    """The worker that serves a CPU's queue: its own if it has one, else spread over the others."""
    return workers.index(cpu) if cpu in workers else cpu % len(workers)


def max_write(config: MountConfig) -> int:
    """The mount's max_write, lowered to what the kernel allows a request: fs.fuse.max_pages_limit, 256 by default."""
    try:
        pages = int(MAX_PAGES_LIMIT.read_text())
    except (OSError, ValueError):
        pages = 256
    return min(config.max_write, pages * os.sysconf("SC_PAGESIZE"))


def plan(config: MountConfig, machine: Cpus, workers: tuple[int, ...], handles: int = HANDLES) -> Plan:
    """The arena's plan: full depth for CPUs that are online, one entry for those that are not, because the ring goes
    live only when every possible CPU's queue has one. Raises BadSetting when the buffers exceed the mount's cap.
    """
    depths = tuple(config.queue_depth if cpu in machine.online else 1 for cpu in range(machine.possible))
    owners = tuple(owner_of(cpu, workers) for cpu in range(machine.possible))
    planned = Plan(depths, owners, len(workers), payload_size(max_write(config)), NODES, handles)
    cap = ring_memory_cap(config)
    if planned.buffer_bytes > cap:
        need, have = text.size(planned.buffer_bytes), text.size(cap)
        message = f"{need} of buffers for {_counted(planned.entries, 'entry', 'entries')} are more than {have}"
        if config.ring_memory is None:
            message += ", a quarter of this machine's memory"
        write = format_size(config.max_write)
        hint = f"lower queue_depth ({config.queue_depth}) or max_write ({write}), or raise ring_memory"
        raise BadSetting("ring_memory", message, hint, code=ExitCode.RESOURCES)
    return planned


def ring_memory_cap(config: MountConfig) -> int:
    """Bytes that the rings' buffers of this mount may take."""
    return config.ring_memory or machine_memory() // RING_MEMORY_SHARE


def ring_switch() -> bool | None:
    """The kernel's switch for FUSE over io_uring; None where the kernel has none (before 6.14)."""
    try:
        return URING_SWITCH.read_text().strip() in ("Y", "1")
    except OSError:
        return None


def raise_descriptor_limit() -> int:
    """Raises this process's limit of open files to what it may have; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Refused where the sysctl fs.nr_open was lowered below a limit that was granted earlier.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
