"""Inode numbers of a mount that shows several filesystems as one.

The kernel reports one st_dev for all of the mount, so that two files with equal numbers on two filesystems beneath
would look like one file to `cp -a`, `tar` and `find`. The source's own filesystem keeps its numbers; those of others
are spread over the 64-bit range by their device.
"""

import os

from ringmount.workers.api import Attr, AttrLike

_GOLDEN = 0x9E37_79B9_7F4A_7C15
_HIGH = 0xFFFF_FFFF_0000_0000


def spread(number: int, device: int) -> int:
    """A foreign device's inode number, as shown. One to one for each device, the low 32 bits kept."""
    return number ^ ((device + 1) * _GOLDEN & _HIGH)


def shown_attr(found: os.stat_result, own: int, timeout: float | None = None) -> AttrLike:
    """A file's attributes, as shown where `own` is the source's device. `timeout`: see `ringmount.workers.api.Attr`."""
    return Attr(
        st_ino=found.st_ino if found.st_dev == own else spread(found.st_ino, found.st_dev),
        st_mode=found.st_mode,
        st_nlink=found.st_nlink,
        st_uid=found.st_uid,
        st_gid=found.st_gid,
        st_rdev=found.st_rdev,
        st_size=found.st_size,
        st_blksize=found.st_blksize,
        st_blocks=found.st_blocks,
        st_atime_ns=found.st_atime_ns,
        st_mtime_ns=found.st_mtime_ns,
        st_ctime_ns=found.st_ctime_ns,
        timeout=timeout,
    )
