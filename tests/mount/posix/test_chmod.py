"""chmod(2), fchmod(2), fchmodat2(2)."""

import errno
import os
import stat
from pathlib import Path

from mount.posix import kinds
from mount.posix.each import each
from mount.posix.expect import age, changed, mode_of, opened, refused
from mount.posix.kinds import Kind, make, make_file
from mount.posix.syscalls import AT_SYMLINK_NOFOLLOW, fchmodat2
from mount.posix.users import alice, bob, carol

MODES = [0, 0o111, 0o400, 0o640, 0o777, 0o1755, 0o2755, 0o4755, 0o6711, 0o7777]


@each("kind", kinds.NOT_LINKS)
def test_every_bit_is_set_and_cleared(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x")
    for mode in [*MODES, *reversed(MODES)]:
        os.chmod(path, mode)
        assert mode_of(path) == mode
        assert stat.S_IFMT(os.lstat(path).st_mode) == kind.value


def test_a_link_is_followed(folder: Path) -> None:
    make_file(folder / "file")
    os.symlink("file", folder / "link")
    os.chmod(folder / "link", 0o600)
    assert mode_of(folder / "file") == 0o600
    assert mode_of(folder / "link") == 0o777


def test_a_link_that_leads_nowhere_is_refused(folder: Path) -> None:
    os.symlink("nowhere", folder / "link")
    with refused(errno.ENOENT):
        os.chmod(folder / "link", 0o600)


def test_a_link_itself_has_no_mode(folder: Path) -> None:
    os.symlink("nowhere", folder / "link")
    with refused(errno.EOPNOTSUPP):
        fchmodat2(folder / "link", 0o600, AT_SYMLINK_NOFOLLOW)


def test_without_following_it_changes_a_file(folder: Path) -> None:
    make_file(folder / "file")
    fchmodat2(folder / "file", 0o600, AT_SYMLINK_NOFOLLOW)
    assert mode_of(folder / "file") == 0o600


@each("kind", [Kind.FILE, Kind.FOLDER])
def test_an_open_object_is_changed(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x")
    with opened(path, os.O_RDONLY) as fd:
        os.fchmod(fd, 0o700)
        assert mode_of(path) == mode_of(fd) == 0o700


def test_an_open_file_without_a_name_is_changed(folder: Path) -> None:
    with opened(make_file(folder / "x")) as fd:
        os.unlink(folder / "x")
        os.fchmod(fd, 0o4711)
        assert mode_of(fd) == 0o4711


def test_a_path_descriptor_cannot_change_it(folder: Path) -> None:
    with opened(make_file(folder / "x"), os.O_PATH) as fd, refused(errno.EBADF):
        os.fchmod(fd, 0o600)


def test_only_ctime_changes(folder: Path) -> None:
    path = make_file(folder / "x")
    before = age(path)
    os.chmod(path, 0o600)
    assert changed(path, before) == "c"


def test_ctime_changes_although_the_mode_does_not(folder: Path) -> None:
    path = make_file(folder / "x", mode=0o600)
    before = age(path)
    os.chmod(path, 0o600)
    assert changed(path, before) == "c"


@each("kind", kinds.NOT_LINKS)
def test_another_user_may_not(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x", 0o666)
    os.chown(path, *alice[:2])
    before = age(path)
    for other in (bob, carol):
        with refused(errno.EPERM):
            other(os.chmod, path, 0o777)
    assert mode_of(path) == 0o666
    assert changed(path, before) == ""


@each("kind", kinds.NOT_LINKS)
def test_the_owner_may(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x", 0)
    os.chown(path, *alice[:2])
    alice(os.chmod, path, 0o640)
    assert mode_of(path) == 0o640


def test_an_open_file_of_another_user_may_not_be_changed(folder: Path) -> None:
    with opened(make_file(folder / "x", mode=0o666)) as fd, refused(errno.EPERM):
        alice(os.fchmod, fd, 0o600)


def test_the_owner_may_set_the_sticky_bit(folder: Path) -> None:
    path = alice(make_file, folder / "x")
    alice(os.chmod, path, 0o1644)
    assert mode_of(path) == 0o1644


@each("kind", [Kind.FILE, Kind.FIFO, Kind.FOLDER])
def test_setgid_needs_membership_in_the_group(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x")
    os.chown(path, alice.uid, bob.gid)
    alice(os.chmod, path, 0o2755)
    assert mode_of(path) == 0o755
    os.chmod(path, 0o2755)
    assert mode_of(path) == 0o2755
    alice(os.chmod, path, 0o2750)
    assert mode_of(path) == 0o750


@each("kind", [Kind.FILE, Kind.FOLDER])
def test_a_supplementary_group_allows_setgid(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x")
    os.chown(path, carol.uid, alice.gid)
    carol(os.chmod, path, 0o2755)
    assert mode_of(path) == 0o2755


def test_all_names_of_a_file_show_it(folder: Path) -> None:
    make_file(folder / "one")
    os.link(folder / "one", folder / "two")
    mode_of(folder / "two")
    os.chmod(folder / "one", 0o604)
    assert mode_of(folder / "two") == 0o604


def test_a_descriptor_keeps_the_rights_it_was_opened_with(folder: Path) -> None:
    path = alice(make_file, folder / "x", b"content")

    def read_after_chmod() -> bytes:
        with opened(path) as fd:
            os.chmod(path, 0)
            os.write(fd, b"C")
            return os.pread(fd, 10, 0)

    assert alice(read_after_chmod) == b"Content"
    with refused(errno.EACCES):
        alice(path.read_bytes)


def test_a_folder_is_closed_at_once(folder: Path) -> None:
    inner = alice(kinds.make_folder, folder / "inner")
    alice(make_file, inner / "x")
    alice(os.stat, inner / "x")
    alice(os.chmod, inner, 0o600)
    with refused(errno.EACCES):
        alice(os.stat, inner / "x")
