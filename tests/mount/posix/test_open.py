"""open(2): the flags, what is made, and who may."""

import errno
import fcntl
import mmap
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.posix import kinds
from mount.posix.each import each
from mount.posix.expect import LONG_AGO, age, changed, entries, mode_of, opened, outcome, refused, times
from mount.posix.kinds import Kind, make, make_file, make_folder
from mount.posix.syscalls import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, linkat
from mount.posix.users import alice, bob, carol

NEW = os.O_CREAT | os.O_EXCL | os.O_RDWR

# --- making ----------------------------------------------------------------------------------------------------------


def test_a_new_file_is_empty_and_its_makers(folder: Path) -> None:
    def create() -> os.stat_result:
        with opened(folder / "x", os.O_CREAT | os.O_WRONLY, 0o666) as fd:
            return os.fstat(fd)

    made = alice(create)
    assert made == os.stat(folder / "x")
    assert stat.S_ISREG(made.st_mode)
    assert (made.st_uid, made.st_gid, made.st_nlink, made.st_size) == (alice.uid, alice.gid, 1, 0)


@each("mode", [0, 0o200, 0o644, 0o7777])
def test_every_bit_of_the_mode_is_taken(folder: Path, mode: int) -> None:
    before = os.umask(0)
    try:
        os.close(os.open(folder / "x", NEW, mode))
    finally:
        os.umask(before)
    assert mode_of(folder / "x") == mode


def test_the_maker_may_write_whatever_the_mode(folder: Path) -> None:
    def create_and_write() -> bytes:
        with opened(folder / "x", NEW, 0) as fd:
            os.write(fd, b"content")
            return os.pread(fd, 100, 0)

    assert alice(create_and_write) == b"content"
    with refused(errno.EACCES):
        alice((folder / "x").read_bytes)


def test_an_existing_file_is_opened_as_it_is(folder: Path) -> None:
    make_file(folder / "x", b"content", 0o640)
    with opened(folder / "x", os.O_CREAT | os.O_RDONLY, 0o777) as fd:
        assert os.read(fd, 100) == b"content"
    assert mode_of(folder / "x") == 0o640


@each("kind", kinds.ALL)
def test_exclusively_made_is_what_was_not_there(folder: Path, kind: Kind) -> None:
    make(kind, folder / "x")
    with refused(errno.EEXIST):
        os.open(folder / "x", NEW)
    assert entries(folder) == ["x"]


def test_a_link_that_leads_nowhere_leads_to_the_new_file(folder: Path) -> None:
    os.symlink("target", folder / "link")
    os.close(os.open(folder / "link", os.O_CREAT | os.O_WRONLY))
    assert entries(folder) == ["link", "target"]
    os.unlink(folder / "target")
    with refused(errno.ELOOP):
        os.open(folder / "link", os.O_CREAT | os.O_NOFOLLOW | os.O_WRONLY)


def test_the_folder_must_be_writable_for_a_new_file(folder: Path) -> None:
    closed = make_folder(folder / "closed")
    make_file(closed / "old", mode=0o666)
    with refused(errno.EACCES):
        alice(os.open, closed / "new", NEW)
    alice(lambda: os.close(os.open(closed / "old", os.O_CREAT | os.O_RDWR)))
    with refused(errno.EEXIST):
        alice(os.open, closed / "old", NEW)


