"""Access control lists (acl(5))."""

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest
from mount.posix.acl import ACCESS, DEFAULT, Acl, Tag, acl, decode, encode
from mount.posix.each import each
from mount.posix.expect import age, changed, mode_of, opened, outcome, refused
from mount.posix.kinds import Kind, make, make_file, make_folder
from mount.posix.syscalls import AT_FDCWD, mknodat
from mount.posix.users import User, alice, bob, carol


def set_acl(path: Path, entries: Acl, name: str = ACCESS) -> None:
    os.setxattr(path, name, encode(entries))


def get_acl(path: Path, name: str = ACCESS) -> Acl | None:
    try:
        return decode(os.getxattr(path, name))
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return None


def may(user: User, path: Path) -> str:
    """What the user may do, of "rwx"."""
    return user(lambda: "".join(letter for letter, bit in (("r", 4), ("w", 2), ("x", 1)) if os.access(path, bit)))


@pytest.fixture
def file(folder: Path) -> Path:
    """A file of alice's, with mode 0600."""
    path = make_file(folder / "file", b"content", 0o600)
    os.chown(path, alice.uid, alice.gid)
    return path


# --- access ----------------------------------------------------------------------------------------------------------


def test_without_a_list_there_is_none(file: Path) -> None:
    assert get_acl(file) is None
    assert os.listxattr(file) == []
    with refused(errno.ENODATA):
        os.getxattr(file, DEFAULT)


def test_somebody_named_may_what_the_list_says(file: Path) -> None:
    entries = acl(6, 0, 0, mask=6, users={bob.uid: 4})
    alice(set_acl, file, entries)
    assert get_acl(file) == entries
    assert os.listxattr(file) == [ACCESS]
    assert (may(alice, file), may(bob, file), may(carol, file)) == ("rw", "r", "")
    assert bob(file.read_bytes) == b"content"
    with refused(errno.EACCES):
        bob(os.open, file, os.O_RDWR)


def test_a_named_group_may_what_the_list_says(file: Path) -> None:
    os.chown(file, alice.uid, bob.gid)
    set_acl(file, acl(6, 0, 0, mask=7, groups={alice.gid: 2, 99999: 7}))
    assert (may(carol, file), may(bob, file)) == ("w", "")


def test_the_mask_limits_all_but_owner_and_others(file: Path) -> None:
    set_acl(file, acl(7, 7, 6, mask=4, users={bob.uid: 6}, groups={99999: 7}))
    assert (may(alice, file), may(bob, file), may(carol, file)) == ("rwx", "r", "r")
    assert may(User(99, 99), file) == "rw"


def test_being_named_can_take_rights_away(file: Path) -> None:
    set_acl(file, acl(6, 6, 6, mask=6, users={bob.uid: 0}))
    assert (may(bob, file), may(User(99, 99), file)) == ("", "rw")


def test_the_mode_shows_the_mask_as_the_groups_bits(file: Path) -> None:
    set_acl(file, acl(6, 4, 4, mask=5, users={bob.uid: 7}))
    assert oct(mode_of(file)) == "0o654"
    alice(os.chmod, file, 0o630)
    assert get_acl(file) == acl(6, 4, 0, mask=3, users={bob.uid: 7})
    assert may(bob, file) == "wx"


def test_a_list_without_names_is_only_a_mode(file: Path) -> None:
    set_acl(file, acl(7, 5, 1))
    assert oct(mode_of(file)) == "0o751"
    assert get_acl(file) is None


def test_removing_the_list_leaves_the_mode(file: Path) -> None:
    set_acl(file, acl(6, 4, 4, mask=6, users={bob.uid: 6}))
    os.removexattr(file, ACCESS)
    assert get_acl(file) is None
    assert oct(mode_of(file)) == "0o664"
    assert may(bob, file) == "r"
    os.removexattr(file, ACCESS)


def test_only_the_owner_sets_the_list(file: Path) -> None:
    entries = acl(6, 6, 6, mask=6, users={bob.uid: 6})
    for other in (bob, carol):
        with refused(errno.EPERM):
            other(set_acl, file, entries)
        with refused(errno.EPERM):
            other(os.removexattr, file, ACCESS)
    alice(set_acl, file, entries)
    assert bob(get_acl, file) == entries


