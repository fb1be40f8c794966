"""Descriptors that a dead worker left in the table that all workers share, without a note of whose they are.

Between an open(2) and the note of its descriptor (a handle, `fd_owners`) a worker may die. Nobody closes that file
then, and a deleted one keeps its space. What is open and not noted may just as well be another worker's, about to be
noted. So such files are looked at twice, and closed if they are the same open files (kcmp(2)) and every worker has been
idle or has begun another turn in between: none of them is in the middle of the same request.

The rule a change must keep: only files of filesystems on which workers have noted files are looked at, and nothing is
closed of a filesystem that does not say `owns_descriptors`.
"""

import contextlib
import fcntl
import logging
import os
import stat

from ringmount.daemon.children import State
from ringmount.daemon.crew import Crew
from ringmount.daemon.loop import Loop
from ringmount.daemon.mount import Mount
from ringmount.workers._native import lib

log = logging.getLogger(__name__)

FILES = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO)
"""What is looked at. Sockets, rings and devices are not opened for a request."""
INTERVAL = 0.25
"""Seconds between two looks."""


class Strays:
    """Looks after each death, once all is quiet."""

    def __init__(self, mount: Mount, loop: Loop, crew: Crew) -> None:
        self._mount = mount
        self._crew = crew
        self._deaths = 0
        self._next = 0.0
        self._suspects: dict[int, int] = {}
        """Descriptor: a copy of it."""
        self._turns: list[tuple[int, int]] = []
        """By worker, its process and the turns it had taken, when the suspects were found."""
        self._ours: set[int] | None = None
        """What this process had open itself when the mount became ready."""
        if mount.description.owns_descriptors:
            loop.duties.append(self._look)

    def _look(self, now: float) -> float | None:
        if not self._mount.is_ready:
            return None
        if self._ours is None:
            self._ours = {fd for fd, _ in self._unnoted()[0]}
        if self._deaths == self._crew.deaths and not self._suspects:
            return None
        if now < self._next:
            return self._next
        self._next = now + INTERVAL
        if self._crew.deaths != self._deaths or not self._are_settled():
            self._forget()
        elif self._suspects and self._have_moved():
            self._close()
            return None
        if not self._suspects and self._are_settled():
            self._deaths = self._crew.deaths
            self._suspect()
            self._turns = [(worker.pid, self._turn_of(worker.index)) for worker in self._crew.workers]
        return self._next

    def _suspect(self) -> None:
        for fd in self._unknown():
            with contextlib.suppress(OSError):  # the request that it was opened for has ended meanwhile
                self._suspects[fd] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)

    def _are_settled(self) -> bool:
        """All serve and the spare is ready: what they open for themselves is noted."""
        processes = (*self._crew.workers, self._crew.spare)
        return all(
            worker.state is (State.PREPARED if worker is self._crew.spare else State.SERVING) for worker in processes
        )

    def _turn_of(self, worker: int) -> int:
        return int(self._mount.arena.worker(worker).turns)

    def _have_moved(self) -> bool:
        """Every worker waits for requests, or has begun another turn."""
        for worker, (pid, turn) in zip(self._crew.workers, self._turns, strict=True):
            if worker.pid != pid:
                return False
            if self._turn_of(worker.index) < turn + 2 and not self._mount.arena.worker(worker.index).waiting:
                return False
        return True

    def _unknown(self) -> list[int]:
        """Open files and folders that a worker may have left."""
        ours = (self._ours or set()) | set(self._suspects.values()) | {self._mount.arena.fd}
        unnoted, devices = self._unnoted()
        return [fd for fd, device in unnoted if device in devices and fd not in ours]

    def _unnoted(self) -> tuple[list[tuple[int, int]], set[int]]:
        """Open files and folders that nobody has noted, each with its device; and the devices of those that are."""
        noted = {handle.fd for handle in self._mount.handles.iterate()}
        owners = self._mount.arena.section("fd_owners").cast("H")
        devices, unnoted = set(), []
        for name in os.listdir("/proc/self/fd"):
            fd = int(name)
            with contextlib.suppress(OSError):
                found = os.fstat(fd)
                if stat.S_IFMT(found.st_mode) not in FILES:
                    continue
                if fd in noted or (fd < len(owners) and owners[fd]):
                    devices.add(found.st_dev)
                else:
                    unnoted.append((fd, found.st_dev))
        return unnoted, devices

    def _close(self) -> None:
        unknown = set(self._unknown())
        closed = 0
        for fd, copy in self._suspects.items():
            if fd in unknown and lib.rm_same_file(fd, copy):
                os.close(fd)
                closed += 1
        if closed:
            self._mount.counts["strays"] += closed
            log.info("closed %d files that a dead worker had just opened", closed)
        self._forget()

    def _forget(self) -> None:
        for copy in self._suspects.values():
            os.close(copy)
        self._suspects.clear()
