"""Contents in the memory filesystem: open, read, write, holes, allocation, copies. See also test_memory_machines."""

import errno
import os
import stat
import tracemalloc
from collections.abc import Callable
from functools import partial

import pytest
from fakes import FakeContext, FakeDirectoryBuffer
from pure.memory_driver import ALICE, ROOT_USER, SECOND, START, Driver, handle_of

from ringmount.workers.abi import OpenReply, WriteFlags
from ringmount.workers.api import ROOT, Handle, NodeId, SetAttr
from ringmount.workers.filesystems.memory.chunks import CHUNK, MAX_SIZE

PAGE = 4096
KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE, UNSHARE_RANGE = 1, 2, 8, 16, 32, 64
DAY = 86_400
MANY = 1 << 50


def error_of(call: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as caught:
        call()
    return caught.value.errno


def copy(mem: Driver, source: NodeId, offset: int, target: NodeId, offset_out: int, length: int, flags: int = 0) -> int:
    return mem.fs.copy_file_range(
        ROOT_USER, source, handle_of(source), offset, target, handle_of(target), offset_out, length, flags
    )


# --- opening ------------------------------------------------------------------------------------


def test_open_lets_the_kernel_keep_its_pages_and_spare_flush() -> None:
    mem = Driver()
    node = mem.make(b"file")
    opened = mem.fs.open(ROOT_USER, node, os.O_RDONLY)
    assert opened.flags == OpenReply.KEEP_CACHE | OpenReply.NOFLUSH
    assert opened.backing_fd == -1


def test_o_trunc_empties_the_file_even_if_it_is_empty() -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"gone")
    for _ in range(2):
        now = mem.clock.tick()
        mem.fs.open(ROOT_USER, node, os.O_WRONLY | os.O_TRUNC)
        attr = mem.attr(node)
        assert (attr.st_size, attr.st_blocks, attr.st_mtime_ns, attr.st_ctime_ns) == (0, 0, now, now)


def test_o_trunc_takes_setuid_where_the_kernel_says_so() -> None:
    mem = Driver()
    node = mem.make(b"file", mode=0o6755)
    mem.fs.open(ROOT_USER, node, os.O_WRONLY | os.O_TRUNC)
    assert mem.mode(node) == 0o6755
    mem.fs.open(FakeContext(uid=1000, gid=1000, kill_suidgid=True), node, os.O_WRONLY | os.O_TRUNC)
    assert mem.mode(node) == 0o755


def test_create_opens_what_exists() -> None:
    mem = Driver()
    node = mem.make(b"file", mode=0o600, data=b"kept")
    entry, opened = mem.fs.create(ROOT_USER, ROOT, b"file", 0o777, os.O_RDWR)
    assert (mem.kernel.took(entry), mem.mode(node), mem.read(node)) == (node, 0o600, b"kept")
    mem.fs.create(ROOT_USER, ROOT, b"file", 0o777, os.O_RDWR | os.O_TRUNC)
    assert mem.read(node) == b""
    assert opened.fh


def test_only_files_are_opened_as_such() -> None:
    mem = Driver()
    folder, fifo = mem.mkdir(b"folder"), mem.mknod(b"fifo", stat.S_IFIFO | 0o600)
    assert error_of(lambda: mem.fs.open(ROOT_USER, folder, os.O_RDONLY)) == errno.EISDIR
    assert error_of(lambda: mem.fs.create(ROOT_USER, ROOT, b"folder", 0o600, os.O_RDWR)) == errno.EISDIR
    assert error_of(lambda: mem.fs.open(ROOT_USER, fifo, os.O_RDONLY)) == errno.EINVAL
    assert error_of(lambda: mem.write(folder, 0, b"x")) == errno.EISDIR


# --- reading and writing ------------------------------------------------------------------------


def test_what_is_written_is_read() -> None:
    mem = Driver()
    node = mem.make(b"file")
    data = bytes(range(256)) * 1024
    assert mem.write(node, 0, data) == len(data)
    assert mem.read(node) == data
    assert mem.read(node, CHUNK - 3, 7) == data[CHUNK - 3 : CHUNK + 4]


def test_reading_at_or_past_the_end_gives_nothing() -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"data")
    assert [mem.read(node, offset) for offset in (3, 4, 5, MANY)] == [b"a", b"", b"", b""]