BROKEN = {
    "nothing at all": b"\x02\0\0\0"[:3],
    "another version": b"\x01\0\0\0" + encode(acl(6, 4, 4))[4:],
    "cut off": encode(acl(6, 4, 4))[:-3],
    "no owner": encode({(Tag.GROUP_OBJ, None): 4, (Tag.OTHER, None): 4}),
    "no mask although somebody is named": encode(acl(6, 4, 4, users={bob.uid: 4})),
    "unknown bits": encode(acl(6, 4, 14)),
    "the wrong order": encode({(Tag.OTHER, None): 4, (Tag.GROUP_OBJ, None): 4, (Tag.USER_OBJ, None): 6}),
}


def test_a_list_must_make_sense(file: Path) -> None:
    codes = {name: outcome(os.setxattr, file, ACCESS, value) for name, value in BROKEN.items()}
    assert codes == dict.fromkeys(BROKEN, "EINVAL") | {"another version": "EOPNOTSUPP"}
    assert oct(mode_of(file)) == "0o600"


def test_ctime_changes_with_the_list(file: Path) -> None:
    before = age(file)
    set_acl(file, acl(6, 4, 4, mask=6, users={bob.uid: 6}))
    assert changed(file, before) == "c"


def test_setgid_is_lost_when_a_stranger_to_the_group_sets_the_list(folder: Path) -> None:
    path = make_file(folder / "x")
    os.chown(path, alice.uid, bob.gid)
    os.chmod(path, 0o2755)
    alice(set_acl, path, acl(7, 5, 5, mask=5, users={carol.uid: 5}))
    assert oct(mode_of(path)) == "0o755"
    os.chmod(path, 0o2755)
    set_acl(path, acl(7, 5, 5, mask=5, users={carol.uid: 5}))
    assert oct(mode_of(path)) == "0o2755"