def test_the_folder_must_not_be_removed(folder: Path) -> None:
    inner = make_folder(folder / "inner")
    with opened(inner, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rmdir(inner)
        with refused(errno.ENOENT):
            os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
        with refused(errno.ENOENT):
            os.open("x", os.O_RDONLY, dir_fd=fd)


def test_times_of_a_new_file_and_its_folder(folder: Path) -> None:
    before = age(folder)
    os.close(os.open(folder / "x", NEW))
    assert changed(folder, before) == "mc"
    made = times(folder / "x")
    assert made.a == made.m == made.c


def test_opening_changes_no_times(folder: Path) -> None:
    make_file(folder / "x", b"content")
    before = age(folder / "x"), age(folder)
    for flags in (os.O_RDONLY, os.O_RDWR, os.O_CREAT | os.O_WRONLY, os.O_APPEND | os.O_WRONLY):
        os.close(os.open(folder / "x", flags))
    assert changed(folder / "x", before[0]) == changed(folder, before[1]) == ""


# --- who may ---------------------------------------------------------------------------------------------------------

ACCESS = {"reading": (os.O_RDONLY, 4), "writing": (os.O_WRONLY, 2), "both": (os.O_RDWR, 6)}


@each(("flags", "needed"), ACCESS)
def test_the_mode_decides_by_owner_group_and_others(folder: Path, flags: int, needed: int) -> None:
    def try_all(paths: list[Path]) -> list[str]:
        return [outcome(lambda path: os.close(os.open(path, flags)), path) for path in paths]

    files = []
    for shift in (6, 3, 0):
        for bits in range(8):
            path = make_file(folder / f"{shift}-{bits}", mode=bits << shift)
            os.chown(path, alice.uid, alice.gid)
            files.append(path)
    for user, shift in ((alice, 6), (carol, 3), (bob, 0)):
        may = [at == shift and bits & needed == needed for at in (6, 3, 0) for bits in range(8)]
        assert user(try_all, files) == ["success" if it else "EACCES" for it in may]
    assert set(try_all(files)) == {"success"}, "root may open anything"


def test_the_first_class_that_fits_decides(folder: Path) -> None:
    path = make_file(folder / "x", mode=0o077)
    os.chown(path, alice.uid, alice.gid)
    with refused(errno.EACCES):
        alice(os.open, path, os.O_RDONLY)
    os.chmod(path, 0o707)
    with refused(errno.EACCES):
        carol(os.open, path, os.O_RDONLY)


def test_a_program_is_executed_only_by_whom_the_mode_names(folder: Path) -> None:
    program = Path(shutil.copy("/bin/true", folder / "program"))
    for mode, expected in ((0o644, False), (0o745, True), (0o754, False)):
        os.chmod(program, mode)
        os.chown(program, alice.uid, alice.gid)

        def run() -> int:
            return subprocess.run([str(program)], timeout=20, check=False).returncode

        if expected:
            assert bob(run) == 0
        else:
            with refused(errno.EACCES):
                bob(run)
    os.chmod(program, 0o644)
    with refused(errno.EACCES):
        os.execv(program, ["program"])


# --- flags -----------------------------------------------------------------------------------------------------------


def test_a_folder_is_not_opened_for_writing(folder: Path) -> None:
    inner = make_folder(folder / "inner")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_CREAT | os.O_RDONLY):
        with refused(errno.EISDIR):
            os.open(inner, flags)


@each("kind", [Kind.FILE, Kind.FIFO, Kind.SOCKET, Kind.CHARACTER])
def test_only_a_folder_is_opened_as_one(folder: Path, kind: Kind) -> None:
    make(kind, folder / "x")
    with refused(errno.ENOTDIR):
        os.open(folder / "x", os.O_RDONLY | os.O_DIRECTORY)


def test_a_folder_is_not_made_by_opening(folder: Path) -> None:
    with refused(errno.EINVAL):
        os.open(folder / "x", os.O_CREAT | os.O_DIRECTORY | os.O_RDONLY)
    assert entries(folder) == []


