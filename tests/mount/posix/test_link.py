"""link(2), linkat(2), and how names are counted."""

import errno
import os
from pathlib import Path

import pytest
from mount.posix import kinds
from mount.posix.each import each
from mount.posix.expect import age, changed, entries, opened, refused
from mount.posix.kinds import Kind, make, make_file, make_folder
from mount.posix.syscalls import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, linkat
from mount.posix.targets import EXT4_LINK_MAX, MANY_LINKS, Target, on_ext4
from mount.posix.users import alice, bob

PROTECTED = Path("/proc/sys/fs/protected_hardlinks").read_text().strip() == "1"


def links(path: Path | int) -> int:
    return (os.stat(path) if isinstance(path, int) else os.lstat(path)).st_nlink


@each("kind", kinds.NOT_FOLDERS)
def test_a_second_name_is_the_same_object(folder: Path, kind: Kind) -> None:
    one, two = make(kind, folder / "one"), folder / "two"
    os.link(one, two, follow_symlinks=False)
    assert os.lstat(one)[:7] == os.lstat(two)[:7]
    assert os.path.samestat(os.lstat(one), os.lstat(two))
    assert links(one) == links(two) == 2
    os.unlink(one)
    assert links(two) == 1
    assert entries(folder) == ["two"]


def test_a_change_through_one_name_shows_through_the_other(folder: Path) -> None:
    make_file(folder / "one", b"content")
    make_folder(folder / "inner")
    os.link(folder / "one", folder / "inner" / "two")
    os.stat(folder / "inner" / "two")
    with opened(folder / "one", os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b" and more")
        os.fchmod(fd, 0o604)
    found = os.stat(folder / "inner" / "two")
    assert (found.st_size, found.st_mode & 0o777) == (16, 0o604)
    assert (folder / "inner" / "two").read_bytes() == b"content and more"


def test_many_names_are_counted(folder: Path) -> None:
    path = make_file(folder / "0")
    for number in range(1, 50):
        os.link(folder / str(number - 1), folder / str(number))
        assert links(path) == number + 1
    for number in range(49):
        os.unlink(folder / str(number))
        assert links(folder / "49") == 49 - number


@each("kind", kinds.ALL)
def test_the_new_name_must_be_free(folder: Path, kind: Kind) -> None:
    make_file(folder / "old")
    make(kind, folder / "new")
    with refused(errno.EEXIST):
        os.link(folder / "old", folder / "new")
    assert links(folder / "old") == 1


def test_a_name_cannot_be_given_again(folder: Path) -> None:
    make_file(folder / "x")
    with refused(errno.EEXIST):
        os.link(folder / "x", folder / "x")


def test_a_folder_has_one_name(folder: Path) -> None:
    make_folder(folder / "inner")
    with refused(errno.EPERM):
        os.link(folder / "inner", folder / "other")
    with refused(errno.EPERM):
        alice(os.link, folder / "inner", folder / "other")


def test_the_old_name_must_exist(folder: Path) -> None:
    with refused(errno.ENOENT):
        os.link(folder / "old", folder / "new")


def test_another_filesystem_cannot_be_reached(folder: Path, tmp_path: Path) -> None:
    make_file(tmp_path / "elsewhere")
    make_file(folder / "here")
    with refused(errno.EXDEV):
        os.link(tmp_path / "elsewhere", folder / "new")
    with refused(errno.EXDEV):
        os.link(folder / "here", tmp_path / "new")


def test_a_link_itself_gets_the_name_unless_it_is_to_be_followed(folder: Path) -> None:
    make_file(folder / "file")
    os.symlink("file", folder / "link")
    linkat(AT_FDCWD, folder / "link", AT_FDCWD, folder / "itself", 0)
    linkat(AT_FDCWD, folder / "link", AT_FDCWD, folder / "target", AT_SYMLINK_FOLLOW)
    assert os.readlink(folder / "itself") == "file"
    assert os.path.samefile(folder / "target", folder / "file")
    assert (links(folder / "file"), links(folder / "link")) == (2, 2)


def test_a_name_is_given_through_a_descriptor(folder: Path) -> None:
    with opened(make_file(folder / "x")) as fd:
        linkat(fd, "", AT_FDCWD, folder / "y", AT_EMPTY_PATH)
        linkat(AT_FDCWD, f"/proc/self/fd/{fd}", AT_FDCWD, folder / "z", AT_SYMLINK_FOLLOW)
        assert links(fd) == 3


def test_a_file_without_a_name_gets_none(folder: Path) -> None:
    with opened(make_file(folder / "x")) as fd:
        os.unlink(folder / "x")
        with refused(errno.ENOENT):
            linkat(fd, "", AT_FDCWD, folder / "y", AT_EMPTY_PATH)
        assert links(fd) == 0


def test_unknown_flags_are_refused(folder: Path) -> None:
    make_file(folder / "x")
    with refused(errno.EINVAL):
        linkat(AT_FDCWD, folder / "x", AT_FDCWD, folder / "y", 1)


def test_the_folder_must_be_writable(folder: Path) -> None:
    alice(make_file, folder / "x")
    closed = make_folder(folder / "closed", 0o755)
    with refused(errno.EACCES):
        alice(os.link, folder / "x", closed / "y")
    unsearchable = make_folder(folder / "unsearchable", 0o666)
    with refused(errno.EACCES):
        alice(os.link, folder / "x", unsearchable / "y")


@pytest.mark.skipif(not PROTECTED, reason="sysctl fs.protected_hardlinks is off")
def test_a_file_that_one_may_not_write_gets_no_name(folder: Path) -> None:
    alice(make_file, folder / "x", mode=0o644)
    with refused(errno.EPERM):
        bob(os.link, folder / "x", folder / "y")
    alice(os.chmod, folder / "x", 0o666)
    bob(os.link, folder / "x", folder / "y")


def test_times_change_of_the_object_and_of_the_new_folder(folder: Path) -> None:
    path = make_file(folder / "x")
    old, new = make_folder(folder / "old"), make_folder(folder / "new")
    os.rename(path, old / "x")
    before = age(old / "x"), age(old), age(new)
    os.link(old / "x", new / "y")
    assert changed(old / "x", before[0]) == "c"
    assert changed(old, before[1]) == ""
    assert changed(new, before[2]) == "mc"


def test_the_folder_must_not_be_removed(folder: Path) -> None:
    make_file(folder / "x")
    inner = make_folder(folder / "inner")
    with opened(inner, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rmdir(inner)
        with refused(errno.ENOENT):
            os.link(folder / "x", "y", dst_dir_fd=fd)


@on_ext4
def test_there_are_only_so_many_names(folder: Path, target: Target) -> None:
    path = target.root / MANY_LINKS
    os.link(path, folder / "one")
    assert links(path) == EXT4_LINK_MAX
    with refused(errno.EMLINK):
        os.link(path, folder / "two")
    os.unlink(folder / "one")
    os.link(path, folder / "two")
    with refused(errno.EMLINK):
        os.link(folder / "two", folder / "three")
    os.unlink(folder / "two")
