"""mmap(2) of files."""

import errno
import mmap
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.posix.each import each
from mount.posix.expect import opened, refused
from mount.posix.kinds import make_file, make_folder
from mount.posix.users import Killed, alice, bob

PAGE = mmap.PAGESIZE
SHARED, PRIVATE = mmap.MAP_SHARED, mmap.MAP_PRIVATE


@pytest.fixture
def path(folder: Path) -> Path:
    """A file of four pages that everybody may write."""
    return make_file(folder / "x", b"x" * 4 * PAGE, 0o666)


@pytest.fixture
def fd(path: Path) -> Iterator[int]:
    with opened(path) as fd:
        yield fd


def test_a_shared_mapping_and_the_file_are_one(path: Path, fd: int) -> None:
    with mmap.mmap(fd, 4 * PAGE, SHARED) as mapping:
        os.pwrite(fd, b"written", 100)
        assert mapping[100:107] == b"written"
        mapping[PAGE : PAGE + 6] = b"mapped"
        assert os.pread(fd, 6, PAGE) == b"mapped"
        assert path.read_bytes()[PAGE : PAGE + 6] == b"mapped"
        os.pwrite(fd, b"again", PAGE)
        assert mapping[PAGE : PAGE + 6] == b"againd"


def test_a_private_mapping_keeps_its_changes(path: Path, fd: int) -> None:
    with mmap.mmap(fd, 4 * PAGE, PRIVATE) as mapping:
        mapping[:7] = b"private"
        os.pwrite(fd, b"written", 2 * PAGE)
        assert mapping[:7] == b"private"
        assert mapping[2 * PAGE : 2 * PAGE + 7] == b"written"
    assert path.read_bytes()[:7] == b"xxxxxxx"


def test_processes_share_a_mapping(path: Path, fd: int) -> None:
    def write(text: bytes) -> bytes:
        with opened(path) as other, mmap.mmap(other, 4 * PAGE, SHARED) as mapping:
            before = mapping[:7]
            mapping[: len(text)] = text
            return before

    with mmap.mmap(fd, 4 * PAGE, SHARED) as mapping:
        mapping[:7] = b"parents"
        assert alice.process(write, b"alices ") == b"parents"
        assert bob.process(write, b"bobs   ") == b"alices "
        assert mapping[:7] == b"bobs   "


def test_a_mapping_outlives_descriptor_and_name(path: Path, fd: int) -> None:
    with mmap.mmap(fd, 4 * PAGE, SHARED) as mapping:
        with opened(path) as other:
            os.close(fd)
            os.unlink(path)
            mapping[:7] = b"unnamed"
            mapping.flush()
            assert os.pread(other, 7, 0) == b"unnamed"
        assert mapping[:7] == b"unnamed"


def test_what_was_mapped_is_there_after_all_is_closed(path: Path) -> None:
    with opened(path) as fd:
        mapping = mmap.mmap(fd, 4 * PAGE, SHARED)
    for page in range(4):
        mapping[page * PAGE] = ord(b"0") + page
    mapping.close()
    content = path.read_bytes()
    assert [content[page * PAGE] for page in range(4)] == list(b"0123")


def test_flushing_a_mapping_succeeds(fd: int) -> None:
    with mmap.mmap(fd, 4 * PAGE, SHARED) as mapping:
        mapping[:4] = b"sync"
        mapping.flush()
        mapping.flush(PAGE, PAGE)
        os.fsync(fd)


def test_beyond_the_end_of_the_last_page_are_zeros_that_stay_out_of_the_file(folder: Path) -> None:
    path = make_file(folder / "short", b"short")
    with opened(path) as fd, mmap.mmap(fd, 5, SHARED) as mapping:
        assert mapping[:] == b"short"
    with opened(path) as fd, mmap.mmap(fd, 0, SHARED) as mapping:
        os.ftruncate(fd, 3)
        os.ftruncate(fd, 5)
        assert mapping[:] == b"sho\0\0"
    assert path.read_bytes() == b"sho\0\0"


