"""What a name may be, and how long."""

import errno
import os
from pathlib import Path

import pytest
from mount.posix import kinds
from mount.posix.each import each
from mount.posix.expect import opened, refused
from mount.posix.kinds import Kind, make, make_file, make_folder

NAMES = [
    b"x",
    b"n" * 255,
    b"n" * 254,
    b"\xff\xfe\x80",
    "ä".encode()[:1],
    "größe".encode("latin-1"),
    "漢".encode() * 85,
    b"two\nlines",
    bytes(range(1, 32)),
    b"a\\b",
    b"a'b\"c`d",
    b"...",
    b".x",
    b"..x",
    b"x.",
    b"  x  ",
    b"*?[x]",
    b"-rf",
    bytes(range(128, 256)),
    b".fuse_hidden0000000100000001",
]


def tour(base: bytes, kind: Kind, name: bytes) -> None:
    """Everything that can be done with a name."""
    path = os.path.join(base, name)
    with pytest.raises(FileNotFoundError):
        os.lstat(path)
    make(kind, Path(os.fsdecode(path)))
    made = os.lstat(path)
    with os.scandir(base) as found:
        assert [(entry.name, entry.inode()) for entry in found] == [(name, made.st_ino)]
    os.rename(path, base + b"/other")
    os.rename(base + b"/other", path)
    if kind is not Kind.FOLDER:
        os.link(path, base + b"/other", follow_symlinks=False)
        os.unlink(path)
        os.link(base + b"/other", path, follow_symlinks=False)
        os.unlink(base + b"/other")
    assert os.path.samestat(made, os.lstat(path))
    (os.rmdir if kind is Kind.FOLDER else os.unlink)(path)
    assert os.listdir(base) == []


@each("kind", [Kind.FILE, Kind.FOLDER, Kind.SYMLINK, Kind.FIFO])
def test_any_bytes_but_slash_and_nul_are_a_name(folder: Path, kind: Kind) -> None:
    for name in NAMES:
        tour(os.fsencode(folder), kind, name)


@each("kind", kinds.ALL)
def test_a_name_of_256_bytes_is_too_long(folder: Path, kind: Kind) -> None:
    with refused(errno.ENAMETOOLONG):
        make(kind, folder / ("n" * 256))
    make(kind, folder / "x")
    with refused(errno.ENAMETOOLONG):
        os.rename(folder / "x", folder / ("n" * 256))
    if kind is not Kind.FOLDER:
        with refused(errno.ENAMETOOLONG):
            os.link(folder / "x", folder / ("n" * 256), follow_symlinks=False)
    assert os.listdir(folder) == ["x"]


def test_the_limit_is_told(folder: Path) -> None:
    assert os.pathconf(folder, "PC_NAME_MAX") == 255
    assert os.statvfs(folder).f_namemax == 255


def test_names_that_look_alike_differ(folder: Path) -> None:
    names = ["x", "X", "\u00e9", "e\u0301", "\u0131", "i", "I", "x ", "x."]
    for name in names:
        make_file(folder / name, name.encode())
    assert sorted(os.listdir(folder)) == sorted(names)
    for name in names:
        assert (folder / name).read_bytes() == name.encode()


def test_a_tree_may_be_deeper_than_a_path_is_long(folder: Path) -> None:
    """Reached step by step; its path as a whole cannot be told."""
    name = "d" * 200
    fd = os.open(folder, os.O_RDONLY)
    try:
        for _ in range(30):
            os.mkdir(name, dir_fd=fd)
            inner = os.open(name, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = inner
        os.close(os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        for _ in range(30):
            outer = os.open("..", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = outer
        assert os.path.samestat(os.fstat(fd), os.stat(folder))
    finally:
        os.close(fd)
    with refused(errno.ENAMETOOLONG):
        os.stat("/".join([str(folder), *[name] * 30]))


def test_dots_mean_the_folder_and_the_one_around(folder: Path) -> None:
    inner = make_folder(folder / "inner")
    make_file(folder / "x", b"content")
    for path in (f"{inner}/../x", f"{inner}/./../inner/../x", f"{folder}//x", f"{folder}/.//./x"):
        with opened(os.fsencode(path), os.O_RDONLY) as fd:
            assert os.read(fd, 100) == b"content"
    with refused(errno.ENOTDIR):
        os.stat(f"{folder}/x/..")
