"""Files: opened, read, written, and what else is done with an open file."""

import errno
import fcntl
import mmap
import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from process.passthrough.support import Caller, Tables, Worker, error

from ringmount.workers.abi import OpenReply, WriteFlags
from ringmount.workers.api import Handle, NodeId, ReadFrom, SetAttr, SyncOf
from ringmount.workers.filesystems.passthrough import files
from ringmount.workers.filesystems.passthrough.base import SILENT

KILL = int(WriteFlags.KILL_SUIDGID)
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, COLLAPSE = 1, 2, 16, 8


@pytest.fixture
def file(worker: Worker) -> tuple[NodeId, Handle]:
    """An open file, empty."""
    made, fh = worker.create(b"file")
    return made.node, fh


def test_what_is_written_can_be_read(worker: Worker, file: tuple[NodeId, Handle]) -> None:
    assert worker.write(*file, b"hello", 3) == 5
    assert worker.read(*file) == b"\0\0\0hello"
    assert worker.read(*file, 4, 2) == b"\0hel"
    assert worker.read(*file, 10, 8) == b""
    assert worker.read(*file, 10, 1000) == b""
    assert (worker.source / "file").read_bytes() == b"\0\0\0hello"


def test_an_access_that_the_open_did_not_ask_for_fails(worker: Worker) -> None:
    node = worker.create(b"x")[0].node
    with error(errno.EBADF):
        worker.write(node, worker.open(node, os.O_RDONLY), b"x")
    with error(errno.EBADF):
        worker.read(node, worker.open(node, os.O_WRONLY))
    with error(errno.EBADF):
        worker.read(node, Handle(12345))


def test_a_file_that_was_unlinked_lives_while_it_is_open(worker: Worker, file: tuple[NodeId, Handle]) -> None:
    node, fh = file
    worker.write(node, fh, b"still here")
    worker.unlink(b"file")
    worker.evict()
    attr = worker.attr(node)
    assert (attr.st_nlink, attr.st_size) == (0, 10)
    assert worker.read(node, worker.open(node, os.O_RDONLY)) == b"still here"  # /proc/PID/fd/N of a client


def test_opening_truncates_when_asked_to(worker: Worker, file: tuple[NodeId, Handle]) -> None:
    worker.write(*file, b"12345")
    worker.open(file[0], os.O_WRONLY | os.O_TRUNC)
    assert worker.attr(file[0]).st_size == 0


@pytest.mark.parametrize("reply", [0, OpenReply.NOFLUSH])
def test_a_file_that_was_only_read_needs_no_flush_and_where_there_is_none_no_other(worker: Worker, reply: int) -> None:
    assert worker.fs.written_reply == (OpenReply.NOFLUSH if worker.fs.kind in SILENT else 0)
    worker.fs.written_reply = reply
    node = worker.create(b"x")[0].node
    assert worker.fs.create(worker.root, *worker.parent(b"y"), 0o644, os.O_RDWR)[1].flags == reply
    assert worker.opened(node, os.O_RDONLY).flags == OpenReply.NOFLUSH
    assert worker.opened(node, os.O_WRONLY).flags == worker.opened(node, os.O_RDWR).flags == reply


def test_a_file_is_offered_to_the_kernel_unless_writing_must_look_at_the_writer(worker: Worker) -> None:
    node = worker.create(b"x")[0].node
    for mode, offered in ((0o644, True), (0o4755, False), (0o2755, False)):
        worker.fs.setattr(worker.root, node, SetAttr(mode=mode), None)
        opened = worker.opened(node, os.O_RDWR)
        assert opened.backing_fd == (worker.mount.handles.fd(Handle(opened.fh)) if offered else -1)
        assert worker.opened(node, os.O_RDONLY).backing_fd >= 0


def test_closing_and_syncing(worker: Worker, file: tuple[NodeId, Handle]) -> None:
    node, fh = file
    worker.fs.flush(worker.root, node, fh, 1)
    fd = worker.mount.handles.fd(fh)
    assert worker.fs.fsync(worker.root, node, fh, False) == SyncOf(fd, False)
    assert worker.fs.fsync(worker.root, node, fh, True) == SyncOf(fd, True)
    worker.release(node, fh)
    with error(errno.EBADF):
        os.fstat(fd)
    with error(errno.EBADF):
        worker.fs.flush(worker.root, node, fh, 1)


