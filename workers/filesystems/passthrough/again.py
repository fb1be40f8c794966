"""Changes whose worker died before it had answered: was this one made?

Each function asks that of a second run of the request, by what the first one noted right before its system call
(`Context.begin`) and by what is there now. While a request is under way the kernel holds the locks of its folder and
file (i_rwsem), so that nobody changes them through the mount meanwhile; only somebody beneath could mislead it, within
the few microseconds between the note and the system call of one request.

The rule: what is noted here and in native/fast*.c (rm_begin) is the same, because C begins and Python goes on.
"""

import errno
import os
import stat
import time
from collections.abc import Callable

from ringmount.workers import system
from ringmount.workers.api import Context

CLOCK_REALTIME_COARSE = 5
"""The clock of the kernel's time stamps (ktime_get_coarse_real_ts64): what is made after a look at it is no older."""

RENAME_EXCHANGE = 2
CHUNK = 1 << 20
"""How much that others have appended meanwhile is looked through."""


def number(folder: int, name: bytes) -> int:
    """The inode number of what has this name; 0: nothing."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino
    except OSError:
        return 0


# --- making: notes the time -----------------------------------------------------------------------------------------


def will_make(ctx: Context) -> None:
    """A new object gets a name next."""
    ctx.begin(time.clock_gettime_ns(CLOCK_REALTIME_COARSE))


def was_made(ctx: Context, folder: int, name: bytes, kind: int) -> bool:
    """Whether the object of this kind (S_IFMT) with this name is the one that was to be made: it is no older."""
    earlier = ctx.earlier
    if earlier is None or earlier.done:
        return earlier is not None
    try:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return False
    try:
        found, more = os.fstat(fd), system.statx(fd, 0, system.STATX_BTIME)
    finally:
        os.close(fd)
    born = more.btime_ns if more.mask & system.STATX_BTIME else found.st_ctime_ns
    return stat.S_IFMT(found.st_mode) == kind and born >= earlier.before[0]


def was_linked(ctx: Context, folder: int, name: bytes, fd: int) -> bool:
    """Whether the object at `fd` has got this name."""
    earlier = ctx.earlier
    if earlier is None or earlier.done:
        return earlier is not None
    return number(folder, name) == os.fstat(fd).st_ino


# --- removing and renaming: note the inode numbers ------------------------------------------------------------------


def will_remove(ctx: Context, folder: int, name: bytes) -> None:
    """The name goes next."""
    ctx.begin(number(folder, name))


def was_removed(ctx: Context, folder: int, name: bytes) -> bool:
    """Whether what had the name has lost it."""
    earlier = ctx.earlier
    if earlier is None or earlier.done:
        return earlier is not None
    return earlier.before[0] != 0 and number(folder, name) != earlier.before[0]


def will_rename(ctx: Context, folder: int, name: bytes, new_folder: int, new_name: bytes) -> None:
    """The name becomes another one next."""
    ctx.begin(number(folder, name), number(new_folder, new_name))


def was_renamed(ctx: Context, folder: int, name: bytes, new_folder: int, new_name: bytes, flags: int) -> bool:
    """Whether the new name has what had the old one. (One object with both names: rename(2) does nothing.)"""
    earlier = ctx.earlier
    if earlier is None or earlier.done:
        return earlier is not None
    old, new = earlier.before[:2]
    if not old or old == new or number(new_folder, new_name) != old:
        return False
    found = number(folder, name)
    return found == new if flags & RENAME_EXCHANGE else found != old


# --- extended attributes: note whether there was one ------------------------------------------------------------------


def has_xattr(path: bytes, name: bytes) -> bool:
    """Whether there is such an attribute."""
    try:
        os.getxattr(path, name)
    except OSError as error:
        return error.errno != errno.ENODATA
    return True


def had_xattr(ctx: Context) -> bool | None:
    """Whether there was one before the first run's change; None if there was none or it changed nothing."""
    earlier = ctx.earlier
    return None if earlier is None else bool(earlier.before[0])


# --- appending: notes the size ----------------------------------------------------------------------------------------


def append(ctx: Context, fd: int, data: memoryview, write: Callable[[memoryview], int]) -> int:
    """`write` appends to `fd`; what the first run has appended is not appended again."""
    earlier = ctx.earlier
    if earlier is not None and earlier.done:
        return earlier.result
    done = 0 if earlier is None else _appended(fd, data, earlier.before[0])
    if done == 0:
        ctx.begin(os.fstat(fd).st_size)
    if done < len(data):
        done += write(data[done:])
    ctx.done(done)
    return done


def _appended(fd: int, data: memoryview, size: int) -> int:
    """How many bytes of `data` were appended to a file of `size` bytes: some, if the worker died meanwhile. Others may
    have appended before them."""
    try:
        reader = os.open(b"/proc/self/fd/%d" % fd, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        found = os.pread(reader, len(data) + CHUNK, size)
    finally:
        os.close(reader)
    wanted = bytes(data)
    if wanted.startswith(found[: len(wanted)]):
        return min(len(found), len(wanted))
    return len(wanted) if wanted in found else 0