def test_what_was_never_written_reads_as_zeros_and_takes_no_space() -> None:
    mem = Driver()
    node = mem.make(b"file")
    mem.write(node, MANY, b"end")
    attr = mem.attr(node)
    assert (attr.st_size, attr.st_blocks) == (MANY + 3, PAGE // 512)
    assert mem.read(node, MANY - 5, 100) == b"\0\0\0\0\0end"
    assert mem.read(node, 0, 3 * CHUNK) == bytes(3 * CHUNK)


def test_a_small_file_takes_one_page() -> None:
    mem = Driver()
    mem.make(b"file", data=b"x")
    assert mem.fs.space.used == PAGE


def test_writing_nothing_changes_no_size() -> None:
    mem = Driver()
    node = mem.make(b"file")
    assert mem.write(node, 1000, b"") == 0
    assert mem.attr(node).st_size == 0


def test_a_file_does_not_grow_beyond_what_offsets_can_say() -> None:
    mem = Driver()
    node = mem.make(b"file")
    assert mem.write(node, MAX_SIZE - 1, b"x") == 1
    assert error_of(lambda: mem.write(node, MAX_SIZE, b"x")) == errno.EFBIG
    assert error_of(lambda: mem.fallocate(node, 0, MAX_SIZE - 1, 2)) == errno.EFBIG
    assert error_of(lambda: mem.setattr(node, SetAttr(size=MAX_SIZE + 1))) == errno.EFBIG
    assert error_of(lambda: copy(mem, node, 0, node, MAX_SIZE, 1)) == errno.EFBIG


def test_reading_and_writing_make_no_copy_of_the_data() -> None:
    mem = Driver()
    node = mem.make(b"file")
    buffer = memoryview(bytearray(1 << 20))
    fh = handle_of(node)
    mem.fs.write(ROOT_USER, node, fh, 0, buffer, 0)
    tracemalloc.start()
    try:
        mem.fs.write(ROOT_USER, node, fh, 0, buffer, 0)
        mem.fs.read(ROOT_USER, node, fh, 0, buffer)
        assert tracemalloc.get_traced_memory()[1] < 16 << 10
    finally:
        tracemalloc.stop()


def test_writing_changes_mtime_and_ctime() -> None:
    mem = Driver()
    node = mem.make(b"file")
    now = mem.clock.tick()
    mem.write(node, 0, b"x")
    attr = mem.attr(node)
    assert (attr.st_atime_ns, attr.st_mtime_ns, attr.st_ctime_ns) == (START, now, now)


def test_reading_changes_atime_as_relatime_does() -> None:
    mem = Driver()
    node = mem.make(b"file")
    link = mem.symlink(b"link", b"target")
    folder = mem.mkdir(b"folder")
    reads: dict[NodeId, Callable[[], object]] = {
        node: lambda: mem.read(node),
        link: lambda: mem.fs.readlink(ROOT_USER, link),
        folder: lambda: mem.names(folder),
    }
    first = mem.clock.tick()
    for read in reads.values():
        read()
    assert [mem.attr(its).st_atime_ns for its in reads] == [first] * 3, "not newer than mtime before"
    mem.clock.tick()
    for read in reads.values():
        read()
    assert [mem.attr(its).st_atime_ns for its in reads] == [first] * 3, "newer already"
    later = mem.clock.tick(DAY)
    for read in reads.values():
        read()
    assert [mem.attr(its).st_atime_ns for its in reads] == [later] * 3, "older than a day"
    mem.setattr(node, SetAttr(mode=0o600))
    assert mem.clock.tick() == later + SECOND
    reads[node]()
    assert mem.attr(node).st_atime_ns == later + SECOND, "older than ctime"


def test_reading_with_o_noatime_leaves_atime_alone() -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"data")
    mem.clock.tick()
    silent = mem.fs.open(ROOT_USER, node, os.O_RDONLY | os.O_NOATIME)
    mem.fs.read(ROOT_USER, node, Handle(silent.fh), 0, memoryview(bytearray(9)))
    silent = mem.fs.opendir(ROOT_USER, ROOT, os.O_RDONLY | os.O_NOATIME)
    mem.fs.readdir(ROOT_USER, ROOT, Handle(silent.fh), 0, FakeDirectoryBuffer())
    assert [mem.attr(its).st_atime_ns for its in (node, ROOT)] == [START, START]
    mem.read(node)
    assert mem.attr(node).st_atime_ns == mem.clock.ns


