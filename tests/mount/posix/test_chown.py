"""chown(2), lchown(2), fchown(2). What happens to setuid is in test_privileges."""

import errno
import os
from pathlib import Path

from mount.posix import kinds
from mount.posix.each import each
from mount.posix.expect import age, changed, opened, refused
from mount.posix.kinds import Kind, make, make_file
from mount.posix.users import alice, bob, carol


def owner(path: Path | int) -> tuple[int, int]:
    found = os.stat(path) if isinstance(path, int) else os.lstat(path)
    return found.st_uid, found.st_gid


@each("kind", kinds.ALL)
def test_root_gives_anything_to_anybody(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x")
    os.lchown(path, alice.uid, bob.gid)
    assert owner(path) == (alice.uid, bob.gid)
    os.lchown(path, bob.uid, -1)
    assert owner(path) == (bob.uid, bob.gid)
    os.lchown(path, -1, alice.gid)
    assert owner(path) == (bob.uid, alice.gid)
    os.lchown(path, -1, -1)
    assert owner(path) == (bob.uid, alice.gid)


def test_the_largest_ids_are_kept(folder: Path) -> None:
    path = make_file(folder / "x")
    os.chown(path, (1 << 32) - 2, (1 << 32) - 2)
    assert owner(path) == ((1 << 32) - 2, (1 << 32) - 2)


def test_a_link_is_followed(folder: Path) -> None:
    make_file(folder / "file")
    os.symlink("file", folder / "link")
    os.chown(folder / "link", alice.uid, alice.gid)
    assert owner(folder / "file") == (alice.uid, alice.gid)
    assert owner(folder / "link") == (0, 0)


def test_a_link_that_leads_nowhere_is_refused(folder: Path) -> None:
    os.symlink("nowhere", folder / "link")
    with refused(errno.ENOENT):
        os.chown(folder / "link", 0, 0)


def test_an_open_file_without_a_name_is_given_away(folder: Path) -> None:
    with opened(make_file(folder / "x")) as fd:
        os.unlink(folder / "x")
        os.fchown(fd, alice.uid, alice.gid)
        assert owner(fd) == (alice.uid, alice.gid)


def test_a_path_descriptor_cannot_change_it(folder: Path) -> None:
    with opened(make_file(folder / "x"), os.O_PATH) as fd, refused(errno.EBADF):
        os.fchown(fd, 0, 0)


@each("kind", kinds.ALL)
def test_a_user_gives_nothing_away(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x")
    os.lchown(path, alice.uid, alice.gid)
    before = age(path)
    with refused(errno.EPERM):
        alice(os.lchown, path, bob.uid, -1)
    with refused(errno.EPERM):
        alice(os.lchown, path, -1, bob.gid)
    assert owner(path) == (alice.uid, alice.gid)
    assert changed(path, before) == ""


@each("kind", kinds.ALL)
def test_a_user_takes_nothing(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x", 0o777)
    os.lchown(path, alice.uid, alice.gid)
    for group in (-1, carol.gid, alice.gid):
        with refused(errno.EPERM):
            carol(os.lchown, path, carol.uid, group)
    with refused(errno.EPERM):
        carol(os.lchown, path, -1, carol.gid)


@each("kind", kinds.ALL)
def test_an_owner_may_pick_a_group_of_the_own(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x")
    os.lchown(path, carol.uid, carol.gid)
    carol(os.lchown, path, -1, alice.gid)
    assert owner(path) == (carol.uid, alice.gid)
    carol(os.lchown, path, carol.uid, carol.gid)
    assert owner(path) == (carol.uid, carol.gid)


def test_an_owner_outside_of_the_group_may_name_it_again(folder: Path) -> None:
    path = make_file(folder / "x")
    os.chown(path, alice.uid, bob.gid)
    alice(os.chown, path, alice.uid, bob.gid)
    with refused(errno.EPERM):
        carol(os.chown, path, alice.uid, bob.gid)


def test_only_ctime_changes(folder: Path) -> None:
    path = make_file(folder / "x")
    before = age(path)
    os.chown(path, alice.uid, alice.gid)
    assert changed(path, before) == "c"


def test_ctime_changes_although_the_owner_does_not(folder: Path) -> None:
    path = make_file(folder / "x")
    before = age(path)
    os.chown(path, 0, 0)
    assert changed(path, before) == "c"


def test_naming_neither_owner_nor_group_changes_ctime(folder: Path) -> None:
    path = make_file(folder / "x")
    before = age(path)
    os.chown(path, -1, -1)
    assert changed(path, before) == "c"


def test_anybody_may_name_neither_owner_nor_group(folder: Path) -> None:
    for path in (make_file(folder / "x"), kinds.make_folder(folder / "inner")):
        before = age(path)
        alice(os.chown, path, -1, -1)
        assert owner(path) == (0, 0)
        assert changed(path, before) == "c"


def test_rights_follow_the_owner_at_once(folder: Path) -> None:
    path = alice(make_file, folder / "x", b"content", 0o600)
    with refused(errno.EACCES):
        bob(path.read_bytes)
    os.chown(path, bob.uid, bob.gid)
    assert bob(path.read_bytes) == b"content"
    with refused(errno.EACCES):
        alice(path.read_bytes)


def test_a_stranger_who_changes_nothing_may_not_clear_setuid(folder: Path) -> None:
    path = make_file(folder / "x", mode=0o4755)
    with refused(errno.EPERM):
        alice(os.chown, path, -1, -1)
    assert os.stat(path).st_mode & 0o7777 == 0o4755
