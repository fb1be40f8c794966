"""Folders as they are read, whole and bit by bit, while names come and go."""

import errno
import os
import random
from pathlib import Path

from mount.posix import kinds
from mount.posix.each import each
from mount.posix.expect import may_be_refused, opened, refused
from mount.posix.kinds import Kind, make, make_file, make_folder
from mount.posix.syscalls import DT_UNKNOWN, DirectoryStream, Dirent, getdents
from mount.posix.users import alice

SMALL = 256
"""Bytes of a buffer that holds a few entries."""


def read_all(fd: int, size: int = SMALL) -> list[Dirent]:
    """The rest of the listing, in many small steps."""
    found = []
    while part := getdents(fd, size):
        found += part
    return found


def fill(folder: Path, count: int) -> set[str]:
    names = {f"name-{number:04}" for number in range(count)}
    for name in names:
        os.close(os.open(folder / name, os.O_CREAT | os.O_WRONLY))
    return names


def test_a_listing_tells_names_types_and_numbers(folder: Path) -> None:
    for kind in Kind:
        make(kind, folder / str(kind))
    with opened(folder, os.O_RDONLY) as fd:
        found = {entry.name: entry for entry in read_all(fd)}
    assert set(found) == {".", ".."} | {str(kind) for kind in Kind}
    for kind in Kind:
        entry = found[str(kind)]
        assert entry.ino == os.lstat(folder / str(kind)).st_ino
        assert entry.type in (DT_UNKNOWN, kind.value >> 12)
    assert found["."].ino == os.stat(folder).st_ino


def test_a_folder_around_is_told_by_its_number(folder: Path) -> None:
    inner = make_folder(folder / "inner")
    make_folder(folder / "other")
    with opened(inner, os.O_RDONLY) as fd:
        assert {entry.name: entry.ino for entry in read_all(fd)}[".."] == os.stat(folder).st_ino
        os.rename(inner, folder / "other" / "inner")
        os.lseek(fd, 0, os.SEEK_SET)
        assert {entry.name: entry.ino for entry in read_all(fd)}[".."] == os.stat(folder / "other").st_ino


@each("size", [SMALL, 4096, 1 << 17])
def test_every_name_is_listed_once(folder: Path, size: int) -> None:
    names = fill(folder, 300)
    with opened(folder, os.O_RDONLY) as fd:
        found = [entry.name for entry in read_all(fd, size)]
    assert sorted(found) == sorted(names | {".", ".."})


def test_a_buffer_must_hold_an_entry(folder: Path) -> None:
    make_file(folder / ("n" * 255))
    with opened(folder, os.O_RDONLY) as fd:
        with refused(errno.EINVAL):
            read_all(fd, 64)
        assert "n" * 255 in [entry.name for entry in read_all(fd, 512)]


def test_every_name_that_stays_is_listed_once_while_others_come_and_go(folder: Path) -> None:
    """POSIX leaves open whether names that came or went are listed."""
    names = sorted(fill(folder, 200))
    choose = random.Random(0)
    choose.shuffle(names)
    stay, go = names[:100], names[100:]
    found: list[str] = []
    with opened(folder, os.O_RDONLY) as fd:
        number = 0
        while part := getdents(fd, SMALL):
            found += [entry.name for entry in part]
            for _ in range(2):
                if go:
                    os.unlink(folder / go.pop())
                make_file(folder / f"new-{number:04}")
                number += 1
            if number > 2000:
                raise AssertionError("the listing has no end")
    assert len(found) == len(set(found))
    assert set(stay) <= set(found)


def test_everything_is_removed_while_it_is_listed(folder: Path) -> None:
    inner = make_folder(folder / "inner")
    names = fill(inner, 300)
    removed = set()
    with opened(inner, os.O_RDONLY) as fd:
        while part := getdents(fd, 1024):
            for entry in part:
                if entry.name not in (".", ".."):
                    os.unlink(inner / entry.name)
                    removed.add(entry.name)
    assert removed == names
    os.rmdir(inner)


