"""Names: looked up, made, removed, renamed, linked."""

import errno
import os
import stat
from pathlib import Path

import pytest
from process.passthrough.support import Caller, Worker, error

from ringmount.workers.api import ROOT

RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4


def test_a_lookup_tells_what_stat_tells(worker: Worker) -> None:
    (worker.source / "file").write_bytes(b"12345")
    found = worker.entry(b"file")
    expected = os.stat(worker.source / "file")
    assert (found.attr.st_ino, found.attr.st_size, found.attr.st_mode) == (expected.st_ino, 5, expected.st_mode)
    assert found.attr.st_mtime_ns == expected.st_mtime_ns


def test_a_missing_name_is_enoent(worker: Worker) -> None:
    with error(errno.ENOENT):
        worker.entry(b"nothing")


def test_a_missing_name_is_remembered_where_the_mount_says_so(worker: Worker) -> None:
    worker.mount.timeouts.negative = 5.0
    found = worker.fs.lookup(worker.root, ROOT, b"nothing")
    assert (found.node, found.attr, found.entry_timeout) == (0, None, None)


def test_two_names_of_one_file_are_one_node(worker: Worker) -> None:
    first, _fh = worker.create(b"a")
    second = worker.link(first.node, b"b")
    assert second.node == first.node == worker.node(b"b")
    assert second.attr.st_nlink == 2
    worker.unlink(b"a")
    worker.evict()
    assert worker.attr(first.node).st_nlink == 1


def test_a_file_made_anew_under_an_old_name_is_another_node(worker: Worker) -> None:
    (worker.source / "x").touch()
    old = worker.node(b"x")
    (worker.source / "x").unlink()
    (worker.source / "x").touch()
    assert worker.node(b"x") != old


@pytest.mark.parametrize("name", [b"n" * 255, b"\xff\xfe invalid \x80", b"new\nline", "ümläut".encode(), b"-", b" "])
def test_names_are_bytes(worker: Worker, name: bytes) -> None:
    made, _fh = worker.create(name)
    assert worker.node(name) == made.node
    assert os.listdir(os.fsencode(worker.source)) == [name]
    worker.rename(name, b"other")
    worker.rename(b"other", name)
    worker.unlink(name)
    assert os.listdir(worker.source) == []


def test_a_name_that_is_too_long_is_refused(worker: Worker) -> None:
    with error(errno.ENAMETOOLONG):
        worker.entry(b"n" * 256)
    with error(errno.ENAMETOOLONG):
        worker.create(b"n" * 256)


def test_a_link_is_not_followed_when_it_is_looked_up(worker: Worker) -> None:
    made = worker.symlink(b"loop", b"loop")
    assert stat.S_ISLNK(made.attr.st_mode)
    assert worker.fs.readlink(worker.root, made.node) == b"loop"
    assert worker.entry(b"loop").node == made.node
    with error(errno.ENOTDIR):
        worker.entry(b"loop/x")


def test_a_long_target_is_read_whole(worker: Worker) -> None:
    target = b"t" * 4095
    made = worker.symlink(b"link", target)
    worker.evict()
    assert worker.fs.readlink(worker.root, made.node) == target


def test_a_link_can_have_two_names(worker: Worker) -> None:
    made = worker.symlink(b"one", b"target")
    assert worker.link(made.node, b"two").node == made.node
    assert os.readlink(worker.source / "two") == "target"


@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK])
def test_mknod_makes_every_kind(worker: Worker, kind: int) -> None:
    made = worker.mknod(b"it", kind | 0o640)
    assert made.attr.st_mode == kind | 0o640
    assert worker.node(b"it") == made.node


@pytest.mark.root
def test_mknod_makes_devices(worker: Worker) -> None:
    made = worker.mknod(b"null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert made.attr.st_rdev == os.makedev(1, 3)
    assert stat.S_ISCHR(made.attr.st_mode)


def test_names_that_are_taken_are_refused(worker: Worker) -> None:
    worker.mkdir(b"taken")
    for make in (
        lambda: worker.mkdir(b"taken"),
        lambda: worker.mknod(b"taken", stat.S_IFIFO),
        lambda: worker.symlink(b"taken", b"x"),
        lambda: worker.create(b"taken", flags=os.O_EXCL | os.O_RDWR),
        lambda: worker.link(worker.mknod(b"other", stat.S_IFREG).node, b"taken"),
    ):
        with error(errno.EEXIST):
            make()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo, lambda path: path.symlink_to("x")])
