"""Throw-away processes that do one thing each which may block, while the loop goes on."""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable

from ringmount.daemon import mounting
from ringmount.daemon.children import throw_away
from ringmount.daemon.exitcodes import Failure
from ringmount.daemon.loop import Loop

log = logging.getLogger(__name__)


class Errands:
    """Those under way. One that takes longer than it may is killed."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._under_way: dict[int, tuple[int, float]] = {}
        loop.duties.append(self._expire)

    def __contains__(self, pid: int) -> bool:
        return pid in self._under_way

    def run(self, function: Callable[[], int], patience: float, keep: set[int] | None = None) -> int:
        """Has a child run `function`, for at most `patience` seconds. Returns its pid: it is in here while it runs.

        `keep`: descriptors that it inherits.
        """
        pid = throw_away(function, keep)
        pidfd = os.pidfd_open(pid)
        self._under_way[pid] = (pidfd, time.monotonic() + patience)
        self._loop.watch(pidfd, lambda: self._reap(pid))
        return pid

    def end(self) -> None:
        """Kills and reaps all."""
        for pid, (pidfd, _) in list(self._under_way.items()):
            _kill(pidfd)
            self._reap(pid)

    def _expire(self, now: float) -> float | None:
        for pid, (pidfd, deadline) in list(self._under_way.items()):
            if deadline <= now:
                _kill(pidfd)
                self._under_way[pid] = (pidfd, now + 1.0)
        return min((deadline for _, deadline in self._under_way.values()), default=None)

    def _reap(self, pid: int) -> None:
        pidfd, _ = self._under_way.pop(pid)
        self._loop.unwatch(pidfd)
        os.close(pidfd)
        os.waitpid(pid, 0)


def _kill(pidfd: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def statfs_on(cpu: int, mountpoint: str) -> Callable[[], int]:
    """An errand: one request on a CPU's queue."""

    def ask() -> int:
        os.sched_setaffinity(0, {cpu})
        with contextlib.suppress(OSError):
            os.statvfs(mountpoint)
        return 0

    return ask


def unmounting(path: str, connection: int | None) -> Callable[[], int]:
    """An errand: takes the mount of this connection out of the tree, and says why where it cannot."""

    def unmount() -> int:
        try:
            mounting.unmount(path, connection=connection)
        except Failure as failure:
            log.error("%s", failure)
            return 1
        return 0

    return unmount
