"""Every call that is tried and what its arguments are: a row each, from which hypothesis and fixed seeds choose."""

import os
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from mount.differential import values as v
from mount.differential.values import Kind

USERS = ("root", "alice", "bob", "carol")
"""The processes, by their users' names."""


class Call(NamedTuple):
    """One call as it is made: a line of a case. `operation` is a method of `World`, or of `Walk`."""

    user: str
    operation: str
    arguments: tuple[Any, ...]


class Row(NamedTuple):
    """A call that may be made. `weight`: how often, beside the others."""

    label: str
    operation: str
    kinds: tuple[Kind, ...]
    weight: int

    def draw(self, chance: random.Random) -> list[object]:
        return [chance.choice(kind.choices) for kind in self.kinds]


def row(operation: str, *kinds: Kind, label: str = "", weight: int = 2) -> Row:
    return Row(label or operation, operation, kinds, weight)


ROWS = (
    # open files
    row("open", v.NEW_FILE, v.PATH, v.OPEN_FLAGS, v.MODE, weight=6),
    row("open", v.NEW_FILE, v.PATH, v.CREATE_FLAGS, v.MODE, label="create", weight=6),
    row("open", v.NEW_FILE, v.FOLDER, v.TMPFILE_FLAGS, v.MODE, label="tmpfile"),
    row("open_in", v.NEW_FILE, v.FILE, v.NAME, v.OPEN_FLAGS, v.MODE),
    row("open_again", v.NEW_FILE, v.FILE, v.AGAIN_FLAGS),
    row("open_by_handle", v.NEW_FILE, v.PATH, v.AGAIN_FLAGS),
    row("dup", v.NEW_FILE, v.FILE, weight=1),
    row("close", v.FILE, weight=4),
    row("fstat", v.FILE),
    row("read", v.FILE, v.LENGTH),
    row("pread", v.FILE, v.LENGTH, v.OFFSET),
    row("write", v.FILE, v.SEED, v.LENGTH, weight=4),
    row("pwrite", v.FILE, v.SEED, v.LENGTH, v.OFFSET, weight=4),
    row("append", v.FILE, v.SEED, v.LENGTH),
    row("writev", v.FILE, v.SEED, v.LENGTHS),
    row("direct_read", v.FILE, v.PAGES, v.PAGES),
    row("direct_write", v.FILE, v.SEED, v.PAGES, v.PAGES),
    row("direct", v.PATH, v.SEED, v.PAGES, v.PAGES),
    row("lseek", v.FILE, v.OFFSET, v.WHENCE),
    row("find", v.FILE, v.OFFSET, v.WHENCE_DATA),
    row("ftruncate", v.FILE, v.OFFSET),
    row("fallocate", v.FILE, v.FALLOCATE_MODE, v.OFFSET, v.LENGTH),
    row("fsync", v.FILE, v.YES_NO, weight=1),
    row("copy", v.FILE, v.OFFSET, v.FILE, v.OFFSET, v.LENGTH),
    row("send", v.FILE, v.OFFSET, v.FILE, v.LENGTH),
    row("set_status", v.FILE, v.STATUS_FLAGS),
    row("list_open", v.FILE, weight=1),
    row("list_some", v.FILE),
    row("list_rest", v.FILE, v.DIRENTS),
    row("lock", v.FILE, v.LOCK_OWNER, v.LOCK_KIND, v.LOCK_START, v.LOCK_LENGTH),
    row("lock_in_the_way", v.FILE, v.LOCK_OWNER, v.LOCK_KIND, v.LOCK_START, v.LOCK_LENGTH),
    row("flock", v.FILE, v.FLOCK),
    # mapped files
    row("map", v.NEW_MAPPING, v.FILE, v.PAGES, v.YES_NO, v.YES_NO, weight=1),
    row("map_read", v.MAPPING, v.OFFSET, v.SHORT),
    row("map_write", v.MAPPING, v.OFFSET, v.SEED, v.SHORT),
    row("msync", v.MAPPING, weight=1),
    row("unmap", v.MAPPING, weight=1),
    # names
    row("mkdir", v.PATH, v.MODE, weight=3),
    row("mknod", v.PATH, v.NODE_MODE, v.DEVICE),
    row("symlink", v.TEXT, v.PATH),
    row("link", v.PATH, v.PATH, v.YES_NO),
    row("link_open", v.FILE, v.PATH, v.YES_NO),
    row("unlink", v.PATH, weight=3),
    row("rmdir", v.PATH),
    row("rename", v.PATH, v.PATH, v.RENAME_FLAGS, weight=4),
    row("readlink", v.PATH, weight=1),
    row("listdir", v.PATH),
    row("list_and_seek", v.FOLDER, v.DIRENTS, v.ACCESS_MASK),
    row("enter", v.FOLDER),
    row("getcwd", weight=1),
    # attributes
    row("stat", v.PATH, v.YES_NO),
    row("statx", v.PATH),
    row("statfs", v.PATH, weight=1),
    row("access", v.PATH, v.ACCESS_MASK),
    row("chmod", v.PATH, v.MODE, weight=3),
    row("lchmod", v.PATH, v.MODE, weight=1),
    row("fchmod", v.FILE, v.MODE),
    row("chown", v.PATH, v.UID, v.GID, v.YES_NO, weight=3),
    row("fchown", v.FILE, v.UID, v.GID),
    row("truncate", v.PATH, v.OFFSET),
    row("utimensat", v.PATH, v.TIME, v.TIME, v.YES_NO),
    row("futimens", v.FILE, v.TIME, v.TIME),
    row("touch", v.PATH, weight=1),
    row("setxattr", v.PATH, v.XATTR_NAME, v.XATTR_VALUE, v.XATTR_FLAGS),
    row("setxattr", v.PATH, v.ACL_NAME, v.ACL, v.XATTR_FLAGS, label="set_acl"),
    row("fsetxattr", v.FILE, v.XATTR_NAME, v.XATTR_VALUE, v.XATTR_FLAGS),
    row("getxattr", v.PATH, v.XATTR_NAME),
    row("getxattr", v.PATH, v.ACL_NAME, label="get_acl"),
    row("listxattr", v.PATH),
    row("flistxattr", v.FILE, weight=1),
    row("removexattr", v.PATH, v.XATTR_NAME),
    row("removexattr", v.PATH, v.ACL_NAME, label="remove_acl", weight=1),
    # processes
    row("umask", v.UMASK, weight=1),
    row("move", weight=1),
    row("die", weight=1),
    row("all_at_once", v.SEED, weight=1),
)
KINDS = {(each.operation, len(each.kinds)): each.kinds for each in ROWS}

