"""mkdir(2). What a folder inherits is in test_inheritance."""

import errno
import os
import stat
from pathlib import Path

from mount.posix import kinds
from mount.posix.each import each
from mount.posix.expect import age, changed, entries, mode_of, opened, refused, times
from mount.posix.kinds import Kind, make, make_folder
from mount.posix.users import alice


def test_a_new_folder_is_empty_and_its_makers(folder: Path) -> None:
    path = folder / "inner"
    alice(os.mkdir, path)
    found = os.stat(path)
    assert stat.S_ISDIR(found.st_mode)
    assert (found.st_uid, found.st_gid) == (alice.uid, alice.gid)
    assert entries(path) == []
    assert os.path.samefile(path / ".", path)
    assert os.path.samefile(path / "..", folder)


@each("mode", [0, 0o400, 0o755, 0o777, 0o1777, 0o7777])
def test_the_mode_is_taken_but_for_setuid_and_setgid(folder: Path, mode: int) -> None:
    before = os.umask(0)
    try:
        os.mkdir(folder / "inner", mode)
    finally:
        os.umask(before)
    assert mode_of(folder / "inner") == mode & 0o1777


def test_folders_count_their_folders(folder: Path) -> None:
    before = os.stat(folder).st_nlink
    for number in range(3):
        os.mkdir(folder / str(number))
        assert os.stat(folder / str(number)).st_nlink == 2
        assert os.stat(folder).st_nlink == before + number + 1
    os.rmdir(folder / "1")
    assert os.stat(folder).st_nlink == before + 2


@each("kind", kinds.ALL)
def test_the_name_must_be_free(folder: Path, kind: Kind) -> None:
    make(kind, folder / "x")
    before = os.lstat(folder / "x")
    with refused(errno.EEXIST):
        os.mkdir(folder / "x")
    assert os.lstat(folder / "x")[:7] == before[:7]


@each("name", [".", "..", "./", "../."])
def test_dots_are_taken(folder: Path, name: str) -> None:
    with refused(errno.EEXIST):
        os.mkdir(f"{folder}/{name}")


def test_the_folder_must_be_writable_and_searchable(folder: Path) -> None:
    for mode in (0o755, 0o770, 0o766, 0o771):
        closed = make_folder(folder / oct(mode), mode)
        with refused(errno.EACCES):
            alice(os.mkdir, closed / "x")
    alice(os.mkdir, make_folder(folder / "open", 0o703) / "x")


def test_a_taken_name_is_reported_before_a_lack_of_rights(folder: Path) -> None:
    closed = make_folder(folder / "closed")
    os.mkdir(closed / "x")
    with refused(errno.EEXIST):
        alice(os.mkdir, closed / "x")


def test_the_folder_must_not_be_removed(folder: Path) -> None:
    inner = make_folder(folder / "inner")
    with opened(inner, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rmdir(inner)
        with refused(errno.ENOENT):
            os.mkdir("x", dir_fd=fd)


def test_times_change_of_the_folder_around(folder: Path) -> None:
    before = age(folder)
    os.mkdir(folder / "inner")
    assert changed(folder, before) == "mc"
    made = times(folder / "inner")
    assert made.a == made.m == made.c
    assert made.m == times(folder).m


def test_a_name_can_be_used_again(folder: Path) -> None:
    for _ in range(5):
        os.mkdir(folder / "inner")
        os.mkdir(folder / "inner" / "x")
        os.rmdir(folder / "inner" / "x")
        os.rmdir(folder / "inner")
    assert entries(folder) == []
