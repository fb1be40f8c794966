"""access(2) and faccessat2(2)."""

import errno
import os
from pathlib import Path

from mount.posix import kinds
from mount.posix.each import each
from mount.posix.expect import refused
from mount.posix.kinds import Kind, make, make_file, make_folder
from mount.posix.users import User, alice, bob, carol, root

MASKS = (os.F_OK, os.R_OK, os.W_OK, os.X_OK, os.R_OK | os.W_OK, os.R_OK | os.X_OK, os.R_OK | os.W_OK | os.X_OK)


@each("kind", [Kind.FILE, Kind.FOLDER, Kind.FIFO])
@each(("user", "shift"), {"owner": (alice, 6), "group": (carol, 3), "others": (bob, 0)})
def test_the_bits_of_the_class_decide(folder: Path, kind: Kind, user: User, shift: int) -> None:
    paths = [make(kind, folder / str(bits), bits << shift) for bits in range(8)]
    for path in paths:
        os.chown(path, alice.uid, alice.gid)

    def ask() -> list[list[bool]]:
        return [[os.access(path, mask) for mask in MASKS] for path in paths]

    assert user(ask) == [[bits & mask == mask for mask in MASKS] for bits in range(8)]


@each("kind", kinds.NOT_LINKS)
def test_root_may_all_but_execute_what_nobody_may(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x", 0)
    assert os.access(path, os.R_OK | os.W_OK)
    assert os.access(path, os.X_OK) == (kind is Kind.FOLDER)
    os.chmod(path, 0o001)
    assert os.access(path, os.X_OK)


def test_the_real_user_is_asked_for_unless_the_effective_one_is_wanted(folder: Path) -> None:
    path = alice(make_file, folder / "x", mode=0o600)

    def ask() -> tuple[bool, bool]:
        os.setresgid(bob.gid, alice.gid, alice.gid)
        os.setresuid(bob.uid, alice.uid, alice.uid)
        return os.access(path, os.R_OK), os.access(path, os.R_OK, effective_ids=True)

    assert root.process(ask) == (False, True)


def test_every_folder_on_the_way_must_be_searchable(folder: Path) -> None:
    inner = make_folder(folder / "inner", 0o711)
    make_file(inner / "x", mode=0o666)
    assert bob(os.access, inner / "x", os.R_OK | os.W_OK)
    os.chmod(inner, 0o766)
    assert not bob(os.access, inner / "x", os.F_OK)


def test_a_link_is_followed_unless_asked_not_to(folder: Path) -> None:
    os.symlink("x", folder / "link")
    assert not os.access(folder / "link", os.F_OK)
    assert os.access(folder / "link", os.F_OK, follow_symlinks=False)
    make_file(folder / "x", mode=0o600)
    assert os.access(folder / "link", os.R_OK)
    assert not bob(os.access, folder / "link", os.R_OK)


def test_searching_and_listing_a_folder_are_two_rights(folder: Path) -> None:
    inner = make_folder(folder / "inner", 0o711)
    make_file(inner / "x", b"content")
    with refused(errno.EACCES):
        alice(os.listdir, inner)
    assert alice((inner / "x").read_bytes) == b"content"
    os.chmod(inner, 0o744)
    assert alice(os.listdir, inner) == ["x"]
    with refused(errno.EACCES):
        alice(os.stat, inner / "x")
    with refused(errno.EACCES):
        alice(os.chdir, inner)
