"""copy_file_range(2), sendfile(2), splice(2)."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.posix.expect import may_be_refused, opened, refused
from mount.posix.kinds import make_file, make_folder

DATA = bytes(range(256)) * 2000


@pytest.fixture
def source(folder: Path) -> Iterator[int]:
    """A file of 512,000 bytes, open for reading."""
    with opened(make_file(folder / "source", DATA), os.O_RDONLY) as fd:
        yield fd


@pytest.fixture
def into(folder: Path) -> Iterator[int]:
    """An empty file, open for reading and writing."""
    with opened(make_file(folder / "target")) as fd:
        yield fd


def copy_all(source: int, target: int, length: int, offset: int, at: int) -> int:
    """Copies as cp(1) does, until nothing comes."""
    done = 0
    while done < length and (count := os.copy_file_range(source, target, length - done, offset + done, at + done)):
        done += count
    return done


@pytest.mark.parametrize(
    ("length", "offset", "at"), [(len(DATA), 0, 0), (100, 5, 7), (300_000, 4096, 1 << 20), (1 << 20, 500_000, 0)]
)
def test_a_range_is_copied(source: int, into: int, length: int, offset: int, at: int) -> None:
    expected = DATA[offset : offset + length]
    assert copy_all(source, into, length, offset, at) == len(expected)
    assert os.pread(into, 1 << 22, 0) == bytes(at) + expected
    assert os.fstat(into).st_size == at + len(expected)


def test_the_places_of_both_files_move_unless_offsets_are_given(source: int, into: int) -> None:
    os.lseek(source, 10, os.SEEK_SET)
    os.lseek(into, 5, os.SEEK_SET)
    assert os.copy_file_range(source, into, 20) == 20
    assert (os.lseek(source, 0, os.SEEK_CUR), os.lseek(into, 0, os.SEEK_CUR)) == (30, 25)
    assert os.copy_file_range(source, into, 20, 0, 0) == 20
    assert (os.lseek(source, 0, os.SEEK_CUR), os.lseek(into, 0, os.SEEK_CUR)) == (30, 25)


def test_nothing_comes_from_beyond_the_end(source: int, into: int) -> None:
    assert os.copy_file_range(source, into, 100, len(DATA), 0) == 0
    assert os.copy_file_range(source, into, 100, len(DATA) - 5, 0) == 5
    assert os.copy_file_range(source, into, 0, 0, 0) == 0
    assert os.fstat(into).st_size == 5


def test_a_copy_within_a_file_must_not_overlap(folder: Path) -> None:
    with opened(make_file(folder / "x", b"0123456789")) as fd:
        assert os.copy_file_range(fd, fd, 3, 0, 7) == 3
        with refused(errno.EINVAL):
            os.copy_file_range(fd, fd, 5, 0, 2)
        assert os.pread(fd, 100, 0) == b"0123456012"


def test_what_is_overwritten_is_seen_everywhere(folder: Path, source: int) -> None:
    path = make_file(folder / "x", b"x" * 10_000)
    with opened(path) as reader, opened(path) as writer:
        assert os.pread(reader, 3, 0) == b"xxx"
        os.copy_file_range(source, writer, 5000, 0, 100)
        assert os.pread(reader, 10_000, 0) == b"x" * 100 + DATA[:5000] + b"x" * 4900


def test_what_was_written_before_is_copied(folder: Path, into: int) -> None:
    with opened(make_file(folder / "x")) as fd:
        for number in range(20):
            os.pwrite(fd, b"%2d" % number, 0)
            os.copy_file_range(fd, into, 2, 0, 2 * number)
    assert os.pread(into, 100, 0) == b"".join(b"%2d" % number for number in range(20))


def test_both_must_be_files_that_are_open_for_it(folder: Path, source: int, into: int) -> None:
    with refused(errno.EBADF):
        os.copy_file_range(into, source, 10)
    with opened(folder / "target", os.O_WRONLY) as unreadable, refused(errno.EBADF):
        os.copy_file_range(unreadable, into, 10, 0, 100)
    with opened(folder / "target", os.O_WRONLY | os.O_APPEND) as appending, refused(errno.EBADF):
        os.copy_file_range(source, appending, 10)
    with opened(make_folder(folder / "inner"), os.O_RDONLY) as inner, refused(errno.EISDIR):
        os.copy_file_range(inner, into, 10)


def test_another_filesystem_is_copied_from_in_the_kernel_or_not_at_all(folder: Path, tmp_path: Path, into: int) -> None:
    """copy_file_range(2) says EXDEV between types of filesystems; sendfile(2) does it."""
    (tmp_path / "x").write_bytes(DATA)
    with opened(tmp_path / "x", os.O_RDONLY) as foreign:
        with may_be_refused(errno.EXDEV):
            assert os.copy_file_range(foreign, into, len(DATA), 0, 0) > 0
        os.ftruncate(into, 0)
        assert os.sendfile(into, foreign, 0, len(DATA)) == len(DATA)
    assert os.pread(into, 1 << 22, 0) == DATA


def test_files_are_sent_and_spliced(source: int, into: int) -> None:
    assert os.sendfile(into, source, 100, 50_000) == 50_000
    assert os.pread(into, 1 << 20, 0) == DATA[100:50_100]
    reader, writer = os.pipe()
    assert os.splice(source, writer, 4096, offset_src=1000) == 4096
    assert os.splice(reader, into, 4096, offset_dst=60_000) == 4096
    assert os.pread(into, 4096, 60_000) == DATA[1000:5096]
    os.close(reader)
    os.close(writer)
