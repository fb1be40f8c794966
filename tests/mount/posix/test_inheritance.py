"""What a new object gets from the folder it is made in, and from its maker's umask. Lists are in test_acl."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from mount.posix.each import each
from mount.posix.expect import mode_of
from mount.posix.kinds import make_folder
from mount.posix.syscalls import AT_FDCWD, AT_SYMLINK_FOLLOW, linkat, mknodat
from mount.posix.users import alice, bob, carol

Make = Callable[[Path, int], object]


def make_without_name(path: Path, mode: int) -> None:
    fd = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, mode)
    linkat(AT_FDCWD, f"/proc/self/fd/{fd}", AT_FDCWD, path, AT_SYMLINK_FOLLOW)
    os.close(fd)


MAKERS: dict[str, Make] = {
    "mkdir": os.mkdir,
    "mkfifo": os.mkfifo,
    "mknod": lambda path, mode: mknodat(AT_FDCWD, path, stat.S_IFREG | mode),
    "socket": lambda path, mode: mknodat(AT_FDCWD, path, stat.S_IFSOCK | mode),
    "open": lambda path, mode: os.close(os.open(path, os.O_CREAT | os.O_WRONLY, mode)),
    "open exclusively": lambda path, mode: os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)),
    "tmpfile": make_without_name,
}

every_maker = each("make", MAKERS)


def under_umask(umask: int, make: Make, path: Path, mode: int) -> None:
    os.umask(umask)
    make(path, mode)


@every_maker
@each("umask", [0, 0o022, 0o027, 0o777])
def test_the_umask_is_taken_off_the_mode(folder: Path, make: Make, umask: int) -> None:
    alice(under_umask, umask, make, folder / "x", 0o777)
    assert oct(mode_of(folder / "x")) == oct(0o777 & ~umask)


def test_each_process_has_its_own_umask(folder: Path) -> None:
    for number, (user, umask) in enumerate([(alice, 0o077), (bob, 0o002), (alice, 0), (carol, 0o077)] * 2):
        user(under_umask, umask, MAKERS["open"], folder / str(number), 0o666)
        user(under_umask, umask, os.mkdir, folder / f"{number}d", 0o777)
        assert oct(mode_of(folder / str(number))) == oct(0o666 & ~umask)
        assert oct(mode_of(folder / f"{number}d")) == oct(0o777 & ~umask)


def test_a_link_has_no_use_for_a_umask(folder: Path) -> None:
    alice(under_umask, 0o777, lambda path, mode: os.symlink("x", path), folder / "x", 0)
    assert mode_of(folder / "x") == 0o777


@every_maker
def test_it_belongs_to_its_maker(folder: Path, make: Make) -> None:
    carol(make, folder / "x", 0o700)
    found = os.lstat(folder / "x")
    assert (found.st_uid, found.st_gid) == (carol.uid, carol.gid)


@every_maker
def test_a_setgid_folder_passes_on_its_group(folder: Path, make: Make) -> None:
    outer = make_folder(folder / "outer", 0o777)
    os.chown(outer, bob.uid, alice.gid)
    os.chmod(outer, 0o2777)
    carol(under_umask, 0, make, outer / "x", 0o755)
    found = os.lstat(outer / "x")
    assert (found.st_uid, found.st_gid) == (carol.uid, alice.gid)
    assert oct(found.st_mode & 0o7777) == ("0o2755" if stat.S_ISDIR(found.st_mode) else "0o755")


def test_a_setgid_folder_passes_on_its_group_to_links_too(folder: Path) -> None:
    os.chown(folder, 0, alice.gid)
    os.chmod(folder, 0o2777)
    bob(os.symlink, "x", folder / "x")
    assert os.lstat(folder / "x").st_gid == alice.gid


def test_folders_within_pass_it_on_further(folder: Path) -> None:
    os.chown(folder, 0, alice.gid)
    os.chmod(folder, 0o2777)

    def make_deep() -> None:
        os.umask(0)
        os.makedirs(folder / "one" / "two")
        os.mkdir(folder / "three", 0o2700)

    bob(make_deep)
    for name in ("one", "one/two"):
        found = os.stat(folder / name)
        assert (found.st_gid, oct(found.st_mode & 0o7777)) == (alice.gid, "0o2777")
    assert oct(mode_of(folder / "three")) == "0o2700"


@each("name", ["open", "mknod", "tmpfile"])
def test_setgid_programs_are_made_by_members_only(folder: Path, name: str) -> None:
    """mode_strip_sgid() in the kernel; without execution for the group the bit stays."""
    os.chown(folder, 0, alice.gid)
    os.chmod(folder, 0o2777)
    for user, mode, expected in (
        (bob, 0o2771, "0o771"),
        (carol, 0o2771, "0o2771"),
        (bob, 0o2766, "0o2766"),
        (bob, 0o4771, "0o4771"),
    ):
        user(under_umask, 0, MAKERS[name], folder / "x", mode)
        assert oct(mode_of(folder / "x")) == expected
        os.unlink(folder / "x")


def test_without_setgid_the_makers_group_counts(folder: Path) -> None:
    os.chown(folder, 0, alice.gid)
    carol(under_umask, 0, MAKERS["open"], folder / "x", 0o2771)
    found = os.stat(folder / "x")
    assert (found.st_gid, oct(found.st_mode & 0o7777)) == (carol.gid, "0o2771")
