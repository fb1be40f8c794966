"""System calls that Python's os module lacks."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from ringmount.workers import system
from ringmount.workers.api import NOW

T = TypeVar("T")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def error(number: int) -> "pytest.RaisesExc[OSError]":
    return pytest.raises(OSError, check=lambda raised: raised.errno == number)


def test_a_name_is_looked_up_with_its_handle(folder: int, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    (tmp_path / "link").symlink_to("x")
    _, top = system.file_handle(folder)
    for name in (b"x", b"link"):
        fd, handle, mount = system.lookup(folder, name)
        assert os.path.samestat(os.fstat(fd), os.lstat(tmp_path / os.fsdecode(name)))
        assert system.file_handle(fd) == (handle, mount)
        assert mount == top
        assert not os.get_inheritable(fd)
        os.close(fd)
    with error(errno.ENOENT):
        system.lookup(folder, b"nothing")
    with error(errno.ENAMETOOLONG):
        system.lookup(folder, b"n" * 256)


def test_two_names_of_one_file_have_one_handle_and_two_files_two(folder: int, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "c").touch()
    os.link(tmp_path / "a", tmp_path / "b")
    handles = []
    for name in (b"a", b"b", b"c"):
        fd, handle, _ = system.lookup(folder, name)
        os.close(fd)
        handles.append(handle)
    assert handles[0] == handles[1] != handles[2]


def test_what_has_no_handle_has_an_empty_one() -> None:
    read, write = os.pipe()
    assert system.file_handle(read)[0] == b""
    os.close(read)
    os.close(write)
    with error(errno.EBADF):
        system.file_handle(-1)


@pytest.mark.root
def test_an_object_is_opened_by_its_handle(folder: int, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"hello")
    fd, handle, _ = system.lookup(folder, b"x")
    again = system.open_by_handle(folder, handle, os.O_RDONLY)
    assert os.read(again, 9) == b"hello"
    assert not os.get_inheritable(again)
    os.unlink(tmp_path / "x")
    os.close(fd)
    os.close(again)
    with error(errno.ESTALE):
        system.open_by_handle(folder, handle, os.O_PATH)
    for nonsense in (b"", b"abc", b"x" * 200):
        with error(errno.EINVAL):
            system.open_by_handle(folder, nonsense, os.O_PATH)


def test_a_rename_takes_flags(folder: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    with error(errno.EEXIST):
        system.rename(folder, b"a", folder, b"b", 1)
    system.rename(folder, b"a", folder, b"b", 2)
    assert (tmp_path / "a").read_text() == "b"
    system.rename(folder, b"a", folder, b"b", 0)
    assert os.listdir(tmp_path) == ["b"]


def test_space_is_allocated(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        system.fallocate(file.fileno(), 0, 0, 10000)
        assert os.fstat(file.fileno()).st_size == 10000
        with error(errno.EINVAL):
            system.fallocate(file.fileno(), 0, 0, 0)


def test_times_are_set_on_a_path_descriptor(folder: int, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("x")
    fd = os.open(tmp_path / "link", os.O_PATH | os.O_NOFOLLOW)
    try:
        system.utimens(fd, -1, 1_999_999_999)
        assert (os.fstat(fd).st_atime_ns, os.fstat(fd).st_mtime_ns) == (-1, 1_999_999_999)
        system.utimens(fd, None, 7)
        assert (os.fstat(fd).st_atime_ns, os.fstat(fd).st_mtime_ns) == (-1, 7)
        system.utimens(fd, NOW, None)
        assert os.fstat(fd).st_atime_ns > 10**18
    finally:
        os.close(fd)


def test_statx_tells_the_time_of_birth(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    fd = os.open(path, os.O_PATH)
    found = system.statx(fd, 0, system.STATX_BTIME)
    os.close(fd)
    assert found.mask & system.STATX_BTIME
    assert abs(found.btime_ns - path.stat().st_ctime_ns) < 10**9


def test_access_is_refused_where_it_is_not_given(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch(0o600)
    fd = os.open(path, os.O_PATH)
    try:
        system.access(fd, os.R_OK)
        with error(errno.EACCES):
            system.access(fd, os.X_OK)
    finally:
        os.close(fd)


def test_a_folder_is_read_from_any_offset(folder: int, tmp_path: Path) -> None:
    for n in range(100):
        (tmp_path / f"a-rather-long-name-{n}").touch()
    buffer = bytearray(1024)
    total, offset = 0, 0
    while filled := system.getdents(folder, offset, buffer):
        total += filled
        offset = -1
    first = system.getdents(folder, 0, buffer)
    assert first < 1024 < total
    with error(errno.EINVAL):
        system.getdents(folder, 0, bytearray(8))
    with error(errno.ENOTDIR):
        system.getdents(os.memfd_create("x"), 0, buffer)


def test_the_kind_of_filesystem_is_told(folder: int) -> None:
    fd = os.memfd_create("x")
    assert system.filesystem_type(fd) == system.TMPFS_MAGIC
    os.close(fd)
    assert system.filesystem_type(folder) > 0
    system.syncfs(folder)


def test_this_kernel_knows_noappend() -> None:
    if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 9):
        assert system.has_noappend()


def in_a_thread(function: Callable[[], T]) -> T:
    """What the function returned in a thread of its own, whose ids and capabilities end with it."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def make(folder: int, name: str) -> int:
    """Makes a file, and returns its owner."""
    os.mknod(name, stat.S_IFREG, dir_fd=folder)
    return os.stat(name, dir_fd=folder).st_uid


@pytest.mark.root
def test_ids_are_those_of_one_thread(folder: int, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    def make_theirs() -> int:
        system.set_groups((4321, 4322))
        system.act_as(1234, 5678)
        assert sorted(groups_of_this_thread()) == [4321, 4322]
        assert not system.capabilities().effective & system.CAP_FSETID
        return make(folder, "theirs")

    assert in_a_thread(make_theirs) == 1234
    assert make(folder, "ours") == 0
    assert 4321 not in groups_of_this_thread()


def groups_of_this_thread() -> list[int]:
    for line in Path("/proc/thread-self/status").read_text().splitlines():
        if line.startswith("Groups:"):
            return [int(group) for group in line.split()[1:]]
    raise AssertionError


@pytest.mark.root
def test_capabilities_are_those_of_one_thread(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    path.chmod(0o4755)
    own = system.capabilities()

    def write() -> int:
        system.set_capabilities(own._replace(effective=own.effective & ~system.CAP_FSETID))
        with path.open("r+b") as file:
            file.write(b"y")
        return stat.S_IMODE(path.stat().st_mode)

    assert in_a_thread(write) == 0o755
    assert system.capabilities() == own


@pytest.mark.root
def test_the_capabilities_for_files_can_be_kept() -> None:
    own = system.capabilities()

    def act() -> tuple[object, object]:
        system.act_as(1234, 5678, own)
        kept = system.capabilities()
        system.act_as(0, 0)
        return kept, system.capabilities()

    assert in_a_thread(act) == (own, own)


@pytest.mark.root
def test_ids_that_cannot_be_are_refused() -> None:
    def act() -> int:
        with error(errno.EPERM) as caught:
            system.act_as(0xFFFFFFFF, 0)
        return caught.value.errno or 0

    assert in_a_thread(act) == errno.EPERM
