"""mknod(2), mkfifo(3), and what the objects they make are good for."""

import errno
import os
import socket
import stat
from pathlib import Path

from mount.posix import kinds
from mount.posix.each import each
from mount.posix.expect import age, changed, mode_of, opened, refused, times
from mount.posix.kinds import Kind, make, make_folder
from mount.posix.syscalls import AT_FDCWD, mknodat
from mount.posix.users import alice, bob

FILE_LIKE = [Kind.FILE, *kinds.NODES]


@each("kind", FILE_LIKE)
def test_a_new_object_is_its_makers(folder: Path, kind: Kind) -> None:
    device = kinds.DEVICE if kind in (Kind.CHARACTER, Kind.BLOCK) else 0
    mknodat(AT_FDCWD, folder / "x", kind.value | 0o640, device)
    found = os.stat(folder / "x")
    assert found.st_mode == kind.value | 0o640
    assert (found.st_uid, found.st_gid, found.st_nlink, found.st_size) == (0, 0, 1, 0)
    assert found.st_rdev == device


@each("kind", [Kind.FILE, Kind.FIFO, Kind.SOCKET])
def test_a_user_may_make_what_is_no_device(folder: Path, kind: Kind) -> None:
    alice(mknodat, AT_FDCWD, folder / "x", kind.value | 0o600)
    found = os.stat(folder / "x")
    assert (found.st_mode, found.st_uid, found.st_gid) == (kind.value | 0o600, alice.uid, alice.gid)


@each("kind", [Kind.CHARACTER, Kind.BLOCK])
def test_a_user_may_not_make_a_device(folder: Path, kind: Kind) -> None:
    with refused(errno.EPERM):
        alice(mknodat, AT_FDCWD, folder / "x", kind.value | 0o600, kinds.DEVICE)


def test_a_whiteout_is_no_device(folder: Path) -> None:
    alice(mknodat, AT_FDCWD, folder / "x", stat.S_IFCHR, 0)
    assert os.stat(folder / "x").st_rdev == 0


@each(("major", "minor"), [(1, 3), (255, 255), (4095, 0xFFFFF)])
def test_large_device_numbers_are_kept(folder: Path, major: int, minor: int) -> None:
    mknodat(AT_FDCWD, folder / "x", stat.S_IFBLK | 0o600, os.makedev(major, minor))
    assert os.stat(folder / "x").st_rdev == os.makedev(major, minor)


@each("kind", FILE_LIKE)
def test_every_bit_of_the_mode_is_taken(folder: Path, kind: Kind) -> None:
    before = os.umask(0)
    try:
        for mode in (0, 0o7777, 0o4711):
            mknodat(AT_FDCWD, folder / oct(mode), kind.value | mode, kinds.DEVICE)
            assert mode_of(folder / oct(mode)) == mode
    finally:
        os.umask(before)


def test_no_type_means_a_file(folder: Path) -> None:
    mknodat(AT_FDCWD, folder / "x", 0o600)
    assert stat.S_ISREG(os.stat(folder / "x").st_mode)


def test_it_makes_no_folders_and_no_links(folder: Path) -> None:
    with refused(errno.EPERM):
        mknodat(AT_FDCWD, folder / "x", stat.S_IFDIR | 0o700)
    with refused(errno.EINVAL):
        mknodat(AT_FDCWD, folder / "x", stat.S_IFLNK | 0o700)


@each("kind", kinds.ALL)
def test_the_name_must_be_free(folder: Path, kind: Kind) -> None:
    make(kind, folder / "x")
    for made in FILE_LIKE:
        with refused(errno.EEXIST):
            mknodat(AT_FDCWD, folder / "x", made.value | 0o600, kinds.DEVICE)


@each("kind", [Kind.FILE, Kind.FIFO, Kind.SOCKET])
def test_the_folder_must_be_writable(folder: Path, kind: Kind) -> None:
    closed = make_folder(folder / "closed")
    with refused(errno.EACCES):
        alice(mknodat, AT_FDCWD, closed / "x", kind.value | 0o600)


