"""The memory filesystem as a whole: options, limits, and how long objects live. Operations have files of their own."""

import errno
import os

import msgspec
import pytest
from fakes import FakeMount, Kernel
from pure.memory_driver import ROOT_USER, Driver, handle_of

from ringmount.workers.api import ROOT, Filesystem, Handle, NodeId, is_implemented
from ringmount.workers.filesystems.memory import LockingMemory, Memory, MemoryOptions

PAGE = 4096


def operations() -> set[str]:
    return {name for name in vars(Filesystem) if not is_implemented(Filesystem, name)}


def test_only_what_makes_no_sense_in_memory_is_left_out() -> None:
    left_out = {name for name in operations() if not is_implemented(LockingMemory, name)}
    assert left_out == {"bmap", "ioctl", "poll"}


def test_locks_are_left_to_the_kernel_unless_asked_for() -> None:
    left_out = {name for name in operations() if not is_implemented(Memory, name)}
    assert left_out == {"bmap", "ioctl", "poll", "getlk", "setlk", "flock"}
    assert Memory.variant(MemoryOptions()) is Memory
    assert Memory.variant(MemoryOptions(locks="own")) is LockingMemory


# --- options ------------------------------------------------------------------------------------


def test_without_options_half_of_the_machine_s_memory_may_be_used() -> None:
    fs = Memory(msgspec.convert({}, MemoryOptions), FakeMount())
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // PAGE
    assert fs.space.size == pages // 2 * PAGE
    assert fs.space.inodes == pages // 2
    root = fs.getattr(ROOT_USER, ROOT, None)
    assert (root.st_uid, root.st_gid, root.st_mode) == (os.getuid(), os.getgid(), 0o40755)


@pytest.mark.parametrize(("size", "expected"), [("64MiB", 64 << 20), ("8192", 8192), (PAGE, PAGE)])
def test_size_is_bytes_or_text_with_a_unit(size: int | str, expected: int) -> None:
    assert MemoryOptions(size=size).size_limit() == expected


@pytest.mark.parametrize(("mode", "expected"), [("0755", 0o755), ("755", 0o755), ("0o1777", 0o1777), (0o700, 0o700)])
def test_mode_is_octal_text(mode: int | str, expected: int) -> None:
    assert MemoryOptions(mode=mode).root_mode() == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "much"}, "'much' is not a size"),
        ({"size": 100}, "size is 100: a memory filesystem takes at least 4096 bytes"),
        ({"size": -1}, "size is -1: a memory filesystem takes at least 4096 bytes"),
        ({"inodes": 0}, "Expected `int` >= 1 - at `$.inodes`"),
        ({"mode": 755}, "mode is 755: write permissions as octal text"),
        ({"mode": 1777}, "mode is 1777: write permissions as octal text"),
        ({"mode": "rwx"}, "mode is 'rwx': write permissions as octal text"),
        ({"mode": "0077"}, "mode is '0077': write permissions as octal text"),
        ({"mode": "010777"}, "mode is '010777': write permissions as octal text"),
        ({"uid": -1}, "Expected `int` >= 0 - at `$.uid`"),
        ({"colour": "red"}, "Object contains unknown field `colour`"),
    ],
)
def test_options_that_cannot_work_are_refused_with_a_reason(options: object, message: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(options, MemoryOptions)
    assert message in str(caught.value)


def test_the_root_belongs_to_whom_the_options_say() -> None:
    fs = Memory(MemoryOptions(mode="1777", uid=7, gid=8), FakeMount())
    root = fs.getattr(ROOT_USER, ROOT, None)
    assert (root.st_ino, root.st_uid, root.st_gid, root.st_mode) == (ROOT, 7, 8, 0o41777)


# --- limits -------------------------------------------------------------------------------------


def test_statfs_shows_what_is_free() -> None:
    mem = Driver(size="1MiB", inodes=10)
    before = mem.fs.statfs(ROOT_USER, ROOT)
    assert (before.f_bsize, before.f_frsize, before.f_namemax) == (PAGE, PAGE, 255)
    assert (before.f_blocks, before.f_bfree, before.f_files, before.f_ffree) == (256, 256, 10, 9)
    mem.make(b"file", data=b"x" * (PAGE + 1))
    after = mem.fs.statfs(ROOT_USER, ROOT)
    assert (after.f_bfree, after.f_bavail, after.f_ffree) == (254, 254, 8)


def test_a_write_beyond_the_size_is_cut_short_and_the_next_one_refused() -> None:
    mem = Driver(size=4 * PAGE)
    node = mem.make(b"file")
    assert mem.write(node, 0, b"x" * PAGE * 6) == 4 * PAGE
    assert mem.attr(node).st_size == 4 * PAGE
    with pytest.raises(OSError) as caught:
        mem.write(node, 4 * PAGE, b"x")
    assert caught.value.errno == errno.ENOSPC
    assert mem.attr(node).st_size == 4 * PAGE
    assert mem.write(node, PAGE, b"y") == 1, "what is there can be written over"


def test_an_object_beyond_the_inodes_is_refused_and_leaves_nothing() -> None:
    mem = Driver(inodes=2)
    mem.make(b"file")
    for make in (
        lambda: mem.make(b"more"),
        lambda: mem.mkdir(b"more"),
        lambda: mem.symlink(b"more", b"target"),
        lambda: mem.fs.tmpfile(ROOT_USER, ROOT, 0o600, os.O_RDWR),
    ):
        with pytest.raises(OSError) as caught:
            make()
        assert caught.value.errno == errno.ENOSPC
    assert mem.names() == [b"file"]
    mem.unlink(b"file")
    mem.kernel.forget_all()
    mem.make(b"more")


def test_extended_attributes_count_and_are_given_back() -> None:
    mem = Driver(size=PAGE)
    node = mem.make(b"file")
    mem.setxattr(node, b"user.key", b"v" * 4000)
    assert mem.fs.space.used == 4008
    with pytest.raises(OSError) as caught:
        mem.setxattr(node, b"user.more", b"v" * 100)
    assert caught.value.errno == errno.ENOSPC
    mem.setxattr(node, b"user.key", b"v")
    assert mem.fs.space.used == 9
    mem.unlink(b"file")
    mem.kernel.forget_all()
    assert mem.fs.space.used == 0


# --- lives --------------------------------------------------------------------------------------


def test_an_unlinked_file_lives_until_it_is_forgotten() -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"still here")
    mem.unlink(b"file")
    assert mem.read(node) == b"still here"
    assert mem.attr(node).st_nlink == 0
    mem.kernel.forget(node)
    with pytest.raises(OSError) as caught:
        mem.fs.getattr(ROOT_USER, node, None)
    assert caught.value.errno == errno.ESTALE
    assert (mem.fs.space.used, mem.fs.space.inodes_used) == (0, 1)


