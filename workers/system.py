"""System calls that Python's os module lacks, for descriptors rather than paths.

The rule: this module translates and nothing more. Failure is OSError, raised in `_checked` alone.
"""

import errno
import os
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from ringmount.workers._native import ffi, lib
from ringmount.workers.api import NOW

# linux/fs.h; fallocate(2) and renameat2(2) have theirs in fcntl.h and stdio.h
RWF_APPEND = 0x10
"""pwritev2(2): append, whatever the descriptor's flags."""
RWF_NOAPPEND = 0x20
"""pwritev2(2): write at the offset, whatever the descriptor's flags. Linux 6.9."""

UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2

STATX_BASIC_STATS = 0x7FF
STATX_BTIME = 0x800

TMPFS_MAGIC = 0x01021994
RAMFS_MAGIC = 0x858458F6
EXT_MAGIC = 0xEF53
XFS_MAGIC = 0x58465342
BTRFS_MAGIC = 0x9123683E

CAP_SETGID = 1 << 6
CAP_SETUID = 1 << 7
CAP_FSETID = 1 << 4
CAP_SYS_RESOURCE = 1 << 24

# Resolved once: parsing the declaration costs more than the allocation.
_FILE_HANDLE = ffi.typeof("struct rm_file_handle *")
_STATX = ffi.typeof("struct rm_statx *")
_THREE_SETS = ffi.typeof("uint64_t[3]")


def checked(result: int) -> int:
    """What a function in C returned. Raises OSError if that is -errno."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


FileHandle: TypeAlias = tuple[bytes, int]
"""What its filesystem calls an object (name_to_handle_at(2)), and the number of the mount through which it was reached.

The first is the handle's type and bytes, up to 132, no other object's ever; empty where a filesystem has no handles.
"""


def file_handle(fd: int) -> FileHandle:
    """The handle of the object that `fd` is open on."""
    found = ffi.new(_FILE_HANDLE)
    checked(lib.rm_file_handle(fd, found))
    return ffi.unpack(found.bytes, found.size), found.mount


def lookup(folder: int, name: bytes) -> tuple[int, bytes, int]:
    """An O_PATH descriptor for `name` in a folder, of a link itself rather than its target, and its `FileHandle`."""
    found = ffi.new(_FILE_HANDLE)
    fd = checked(lib.rm_lookup(folder, name, found))
    return fd, ffi.unpack(found.bytes, found.size), found.mount


def open_by_handle(mount: int, name: bytes, flags: int) -> int:
    """Opens an object by its handle's name, close-on-exec. `mount`: any descriptor in its filesystem, not O_PATH.

    ESTALE: the object is gone. EPERM: CAP_DAC_READ_SEARCH is missing.
    """
    return checked(lib.rm_open_by_handle(mount, name, len(name), flags | os.O_CLOEXEC))


def clone_without_atime(path: str) -> tuple[int, int]:
    """A folder, open for reading through a mount of its own that keeps no access times, and that mount's descriptor."""
    mount = ffi.new("int *")
    return checked(lib.rm_clone_without_atime(os.fsencode(path), mount)), mount[0]


def rename(folder: int, name: bytes, new_folder: int, new_name: bytes, flags: int) -> None:
    """renameat2(2)."""
    checked(lib.rm_renameat2(folder, name, new_folder, new_name, flags))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2)."""
    checked(lib.rm_fallocate(fd, mode, offset, length))


def syncfs(fd: int) -> None:
    """syncfs(2)."""
    checked(lib.rm_syncfs(fd))


def filesystem_type(fd: int) -> int:
    """statfs(2)'s f_type: one of the *_MAGIC numbers."""
    return checked(lib.rm_filesystem_type(fd))


def _timespec(ns: int | None) -> tuple[int, int]:
    if ns is None:
        return 0, UTIME_OMIT
    if ns == NOW:
        return 0, UTIME_NOW
    return divmod(ns, 1_000_000_000)


def utimens(fd: int, atime_ns: int | None, mtime_ns: int | None) -> None:
    """utimensat(2) on a descriptor, O_PATH too: nanoseconds, `ringmount.workers.api.NOW`, or None to leave a time."""
    checked(lib.rm_utimens(fd, *_timespec(atime_ns), *_timespec(mtime_ns)))


class Statx(NamedTuple):
    """What statx(2) tells beyond stat(2). `mask`: STATX_* of what the filesystem knew."""

    mask: int
    btime_ns: int
    attributes: int
    attributes_mask: int


def statx(fd: int, flags: int, mask: int) -> Statx:
    """statx(2) on a descriptor, O_PATH too. `flags`: AT_STATX_* alone."""
    out = ffi.new(_STATX)
    checked(lib.rm_statx(fd, flags, mask, out))
    return Statx(out.mask, out.btime_sec * 1_000_000_000 + out.btime_nsec, out.attributes, out.attributes_mask)


def access(fd: int, mask: int) -> None:
    """access(2) for the ids that count for files (fsuid, fsgid). EACCES if they may not."""
    checked(lib.rm_access(fd, mask))


def getdents(fd: int, offset: int, buffer: bytearray) -> int:
    """Fills `buffer` with the entries after `offset`, or after the last ones read if it is -1; 0 at the end.

    They are struct linux_dirent64 (getdents64(2)); returned is how many bytes they take.
    """
    return checked(lib.rm_getdents(fd, offset, ffi.from_buffer(buffer), len(buffer)))


class Capabilities(NamedTuple):
    """A thread's capabilities (capabilities(7)), as masks of CAP_*."""

    effective: int
    permitted: int
    inheritable: int


def capabilities() -> Capabilities:
    """This thread's."""
    sets = ffi.new("uint64_t[3]")
    checked(lib.rm_capabilities(sets))
    return Capabilities(*sets)


def set_capabilities(sets: Capabilities) -> None:
    """Gives this thread, and no other, these."""
    checked(lib.rm_set_capabilities(ffi.new(_THREE_SETS, sets)))


def act_as(uid: int, gid: int, capabilities: Capabilities | None = None) -> None:
    """setfsuid(2) and setfsgid(2) of this thread alone, and then its capabilities if given.

    EPERM if the ids could not be set. The kernel takes the capabilities for files away with a change from uid 0, and
    gives them back with the reverse.
    """
    sets = ffi.NULL if capabilities is None else ffi.new(_THREE_SETS, capabilities)
    checked(lib.rm_act_as(uid, gid, sets))


def set_groups(groups: Sequence[int]) -> None:
    """setgroups(2), of this thread alone."""
    checked(lib.rm_set_groups(len(groups), ffi.new("uint32_t[]", groups)))


def has_noappend() -> bool:
    """True if the kernel knows RWF_NOAPPEND."""
    fd = os.memfd_create("probe")
    try:
        os.pwritev(fd, [b""], 0, RWF_NOAPPEND)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        return False
    finally:
        os.close(fd)
    return True
