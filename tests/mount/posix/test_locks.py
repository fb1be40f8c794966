"""Locks: of processes (fcntl F_SETLK), of open files (F_OFD_SETLK), and flock(2)."""

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from mount.posix.expect import opened, refused
from mount.posix.kinds import make_file, make_folder
from mount.posix.users import alice, bob, root

F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 36, 37, 38
_FLOCK = struct.Struct("@hhqqi4x")

BUSY = (errno.EAGAIN, errno.EACCES)


class Range(NamedTuple):
    """struct flock, from the file's start. `length` 0: to the end, wherever that is."""

    type: int
    start: int = 0
    length: int = 0
    pid: int = 0

    def apply(self, fd: int, command: int = fcntl.F_SETLK) -> "Range":
        packed = _FLOCK.pack(self.type, os.SEEK_SET, self.start, self.length, self.pid)
        kind, _, start, length, pid = _FLOCK.unpack(fcntl.fcntl(fd, command, packed))
        return Range(kind, start, length, pid)


READ, WRITE, NONE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK


@pytest.fixture
def path(folder: Path) -> Path:
    """A file that everybody may lock."""
    return make_file(folder / "x", b"0123456789" * 100, 0o666)


@pytest.fixture
def fd(path: Path) -> Iterator[int]:
    """The file, open in this process."""
    with opened(path) as fd:
        yield fd


def is_free(path: Path, wanted: Range, command: int = fcntl.F_SETLK) -> bool:
    """Whether another process gets the lock."""

    def ask() -> bool:
        with opened(path) as fd:
            try:
                wanted.apply(fd, command)
            except OSError as error:
                if error.errno not in BUSY:
                    raise
                return False
            return True

    return bob.process(ask)


# --- of processes ----------------------------------------------------------------------------------------------------


def test_writers_exclude_everybody_and_readers_only_writers(path: Path, fd: int) -> None:
    Range(WRITE).apply(fd)
    assert (is_free(path, Range(READ)), is_free(path, Range(WRITE))) == (False, False)
    Range(READ).apply(fd)
    assert (is_free(path, Range(READ)), is_free(path, Range(WRITE))) == (True, False)
    Range(NONE).apply(fd)
    assert is_free(path, Range(WRITE))


def test_only_ranges_that_overlap_conflict(path: Path, fd: int) -> None:
    Range(WRITE, 10, 10).apply(fd)
    for start, length, free in (
        (0, 10, True),
        (20, 5, True),
        (20, 0, True),
        (9, 2, False),
        (19, 1, False),
        (0, 0, False),
    ):
        assert is_free(path, Range(WRITE, start, length)) == free
    assert is_free(path, Range(WRITE, 1 << 40, 5))


def test_ranges_are_split_and_joined(path: Path, fd: int) -> None:
    Range(WRITE, 0, 100).apply(fd)
    Range(NONE, 40, 20).apply(fd)
    Range(READ, 80, 20).apply(fd)
    found = [
        (is_free(path, Range(READ, at, 1)), is_free(path, Range(WRITE, at, 1))) for at in (0, 39, 40, 59, 60, 79, 80)
    ]
    assert found == [(False, False)] * 2 + [(True, True)] * 2 + [(False, False)] * 2 + [(True, False)]


def test_who_holds_a_lock_is_told(path: Path, fd: int) -> None:
    Range(WRITE, 10, 10).apply(fd)

    def ask(start: int) -> Range:
        with opened(path) as other:
            return Range(WRITE, start, 5).apply(other, fcntl.F_GETLK)

    assert bob.process(ask, 12) == Range(WRITE, 10, 10, os.getpid())
    assert bob.process(ask, 30).type == NONE
    assert ask_within(fd) == NONE


def ask_within(fd: int) -> int:
    return Range(WRITE, 12, 5).apply(fd, fcntl.F_GETLK).type