def test_a_read_only_mount_leaves_atime_alone() -> None:
    mem = Driver(read_only=True)
    mem.clock.tick()
    assert mem.names() == []
    assert mem.attr(ROOT).st_atime_ns == START


@pytest.mark.parametrize(
    ("mode", "ctx", "expected"),
    [
        (0o6755, ALICE, 0o755),
        (0o6744, ALICE, 0o744),
        (0o6744, FakeContext(uid=1000, gid=0), 0o2744),
        (0o2755, ROOT_USER, 0o755),
    ],
)
def test_writing_takes_setuid_and_setgid_where_the_kernel_says_so(mode: int, ctx: FakeContext, expected: int) -> None:
    mem = Driver()
    node = mem.make(b"file", mode=mode)
    mem.write(node, 0, b"x", ctx=ctx)
    assert mem.mode(node) == mode
    mem.write(node, 0, b"x", ctx=ctx, flags=WriteFlags.KILL_SUIDGID)
    assert mem.mode(node) == expected


def test_whoever_writes_takes_a_program_s_capabilities() -> None:
    mem = Driver()
    node = mem.make(b"file")
    mem.setxattr(node, b"security.capability", b"caps")
    mem.write(node, 0, b"x")
    assert list(mem.fs.listxattr(ROOT_USER, node)) == []
    assert mem.fs.space.used == PAGE


# --- truncation ---------------------------------------------------------------------------------


def test_what_is_cut_off_does_not_come_back() -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"x" * 3 * CHUNK)
    mem.setattr(node, SetAttr(size=100))
    assert mem.attr(node).st_blocks == PAGE // 512
    mem.setattr(node, SetAttr(size=2 * CHUNK))
    assert mem.read(node) == b"x" * 100 + bytes(2 * CHUNK - 100)


def test_truncation_changes_mtime_also_if_the_size_stays_as_linux_does() -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"1234")
    for _ in range(2):
        now = mem.clock.tick()
        mem.setattr(node, SetAttr(size=2))
        attr = mem.attr(node)
        assert (attr.st_mtime_ns, attr.st_ctime_ns) == (now, now)


def test_only_files_have_a_size_to_change() -> None:
    mem = Driver()
    fifo = mem.mknod(b"fifo", stat.S_IFIFO | 0o600)
    assert error_of(lambda: mem.setattr(ROOT, SetAttr(size=0))) == errno.EISDIR
    assert error_of(lambda: mem.setattr(fifo, SetAttr(size=0))) == errno.EINVAL


# --- allocation ---------------------------------------------------------------------------------


def test_fallocate_takes_space_so_that_writing_cannot_fail() -> None:
    mem = Driver(size=4 * CHUNK)
    node, other = mem.make(b"file"), mem.make(b"other")
    mem.fallocate(node, 0, 100, 3 * CHUNK)
    assert mem.attr(node).st_size == 3 * CHUNK + 100
    mem.write(other, 0, b"y" * CHUNK)
    assert error_of(lambda: mem.write(other, CHUNK, b"y")) == errno.ENOSPC
    assert mem.write(node, 0, b"x" * 3 * CHUNK) == 3 * CHUNK


def test_fallocate_keeps_what_is_there() -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"data")
    mem.fallocate(node, 0, 0, 10)
    assert mem.read(node) == b"data" + bytes(6)


