"""What this machine has (CPUs, memory, limits), and from it the plan of a mount's arena and workers."""

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from ringmount.config.model import MountConfig
from ringmount.config.units import format_cpulist, format_size, parse_cpulist
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.workers.arena import Plan, machine_memory, payload_size

CPU_FOLDER = Path("/sys/devices/system/cpu")
MAX_PAGES_LIMIT = Path("/proc/sys/fs/fuse/max_pages_limit")
URING_SWITCH = Path("/sys/module/fuse/parameters/enable_uring")

NODES = 4 << 20
"""Nodes that the kernel may refer to at a time, over all; their table is sparse."""
RING_MEMORY_SHARE = 4
"""By default the rings' buffers may take one part in so many of the machine's memory."""


@dataclass(frozen=True)
class Cpus:
    """CPU numbers. `possible`: each has a queue in the kernel, there or not; `usable`: this process may run on them."""

    possible: int
    online: tuple[int, ...]
    usable: tuple[int, ...]


def cpus(folder: Path = CPU_FOLDER) -> Cpus:
    """This machine's CPUs. The kernel makes one queue per possible CPU (num_possible_cpus)."""
    possible = parse_cpulist((folder / "possible").read_text().strip())
    online = parse_cpulist((folder / "online").read_text().strip())
    return Cpus(max(possible) + 1, tuple(online), tuple(sorted(os.sched_getaffinity(0))))


def worker_cpus(config: MountConfig, machine: Cpus, single: bool) -> tuple[int, ...]:
    """The CPU of each worker. Raises Failure for CPUs that this machine does not have."""
    wanted = machine.usable if config.cpus is None else config.cpus
    missing = [cpu for cpu in wanted if cpu not in machine.online]
    if missing:
        raise Failure(
            f"cpus: this machine has no CPU {format_cpulist(missing)} online",
            f"it has {format_cpulist(machine.online)}",
            code=ExitCode.CONFIG,
        )
    barred = [cpu for cpu in wanted if cpu not in machine.usable]
    if barred:
        raise Failure(
            f"cpus: this process may not run on CPU {format_cpulist(barred)}",
            f"its affinity (taskset, CPUAffinity=) allows {format_cpulist(machine.usable)}",
            code=ExitCode.CONFIG,
        )
    if single:
        return tuple(wanted[:1])
    if config.workers == "auto":
        return tuple(wanted)
    if config.workers > len(wanted):
        raise Failure(
            f"workers: {config.workers} are more than the {len(wanted)} CPUs they can be pinned to",
            "take fewer, or auto",
            code=ExitCode.CONFIG,
        )
    return tuple(wanted[: config.workers])


def owner_of(cpu: int, workers: tuple[int, ...]) -> int:
    """The worker that serves a CPU's queue: its own if it has one, else spread over the others."""
    return workers.index(cpu) if cpu in workers else cpu % len(workers)


def max_write(config: MountConfig) -> int:
    """The mount's max_write, lowered to what the kernel's page limit allows (fs.fuse.max_pages_limit, 256 by default)."""
    try:
        pages = int(MAX_PAGES_LIMIT.read_text())
    except (OSError, ValueError):
        pages = 256
    return min(config.max_write, pages * os.sysconf("SC_PAGESIZE"))


def plan(config: MountConfig, machine: Cpus, workers: tuple[int, ...], handles: int = 1 << 20) -> Plan:
    """The arena's plan: full depth for CPUs that are online, one entry for those that are not (the ring goes live only
    when every possible CPU's queue has one). Raises Failure when the buffers take more than the mount's cap."""
    depths = tuple(config.queue_depth if cpu in machine.online else 1 for cpu in range(machine.possible))
    owners = tuple(owner_of(cpu, workers) for cpu in range(machine.possible))
    planned = Plan(depths, owners, len(workers), payload_size(max_write(config)), NODES, handles)
    cap = ring_memory_cap(config)
    if planned.buffer_bytes > cap:
        raise Failure(
            f"the rings' buffers could take {format_size(planned.buffer_bytes)}, the mount's cap is {format_size(cap)}",
            f"lower queue_depth ({config.queue_depth}) or max_write ({format_size(config.max_write)}), or raise ring_memory",
            code=ExitCode.RESOURCES,
        )
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
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