def test_a_listing_goes_on_from_any_place(folder: Path) -> None:
    fill(folder, 60)
    with opened(folder, os.O_RDONLY) as fd:
        whole = read_all(fd)
        assert len({entry.position for entry in whole[:-1]}) == len(whole) - 1
        order = list(range(len(whole)))
        random.Random(1).shuffle(order)
        for index in order[:20]:
            os.lseek(fd, whole[index].position, os.SEEK_SET)
            assert [entry.name for entry in read_all(fd)] == [entry.name for entry in whole[index + 1 :]]
        os.lseek(fd, 0, os.SEEK_SET)
        assert read_all(fd) == whole


def test_a_place_holds_when_other_names_are_removed(folder: Path) -> None:
    fill(folder, 60)
    with opened(folder, os.O_RDONLY) as fd:
        whole = read_all(fd)
        for entry in whole[3:30]:
            if entry.name not in (".", ".."):
                os.unlink(folder / entry.name)
        os.lseek(fd, whole[29].position, os.SEEK_SET)
        assert [entry.name for entry in read_all(fd)] == [entry.name for entry in whole[30:]]


def test_a_stream_is_told_where_to_go_on(folder: Path) -> None:
    fill(folder, 40)
    with DirectoryStream(folder) as stream:
        places = {}
        while True:
            place = stream.tell()
            name = stream.read()
            if name is None:
                break
            places[name] = place
        for name in list(places)[::7]:
            stream.seek(places[name])
            assert stream.read() == name
        stream.rewind()
        assert len(stream.rest()) == 42


def test_a_rewound_stream_shows_what_is_there_then(folder: Path) -> None:
    make_file(folder / "old")
    with DirectoryStream(folder) as stream:
        assert sorted(stream.rest()) == [".", "..", "old"]
        os.rename(folder / "old", folder / "new")
        make_folder(folder / "more")
        stream.rewind()
        assert sorted(stream.rest()) == [".", "..", "more", "new"]


def test_streams_are_independent(folder: Path) -> None:
    fill(folder, 50)
    with DirectoryStream(folder) as one, DirectoryStream(folder) as two:
        first = [one.read() for _ in range(20)]
        assert [two.read() for _ in range(30)][:20] == first
        assert len(one.rest()) == 32
        assert len(two.rest()) == 22


def test_a_stream_survives_a_change_of_the_folders_name_and_mode(folder: Path) -> None:
    inner = make_folder(folder / "inner")
    os.chown(inner, alice.uid, alice.gid)
    names = fill(inner, 50)

    def list_it() -> list[str]:
        with opened(inner, os.O_RDONLY) as fd:
            found = getdents(fd, SMALL)
            os.chmod(inner, 0)
            os.rename(inner, folder / "other")
            return [entry.name for entry in found + read_all(fd)]

    assert set(alice(list_it)) == names | {".", ".."}


def test_a_removed_folder_lists_nothing(folder: Path) -> None:
    inner = make_folder(folder / "inner")
    with opened(inner, os.O_RDONLY) as fd:
        os.rmdir(inner)
        with may_be_refused(errno.ENOENT):
            assert {entry.name for entry in read_all(fd)} <= {".", ".."}


@each("kind", kinds.NOT_FOLDERS)
def test_nothing_else_is_listed(folder: Path, kind: Kind) -> None:
    with opened(make(kind, folder / "x"), os.O_PATH | os.O_NOFOLLOW) as fd, refused(errno.ENOTDIR, errno.EBADF):
        getdents(fd, SMALL)


def test_a_file_is_not_listed(folder: Path) -> None:
    with opened(make_file(folder / "x"), os.O_RDONLY) as fd, refused(errno.ENOTDIR):
        getdents(fd, SMALL)


def test_changes_of_other_processes_are_listed(folder: Path) -> None:
    os.listdir(folder)
    alice(make_file, folder / "x")
    assert os.listdir(folder) == ["x"]
    alice(os.rename, folder / "x", folder / "y")
    assert os.listdir(folder) == ["y"]
    alice(os.unlink, folder / "y")
    assert os.listdir(folder) == []


def test_a_large_folder_is_listed_and_searched(folder: Path) -> None:
    names = fill(folder, 1500)
    assert set(os.listdir(folder)) == names
    with os.scandir(folder) as found:
        assert sum(entry.stat().st_size == 0 for entry in found) == 1500
