"""statvfs(2), and a filesystem that is full."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from mount.posix.expect import opened, outcome, refused
from mount.posix.kinds import make_file
from mount.posix.targets import INODES, MIB, SIZE, Target


def test_the_filesystem_tells_its_size(folder: Path) -> None:
    found = os.statvfs(folder)
    assert found.f_bsize >= 512
    assert found.f_frsize >= 512
    assert SIZE * 0.8 < found.f_blocks * found.f_frsize < SIZE * 1.3
    assert found.f_bavail <= found.f_bfree <= found.f_blocks
    assert 0 < found.f_ffree <= found.f_files
    assert not found.f_flag & os.ST_RDONLY


def test_any_object_tells_it(folder: Path) -> None:
    make_file(folder / "x")
    os.symlink("x", folder / "link")
    whole = os.statvfs(folder)
    for path in (folder / "x", folder / "link"):
        assert os.statvfs(path)[:3] == whole[:3]
    with opened(folder / "x") as fd:
        os.unlink(folder / "x")
        assert os.fstatvfs(fd)[:3] == whole[:3]


def test_files_take_space_and_numbers(folder: Path) -> None:
    before = os.statvfs(folder)
    with opened(make_file(folder / "x")) as fd:
        os.write(fd, b"x" * MIB)
        os.fsync(fd)
        after = os.statvfs(folder)
        assert after.f_ffree == before.f_ffree - 1
        assert (before.f_bfree - after.f_bfree) * before.f_frsize >= MIB


def fill(fd: int) -> int:
    """Writes until there is no space; returns the bytes."""
    written = 0
    with refused(errno.ENOSPC):
        while True:
            written += os.write(fd, b"x" * MIB)
    return written


def test_a_full_filesystem_takes_no_more_and_loses_nothing(folder: Path) -> None:
    with opened(make_file(folder / "x")) as fd:
        written = fill(fd)
        os.fsync(fd)
        assert os.fstat(fd).st_size >= written > SIZE / 2
        with opened(make_file(folder / "y")) as other:
            with refused(errno.ENOSPC):
                os.posix_fallocate(other, 0, SIZE)
            with refused(errno.ENOSPC):
                for _ in range(2000):
                    os.write(other, b"x" * 4096)
        assert os.pread(fd, 10, written - 10) == b"x" * 10
        os.ftruncate(fd, 0)
        os.unlink(folder / "y")
    make_file(folder / "z", b"z" * MIB)
    assert (folder / "z").read_bytes() == b"z" * MIB
    os.unlink(folder / "z")


def test_more_than_there_is_cannot_be_allocated(folder: Path) -> None:
    with opened(make_file(folder / "x")) as fd:
        with refused(errno.ENOSPC):
            os.posix_fallocate(fd, 0, 2 * SIZE)
        os.ftruncate(fd, 0)


def test_there_are_only_so_many_files(folder: Path, target: Target) -> None:
    """Each takes a number; without a mount between where that is possible, so that they are soon used up."""
    beneath = folder if target.place.kind == "memory" else target.source / folder.name
    made = []
    with refused(errno.ENOSPC):
        for number in range(INODES + 1):
            os.mknod(beneath / str(number))
            made.append(number)
    codes = {name: outcome(call, folder / "one more") for name, call in MAKES.items()}
    for number in made:
        os.unlink(beneath / str(number))
    assert codes == dict.fromkeys(MAKES, "ENOSPC")
    make_file(folder / "one more")


MAKES: dict[str, Callable[[Path], object]] = {
    "mkdir": os.mkdir,
    "mkfifo": os.mkfifo,
    "open": lambda path: os.open(path, os.O_CREAT | os.O_WRONLY),
    "symlink": lambda path: os.symlink("x", path),
    "tmpfile": lambda path: os.open(path.parent, os.O_TMPFILE | os.O_RDWR),
}
