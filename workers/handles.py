"""The table of open files in shared memory, and what this worker keeps for them.

One table serves all processes of a mount; `native/handles.c` keeps it and says how it survives deaths. This module
gives it the shape of `ringmount.workers.api.Handles`. Under the policy `reopen` each worker has objects of its
own for handles (`local`), which are not shared.

Rule for a change here: `fd` is on the way of every READ and WRITE; it stays a look into memory.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from ringmount.workers._native import ffi, lib
from ringmount.workers.api import Handle, NodeId
from ringmount.workers.nodes import INTENT

DEFAULT_CAPACITY = 1 << 20
"""Handles; each costs 40 bytes when it is used."""

_SLOT = 0xFFFF_FFFF
_FILLING = 1 << 31
_NO_DESCRIPTOR = 1
_ITERATE = 256


class HandleInfo(msgspec.Struct, frozen=True):
    """All that the table knows of an open file. `fd` is -1 without a descriptor; `worker` opened it; `inode` is 0 where
    nobody keeps descriptors, or for what is no file; `is_kept`: somebody does, and this one."""

    fh: Handle
    node: NodeId
    flags: int
    fd: int
    worker: int
    inode: int
    is_kept: bool


def size(capacity: int = DEFAULT_CAPACITY) -> int:
    """Bytes of a table of `capacity` handles."""
    return int(lib.rm_handles_size(capacity))


def _error(result: int) -> OSError:
    return OSError(-result, os.strerror(-result))


def _info(handle: Any) -> HandleInfo:
    is_kept = bool(handle.is_kept)
    return HandleInfo(handle.fh, handle.node, handle.flags, handle.fd, handle.worker, handle.inode, is_kept)


class HandleTable:
    """The table at `address`, `size` bytes long, as worker number `worker` sees it (`ringmount.workers.api.Handles`).

    `create`: make it, in zeroed memory. Otherwise OSError EINVAL if there is none of this size, EPROTONOSUPPORT if
    another version of ringmount made it.
    """

    def __init__(self, address: int, size: int, worker: int, *, create: bool = False) -> None:
        self._base = ffi.cast("char *", address)
        self._worker = worker
        self._local: dict[Handle, Any] = {}
        self.reopen_descriptor: Callable[[NodeId, int], int] | None = None
        self._check(lib.rm_handles_create(self._base, size) if create else lib.rm_handles_open(self._base, size))
        self.keeper: Callable[[list[HandleInfo]], None] = lambda files: None
        """Has somebody keep copies of these handles' descriptors, and returns when that is done."""
        words = ffi.buffer(self._base + lib.RM_HANDLES_WORDS_AT, lib.rm_handles_capacity(self._base) * 8)
        self._words = memoryview(words).cast("Q").toreadonly()

    def _check(self, result: int) -> int:
        if result < 0:
            raise _error(result)
        return result

    # --- what filesystems use (api.Handles) -------------------------------------------------------

    def add(self, node: NodeId, flags: int, fd: int = -1) -> Handle:
        """Records an open file; `fd` belongs to the handle from here on. OSError ENFILE when the table is full.

        The journal of the request that this is done for (nodes.INTENT) names the handle first.
        """
        found = os.fstat(fd) if fd >= 0 and self.is_lasting else None
        inode = found.st_ino if found is not None and stat.S_ISREG(found.st_mode) else 0
        fh: Handle = lib.rm_handles_add(self._base, self._worker, node, flags, fd, inode, INTENT.get())
        if fh < 0:
            raise _error(fh)
        if found is not None and inode and not found.st_nlink:
            self.keep(fh)
        return fh

    def keep(self, fh: Handle) -> None:
        """Has the descriptor outlive all processes, where somebody keeps such (`run --keep`). OSError EBADF."""
        if self.is_lasting and not (handle := self.get(fh)).is_kept:
            self.keeper([handle])

    def losing_name(self, found: os.stat_result) -> None:
        """To be called before the object of these attributes loses a name: if it is open and has no other, it is kept.

        Who opens it at this very moment is not seen, unless the name is gone by then.
        """
        if not self.is_lasting or found.st_nlink != 1 or not lib.rm_handles_may_be_open(self._base, found.st_ino):
            return
        files = []
        for handle in self.iterate(found.st_ino):
            with contextlib.suppress(OSError):  # it has been closed meanwhile
                if not handle.is_kept and os.fstat(self.fd(handle.fh)).st_dev == found.st_dev:
                    files.append(self.get(handle.fh))
        if files:
            self.keeper(files)

    def fd(self, fh: Handle) -> int:
        """The handle's descriptor. OSError EBADF if the handle is not known or has none."""
        try:
            word = self._words[fh & _SLOT]
        except IndexError:
            raise _error(-errno.EBADF) from None
        state = word & _SLOT
        if word >> 32 != fh >> 32 or state <= _NO_DESCRIPTOR or state >= _FILLING:
            return self._reopened(fh)
        return state - 2

    def _reopened(self, fh: Handle) -> int:
        """A descriptor for a handle that lost its own (`lose_descriptors`). OSError EBADF if it had none."""
        handle = self.get(fh)
        if handle.fd >= 0:  # another worker was quicker
            return handle.fd
        if self.reopen_descriptor is None:
            raise _error(-errno.EBADF)
        fd = self.reopen_descriptor(handle.node, handle.flags)
        found: int = lib.rm_handles_supply(self._base, fh, fd)
        if found != fd:
            os.close(fd)
        return self._check(found)

    def info(self, fh: Handle) -> tuple[NodeId, int]:
        """The handle's node and open flags. OSError EBADF."""
        handle = self.get(fh)
        return handle.node, handle.flags

    def remove(self, fh: Handle) -> int:
        """Ends the handle; its descriptor (or -1) is the caller's. One caller gets it, all others OSError EBADF."""
        fd: int = lib.rm_handles_remove(self._base, self._worker, fh)
        if fd < -1:
            raise _error(fd)
        return fd

    # --- what this worker keeps for a handle (policy `reopen`) ------------------------------------

    def local(self, fh: Handle) -> Any:
        """The object that this worker keeps for the handle, or None."""
        return self._local.get(fh)

    def set_local(self, fh: Handle, value: Any) -> None:
        """Keeps an object for the handle, in this worker only."""
        self._local[fh] = value

    def pop_local(self, fh: Handle) -> Any:
        """Stops keeping the handle's object and returns it, or None."""
        return self._local.pop(fh, None)

    def sweep_local(self) -> list[Any]:
        """Stops keeping objects of handles that have ended, in whichever worker, and returns them to be closed."""
        ended = [fh for fh in list(self._local) if not self.is_live(fh)]
        return [self._local.pop(fh) for fh in ended]

    def is_live(self, fh: Handle) -> bool:
        """Whether the handle has not ended."""
        word = self._words[fh & _SLOT]
        return word >> 32 == fh >> 32 and 0 < word & _SLOT < _FILLING

    # --- what the engine and the supervisor use ---------------------------------------------------

    def get(self, fh: Handle) -> HandleInfo:
        """All that is known of the handle. OSError EBADF."""
        handle = ffi.new("struct rm_handle *")
        self._check(lib.rm_handles_get(self._base, fh, handle))
        return _info(handle)

    @property
    def is_lasting(self) -> bool:
        """Whether somebody keeps descriptors beyond the death of all processes. The supervisor says so."""
        return bool(lib.rm_handles_is_lasting(self._base))

    @is_lasting.setter
    def is_lasting(self, lasting: bool) -> None:
        lib.rm_handles_set_lasting(self._base, lasting)

    def set_kept(self, fh: Handle) -> None:
        """A copy of the handle's descriptor is kept. OSError EBADF."""
        self._check(lib.rm_handles_set_kept(self._base, fh))

    def supply(self, fh: Handle, fd: int) -> bool:
        """Gives a handle that lost its descriptor this one; False if it has another or has ended."""
        return bool(lib.rm_handles_supply(self._base, fh, fd) == fd)

    def lose_descriptors(self) -> int:
        """Takes the descriptors from all handles, whose table of descriptors is gone; returns how many had one.

        Only while no worker runs.
        """
        return int(lib.rm_handles_lose_fds(self._base))

    def iterate(self, inode: int = 0) -> Iterator[HandleInfo]:
        """All handles, or those with this inode number, each as of the instant it is read."""
        cursor, handles = ffi.new("uint32_t *"), ffi.new("struct rm_handle[]", _ITERATE)
        while n := lib.rm_handles_iterate(self._base, inode, cursor, handles, _ITERATE):
            yield from [_info(handles[i]) for i in range(n)]

    def live(self) -> int:
        """How many files are open."""
        cursor, handles = ffi.new("uint32_t *"), ffi.new("struct rm_handle[]", _ITERATE)
        return sum(iter(lambda: int(lib.rm_handles_iterate(self._base, 0, cursor, handles, _ITERATE)), 0))

    def sweep(self, worker: int) -> int:
        """Frees what the dead worker of this number was about to add; returns how many. Before its successor starts."""
        return int(lib.rm_handles_sweep(self._base, worker))
