"""Extended attributes: setxattr(2), getxattr(2), listxattr(2), removexattr(2). Lists are in test_acl."""

import errno
import os
from pathlib import Path

from mount.posix import kinds
from mount.posix.each import each
from mount.posix.expect import may_be_refused, opened, refused
from mount.posix.kinds import Kind, make, make_file, make_folder
from mount.posix.syscalls import getxattr_into, listxattr_into
from mount.posix.users import alice, bob

VALUES = {
    "empty": b"",
    "short": b"value",
    "zeros": bytes(10),
    "any bytes": bytes(range(256)),
    "2000 bytes": b"v" * 2000,
}


@each("value", VALUES)
@each("kind", [Kind.FILE, Kind.FOLDER])
def test_a_value_is_kept_changed_and_removed(folder: Path, kind: Kind, value: bytes) -> None:
    path = make(kind, folder / "x")
    os.setxattr(path, "user.one", value)
    os.setxattr(path, "user.two", b"other")
    assert os.getxattr(path, "user.one") == value
    assert sorted(os.listxattr(path)) == ["user.one", "user.two"]
    os.setxattr(path, "user.one", value + b"!")
    assert os.getxattr(path, "user.one") == value + b"!"
    os.removexattr(path, "user.one")
    assert os.listxattr(path) == ["user.two"]
    with refused(errno.ENODATA):
        os.getxattr(path, "user.one")
    with refused(errno.ENODATA):
        os.removexattr(path, "user.one")


def test_creating_and_replacing_may_be_demanded(folder: Path) -> None:
    path = make_file(folder / "x")
    with refused(errno.ENODATA):
        os.setxattr(path, "user.x", b"value", os.XATTR_REPLACE)
    os.setxattr(path, "user.x", b"value", os.XATTR_CREATE)
    with refused(errno.EEXIST):
        os.setxattr(path, "user.x", b"other", os.XATTR_CREATE)
    os.setxattr(path, "user.x", b"replaced", os.XATTR_REPLACE)
    assert os.getxattr(path, "user.x") == b"replaced"
    with refused(errno.EINVAL):
        os.setxattr(path, "user.x", b"value", 8)


def test_a_buffer_must_be_large_enough(folder: Path) -> None:
    path = make_file(folder / "x")
    os.setxattr(path, "user.x", b"0123456789")
    with refused(errno.ERANGE):
        getxattr_into(path, "user.x", 9)
    assert getxattr_into(path, "user.x", 10) == getxattr_into(path, "user.x", 1000) == b"0123456789"
    with refused(errno.ERANGE):
        listxattr_into(path, 6)
    assert listxattr_into(path, 7) == listxattr_into(path, 1000) == b"user.x\0"


def test_names_have_a_namespace(folder: Path) -> None:
    path = make_file(folder / "x")
    for name in ("x", "nonsense.x", "system.nonsense"):
        with refused(errno.EOPNOTSUPP):
            os.setxattr(path, name, b"value")
        with refused(errno.EOPNOTSUPP):
            os.getxattr(path, name)
        with refused(errno.EOPNOTSUPP):
            os.removexattr(path, name)
    with refused(errno.EINVAL):
        os.setxattr(path, "user.", b"value")


def test_a_name_may_have_255_bytes(folder: Path) -> None:
    path = make_file(folder / "x")
    name = "user." + "n" * 250
    os.setxattr(path, name, b"value")
    assert os.listxattr(path) == [name]
    with refused(errno.ERANGE):
        os.setxattr(path, name + "n", b"value")
    os.setxattr(path, b"user.\xff\xfe", b"value")
    assert os.getxattr(path, b"user.\xff\xfe") == b"value"


def test_a_value_may_have_64_kib_at_most(folder: Path) -> None:
    path = make_file(folder / "x")
    with refused(errno.E2BIG):
        os.setxattr(path, "user.x", bytes((1 << 16) + 1))
    with may_be_refused(errno.ENOSPC):  # a block is all that ext4 has for them
        os.setxattr(path, "user.x", b"v" * (1 << 16))
        assert os.getxattr(path, "user.x") == b"v" * (1 << 16)


