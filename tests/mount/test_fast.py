"""Requests that C answers, and the methods in Python that it was written after: both show the same."""

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from mount.support import TRANSPORTS, ServedMount, serve


@pytest.fixture(scope="module", params=TRANSPORTS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """One folder, mounted twice: answered in C where that is possible, and in Python alone."""
    folder = tmp_path_factory.mktemp("fast")
    source = folder / "source"
    source.mkdir()
    fill(source)
    with ExitStack() as stack:
        mounts: list[ServedMount] = [
            stack.enter_context(
                serve(
                    folder,
                    filesystem="passthrough",
                    options={"source": str(source), "fast": fast},
                    transport=request.param,
                    cache="none",
                )
            )
            for fast in (True, False)
        ]
        yield mounts[0].path, mounts[1].path


def fill(source: Path) -> None:
    (source / "file").write_bytes(bytes(range(256)) * 40)
    (source / "empty").touch()
    (source / "folder").mkdir(mode=0o2750)
    (source / "folder" / "inner").write_text("inner")
    os.link(source / "file", source / "link")
    os.symlink("file", source / "symlink")
    os.symlink("nowhere", source / "dangling")
    os.mkfifo(source / "fifo", 0o640)
    os.mknod(source / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(source / "socket"))
    (source / ("n" * 255)).touch()
    os.close(os.open(bytes(source) + b"/\xff\xfe", os.O_CREAT))
    with (source / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 33)
    os.utime(source / "empty", ns=(-1_500_000_000, 1_700_000_000_123_456_789))
    os.chown(source / "empty", 12345, 54321)
    (source / "empty").chmod(0o6711)


def outcome(function: Callable[[], object]) -> object:
    try:
        return function()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def attributes(path: bytes) -> tuple[int, ...]:
    found = os.lstat(path)
    fields = [
        name for name in dir(found) if name.startswith("st_") and name not in ("st_dev", "st_atime_ns", "st_atime")
    ]
    return tuple(getattr(found, name) for name in fields)


def test_attributes_are_the_same(pair: tuple[Path, Path]) -> None:
    fast, slow = map(os.fsencode, pair)
    names = os.listdir(fast)
    assert len(names) == 12
    for name in [b".", *names, b"folder/inner", b"missing", b"file/below", b"folder/missing", b"n" * 256]:
        shown = [outcome(lambda top=top, name=name: attributes(top + b"/" + name)) for top in (fast, slow)]  # type: ignore[misc]
        assert shown[0] == shown[1], name


def test_contents_are_the_same(pair: tuple[Path, Path]) -> None:
    for name in ("file", "empty", "folder/inner", "symlink", "dangling", "folder", "socket"):
        read = [outcome((top / name).read_bytes) for top in pair]
        assert read[0] == read[1], name
    for offset, size in ((0, 1), (4095, 2), (10239, 10), (10240, 10), (1 << 40, 10), (0, 1 << 20)):
        read = []
        for top in pair:
            fd = os.open(top / "file", os.O_RDONLY)
            read.append(os.pread(fd, size, offset))
            os.close(fd)
        assert read[0] == read[1], (offset, size)


def test_what_one_writes_the_other_reads(pair: tuple[Path, Path]) -> None:
    for writer, reader in (pair, pair[::-1]):
        fd = os.open(writer / "written", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            assert os.pwrite(fd, b"a" * 5000, 3) == 5000
            assert os.fstat(fd).st_size == 5003
            os.ftruncate(fd, 4000)
        finally:
            os.close(fd)
        with (writer / "written").open("ab") as appended:
            appended.write(b"end")
        assert (reader / "written").read_bytes() == b"\0" * 3 + b"a" * 3997 + b"end"
        (writer / "written").unlink()
        assert outcome((reader / "written").read_bytes) == "ENOENT"


@pytest.mark.parametrize(
    "flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_APPEND, os.O_SYNC, os.O_DIRECTORY, os.O_PATH]
)
def test_opening_has_the_same_outcome(pair: tuple[Path, Path], flags: int) -> None:
    for name in ("file", "folder", "missing", "dangling", "socket"):
        opened = []
        for top in pair:
            result = outcome(lambda: os.open(top / name, flags | os.O_NONBLOCK))  # noqa: B023
            if isinstance(result, int):
                os.close(result)
                result = "opened"
            opened.append(result)
        assert opened[0] == opened[1], name