ALONE = {"map", "map_read", "map_write", "msync", "unmap", "enter", "getcwd", "umask", "move", "die", "all_at_once"}
ALONE |= {"lock_in_the_way", "statfs", "open_by_handle", "lseek", "find"}
"""What is not done by several processes at once."""
OWN_FILES = (-1, -2, -3)
"""Numbers of open files that are closed after calls at once."""


def own_calls(seed: int, user: str, count: int = 12) -> list[Call]:
    """Calls that stay in the user's own folder, and use open files of their own."""
    chance = random.Random(f"{seed} {user}")
    folder = b"own-" + user.encode()
    paths = [folder + b"/" + name for name in (b"x", b"x", b"y", b"d", b"d/x")]
    rows = [each for each in ROWS if each.operation not in ALONE]

    def own(value: object) -> object:
        match value:
            case v.Nth(folder=True, name=b""):
                return folder
            case v.Nth() | bytes():
                return chance.choice(paths)
            case v.NthFile() | v.New():
                return chance.choice(OWN_FILES)
            case _:
                return value

    def made(of: Row) -> Call:
        arguments = of.draw(chance)
        named = [
            own(one) if kind in (v.PATH, v.FOLDER, v.FILE, v.NEW_FILE) else one
            for kind, one in zip(of.kinds, arguments, strict=True)
        ]
        return Call(user, of.operation, tuple(named))

    first = Call(user, "open", (-1, folder + b"/x", os.O_RDWR | os.O_CREAT, 0o644))
    return [first, *(made(each) for each in chance.choices(rows, [each.weight for each in rows], k=count))]


def shown(calls: Sequence[Call]) -> str:
    """Calls as lines of a case for test_cases.py."""
    return "\n".join(f'    ("{user}", "{name}"{_arguments(name, values)}),' for user, name, values in calls)


def _arguments(operation: str, values: tuple[object, ...]) -> str:
    kinds = KINDS.get((operation, len(values)), (Kind(()),) * len(values))
    return "".join(f", {kind.show(value)}" for kind, value in zip(kinds, values, strict=True))
