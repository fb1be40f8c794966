"""Whether a path or a mount's server answers: asked through throw-away processes, with a time limit.

A stat of a mountpoint whose server is stuck does not return, and once the server has read the request, not
even SIGKILL ends the wait (request_wait_answer() in fs/fuse/dev.c). So a child asks, and is left behind if
it hangs.

The rule a change must keep: this process never touches the paths that it is given, and never waits for a
child without a limit.
"""

import errno
import json
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.mountinfo import MountEntry

BYSTANDER = Path(__file__).with_name("bystander.py")

START_PATIENCE = 5.0
"""Seconds that a bystander may take to run at all, on a busy machine: its time begins afterwards."""

Facts = dict[str, object]
"""What a bystander said: `ready` once it runs, what it found, and at the end `done`, or `errno` with the
path (`at`) that it belongs to.
"""

# fuse_get_req(): no connection any more, a failed INIT; and a request that was waiting when the server died.
_DEAD = {errno.ENOTCONN, errno.ECONNREFUSED, errno.ECONNABORTED}
# It is not this mount that answered so.
_UNKNOWN = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


class Liveness(Enum):
    """What is known about a mount's server."""

    ALIVE = "alive"
    DEAD = "dead"
    """Its connection has ended; the mount stays until it is unmounted."""
    STUCK = "stuck"
    """It did not answer in time, but its connection is open."""
    UNKNOWN = "unknown"
    """It could not be asked: it is another user's, say."""


def ask_servers(entries: Sequence[MountEntry], seconds: float) -> list[Liveness]:
    """Asks the servers of these FUSE mounts, all at once; each has `seconds` to answer."""
    asked = [entry for entry in entries if _may_ask(entry)]
    facts = ask([_statvfs(entry) for entry in asked], seconds)
    answers = {entry.id: _judge(found) for entry, found in zip(asked, facts, strict=True)}
    return [answers.get(entry.id, Liveness.UNKNOWN) for entry in entries]


def _may_ask(entry: MountEntry) -> bool:
    is_admitted = "allow_other" in entry.super_options or entry.super_option("user_id") == str(os.getuid())
    return os.geteuid() == 0 or is_admitted


def _statvfs(entry: MountEntry) -> list[str]:
    if "allow_other" in entry.super_options or os.geteuid() != 0:
        return ["statvfs", entry.mountpoint]
    owner = entry.super_option("user_id") or "0", entry.super_option("group_id") or "0"
    return ["statvfs", entry.mountpoint, *owner]


def _judge(facts: Facts) -> Liveness:
    number = facts.get("errno")
    if number in _DEAD:
        return Liveness.DEAD
    if "ready" not in facts or number in _UNKNOWN:
        return Liveness.UNKNOWN
    if "done" in facts or number is not None:
        return Liveness.ALIVE
    return Liveness.STUCK


def ask(questions: Sequence[Sequence[str]], seconds: float) -> list[Facts]:
    """Starts a bystander for each list of arguments; returns what each said until it ended or its `seconds` were up.

    Those that hang are killed; one that cannot be is left to the kernel, which ends it when the server does.
    Raises Failure if a process cannot be started.
    """
    children: list[_Child] = []
    try:
        for question in questions:
            # No comprehension: those that run must be closed when the next one cannot be started.
            children.append(_Child(question, seconds))  # noqa: PERF401
        waiting = {child.stdout: child for child in children}
        poll = select.poll()
        for fd in waiting:
            poll.register(fd, select.POLLIN)
        while (left := max((one.deadline for one in waiting.values()), default=0.0) - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
                if not waiting[fd].read():
                    poll.unregister(fd)
                    del waiting[fd]
        return [child.facts() for child in children]
    finally:
        for child in children:
            child.kill()
        end = time.monotonic() + 0.1
        for child in children:
            child.close(max(0.0, end - time.monotonic()))


class _Child:
    """A bystander, what it has said so far, and until when it is waited for."""

    def __init__(self, arguments: Sequence[str], seconds: float) -> None:
        self._seconds = seconds
        self.deadline = time.monotonic() + START_PATIENCE
        self.stdout, write_end = os.pipe()
        self._said = b""
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-X", "utf8", str(BYSTANDER), *arguments],
                {},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, write_end, 1),
                    (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
                ],
                setsigmask=[],
            )
        except OSError as error:
            os.close(self.stdout)
            raise Failure(
                f"cannot start a process: {error.strerror}",
                "free memory, or raise the limit of processes (ulimit -u, TasksMax= of a unit)",
                code=ExitCode.RESOURCES,
            ) from error
        finally:
            os.close(write_end)
        self._pidfd = os.pidfd_open(self._pid)

    def read(self) -> bool:
        """Takes what is there; False at the end."""
        data = os.read(self.stdout, 65536)
        if data and not self._said:  # its first word is that it runs
            self.deadline = time.monotonic() + self._seconds
        self._said += data
        return bool(data)

    def facts(self) -> Facts:
        merged: Facts = {}
        for line in self._said.splitlines(keepends=True):
            if line.endswith(b"\n"):
                merged |= json.loads(line)
        return merged

    def kill(self) -> None:
        os.close(self.stdout)
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self, seconds: float) -> None:
        """Waits for the process's end for so long. One that ends later stays as a zombie of this process."""
        poll = select.poll()  # select() takes no descriptors above 1023
        poll.register(self._pidfd, select.POLLIN)
        if poll.poll(seconds * 1000):
            os.waitpid(self._pid, 0)
        os.close(self._pidfd)
