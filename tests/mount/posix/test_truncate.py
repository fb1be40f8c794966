"""truncate(2) and ftruncate(2). What happens to setuid is in test_privileges."""

import errno
import os
import resource
import signal
from pathlib import Path

from mount.posix.each import each
from mount.posix.expect import age, changed, may_be_refused, opened, refused
from mount.posix.kinds import Kind, make, make_file, make_folder
from mount.posix.users import alice

SIZES = [0, 1, 4095, 4096, 4097, 70_000, 1 << 20, 1_500_000]
either_way = each("way", ["path", "descriptor"])


def resize(path: Path, size: int, way: str) -> None:
    if way == "path":
        os.truncate(path, size)
    else:
        with opened(path, os.O_WRONLY) as fd:
            os.ftruncate(fd, size)


@either_way
def test_a_file_has_the_length_that_it_is_given(folder: Path, way: str) -> None:
    path = make_file(folder / "x", b"x" * 10_000)
    written = 10_000
    for size in [*SIZES, *reversed(SIZES)]:
        resize(path, size, way)
        written = min(written, size)
        assert os.stat(path).st_size == size
        assert path.read_bytes() == b"x" * written + bytes(size - written)


def test_what_was_cut_off_does_not_come_back(folder: Path) -> None:
    path = make_file(folder / "x", b"secret" * 2000)
    os.truncate(path, 5)
    os.truncate(path, 12_000)
    assert path.read_bytes() == b"secre" + bytes(11_995)
    with opened(path, os.O_WRONLY) as fd:
        os.ftruncate(fd, 3)
        os.pwrite(fd, b"end", 9_000)
    assert path.read_bytes() == b"sec" + bytes(8_997) + b"end"


def test_growing_takes_no_space(folder: Path) -> None:
    path = make_file(folder / "x")
    os.truncate(path, 1 << 40)
    found = os.stat(path)
    assert found.st_size == 1 << 40
    assert found.st_blocks == 0
    with opened(path, os.O_RDONLY) as fd:
        assert os.pread(fd, 10, (1 << 40) - 5) == bytes(5)


def test_shrinking_gives_space_back(folder: Path) -> None:
    path = make_file(folder / "x", b"x" * 100_000)
    with opened(path) as fd:
        os.fsync(fd)
        before = os.stat(path).st_blocks
        os.ftruncate(fd, 4096)
        os.fsync(fd)
    assert 8 <= os.stat(path).st_blocks < before


def test_the_place_of_an_open_file_stays(folder: Path) -> None:
    with opened(make_file(folder / "x", b"content")) as fd:
        os.read(fd, 6)
        os.ftruncate(fd, 2)
        assert os.lseek(fd, 0, os.SEEK_CUR) == 6
        os.write(fd, b"new")
        assert os.pread(fd, 100, 0) == b"co\0\0\0\0new"


def test_a_link_is_followed(folder: Path) -> None:
    make_file(folder / "x", b"content")
    os.symlink("x", folder / "link")
    os.truncate(folder / "link", 3)
    assert os.stat(folder / "x").st_size == 3
    assert os.lstat(folder / "link").st_size == 1


@either_way
@each("size", [3, 100])
def test_mtime_and_ctime_change_with_the_length(folder: Path, way: str, size: int) -> None:
    path = make_file(folder / "x", b"content")
    before = age(path)
    resize(path, size, way)
    assert changed(path, before) == "mc"


def test_ftruncate_changes_mtime_and_ctime_without_a_change_of_length(folder: Path) -> None:
    path = make_file(folder / "x", b"content")
    before = age(path)
    resize(path, 7, "descriptor")
    assert changed(path, before) == "mc"


def test_the_length_is_not_negative(folder: Path) -> None:
    with refused(errno.EINVAL):
        os.truncate(make_file(folder / "x"), -1)
    with opened(folder / "x") as fd, refused(errno.EINVAL):
        os.ftruncate(fd, -1)


def test_a_folder_has_no_length(folder: Path) -> None:
    with refused(errno.EISDIR):
        os.truncate(make_folder(folder / "inner"), 0)
    with opened(folder / "inner", os.O_RDONLY) as fd, refused(errno.EINVAL):
        os.ftruncate(fd, 0)


@each("kind", [Kind.FIFO, Kind.SOCKET, Kind.CHARACTER, Kind.BLOCK])
def test_what_holds_nothing_has_no_length(folder: Path, kind: Kind) -> None:
    with refused(errno.EINVAL):
        os.truncate(make(kind, folder / "x"), 0)


def test_the_right_to_write_is_needed(folder: Path) -> None:
    path = make_file(folder / "x", b"content", 0o644)
    with refused(errno.EACCES):
        alice(os.truncate, path, 0)
    with opened(path, os.O_RDONLY) as fd, refused(errno.EINVAL, errno.EBADF):
        os.ftruncate(fd, 0)
    os.chmod(path, 0o602)
    alice(os.truncate, path, 1)
    assert path.read_bytes() == b"c"


def test_a_descriptor_for_writing_suffices_whatever_the_mode_is_then(folder: Path) -> None:
    path = alice(make_file, folder / "x", b"content")

    def close_and_truncate() -> int:
        with opened(path) as fd:
            os.fchmod(fd, 0)
            os.ftruncate(fd, 2)
            return os.fstat(fd).st_size

    assert alice(close_and_truncate) == 2
    with refused(errno.EACCES):
        alice(os.truncate, path, 0)


def test_a_process_keeps_to_its_limit(folder: Path) -> None:
    path = alice(make_file, folder / "x", b"content")

    def grow() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        os.truncate(path, 1000)
        os.truncate(path, 1001)

    with refused(errno.EFBIG):
        alice.process(grow)
    assert os.stat(path).st_size == 1000


def test_there_is_a_largest_length(folder: Path) -> None:
    """Beyond what the filesystem can hold, ext4 says EFBIG and those that can hold anything take it."""
    with opened(make_file(folder / "x")) as fd:
        with may_be_refused(errno.EFBIG):
            os.ftruncate(fd, (1 << 63) - 1)
        assert os.fstat(fd).st_size in (0, (1 << 63) - 1)


def test_all_open_files_see_the_new_length(folder: Path) -> None:
    path = make_file(folder / "x", b"content")
    with opened(path) as one, opened(path) as two:
        os.read(two, 5)
        os.ftruncate(one, 3)
        assert os.read(two, 10) == b""
        assert os.lseek(two, 0, os.SEEK_END) == 3
        os.ftruncate(one, 8)
        assert os.pread(two, 10, 0) == b"con" + bytes(5)
