"""Which of a file's times, and of its folder's, an operation changes. More stands beside each call's other tests."""

import fcntl
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from mount.posix.each import each
from mount.posix.expect import age, changed, opened, times
from mount.posix.kinds import make_file, make_folder
from mount.posix.syscalls import DirectoryStream, statx
from mount.posix.targets import on_ext4

SIZE = 10_000


def with_descriptor(call: Callable[[int], object], flags: int = os.O_RDWR) -> Callable[[Path], None]:
    """A call with a descriptor of the folder's file x."""

    def use(folder: Path) -> None:
        with opened(folder / "x", flags) as fd:
            call(fd)

    return use


def list_by_stream(folder: Path) -> None:
    with DirectoryStream(folder) as stream:
        assert len(stream.rest()) == 4


OPERATIONS: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "stat": ("", "", lambda folder: os.stat(folder / "x")),
    "statx": ("", "", lambda folder: statx(folder / "x")),
    "access": ("", "", lambda folder: os.access(folder / "x", os.W_OK)),
    "statvfs": ("", "", lambda folder: os.statvfs(folder / "x")),
    "getxattr": ("", "", lambda folder: os.getxattr(folder / "x", "user.x")),
    "listxattr": ("", "", lambda folder: os.listxattr(folder / "x")),
    "lseek": ("", "", with_descriptor(lambda fd: os.lseek(fd, 0, os.SEEK_END))),
    "seek data": ("", "", with_descriptor(lambda fd: os.lseek(fd, 0, os.SEEK_DATA))),
    "fsync": ("", "", with_descriptor(os.fsync)),
    "lock": ("", "", with_descriptor(lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX))),
    "flock": ("", "", with_descriptor(lambda fd: fcntl.flock(fd, fcntl.LOCK_EX))),
    "write nothing": ("", "", with_descriptor(lambda fd: os.write(fd, b""))),
    "write": ("mc", "", with_descriptor(lambda fd: os.write(fd, b"x"))),
    "append": ("mc", "", with_descriptor(lambda fd: os.write(fd, b"x"), os.O_WRONLY | os.O_APPEND)),
    "pwrite": ("mc", "", with_descriptor(lambda fd: os.pwrite(fd, b"x", 1 << 20))),
    "fallocate": ("mc", "", with_descriptor(lambda fd: os.posix_fallocate(fd, 0, 2 * SIZE))),
    "setxattr": ("c", "", lambda folder: os.setxattr(folder / "x", "user.y", b"value")),
    "removexattr": ("c", "", lambda folder: os.removexattr(folder / "x", "user.x")),
    "listdir": ("", "a", os.listdir),
    "opendir": ("", "", lambda folder: os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))),
    "readdir": ("", "a", list_by_stream),
}
"""Name: what changes of a file, what of its folder, and the operation, given the folder."""


@each(("of_file", "of_folder", "operation"), OPERATIONS)
def test_an_operation_changes_these_times(
    folder: Path, of_file: str, of_folder: str, operation: Callable[[Path], object]
) -> None:
    make_file(folder / "x", b"x" * SIZE)
    make_file(folder / "y")
    os.setxattr(folder / "x", "user.x", b"value")
    before = age(folder / "x"), age(folder)
    operation(folder)
    assert (changed(folder / "x", before[0]), changed(folder, before[1])) == (of_file, of_folder)


READS: dict[str, Callable[[int], object]] = {
    "read": lambda fd: os.read(fd, 100),
    "preadv": lambda fd: os.preadv(fd, [bytearray(10)], 0),
    "pread at the end": lambda fd: os.pread(fd, 100, SIZE - 50),
    "direct": lambda fd: os.preadv(fd, [mmap.mmap(-1, 4096)], 0),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_reading_changes_atime(folder: Path, read: Callable[[int], object]) -> None:
    path = make_file(folder / "x", b"x" * SIZE)
    before = age(path)
    with opened(path, os.O_RDONLY | (os.O_DIRECT if read is READS["direct"] else 0)) as fd:
        read(fd)
    assert changed(path, before) == "a"


def test_reading_at_the_end_changes_nothing_more_than_atime(folder: Path) -> None:
    path = make_file(folder / "x", b"content")
    before = age(path)
    with opened(path, os.O_RDONLY) as fd:
        assert os.pread(fd, 10, 100) == b""
    assert changed(path, before) in ("", "a")


def test_a_copy_reads_one_file_and_writes_the_other(folder: Path) -> None:
    one, two = make_file(folder / "one", b"x" * SIZE), make_file(folder / "two")
    before = age(one), age(two)
    with opened(one, os.O_RDONLY) as source, opened(two) as target:
        assert os.copy_file_range(source, target, SIZE) == SIZE
    assert changed(one, before[0]) == "a"
    assert changed(two, before[1]) == "mc"


def test_mtime_and_ctime_of_a_write_are_the_same_moment(folder: Path) -> None:
    path = make_file(folder / "x")
    age(path)
    with opened(path) as fd:
        os.write(fd, b"content")
    after = times(path)
    assert after.m == after.c


def test_times_of_successive_changes_do_not_go_back(folder: Path) -> None:
    path = make_file(folder / "x")
    inner = make_folder(folder / "inner")
    last = times(path).c
    for number in range(20):
        with opened(path, os.O_WRONLY) as fd:
            os.write(fd, b"x")
        after = times(path).c
        assert after >= last
        make_file(inner / str(number))
        last = times(inner).c
        assert last >= after
        assert times(inner / str(number)).c >= after


def test_open_files_show_the_same_times_as_names(folder: Path) -> None:
    path = make_file(folder / "x", b"content")
    with opened(path) as fd:
        for change in (lambda: os.write(fd, b"x"), lambda: os.fchmod(fd, 0o600), lambda: os.read(fd, 1)):
            age(path)
            change()
            assert times(path) == times(fd)


def test_a_file_tells_when_it_was_made(folder: Path) -> None:
    path = make_file(folder / "x")
    born = statx(path).btime_ns
    assert statx(path).mask & 0x800
    assert 0 < born <= times(path).c
    age(path)
    with opened(path) as fd:
        os.write(fd, b"content")
    os.rename(path, folder / "y")
    assert statx(folder / "y").btime_ns == born


@on_ext4
def test_writing_a_mapping_changes_mtime_and_ctime(folder: Path) -> None:
    """By msync(2) at the latest. A tmpfs never does it."""
    path = make_file(folder / "x", b"x" * SIZE)
    before = age(path)
    with opened(path) as fd, mmap.mmap(fd, SIZE) as mapping:
        mapping[:5] = b"mmap!"
        mapping.flush()
        assert changed(path, before).replace("a", "") == "mc"