@each("kind", FILE_LIKE)
def test_the_folder_must_not_be_removed(folder: Path, kind: Kind) -> None:
    inner = make_folder(folder / "inner")
    with opened(inner, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rmdir(inner)
        with refused(errno.ENOENT):
            mknodat(fd, "x", kind.value | 0o600, kinds.DEVICE)


@each("kind", FILE_LIKE)
def test_times_change_of_the_folder_around(folder: Path, kind: Kind) -> None:
    before = age(folder)
    make(kind, folder / "x")
    assert changed(folder, before) == "mc"


def test_a_new_objects_times_are_all_the_same(folder: Path) -> None:
    os.mkfifo(folder / "x")
    made = times(folder / "x")
    assert made.a == made.m == made.c


# --- fifos -----------------------------------------------------------------------------------------------------------


def test_a_fifo_carries_bytes_between_processes(folder: Path) -> None:
    fifo = folder / "fifo"
    os.mkfifo(fifo, 0o666)
    os.chmod(fifo, 0o666)
    reading = alice.start(fifo.read_bytes)
    bob(fifo.write_bytes, b"through the pipe" * 1000)
    assert reading.result() == b"through the pipe" * 1000
    assert os.stat(fifo).st_size == 0


def test_nobody_reads_the_fifo(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    with refused(errno.ENXIO):
        os.open(folder / "fifo", os.O_WRONLY | os.O_NONBLOCK)
    with opened(folder / "fifo", os.O_RDONLY | os.O_NONBLOCK) as reader:
        with opened(folder / "fifo", os.O_WRONLY | os.O_NONBLOCK) as writer:
            os.write(writer, b"x")
        assert os.read(reader, 10) == b"x"
        assert os.read(reader, 10) == b""


def test_a_fifo_has_no_place_and_no_length(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    with opened(folder / "fifo", os.O_RDWR) as fd:
        with refused(errno.ESPIPE):
            os.lseek(fd, 0, os.SEEK_SET)
        with refused(errno.ESPIPE):
            os.pread(fd, 1, 0)
        with refused(errno.EINVAL):
            os.ftruncate(fd, 0)
    with refused(errno.EINVAL):
        os.truncate(folder / "fifo", 0)


def test_a_fifos_mode_counts(folder: Path) -> None:
    fifo = make(Kind.FIFO, folder / "fifo", 0o604)
    with refused(errno.EACCES):
        alice(os.open, fifo, os.O_WRONLY | os.O_NONBLOCK)
    alice(lambda: os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)))


def test_a_fifo_works_after_its_name_is_gone(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    with opened(folder / "fifo", os.O_RDWR) as fd:
        os.unlink(folder / "fifo")
        os.write(fd, b"x")
        assert os.read(fd, 10) == b"x"


# --- sockets ---------------------------------------------------------------------------------------------------------


def test_a_socket_is_reached_by_its_name(folder: Path) -> None:
    with (
        opened(folder, os.O_RDONLY) as fd,
        socket.socket(socket.AF_UNIX) as server,
        socket.socket(socket.AF_UNIX) as client,
    ):
        address = f"/proc/self/fd/{fd}/socket"
        with refused(errno.ENOENT):
            client.connect(address)
        server.bind(address)
        assert stat.S_ISSOCK(os.stat(folder / "socket").st_mode)
        with refused(errno.ECONNREFUSED):
            client.connect(address)
        server.listen()
        client.connect(address)
        with refused(errno.EADDRINUSE), socket.socket(socket.AF_UNIX) as other:
            other.bind(address)


def test_a_socket_is_not_opened(folder: Path) -> None:
    make(Kind.SOCKET, folder / "socket")
    with refused(errno.ENXIO):
        os.open(folder / "socket", os.O_RDWR)


def test_connecting_needs_the_right_to_write(folder: Path) -> None:
    with opened(folder, os.O_RDONLY) as fd, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{fd}/socket")
        server.listen()
        os.chmod(folder / "socket", 0o755)

        def connect() -> None:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"/proc/self/fd/{fd}/socket")

        with refused(errno.EACCES):
            alice(connect)
        os.chmod(folder / "socket", 0o702)
        alice(connect)


# --- devices ---------------------------------------------------------------------------------------------------------


def test_a_device_node_leads_to_its_device(folder: Path) -> None:
    mknodat(AT_FDCWD, folder / "zero", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    with opened(folder / "zero") as fd:
        assert os.read(fd, 5) == bytes(5)
    with refused(errno.EACCES):
        alice(os.open, folder / "zero", os.O_RDONLY)


@each("kind", [Kind.CHARACTER, Kind.BLOCK])
def test_no_driver_answers(folder: Path, kind: Kind) -> None:
    make(kind, folder / "x")
    with refused(errno.ENXIO):
        os.open(folder / "x", os.O_RDONLY)