def test_closing_any_descriptor_of_the_file_gives_up_the_processs_locks(path: Path, fd: int) -> None:
    Range(WRITE).apply(fd)
    os.close(os.open(path, os.O_RDONLY))
    assert is_free(path, Range(WRITE))


def test_the_end_of_the_process_gives_them_up(path: Path) -> None:
    root.process(lambda: Range(WRITE).apply(os.open(path, os.O_RDWR)))
    assert is_free(path, Range(WRITE))


def test_a_child_does_not_inherit_them(path: Path, fd: int) -> None:
    Range(WRITE).apply(fd)
    with refused(*BUSY):
        alice.process(Range(WRITE).apply, fd)


def test_one_process_does_not_exclude_itself(path: Path, fd: int) -> None:
    Range(WRITE).apply(fd)
    with opened(path) as other:
        Range(READ).apply(other)
        Range(WRITE).apply(other)


def test_a_waiting_process_gets_the_lock(path: Path, fd: int) -> None:
    Range(WRITE).apply(fd)

    def wait() -> bytes:
        with opened(path) as other:
            Range(WRITE).apply(other, fcntl.F_SETLKW)
            return os.pread(other, 3, 0)

    waiting = bob.start(wait)
    waiting.wait_until_it_sleeps()
    os.pwrite(fd, b"new", 0)
    Range(NONE).apply(fd)
    assert waiting.result() == b"new"


def test_a_lock_of_a_waiting_process_that_is_killed_is_not_left(path: Path, fd: int) -> None:
    Range(WRITE).apply(fd)

    def wait() -> None:
        with opened(path) as other:
            Range(WRITE).apply(other, fcntl.F_SETLKW)

    waiting = bob.start(wait)
    waiting.wait_until_it_sleeps()
    os.kill(waiting.pid, 9)
    with pytest.raises(Exception, match="SIGKILL"):
        waiting.result()
    Range(NONE).apply(fd)
    assert is_free(path, Range(WRITE))


def test_two_processes_do_not_wait_for_each_other(path: Path, fd: int) -> None:
    told, ready = os.pipe()
    Range(WRITE, 0, 1).apply(fd)

    def wait() -> None:
        with opened(path) as other:
            Range(WRITE, 1, 1).apply(other)
            os.write(ready, b"x")
            Range(WRITE, 0, 1).apply(other, fcntl.F_SETLKW)

    waiting = bob.start(wait)
    os.read(told, 1)
    waiting.wait_until_it_sleeps()
    with refused(errno.EDEADLK):
        Range(WRITE, 1, 1).apply(fd, fcntl.F_SETLKW)
    Range(NONE).apply(fd)
    waiting.result()
    os.close(told)
    os.close(ready)


def test_the_descriptor_must_allow_what_is_locked(path: Path) -> None:
    with opened(path, os.O_RDONLY) as fd:
        Range(READ).apply(fd)
        with refused(errno.EBADF):
            Range(WRITE).apply(fd)
    with opened(path, os.O_WRONLY) as fd, refused(errno.EBADF):
        Range(READ).apply(fd)


def test_ranges_do_not_begin_before_the_file(fd: int) -> None:
    with refused(errno.EINVAL):
        Range(READ, -1, 5).apply(fd)
    with refused(errno.EINVAL):
        Range(99).apply(fd)
    Range(READ, 20, -5).apply(fd)  # the five bytes before


def test_locks_hold_whatever_happens_to_the_names(path: Path, fd: int, folder: Path) -> None:
    os.link(path, folder / "y")
    Range(WRITE).apply(fd)
    os.rename(path, folder / "z")
    assert not is_free(folder / "y", Range(READ))
    assert not is_free(folder / "z", Range(READ))


def test_a_file_without_a_name_is_locked(path: Path, fd: int) -> None:
    os.unlink(path)
    Range(WRITE).apply(fd)
    with refused(*BUSY):
        bob.process(lambda: Range(READ).apply(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)))


# --- of open files ---------------------------------------------------------------------------------------------------


