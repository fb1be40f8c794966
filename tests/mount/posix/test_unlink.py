"""unlink(2), and files that live on without a name."""

import errno
import os
from pathlib import Path

from mount.posix import kinds
from mount.posix.each import each
from mount.posix.expect import LONG_AGO, age, changed, entries, opened, refused, times
from mount.posix.kinds import Kind, make, make_file, make_folder
from mount.posix.syscalls import utimensat
from mount.posix.users import alice, bob


@each("kind", kinds.NOT_FOLDERS)
def test_a_name_is_removed(folder: Path, kind: Kind) -> None:
    make(kind, folder / "x")
    os.unlink(folder / "x")
    assert entries(folder) == []
    with refused(errno.ENOENT):
        os.lstat(folder / "x")
    with refused(errno.ENOENT):
        os.unlink(folder / "x")


def test_a_folder_is_not(folder: Path) -> None:
    make_folder(folder / "inner")
    for user_call in (os.unlink, lambda path: alice(os.unlink, path)):
        with refused(errno.EISDIR):
            user_call(folder / "inner")
    with refused(errno.EISDIR):
        os.unlink(f"{folder}/inner/")
    for name in (".", ".."):
        with refused(errno.EISDIR):
            os.unlink(f"{folder}/inner/{name}")


def test_the_other_names_stay(folder: Path) -> None:
    make_file(folder / "one", b"content")
    os.link(folder / "one", folder / "two")
    before = age(folder / "two")
    os.unlink(folder / "one")
    assert changed(folder / "two", before) == "c"
    assert (folder / "two").read_bytes() == b"content"
    assert os.stat(folder / "two").st_nlink == 1


def test_the_folder_must_be_writable(folder: Path) -> None:
    closed = make_folder(folder / "closed")
    os.chown(make_file(closed / "x"), alice.uid, alice.gid)
    with refused(errno.EACCES):
        alice(os.unlink, closed / "x")
    unsearchable = make_folder(folder / "unsearchable", 0o666)
    make_file(unsearchable / "x")
    with refused(errno.EACCES):
        alice(os.unlink, unsearchable / "x")


def test_who_may_write_the_folder_may_remove_anybodys(folder: Path) -> None:
    bob(make_file, folder / "x", mode=0o600)
    alice(os.unlink, folder / "x")


def test_times_change_of_the_folder(folder: Path) -> None:
    make_file(folder / "x")
    before = age(folder)
    os.unlink(folder / "x")
    assert changed(folder, before) == "mc"


def test_an_open_file_lives_on_without_a_name(folder: Path) -> None:
    with opened(make_file(folder / "x", b"content")) as fd:
        before = os.fstat(fd)
        os.unlink(folder / "x")
        after = os.fstat(fd)
        assert after.st_nlink == 0
        assert (after.st_ino, after.st_size, after.st_mode) == (before.st_ino, before.st_size, before.st_mode)
        os.write(fd, b"CONTENT and more")
        os.ftruncate(fd, 10)
        os.fsync(fd)
        assert os.pread(fd, 100, 0) == b"CONTENT an"


def test_attributes_of_an_open_file_without_a_name_are_changed(folder: Path) -> None:
    with opened(make_file(folder / "x", b"content")) as fd:
        os.unlink(folder / "x")
        os.fchmod(fd, 0o600)
        os.fchown(fd, alice.uid, alice.gid)
        utimensat(None, LONG_AGO, LONG_AGO + 1, folder=fd)
        os.setxattr(fd, "user.x", b"value")
        found = os.fstat(fd)
        assert (found.st_mode & 0o7777, found.st_uid) == (0o600, alice.uid)
        assert times(fd)[:2] == (LONG_AGO, LONG_AGO + 1)
        assert os.listxattr(fd) == ["user.x"]
        os.removexattr(fd, "user.x")
        assert os.listxattr(fd) == []


def test_an_open_file_without_a_name_is_opened_again(folder: Path) -> None:
    with opened(make_file(folder / "x", b"content")) as fd:
        os.unlink(folder / "x")
        with opened(Path(f"/proc/self/fd/{fd}")) as again:
            os.write(again, b"C")
            assert os.path.samestat(os.fstat(fd), os.fstat(again))
        assert os.pread(fd, 100, 0) == b"Content"
        with opened(Path(f"/proc/self/fd/{fd}"), os.O_WRONLY | os.O_TRUNC):
            assert os.fstat(fd).st_size == 0


def test_the_name_may_be_used_again_while_the_file_is_open(folder: Path) -> None:
    with opened(make_file(folder / "x", b"old")) as fd:
        os.unlink(folder / "x")
        make_file(folder / "x", b"new")
        assert not os.path.samestat(os.fstat(fd), os.stat(folder / "x"))
        assert os.read(fd, 100) == b"old"
        assert (folder / "x").read_bytes() == b"new"


def test_another_process_keeps_a_file_alive(folder: Path) -> None:
    path = make_file(folder / "x", b"content", 0o666)
    told, ready = os.pipe()
    waits, go = os.pipe()

    def keep() -> bytes:
        with opened(path) as fd:
            os.write(ready, b"x")
            os.read(waits, 1)
            return os.pread(fd, 100, 0)

    keeping = alice.start(keep)
    os.read(told, 1)
    os.unlink(path)
    os.write(go, b"x")
    assert keeping.result() == b"content"
    for fd in (told, ready, waits, go):
        os.close(fd)


def test_space_is_given_back_when_the_last_one_closes(folder: Path) -> None:
    before = os.statvfs(folder).f_bfree
    with opened(make_file(folder / "x", bytes(range(256)) * 40_000)) as fd:
        os.fsync(fd)
        os.unlink(folder / "x")
        held = os.statvfs(folder).f_bfree
        assert held < before
    while os.statvfs(folder).f_bfree == held:  # close(2) does not wait for RELEASE
        pass


def test_many_files_come_and_go(folder: Path) -> None:
    for _ in range(3):
        for number in range(100):
            make_file(folder / str(number), str(number).encode())
        for number in range(100):
            assert (folder / str(number)).read_bytes() == str(number).encode()
            os.unlink(folder / str(number))
        assert entries(folder) == []
