"""A FUSE connection without the rest of ringmount: mounted, INIT answered, and a ring of this process on it."""

import errno
import functools
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from process.dying import end_of, start

from ringmount.daemon import libc, machine, mounting
from ringmount.daemon.libc import MountFlags, UmountFlags
from ringmount.workers import abi, codec
from ringmount.workers._native import ffi, lib
from ringmount.workers.abi import InitFlags, Opcode
from ringmount.workers.api import Attr
from ringmount.workers.arena import Arena, Plan, payload_size
from ringmount.workers.ring import Ring

PATIENCE = 20
"""Seconds after which a test's process is killed."""
ROOT_ATTR = Attr(st_ino=1, st_mode=0o40755, st_nlink=2)


def alone(test: Callable[[Path], None]) -> Callable[[Path], None]:
    """Runs a test in a process of its own, which is killed when it hangs, and takes its mounts away."""

    @functools.wraps(test)
    def run(tmp_path: Path) -> None:
        def act() -> None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # pytest-timeout's is inherited
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)
            test(tmp_path)

        try:
            assert end_of(start(act)) == 0
        finally:
            for folder in tmp_path.glob("mnt*"):
                subprocess.run(["umount", "-l", str(folder)], capture_output=True, timeout=10, check=False)

    return run


class Connection:
    """A mount at `path`. `fd` is its /dev/fuse, `arena` has `depth` entries for each queue, all of worker 0."""

    def __init__(self, path: Path, *, depth: int = 4, max_write: int = 4096, payload: int | None = None) -> None:
        path.mkdir()
        self.path = path
        self.queues = machine.cpus().possible
        size = payload_size(max_write) if payload is None else payload
        self.arena = Arena.create(Plan((depth,) * self.queues, (0,) * self.queues, 1, size, 1024, 64), "ringtest")
        self.max_write = max_write
        self.fd = mounting.open_fuse()
        data = f"fd={self.fd},rootmode=40000,user_id=0,group_id=0,allow_other"
        libc.mount("ringtest", str(path), "fuse.ringtest", MountFlags(0), data)

    def answer_init(self, flags: InitFlags = InitFlags.OVER_IO_URING) -> None:
        """Answers INIT: from here on the kernel waits for the rings, if the flags say so."""
        header, _ = self.read_legacy()
        assert header.opcode == Opcode.INIT
        reply = bytearray(abi.FUSE_INIT_OUT.size)
        codec.encode_init_out(
            memoryview(reply),
            0,
            minor=abi.FUSE_KERNEL_MINOR_VERSION,
            max_readahead=self.max_write,
            flags=flags | InitFlags.INIT_EXT | InitFlags.MAX_PAGES | InitFlags.BIG_WRITES | InitFlags.ABORT_ERROR,
            max_background=64,
            congestion_threshold=48,
            max_write=self.max_write,
            max_pages=max(1, self.max_write // 4096),
        )
        self.reply_legacy(header.unique, bytes(reply))

    def unmount(self) -> None:
        """Takes the mount away, in a child: this process must never have to wait for itself."""
        flags = UmountFlags.DETACH | UmountFlags.NOFOLLOW
        assert end_of(start(lambda: libc.umount2(str(self.path), flags))) == 0

    def read_legacy(self) -> tuple[codec.Header, bytes]:
        """The next message on /dev/fuse."""
        assert select.select([self.fd], [], [], PATIENCE)[0]
        message = os.read(self.fd, max(abi.FUSE_MIN_READ_BUFFER, 80 + self.max_write))
        return codec.decode_header(message), message[abi.FUSE_IN_HEADER.size :]

    def reply_legacy(self, unique: int, body: bytes = b"", error: int = 0) -> None:
        head = bytearray(abi.FUSE_OUT_HEADER.size)
        codec.encode_out_header(memoryview(head), 0, unique, error, len(body))
        os.write(self.fd, bytes(head) + body)

    def attach(self) -> None:
        """Maps the arena in a child process, which does not inherit it."""
        self.arena = Arena.attach(self.arena.fd)

    def ring(self, *, with_eventfd: bool = False, mail_fd: int = -1) -> Ring:
        """A ring whose entries are not registered yet."""
        return Ring(self.arena, 0, self.fd, mail_fd, with_eventfd)

    def registered(self, **settings: Any) -> Ring:
        """A ring that the kernel delivers to."""
        ring = self.ring(**settings)
        ring.register(range(self.arena.entries))
        assert list(ring.turn([], False)) == []
        return ring

    def answer(self, index: int, data: bytes = b"", error: int = 0) -> int:
        """Makes an entry's answer complete, as the engine does; returns the entry, to be committed."""
        self.arena.payload_view(index)[: len(data)] = data
        journal = self.arena.c.journal[index]
        journal.error, journal.size = -error, len(data)
        journal.state = lib.RM_ANSWERED
        return index

    def opcode(self, index: int) -> int:
        """Of the request in an entry."""
        return int.from_bytes(bytes(self.arena.c.journal[index].header)[4:8], "little")

    def answer_anything(self, index: int) -> int:
        """Answers what stat(2) and statfs(2) of the root ask, and ENOSYS to the rest."""
        match self.opcode(index):
            case Opcode.GETATTR:
                return self.answer(index, attr_out())
            case Opcode.STATFS:
                return self.answer(index, bytes(abi.FUSE_STATFS_OUT.size))
            case _:
                return self.answer(index, error=errno.ENOSYS)

    def serve(self, ring: Ring, until: Callable[[], bool]) -> None:
        """Answers requests until the condition holds. It is looked at every tenth of a second at least."""
        answered: list[int] = []
        while not until():
            events = list(ring.turn(answered, False))
            answered = [self.answer_anything(data) for data, result in events if data < self.arena.entries]
            if not answered:
                select.select([], [], [], 0.005)
        ring.turn(answered, False)


def attr_out(attr: Attr = ROOT_ATTR) -> bytes:
    buffer = bytearray(abi.FUSE_ATTR_OUT.size)
    codec.encode_attr_out(memoryview(buffer), 0, attr)
    return bytes(buffer)


def is_private_ring_hidden() -> bool:
    """No io_uring among this process's descriptors."""
    names = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
    return not any("io_uring" in name for name in names)


@contextmanager
def alarm_handler() -> Iterator[None]:
    """SIGUSR1 is noted and nothing else."""
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, previous)


def address_of(view: memoryview) -> int:
    return int(ffi.cast("uintptr_t", ffi.from_buffer(view)))
