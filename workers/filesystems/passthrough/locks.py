"""Locks kept by the files beneath (`locks: backing`).

fcntl(2) locks belong to a process, and by the descriptor table that they share all workers are one: they could not
keep two callers apart. Open file description locks (F_OFD_SETLK) belong to an open file, so each caller (`owner`, the
kernel's number for a process's descriptor table) gets an open file of its own for each file it locks. Which one is
known to all workers: an entry of the table of nodes, by file and owner, names its handle. The caller's close(2) of the
file drops it, and with it the locks.

A caller's own open file description locks come with a number of that open file as the owner. Only RELEASE tells of its
end, without that number (fuse_setlk passes on no unlock at close): what was locked by a handle is noted, and what is
still locked then goes with the handle. flock(2) locks belong to an open file to begin with, and are put on the handle's
own.

All of these descriptors are kept where somebody keeps such (`Handles.keep`), so that the locks outlive the processes.

Waiting is asking again, at growing intervals. What the kernel's own locks (`locks: kernel`) do beyond this: find
deadlocks, tell who holds a lock, and wake at once.
"""

import asyncio
import contextlib
import errno
import fcntl
import itertools
import os
import struct
from collections.abc import Callable
from typing import ClassVar

from ringmount.workers.api import Context, Handle, Lock, Mount, NodeId
from ringmount.workers.filesystems.passthrough.files import Files
from ringmount.workers.filesystems.passthrough.objects import Objects
from ringmount.workers.filesystems.passthrough.options import Options

FLOCK = struct.Struct("hhqqi4x")
"""struct flock (fcntl(2)): l_type, l_whence, l_start, l_len, l_pid."""

OWNER_KEY = struct.Struct("<cQQ")
OWNER_VALUE = struct.Struct("<Q")
USE_KEY = struct.Struct("<cQQ")
USE_VALUE = struct.Struct("<QQ")
"""An owner that locked by a handle, and the handle that held its locks then: a later one belongs to other locks."""

SHORTEST_WAIT = 0.001
LONGEST_WAIT = 0.05

TO_THE_END = (1 << 63) - 1


def encode(lock: Lock) -> bytes:
    """As struct flock; a length of 0 reaches to the end of the file."""
    length = 0 if lock.end >= TO_THE_END else lock.end - lock.start + 1
    return FLOCK.pack(lock.type, os.SEEK_SET, lock.start, length, 0)


def decode(data: bytes) -> Lock:
    """From struct flock. An open file's lock has the pid -1: the holder is not known."""
    kind, _, start, length, pid = FLOCK.unpack(data)
    return Lock(kind, start, start + length - 1 if length else TO_THE_END, max(pid, 0))


ALL_UNLOCKED = encode(Lock(fcntl.F_UNLCK, 0, TO_THE_END, 0))