def test_a_forgotten_file_with_a_name_is_found_again_as_the_same_node() -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"kept")
    mem.kernel.forget(node)
    assert mem.find(b"file") == node
    assert mem.read(node) == b"kept"


def test_a_file_that_the_kernel_does_not_know_goes_with_its_last_name() -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"x")
    mem.link(node, b"other")
    mem.kernel.forget(node)
    mem.unlink(b"file")
    assert mem.fs.space.inodes_used == 2
    mem.unlink(b"other")
    assert (mem.fs.space.used, mem.fs.space.inodes_used) == (0, 1)


def test_an_open_file_survives_forget_until_it_is_released() -> None:
    mem = Driver()
    node = mem.make(b"file", data=b"open")
    opened = mem.fs.open(ROOT_USER, node, os.O_RDONLY)
    mem.unlink(b"file")
    mem.kernel.forget(node)
    assert mem.read(node) == b"open"
    mem.fs.release(ROOT_USER, node, Handle(opened.fh), os.O_RDONLY, None)
    assert (mem.fs.space.used, mem.fs.space.inodes_used) == (0, 1)


def test_an_open_folder_survives_rmdir_and_forget_until_it_is_released() -> None:
    mem = Driver()
    node = mem.mkdir(b"folder")
    opened = mem.fs.opendir(ROOT_USER, node, os.O_RDONLY)
    mem.rmdir(b"folder")
    mem.kernel.forget(node)
    assert mem.names(node) == []
    mem.fs.releasedir(ROOT_USER, node, Handle(opened.fh))
    assert mem.fs.space.inodes_used == 1


def test_numbers_are_not_used_again() -> None:
    mem = Driver()
    numbers = set()
    for _ in range(10):
        numbers.add(mem.make(b"file"))
        mem.unlink(b"file")
        mem.kernel.forget_all()
    assert len(numbers) == 10


def test_a_worker_s_successor_uses_other_numbers() -> None:
    mem = Driver()
    node = mem.make(b"file")
    successor = Memory(mem.fs.options, mem.fs.mount)
    entry, _ = successor.create(ROOT_USER, ROOT, b"other", 0o600, os.O_RDWR)
    assert entry.node != node
    with pytest.raises(OSError) as caught:
        successor.getattr(ROOT_USER, node, None)
    assert caught.value.errno == errno.ESTALE


def test_a_replaced_file_lives_until_it_is_forgotten() -> None:
    mem = Driver()
    old, new = mem.make(b"old", data=b"old"), mem.make(b"new", data=b"new")
    mem.rename(b"new", b"old")
    assert mem.read(old) == b"old"
    assert mem.find(b"old") == new
    mem.kernel.forget(old)
    assert mem.fs.space.inodes_used == 2


def test_forgetting_and_releasing_what_is_gone_does_nothing() -> None:
    mem = Driver()
    mem.fs.forget(NodeId(99))
    mem.fs.release(ROOT_USER, NodeId(99), Handle(99), 0, None)
    mem.fs.releasedir(ROOT_USER, NodeId(99), Handle(99))


def test_the_root_is_never_dropped() -> None:
    mem = Driver()
    mem.find(b".")
    mem.kernel.forget_all()
    mem.fs.forget(ROOT)
    assert mem.attr(ROOT).st_nlink == 2


def test_durability_costs_nothing() -> None:
    mem = Driver()
    node = mem.make(b"file")
    fh = handle_of(node)
    mem.fs.flush(ROOT_USER, node, fh, 1)
    mem.fs.fsync(ROOT_USER, node, fh, datasync=True)
    mem.fs.fsyncdir(ROOT_USER, ROOT, handle_of(ROOT), datasync=False)
    mem.fs.syncfs(ROOT_USER, ROOT)


def test_two_filesystems_share_nothing() -> None:
    one, other = Driver(), Driver()
    one.make(b"file")
    assert other.names() == []
    assert isinstance(other.kernel, Kernel)
