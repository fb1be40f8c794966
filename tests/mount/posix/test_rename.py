"""rename(2) and renameat2(2)."""

import errno
import os
import stat
from pathlib import Path

from mount.posix import kinds
from mount.posix.each import each
from mount.posix.expect import age, changed, entries, opened, refused
from mount.posix.kinds import Kind, make, make_file, make_folder
from mount.posix.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, renameat2
from mount.posix.users import alice, bob


@each("kind", kinds.ALL)
def test_an_object_gets_another_name(folder: Path, kind: Kind) -> None:
    make(kind, folder / "old")
    make_folder(folder / "inner")
    before = os.lstat(folder / "old")
    os.rename(folder / "old", folder / "new")
    os.rename(folder / "new", folder / "inner" / "new")
    assert entries(folder) == ["inner"]
    assert entries(folder / "inner") == ["new"]
    after = os.lstat(folder / "inner" / "new")
    assert os.path.samestat(before, after)
    assert before[:7] == after[:7]


@each("new", kinds.NOT_FOLDERS)
def test_what_is_no_folder_replaces_what_is_none(folder: Path, new: Kind) -> None:
    for old in kinds.NOT_FOLDERS:
        before = os.lstat(make(old, folder / "old"))
        make(new, folder / "new")
        os.rename(folder / "old", folder / "new")
        assert entries(folder) == ["new"]
        assert os.path.samestat(before, os.lstat(folder / "new"))
        os.unlink(folder / "new")


@each("kind", kinds.NOT_FOLDERS)
def test_folders_and_others_do_not_replace_each_other(folder: Path, kind: Kind) -> None:
    make(kind, folder / "other")
    make_folder(folder / "inner")
    with refused(errno.EISDIR):
        os.rename(folder / "other", folder / "inner")
    with refused(errno.ENOTDIR):
        os.rename(folder / "inner", folder / "other")
    assert entries(folder) == ["inner", "other"]


def test_a_folder_replaces_an_empty_one(folder: Path) -> None:
    make_folder(folder / "old")
    make_file(folder / "old" / "x")
    make_folder(folder / "new")
    links = os.stat(folder).st_nlink
    os.rename(folder / "old", folder / "new")
    assert entries(folder) == ["new"]
    assert entries(folder / "new") == ["x"]
    assert os.stat(folder).st_nlink == links - 1


@each("kind", kinds.ALL)
def test_a_folder_that_is_not_empty_is_not_replaced(folder: Path, kind: Kind) -> None:
    make_folder(folder / "old")
    make_folder(folder / "new")
    make(kind, folder / "new" / "x")
    with refused(errno.ENOTEMPTY, errno.EEXIST):
        os.rename(folder / "old", folder / "new")


def test_a_folder_does_not_move_into_itself(folder: Path) -> None:
    make_folder(folder / "outer")
    make_folder(folder / "outer" / "inner")
    with refused(errno.EINVAL):
        os.rename(folder / "outer", folder / "outer" / "x")
    with refused(errno.EINVAL):
        os.rename(folder / "outer", folder / "outer" / "inner" / "x")
    with refused(errno.EINVAL):
        os.rename(folder / "outer", folder / "outer" / "inner")
    with refused(errno.ENOTEMPTY, errno.EEXIST):
        os.rename(folder / "outer" / "inner", folder / "outer")


def test_dots_are_not_renamed(folder: Path) -> None:
    make_folder(folder / "inner")
    for name in (".", ".."):
        with refused(errno.EBUSY):
            os.rename(f"{folder}/inner/{name}", folder / "x")
        with refused(errno.EBUSY):
            os.rename(folder / "inner", f"{folder}/inner/{name}")


def test_a_moved_folder_takes_its_contents_along_and_knows_its_parent(folder: Path) -> None:
    for name in ("one", "one/inner", "one/inner/deep", "two"):
        make_folder(folder / name)
    make_file(folder / "one" / "inner" / "deep" / "x", b"content")
    one, two = (os.stat(folder / name).st_nlink for name in ("one", "two"))
    os.rename(folder / "one" / "inner", folder / "two" / "moved")
    assert (folder / "two" / "moved" / "deep" / "x").read_bytes() == b"content"
    assert os.path.samefile(folder / "two" / "moved" / "..", folder / "two")
    assert os.stat(folder / "one").st_nlink == one - 1
    assert os.stat(folder / "two").st_nlink == two + 1
    with refused(errno.ENOENT):
        os.stat(folder / "one" / "inner" / "deep")