def test_creating_a_name_that_somebody_was_quicker_with_makes_the_kernel_look_again(worker: Worker, make) -> None:  # type: ignore[no-untyped-def]
    make(worker.source / "x")
    with error(errno.ESTALE):
        worker.create(b"x", flags=os.O_WRONLY | os.O_TRUNC)


def test_create_opens_what_it_makes_whatever_its_mode(worker: Worker) -> None:
    made, fh = worker.create(b"x", mode=0, flags=os.O_WRONLY)
    assert worker.write(made.node, fh, b"abc") == 3
    assert stat.S_IMODE(made.attr.st_mode) == 0
    assert worker.attr(made.node, fh).st_size == 3


def test_the_umask_is_the_callers(worker: Worker) -> None:
    for umask in (0o077, 0, 0o022):
        caller = Caller(umask=umask)
        name = b"%o" % umask
        assert stat.S_IMODE(worker.mkdir(b"d" + name, 0o777, caller).attr.st_mode) == 0o777 & ~umask
        assert stat.S_IMODE(worker.mknod(b"f" + name, stat.S_IFREG | 0o666, 0, caller).attr.st_mode) == 0o666 & ~umask
        assert stat.S_IMODE(worker.create(b"c" + name, 0o666, ctx=caller)[0].attr.st_mode) == 0o666 & ~umask


def test_an_unnamed_file_can_be_given_a_name(worker: Worker) -> None:
    entry, opened = worker.fs.tmpfile(worker.root, ROOT, stat.S_IFREG | 0o600, os.O_RDWR)
    node, fh = entry.node, opened.fh
    assert os.listdir(worker.source) == []
    worker.evict()
    assert worker.attr(node).st_nlink == 0  # type: ignore[arg-type]
    worker.write(node, fh, b"hello")  # type: ignore[arg-type]
    linked = worker.link(node, b"named")  # type: ignore[arg-type]
    assert linked.node == node
    worker.release(node, fh)  # type: ignore[arg-type]
    assert worker.content(b"named") == b"hello"


def test_an_unnamed_file_that_may_have_no_name_gets_none(worker: Worker) -> None:
    entry, _opened = worker.fs.tmpfile(worker.root, ROOT, stat.S_IFREG | 0o600, os.O_RDWR | os.O_EXCL)
    with error(errno.ENOENT):
        worker.link(entry.node, b"named")  # type: ignore[arg-type]


def test_removing_says_what_is_wrong(worker: Worker) -> None:
    worker.mkdir(b"folder")
    worker.mkdir(b"folder/inner")
    worker.mknod(b"file", stat.S_IFREG)
    for number, call, name in (
        (errno.EISDIR, worker.unlink, b"folder"),
        (errno.ENOTEMPTY, worker.rmdir, b"folder"),
        (errno.ENOTDIR, worker.rmdir, b"file"),
        (errno.ENOENT, worker.unlink, b"nothing"),
        (errno.ENOENT, worker.rmdir, b"nothing"),
    ):
        with error(number):
            call(name)
    assert sorted(os.listdir(worker.source)) == ["file", "folder"]
    worker.evict()
    assert worker.attr(worker.node(b"folder/inner")).st_nlink == 2


# --- rename -----------------------------------------------------------------------------------------------------------


def test_a_renamed_file_is_the_same_node(worker: Worker) -> None:
    worker.mkdir(b"a")
    worker.mkdir(b"b")
    node = worker.create(b"a/x")[0].node
    worker.rename(b"a/x", b"b/y")
    assert worker.node(b"b/y") == node
    worker.evict()
    assert worker.attr(node).st_nlink == 1


def test_what_lies_in_a_renamed_folder_is_still_there(worker: Worker) -> None:
    worker.mkdir(b"a")
    worker.mkdir(b"a/b")
    node = worker.mknod(b"a/b/file", stat.S_IFREG).node
    worker.rename(b"a", b"c")
    worker.evict()
    assert worker.attr(node).st_nlink == 1
    assert worker.node(b"c/b/file") == node


def test_a_rename_replaces_its_target(worker: Worker) -> None:
    new, _ = worker.create(b"new")
    old, fh = worker.create(b"old")
    worker.write(old.node, fh, b"old content")
    worker.rename(b"new", b"old")
    worker.evict()
    assert worker.node(b"old") == new.node
    assert worker.read(old.node, fh) == b"old content"
    assert worker.attr(old.node).st_nlink == 0


def test_a_rename_that_must_not_replace_does_not(worker: Worker) -> None:
    first, second = worker.create(b"first")[0], worker.create(b"second")[0]
    with error(errno.EEXIST):
        worker.rename(b"first", b"second", RENAME_NOREPLACE)
    worker.evict()
    assert worker.attr(first.node).st_nlink == worker.attr(second.node).st_nlink == 1
    worker.rename(b"first", b"third", RENAME_NOREPLACE)
    assert worker.node(b"third") == first.node


