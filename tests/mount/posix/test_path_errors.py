"""What every call that takes a path says about a path that leads nowhere."""

import errno
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from mount.posix import syscalls
from mount.posix.expect import outcome, refused
from mount.posix.kinds import make_file, make_folder
from mount.posix.users import User, alice, root

Call = Callable[[Path | str], object]


def open_and_close(path: Path | str, flags: int) -> None:
    os.close(os.open(path, flags, 0o644))


USES: dict[str, Call] = {
    "access": lambda path: os.access(path, os.F_OK) or os.stat(path),
    "chdir": os.chdir,
    "chmod": lambda path: os.chmod(path, 0o644),
    "chown": lambda path: os.chown(path, 0, 0),
    "execve": lambda path: os.execv(path, ["x"]),
    "getxattr": lambda path: os.getxattr(path, "user.x"),
    "lchown": lambda path: os.lchown(path, 0, 0),
    "lgetxattr": lambda path: os.getxattr(path, "user.x", follow_symlinks=False),
    "link": lambda path: os.link(path, "/nowhere/new"),
    "listxattr": os.listxattr,
    "lstat": os.lstat,
    "open": lambda path: open_and_close(path, os.O_RDONLY),
    "open O_PATH": lambda path: open_and_close(path, os.O_PATH),
    "open O_TMPFILE": lambda path: open_and_close(path, os.O_TMPFILE | os.O_RDWR),
    "opendir": os.listdir,
    "readlink": os.readlink,
    "removexattr": lambda path: os.removexattr(path, "user.x"),
    "rename": lambda path: os.rename(path, f"{path}.new" if len(str(path)) < 3000 else "new"),
    "renameat2": lambda path: syscalls.renameat2(path, path, syscalls.RENAME_EXCHANGE),
    "rmdir": os.rmdir,
    "setxattr": lambda path: os.setxattr(path, "user.x", b""),
    "stat": os.stat,
    "statvfs": os.statvfs,
    "statx": syscalls.statx,
    "truncate": lambda path: os.truncate(path, 0),
    "unlink": os.unlink,
    "utimensat": syscalls.touch,
}
"""Calls on a path that must exist."""

MAKES: dict[str, Call] = {
    "new link": lambda path: os.link("/proc/self/exe", path),
    "mkdir": os.mkdir,
    "mkfifo": os.mkfifo,
    "mknod": lambda path: os.mknod(path, stat.S_IFREG | 0o600),
    "open O_CREAT": lambda path: open_and_close(path, os.O_CREAT | os.O_WRONLY),
    "open O_EXCL": lambda path: open_and_close(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY),
    "symlink": lambda path: os.symlink("target", path),
}
"""Calls that make what the path says."""

FOLLOW_NOT = {
    "lchown",
    "lgetxattr",
    "link",
    "lstat",
    "open O_PATH",
    "readlink",
    "rename",
    "renameat2",
    "rmdir",
    "unlink",
}
"""Calls that mean a link itself."""

LONG = "n" * 256


def assert_all_say(code: str, path: Path | str, names: Iterable[str], *, user: User = root) -> None:
    """Each of these calls on the path fails so."""
    calls = USES | MAKES
    ask = {name: calls[name] for name in names}

    def outcomes() -> dict[str, str]:
        return {name: outcome(call, path) for name, call in ask.items()}

    assert user(outcomes) == dict.fromkeys(ask, code)


def test_a_folder_on_the_way_is_missing(folder: Path) -> None:
    assert_all_say("ENOENT", folder / "missing" / "x", USES | MAKES)


def test_a_file_stands_in_the_way(folder: Path) -> None:
    make_file(folder / "file")
    assert_all_say("ENOTDIR", folder / "file" / "x", USES | MAKES)


def test_a_folder_on_the_way_may_not_be_searched(folder: Path) -> None:
    closed = make_folder(folder / "closed", 0o766)
    make_file(closed / "x", mode=0o777)
    assert_all_say("EACCES", closed / "x", USES | MAKES, user=alice)


def test_links_on_the_way_lead_in_a_circle(folder: Path) -> None:
    os.symlink("circle", folder / "circle")
    assert_all_say("ELOOP", folder / "circle" / "x", USES | MAKES)


def test_a_name_on_the_way_is_too_long(folder: Path) -> None:
    assert_all_say("ENAMETOOLONG", folder / LONG / "x", USES | MAKES)


def test_the_name_is_too_long(folder: Path) -> None:
    assert_all_say("ENAMETOOLONG", folder / LONG, USES | MAKES)


def test_the_path_is_too_long(folder: Path) -> None:
    path = str(folder)
    assert_all_say("ENAMETOOLONG", path + "/." * ((4096 - len(path)) // 2) + "x", USES | MAKES)


def test_the_path_is_empty() -> None:
    assert_all_say("ENOENT", "", USES | MAKES)


def test_there_is_no_such_name(folder: Path) -> None:
    assert_all_say("ENOENT", folder / "x", USES)


def test_the_path_ends_in_a_circle_of_links(folder: Path) -> None:
    os.symlink("two", folder / "one")
    os.symlink("one", folder / "two")
    assert_all_say("ELOOP", folder / "one", USES.keys() - FOLLOW_NOT)


def test_a_file_is_no_folder_whatever_slash_follows(folder: Path) -> None:
    make_file(folder / "file", mode=0o755)
    assert_all_say("ENOTDIR", f"{folder}/file/", USES.keys() - {"link"})


def test_only_a_folder_can_be_made_with_a_slash_behind_its_name(folder: Path) -> None:
    path = f"{folder}/new/"
    assert_all_say("ENOENT", path, ("new link", "mkfifo", "mknod", "symlink"))
    assert_all_say("EISDIR", path, ("open O_CREAT", "open O_EXCL"))
    os.mkdir(path)


def test_a_chain_of_forty_links_is_followed_and_no_longer_one(folder: Path) -> None:
    make_file(folder / "0", b"found")
    for number in range(41):
        os.symlink(str(number), folder / str(number + 1))
    assert (folder / "40").read_bytes() == b"found"
    with refused(errno.ELOOP):
        os.stat(folder / "41")


def test_a_path_may_have_4095_bytes(folder: Path) -> None:
    path = str(folder) + "/"
    path += "./" * ((4094 - len(path)) // 2)
    path += "x" * (4095 - len(path))
    open_and_close(path, os.O_CREAT | os.O_WRONLY)
    os.stat(path)
    with refused(errno.ENAMETOOLONG):
        os.stat(path + "x")
