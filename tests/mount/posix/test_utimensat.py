"""utimensat(2) and futimens(3)."""

import errno
import os
import time
from pathlib import Path

from mount.posix import kinds
from mount.posix.each import each
from mount.posix.expect import LONG_AGO, age, changed, opened, refused, times
from mount.posix.kinds import Kind, make, make_file, make_folder
from mount.posix.syscalls import (
    AT_SYMLINK_NOFOLLOW,
    SECOND,
    UTIME_NOW,
    UTIME_OMIT,
    touch,
    utimensat,
    utimensat_raw,
)
from mount.posix.users import alice, bob

MOMENTS = {
    "the first nanosecond": 1,
    "the epoch": 0,
    "just before the epoch": -1,
    "a second before": -SECOND,
    "1938": -SECOND * 1_000_000_000 + 999_999_999,
    "1901": (1 - (1 << 31)) * SECOND,
    "2001": LONG_AGO,
    "the last of 32 bits": ((1 << 31) - 1) * SECOND + 999_999_999,
    "one more": (1 << 31) * SECOND,
    "2106": (1 << 32) * SECOND + 5,
    "2400": 13_569_465_600 * SECOND + 999_999_999,
}


@each("moment", MOMENTS)
def test_any_moment_is_kept_to_the_nanosecond(folder: Path, moment: int) -> None:
    path = make_file(folder / "x")
    utimensat(path, moment, moment + 7)
    assert times(path)[:2] == (moment, moment + 7)
    with opened(path) as fd:
        utimensat(None, moment + 1, moment, folder=fd)
        assert times(fd)[:2] == (moment + 1, moment)


@each("kind", kinds.ALL)
def test_every_object_has_times(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x")
    before = age(path)
    utimensat(path, LONG_AGO + 1, LONG_AGO + 2, AT_SYMLINK_NOFOLLOW)
    after = times(path)
    assert after[:2] == (LONG_AGO + 1, LONG_AGO + 2)
    assert after.c > before.c


def test_either_time_is_left_or_becomes_the_present(folder: Path) -> None:
    path = make_file(folder / "x")
    age(path)
    utimensat(path, UTIME_OMIT, LONG_AGO + 2)
    assert times(path)[:2] == (LONG_AGO, LONG_AGO + 2)
    utimensat(path, LONG_AGO + 1, UTIME_OMIT)
    assert times(path)[:2] == (LONG_AGO + 1, LONG_AGO + 2)
    start = time.clock_gettime_ns(5)  # CLOCK_REALTIME_COARSE
    utimensat(path, UTIME_NOW, UTIME_OMIT)
    after = times(path)
    assert start <= after.a <= time.time_ns()
    assert after.m == LONG_AGO + 2
    utimensat(path, LONG_AGO, UTIME_NOW)
    after = times(path)
    assert after.a == LONG_AGO
    assert start <= after.m <= time.time_ns()


def test_both_become_the_present(folder: Path) -> None:
    path = make_file(folder / "x")
    for by_flag in (False, True):
        age(path)
        start = time.clock_gettime_ns(5)
        if by_flag:
            utimensat(path, UTIME_NOW, UTIME_NOW)
        else:
            touch(path)
        after = times(path)
        assert after.a == after.m
        assert start <= after.m <= after.c <= time.time_ns()


def test_leaving_both_changes_nothing(folder: Path) -> None:
    path = make_file(folder / "x")
    before = age(path)
    utimensat(path, UTIME_OMIT, UTIME_OMIT)
    bob(utimensat, path, UTIME_OMIT, UTIME_OMIT)
    assert changed(path, before) == ""


@each("nanoseconds", [SECOND, -1, (1 << 30) - 3, 1 << 40])
def test_a_second_has_only_so_many_nanoseconds(folder: Path, nanoseconds: int) -> None:
    path = make_file(folder / "x")
    before = age(path)
    with refused(errno.EINVAL):
        utimensat_raw(path, (0, nanoseconds), (0, 0))
    with refused(errno.EINVAL):
        utimensat_raw(path, (0, 0), (0, nanoseconds))
    assert changed(path, before) == ""


def test_a_link_is_followed_unless_asked_not_to(folder: Path) -> None:
    make_file(folder / "x")
    os.symlink("x", folder / "link")
    before = age(folder / "link")
    utimensat(folder / "link", LONG_AGO + 1, LONG_AGO + 2)
    assert times(folder / "x")[:2] == (LONG_AGO + 1, LONG_AGO + 2)
    assert changed(folder / "link", before).replace("a", "") == ""


@each("kind", [Kind.FILE, Kind.FOLDER, Kind.FIFO])
def test_only_the_owner_sets_times(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x", 0o666)
    os.chown(path, alice.uid, alice.gid)
    for atime, mtime in (
        (LONG_AGO, LONG_AGO),
        (UTIME_NOW, LONG_AGO),
        (LONG_AGO, UTIME_OMIT),
        (UTIME_OMIT, UTIME_NOW),
        (UTIME_NOW, UTIME_OMIT),
    ):
        with refused(errno.EPERM):
            bob(utimensat, path, atime, mtime)
    alice(utimensat, path, LONG_AGO + 5, UTIME_OMIT)
    assert times(path).a == LONG_AGO + 5


def test_who_may_write_may_touch(folder: Path) -> None:
    path = make_file(folder / "x", mode=0o606)
    os.chown(path, alice.uid, alice.gid)
    age(path)
    bob(touch, path)
    assert times(path).m > LONG_AGO
    age(path)
    bob(utimensat, path, UTIME_NOW, UTIME_NOW)
    assert times(path).m > LONG_AGO
    os.chmod(path, 0o644)
    with refused(errno.EACCES):
        bob(touch, path)
    with refused(errno.EACCES):
        bob(utimensat, path, UTIME_NOW, UTIME_NOW)


def test_the_owner_may_touch_what_may_not_be_written(folder: Path) -> None:
    path = alice(make_file, folder / "x", mode=0o444)
    age(path)
    alice(touch, path)
    assert times(path).m > LONG_AGO


def test_a_file_without_a_name_has_times(folder: Path) -> None:
    with opened(make_file(folder / "x")) as fd:
        os.unlink(folder / "x")
        utimensat(None, LONG_AGO + 1, LONG_AGO + 2, folder=fd)
        assert times(fd)[:2] == (LONG_AGO + 1, LONG_AGO + 2)


def test_a_folders_times_stay_when_its_contents_have_been_made(folder: Path) -> None:
    inner = make_folder(folder / "inner")
    make_file(inner / "x")
    utimensat(inner, LONG_AGO, LONG_AGO)
    os.stat(inner / "x")
    (inner / "x").read_bytes()
    with opened(inner / "x", os.O_WRONLY) as fd:
        os.write(fd, b"content")
    assert times(inner)[:2] == (LONG_AGO, LONG_AGO)
    os.listdir(inner)
    assert times(inner).m == LONG_AGO