def test_the_callers_flags_reach_the_file(worker: Worker) -> None:
    node = worker.create(b"x")[0].node
    for flag in (os.O_APPEND, os.O_SYNC, os.O_DSYNC, os.O_NOATIME):
        fd = worker.mount.handles.fd(worker.open(node, os.O_RDWR | flag | os.O_NOFOLLOW | os.O_NOCTTY))
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & flag == flag
        assert fcntl.fcntl(fd, fcntl.F_GETFD) == fcntl.FD_CLOEXEC


# --- where a write belongs --------------------------------------------------------------------------------------------


def test_an_append_goes_behind_what_was_appended_beneath(worker: Worker) -> None:
    made, fh = worker.create(b"log", flags=os.O_WRONLY | os.O_APPEND)
    worker.write(made.node, fh, b"one ", 0, os.O_APPEND)
    with (worker.source / "log").open("ab") as other:
        other.write(b"two ")
    worker.write(made.node, fh, b"three", 4, os.O_APPEND)  # the kernel has not heard of "two "
    assert (worker.source / "log").read_bytes() == b"one two three"


def test_a_page_is_written_where_it_belongs_even_by_an_append_handle(worker: Worker) -> None:
    made, fh = worker.create(b"x", flags=os.O_RDWR | os.O_APPEND)
    worker.write(made.node, fh, b"aaaa", 0, os.O_APPEND)
    worker.write(made.node, fh, b"bb", 1, int(WriteFlags.CACHE))
    assert worker.read(made.node, fh) == b"abba"


def test_a_flag_that_was_set_after_opening_counts(worker: Worker, file: tuple[NodeId, Handle]) -> None:
    worker.write(*file, b"1234")
    worker.write(*file, b"5", 0, os.O_APPEND)
    assert worker.read(*file) == b"12345"


def chattr(path: Path, flag: str) -> None:
    assert os.system(f"chattr {flag} '{path}' 2>/dev/null") == 0


@pytest.mark.root
def test_an_append_only_file_can_be_appended_to(worker: Worker) -> None:
    path = worker.source / "x"
    path.write_bytes(b"old ")
    chattr(path, "+a")
    try:
        node = worker.node(b"x")
        with error(errno.EPERM):
            worker.open(node, os.O_WRONLY)
        fh = worker.open(node, os.O_WRONLY | os.O_APPEND)
        worker.write(node, fh, b"new", 4, os.O_APPEND)
        worker.write(node, fh, b"er", 7)
        assert path.read_bytes() == b"old newer"
        with error(errno.EPERM):
            worker.unlink(b"x")
    finally:
        chattr(path, "-a")


# --- direct input and output ------------------------------------------------------------------------------------------


@pytest.fixture
def direct(worker: Worker) -> tuple[NodeId, Handle]:
    (worker.source / "direct").write_bytes(bytes(8192))
    node = worker.node(b"direct")
    return node, worker.open(node, os.O_RDWR | os.O_DIRECT)


def is_direct(worker: Worker, fh: Handle) -> bool:
    return bool(fcntl.fcntl(worker.mount.handles.fd(fh), fcntl.F_GETFL) & os.O_DIRECT)


def test_aligned_input_and_output_is_direct(worker: Worker, direct: tuple[NodeId, Handle]) -> None:
    page = memoryview(mmap.mmap(-1, 4096))
    page[:] = b"x" * 4096
    assert worker.fs.write(worker.root, *direct, 4096, page, 0) == 4096
    page[:] = bytes(4096)
    done = worker.fs.read(worker.root, *direct, 4096, page)
    if isinstance(done, ReadFrom):
        done = os.preadv(done.fd, [page], done.offset)
    assert (done, bytes(page)) == (4096, b"x" * 4096)
    assert is_direct(worker, direct[1])


def test_what_the_disk_refuses_for_its_alignment_is_done_without_direct(
    worker: Worker, direct: tuple[NodeId, Handle]
) -> None:
    assert worker.write(*direct, b"abc", 1) == 3
    assert worker.read(*direct, 5, 0) == b"\0abc\0"


# --- what is not in memory --------------------------------------------------------------------------------------------


def test_a_read_of_what_is_in_memory_is_answered_at_once(worker: Worker, file: tuple[NodeId, Handle]) -> None:
    worker.write(*file, b"x" * 10000)
    buffer = memoryview(bytearray(16384))
    assert worker.fs.read(worker.root, *file, 0, buffer) == 10000
    assert worker.fs.read(worker.root, *file, 10000, buffer) == 0
    assert worker.fs.read(worker.root, *file, 0, buffer[:4096]) == 4096