@each("kind", [Kind.FIFO, Kind.SOCKET, Kind.FOLDER])
def test_other_objects_have_lists(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x", 0o700)
    entries = acl(7, 0, 0, mask=7, users={bob.uid: 6})
    set_acl(path, entries)
    assert get_acl(path) == entries
    assert may(bob, path) == "rw"


def test_a_link_has_no_list(folder: Path) -> None:
    os.symlink("x", folder / "link")
    with refused(errno.EOPNOTSUPP):
        os.setxattr(folder / "link", ACCESS, encode(acl(7, 7, 7)), follow_symlinks=False)
    assert os.listxattr(folder / "link", follow_symlinks=False) == []


def test_a_list_counts_for_who_searches_and_makes(folder: Path) -> None:
    inner = make_folder(folder / "inner", 0o700)
    make_file(inner / "x", b"content")
    with refused(errno.EACCES):
        bob(os.stat, inner / "x")
    set_acl(inner, acl(7, 0, 0, mask=7, users={bob.uid: 1}))
    bob(os.stat, inner / "x")
    with refused(errno.EACCES):
        bob(os.mkdir, inner / "y")
    with refused(errno.EACCES):
        bob(os.listdir, inner)
    set_acl(inner, acl(7, 0, 0, mask=7, users={bob.uid: 7}))
    bob(os.mkdir, inner / "y")
    bob(os.unlink, inner / "x")


# --- default ---------------------------------------------------------------------------------------------------------

INHERITED = acl(7, 5, 4, mask=7, users={bob.uid: 6}, groups={carol.gid: 5})


@pytest.fixture
def heir(folder: Path) -> Path:
    """A folder with a default list."""
    path = make_folder(folder / "heir", 0o777)
    set_acl(path, INHERITED, DEFAULT)
    return path


def test_only_a_folder_has_a_default(file: Path, heir: Path) -> None:
    with refused(errno.EACCES):
        set_acl(file, INHERITED, DEFAULT)
    assert get_acl(heir, DEFAULT) == INHERITED
    assert get_acl(heir) is None
    assert os.listxattr(heir) == [DEFAULT]
    assert oct(mode_of(heir)) == "0o777"


def test_a_default_is_removed(heir: Path) -> None:
    os.removexattr(heir, DEFAULT)
    assert os.listxattr(heir) == []
    os.mkdir(heir / "x", 0o755)
    assert os.listxattr(heir / "x") == []


def test_an_empty_list_is_none(heir: Path) -> None:
    os.setxattr(heir, DEFAULT, encode({}))
    assert os.listxattr(heir) == []


@each("umask", [0, 0o077])
@each("mode", [0o777, 0o640, 0o666])
def test_a_new_file_gets_it_whatever_the_umask(folder: Path, umask: int, mode: int) -> None:
    set_acl(folder, INHERITED, DEFAULT)

    def create() -> None:
        os.umask(umask)
        os.close(os.open(folder / "opened", os.O_CREAT | os.O_WRONLY, mode))
        mknodat(AT_FDCWD, folder / "made", stat.S_IFREG | mode)
        mknodat(AT_FDCWD, folder / "fifo", stat.S_IFIFO | mode)

    alice(create)
    expected = dict(INHERITED)
    expected[Tag.USER_OBJ, None] &= mode >> 6
    expected[Tag.MASK, None] &= mode >> 3
    expected[Tag.OTHER, None] &= mode
    shown = expected[Tag.USER_OBJ, None] << 6 | expected[Tag.MASK, None] << 3 | expected[Tag.OTHER, None]
    for name in ("opened", "made", "fifo"):
        assert get_acl(folder / name) == expected
        assert oct(mode_of(folder / name)) == oct(shown)
        assert os.listxattr(folder / name) == [ACCESS]


def test_a_new_folder_gets_it_and_passes_it_on(heir: Path) -> None:
    alice(os.mkdir, heir / "one", 0o777)
    alice(os.mkdir, heir / "one" / "two", 0o755)
    for path, mask in ((heir / "one", 7), (heir / "one" / "two", 5)):
        expected = {**INHERITED, (Tag.MASK, None): mask}
        assert get_acl(path) == expected
        assert get_acl(path, DEFAULT) == INHERITED


def test_a_file_without_a_name_gets_it(heir: Path) -> None:
    with opened(heir, os.O_TMPFILE | os.O_RDWR, 0o666) as fd:
        assert decode(os.getxattr(fd, ACCESS))[Tag.USER, bob.uid] == 6
        assert os.fstat(fd).st_mode & 0o7777 == 0o664


def test_a_link_does_not(heir: Path) -> None:
    os.symlink("x", heir / "link")
    assert os.listxattr(heir / "link", follow_symlinks=False) == []


def test_a_default_that_names_nobody_takes_the_place_of_the_umask(folder: Path) -> None:
    set_acl(folder, acl(7, 7, 0), DEFAULT)

    def create() -> None:
        os.umask(0o077)
        os.mkdir(folder / "inner", 0o777)
        os.close(os.open(folder / "file", os.O_CREAT | os.O_WRONLY, 0o666))

    alice(create)
    assert oct(mode_of(folder / "inner")) == "0o770"
    assert oct(mode_of(folder / "file")) == "0o660"
    assert os.listxattr(folder / "inner") == [DEFAULT]
    assert os.listxattr(folder / "file") == []


def test_what_moves_into_the_folder_keeps_its_own(heir: Path, folder: Path) -> None:
    make_file(folder / "x", mode=0o600)
    os.rename(folder / "x", heir / "x")
    assert os.listxattr(heir / "x") == []


def test_setfacl_and_getfacl_work(heir: Path, file: Path) -> None:
    def run(*command: object) -> str:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=20, check=True)
        return done.stdout

    run("setfacl", "-m", f"u:{bob.uid}:rw,g:{carol.gid}:r", file)
    expected = ["user::rw-", f"user:{bob.uid}:rw-", "group::---", f"group:{carol.gid}:r--", "mask::rw-", "other::---"]
    assert run("getfacl", "-cnp", file).split() == expected
    run("setfacl", "-b", file)
    assert run("getfacl", "-cnp", file).split() == ["user::rw-", "group::---", "other::---"]
    run("setfacl", "-d", "-m", f"u:{bob.uid}:r", heir)
    assert f"default:user:{bob.uid}:r--" in run("getfacl", "-cnp", heir).split()
    run("setfacl", "-k", heir)
    assert os.listxattr(heir) == []
