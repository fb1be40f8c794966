"""A read-only mount: EROFS to whatever would change something, and to nothing else."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from mount.posix import syscalls
from mount.posix.expect import opened, refused, times
from mount.posix.kinds import make_file, make_folder
from mount.posix.targets import system, tmpfs
from mount.posix.users import alice
from mount.support import serve

Call = Callable[[Path], object]


@contextlib.contextmanager
def natively(folder: Path, source: Path) -> Iterator[Path]:
    shown = make_folder(folder / "shown")
    system("mount", "--bind", str(source), str(shown))
    try:
        system("mount", "-o", "remount,bind,ro", str(shown))
        yield shown
    finally:
        system("umount", "-l", str(shown))


@contextlib.contextmanager
def by_passthrough(folder: Path, source: Path) -> Iterator[Path]:
    with serve(folder, filesystem="passthrough", options={"source": str(source)}, read_only=True) as served:
        yield served.path


@contextlib.contextmanager
def by_memory(folder: Path, source: Path) -> Iterator[Path]:
    with serve(folder, filesystem="memory", read_only=True) as served:
        yield served.path


@contextlib.contextmanager
def shown(way: Callable[[Path, Path], contextlib.AbstractContextManager[Path]]) -> Iterator[Path]:
    """A read-only view of a small tree; memory has nothing in it."""
    with TemporaryDirectory(prefix="ringmount-readonly-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with tmpfs(folder) as source:
            make_file(source / "file", b"content", 0o666)
            make_folder(source / "inner", 0o777)
            os.symlink("file", source / "link")
            os.mkfifo(source / "fifo")
            os.setxattr(source / "file", "user.x", b"value")
            with way(folder, source) as path:
                yield path


@pytest.fixture(scope="module", params=[natively, by_passthrough])
def tree(request: pytest.FixtureRequest) -> Iterator[Path]:
    with shown(request.param) as path:
        yield path


@pytest.fixture(scope="module", params=[natively, by_passthrough, by_memory])
def top(request: pytest.FixtureRequest) -> Iterator[Path]:
    with shown(request.param) as path:
        yield path


def opening(name: str, flags: int) -> Call:
    return lambda top: os.close(os.open(top / name, flags, 0o644))


IN_THE_TREE: dict[str, Call] = {
    "chmod": lambda top: os.chmod(top / "file", 0o600),
    "chown": lambda top: os.chown(top / "file", 0, 0),
    "lchown": lambda top: os.lchown(top / "link", 0, 0),
    "link": lambda top: os.link(top / "file", top / "new"),
    "open O_WRONLY": opening("file", os.O_WRONLY),
    "open O_RDWR": opening("file", os.O_RDWR),
    "open O_TRUNC": opening("file", os.O_RDONLY | os.O_TRUNC),
    "removexattr": lambda top: os.removexattr(top / "file", "user.x"),
    "rename": lambda top: os.rename(top / "file", top / "new"),
    "rename over": lambda top: os.rename(top / "file", top / "link"),
    "exchange": lambda top: syscalls.renameat2(top / "file", top / "inner", syscalls.RENAME_EXCHANGE),
    "rmdir": lambda top: os.rmdir(top / "inner"),
    "setxattr": lambda top: os.setxattr(top / "file", "user.x", b"other"),
    "touch": lambda top: syscalls.touch(top / "file"),
    "truncate": lambda top: os.truncate(top / "file", 0),
    "unlink": lambda top: os.unlink(top / "file"),
    "utimensat": lambda top: syscalls.utimensat(top / "file", 0, 0),
}

AT_THE_TOP: dict[str, Call] = {
    "chmod": lambda top: os.chmod(top, 0o700),
    "chown": lambda top: os.chown(top, 0, 0),
    "mkdir": lambda top: os.mkdir(top / "new"),
    "mkfifo": lambda top: os.mkfifo(top / "new"),
    "mknod": lambda top: os.mknod(top / "new"),
    "open O_CREAT": opening("new", os.O_CREAT | os.O_RDONLY),
    "open O_EXCL": opening("new", os.O_CREAT | os.O_EXCL | os.O_RDWR),
    "open O_TMPFILE": opening(".", os.O_TMPFILE | os.O_RDWR),
    "setxattr": lambda top: os.setxattr(top, "user.x", b"value"),
    "symlink": lambda top: os.symlink("target", top / "new"),
    "utimensat": lambda top: syscalls.utimensat(top, 0, 0),
}


@pytest.mark.parametrize("call", IN_THE_TREE.values(), ids=IN_THE_TREE)
def test_what_is_there_is_not_changed(tree: Path, call: Call) -> None:
    with refused(errno.EROFS):
        call(tree)
    if call is not IN_THE_TREE["chown"]:
        with refused(errno.EROFS, errno.EPERM):
            alice(call, tree)


@pytest.mark.parametrize("call", AT_THE_TOP.values(), ids=AT_THE_TOP)
def test_nothing_is_made(top: Path, call: Call) -> None:
    with refused(errno.EROFS):
        call(top)


def test_what_exists_is_said_to_exist(tree: Path) -> None:
    for call in (os.mkdir, os.mkfifo, lambda path: os.symlink("x", path)):
        with refused(errno.EEXIST):
            call(tree / "file")
    with refused(errno.EEXIST):
        os.open(tree / "file", os.O_CREAT | os.O_EXCL | os.O_RDWR)


def test_what_is_not_there_is_said_not_to_be(tree: Path) -> None:
    for call in (
        lambda path: os.chmod(path, 0),
        lambda path: os.open(path, os.O_RDWR),
        lambda path: os.truncate(path, 0),
    ):
        with refused(errno.ENOENT):
            call(tree / "missing")


def test_reading_works_and_leaves_no_trace(tree: Path) -> None:
    before = times(tree / "file"), times(tree)
    assert (tree / "file").read_bytes() == b"content"
    assert os.readlink(tree / "link") == "file"
    assert sorted(os.listdir(tree)) == ["fifo", "file", "inner", "link"]
    assert os.getxattr(tree / "file", "user.x") == b"value"
    os.close(os.open(tree / "file", os.O_CREAT | os.O_RDONLY))
    assert (times(tree / "file"), times(tree)) == before


def test_nobody_may_write(tree: Path) -> None:
    assert not os.access(tree / "file", os.W_OK)
    assert not os.access(tree / "inner", os.W_OK)
    assert os.access(tree / "file", os.R_OK)
    assert os.statvfs(tree).f_flag & os.ST_RDONLY


def test_a_fifo_is_not_of_the_filesystem(tree: Path) -> None:
    assert os.access(tree / "fifo", os.W_OK)
    with opened(tree / "fifo", os.O_RDWR) as fd:
        os.write(fd, b"x")
        assert os.read(fd, 1) == b"x"