def test_fallocate_with_keep_size_allocates_beyond_the_end() -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"data")
    mem.fallocate(node, KEEP_SIZE, 0, CHUNK)
    assert (mem.attr(node).st_size, mem.attr(node).st_blocks) == (4, CHUNK // 512)
    mem.setattr(node, SetAttr(size=8))
    assert mem.read(node) == b"data\0\0\0\0"
    mem.unlink(b"file")
    mem.kernel.forget_all()
    assert mem.fs.space.used == 0


@pytest.mark.parametrize("mode", [0, KEEP_SIZE, ZERO_RANGE])
@pytest.mark.parametrize("length", [5 * CHUNK, 1 << 60])
def test_fallocate_of_more_than_there_is_takes_nothing(mode: int, length: int) -> None:
    mem = Driver(size=4 * CHUNK)
    node = mem.make(b"file", data=b"data")
    assert error_of(lambda: mem.fallocate(node, mode, 2, length)) == errno.ENOSPC
    assert (mem.read(node), mem.fs.space.used) == (b"data", PAGE)


def test_a_punched_hole_reads_as_zeros_and_gives_back_its_chunks() -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"x" * 4 * CHUNK)
    mem.fallocate(node, PUNCH_HOLE | KEEP_SIZE, CHUNK - 10, 2 * CHUNK + 20)
    assert mem.attr(node).st_size == 4 * CHUNK
    assert mem.attr(node).st_blocks == 2 * CHUNK // 512
    expected = b"x" * (CHUNK - 10) + bytes(2 * CHUNK + 20) + b"x" * (CHUNK - 10)
    assert mem.read(node) == expected


def test_zero_range_reads_as_zeros_and_keeps_its_space() -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"x" * 10)
    mem.fallocate(node, ZERO_RANGE, 4, 3 * CHUNK)
    assert mem.read(node) == b"xxxx" + bytes(3 * CHUNK)
    assert mem.attr(node).st_blocks == (3 * CHUNK + PAGE) // 512
    mem.fallocate(node, ZERO_RANGE | KEEP_SIZE, 2, 5 * CHUNK)
    assert mem.attr(node).st_size == 3 * CHUNK + 4


@pytest.mark.parametrize("mode", [PUNCH_HOLE, COLLAPSE_RANGE, INSERT_RANGE, UNSHARE_RANGE, 1 << 20])
def test_other_modes_of_fallocate_are_not_supported(mode: int) -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"data")
    assert error_of(lambda: mem.fallocate(node, mode, 0, PAGE)) == errno.EOPNOTSUPP


def test_fallocate_counts_as_a_change_by_the_caller() -> None:
    mem = Driver()
    node = mem.make(b"file", mode=0o4755)
    now = mem.clock.tick()
    mem.fallocate(node, 0, 0, 1)
    assert (mem.attr(node).st_mtime_ns, mem.mode(node)) == (now, 0o4755)
    mem.fallocate(node, 0, 0, 1, ctx=ALICE)
    assert mem.mode(node) == 0o755


# --- data and holes -----------------------------------------------------------------------------


def test_holes_are_found_page_by_page() -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"x" * CHUNK)
    mem.fallocate(node, PUNCH_HOLE | KEEP_SIZE, 4 * PAGE, 5 * PAGE)
    assert mem.attr(node).st_blocks == 11 * PAGE // 512
    assert mem.seek(node, 0, os.SEEK_HOLE) == 4 * PAGE
    assert mem.seek(node, 4 * PAGE, os.SEEK_DATA) == 9 * PAGE
    assert mem.seek(node, 9 * PAGE, os.SEEK_HOLE) == CHUNK


def test_memory_counts_even_where_it_is_a_hole() -> None:
    mem = Driver()
    node = mem.make(b"file")
    mem.write(node, 15 * PAGE, b"x")
    assert (mem.attr(node).st_blocks, mem.fs.space.used) == (PAGE // 512, CHUNK)
    mem.fallocate(node, PUNCH_HOLE | KEEP_SIZE, 0, CHUNK)
    assert (mem.attr(node).st_blocks, mem.fs.space.used) == (0, 0)


def test_a_write_that_finds_too_little_space_leaves_none_of_it_taken() -> None:
    mem = Driver(size=4 * PAGE)
    node = mem.make(b"file")
    assert error_of(lambda: mem.write(node, 8 * PAGE, b"x")) == errno.ENOSPC
    assert (mem.fs.space.used, mem.attr(node).st_size) == (0, 0)


def test_seek_finds_data_and_holes() -> None:
    mem = Driver()
    node = mem.make(b"file")
    mem.write(node, 2 * CHUNK, b"x" * CHUNK)
    mem.write(node, MANY, b"y")
    mem.setattr(node, SetAttr(size=MANY + CHUNK))
    assert mem.seek(node, 0, os.SEEK_DATA) == 2 * CHUNK
    assert mem.seek(node, 2 * CHUNK + 5, os.SEEK_DATA) == 2 * CHUNK + 5
    assert mem.seek(node, 3 * CHUNK, os.SEEK_DATA) == MANY
    assert mem.seek(node, 0, os.SEEK_HOLE) == 0
    assert mem.seek(node, 2 * CHUNK, os.SEEK_HOLE) == 3 * CHUNK
    assert mem.seek(node, MANY, os.SEEK_HOLE) == MANY + PAGE
    assert error_of(lambda: mem.seek(node, MANY + PAGE, os.SEEK_DATA)) == errno.ENXIO


def test_the_end_of_the_file_is_a_hole() -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"x" * 10)
    assert mem.seek(node, 3, os.SEEK_HOLE) == 10
    assert mem.seek(node, 3, os.SEEK_DATA) == 3


