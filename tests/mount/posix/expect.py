"""What tests say about outcomes."""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, ParamSpec

from mount.posix.syscalls import AT_SYMLINK_NOFOLLOW, SECOND, errno_name, utimensat

P = ParamSpec("P")

LONG_AGO = 1_000_000_000 * SECOND + 123_456_789
"""September 2001: a time that no clock of a test shows."""


@contextlib.contextmanager
def refused(*codes: int) -> Iterator[None]:
    """The block must raise OSError with (one of) these numbers."""
    wanted = " or ".join(map(errno_name, codes))
    try:
        yield
    except OSError as error:
        if error.errno not in codes:
            raise AssertionError(f"{errno_name(error.errno)} instead of {wanted}") from error
    else:
        raise AssertionError(f"success instead of {wanted}")


@contextlib.contextmanager
def may_be_refused(*codes: int) -> Iterator[None]:
    """The block may raise OSError, but only with these numbers."""
    try:
        yield
    except OSError as error:
        if error.errno not in codes:
            raise


def outcome(call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> str:
    """The name of the error that the call raises, or "success"."""
    try:
        call(*args, **kwargs)
    except OSError as error:
        return errno_name(error.errno)
    return "success"


@contextlib.contextmanager
def opened(path: Path | bytes, flags: int = os.O_RDWR, mode: int = 0o644) -> Iterator[int]:
    """A descriptor, closed at the end."""
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


class Times(NamedTuple):
    """atime, mtime, ctime in nanoseconds."""

    a: int
    m: int
    c: int


def times(path: Path | int) -> Times:
    found = os.stat(path) if isinstance(path, int) else os.lstat(path)
    return Times(found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)


def age(path: Path) -> Times:
    """Sets atime and mtime to `LONG_AGO` and waits until the kernel's clock has left ctime behind.

    File times come from a clock with the resolution of the timer tick (ktime_get_coarse_real_ts64).
    """
    utimensat(path, LONG_AGO, LONG_AGO, AT_SYMLINK_NOFOLLOW)
    before = times(path)
    while time.clock_gettime_ns(5) <= before.c:  # CLOCK_REALTIME_COARSE
        pass
    return before


def changed(path: Path | int, before: Times) -> str:
    """The letters of the times that differ from `before`, of "amc"."""
    after = times(path)
    return "".join(letter for letter, old, new in zip("amc", before, after, strict=True) if old != new)


def entries(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def mode_of(path: Path | int) -> int:
    """Permission bits, with setuid, setgid and sticky."""
    found = os.stat(path) if isinstance(path, int) else os.lstat(path)
    return found.st_mode & 0o7777


def exists(path: Path) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return True
