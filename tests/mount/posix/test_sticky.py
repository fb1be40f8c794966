"""Folders with S_ISVTX: a name is removed by the owner of the object, the owner of the folder and root only."""

import errno
import os
from pathlib import Path

from mount.posix import kinds
from mount.posix.each import each
from mount.posix.expect import entries, refused
from mount.posix.kinds import Kind, make, make_file, make_folder
from mount.posix.syscalls import RENAME_EXCHANGE, renameat2
from mount.posix.users import User, alice, bob, carol, root

every_kind = each("kind", kinds.ALL)


def make_sticky(folder: Path) -> Path:
    """A sticky folder of alice's in the folder."""
    path = make_folder(folder / "sticky", 0o1777)
    os.chown(path, alice.uid, alice.gid)
    return path


def make_bobs(kind: Kind, path: Path) -> None:
    make(kind, path)
    os.lchown(path, bob.uid, bob.gid)


def remove(kind: Kind, path: Path) -> None:
    (os.rmdir if kind is Kind.FOLDER else os.unlink)(path)


@every_kind
def test_the_object_is_removed_by_its_owner_the_folders_owner_and_root(folder: Path, kind: Kind) -> None:
    sticky = make_sticky(folder)
    path = sticky / "x"
    make_bobs(kind, path)
    with refused(errno.EPERM):
        carol(remove, kind, path)
    for user in (alice, bob, root):
        user(remove, kind, path)
        make_bobs(kind, path)


@every_kind
def test_the_object_is_renamed_by_the_same(folder: Path, kind: Kind) -> None:
    sticky = make_sticky(folder)
    outside = make_folder(folder / "outside", 0o777)
    make_bobs(kind, sticky / "x")
    for new in (sticky / "y", outside / "y"):
        with refused(errno.EPERM):
            carol(os.rename, sticky / "x", new)
    for user in (alice, bob, root):
        user(os.rename, sticky / "x", sticky / "y")
        os.rename(sticky / "y", sticky / "x")


@each("kind", [Kind.FILE, Kind.SYMLINK, Kind.FIFO])
def test_the_object_is_replaced_by_the_same(folder: Path, kind: Kind) -> None:
    sticky = make_sticky(folder)
    outside = make_folder(folder / "outside", 0o777)
    for user, may in ((carol, False), (alice, True), (bob, True), (root, True)):
        user(make_file, outside / "new")
        make_bobs(kind, sticky / "x")
        if may:
            user(os.rename, outside / "new", sticky / "x")
            os.unlink(sticky / "x")
        else:
            with refused(errno.EPERM):
                user(os.rename, outside / "new", sticky / "x")
            os.unlink(sticky / "x")
            os.unlink(outside / "new")


def test_both_are_needed_for_an_exchange(folder: Path) -> None:
    sticky = make_sticky(folder)
    bob(make_file, sticky / "bobs")
    carol(make_file, sticky / "carols")
    for user in (bob, carol):
        with refused(errno.EPERM):
            user(renameat2, sticky / "bobs", sticky / "carols", RENAME_EXCHANGE)
    alice(renameat2, sticky / "bobs", sticky / "carols", RENAME_EXCHANGE)


@each("user", {"bob": bob, "carol": carol})
def test_everybody_makes_what_they_like(folder: Path, user: User) -> None:
    sticky = make_sticky(folder)
    user(make_file, sticky / "x", b"content")
    user(os.link, sticky / "x", sticky / "y")
    user(os.mkdir, sticky / "inner")
    user(os.symlink, "x", sticky / "link")
    assert entries(sticky) == ["inner", "link", "x", "y"]


def test_anybody_who_may_write_changes_the_contents(folder: Path) -> None:
    sticky = make_sticky(folder)
    bob(make_file, sticky / "x", mode=0o666)
    carol(os.truncate, sticky / "x", 10)
    assert os.stat(sticky / "x").st_size == 10


def test_without_the_bit_everybody_removes(folder: Path) -> None:
    sticky = make_sticky(folder)
    bob(make_file, sticky / "x")
    os.chmod(sticky, 0o777)
    carol(os.unlink, sticky / "x")
