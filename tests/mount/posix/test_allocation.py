"""Holes: fallocate(2), and lseek(2) with SEEK_DATA and SEEK_HOLE."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.posix.expect import age, changed, opened, refused
from mount.posix.kinds import make_file, make_folder
from mount.posix.syscalls import (
    FALLOC_COLLAPSE_RANGE,
    FALLOC_INSERT_RANGE,
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    FALLOC_ZERO_RANGE,
    fallocate,
)
from mount.posix.targets import on_ext4

PUNCH = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE
UNIT = 1 << 16
"""Ranges that begin and end at multiples of it become holes: the memory filesystem has chunks of 64 KiB."""

PAGE = 4096
CONTENT = b"x" * 16 * PAGE


@pytest.fixture
def file(folder: Path) -> Iterator[int]:
    """A file of sixteen pages, all written, open for reading and writing."""
    with opened(make_file(folder / "file", CONTENT)) as fd:
        yield fd


def seek(fd: int, offset: int, whence: int) -> int | str:
    """Where lseek(2) goes, or the name of its error."""
    try:
        return os.lseek(fd, offset, whence)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


# --- fallocate -------------------------------------------------------------------------------------------------------


def test_allocation_grows_the_file_and_takes_space(folder: Path) -> None:
    with opened(make_file(folder / "x", b"content")) as fd:
        fallocate(fd, 0, 0, 100_000)
        found = os.fstat(fd)
        assert found.st_size == 100_000
        assert found.st_blocks * 512 >= 100_000
        assert os.pread(fd, 1 << 20, 0) == b"content" + bytes(99_993)


def test_allocation_may_keep_the_length(folder: Path) -> None:
    with opened(make_file(folder / "x", b"content")) as fd:
        fallocate(fd, FALLOC_KEEP_SIZE, 0, 100_000)
        found = os.fstat(fd)
        assert found.st_size == 7
        assert found.st_blocks * 512 >= 100_000
        os.ftruncate(fd, 1000)
        assert os.pread(fd, 2000, 0) == b"content" + bytes(993)


def test_allocation_within_a_file_changes_no_content(file: int) -> None:
    fallocate(file, 0, PAGE, PAGE)
    assert os.fstat(file).st_size == 16 * PAGE
    assert os.pread(file, 1 << 20, 0) == CONTENT


def test_allocation_beyond_the_end_leaves_zeros_between(file: int) -> None:
    os.posix_fallocate(file, 20 * PAGE, PAGE)
    assert os.fstat(file).st_size == 21 * PAGE
    assert os.pread(file, 1 << 20, 0) == CONTENT + bytes(5 * PAGE)


def test_a_punched_range_reads_as_zeros(file: int) -> None:
    for offset, length in ((0, PAGE), (PAGE, 3 * PAGE), (100, 200), (100, 2 * PAGE), (15 * PAGE, 9 * PAGE)):
        os.pwrite(file, CONTENT, 0)
        fallocate(file, PUNCH, offset, length)
        expected = bytearray(CONTENT)
        expected[offset : offset + length] = bytes(length)
        assert os.fstat(file).st_size == 16 * PAGE
        assert os.pread(file, 1 << 20, 0) == expected[: 16 * PAGE]


def test_punching_gives_space_back(file: int) -> None:
    os.pwrite(file, b"x" * 16 * UNIT, 0)
    os.fsync(file)
    before = os.fstat(file).st_blocks
    fallocate(file, PUNCH, 2 * UNIT, 8 * UNIT)
    os.fsync(file)
    assert os.fstat(file).st_blocks == before - 8 * UNIT // 512
    os.pwrite(file, b"y", 4 * UNIT)
    assert os.pread(file, 2, 4 * UNIT) == b"y\0"


def test_punching_beyond_the_end_does_nothing(file: int) -> None:
    fallocate(file, PUNCH, 100 * PAGE, PAGE)
    assert os.fstat(file).st_size == 16 * PAGE


def test_allocation_changes_mtime_and_ctime(folder: Path) -> None:
    path = make_file(folder / "x", CONTENT)
    for mode, offset in ((0, 16 * PAGE), (PUNCH, 0)):
        before = age(path)
        with opened(path) as fd:
            fallocate(fd, mode, offset, PAGE)
        assert changed(path, before) == "mc"


def test_a_range_is_not_negative_and_not_empty(file: int) -> None:
    for offset, length in ((-1, 10), (0, 0), (0, -1), (10, -5)):
        for mode in (0, FALLOC_KEEP_SIZE, PUNCH):
            with refused(errno.EINVAL):
                fallocate(file, mode, offset, length)


def test_a_range_has_an_end(file: int) -> None:
    with refused(errno.EFBIG):
        fallocate(file, 0, (1 << 63) - 100, 200)


def test_modes_that_make_no_sense_are_refused(file: int) -> None:
    for mode in (FALLOC_PUNCH_HOLE, 0x4000, FALLOC_COLLAPSE_RANGE | FALLOC_PUNCH_HOLE):
        with refused(errno.EOPNOTSUPP, errno.EINVAL):
            fallocate(file, mode, 0, PAGE)
    assert os.pread(file, 1 << 20, 0) == CONTENT


def test_only_files_open_for_writing_are_allocated(folder: Path) -> None:
    with opened(make_file(folder / "x"), os.O_RDONLY) as fd, refused(errno.EBADF):
        fallocate(fd, 0, 0, PAGE)
    with opened(make_folder(folder / "inner"), os.O_RDONLY) as fd, refused(errno.EBADF):
        fallocate(fd, 0, 0, PAGE)
    os.mkfifo(folder / "fifo")
    with opened(folder / "fifo", os.O_RDWR) as fd, refused(errno.ESPIPE):
        fallocate(fd, 0, 0, PAGE)
    with opened(folder / "x", os.O_RDWR | os.O_APPEND) as fd:
        fallocate(fd, 0, 0, PAGE)
        assert os.fstat(fd).st_size == PAGE


@on_ext4
def test_zeroing_a_range(file: int) -> None:
    fallocate(file, FALLOC_ZERO_RANGE, 100, 2 * PAGE)
    fallocate(file, FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, 15 * PAGE, 5 * PAGE)
    assert os.fstat(file).st_size == 16 * PAGE
    fallocate(file, FALLOC_ZERO_RANGE, 18 * PAGE, PAGE)
    expected = bytearray(b"x" * 15 * PAGE + bytes(4 * PAGE))
    expected[100 : 100 + 2 * PAGE] = bytes(2 * PAGE)
    assert os.pread(file, 1 << 20, 0) == expected


@on_ext4
def test_a_range_is_taken_out_and_put_in(file: int) -> None:
    os.pwrite(file, b"a" * PAGE + b"b" * PAGE, 0)
    fallocate(file, FALLOC_COLLAPSE_RANGE, 0, PAGE)
    assert os.fstat(file).st_size == 15 * PAGE
    assert os.pread(file, 1 << 20, 0) == b"b" * PAGE + b"x" * 14 * PAGE
    fallocate(file, FALLOC_INSERT_RANGE, PAGE, 2 * PAGE)
    assert os.fstat(file).st_size == 17 * PAGE
    assert os.pread(file, 1 << 20, 0) == b"b" * PAGE + bytes(2 * PAGE) + b"x" * 14 * PAGE
    with refused(errno.EINVAL):
        fallocate(file, FALLOC_COLLAPSE_RANGE, 100, PAGE)
    with refused(errno.EINVAL):
        fallocate(file, FALLOC_COLLAPSE_RANGE, 16 * PAGE, PAGE)


# --- SEEK_DATA and SEEK_HOLE -----------------------------------------------------------------------------------------


def test_a_file_without_holes_ends_with_one(file: int) -> None:
    assert seek(file, 100, os.SEEK_DATA) == 100
    assert seek(file, 100, os.SEEK_HOLE) == 16 * PAGE


def test_a_file_that_is_one_hole_holds_no_data(folder: Path) -> None:
    with opened(make_file(folder / "x")) as fd:
        os.ftruncate(fd, 16 * PAGE)
        assert seek(fd, 0, os.SEEK_DATA) == "ENXIO"
        assert seek(fd, 5, os.SEEK_HOLE) == 5


def test_data_and_holes_take_turns(folder: Path) -> None:
    with opened(make_file(folder / "x")) as fd:
        for unit in (2, 3, 7):
            os.pwrite(fd, b"x" * UNIT, unit * UNIT)
        os.ftruncate(fd, 10 * UNIT)
        os.fsync(fd)
        data = [seek(fd, unit * UNIT, os.SEEK_DATA) for unit in range(10)]
        assert data == [2 * UNIT] * 3 + [3 * UNIT] + [7 * UNIT] * 4 + ["ENXIO"] * 2
        holes = [seek(fd, unit * UNIT, os.SEEK_HOLE) for unit in range(10)]
        assert holes == [unit * UNIT for unit in (0, 1, 4, 4, 4, 5, 6, 8, 8, 9)]
        assert seek(fd, 2 * UNIT + 5, os.SEEK_DATA) == 2 * UNIT + 5


def test_a_punched_hole_is_found(file: int) -> None:
    os.pwrite(file, b"x" * 16 * UNIT, 0)
    os.fsync(file)
    fallocate(file, PUNCH, 4 * UNIT, 4 * UNIT)
    assert seek(file, 0, os.SEEK_HOLE) == 4 * UNIT
    assert seek(file, 4 * UNIT, os.SEEK_DATA) == 8 * UNIT


def test_outside_of_the_file_is_neither(file: int) -> None:
    os.lseek(file, 5, os.SEEK_SET)
    for offset in (16 * PAGE, 16 * PAGE + 1, -1, 1 << 62):
        assert seek(file, offset, os.SEEK_DATA) == seek(file, offset, os.SEEK_HOLE) == "ENXIO"
    assert os.lseek(file, 0, os.SEEK_CUR) == 5


def test_an_empty_file_is_neither(folder: Path) -> None:
    with opened(make_file(folder / "x")) as fd:
        assert seek(fd, 0, os.SEEK_DATA) == seek(fd, 0, os.SEEK_HOLE) == "ENXIO"


def test_the_place_moves_to_what_was_found(file: int) -> None:
    os.ftruncate(file, 0)
    os.pwrite(file, b"data", 8 * UNIT)
    os.fsync(file)
    os.lseek(file, 0, os.SEEK_DATA)
    assert os.read(file, 10) == b"data"
