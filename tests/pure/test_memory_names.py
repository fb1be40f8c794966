"""Names in the memory filesystem: lookup, making and removing, links, renames, listings."""

import errno
import os
import stat
from collections.abc import Callable

import pytest
from fakes import FakeContext, FakeDirectoryBuffer, FakeDirectoryPlusBuffer
from pure.memory_driver import ALICE, BOB, ROOT_USER, START, Driver, handle_of

from ringmount.workers.api import ROOT, Handle, NodeId, SetAttr
from ringmount.workers.filesystems.memory import inodes

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
LONG = b"n" * 256


def error_of(call: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as caught:
        call()
    return caught.value.errno


# --- lookup -------------------------------------------------------------------------------------


def test_lookup_finds_what_was_made() -> None:
    mem = Driver()
    folder = mem.mkdir(b"folder")
    file = mem.make(b"file", folder)
    assert mem.find(b"folder", b"file") == file


def test_a_missing_name_is_an_entry_without_a_node_for_the_kernel_to_remember() -> None:
    mem = Driver()
    entry = mem.fs.lookup(ROOT_USER, ROOT, b"missing")
    assert (entry.node, entry.attr, entry.entry_timeout) == (0, None, None)


def test_lookup_of_dots_serves_nfs() -> None:
    mem = Driver()
    folder = mem.mkdir(b"folder")
    file = mem.make(b"file", folder)
    assert mem.find(b"folder", b".") == folder
    assert mem.find(b"folder", b"..") == ROOT
    assert mem.find(b"..") == ROOT
    assert mem.kernel.took(mem.fs.lookup(ROOT_USER, file, b".")) == file


@pytest.mark.parametrize("operation", ["lookup", "mkdir", "unlink", "rmdir", "symlink", "create", "link", "rename"])
def test_a_name_of_256_bytes_is_too_long(operation: str) -> None:
    mem = Driver()
    file = mem.make(b"file")
    calls: dict[str, Callable[[], object]] = {
        "lookup": lambda: mem.find(LONG),
        "mkdir": lambda: mem.mkdir(LONG),
        "unlink": lambda: mem.unlink(LONG),
        "rmdir": lambda: mem.rmdir(LONG),
        "symlink": lambda: mem.symlink(LONG, b"target"),
        "create": lambda: mem.make(LONG),
        "link": lambda: mem.link(file, LONG),
        "rename": lambda: mem.rename(b"file", LONG),
    }
    assert error_of(calls[operation]) == errno.ENAMETOOLONG
    assert mem.names() == [b"file"]


def test_a_name_of_255_bytes_is_fine() -> None:
    mem = Driver()
    mem.make(LONG[1:])
    assert mem.names() == [LONG[1:]]


def test_names_in_what_is_no_folder_are_refused() -> None:
    mem = Driver()
    file = mem.make(b"file")
    calls: list[Callable[[], object]] = [
        lambda: mem.fs.lookup(ROOT_USER, file, b"name"),
        lambda: mem.mkdir(b"name", file),
        lambda: mem.unlink(b"name", file),
        lambda: mem.rename(b"file", b"name", new_parent=file),
        lambda: mem.fs.opendir(ROOT_USER, file, 0),
        lambda: mem.names(file),
    ]
    assert [error_of(call) for call in calls] == [errno.ENOTDIR] * len(calls)


def test_an_unknown_node_is_stale() -> None:
    mem = Driver()
    assert error_of(lambda: mem.fs.lookup(ROOT_USER, NodeId(99), b"name")) == errno.ESTALE
    assert error_of(lambda: mem.read(NodeId(99))) == errno.ESTALE


# --- making -------------------------------------------------------------------------------------


def test_a_new_file_is_empty_and_the_caller_s() -> None:
    mem = Driver()
    attr = mem.attr(mem.make(b"file", mode=0o640, ctx=ALICE))
    assert (attr.st_mode, attr.st_uid, attr.st_gid) == (stat.S_IFREG | 0o640, 1000, 1000)
    assert (attr.st_size, attr.st_blocks, attr.st_nlink) == (0, 0, 1)


def test_a_new_folder_counts_as_a_link_of_its_parent() -> None:
    mem = Driver()
    folder = mem.mkdir(b"folder")
    assert mem.attr(folder).st_nlink == 2
    assert mem.attr(ROOT).st_nlink == 3
    mem.rmdir(b"folder")
    assert mem.attr(folder).st_nlink == 0
    assert mem.attr(ROOT).st_nlink == 2


@pytest.mark.parametrize(
    ("kind", "rdev", "expected_rdev"),
    [
        (stat.S_IFREG, 7, 0),
        (stat.S_IFIFO, 7, 0),
        (stat.S_IFSOCK, 7, 0),
        (stat.S_IFCHR, os.makedev(1, 3), os.makedev(1, 3)),
        (stat.S_IFBLK, os.makedev(259, 70000), os.makedev(259, 70000)),
    ],
)
def test_mknod_makes_every_type(kind: int, rdev: int, expected_rdev: int) -> None:
    mem = Driver()
    attr = mem.attr(mem.mknod(b"node", kind | 0o600, rdev))
    assert (attr.st_mode, attr.st_rdev, attr.st_nlink) == (kind | 0o600, expected_rdev, 1)


def test_mknod_without_a_type_makes_a_file() -> None:
    mem = Driver()
    node = mem.mknod(b"file", 0o600)
    assert mem.attr(node).st_mode == stat.S_IFREG | 0o600
    mem.write(node, 0, b"data")


def test_the_umask_applies_because_the_kernel_leaves_it_to_filesystems_with_lists() -> None:
    mem = Driver()
    careful = FakeContext(umask=0o027)
    assert mem.mode(mem.make(b"file", mode=0o666, ctx=careful)) == 0o640
    assert mem.mode(mem.mkdir(b"folder", mode=0o777, ctx=careful)) == 0o750
    assert mem.mode(mem.mknod(b"fifo", stat.S_IFIFO | 0o666, ctx=careful)) == 0o640
    assert mem.attr(mem.symlink(b"link", b"x", ctx=careful)).st_mode == stat.S_IFLNK | 0o777


def test_a_setgid_folder_gives_its_group_and_folders_in_it_the_bit() -> None:
    mem = Driver()
    folder = mem.mkdir(b"folder")
    mem.setattr(folder, SetAttr(mode=0o2777, gid=2000))
    assert mem.attr(mem.make(b"file", folder, ctx=BOB)).st_gid == 2000
    assert mem.attr(mem.symlink(b"link", b"x", folder, ctx=BOB)).st_gid == 2000
    inner = mem.attr(mem.mkdir(b"inner", folder, ctx=BOB))
    assert (inner.st_gid, inner.st_mode) == (2000, stat.S_IFDIR | 0o2755)


@pytest.mark.parametrize(
    ("ctx", "asked", "expected"),
    [
        (BOB, 0o2755, 0o755),
        (BOB, 0o2744, 0o2744),
        (ALICE, 0o2755, 0o2755),
        (ROOT_USER, 0o2755, 0o2755),
    ],
)
def test_only_members_make_setgid_programs_in_a_setgid_folder(ctx: FakeContext, asked: int, expected: int) -> None:
    mem = Driver()
    folder = mem.mkdir(b"folder")
    mem.setattr(folder, SetAttr(mode=0o2777, gid=2000))
    assert mem.mode(mem.make(b"file", folder, mode=asked, ctx=ctx)) == expected


def test_a_name_that_is_taken_is_refused() -> None:
    mem = Driver()
    file = mem.make(b"file")
    calls: list[Callable[[], object]] = [
        lambda: mem.mkdir(b"file"),
        lambda: mem.mknod(b"file", stat.S_IFIFO),
        lambda: mem.symlink(b"file", b"x"),
        lambda: mem.link(file, b"file"),
        lambda: mem.fs.create(ROOT_USER, ROOT, b"file", 0o600, os.O_RDWR | os.O_EXCL),
    ]
    assert [error_of(call) for call in calls] == [errno.EEXIST] * len(calls)
    assert mem.attr(file).st_nlink == 1


def test_nothing_is_made_in_a_removed_folder() -> None:
    mem = Driver()
    folder, file = mem.mkdir(b"folder"), mem.make(b"file")
    mem.rmdir(b"folder")
    calls: list[Callable[[], object]] = [
        lambda: mem.make(b"new", folder),
        lambda: mem.mkdir(b"new", folder),
        lambda: mem.link(file, b"new", folder),
        lambda: mem.rename(b"file", b"new", new_parent=folder),
        lambda: mem.fs.tmpfile(ROOT_USER, folder, 0o600, os.O_RDWR),
    ]
    assert [error_of(call) for call in calls] == [errno.ENOENT] * len(calls)


def test_making_and_removing_changes_the_folder_s_times() -> None:
    mem = Driver()
    for change in (
        lambda: mem.make(b"file"),
        lambda: mem.link(mem.find(b"file"), b"hard"),
        lambda: mem.symlink(b"soft", b"file"),
        lambda: mem.mkdir(b"folder"),
        lambda: mem.unlink(b"file"),
        lambda: mem.rmdir(b"folder"),
    ):
        now = mem.clock.tick()
        change()
        attr = mem.attr(ROOT)
        assert (attr.st_atime_ns, attr.st_mtime_ns, attr.st_ctime_ns) == (START, now, now)


# --- links --------------------------------------------------------------------------------------


def test_hard_links_are_one_object() -> None:
    mem = Driver()
    file = mem.make(b"file", data=b"same")
    born = mem.attr(file)
    now = mem.clock.tick()
    assert mem.link(file, b"other") == file
    attr = mem.attr(file)
    assert (attr.st_nlink, attr.st_ctime_ns, attr.st_mtime_ns) == (2, now, born.st_mtime_ns)
    now = mem.clock.tick()
    mem.unlink(b"file")
    attr = mem.attr(file)
    assert (attr.st_nlink, attr.st_ctime_ns) == (1, now)
    assert mem.read(mem.find(b"other")) == b"same"


def test_a_folder_has_no_hard_links() -> None:
    mem = Driver()
    folder = mem.mkdir(b"folder")
    assert error_of(lambda: mem.link(folder, b"other")) == errno.EPERM


def test_too_many_links_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mem = Driver()
    monkeypatch.setattr("ringmount.workers.filesystems.memory.names.MAX_LINKS", 3)
    file, folder = mem.make(b"file"), mem.mkdir(b"folder")
    mem.link(file, b"2")
    mem.link(file, b"3")
    assert error_of(lambda: mem.link(file, b"4")) == errno.EMLINK
    mem.mkdir(b"inner", folder)
    assert error_of(lambda: mem.mkdir(b"more", folder)) == errno.EMLINK
    assert error_of(lambda: mem.mkdir(b"more")) == errno.EMLINK, "the root has folder's link too"
    mem.rename(b"file", b"inner2", new_parent=folder)
    assert inodes.MAX_LINKS > 65_000


def test_a_moved_folder_counts_against_its_new_parent_s_links(monkeypatch: pytest.MonkeyPatch) -> None:
    mem = Driver()
    folder = mem.mkdir(b"folder")
    mem.mkdir(b"inner", folder)
    mem.mkdir(b"other")
    monkeypatch.setattr("ringmount.workers.filesystems.memory.names.MAX_LINKS", 3)
    assert error_of(lambda: mem.rename(b"other", b"moved", new_parent=folder)) == errno.EMLINK
    mem.rename(b"other", b"inner", new_parent=folder)


def test_an_unlinked_file_gets_no_new_name() -> None:
    mem = Driver()
    file = mem.make(b"file")
    mem.unlink(b"file")
    assert error_of(lambda: mem.link(file, b"again")) == errno.ENOENT


def test_a_symbolic_link_keeps_its_target() -> None:
    mem = Driver()
    link = mem.symlink(b"link", b"some/where", ctx=ALICE)
    attr = mem.attr(link)
    assert (attr.st_mode, attr.st_size, attr.st_uid) == (stat.S_IFLNK | 0o777, 10, 1000)
    assert mem.fs.readlink(ROOT_USER, link) == b"some/where"


def test_a_target_of_4096_bytes_is_too_long() -> None:
    mem = Driver()
    mem.symlink(b"longest", b"t" * 4095)
    assert error_of(lambda: mem.symlink(b"longer", b"t" * 4096)) == errno.ENAMETOOLONG


def test_only_a_symbolic_link_can_be_read_as_one() -> None:
    mem = Driver()
    file = mem.make(b"file")
    assert error_of(lambda: mem.fs.readlink(ROOT_USER, file)) == errno.EINVAL


# --- files without a name -----------------------------------------------------------------------


def test_a_tmpfile_can_be_given_a_name_once() -> None:
    mem = Driver()
    entry, opened = mem.fs.tmpfile(ALICE, ROOT, 0o600, os.O_RDWR)
    node = mem.kernel.took(entry)
    assert (mem.attr(node).st_nlink, mem.attr(node).st_uid, mem.names()) == (0, 1000, [])
    mem.write(node, 0, b"written first")
    mem.link(node, b"named")
    assert mem.attr(node).st_nlink == 1
    mem.unlink(b"named")
    assert error_of(lambda: mem.link(node, b"again")) == errno.ENOENT
    mem.fs.release(ROOT_USER, node, Handle(opened.fh), os.O_RDWR, None)
    mem.kernel.forget_all()
    assert (mem.fs.space.used, mem.fs.space.inodes_used) == (0, 1)


def test_an_exclusive_tmpfile_stays_without_a_name() -> None:
    mem = Driver()
    entry, _ = mem.fs.tmpfile(ROOT_USER, ROOT, 0o600, os.O_RDWR | os.O_EXCL)
    node = mem.kernel.took(entry)
    assert error_of(lambda: mem.link(node, b"named")) == errno.ENOENT


# --- removing -----------------------------------------------------------------------------------


def test_what_is_not_there_cannot_be_removed() -> None:
    mem = Driver()
    assert error_of(lambda: mem.unlink(b"missing")) == errno.ENOENT
    assert error_of(lambda: mem.rmdir(b"missing")) == errno.ENOENT
    assert error_of(lambda: mem.rename(b"missing", b"name")) == errno.ENOENT


def test_unlink_and_rmdir_do_not_do_each_other_s_work() -> None:
    mem = Driver()
    mem.make(b"file")
    mem.mkdir(b"folder")
    assert error_of(lambda: mem.unlink(b"folder")) == errno.EISDIR
    assert error_of(lambda: mem.rmdir(b"file")) == errno.ENOTDIR


def test_a_folder_that_holds_something_stays() -> None:
    mem = Driver()
    folder = mem.mkdir(b"folder")
    mem.make(b"file", folder)
    assert error_of(lambda: mem.rmdir(b"folder")) == errno.ENOTEMPTY
    mem.unlink(b"file", folder)
    mem.rmdir(b"folder")


# --- renaming -----------------------------------------------------------------------------------


def test_a_rename_moves_the_object_and_changes_the_times() -> None:
    mem = Driver()
    folder = mem.mkdir(b"folder")
    file = mem.make(b"file", data=b"moved")
    before = mem.attr(file)
    now = mem.clock.tick()
    mem.rename(b"file", b"there", new_parent=folder)
    assert (mem.find(b"file"), mem.find(b"folder", b"there")) == (0, file)
    attr = mem.attr(file)
    assert (attr.st_ctime_ns, attr.st_mtime_ns, attr.st_nlink) == (now, before.st_mtime_ns, 1)
    assert [mem.attr(node).st_mtime_ns for node in (ROOT, folder)] == [now, now]
    assert [mem.attr(node).st_ctime_ns for node in (ROOT, folder)] == [now, now]


def test_a_moved_folder_takes_its_dotdot_along() -> None:
    mem = Driver()
    old, new = mem.mkdir(b"old"), mem.mkdir(b"new")
    child = mem.mkdir(b"child", old)
    mem.rename(b"child", b"child", parent=old, new_parent=new)
    assert (mem.attr(old).st_nlink, mem.attr(new).st_nlink) == (2, 3)
    assert mem.find(b"new", b"child", b"..") == new
    assert mem.attr(child).st_nlink == 2


def test_a_rename_replaces_in_one_step() -> None:
    mem = Driver()
    new, old = mem.make(b"new"), mem.make(b"old")
    now = mem.clock.tick()
    mem.rename(b"new", b"old")
    assert mem.find(b"old") == new
    assert mem.names() == [b"old"]
    assert (mem.attr(old).st_nlink, mem.attr(old).st_ctime_ns) == (0, now)


def test_a_folder_replaces_an_empty_folder_only() -> None:
    mem = Driver()
    one, two = mem.mkdir(b"one"), mem.mkdir(b"two")
    mem.make(b"file", two)
    assert error_of(lambda: mem.rename(b"one", b"two")) == errno.ENOTEMPTY
    mem.unlink(b"file", two)
    mem.rename(b"one", b"two")
    assert mem.find(b"two") == one
    assert (mem.attr(ROOT).st_nlink, mem.attr(two).st_nlink) == (3, 0)


def test_file_and_folder_do_not_replace_each_other() -> None:
    mem = Driver()
    mem.mkdir(b"folder")
    mem.make(b"file")
    assert error_of(lambda: mem.rename(b"file", b"folder")) == errno.EISDIR
    assert error_of(lambda: mem.rename(b"folder", b"file")) == errno.ENOTDIR


@pytest.mark.parametrize("flags", [0, EXCHANGE])
def test_a_folder_cannot_go_into_itself(flags: int) -> None:
    mem = Driver()
    one = mem.mkdir(b"one")
    two = mem.mkdir(b"two", one)
    mem.make(b"file", two)
    assert error_of(lambda: mem.rename(b"one", b"file", new_parent=two, flags=flags)) == errno.EINVAL
    assert error_of(lambda: mem.rename(b"one", b"two", new_parent=one, flags=flags)) == errno.EINVAL
    assert (mem.find(b"one", b"two"), mem.names(two)) == (two, [b"file"])


def test_a_folder_s_content_does_not_replace_the_folder() -> None:
    mem = Driver()
    one = mem.mkdir(b"one")
    mem.mkdir(b"two", one)
    assert error_of(lambda: mem.rename(b"two", b"one", parent=one)) == errno.ENOTEMPTY
    assert error_of(lambda: mem.rename(b"two", b"one", parent=one, flags=EXCHANGE)) == errno.EINVAL


def test_a_rename_between_two_names_of_one_object_does_nothing() -> None:
    mem = Driver()
    file = mem.make(b"file")
    mem.link(file, b"other")
    mem.clock.tick()
    for flags in (0, EXCHANGE):
        mem.rename(b"file", b"other", flags=flags)
        mem.rename(b"file", b"file", flags=flags)
    assert (sorted(mem.names()), mem.attr(file).st_nlink) == ([b"file", b"other"], 2)
    assert mem.attr(file).st_ctime_ns == START


def test_noreplace_spares_what_is_there() -> None:
    mem = Driver()
    mem.make(b"one")
    mem.make(b"two")
    assert error_of(lambda: mem.rename(b"one", b"two", flags=NOREPLACE)) == errno.EEXIST
    mem.rename(b"one", b"three", flags=NOREPLACE)
    assert mem.names() == [b"two", b"three"]


def test_exchange_swaps_any_two_objects() -> None:
    mem = Driver()
    folder = mem.mkdir(b"folder")
    file, inner = mem.make(b"file"), mem.mkdir(b"inner", folder)
    now = mem.clock.tick()
    mem.rename(b"file", b"inner", new_parent=folder, flags=EXCHANGE)
    assert (mem.find(b"file"), mem.find(b"folder", b"inner")) == (inner, file)
    assert (mem.attr(ROOT).st_nlink, mem.attr(folder).st_nlink) == (4, 2)
    assert mem.find(b"file", b"..") == ROOT
    assert [mem.attr(node).st_ctime_ns for node in (file, inner, folder, ROOT)] == [now] * 4


def test_exchange_needs_both() -> None:
    mem = Driver()
    mem.make(b"file")
    assert error_of(lambda: mem.rename(b"file", b"missing", flags=EXCHANGE)) == errno.ENOENT
    assert error_of(lambda: mem.rename(b"missing", b"file", flags=EXCHANGE)) == errno.ENOENT


def test_a_whiteout_takes_the_old_name() -> None:
    mem = Driver()
    file = mem.make(b"file")
    mem.rename(b"file", b"moved", flags=WHITEOUT)
    assert mem.find(b"moved") == file
    attr = mem.attr(mem.find(b"file"))
    assert (attr.st_mode, attr.st_rdev, attr.st_nlink) == (stat.S_IFCHR, 0, 1)


def test_a_whiteout_that_finds_no_space_changes_nothing() -> None:
    mem = Driver(inodes=3)
    file = mem.make(b"file")
    mem.make(b"other")
    assert error_of(lambda: mem.rename(b"file", b"other", flags=WHITEOUT)) == errno.ENOSPC
    assert (mem.find(b"file"), mem.names()) == (file, [b"file", b"other"])


@pytest.mark.parametrize("flags", [8, EXCHANGE | NOREPLACE, EXCHANGE | WHITEOUT])
def test_flags_that_make_no_sense_are_refused(flags: int) -> None:
    mem = Driver()
    mem.make(b"one")
    mem.make(b"two")
    assert error_of(lambda: mem.rename(b"one", b"two", flags=flags)) == errno.EINVAL


# --- listings -----------------------------------------------------------------------------------


def list_in_parts(mem: Driver, node: NodeId, size: int) -> list[bytes]:
    """The folder's names, read with a buffer of `size` bytes at a time."""
    names: list[bytes] = []
    offset = 0
    while True:
        out = FakeDirectoryBuffer(size)
        mem.fs.readdir(ROOT_USER, node, handle_of(node), offset, out)
        if not out.entries:
            return names
        names += out.names
        offset = out.entries[-1][3]


def test_a_listing_tells_types_and_numbers() -> None:
    mem = Driver()
    folder = mem.mkdir(b"folder")
    made = {
        b"file": mem.make(b"file", folder),
        b"fifo": mem.mknod(b"fifo", stat.S_IFIFO | 0o600, parent=folder),
        b"inner": mem.mkdir(b"inner", folder),
    }
    out = FakeDirectoryBuffer()
    mem.fs.readdir(ROOT_USER, folder, handle_of(folder), 0, out)
    assert [entry[:3] for entry in out.entries] == [
        (b".", folder, stat.S_IFDIR),
        (b"..", ROOT, stat.S_IFDIR),
        (b"inner", made[b"inner"], stat.S_IFDIR),
        (b"fifo", made[b"fifo"], stat.S_IFIFO),
        (b"file", made[b"file"], stat.S_IFREG),
    ]


@pytest.mark.parametrize("size", [32, 64, 100, 4096])
def test_a_listing_in_parts_is_whole(size: int) -> None:
    mem = Driver()
    expected = [b"%d" % number for number in range(100)]
    for name in expected:
        mem.make(name)
    assert list_in_parts(mem, ROOT, size) == [b".", b"..", *reversed(expected)]


def test_a_listing_goes_on_while_the_folder_changes() -> None:
    mem = Driver()
    for number in range(300):
        mem.make(b"%03d" % number)
    out = FakeDirectoryBuffer(32 * 102)
    mem.fs.readdir(ROOT_USER, ROOT, handle_of(ROOT), 0, out)
    assert out.names[-1] == b"200"
    for number in (*range(190, 210), *range(10, 150)):
        mem.unlink(b"%03d" % number)
    mem.make(b"new")
    mem.rename(b"005", b"004")
    rest = FakeDirectoryBuffer()
    mem.fs.readdir(ROOT_USER, ROOT, handle_of(ROOT), out.entries[-1][3], rest)
    stayed = [*range(189, 149, -1), 9, 8, 7, 6, 4, 3, 2, 1, 0]
    assert rest.names == [b"%03d" % number for number in stayed]


def test_a_listing_ends_though_names_keep_coming() -> None:
    mem = Driver()
    mem.make(b"first")
    names: list[bytes] = []
    offset = 0
    while True:
        out = FakeDirectoryBuffer(32)
        mem.fs.readdir(ROOT_USER, ROOT, handle_of(ROOT), offset, out)
        if not out.entries:
            break
        names += out.names
        offset = out.entries[-1][3]
        mem.make(b"%d" % len(names))
    assert names == [b".", b"..", b"2", b"1", b"first"]


def test_removing_a_folder_s_names_one_by_one_stays_quick() -> None:
    mem = Driver()
    folder = mem.fs._folder(ROOT)
    for number in range(2000):
        mem.make(b"%d" % number)
    for number in range(2000):
        mem.unlink(b"%d" % number)
    assert len(folder._listing) <= 32


def test_readdirplus_answers_the_lookups() -> None:
    mem = Driver()
    file = mem.make(b"file")
    mem.kernel.forget_all()
    out = FakeDirectoryPlusBuffer(mem.kernel)
    mem.fs.readdirplus(ROOT_USER, ROOT, handle_of(ROOT), 0, out)
    assert out.names == [b".", b"..", b"file"]
    assert [entry.node for _, entry, _ in out.entries] == [0, 0, file]
    assert [entry.attr.st_ino for _, entry, _ in out.entries if entry.attr] == [ROOT, ROOT, file]
    mem.unlink(b"file")
    assert mem.attr(file).st_nlink == 0, "the kernel holds a reference from the listing"
    mem.kernel.forget_all()
    assert mem.fs.space.inodes_used == 1


def test_an_entry_that_did_not_fit_is_not_known_to_the_kernel() -> None:
    mem = Driver()
    mem.make(b"one")
    mem.make(b"two")
    mem.kernel.forget_all()
    out = FakeDirectoryPlusBuffer(mem.kernel, size=160 * 3)
    mem.fs.readdirplus(ROOT_USER, ROOT, handle_of(ROOT), 0, out)
    assert out.names == [b".", b"..", b"two"]
    mem.unlink(b"one")
    assert mem.fs.space.inodes_used == 2
    rest = FakeDirectoryPlusBuffer(mem.kernel)
    mem.fs.readdirplus(ROOT_USER, ROOT, handle_of(ROOT), out.entries[-1][2], rest)
    assert rest.names == []


def test_a_folder_s_size_grows_with_its_names() -> None:
    mem = Driver()
    assert mem.attr(ROOT).st_size == 40
    mem.make(b"file")
    assert mem.attr(ROOT).st_size == 60