def test_a_link_is_not_followed_on_demand(folder: Path) -> None:
    make_folder(folder / "inner")
    make_file(folder / "inner" / "x", b"content")
    os.symlink("inner", folder / "link")
    os.symlink("inner/x", folder / "file")
    with refused(errno.ELOOP):
        os.open(folder / "file", os.O_RDONLY | os.O_NOFOLLOW)
    with refused(errno.ENOTDIR):
        os.open(folder / "link", os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    os.close(os.open(folder / "link" / "x", os.O_RDONLY | os.O_NOFOLLOW))


@each("access", {"writing": os.O_WRONLY, "both": os.O_RDWR, "reading": os.O_RDONLY})
def test_truncation_empties_a_file(folder: Path, access: int) -> None:
    make_file(folder / "x", b"content" * 1000)
    before = age(folder / "x")
    with opened(folder / "x", access | os.O_TRUNC) as fd:
        assert os.fstat(fd).st_size == 0
    assert changed(folder / "x", before) == "mc"
    assert (folder / "x").read_bytes() == b""


def test_truncation_of_an_empty_file_changes_its_times(folder: Path) -> None:
    before = age(make_file(folder / "x"))
    os.close(os.open(folder / "x", os.O_WRONLY | os.O_TRUNC))
    assert changed(folder / "x", before) == "mc"


def test_truncation_needs_the_right_to_write(folder: Path) -> None:
    make_file(folder / "x", b"content", 0o644)
    with refused(errno.EACCES):
        alice(os.open, folder / "x", os.O_RDONLY | os.O_TRUNC)
    assert (folder / "x").read_bytes() == b"content"


def test_truncation_shows_in_files_that_are_open(folder: Path) -> None:
    with opened(make_file(folder / "x", b"content")) as fd:
        os.close(os.open(folder / "x", os.O_WRONLY | os.O_TRUNC))
        assert os.read(fd, 100) == b""
        assert os.fstat(fd).st_size == 0


def test_appending_writes_at_the_end_wherever_that_is(folder: Path) -> None:
    make_file(folder / "x", b"begin ")
    with (
        opened(folder / "x", os.O_WRONLY | os.O_APPEND) as one,
        opened(folder / "x", os.O_RDWR | os.O_APPEND) as two,
        opened(folder / "x", os.O_WRONLY) as plain,
    ):
        os.write(one, b"one ")
        os.write(two, b"two ")
        os.lseek(one, 0, os.SEEK_SET)
        os.write(one, b"three ")
        os.write(plain, b"B")
        os.pwrite(two, b"four", 0)  # pwrite(2), BUGS: Linux appends
        assert os.lseek(one, 0, os.SEEK_CUR) == len("begin one two three ")
    assert (folder / "x").read_bytes() == b"Begin one two three four"


def test_appends_of_several_processes_do_not_overwrite_each_other(folder: Path) -> None:
    path = make_file(folder / "x", mode=0o666)

    def append(letter: bytes) -> None:
        with opened(path, os.O_WRONLY | os.O_APPEND) as fd:
            for _ in range(50):
                os.write(fd, letter * 99 + b"\n")

    for task in [user.start(append, letter) for user, letter in ((alice, b"a"), (bob, b"b"), (carol, b"c"))]:
        task.result()
    lines = path.read_bytes().splitlines()
    assert sorted(lines) == [b"a" * 99] * 50 + [b"b" * 99] * 50 + [b"c" * 99] * 50


def test_reading_without_a_trace_is_the_owners_right(folder: Path) -> None:
    make_file(folder / "x", b"content")
    with refused(errno.EPERM):
        alice(os.open, folder / "x", os.O_RDONLY | os.O_NOATIME)
    before = age(folder / "x")
    with opened(folder / "x", os.O_RDONLY | os.O_NOATIME) as fd:
        assert os.read(fd, 100) == b"content"
    assert changed(folder / "x", before) == ""


def test_direct_and_synchronous_files_hold_what_was_written(folder: Path) -> None:
    make_file(folder / "x")
    page = mmap.mmap(-1, 8192)
    page[:] = b"d" * 8192
    with opened(folder / "x", os.O_RDWR | os.O_DIRECT | os.O_DSYNC) as fd:
        assert os.pwrite(fd, page, 4096) == 8192
        page[:] = bytes(8192)
        assert os.preadv(fd, [page], 4096) == 8192
        assert page[:] == b"d" * 8192
    with opened(folder / "x", os.O_RDWR | os.O_SYNC) as fd:
        os.pwrite(fd, b"synchronous", 4096)
    content = (folder / "x").read_bytes()
    assert content == bytes(4096) + b"synchronous" + b"d" * (8192 - 11)


def test_a_files_flags_are_told(folder: Path) -> None:
    flags = os.O_RDWR | os.O_APPEND | os.O_NONBLOCK
    with opened(make_file(folder / "x"), flags) as fd:
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK) == flags
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_RDWR)
        os.write(fd, b"one")
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b"two")
    assert (folder / "x").read_bytes() == b"two"