class Owners:
    """The open files that hold the locks of callers."""

    def __init__(self, mount: Mount, objects: Objects) -> None:
        self._nodes = mount.nodes
        self._handles = mount.handles
        self._objects = objects

    def find(self, node: NodeId, owner: int) -> int | None:
        """The descriptor for this caller's locks on the file, if it has any."""
        entry = self._nodes.find(_key(node, owner))
        return None if entry is None else self._handles.fd(self._handle(entry))

    def open(self, node: NodeId, owner: int) -> int:
        """The same, made if need be."""
        fd = self.find(node, owner)
        if fd is not None:
            return fd
        fh = self._handles.add(node, os.O_RDWR, self._open_file(node))
        entry = self._nodes.take(_key(node, owner), OWNER_VALUE.pack(fh))
        found = self._handle(entry)
        if found != fh:  # another worker was quicker, for another thread of the caller
            self._nodes.give_back(entry)
            os.close(self._handles.remove(fh))
        return self._handles.fd(found)

    def _open_file(self, node: NodeId) -> int:
        """For writing if possible: an exclusive lock asks for that (fcntl(2), EBADF)."""
        try:
            return self._objects.open(node, os.O_RDWR)
        except OSError:
            return self._objects.open(node, os.O_RDONLY)

    def _handle(self, entry: NodeId) -> Handle:
        (fh,) = OWNER_VALUE.unpack(self._nodes.value(entry))
        return Handle(fh)

    def drop(self, node: NodeId, owner: int) -> None:
        """Ends all locks of this caller on the file."""
        entry = self._nodes.find(_key(node, owner))
        if entry is None:
            return
        try:
            fd = self._handles.remove(self._handle(entry))
        except OSError:  # another worker was quicker
            return
        self._nodes.give_back(entry)
        if fd >= 0:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, ALL_UNLOCKED)  # a copy may be kept for a moment longer
            os.close(fd)

    def note(self, node: NodeId, owner: int, fh: Handle) -> None:
        """Remembers that this owner has locked by `fh`."""
        entry = self._nodes.find(_key(node, owner))
        if entry is None:
            return
        self._handles.keep(self._handle(entry))
        use = USE_VALUE.pack(owner, self._handle(entry))
        for number in itertools.count():
            key = USE_KEY.pack(b"U", fh, number)
            known = self._nodes.find(key)
            if known is not None and self._nodes.value(known) == use:
                return
            if known is not None and USE_VALUE.unpack(self._nodes.value(known))[0] != owner:
                continue
            if known is not None:
                self._nodes.give_back(known)
            made = self._nodes.take(key, use)
            if self._nodes.value(made) == use:
                return
            self._nodes.give_back(made)  # another worker was quicker, for another owner

    def end(self, node: NodeId, fh: Handle) -> None:
        """Ends the locks that were made by `fh`, which is gone for good."""
        for number in itertools.count():
            known = self._nodes.find(USE_KEY.pack(b"U", fh, number))
            if known is None:
                return
            owner, holder = USE_VALUE.unpack(self._nodes.value(known))
            self._nodes.give_back(known)
            entry = self._nodes.find(_key(node, owner))
            if entry is not None and self._handle(entry) == holder:
                self.drop(node, owner)


def _key(node: NodeId, owner: int) -> bytes:
    return OWNER_KEY.pack(b"L", node, owner)


class Locks(Files):
    """The operations on locks."""

    silent_reply: ClassVar = 0  # every close(2) must be heard of: it ends locks

    def __init__(self, options: Options, mount: Mount) -> None:
        super().__init__(options, mount)
        self._owners = Owners(mount, self.objects)

    def flush(self, ctx: Context, node: NodeId, fh: Handle, lock_owner: int) -> None:
        self._owners.drop(node, lock_owner)
        super().flush(ctx, node, fh, lock_owner)

    def release(self, ctx: Context, node: NodeId, fh: Handle, flags: int, flock_owner: int | None) -> None:
        self._owners.end(node, fh)
        if flock_owner is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self.handles.fd(fh), fcntl.LOCK_UN)  # as in Owners.drop
        super().release(ctx, node, fh, flags, flock_owner)

    def getlk(self, ctx: Context, node: NodeId, fh: Handle, owner: int, lock: Lock) -> Lock:
        fd = self._owners.find(node, owner)
        if fd is None:
            fd = self.handles.fd(fh)
        found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, encode(lock))
        return decode(found)

    async def setlk(self, ctx: Context, node: NodeId, fh: Handle, owner: int, lock: Lock, wait: bool) -> None:
        data = encode(lock)
        if lock.type == fcntl.F_UNLCK and self._owners.find(node, owner) is None:
            return
        await until_free(ctx, wait, lambda: fcntl.fcntl(self._owners.open(node, owner), fcntl.F_OFD_SETLK, data))
        self._owners.note(node, owner, fh)

    async def flock(self, ctx: Context, node: NodeId, fh: Handle, owner: int, operation: int, wait: bool) -> None:
        fd = self.handles.fd(fh)
        await until_free(ctx, wait, lambda: fcntl.flock(fd, operation | fcntl.LOCK_NB))
        self.handles.keep(fh)


async def until_free(ctx: Context, wait: bool, attempt: Callable[[], object]) -> None:
    """Makes attempts until one is not refused for another's lock. EINTR once the caller got a signal."""
    pause = SHORTEST_WAIT
    while True:
        try:
            attempt()
        except OSError as error:
            if not wait or error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        else:
            return
        if ctx.interrupted:
            raise OSError(errno.EINTR, "interrupted while waiting for a lock")
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_WAIT)
