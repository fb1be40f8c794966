"""symlink(2) and readlink(2)."""

import errno
import os
import stat
from pathlib import Path

from mount.posix import kinds
from mount.posix.each import each
from mount.posix.expect import LONG_AGO, age, changed, entries, mode_of, opened, refused, times
from mount.posix.kinds import Kind, make, make_file, make_folder
from mount.posix.syscalls import AT_SYMLINK_NOFOLLOW, UTIME_OMIT, utimensat
from mount.posix.users import alice

TEXTS = [
    b"x",
    b"/",
    b"..",
    b"/no such/place",
    b"\xff\xfe not UTF-8\n",
    b"t" * 59,
    b"t" * 60,
    b"t" * 255 + b"/" + b"t" * 255,
]


@each("text", TEXTS)
def test_a_link_says_what_it_was_given(folder: Path, text: bytes) -> None:
    path = os.fsencode(folder / "link")
    os.symlink(text, path)
    assert os.readlink(path) == text
    found = os.lstat(path)
    assert (stat.S_IFMT(found.st_mode), found.st_size, found.st_nlink) == (stat.S_IFLNK, len(text), 1)


def test_a_link_belongs_to_its_maker_and_has_every_right(folder: Path) -> None:
    alice(os.symlink, "target", folder / "link")
    found = os.lstat(folder / "link")
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (alice.uid, alice.gid, 0o777)


def test_the_text_may_have_4095_bytes(folder: Path) -> None:
    text = "t" * 4095
    os.symlink(text, folder / "link")
    assert os.readlink(folder / "link") == text
    with refused(errno.ENAMETOOLONG):
        os.symlink(text + "t", folder / "longer")


def test_the_text_must_not_be_empty(folder: Path) -> None:
    with refused(errno.ENOENT):
        os.symlink("", folder / "link")


@each("kind", kinds.ALL)
def test_the_name_must_be_free(folder: Path, kind: Kind) -> None:
    make(kind, folder / "x")
    with refused(errno.EEXIST):
        os.symlink("target", folder / "x")


@each("kind", kinds.NOT_LINKS)
def test_nothing_else_is_read_as_a_link(folder: Path, kind: Kind) -> None:
    make(kind, folder / "x")
    with refused(errno.EINVAL):
        os.readlink(folder / "x")


def test_the_folder_must_be_writable(folder: Path) -> None:
    closed = make_folder(folder / "closed")
    with refused(errno.EACCES):
        alice(os.symlink, "target", closed / "x")


def test_a_link_is_read_by_anybody_who_reaches_it(folder: Path) -> None:
    os.symlink("target", folder / "link")
    os.lchown(folder / "link", 12345, 12345)
    assert alice(os.readlink, folder / "link") == "target"


def test_a_link_is_followed_from_where_it_lies(folder: Path) -> None:
    for name in ("one", "one/two", "three"):
        make_folder(folder / name)
    make_file(folder / "three" / "x", b"content")
    os.symlink("../../three", folder / "one" / "two" / "link")
    os.symlink(str(folder / "three" / "x"), folder / "absolute")
    assert (folder / "one" / "two" / "link" / "x").read_bytes() == b"content"
    assert (folder / "absolute").read_bytes() == b"content"
    os.rename(folder / "one" / "two", folder / "two")
    with refused(errno.ENOENT):
        os.stat(folder / "two" / "link")


def test_a_link_leads_to_what_has_the_name_then(folder: Path) -> None:
    os.symlink("x", folder / "link")
    with refused(errno.ENOENT):
        os.stat(folder / "link")
    make_file(folder / "x", b"first")
    assert (folder / "link").read_bytes() == b"first"
    os.unlink(folder / "x")
    make_folder(folder / "x")
    assert entries(folder / "link") == []


def test_times_change_of_the_folder_around(folder: Path) -> None:
    before = age(folder)
    os.symlink("target", folder / "link")
    assert changed(folder, before) == "mc"
    made = times(folder / "link")
    assert made.a == made.m == made.c


def test_reading_a_link_changes_its_atime(folder: Path) -> None:
    os.symlink("target", folder / "link")
    before = age(folder / "link")
    os.readlink(folder / "link")
    assert changed(folder / "link", before) == "a"


def test_a_link_has_times_of_its_own(folder: Path) -> None:
    make_file(folder / "x")
    os.symlink("x", folder / "link")
    before = age(folder / "x")
    utimensat(folder / "link", LONG_AGO + 1, LONG_AGO + 2, AT_SYMLINK_NOFOLLOW)
    assert times(folder / "link")[:2] == (LONG_AGO + 1, LONG_AGO + 2)
    utimensat(folder / "link", UTIME_OMIT, LONG_AGO + 3, AT_SYMLINK_NOFOLLOW)
    assert times(folder / "link")[:2] == (LONG_AGO + 1, LONG_AGO + 3)
    assert changed(folder / "x", before) == ""
    assert mode_of(folder / "link") == 0o777


def test_removing_a_link_leaves_what_it_leads_to(folder: Path) -> None:
    make_file(folder / "x", b"content")
    os.symlink("x", folder / "link")
    with opened(folder / "link", os.O_RDONLY) as fd:
        os.unlink(folder / "link")
        assert os.read(fd, 100) == b"content"
    assert entries(folder) == ["x"]
