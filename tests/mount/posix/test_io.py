"""read(2), write(2) and their relatives on regular files."""

import ctypes
import errno
import os
import random
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.posix.each import each
from mount.posix.expect import opened, refused
from mount.posix.kinds import make_file, make_folder
from mount.posix.users import Killed, alice, bob

MIB = 1 << 20


def pattern(length: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(length)


@pytest.fixture
def file(folder: Path) -> Iterator[int]:
    """An empty file, open for reading and writing."""
    with opened(folder / "file", os.O_RDWR | os.O_CREAT) as fd:
        yield fd


@each("length", [1, 4095, 4096, 4097, MIB - 1, MIB, MIB + 1, 3 * MIB + 123])
@each("flags", {"plain": 0, "sync": os.O_SYNC, "dsync": os.O_DSYNC})
def test_what_is_written_is_read(folder: Path, length: int, flags: int) -> None:
    data = pattern(length)
    with opened(folder / "x", os.O_RDWR | os.O_CREAT | flags) as fd:
        assert os.write(fd, data) == length
        assert os.pread(fd, length + 10, 0) == data
    assert (folder / "x").read_bytes() == data
    assert os.stat(folder / "x").st_size == length


def test_writes_at_any_place_leave_the_rest(file: int) -> None:
    content = bytearray(pattern(300_000))
    os.pwrite(file, content, 0)
    choose = random.Random(1)
    for number in range(60):
        offset, data = choose.randrange(310_000), pattern(choose.randrange(1, 20_000), number)
        assert os.pwrite(file, data, offset) == len(data)
        content[len(content) :] = bytes(max(0, offset - len(content)))
        content[offset : offset + len(data)] = data
        at, length = choose.randrange(300_000), choose.randrange(1, 50_000)
        assert os.pread(file, length, at) == content[at : at + length]
    assert os.pread(file, 1 << 20, 0) == content


def test_several_buffers_are_one_write_and_one_read(file: int) -> None:
    assert os.writev(file, [b"one", b"", b"two", b"x" * 5000]) == 5006
    first, second = bytearray(4), bytearray(5000)
    assert os.preadv(file, [first, second], 0) == 5004
    assert bytes(first + second) == (b"onetwo" + b"x" * 5000)[:5004]
    assert os.pwritev(file, [b"a", b"b"], 100) == 2
    assert os.pread(file, 2, 100) == b"ab"


def test_reading_ends_at_the_end(file: int) -> None:
    os.write(file, b"content")
    assert os.pread(file, 100, 3) == b"tent"
    assert os.pread(file, 100, 7) == b""
    assert os.pread(file, 100, 1 << 40) == b""
    assert os.pread(file, 0, 0) == b""


def test_a_gap_reads_as_zeros(file: int) -> None:
    os.pwrite(file, b"end", 1 << 33)
    assert os.fstat(file).st_size == (1 << 33) + 3
    assert os.pread(file, 10, (1 << 33) - 5) == bytes(5) + b"end"
    assert os.pread(file, 10, 5000) == bytes(10)
    assert os.fstat(file).st_blocks <= 16


def test_the_place_is_shared_by_copies_of_a_descriptor_only(folder: Path) -> None:
    make_file(folder / "x", b"0123456789")
    with opened(folder / "x") as one, opened(folder / "x") as two:
        copy = os.dup(one)
        assert os.read(one, 3) == b"012"
        assert os.read(copy, 3) == b"345"
        assert os.read(two, 3) == b"012"
        alice.process(os.lseek, one, 1, os.SEEK_SET)
        assert os.read(copy, 3) == b"123"
        os.close(copy)


def test_the_place_moves_by_seeking(file: int) -> None:
    os.write(file, b"0123456789")
    assert os.lseek(file, -3, os.SEEK_END) == 7
    assert os.read(file, 2) == b"78"
    assert os.lseek(file, -4, os.SEEK_CUR) == 5
    assert os.read(file, 1) == b"5"
    assert os.lseek(file, 100, os.SEEK_END) == 110
    assert os.read(file, 1) == b""
    for offset, whence in ((-1, os.SEEK_SET), (-11, os.SEEK_END), (-1000, os.SEEK_CUR), (0, 99)):
        with refused(errno.EINVAL):
            os.lseek(file, offset, whence)
    assert os.lseek(file, 0, os.SEEK_CUR) == 110


def test_a_descriptor_allows_what_it_was_opened_for(folder: Path) -> None:
    make_file(folder / "x", b"content")
    with opened(folder / "x", os.O_RDONLY) as fd:
        with refused(errno.EBADF):
            os.write(fd, b"x")
        with refused(errno.EBADF):
            os.posix_fallocate(fd, 0, 10)
    with opened(folder / "x", os.O_WRONLY) as fd, refused(errno.EBADF):
        os.read(fd, 1)


def test_a_folder_is_not_read_or_written(folder: Path) -> None:
    with opened(make_folder(folder / "inner"), os.O_RDONLY) as fd:
        with refused(errno.EISDIR):
            os.read(fd, 1)
        with refused(errno.EISDIR):
            os.pread(fd, 1, 0)
        with refused(errno.EBADF):
            os.write(fd, b"x")


def test_offsets_are_not_negative(file: int) -> None:
    with refused(errno.EINVAL):
        os.pread(file, 1, -1)
    with refused(errno.EINVAL):
        os.pwrite(file, b"x", -1)


def test_there_is_a_largest_offset(file: int) -> None:
    with refused(errno.EFBIG, errno.EINVAL):
        os.pwrite(file, b"xx", (1 << 63) - 2)
    assert os.fstat(file).st_size == 0


def test_a_write_stops_at_the_processs_limit(folder: Path) -> None:
    path = folder / "x"

    def write() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        written = os.write(fd, b"x" * 1500)
        with refused(errno.EFBIG):
            os.write(fd, b"x")
        return written

    assert alice.process(write) == 1000
    assert os.stat(path).st_size == 1000


def test_a_process_that_ignores_its_limit_is_ended(folder: Path) -> None:
    def write() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        with opened(folder / "x", os.O_WRONLY | os.O_CREAT) as fd:
            os.pwrite(fd, b"x", 1000)

    with pytest.raises(Killed, match="SIGXFSZ"):
        alice.process(write)


def test_other_processes_see_a_write_at_once(folder: Path) -> None:
    path = make_file(folder / "x", mode=0o666)
    with opened(path) as fd:
        for number in range(10):
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d" % number, 0)
            assert bob.process(path.read_bytes) == b"%d" % number
            bob.process(os.truncate, path, 0)
            assert os.fstat(fd).st_size == 0
            bob.process(path.write_bytes, b"bob %d" % number)
            assert os.pread(fd, 100, 0) == b"bob %d" % number


def test_a_new_content_of_the_same_length_is_seen(folder: Path) -> None:
    path = make_file(folder / "x", b"0" * 5000, mode=0o666)
    with opened(path) as reader:
        for digit in (b"1", b"2", b"3"):
            assert os.pread(reader, 5000, 0) == path.read_bytes()
            alice(path.write_bytes, digit * 5000)
            assert os.pread(reader, 5000, 0) == digit * 5000


def test_flushing_succeeds(file: int, folder: Path) -> None:
    os.write(file, b"content")
    os.fsync(file)
    os.fdatasync(file)
    with opened(folder, os.O_RDONLY) as fd:
        os.fsync(fd)
        os.fdatasync(fd)
    with opened(folder / "file", os.O_RDONLY) as fd:
        os.fsync(fd)


def test_a_broken_buffer_is_refused(file: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    os.write(file, b"content")
    for call in (libc.pread64, libc.pwrite64):
        assert call(file, ctypes.c_void_p(1), ctypes.c_size_t(5), ctypes.c_int64(0)) == -1
        assert ctypes.get_errno() == errno.EFAULT
    assert os.pread(file, 100, 0) == b"content"


def test_readahead_and_advice_change_nothing(file: int) -> None:
    os.write(file, pattern(300_000))
    for advice in (os.POSIX_FADV_SEQUENTIAL, os.POSIX_FADV_WILLNEED, os.POSIX_FADV_DONTNEED, os.POSIX_FADV_RANDOM):
        os.posix_fadvise(file, 0, 0, advice)
        assert os.pread(file, 300_000, 0) == pattern(300_000)