@each("kind", [Kind.SYMLINK, *kinds.NODES])
def test_only_files_and_folders_carry_the_users(folder: Path, kind: Kind) -> None:
    """xattr(7): the modes of other objects say nothing about who may attach data to them."""
    path = make(kind, folder / "x", 0o666)
    with refused(errno.EPERM):
        os.setxattr(path, "user.x", b"value", follow_symlinks=False)
    with refused(errno.ENODATA):
        os.getxattr(path, "user.x", follow_symlinks=False)
    assert os.listxattr(path, follow_symlinks=False) == []


@each("kind", kinds.ALL)
def test_anything_carries_the_superusers(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x")
    for name in ("trusted.x", "security.x"):
        os.setxattr(path, name, b"value", follow_symlinks=False)
        assert os.getxattr(path, name, follow_symlinks=False) == b"value"
    assert sorted(os.listxattr(path, follow_symlinks=False)) == ["security.x", "trusted.x"]
    for name in ("trusted.x", "security.x"):
        os.removexattr(path, name, follow_symlinks=False)


def test_a_user_neither_sets_nor_sees_the_trusted_ones(folder: Path) -> None:
    path = alice(make_file, folder / "x")
    with refused(errno.EPERM):
        alice(os.setxattr, path, "trusted.x", b"value")
    os.setxattr(path, "trusted.x", b"value")
    with refused(errno.ENODATA):
        alice(os.getxattr, path, "trusted.x")
    with refused(errno.EPERM):
        alice(os.removexattr, path, "trusted.x")
    assert alice(os.listxattr, path) == []


def test_a_user_reads_the_security_ones(folder: Path) -> None:
    path = alice(make_file, folder / "x")
    with refused(errno.EPERM):
        alice(os.setxattr, path, "security.x", b"value")
    os.setxattr(path, "security.x", b"value")
    assert alice(os.getxattr, path, "security.x") == b"value"
    assert alice(os.listxattr, path) == ["security.x"]


@each("kind", [Kind.FILE, Kind.FOLDER])
def test_the_mode_decides_about_the_users(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x", 0o704)
    bob_may_read = path
    os.setxattr(path, "user.x", b"value")
    assert bob(os.getxattr, bob_may_read, "user.x") == b"value"
    with refused(errno.EACCES):
        bob(os.setxattr, path, "user.x", b"other")
    with refused(errno.EACCES):
        bob(os.removexattr, path, "user.x")
    os.chmod(path, 0o702)
    with refused(errno.EACCES):
        bob(os.getxattr, path, "user.x")
    bob(os.setxattr, path, "user.x", b"other")
    assert bob(os.listxattr, path) == ["user.x"]
    bob(os.removexattr, path, "user.x")


def test_in_a_sticky_folder_only_the_owner_sets_them(folder: Path) -> None:
    path = make_folder(folder / "sticky", 0o1777)
    os.chown(path, alice.uid, alice.gid)
    with refused(errno.EPERM):
        bob(os.setxattr, path, "user.x", b"value")
    alice(os.setxattr, path, "user.x", b"value")


def test_links_are_followed_unless_asked_not_to(folder: Path) -> None:
    make_file(folder / "x")
    os.symlink("x", folder / "link")
    os.setxattr(folder / "link", "user.x", b"value")
    assert os.getxattr(folder / "x", "user.x") == b"value"
    assert os.listxattr(folder / "link", follow_symlinks=False) == []


def test_open_files_have_them_whatever_happens_to_the_name(folder: Path) -> None:
    with opened(make_file(folder / "x"), os.O_RDONLY) as fd:
        os.setxattr(fd, "user.one", b"1")
        os.rename(folder / "x", folder / "y")
        os.setxattr(fd, "user.two", b"2")
        os.unlink(folder / "y")
        os.setxattr(fd, "user.three", b"3")
        assert sorted(os.listxattr(fd)) == ["user.one", "user.three", "user.two"]


def test_all_names_of_a_file_show_them(folder: Path) -> None:
    make_file(folder / "x")
    os.link(folder / "x", folder / "y")
    os.setxattr(folder / "x", "user.x", b"value")
    assert os.getxattr(folder / "y", "user.x") == b"value"


def test_many_are_listed(folder: Path) -> None:
    path = make_file(folder / "x")
    names = [f"user.{number}" for number in range(80)]
    for name in names:
        os.setxattr(path, name, name.encode())
    assert sorted(os.listxattr(path)) == sorted(names)
    for name in names:
        assert os.getxattr(path, name) == name.encode()
        os.removexattr(path, name)
    assert os.listxattr(path) == []