def test_a_read_from_the_disk_is_left_to_the_ring(worker: Worker, file: tuple[NodeId, Handle]) -> None:
    worker.write(*file, b"x" * (1 << 20))
    fd = worker.mount.handles.fd(file[1])
    if on_tmpfs(worker):
        pytest.skip("tmpfs has no disk")
    buffer = memoryview(bytearray(1 << 20))
    drop_pages(fd)
    assert worker.fs.read(worker.root, *file, 4096, buffer) == ReadFrom(fd, 4096)


def drop_pages(fd: int) -> None:
    """Has the kernel forget the file's pages. It keeps those that another CPU is about to sort into its lists."""
    deadline = time.monotonic() + 10
    while True:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            os.preadv(fd, [bytearray(1)], 4096, os.RWF_NOWAIT)
        except BlockingIOError:
            return
        assert time.monotonic() < deadline, "the file's pages stay in memory"


def on_tmpfs(worker: Worker) -> bool:
    return worker.fs.read_flags == 0


def test_a_part_that_is_in_memory_is_no_end_of_file(
    worker: Worker, file: tuple[NodeId, Handle], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.write(*file, b"x" * 8192)
    fd = worker.mount.handles.fd(file[1])
    there = [4096]

    def preadv(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if not there:
            raise BlockingIOError(errno.EAGAIN, "not in memory")
        return there.pop()

    monkeypatch.setattr(os, "preadv", preadv)
    assert worker.fs.read(worker.root, *file, 0, memoryview(bytearray(8192))) == ReadFrom(fd, 0)


def test_a_filesystem_that_cannot_tell_is_read_by_the_ring(
    worker: Worker, file: tuple[NodeId, Handle], monkeypatch: pytest.MonkeyPatch
) -> None:
    def preadv(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        raise OSError(errno.EOPNOTSUPP, "no RWF_NOWAIT")

    monkeypatch.setattr(os, "preadv", preadv)
    worker.fs.read_flags = os.RWF_NOWAIT
    fd = worker.mount.handles.fd(file[1])
    assert worker.fs.read(worker.root, *file, 0, memoryview(bytearray(1))) == ReadFrom(fd, 0)


def test_a_folder_in_memory_is_read_at_once(tables: Tables) -> None:
    folder = Path("/dev/shm") / f"ringmount-test-{os.getpid()}"
    folder.mkdir()
    try:
        worker = Worker(folder, tables)
        made, fh = worker.create(b"x")
        worker.write(made.node, fh, b"abc")
        assert worker.fs.read(worker.root, made.node, fh, 0, memoryview(bytearray(9))) == 3
        worker.release(made.node, fh)
        worker.unlink(b"x")
        worker.fs.stop()
    finally:
        folder.rmdir()


# --- S_ISUID and the like ---------------------------------------------------------------------------------------------


@contextmanager
def cleared(worker: Worker, expected: bool) -> Iterator[None]:
    """Asserts that within, the file loses S_ISUID, or does not."""
    path = worker.source / "file"
    path.chmod(0o6755)
    yield
    assert stat.S_IMODE(os.stat(path).st_mode) == (0o755 if expected else 0o6755)


@pytest.mark.root
def test_a_write_clears_setuid_when_the_kernel_says_so(worker: Worker, file: tuple[NodeId, Handle]) -> None:
    with cleared(worker, False):
        worker.write(*file, b"x")
    with cleared(worker, True):
        worker.write(*file, b"x", 0, KILL)
    with cleared(worker, False):
        worker.write(*file, b"x")


@pytest.mark.root
def test_truncating_at_open_clears_setuid_when_the_kernel_says_so(worker: Worker, file: tuple[NodeId, Handle]) -> None:
    with cleared(worker, False):
        worker.open(file[0], os.O_WRONLY | os.O_TRUNC)
    worker.write(*file, b"x")
    caller = Caller(1234)
    caller.kill_suidgid = True
    with cleared(worker, True):
        worker.open(file[0], os.O_WRONLY | os.O_TRUNC, caller)
    with cleared(worker, False):
        worker.open(file[0], os.O_WRONLY, caller)


@pytest.mark.root
def test_allocating_and_copying_clear_setuid_but_for_root(worker: Worker, file: tuple[NodeId, Handle]) -> None:
    other, other_fh = worker.create(b"other")
    worker.write(other.node, other_fh, b"12345")
    for caller, expected in ((worker.root, False), (Caller(1234), True)):
        with cleared(worker, expected):
            worker.fs.fallocate(caller, *file, 0, 0, 10)
        with cleared(worker, expected):
            worker.fs.copy_file_range(caller, other.node, other_fh, 0, *file, 0, 5, 0)


# --- holes ------------------------------------------------------------------------------------------------------------


def test_every_mode_of_fallocate_is_passed_on(worker: Worker, file: tuple[NodeId, Handle]) -> None:
    node, fh = file
    worker.write(node, fh, b"x" * 65536)

    def allocate(mode: int, offset: int, length: int) -> int:
        worker.fs.fallocate(worker.root, node, fh, mode, offset, length)
        return worker.attr(node).st_size

    assert allocate(KEEP_SIZE, 65536, 4096) == 65536
    assert allocate(0, 65536, 4096) == 69632
    assert allocate(PUNCH_HOLE | KEEP_SIZE, 4096, 4096) == 69632
    assert worker.read(node, fh, 4, 4094) == b"xx\0\0"
    if not on_tmpfs(worker):
        assert allocate(ZERO_RANGE, 0, 4096) == 69632
        assert allocate(COLLAPSE, 0, 8192) == 61440
        assert worker.read(node, fh, 4, 0) == b"xxxx"
    with error(errno.EOPNOTSUPP):
        allocate(1 << 14, 0, 1)
    with error(errno.EINVAL):
        allocate(0, 0, 0)


def test_data_and_holes_are_found(worker: Worker, file: tuple[NodeId, Handle]) -> None:
    node, fh = file
    worker.write(node, fh, b"x", 1 << 20)
    seek = worker.fs.lseek
    assert seek(worker.root, node, fh, 0, os.SEEK_DATA) == 1 << 20
    assert seek(worker.root, node, fh, 0, os.SEEK_HOLE) == 0
    assert seek(worker.root, node, fh, 1 << 20, os.SEEK_HOLE) == (1 << 20) + 1
    with error(errno.ENXIO):
        seek(worker.root, node, fh, 1 << 21, os.SEEK_DATA)


def test_a_range_is_copied(worker: Worker, file: tuple[NodeId, Handle]) -> None:
    worker.write(*file, bytes(range(256)))
    other, other_fh = worker.create(b"other")
    copy = worker.fs.copy_file_range
    assert copy(worker.root, *file, 100, other.node, other_fh, 3, 50, 0) == 50
    assert worker.read(other.node, other_fh) == bytes(3) + bytes(range(100, 150))
    assert copy(worker.root, *file, 250, other.node, other_fh, 0, 50, 0) == 6
    assert copy(worker.root, *file, 300, other.node, other_fh, 0, 50, 0) == 0
    with error(errno.EINVAL):
        copy(worker.root, *file, 0, other.node, other_fh, 0, 50, 1)


def test_a_long_copy_leaves_turns_to_others(
    worker: Worker, file: tuple[NodeId, Handle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "COPY_MOST", 4096)
    worker.write(*file, bytes(10000))
    other, other_fh = worker.create(b"other")
    assert worker.fs.copy_file_range(worker.root, *file, 0, other.node, other_fh, 0, 10000, 0) == 4096


# --- ioctl ------------------------------------------------------------------------------------------------------------


def ioctl(worker: Worker, file: tuple[NodeId, Handle], command: int, data: bytes = b"", out: int = 0) -> bytes:
    result, answer = worker.fs.ioctl(worker.root, *file, command, 0, 0, memoryview(data), out)
    assert result == 0
    return answer


FS_NODUMP_FL = 0x40


def test_inode_flags_are_told_and_set(worker: Worker, file: tuple[NodeId, Handle]) -> None:
    if on_tmpfs(worker):
        pytest.skip("tmpfs had no such flags for long")
    ioctl(worker, file, files.FS_IOC_SETFLAGS, struct.pack("I", FS_NODUMP_FL))
    (flags,) = struct.unpack("I", ioctl(worker, file, files.FS_IOC_GETFLAGS, out=4))
    assert flags & FS_NODUMP_FL
    assert len(ioctl(worker, file, files.FS_IOC_FSGETXATTR, out=28)) == 28


@pytest.mark.parametrize("command", [0x5401, 0x541B, 0x40049409, 0xC0185879])
def test_other_ioctls_are_not_passed_on(worker: Worker, file: tuple[NodeId, Handle], command: int) -> None:
    """TCGETS, FIONREAD, FICLONE and FITRIM, whose arguments may name descriptors and addresses of the caller."""
    with error(errno.ENOTTY):
        ioctl(worker, file, command)
