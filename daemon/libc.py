"""mount(2) and umount2(2), for which Python has no function.

The rule a change must keep: these two calls and nothing else; all other C of the project is in the cffi
module of ringmount.workers.
"""

import ctypes
import os
from enum import IntFlag


class MountFlags(IntFlag):
    """MS_...: flags of mount(2), linux/mount.h."""

    RDONLY = 1 << 0
    NOSUID = 1 << 1
    NODEV = 1 << 2


class UmountFlags(IntFlag):
    """MNT_... and UMOUNT_...: flags of umount2(2), linux/fs.h."""

    DETACH = 1 << 1
    NOFOLLOW = 1 << 3


_libc = ctypes.CDLL(None, use_errno=True)

_mount = _libc.mount
_mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_mount.restype = ctypes.c_int

_umount2 = _libc.umount2
_umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_umount2.restype = ctypes.c_int


def mount(source: str, target: str, fstype: str, flags: MountFlags, data: str) -> None:
    """mount(2) of a new filesystem. Follows symbolic links in `target`. Raises OSError; ValueError for a
    NUL.
    """
    if _mount(*map(_c_string, (source, target, fstype)), flags, _c_string(data)) != 0:
        raise _last_error(target)


def umount2(target: str, flags: UmountFlags) -> None:
    """umount2(2) of the topmost mount at `target`. Raises OSError; ValueError for a NUL."""
    if _umount2(_c_string(target), flags) != 0:
        raise _last_error(target)


def _c_string(text: str) -> bytes:
    encoded = os.fsencode(text)
    if b"\0" in encoded:
        raise ValueError(f"NUL in {text!r}")
    return encoded


def _last_error(path: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)