@pytest.mark.parametrize("whence", [os.SEEK_DATA, os.SEEK_HOLE])
def test_there_is_nothing_to_seek_past_the_end(whence: int) -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"x" * 10)
    mem.fallocate(node, KEEP_SIZE, 0, 2 * CHUNK)
    for offset in (10, CHUNK, MANY, -1):
        assert error_of(partial(mem.seek, node, offset, whence)) == errno.ENXIO


def test_other_ways_to_seek_are_the_kernel_s() -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"x")
    assert error_of(lambda: mem.seek(node, 0, os.SEEK_END)) == errno.EINVAL


# --- copies -------------------------------------------------------------------------------------


def test_a_copy_keeps_holes() -> None:
    mem = Driver()
    source, target = mem.make(b"source"), mem.make(b"target", data=b"t" * 8 * CHUNK)
    mem.write(source, 0, b"s" * 10)
    mem.write(source, 5 * CHUNK, b"s" * 10)
    size = 5 * CHUNK + 10
    now = mem.clock.tick()
    assert copy(mem, source, 0, target, CHUNK, MANY) == size
    assert mem.read(target) == b"t" * CHUNK + mem.read(source) + b"t" * (8 * CHUNK - CHUNK - size)
    assert mem.attr(target).st_blocks < 5 * CHUNK // 512
    assert (mem.attr(target).st_mtime_ns, mem.attr(source).st_atime_ns) == (now, now)


def test_a_copy_extends_the_target_also_by_a_hole() -> None:
    mem = Driver()
    source, target = mem.make(b"source"), mem.make(b"target")
    mem.setattr(source, SetAttr(size=CHUNK + 5))
    assert copy(mem, source, 5, target, 100, MANY) == CHUNK
    assert (mem.attr(target).st_size, mem.attr(target).st_blocks) == (CHUNK + 100, 0)


def test_a_copy_within_a_file_works() -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"0123456789")
    assert copy(mem, node, 0, node, 5, 5) == 5
    assert mem.read(node) == b"0123401234"


def test_a_copy_from_the_end_copies_nothing() -> None:
    mem = Driver()
    source, target = mem.make(b"source", data=b"x"), mem.make(b"target")
    mem.clock.tick()
    assert copy(mem, source, 1, target, 0, 10) == 0
    assert mem.attr(target).st_mtime_ns == START


def test_a_copy_stops_where_space_runs_out() -> None:
    mem = Driver(size=4 * PAGE)
    source, target = mem.make(b"source", data=b"x" * 3 * PAGE), mem.make(b"target")
    assert copy(mem, source, 0, target, 0, MANY) == PAGE
    assert error_of(lambda: copy(mem, source, PAGE, target, PAGE, MANY)) == errno.ENOSPC


def test_one_copy_does_not_hold_up_the_others_for_long() -> None:
    mem = Driver()
    source, target = mem.make(b"source"), mem.make(b"target")
    mem.setattr(source, SetAttr(size=MANY))
    assert copy(mem, source, 0, target, 0, MANY) == 16 << 20


def test_a_copy_has_no_flags() -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"x")
    assert error_of(lambda: copy(mem, node, 0, node, 1, 1, flags=1)) == errno.EINVAL


def test_a_copy_takes_setuid_unless_root_copies() -> None:
    mem = Driver()
    source, target = mem.make(b"source", data=b"x"), mem.make(b"target", mode=0o4755)
    copy(mem, source, 0, target, 0, 1)
    assert mem.mode(target) == 0o4755
    mem.fs.copy_file_range(ALICE, source, Handle(0), 0, target, Handle(0), 0, 1, 0)
    assert mem.mode(target) == 0o755
