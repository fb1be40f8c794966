"""Running clients that may hang, and measuring servers: CPU time, memory.

Rule: the bench itself never touches a FUSE mount. Only children do, and each has a deadline.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class CommandError(Exception):
    """A client failed or hung; the text says how."""


def run_command(
    command: Sequence[str],
    *,
    timeout: float,
    free: Callable[[], None],
    environment: Mapping[str, str] | None = None,
    stdout: int | None = subprocess.PIPE,
) -> str:
    """Runs a client to its end and returns what it printed.

    A client that waits in a mount cannot be killed while the server holds its request; `free` is then
    called to end the server, which lets the client go.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd="/",
        env={**os.environ, **(environment or {})},
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        free()
        kill_session(process.pid)
        process.communicate(timeout=30)
        raise CommandError(f"{command[0]} did not end within {timeout:.0f} s") from None
    except BaseException:
        free()
        kill_session(process.pid)
        raise
    if process.returncode != 0:
        lines = errors.strip().splitlines() or [f"exit code {process.returncode}"]
        raise CommandError(f"{Path(command[0]).name}: {lines[-1][:300]}")
    return output or ""


def processes_of(session: int) -> list[int]:
    """The processes of a session (setsid(2)), zombies left out."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.append(int(entry))
    return found


def kill_session(session: int) -> None:
    for pid in processes_of(session):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of the processes, with threads that have ended, to the nanosecond.

    It is read from each process's CPU clock; the clock's number is the one that clock_getcpuclockid(3) computes.
    """
    total = 0
    for pid in pids:
        try:
            total += time.clock_gettime_ns((~pid << 3) | 2)
        except OSError:
            pass
    return total / 1e9


def memory(pid: int) -> dict[str, float]:
    """PSS of a process in MiB, and how much of it is in memfds: that is where an arena is."""
    total = memfd = 0
    in_memfd = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "Pss":
            kib = int(value.split()[0])
            total += kib
            memfd += kib if in_memfd else 0
        elif " " in key or "-" in key:
            in_memfd = "/memfd:" in line
    return {"pss_mib": total / 1024, "memfd_mib": memfd / 1024}