# --- O_PATH ----------------------------------------------------------------------------------------------------------


@each("kind", kinds.ALL)
def test_a_path_descriptor_names_an_object_without_opening_it(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x", 0)

    def name_it() -> os.stat_result:
        with opened(path, os.O_PATH | os.O_NOFOLLOW) as fd:
            return os.fstat(fd)

    assert alice(name_it) == os.lstat(path)


def test_a_path_descriptor_reads_and_writes_nothing(folder: Path) -> None:
    with opened(make_file(folder / "x", b"content"), os.O_PATH) as fd:
        with refused(errno.EBADF):
            os.read(fd, 1)
        with refused(errno.EBADF):
            os.pwrite(fd, b"x", 0)
        with refused(errno.EBADF):
            os.ftruncate(fd, 0)
        with refused(errno.EBADF):
            os.fsync(fd)
        with opened(Path(f"/proc/self/fd/{fd}"), os.O_RDONLY) as again:
            assert os.read(again, 100) == b"content"


def test_a_path_descriptor_follows_its_object(folder: Path) -> None:
    make_folder(folder / "one")
    with opened(folder / "one", os.O_PATH) as fd:
        os.rename(folder / "one", folder / "two")
        make_folder(folder / "one")
        make_file(folder / "two" / "x", b"content")
        with opened(Path(f"/proc/self/fd/{fd}/x"), os.O_RDONLY) as inner:
            assert os.read(inner, 100) == b"content"


def test_a_link_is_read_through_a_path_descriptor(folder: Path) -> None:
    os.symlink("target", folder / "link")
    with opened(folder / "link", os.O_PATH | os.O_NOFOLLOW) as fd:
        assert os.readlink("", dir_fd=fd) == "target"
        os.unlink(folder / "link")
        assert os.readlink("", dir_fd=fd) == "target"


# --- O_TMPFILE -------------------------------------------------------------------------------------------------------


def test_a_file_without_a_name_lives_until_it_is_closed(folder: Path) -> None:
    def create() -> os.stat_result:
        with opened(folder, os.O_TMPFILE | os.O_RDWR, 0o640) as fd:
            os.write(fd, b"content")
            assert os.pread(fd, 100, 0) == b"content"
            return os.fstat(fd)

    made = alice(create)
    assert stat.S_ISREG(made.st_mode)
    assert (made.st_uid, made.st_gid, made.st_nlink, made.st_size) == (alice.uid, alice.gid, 0, 7)
    assert made.st_mode & 0o7777 == 0o640
    assert entries(folder) == []


@each("way", ["descriptor", "proc"])
def test_a_file_without_a_name_is_given_one(folder: Path, way: str) -> None:
    with opened(folder, os.O_TMPFILE | os.O_WRONLY) as fd:
        os.write(fd, b"content")
        if way == "descriptor":
            linkat(fd, "", AT_FDCWD, folder / "x", AT_EMPTY_PATH)
        else:
            linkat(AT_FDCWD, f"/proc/self/fd/{fd}", AT_FDCWD, folder / "x", AT_SYMLINK_FOLLOW)
        assert os.fstat(fd).st_nlink == 1
        assert os.path.samestat(os.fstat(fd), os.stat(folder / "x"))
        os.write(fd, b" and more")
    assert (folder / "x").read_bytes() == b"content and more"


def test_a_user_names_the_own_file(folder: Path) -> None:
    def create() -> None:
        with opened(folder, os.O_TMPFILE | os.O_WRONLY, 0o600) as fd:
            linkat(AT_FDCWD, f"/proc/self/fd/{fd}", AT_FDCWD, folder / "x", AT_SYMLINK_FOLLOW)

    alice(create)
    assert os.stat(folder / "x").st_uid == alice.uid


def test_an_exclusive_file_without_a_name_never_gets_one(folder: Path) -> None:
    with opened(folder, os.O_TMPFILE | os.O_RDWR | os.O_EXCL) as fd, refused(errno.ENOENT):
        linkat(AT_FDCWD, f"/proc/self/fd/{fd}", AT_FDCWD, folder / "x", AT_SYMLINK_FOLLOW)


def test_a_file_without_a_name_changes_no_times_of_the_folder(folder: Path) -> None:
    before = age(folder)
    os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR))
    assert changed(folder, before) == ""


