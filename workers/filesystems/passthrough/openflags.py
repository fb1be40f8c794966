"""Which flags of open(2) go to the file beneath."""

import os

from ringmount.workers import system

KNOWS_NOAPPEND = system.has_noappend()

_PASSED = (
    os.O_ACCMODE
    | os.O_TRUNC
    | os.O_DIRECT
    | os.O_SYNC
    | os.O_NOATIME
    | os.O_NONBLOCK
    # A file with the append-only attribute (chattr +a) opens for writing only with O_APPEND. Where a write belongs is
    # said with each write: see files.
    | (os.O_APPEND if KNOWS_NOAPPEND else 0)
)


def backing_flags(flags: int, writeback: bool = False) -> int:
    """The flags to open the file beneath with: those that act on its data, and close-on-exec.

    `writeback`: the kernel completes pages that are written in part, and reads them by whatever is open for writing.
    """
    if writeback and flags & os.O_ACCMODE == os.O_WRONLY:
        flags = flags & ~os.O_ACCMODE | os.O_RDWR
    return flags & _PASSED | os.O_CLOEXEC
