"""What the calls are made with: few names, so that they meet, and the sizes at which something happens."""

import fcntl
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from mount.posix.acl import acl, encode
from mount.posix.syscalls import (
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    FALLOC_ZERO_RANGE,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    UTIME_NOW,
    UTIME_OMIT,
)
from mount.posix.users import alice, bob, carol


class Kind(NamedTuple):
    """A kind of argument: the values that there are, one of which is chosen, and how to write one down."""

    choices: Sequence[Any]
    show: Callable[[Any], str] = repr


class Nth(NamedTuple):
    """The path of the n-th object that is there at the time, or of the n-th folder; in that, with a name, something."""

    n: int
    folder: bool = False
    name: bytes = b""

    def among(self, objects: Sequence[bytes], folders: Sequence[bytes]) -> bytes:
        """The path, given all of objects and folders."""
        choice = folders if self.folder else objects
        path = choice[self.n % len(choice)] if choice else b""
        return b"/".join(filter(None, (path, self.name)))


class NthFile(NamedTuple):
    """The n-th of the files that are open at the time; within one call all are the same process's."""

    n: int


class NthMapping(NamedTuple):
    """The n-th of the mapped files."""

    n: int


class New(NamedTuple):
    """A number for what the call opens or maps."""

    is_mapping: bool


# --- how values are written down -------------------------------------------------------------------------------------


OPEN_NAMES = {
    name: int(getattr(os, name))
    for name in (
        *("O_WRONLY", "O_RDWR", "O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND", "O_DIRECT", "O_NOFOLLOW", "O_SYNC"),
        *("O_DSYNC", "O_TMPFILE", "O_DIRECTORY", "O_PATH", "O_NOATIME"),
    )
}


def shown_flags(names: dict[str, int]) -> Callable[[int], str]:
    """For flags that are or-ed, the larger ones first: O_SYNC holds O_DSYNC."""

    def show(flags: int) -> str:
        found = []
        for name, value in sorted(names.items(), key=lambda item: -item[1].bit_count()):
            if flags & value == value:
                found.append(f"os.{name}")
                flags &= ~value
        return " | ".join([*found, *([hex(flags)] if flags or not found else [])])

    return show


OPEN_SHOWN = shown_flags(OPEN_NAMES)


def unions(single: Iterable[int], *others: Iterable[int]) -> tuple[int, ...]:
    """Each of the first, or-ed with one of each other group."""
    return tuple(union(chosen) for chosen in itertools.product(single, *others))


def union(values: Iterable[int]) -> int:
    result = 0
    for value in values:
        result |= value
    return result


# --- names -----------------------------------------------------------------------------------------------------------

LONG = b"n" * 255
FIXED_PATHS = (
    *(b"x", b"y", b"a", b"b", b"c", b"d", b"a/x", b"a/y", b"a/d", b"a/d/x", b"b/x", b"b/y", b"b/d", b"b/d/x", b"c/x"),
    *(b"c/d", b"c/d/x", b"d/x", b"d/d", b"\xff\xfe", b"a/" + LONG, b"a/" + LONG + b"n", b".", b"a/..", b"x/", b"d/"),
    *(b"@", b"@/x", b"@/y", b"@/d", b"@/..", b"@/../x"),
)
"""The folders a, b (sticky) and c (setgid, of alice) are there at the beginning. `@` is the working directory."""

PATH = Kind(
    (
        *(Nth(n) for n in range(20)),
        *(Nth(n) for n in range(20)),
        *(Nth(n, True, name) for n in range(6) for name in (b"x", b"y", b"z", b"d")),
        *FIXED_PATHS,
    )
)
"""Most are of something that is there, `Walk` finds out of what."""
FOLDER = Kind((*(Nth(n, True) for n in range(10)), b"x"))
NAME = Kind((b"x", b"y", b"z", b"d", b".", b"..", b"d/x"))
TEXT = Kind((b"x", b"../a/x", b"a", b"../b", b"d/x", b"nowhere", b".", b"..", b"x" * 300))

# --- what is open ----------------------------------------------------------------------------------------------------

FILE = Kind([NthFile(n) for n in range(12)])
NEW_FILE = Kind([New(False)])
MAPPING = Kind([NthMapping(n) for n in range(4)])
NEW_MAPPING = Kind([New(True)])