def test_two_names_change_places(worker: Worker) -> None:
    folder = worker.mkdir(b"folder").node
    inner = worker.mknod(b"folder/inner", stat.S_IFREG).node
    file = worker.mknod(b"file", stat.S_IFREG).node
    worker.rename(b"folder", b"file", RENAME_EXCHANGE)
    worker.evict()
    assert worker.attr(inner).st_nlink == 1
    assert worker.node(b"file") == folder
    assert worker.node(b"folder") == file
    assert worker.attr(file).st_nlink == 1


@pytest.mark.root
def test_a_rename_can_leave_a_whiteout(worker: Worker) -> None:
    worker.create(b"x")
    worker.rename(b"x", b"y", RENAME_WHITEOUT)
    left = os.stat(worker.source / "x")
    assert stat.S_ISCHR(left.st_mode)
    assert left.st_rdev == 0


def test_a_rename_to_another_name_of_the_same_file_does_nothing(worker: Worker) -> None:
    node = worker.create(b"a")[0].node
    worker.link(node, b"b")
    worker.rename(b"a", b"b")
    worker.evict()
    assert sorted(os.listdir(worker.source)) == ["a", "b"]
    assert worker.attr(node).st_nlink == 2


def test_a_rename_that_fails_changes_nothing(worker: Worker) -> None:
    worker.mkdir(b"a")
    inner = worker.mkdir(b"a/b").node
    full = worker.mkdir(b"full").node
    worker.mkdir(b"full/x")
    for number, old, new, flags in (
        (errno.EINVAL, b"a", b"a/b/c", 0),
        (errno.ENOTEMPTY, b"a", b"full", 0),
        (errno.ENOENT, b"nothing", b"full", 0),
        (errno.ENOENT, b"a", b"nothing", RENAME_EXCHANGE),
        (errno.EINVAL, b"a", b"z", 1 << 7),
    ):
        with error(number):
            worker.rename(old, new, flags)
    worker.evict()
    assert worker.attr(inner).st_nlink == 2
    assert worker.attr(full).st_nlink == 3


# --- owners -----------------------------------------------------------------------------------------------------------


@pytest.mark.root
def test_what_is_made_belongs_to_the_caller(worker: Worker) -> None:
    caller = Caller(1234, 5678)
    for made in (
        worker.mkdir(b"folder", ctx=caller),
        worker.mknod(b"fifo", stat.S_IFIFO | 0o600, ctx=caller),
        worker.symlink(b"link", b"x", ctx=caller),
        worker.create(b"file", ctx=caller)[0],
    ):
        assert (made.attr.st_uid, made.attr.st_gid) == (1234, 5678)
    entry, _ = worker.fs.tmpfile(caller, ROOT, 0o600, os.O_RDWR)
    assert entry.attr is not None
    assert entry.attr.st_uid == 1234
    assert worker.mkdir(b"roots").attr.st_uid == 0


@pytest.mark.root
def test_the_kernel_has_decided_who_may_make_things(worker: Worker) -> None:
    """By groups, access control lists and capabilities of the caller that are not known here."""
    worker.source.chmod(0o770)
    assert worker.mkdir(b"folder", ctx=Caller(1234, 5678)).attr.st_uid == 1234


@pytest.mark.root
def test_a_setgid_folder_gives_its_group_to_what_is_made_in_it(worker: Worker) -> None:
    os.chown(worker.source, 0, 4321)
    worker.source.chmod(0o2777)
    caller = Caller(1234, 5678)
    folder, (file, _) = worker.mkdir(b"folder", ctx=caller), worker.create(b"file", 0o2755, ctx=caller)
    assert (folder.attr.st_gid, folder.attr.st_mode & stat.S_ISGID) == (4321, stat.S_ISGID)
    assert (file.attr.st_gid, file.attr.st_mode & stat.S_ISGID) == (4321, stat.S_ISGID)


@pytest.mark.root
def test_after_a_failure_the_worker_is_itself_again(worker: Worker) -> None:
    worker.mkdir(b"x")
    with error(errno.EEXIST):
        worker.mkdir(b"x", ctx=Caller(1234, 5678))
    assert worker.mkdir(b"y").attr.st_uid == 0


@pytest.mark.root
def test_a_hard_link_needs_no_right_on_the_file(worker: Worker) -> None:
    made = worker.create(b"x", 0, ctx=Caller(1, 1))[0]
    assert worker.link(made.node, b"y").attr.st_nlink == 2
