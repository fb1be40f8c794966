"""Changes that C makes, and the methods in Python that it was written after: both leave the same behind."""

import errno
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from mount.posix.acl import ACCESS, DEFAULT, acl, encode
from mount.posix.users import User, alice, carol, root
from mount.support import ServedMount, serve

Case = Callable[[Path], object]
YEAR_2001 = 1_000_000_000


class Pair(NamedTuple):
    """One source, mounted twice: answered in C where that is possible, and in Python alone."""

    source: Path
    fast: Path
    slow: Path


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("io_uring", True), marks=pytest.mark.ring, id="io_uring"),
        pytest.param(("io_uring", False), marks=pytest.mark.ring, id="io_uring-filesystem_checks"),
        pytest.param(("dev_fuse", True), id="dev_fuse"),
    ],
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    transport, kernel_checks = request.param
    folder = tmp_path_factory.mktemp("fast")
    for above in (folder, folder.parent, folder.parent.parent):
        above.chmod(0o755)  # pytest's own are closed to other users
    source = folder / "source"
    source.mkdir()
    with ExitStack() as stack:
        mounts: list[ServedMount] = [
            stack.enter_context(
                serve(
                    folder,
                    filesystem="passthrough",
                    options={"source": str(source), "fast": fast},
                    transport=transport,
                    cache="none",
                    default_permissions=kernel_checks,
                    allow_other=True,
                )
            )
            for fast in (True, False)
        ]
        yield Pair(source, mounts[0].path, mounts[1].path)


def fill(folder: Path) -> None:
    """What the cases begin with, made natively."""
    folder.mkdir(mode=0o755)
    folder.chmod(0o777)
    for name, mode, owner in (("file", 0o644, root), ("hers", 0o664, alice), ("setuid", 0o6755, alice)):
        (folder / name).write_bytes(b"x" * 100)
        os.chown(folder / name, owner.uid, owner.gid)
        (folder / name).chmod(mode)
    for name, mode, owner in (
        ("empty", 0o755, root),
        ("herempty", 0o755, alice),
        ("full", 0o755, alice),
        ("setgid", 0o2777, alice),
        ("sticky", 0o1777, root),
        ("closed", 0o700, root),
        ("listed", 0o777, root),
    ):
        (folder / name).mkdir()
        os.chown(folder / name, owner.uid, owner.gid)
        (folder / name).chmod(mode)
    (folder / "full" / "inner").touch()
    for name, owner in (("roots", root), ("hers", alice)):
        (folder / "sticky" / name).touch()
        os.chown(folder / "sticky" / name, owner.uid, owner.gid)
    os.setxattr(folder / "listed", DEFAULT, encode(acl(7, 5, 0, users={alice.uid: 6}, mask=7)))
    os.setxattr(folder / "hers", "user.comment", b"words")
    os.setxattr(folder / "hers", "trusted.secret", b"words")
    os.symlink("file", folder / "link")
    os.mkfifo(folder / "fifo", 0o666)


def fd_of(path: Path, flags: int, mode: int = 0o666) -> int:
    fd = os.open(path, flags, mode)
    os.close(fd)
    return 0


def written(path: Path) -> int:
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o640)
    try:
        os.write(fd, b"abc")
        os.fchmod(fd, 0o604)
        os.utime(fd, (YEAR_2001, YEAR_2001))
        os.ftruncate(fd, 2)
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def unlinked_while_open(path: Path) -> tuple[int, int]:
    fd = os.open(path, os.O_RDWR)
    try:
        os.unlink(path)
        os.fchmod(fd, 0o600)
        found = os.fstat(fd)
        return found.st_nlink, found.st_mode
    finally:
        os.close(fd)


def removed_while_at_work(path: Path) -> tuple[int, int]:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        os.rmdir(path)
        found = os.fstat(fd)
        return found.st_nlink, stat.S_IFMT(found.st_mode)
    finally:
        os.close(fd)


def times(path: Path) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_atime_ns, found.st_mtime_ns


def set_times(path: Path, atime: int, mtime: int) -> tuple[int, int]:
    os.utime(path, ns=(atime, mtime), follow_symlinks=False)
    return times(path)


def set_now(path: Path) -> bool:
    os.utime(path)
    return abs(os.stat(path).st_mtime - time.time()) < 60