ACCESS = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR)
OPTIONS = (
    *(0, 0, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_DIRECT, os.O_NOFOLLOW, os.O_SYNC),
    *(os.O_DIRECTORY, os.O_PATH, os.O_NOATIME, os.O_CREAT | os.O_TRUNC),
)
OPEN_FLAGS = Kind(unions(ACCESS, OPTIONS, OPTIONS), OPEN_SHOWN)
CREATE_FLAGS = Kind(unions(ACCESS, (os.O_CREAT,), (0, 0, os.O_APPEND, os.O_DIRECT)), OPEN_SHOWN)
TMPFILE_FLAGS = Kind(unions((os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_EXCL), (os.O_TMPFILE,)), OPEN_SHOWN)
AGAIN_FLAGS = Kind(
    (os.O_RDWR, os.O_RDONLY, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_APPEND, os.O_PATH, os.O_RDWR | os.O_DIRECT),
    OPEN_SHOWN,
)
STATUS_FLAGS = Kind((0, os.O_APPEND, os.O_DIRECT, os.O_NOATIME, os.O_APPEND | os.O_DIRECT), OPEN_SHOWN)

YES_NO = Kind((False, True))
SEED = Kind(range(1, 256))
LENGTH = Kind((10, 1, 100, 4096, 5000, 0, 10_000, 40_000, 140_000))
LENGTHS = Kind(((10, 1), (0, 100), (4096, 4096, 1), (5000, 40_000, 10)))
SHORT = Kind((10, 1, 100, 4096, 5000))
OFFSET = Kind((0, 1, 100, 4095, 4096, 5000, 8192, 20_000, 65_536, 70_000, 200_000))
PAGES = Kind((1, 2, 3, 4))
WHENCE = Kind((os.SEEK_SET, os.SEEK_CUR, os.SEEK_END))
WHENCE_DATA = Kind((os.SEEK_DATA, os.SEEK_HOLE))
DIRENTS = Kind((120, 400, 4096, 1 << 16))
FALLOCATE_MODE = Kind((0, FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, FALLOC_ZERO_RANGE, FALLOC_PUNCH_HOLE))

# --- attributes ------------------------------------------------------------------------------------------------------

MODE = Kind((0o644, 0o666, 0o600, 0o755, 0o777, 0, 0o1777, 0o2775, 0o4755, 0o6777, 0o2666, 0o070, 0o2767), oct)
NODE_MODE = Kind(
    [kind | mode for kind in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR) for mode in (0o644, 0o2777)],
    oct,
)
DEVICE = Kind((0, os.makedev(240, 17)))
UMASK = Kind((0o022, 0, 0o077, 0o027), oct)
ACCESS_MASK = Kind(range(8))
UID = Kind((-1, 0, alice.uid, bob.uid, carol.uid))
GID = Kind((-1, 0, alice.gid, bob.gid, carol.gid))
TIME = Kind((UTIME_NOW, UTIME_OMIT, 0, 1, 999_999_999, 1_234_567_890_123_456_789, -1, -2_000_000_000_000_000_001), hex)
RENAME_FLAGS = Kind((0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT))
STATUS_IOCTL = Kind((0x40, 0x80, 0))
"""FS_NODUMP_FL and FS_NOATIME_FL."""

# --- extended attributes ---------------------------------------------------------------------------------------------

CAPABILITY = b"\x01\x00\x00\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
"""struct vfs_cap_data, version 2: CAP_CHOWN, to be effective."""
XATTR_NAME = Kind(
    ("user.x", "user.x", "user.y", "user.", "trusted.x", "security.x", "security.capability", "system.nonsense", "x")
)
XATTR_VALUE = Kind((b"", b"value", b"v" * 1000, CAPABILITY))
XATTR_FLAGS = Kind((0, 0, os.XATTR_CREATE, os.XATTR_REPLACE))
ACL_NAME = Kind(("system.posix_acl_access", "system.posix_acl_access", "system.posix_acl_default"))
ACL = Kind(
    (
        encode(acl(7, 5, 0, mask=7, users={bob.uid: 7})),
        encode(acl(6, 6, 6, mask=4, users={alice.uid: 7, carol.uid: 0}, groups={bob.gid: 6})),
        encode(acl(7, 7, 7)),
        encode(acl(6, 0, 4)),
        encode({}),
        b"nonsense",
    )
)

# --- locks -----------------------------------------------------------------------------------------------------------

LOCK_OWNER = Kind(("process", "file"))
LOCK_KIND = Kind((fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK))
LOCK_START = Kind((0, 5, 10, 100))
LOCK_LENGTH = Kind((0, 1, 5, 50))
FLOCK = Kind((fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN))
