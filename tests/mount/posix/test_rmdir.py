"""rmdir(2), and folders that are gone while somebody is in them."""

import errno
import os
import subprocess
from pathlib import Path

from mount.posix import kinds
from mount.posix.each import each
from mount.posix.expect import age, changed, entries, opened, outcome, refused
from mount.posix.kinds import Kind, make, make_file, make_folder
from mount.posix.users import alice, bob, root


def test_an_empty_folder_is_removed(folder: Path) -> None:
    path = make_folder(folder / "inner")
    make_file(path / "x")
    os.unlink(path / "x")
    os.rmdir(path)
    assert entries(folder) == []
    with refused(errno.ENOENT):
        os.stat(path)
    with refused(errno.ENOENT):
        os.rmdir(path)


@each("kind", kinds.ALL)
def test_a_folder_with_anything_in_it_is_not(folder: Path, kind: Kind) -> None:
    make_folder(folder / "inner")
    make(kind, folder / "inner" / "x")
    with refused(errno.ENOTEMPTY, errno.EEXIST):
        os.rmdir(folder / "inner")
    assert entries(folder / "inner") == ["x"]


@each("kind", kinds.NOT_FOLDERS)
def test_nothing_else_is(folder: Path, kind: Kind) -> None:
    make(kind, folder / "x")
    with refused(errno.ENOTDIR):
        os.rmdir(folder / "x")


def test_a_link_to_a_folder_is_not(folder: Path) -> None:
    make_folder(folder / "inner")
    os.symlink("inner", folder / "link")
    with refused(errno.ENOTDIR):
        os.rmdir(folder / "link")
    with refused(errno.ENOTDIR):
        os.rmdir(f"{folder}/link/")


def test_dots_are_not(folder: Path) -> None:
    make_folder(folder / "inner")
    with refused(errno.EINVAL):
        os.rmdir(f"{folder}/inner/.")
    with refused(errno.ENOTEMPTY):
        os.rmdir(f"{folder}/inner/..")


def test_a_mountpoint_is_busy(folder: Path) -> None:
    make_folder(folder / "inner")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", folder / "inner"], check=True, timeout=20)
    try:
        with refused(errno.EBUSY):
            os.rmdir(folder / "inner")
        with refused(errno.EBUSY):
            os.rename(folder / "inner", folder / "other")
    finally:
        subprocess.run(["umount", "-l", folder / "inner"], check=True, timeout=20)
    os.rmdir(folder / "inner")


def test_the_folder_around_must_be_writable(folder: Path) -> None:
    closed = make_folder(folder / "closed")
    os.chown(make_folder(closed / "x"), alice.uid, alice.gid)
    with refused(errno.EACCES):
        alice(os.rmdir, closed / "x")
    unsearchable = make_folder(folder / "unsearchable", 0o666)
    make_folder(unsearchable / "x")
    with refused(errno.EACCES):
        alice(os.rmdir, unsearchable / "x")


def test_who_may_write_the_folder_around_may_remove_anybodys(folder: Path) -> None:
    bob(make_folder, folder / "x", 0o700)
    alice(os.rmdir, folder / "x")


def test_times_change_of_the_folder_around_and_of_the_folder(folder: Path) -> None:
    make_folder(folder / "inner")
    with opened(folder / "inner", os.O_RDONLY) as fd:
        before = age(folder), age(folder / "inner")
        os.rmdir(folder / "inner")
        assert changed(folder, before[0]) == "mc"
        assert "c" in changed(fd, before[1])


def test_a_removed_folder_is_empty_and_takes_nothing(folder: Path) -> None:
    make_folder(folder / "inner")
    make_file(folder / "x")
    with opened(folder / "inner", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rmdir(folder / "inner")
        assert os.fstat(fd).st_nlink == 0
        assert os.listdir(fd) == []
        assert os.path.samestat(os.stat(".", dir_fd=fd), os.fstat(fd))
        os.fchmod(fd, 0o700)
        assert os.fstat(fd).st_mode & 0o7777 == 0o700
        with refused(errno.ENOENT):
            os.symlink("target", "x", dir_fd=fd)
        with refused(errno.ENOENT):
            os.stat("x", dir_fd=fd)
        with refused(errno.ENOENT):
            os.unlink("x", dir_fd=fd)


def test_the_current_folder_may_be_removed(folder: Path) -> None:
    make_folder(folder / "inner")

    def work_in_it() -> list[str]:
        os.chdir(folder / "inner")
        os.rmdir(folder / "inner")
        found = [outcome(os.getcwd), outcome(os.mkdir, "x"), outcome(os.open, "x", os.O_CREAT | os.O_WRONLY)]
        return [*found, outcome(os.chdir, "..")]

    assert root(work_in_it) == ["ENOENT", "ENOENT", "ENOENT", "success"]


def test_a_name_may_be_used_again_while_the_old_folder_is_open(folder: Path) -> None:
    make_folder(folder / "inner")
    with opened(folder / "inner", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rmdir(folder / "inner")
        make_folder(folder / "inner")
        make_file(folder / "inner" / "x")
        assert os.listdir(fd) == []
        assert not os.path.samestat(os.fstat(fd), os.stat(folder / "inner"))