def test_open_files_exclude_each_other_within_a_process(path: Path, fd: int) -> None:
    Range(WRITE, 0, 10).apply(fd, F_OFD_SETLK)
    with opened(path) as other:
        with refused(*BUSY):
            Range(READ, 5, 1).apply(other, F_OFD_SETLK)
        Range(READ, 10, 1).apply(other, F_OFD_SETLK)
        found = Range(READ, 0, 1).apply(other, F_OFD_GETLK)
        assert found == Range(WRITE, 0, 10, -1)


def test_an_open_files_locks_end_with_its_last_descriptor(path: Path, fd: int) -> None:
    copy = os.dup(fd)
    Range(WRITE).apply(copy, F_OFD_SETLK)
    os.close(copy)
    os.close(os.open(path, os.O_RDONLY))
    assert not is_free(path, Range(READ), F_OFD_SETLK)
    alice.process(Range(WRITE).apply, fd, F_OFD_SETLK)  # a child shares the open file
    os.close(fd)
    assert is_free(path, Range(WRITE), F_OFD_SETLK)


def test_an_open_file_waits_for_a_process(path: Path, fd: int) -> None:
    Range(WRITE).apply(fd)

    def wait() -> None:
        with opened(path) as other:
            Range(WRITE).apply(other, F_OFD_SETLKW)

    waiting = bob.start(wait)
    waiting.wait_until_it_sleeps()
    Range(NONE).apply(fd)
    waiting.result()


# --- flock -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def busy() -> Iterator[None]:
    with refused(errno.EWOULDBLOCK):
        yield


SHARED, EXCLUSIVE, FREE = (operation | fcntl.LOCK_NB for operation in (fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN))


def test_whole_files_are_locked(path: Path, fd: int) -> None:
    with opened(path, os.O_RDONLY) as other:
        fcntl.flock(fd, SHARED)
        fcntl.flock(other, SHARED)
        with busy():
            fcntl.flock(other, EXCLUSIVE)
        fcntl.flock(fd, FREE)
        fcntl.flock(other, EXCLUSIVE)
        with busy():
            fcntl.flock(fd, SHARED)


def test_a_folder_is_locked_too(folder: Path) -> None:
    make_folder(folder / "inner")
    with opened(folder / "inner", os.O_RDONLY) as one, opened(folder / "inner", os.O_RDONLY) as two:
        fcntl.flock(one, EXCLUSIVE)
        with busy():
            fcntl.flock(two, SHARED)


def test_a_whole_files_lock_belongs_to_the_open_file(path: Path, fd: int) -> None:
    copy = os.dup(fd)
    fcntl.flock(copy, EXCLUSIVE)
    fcntl.flock(fd, EXCLUSIVE)
    os.close(copy)
    with opened(path) as other, busy():
        fcntl.flock(other, SHARED)
    alice.process(fcntl.flock, fd, FREE)
    with opened(path) as other:
        fcntl.flock(other, EXCLUSIVE)


def test_a_whole_files_lock_ends_with_its_last_descriptor(path: Path) -> None:
    with opened(path) as one, opened(path) as two:
        fcntl.flock(one, EXCLUSIVE)
        os.close(one)
        fcntl.flock(two, EXCLUSIVE)


def test_a_waiting_process_gets_the_whole_file(path: Path, fd: int) -> None:
    fcntl.flock(fd, EXCLUSIVE)

    def wait() -> None:
        with opened(path) as other:
            fcntl.flock(other, fcntl.LOCK_EX)

    waiting = bob.start(wait)
    waiting.wait_until_it_sleeps()
    fcntl.flock(fd, FREE)
    waiting.result()


def test_both_kinds_of_locks_do_not_meet(path: Path, fd: int) -> None:
    Range(WRITE).apply(fd)
    with opened(path) as other:
        fcntl.flock(other, EXCLUSIVE)


def test_unknown_operations_are_refused(fd: int) -> None:
    with refused(errno.EINVAL):
        fcntl.flock(fd, 0)