def test_a_file_without_a_name_must_be_writable_and_in_a_folder(folder: Path) -> None:
    with refused(errno.EINVAL):
        os.open(folder, os.O_TMPFILE | os.O_RDONLY)
    with refused(errno.ENOTDIR):
        os.open(make_file(folder / "file"), os.O_TMPFILE | os.O_RDWR)
    with refused(errno.EACCES):
        alice(os.open, make_folder(folder / "closed"), os.O_TMPFILE | os.O_RDWR)


def test_a_file_without_a_name_has_all_a_file_has(folder: Path) -> None:
    with opened(folder, os.O_TMPFILE | os.O_RDWR) as fd:
        os.ftruncate(fd, 10_000)
        os.fchown(fd, alice.uid, alice.gid)
        os.fchmod(fd, 0o604)
        os.setxattr(fd, "user.x", b"value")
        os.utime(fd, ns=(LONG_AGO, LONG_AGO))
        found = os.fstat(fd)
        assert (found.st_size, found.st_uid, found.st_mode & 0o7777) == (10_000, alice.uid, 0o604)
        assert os.getxattr(fd, "user.x") == b"value"
        with opened(Path(f"/proc/self/fd/{fd}"), os.O_RDONLY) as again:
            assert os.fstat(again) == found


# --- programs that run -----------------------------------------------------------------------------------------------


@pytest.fixture
def running(folder: Path) -> Iterator[Path]:
    """A program of the target that runs."""
    program = Path(shutil.copy("/bin/sleep", folder / "program"))
    process = subprocess.Popen([program, "60"])
    try:
        yield program
    finally:
        process.kill()
        process.wait(20)


def test_a_running_program_is_not_written(running: Path) -> None:
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
        with refused(errno.ETXTBSY):
            os.open(running, flags)
    with refused(errno.ETXTBSY):
        os.truncate(running, 0)
    os.close(os.open(running, os.O_RDONLY))


def test_a_running_program_is_not_emptied_by_who_opens_it_for_reading(running: Path) -> None:
    with refused(errno.ETXTBSY):
        os.open(running, os.O_RDONLY | os.O_TRUNC)
    assert os.stat(running).st_size > 0


def test_a_running_program_may_be_replaced(running: Path, folder: Path) -> None:
    make_file(folder / "new", b"new")
    os.rename(folder / "new", running)
    assert running.read_bytes() == b"new"
    os.unlink(running)


def test_a_file_that_is_open_for_writing_is_not_executed(folder: Path) -> None:
    program = Path(shutil.copy("/bin/true", folder / "program"))
    with opened(program, os.O_WRONLY), refused(errno.ETXTBSY):
        subprocess.run([program], timeout=20, check=False)
    assert subprocess.run([program], timeout=20, check=False).returncode == 0