@each("write", {"reading": False, "writing": True})
def test_pages_beyond_the_end_are_no_memory(folder: Path, write: bool) -> None:
    path = make_file(folder / "short", b"x" * 3 * PAGE, 0o666)

    def touch() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        with opened(path) as fd, mmap.mmap(fd, 3 * PAGE, SHARED) as mapping:
            os.ftruncate(fd, PAGE)
            if write:
                mapping[2 * PAGE] = 1
            else:
                mapping[2 * PAGE]

    with pytest.raises(Killed, match="SIGBUS"):
        alice.process(touch)


def test_a_mapping_grows_with_the_file(fd: int) -> None:
    with mmap.mmap(fd, 4 * PAGE, SHARED) as mapping:
        os.ftruncate(fd, 0)
        os.ftruncate(fd, 4 * PAGE)
        assert mapping[: 4 * PAGE] == bytes(4 * PAGE)
        os.pwrite(fd, b"new", 3 * PAGE)
        assert mapping[3 * PAGE : 3 * PAGE + 3] == b"new"


def test_another_processs_truncation_shows_in_a_mapping(path: Path, fd: int) -> None:
    with mmap.mmap(fd, 4 * PAGE, SHARED) as mapping:
        assert mapping[0] == ord("x")
        bob.process(os.truncate, path, 100)
        bob.process(os.truncate, path, 4 * PAGE)
        assert mapping[:200] == b"x" * 100 + bytes(100)


def test_the_descriptor_must_allow_what_is_mapped(path: Path) -> None:
    with opened(path, os.O_RDONLY) as fd:
        with refused(errno.EACCES):
            mmap.mmap(fd, PAGE, SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        with mmap.mmap(fd, PAGE, PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as mapping:
            mapping[0] = 1
        with mmap.mmap(fd, PAGE, SHARED, mmap.PROT_READ) as mapping:
            assert mapping[0] == ord("x")
    with opened(path, os.O_WRONLY) as fd, refused(errno.EACCES):
        mmap.mmap(fd, PAGE, SHARED, mmap.PROT_READ)


def test_only_files_are_mapped(folder: Path) -> None:
    with opened(make_folder(folder / "inner"), os.O_RDONLY) as fd, refused(errno.ENODEV):
        mmap.mmap(fd, PAGE, SHARED, mmap.PROT_READ)
    os.mkfifo(folder / "fifo")
    with opened(folder / "fifo", os.O_RDWR) as fd, refused(errno.ENODEV):
        mmap.mmap(fd, PAGE, SHARED, mmap.PROT_READ)


def test_programs_and_their_libraries_are_mapped(folder: Path) -> None:
    program = Path(shutil.copy("/usr/bin/python3", folder / "python"))
    done = subprocess.run([program, "-c", "print(6 * 7)"], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "42\n"


def test_a_large_file_is_mapped_and_changed_all_over(folder: Path) -> None:
    path = make_file(folder / "large")
    size = 4 << 20
    with opened(path) as fd:
        os.ftruncate(fd, size)
        with mmap.mmap(fd, size, SHARED) as mapping:
            for offset in range(0, size, 13 * PAGE):
                mapping[offset : offset + 8] = offset.to_bytes(8, "little")
            mapping.flush()
    with opened(path, os.O_RDONLY) as fd:
        for offset in range(0, size, 13 * PAGE):
            assert os.pread(fd, 8, offset) == offset.to_bytes(8, "little")
        assert os.pread(fd, 10, PAGE) == bytes(10)


def test_direct_writes_show_in_a_mapping(fd: int, path: Path) -> None:
    page = mmap.mmap(-1, PAGE)
    page[:] = b"d" * PAGE
    with mmap.mmap(fd, 4 * PAGE, SHARED) as mapping, opened(path, os.O_WRONLY | os.O_DIRECT) as direct:
        assert mapping[PAGE] == ord("x")
        os.pwrite(direct, page, PAGE)
        assert mapping[PAGE : 2 * PAGE] == b"d" * PAGE
        mapping[0] = ord("m")
        mapping.flush()
    with opened(path, os.O_RDONLY | os.O_DIRECT) as direct:
        os.preadv(direct, [page], 0)
        assert page[:2] == b"mx"