LONG = "n" * 255
CASES: dict[str, Case] = {
    "create": lambda top: fd_of(top / "new", os.O_CREAT | os.O_WRONLY),
    "create exclusively": lambda top: fd_of(top / "new", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o6777),
    "create what is there": lambda top: fd_of(top / "file", os.O_CREAT | os.O_EXCL | os.O_RDWR),
    "create appending": lambda top: fd_of(top / "new", os.O_CREAT | os.O_APPEND | os.O_WRONLY),
    "create truncating": lambda top: fd_of(top / "new", os.O_CREAT | os.O_TRUNC | os.O_WRONLY),
    "create read-only": lambda top: fd_of(top / "new", os.O_CREAT | os.O_RDONLY, 0o400),
    "create and change": lambda top: written(top / "new"),
    "create in a setgid folder": lambda top: fd_of(top / "setgid" / "new", os.O_CREAT | os.O_WRONLY, 0o2777),
    "create in a sticky folder": lambda top: fd_of(top / "sticky" / "new", os.O_CREAT | os.O_WRONLY),
    "create in a folder with a default list": lambda top: fd_of(top / "listed" / "new", os.O_CREAT | os.O_WRONLY),
    "create in a closed folder": lambda top: fd_of(top / "closed" / "new", os.O_CREAT | os.O_WRONLY),
    "create in a file": lambda top: fd_of(top / "file" / "new", os.O_CREAT | os.O_WRONLY),
    "create a long name": lambda top: fd_of(top / LONG, os.O_CREAT | os.O_WRONLY),
    "create too long a name": lambda top: fd_of(top / (LONG + "n"), os.O_CREAT | os.O_WRONLY),
    "mkdir": lambda top: os.mkdir(top / "new"),
    "mkdir with all bits": lambda top: os.mkdir(top / "new", 0o7777),
    "mkdir what is there": lambda top: os.mkdir(top / "empty"),
    "mkdir in a setgid folder": lambda top: os.mkdir(top / "setgid" / "new"),
    "mkdir in a folder with a default list": lambda top: os.mkdir(top / "listed" / "new"),
    "mkdir in a closed folder": lambda top: os.mkdir(top / "closed" / "new"),
    "mkdir in nothing": lambda top: os.mkdir(top / "missing" / "new"),
    "mkfifo": lambda top: os.mkfifo(top / "new", 0o640),
    "mknod of a device": lambda top: os.mknod(top / "new", stat.S_IFCHR | 0o640, os.makedev(1, 3)),
    "mknod of a file": lambda top: os.mknod(top / "setgid" / "new", stat.S_IFREG | 0o640),
    "symlink": lambda top: os.symlink("anywhere", top / "new"),
    "symlink what is there": lambda top: os.symlink("anywhere", top / "file"),
    "symlink in a setgid folder": lambda top: os.symlink("t" * 4095, top / "setgid" / "new"),
    "readlink": lambda top: os.readlink(top / "link"),
    "readlink of a file": lambda top: os.readlink(top / "file"),
    "link": lambda top: os.link(top / "hers", top / "new"),
    "link a link": lambda top: os.link(top / "link", top / "new", follow_symlinks=False),
    "link a folder": lambda top: os.link(top / "empty", top / "new"),
    "link what is there": lambda top: os.link(top / "hers", top / "file"),
    "unlink": lambda top: os.unlink(top / "file"),
    "unlink a link": lambda top: os.unlink(top / "link"),
    "unlink a fifo": lambda top: os.unlink(top / "fifo"),
    "unlink a folder": lambda top: os.unlink(top / "empty"),
    "unlink nothing": lambda top: os.unlink(top / "missing"),
    "unlink while open": lambda top: unlinked_while_open(top / "hers"),
    "unlink in a sticky folder": lambda top: os.unlink(top / "sticky" / "roots"),
    "unlink one's own in a sticky folder": lambda top: os.unlink(top / "sticky" / "hers"),
    "unlink in a closed folder": lambda top: os.unlink(top / "closed" / "new"),
    "rmdir": lambda top: os.rmdir(top / "empty"),
    "rmdir of a full folder": lambda top: os.rmdir(top / "full"),
    "rmdir of a file": lambda top: os.rmdir(top / "file"),
    "rmdir of nothing": lambda top: os.rmdir(top / "missing"),
    "rmdir at work": lambda top: removed_while_at_work(top / "herempty"),
    "rename": lambda top: os.rename(top / "file", top / "new"),
    "rename elsewhere": lambda top: os.rename(top / "file", top / "setgid" / "new"),
    "rename over a file": lambda top: os.rename(top / "file", top / "hers"),
    "rename over a fifo": lambda top: os.rename(top / "file", top / "fifo"),
    "rename over a folder": lambda top: os.rename(top / "file", top / "empty"),
    "rename a folder over one": lambda top: os.rename(top / "full", top / "empty"),
    "rename a folder over a full one": lambda top: os.rename(top / "empty", top / "full"),
    "rename into itself": lambda top: os.rename(top / "full", top / "full" / "new"),
    "rename nothing": lambda top: os.rename(top / "missing", top / "new"),
    "rename in a sticky folder": lambda top: os.rename(top / "sticky" / "roots", top / "sticky" / "new"),
    "rename out of a sticky folder": lambda top: os.rename(top / "sticky" / "hers", top / "new"),
    "chmod": lambda top: os.chmod(top / "hers", 0o6751),
    "chmod of another's": lambda top: os.chmod(top / "file", 0o600),
    "chmod of a folder": lambda top: os.chmod(top / "herempty", 0o3750),
    "chown": lambda top: os.chown(top / "hers", 12345, 54321),
    "chown to one's group": lambda top: os.chown(top / "setuid", -1, alice.gid),
    "chown of nothing": lambda top: os.chown(top / "setuid", -1, -1),
    "chown of a link": lambda top: os.lchown(top / "link", 12345, 54321),
    "truncate": lambda top: os.truncate(top / "hers", 10),
    "truncate a setuid file": lambda top: os.truncate(top / "setuid", 10),
    "truncate a folder": lambda top: os.truncate(top / "empty", 10),
    "lengthen": lambda top: os.truncate(top / "hers", 1 << 33),
    "set times": lambda top: set_times(top / "hers", -1_500_000_000, 1_700_000_000_123_456_789),
    "set times of another's": lambda top: set_times(top / "file", YEAR_2001, YEAR_2001),
    "set times of a link": lambda top: set_times(top / "link", 1, 2),
    "set times to now": lambda top: set_now(top / "hers"),
    "access": lambda top: [os.access(top / name, os.R_OK | os.W_OK) for name in ("file", "hers", "closed")],
    "an attribute": lambda top: os.getxattr(top / "hers", "user.comment"),
    "a missing attribute": lambda top: os.getxattr(top / "hers", "user.missing"),
    "a secret attribute": lambda top: os.getxattr(top / "hers", "trusted.secret"),
    "an attribute of a link": lambda top: os.getxattr(top / "link", "user.x", follow_symlinks=False),
    "attributes": lambda top: sorted(os.listxattr(top / "hers")),
    "a list": lambda top: os.getxattr(top / "listed", DEFAULT),
    "no list": lambda top: os.getxattr(top / "hers", ACCESS),
    "space": lambda top: [getattr(os.statvfs(top / "hers"), name) for name in ("f_bsize", "f_frsize", "f_namemax")],
}


