"""Locks that the filesystem keeps itself, as a filesystem that spans machines must.

The kernel's own are as right and cost no request, which is why `Memory` leaves locks to it. That a filesystem
keeps locks is told by its class having these methods, so the option `locks: own` takes another class.
"""

import asyncio
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import F_UNLCK
from typing import ClassVar

from ringmount.workers.abi import OpenReply
from ringmount.workers.api import Context, Handle, Lock, Mount, NodeId
from ringmount.workers.filesystems.memory.locks import FileLocks, RangeLocks
from ringmount.workers.filesystems.memory.memory import Memory
from ringmount.workers.filesystems.memory.options import MemoryOptions


class NodeLocks:
    """The locks on one node, and those who wait for a change of them."""

    def __init__(self) -> None:
        self.ranges = RangeLocks()
        self.files = FileLocks()
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def is_idle(self) -> bool:
        return not (self.ranges.held or self.files.held or self._waiting)

    async def wait_for_change(self) -> None:
        """Returns when a lock may have been given up. May be cancelled."""
        changed = asyncio.get_running_loop().create_future()
        self._waiting.append(changed)
        try:
            await changed
        finally:
            self._waiting.remove(changed)

    def changed(self) -> None:
        """Lets all who wait look again, in the order in which they came."""
        for changed in self._waiting:
            if not changed.done():
                changed.set_result(None)


class LockingMemory(Memory):
    """`Memory` with locks of its own; an owner is the kernel's number of a process or, for flock, open file."""

    open_flags: ClassVar[int] = int(OpenReply.KEEP_CACHE)

    def __init__(self, options: MemoryOptions, mount: Mount) -> None:
        super().__init__(options, mount)
        self._locks: dict[int, NodeLocks] = {}
        self._waits: list[tuple[int, int]] = []
        """Who waits for whom, among the owners of POSIX locks."""

    def getlk(self, ctx: Context, node: NodeId, fh: Handle, owner: int, lock: Lock) -> Lock:
        with self._locks_of(node) as locks:
            held = locks.ranges.conflict(owner, lock)
        return Lock(F_UNLCK) if held is None else Lock(held.type, held.start, held.end, held.pid)

    async def setlk(self, ctx: Context, node: NodeId, fh: Handle, owner: int, lock: Lock, wait: bool) -> None:
        with self._locks_of(node) as locks:
            while (held := locks.ranges.conflict(owner, lock)) is not None:
                if not wait:
                    raise OSError(errno.EAGAIN, "locked")
                if self._waits_for(held.owner, owner):
                    raise OSError(errno.EDEADLK, "each would wait for the other")
                with self._waiting_for(owner, held.owner):
                    await locks.wait_for_change()
            locks.ranges.set(owner, lock)
            locks.changed()

    async def flock(self, ctx: Context, node: NodeId, fh: Handle, owner: int, operation: int, wait: bool) -> None:
        with self._locks_of(node) as locks:
            # flock(2): "Converting a lock is not guaranteed to be atomic": the old one is given up first.
            locks.files.drop(owner)
            locks.changed()
            while locks.files.conflict(owner, operation):
                if not wait:
                    raise OSError(errno.EAGAIN, "locked")
                await locks.wait_for_change()
            locks.files.set(owner, operation)

    def flush(self, ctx: Context, node: NodeId, fh: Handle, lock_owner: int) -> None:
        with self._locks_of(node) as locks:
            locks.ranges.drop(lock_owner)
            locks.changed()

    def release(self, ctx: Context, node: NodeId, fh: Handle, flags: int, flock_owner: int | None) -> None:
        if flock_owner is not None:
            with self._locks_of(fh // 2) as locks:
                locks.files.drop(flock_owner)
                locks.changed()
        super().release(ctx, node, fh, flags, flock_owner)

    @contextmanager
    def _locks_of(self, node: int) -> Iterator[NodeLocks]:
        """The node's locks, kept as long as there are any or somebody is here."""
        locks = self._locks.setdefault(node, NodeLocks())
        try:
            yield locks
        finally:
            if locks.is_idle:
                self._locks.pop(node, None)

    @contextmanager
    def _waiting_for(self, owner: int, holder: int) -> Iterator[None]:
        wait = (owner, holder)
        self._waits.append(wait)
        try:
            yield
        finally:
            self._waits.remove(wait)

    def _waits_for(self, owner: int, holder: int) -> bool:
        """Whether `owner` is `holder`, or waits for it, through any number of others."""
        reached = {owner}
        while True:
            further = {held for waiting, held in self._waits if waiting in reached} - reached
            if not further:
                return holder in reached
            reached |= further
