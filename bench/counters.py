"""What the kernel counts while a server works: its mount's requests by operation, and its own instructions.

Requests (tracepoint fuse_request_send, 6.12) show that competitors in a row are asked the same, and where one is
asked less. Instructions are the same on a busy machine and on an idle one, which times are not. Both are perf
events: they vanish with the process. Where tracefs or perf events are not to be had, nothing is counted.
"""

import ctypes
import fcntl
import os
import platform
import re
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

EVENT = "events/fuse/fuse_request_send"
OPCODE = re.compile(r'\{(\d+), "FUSE_([A-Z0-9_]+)"\}')
UNCOUNTED = ("INIT", "DESTROY", "BMAP", "IOCTL", "POLL", "NOTIFY_REPLY", "SETUPMAPPING", "REMOVEMAPPING", "INTERRUPT")

# perf_event_open(2)
NUMBER = {"x86_64": 298, "aarch64": 241}
HARDWARE, TRACEPOINT = 0, 2
INSTRUCTIONS = 1
INHERIT, NO_USER, NO_KERNEL, NO_HYPERVISOR = 1 << 1, 1 << 4, 1 << 5, 1 << 6
ATTR = struct.Struct("<IIQQQQQ")  # type, size, config, sample_period, sample_type, read_format, flags
ATTR_SIZE = 128
CLOSE_ON_EXEC = 8
SET_FILTER = 0x40082406


class Unavailable(Exception):
    """This machine does not let us count; the text says why."""


class Counter(Protocol):
    """Counts from when it is made until it is closed."""

    def read(self) -> dict[str, int]: ...

    def close(self) -> None: ...


class _Events:
    """Named groups of perf events, each the sum of its members."""

    def __init__(self) -> None:
        self._files: dict[str, list[int]] = {}

    def add(self, name: str, kind: int, config: int, flags: int, pid: int, cpu: int, condition: str = "") -> None:
        attr = ATTR.pack(kind, ATTR_SIZE, config, 0, 0, 0, flags).ljust(ATTR_SIZE, b"\0")
        libc = ctypes.CDLL(None, use_errno=True)
        number = NUMBER.get(platform.machine())
        if number is None:
            raise Unavailable(f"perf_event_open is not known here for {platform.machine()}")
        file = libc.syscall(ctypes.c_long(number), attr, pid, cpu, -1, ctypes.c_ulong(CLOSE_ON_EXEC))
        if file < 0:
            raise Unavailable(f"perf events: {os.strerror(ctypes.get_errno())}")
        self._files.setdefault(name, []).append(file)
        if condition:
            fcntl.ioctl(file, SET_FILTER, condition.encode() + b"\0")

    def read(self) -> dict[str, int]:
        return {
            name: sum(int.from_bytes(os.read(file, 8), "little") for file in files)
            for name, files in self._files.items()
        }

    def close(self) -> None:
        for files in self._files.values():
            for file in files:
                os.close(file)
        self._files.clear()


class Requests(_Events):
    """The requests of one mount, by operation; those without a name of their own are `OTHER`."""

    def __init__(self, event: Path, mountpoint: Path) -> None:
        super().__init__()
        connection = _connection_of(mountpoint)
        opcodes = {name: number for number, name in OPCODE.findall((event / "format").read_text())}
        config = int((event / "id").read_text())
        conditions = {name: f" && opcode == {opcodes[name]}" for name in opcodes if name not in UNCOUNTED}
        try:
            for name, condition in {"OTHER": "", **conditions}.items():
                for cpu in os.sched_getaffinity(0):
                    self.add(name, TRACEPOINT, config, 0, -1, cpu, f"connection == {connection}{condition}")
        except (OSError, Unavailable) as error:
            self.close()
            raise Unavailable(str(error)) from None

    def read(self) -> dict[str, int]:
        counts = super().read()
        counts["OTHER"] -= sum(count for name, count in counts.items() if name != "OTHER")
        return counts


class Instructions(_Events):
    """The instructions of processes and their threads, in `user` and `kernel` mode."""

    def __init__(self, pids: Iterable[int]) -> None:
        super().__init__()
        try:
            for thread in (thread for pid in pids for thread in os.listdir(f"/proc/{pid}/task")):
                for name, other in (("user", NO_KERNEL), ("kernel", NO_USER)):
                    self.add(name, HARDWARE, INSTRUCTIONS, INHERIT | other | NO_HYPERVISOR, int(thread), -1)
        except (OSError, Unavailable) as error:
            self.close()
            raise Unavailable(str(error)) from None


def mount_tracefs(folder: Path) -> Path:
    """Returns the folder of the tracepoint, in a tracefs mounted on `folder`."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tracefs", "none", str(folder)], capture_output=True, timeout=30, check=False)
    if done.returncode != 0 or not (folder / EVENT / "id").exists():
        raise Unavailable("this kernel has no tracepoint fuse_request_send")
    return folder / EVENT


def _connection_of(mountpoint: Path) -> int:
    """The number of a mount's connection in the tracepoint: the minor of its device."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == str(mountpoint):
            return int(fields[2].partition(":")[2])
    raise Unavailable(f"{mountpoint} is not mounted")