def outcome(case: Case, top: Path) -> object:
    try:
        return case(top)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def shown(folder: Path) -> dict[str, object]:
    """All that is in a folder, but for numbers and times."""
    found: dict[str, object] = {}
    for top, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            path = os.path.join(top, name)
            at = os.lstat(path)
            size = None if stat.S_ISDIR(at.st_mode) else at.st_size
            attributes = [(key, os.getxattr(path, key)) for key in os.listxattr(path, follow_symlinks=False)]
            target = os.readlink(path) if stat.S_ISLNK(at.st_mode) else ""
            about = (oct(at.st_mode), at.st_nlink, at.st_uid, at.st_gid, at.st_rdev, size, sorted(attributes), target)
            found[os.path.relpath(path, folder)] = about
    return found


def all_cases(mount: Path, umask: int) -> dict[str, object]:
    os.umask(umask)
    return {name: outcome(case, mount / f"case{number}") for number, (name, case) in enumerate(CASES.items())}


@pytest.mark.parametrize(("user", "umask"), [(root, 0o022), (alice, 0o027), (carol, 0)])
def test_changes_have_the_same_outcome(pair: Pair, user: User, umask: int) -> None:
    results = []
    for mount in (pair.fast, pair.slow):
        for number in range(len(CASES)):
            fill(pair.source / f"case{number}")
        outcomes = user(all_cases, mount, umask)
        left = [shown(pair.source / f"case{number}") for number in range(len(CASES))]
        results.append({name: (outcomes[name], left[number]) for number, name in enumerate(CASES)})
        for number in range(len(CASES)):
            shutil.rmtree(pair.source / f"case{number}")
    for name in CASES:
        assert results[0][name] == results[1][name], name