def test_a_folder_within_which_somebody_works_moves(folder: Path) -> None:
    make_folder(folder / "one")
    make_folder(folder / "two")
    with opened(folder / "one", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rename(folder / "one", folder / "two" / "three")
        os.close(os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        assert os.path.samestat(os.stat("..", dir_fd=fd), os.stat(folder / "two"))
    assert entries(folder / "two" / "three") == ["x"]


def test_two_names_of_one_file_both_stay(folder: Path) -> None:
    make_file(folder / "one")
    make_folder(folder / "inner")
    os.link(folder / "one", folder / "two")
    os.link(folder / "one", folder / "inner" / "three")
    os.rename(folder / "one", folder / "two")
    os.rename(folder / "one", folder / "inner" / "three")
    os.rename(folder / "one", folder / "one")
    assert entries(folder) == ["inner", "one", "two"]
    assert os.stat(folder / "one").st_nlink == 3


def test_a_replaced_name_is_one_name_less(folder: Path) -> None:
    make_file(folder / "one")
    os.link(folder / "one", folder / "two")
    os.rename(make_file(folder / "new"), folder / "two")
    assert os.stat(folder / "one").st_nlink == 1


def test_open_files_live_on_when_they_are_renamed_and_replaced(folder: Path) -> None:
    make_file(folder / "one", b"first")
    make_file(folder / "two", b"second")
    with opened(folder / "one") as one, opened(folder / "two") as two:
        os.rename(folder / "one", folder / "two")
        assert os.read(one, 100) == b"first"
        assert os.read(two, 100) == b"second"
        assert os.fstat(one).st_nlink == 1
        assert os.fstat(two).st_nlink == 0
        os.write(one, b" and more")
        os.write(two, b" and nothing")
        os.ftruncate(two, 3)
        assert os.pread(two, 100, 0) == b"sec"
    assert (folder / "two").read_bytes() == b"first and more"


def test_a_replaced_open_folder_is_empty_and_takes_nothing(folder: Path) -> None:
    make_folder(folder / "old")
    make_folder(folder / "new")
    with opened(folder / "new", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rename(folder / "old", folder / "new")
        assert os.listdir(fd) == []
        with refused(errno.ENOENT):
            os.mkdir("x", dir_fd=fd)
        assert os.fstat(fd).st_nlink == 0


def test_a_link_itself_is_renamed(folder: Path) -> None:
    make_file(folder / "file")
    make_folder(folder / "inner")
    os.symlink("file", folder / "link")
    os.symlink("inner", folder / "to-inner")
    os.rename(folder / "link", folder / "renamed")
    assert os.readlink(folder / "renamed") == "file"
    os.rename(folder / "file", folder / "to-inner")
    assert entries(folder) == ["inner", "renamed", "to-inner"]


def test_another_filesystem_cannot_be_reached(folder: Path, tmp_path: Path) -> None:
    make_file(folder / "x")
    make_file(tmp_path / "y")
    with refused(errno.EXDEV):
        os.rename(folder / "x", tmp_path / "x")
    with refused(errno.EXDEV):
        os.rename(tmp_path / "y", folder / "y")


def test_a_slash_behind_the_name_demands_a_folder(folder: Path) -> None:
    make_file(folder / "file")
    make_folder(folder / "inner")
    with refused(errno.ENOTDIR):
        os.rename(folder / "file", f"{folder}/new/")
    with refused(errno.ENOTDIR):
        os.rename(f"{folder}/file/", folder / "new")
    os.rename(f"{folder}/inner/", f"{folder}/new/")
    assert entries(folder) == ["file", "new"]


def test_both_folders_must_be_writable(folder: Path) -> None:
    closed = make_folder(folder / "closed")
    own = alice(make_folder, folder / "own")
    alice(make_file, own / "x")
    for path in (closed / "x", closed / "y"):
        os.chown(make_file(path), alice.uid, alice.gid)
    with refused(errno.EACCES):
        alice(os.rename, closed / "x", own / "y")
    with refused(errno.EACCES):
        alice(os.rename, own / "x", closed / "z")
    with refused(errno.EACCES):
        alice(os.rename, own / "x", closed / "y")
    with refused(errno.EACCES):
        alice(os.rename, closed / "x", closed / "z")


def test_another_users_folder_moves_only_if_it_is_writable(folder: Path) -> None:
    """Its `..` changes; for another name in the same folder it does not."""
    one, two = (make_folder(folder / name, 0o777) for name in ("one", "two"))
    bob(make_folder, one / "x", 0o755)
    with refused(errno.EACCES):
        alice(os.rename, one / "x", two / "x")
    alice(os.rename, one / "x", one / "y")
    bob(os.chmod, one / "y", 0o777)
    alice(os.rename, one / "y", two / "x")


def test_the_new_folder_must_not_be_removed(folder: Path) -> None:
    make_file(folder / "x")
    inner = make_folder(folder / "inner")
    with opened(inner, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rmdir(inner)
        with refused(errno.ENOENT):
            os.rename(folder / "x", "x", dst_dir_fd=fd)


@each("kind", [Kind.FILE, Kind.FOLDER, Kind.SYMLINK, Kind.FIFO])
def test_times_change_of_both_folders_and_of_the_object(folder: Path, kind: Kind) -> None:
    one, two = make_folder(folder / "one"), make_folder(folder / "two")
    make(kind, one / "x")
    before = age(one), age(two), age(one / "x")
    os.rename(one / "x", two / "y")
    assert changed(one, before[0]) == "mc"
    assert changed(two, before[1]) == "mc"
    assert changed(two / "y", before[2]) == "c"


def test_ctime_changes_of_what_was_replaced(folder: Path) -> None:
    make_file(folder / "old")
    make_file(folder / "new")
    with opened(folder / "new") as fd:
        before = age(folder / "new")
        os.rename(folder / "old", folder / "new")
        assert changed(fd, before) == "c"


def test_nothing_changes_when_it_fails(folder: Path) -> None:
    make_file(folder / "x")
    before = age(folder / "x"), age(folder)
    with refused(errno.ENOENT):
        os.rename(folder / "x", folder / "missing" / "x")
    assert changed(folder / "x", before[0]) == changed(folder, before[1]) == ""


# --- flags -----------------------------------------------------------------------------------------------------------


@each("kind", kinds.ALL)
def test_without_replacing_the_new_name_must_be_free(folder: Path, kind: Kind) -> None:
    make_file(folder / "old")
    make(kind, folder / "new")
    with refused(errno.EEXIST):
        renameat2(folder / "old", folder / "new", RENAME_NOREPLACE)
    with refused(errno.EEXIST):
        renameat2(folder / "new", folder / "new", RENAME_NOREPLACE)
    renameat2(folder / "new", folder / "other", RENAME_NOREPLACE)
    assert entries(folder) == ["old", "other"]


@each("kind", kinds.ALL)
def test_an_exchange_takes_any_two(folder: Path, kind: Kind) -> None:
    inner = make_folder(folder / "inner")
    one = os.lstat(make(kind, inner / "one"))
    make_folder(folder / "two")
    make_file(folder / "two" / "x")
    two = os.lstat(folder / "two")
    renameat2(inner / "one", folder / "two", RENAME_EXCHANGE)
    assert os.path.samestat(os.lstat(inner / "one"), two)
    assert os.path.samestat(os.lstat(folder / "two"), one)
    assert entries(inner / "one") == ["x"]
    assert os.path.samefile(inner / "one" / "..", inner)


def test_an_exchange_keeps_count_of_folders(folder: Path) -> None:
    one, two = make_folder(folder / "one"), make_folder(folder / "two")
    make_folder(one / "x")
    make_file(two / "x")
    renameat2(one / "x", two / "x", RENAME_EXCHANGE)
    assert os.stat(one).st_nlink == 2
    assert os.stat(two).st_nlink == 3


def test_an_exchange_of_two_names_of_one_file_changes_nothing(folder: Path) -> None:
    make_file(folder / "one")
    os.link(folder / "one", folder / "two")
    renameat2(folder / "one", folder / "two", RENAME_EXCHANGE)
    assert os.stat(folder / "one").st_nlink == 2


def test_an_exchange_needs_both(folder: Path) -> None:
    make_file(folder / "one")
    for old, new in (("one", "two"), ("two", "one")):
        with refused(errno.ENOENT):
            renameat2(folder / old, folder / new, RENAME_EXCHANGE)


def test_a_folder_is_not_exchanged_with_what_it_holds(folder: Path) -> None:
    make_folder(folder / "outer")
    make_folder(folder / "outer" / "inner")
    for old, new in (("outer", "outer/inner"), ("outer/inner", "outer")):
        with refused(errno.EINVAL):
            renameat2(folder / old, folder / new, RENAME_EXCHANGE)


def test_times_change_of_all_who_take_part_in_an_exchange(folder: Path) -> None:
    one, two = make_folder(folder / "one"), make_folder(folder / "two")
    make_file(one / "x")
    make_file(two / "y")
    before = age(one), age(two), age(one / "x"), age(two / "y")
    renameat2(one / "x", two / "y", RENAME_EXCHANGE)
    assert changed(one, before[0]) == changed(two, before[1]) == "mc"
    assert changed(two / "y", before[2]) == changed(one / "x", before[3]) == "c"


@each("kind", [Kind.FILE, Kind.FOLDER])
def test_a_whiteout_stays_behind(folder: Path, kind: Kind) -> None:
    make(kind, folder / "old")
    renameat2(folder / "old", folder / "new", RENAME_WHITEOUT)
    left = os.lstat(folder / "old")
    assert stat.S_ISCHR(left.st_mode)
    assert left.st_rdev == 0
    assert stat.S_IFMT(os.lstat(folder / "new").st_mode) == kind.value


def test_a_user_may_leave_a_whiteout(folder: Path) -> None:
    """It is no device, although it has the type of one."""
    alice(make_file, folder / "old")
    alice(renameat2, folder / "old", folder / "new", RENAME_WHITEOUT)
    left = os.lstat(folder / "old")
    assert (stat.S_IFMT(left.st_mode), left.st_rdev, left.st_uid) == (stat.S_IFCHR, 0, alice.uid)


@each("flags", [RENAME_NOREPLACE | RENAME_EXCHANGE, RENAME_EXCHANGE | RENAME_WHITEOUT, 8, 1 << 30])
def test_flags_that_make_no_sense_are_refused(folder: Path, flags: int) -> None:
    make_file(folder / "old")
    make_file(folder / "new")
    with refused(errno.EINVAL):
        renameat2(folder / "old", folder / "new", flags)
