"""A worker's ring, and its stand-in over /dev/fuse: both turn replies into events.

`turn(commits, wait)` hands over the entries that were answered and returns events, each a pair
(data, result). `data` below the number of entries is an entry to which a request was delivered
(result 0) or whose command failed (result -errno); above that it says what else happened (`MAIL` and so on).

The rule: a ring belongs to one thread of one process. It is made after the fork, and its descriptor
never exists (native/ring.c), because whoever else held it would keep a dead worker's entries alive.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from ringmount.workers import abi
from ringmount.workers._native import ffi, lib
from ringmount.workers.arena import Arena

IORING_SETUP_SUBMIT_ALL = 1 << 7
IORING_SETUP_COOP_TASKRUN = 1 << 8
IORING_SETUP_SINGLE_ISSUER = 1 << 12
IORING_SETUP_DEFER_TASKRUN = 1 << 13

IORING_OP_READ = 22
IORING_OP_WRITE = 23
IORING_OP_FSYNC = 3
IORING_OP_ASYNC_CANCEL = 14
IORING_FSYNC_DATASYNC = 1

MAIL = 1 << 63
"""The mailbox has something to read (device), or was read (ring: the result is the number of bytes)."""
DEVICE_ERROR = 1 << 62
"""Reading the cloned descriptor failed; the result says how."""
NOWHERE = 1 << 61
"""The answer to the REGISTER that `give_up` sends."""
IO = 1 << 60
"""Set in the data of ordinary operations; the low bits are their token."""

MAX_EVENTS = 256

# Plain task work reaches the arena sooner than deferred: fewer requests are lost to SIGKILL, at the same cost per
# request within noise. SINGLE_ISSUER lets the kernel skip locking.
RING_FLAGS = IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER


class Transport(Protocol):
    """What the engine needs of a ring or of a device."""

    wait_fds: tuple[int, ...]
    """Descriptors that become readable when `turn` has something to do (for an event loop); requests come by the
    first one."""

    def turn(self, commits: Sequence[int], wait: bool) -> Iterable[tuple[int, int]]:
        """Commits, waits if told to, returns events. Raises OSError; InterruptedError after a signal."""

    def io(self, opcode: int, fd: int, address: int, length: int, offset: int, flags: int, token: int) -> bool:
        """Queues an ordinary operation whose event has data IO | token; False where there is no ring."""

    def listen(self) -> None:
        """Asks for the mailbox's next message."""

    def has_room(self) -> bool:
        """Whether the first of `wait_fds` is worth watching: False while every entry holds a request."""

    def close(self) -> None:
        """Gives the queue back."""


def check(result: int, what: str) -> int:
    """A C function's result; raises OSError if it is negative."""
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result


class _Commits:
    """A C array that takes the indices of answered entries."""

    def __init__(self, size: int) -> None:
        self.array = ffi.new("uint32_t[]", max(1, size))
        self.view = memoryview(ffi.buffer(self.array)).cast("I")

    def fill(self, commits: Sequence[int]) -> int:
        for i, index in enumerate(commits):
            self.view[i] = index
        return len(commits)


class _Events:
    """A C array of events, read without an object for each."""

    def __init__(self) -> None:
        self.array = ffi.new("struct rm_event[]", MAX_EVENTS)
        self._unpack = struct.Struct("<QiI").iter_unpack
        self._view = memoryview(ffi.buffer(self.array)).cast("B")

    def first(self, count: int) -> Iterable[tuple[int, int]]:
        return [(data, res) for data, res, _ in self._unpack(self._view[: 16 * count])]


class Ring:
    """The FUSE-over-io_uring queues of one worker, on one io_uring. Raises OSError when there can be none."""

    def __init__(self, arena: Arena, worker: int, fuse_fd: int, mail_fd: int, with_eventfd: bool) -> None:
        entries = sum(1 for _ in arena.entries_of(worker))
        size = 1 << max(6, (2 * entries + 16 - 1).bit_length())
        self._eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) if with_eventfd else -1
        self.wait_fds: tuple[int, ...] = (self._eventfd,) if with_eventfd else ()
        error = ffi.new("int *")
        self._c = lib.rm_ring_new(size, RING_FLAGS, fuse_fd, self._eventfd, arena.c, arena.worker(worker), error)
        if not self._c:
            self.close()
            raise OSError(-error[0], f"io_uring_setup: {os.strerror(-error[0])}")
        self._arena = arena
        self._mail_fd = mail_fd
        self._mail = bytearray(1 << 16)
        self._mail_address = int(ffi.cast("uintptr_t", ffi.from_buffer(self._mail)))
        self._commits = _Commits(arena.entries)
        self._events = _Events()

    def register(self, indices: Iterable[int]) -> None:
        """Queues the entries' REGISTER commands; an event tells of each that fails, none of success."""
        for index in indices:
            check(lib.rm_register(self._c, index), "FUSE_IO_URING_CMD_REGISTER")

    def recommit(self, index: int) -> None:
        """Queues the commit of an entry answered before: ENOENT in its event says that it was taken already."""
        check(lib.rm_recommit(self._c, index), "FUSE_IO_URING_CMD_COMMIT_AND_FETCH")

    def has_room(self) -> bool:
        """True: the kernel delivers to free entries only."""
        return True

    def listen(self) -> None:
        """Reads the mailbox through the ring, so that one wait covers requests and mail."""
        self._io(IORING_OP_READ, self._mail_fd, self._mail_address, len(self._mail), 0, 0, MAIL)

    def mail(self, size: int) -> bytes:
        """The message that a MAIL event told of."""
        return bytes(self._mail[:size])

    def io(self, opcode: int, fd: int, address: int, length: int, offset: int, flags: int, token: int) -> bool:
        self._io(opcode, fd, address, length, offset, flags, IO | token)
        return True

    def _io(self, opcode: int, fd: int, address: int, length: int, offset: int, flags: int, data: int) -> None:
        check(lib.rm_io(self._c, opcode, fd, address, length, offset, flags, data), "io_uring")

    def turn(self, commits: Sequence[int], wait: bool) -> Iterable[tuple[int, int]]:
        if self._eventfd >= 0:
            try:
                os.eventfd_read(self._eventfd)
            except BlockingIOError:
                pass
        count = self._commits.fill(commits)
        got = lib.rm_turn(self._c, self._commits.array, count, wait, self._events.array, MAX_EVENTS)
        return self._events.first(check(got, "io_uring_enter"))

    def accelerate(self, fast: Any) -> None:
        """Lets a `struct rm_fast *` answer what it can, inside `turn`."""
        lib.rm_ring_accelerate(self._c, fast)

    def close(self) -> None:
        """Gives the queue back: the kernel withdraws the entries."""
        if self._c:
            lib.rm_ring_free(self._c)
            self._c = None
        if self._eventfd >= 0:
            os.close(self._eventfd)
            self._eventfd = -1


def clone(fuse_fd: int) -> int:
    """One more descriptor of the mount, with a processing queue of its own (FUSE_DEV_IOC_CLONE). Raises OSError."""
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, abi.FUSE_DEV_IOC_CLONE, struct.pack("<I", fuse_fd))
    except OSError:
        os.close(fd)
        raise
    return fd


class Device:
    """The same worker on a clone of the mount's /dev/fuse descriptor, which its predecessor may have used."""

    def __init__(self, arena: Arena, worker: int, clone_fd: int, mail_fd: int, free: Sequence[int]) -> None:
        """`free`: the entries to read requests into (those with a request of a predecessor's come later)."""
        self.fd = clone_fd
        sizes = ffi.new("uint16_t[]", lib.RM_OPCODES)
        for number, operation in abi.OPERATIONS.items():
            if number < lib.RM_OPCODES and operation.request is not None:
                sizes[number] = operation.request.size
        size = sum(1 for _ in arena.entries_of(worker))
        self._free = ffi.new("uint32_t[]", size)
        self._free[0 : len(free)] = list(free)
        self._c = lib.rm_device_new(self.fd, mail_fd, arena.c, arena.worker(worker), sizes, self._free, len(free), size)
        if not self._c:
            raise OSError(errno.ENOMEM, "no memory for the device's state")
        self._mail_fd = mail_fd
        self._commits = _Commits(arena.entries)
        self._events = _Events()
        self.files = file_ring(arena, worker, mail_fd)
        """A ring for operations on files: what waits for a disk holds up nothing else. None where there can be none."""
        self._under_way = 0
        self.wait_fds = (self.fd, mail_fd, *(self.files.wait_fds if self.files else ()))

    def listen(self) -> None:
        """Nothing to ask for: the mailbox is polled."""

    def mail(self, size: int) -> bytes:
        """The next message of the mailbox."""
        return os.read(self._mail_fd, 1 << 16)

    def io(self, opcode: int, fd: int, address: int, length: int, offset: int, flags: int, token: int) -> bool:
        if self.files is None:
            return False
        self._under_way += 1
        return self.files.io(opcode, fd, address, length, offset, flags, token)

    def reply(self, index: int) -> None:
        """Sends an answer that a predecessor left behind. Raises nothing: ENOENT says that it was sent."""
        lib.rm_device_reply(self._c, index)

    def unread(self) -> list[int]:
        """Entries, free to all appearances, with requests that a predecessor had just read when it was killed.

        Their journals say what they are from here on (recovery.leftovers).
        """
        found = ffi.new("uint32_t[]", len(self._free))
        return list(found[0 : lib.rm_device_unread(self._c, found)])

    def has_room(self) -> bool:
        """False while every entry holds a request: the descriptor is then readable to no end."""
        return bool(lib.rm_device_room(self._c))

    def release(self, index: int) -> None:
        """Makes an entry free whose request wants no reply (FORGET, INTERRUPT)."""
        lib.rm_device_release(self._c, index)

    def turn(self, commits: Sequence[int], wait: bool) -> Iterable[tuple[int, int]]:
        done = self._operations()
        wake_fd = self.files.wait_fds[0] if self.files and self._under_way else -1
        count, timeout = self._commits.fill(commits), -1 if wait and not done else 0
        got = lib.rm_device_turn(self._c, self._commits.array, count, timeout, wake_fd, self._events.array, MAX_EVENTS)
        return [*self._events.first(check(got, "/dev/fuse")), *done, *self._operations()]

    def _operations(self) -> Sequence[tuple[int, int]]:
        """Starts the operations that were queued; the events of those that are done."""
        if not (self.files and self._under_way):
            return ()
        done = list(self.files.turn((), False))
        self._under_way -= len(done)
        return done

    def accelerate(self, fast: Any) -> None:
        """Lets a `struct rm_fast *` answer what it can, inside `turn`."""
        lib.rm_device_accelerate(self._c, fast)

    def close(self) -> None:
        """Closes the clone: requests read but not answered end with ECONNABORTED."""
        if self._c:
            lib.rm_device_free(self._c)
            self._c = None
            os.close(self.fd)
            if self.files is not None:
                self.files.close()


def file_ring(arena: Arena, worker: int, mail_fd: int) -> Ring | None:
    """A ring that serves no queue, or None where there can be none."""
    try:
        return Ring(arena, worker, -1, mail_fd, with_eventfd=True)
    except OSError:
        return None


def probe() -> str | None:
    """None if this process may set up a ring of 128-byte entries with a private descriptor, else why not."""
    error = ffi.new("int *")
    arena = ffi.new("struct rm_arena *")
    worker = ffi.new("struct rm_worker *")
    ring = lib.rm_ring_new(8, RING_FLAGS, -1, -1, arena, worker, error)
    if not ring:
        return f"io_uring_setup: {os.strerror(-error[0])}"
    lib.rm_ring_free(ring)
    return None


def give_up(arena_fd: int, fuse_fd: int) -> int:
    """For a throw-away process: tells the kernel that the rings will not come. Returns 0 if it took that in.

    Any REGISTER that fails before all queues are registered turns the mount to /dev/fuse and wakes those who wait
    (fuse_uring_do_register's error path); the queue 0xffff exists nowhere.
    """
    arena = Arena.attach(arena_fd)
    error = ffi.new("int *")
    ring = lib.rm_ring_new(8, RING_FLAGS, fuse_fd, -1, arena.c, ffi.new("struct rm_worker *"), error)
    if not ring:
        return 1
    events = ffi.new("struct rm_event[]", 8)
    check(lib.rm_register_nowhere(ring, NOWHERE), "FUSE_IO_URING_CMD_REGISTER")
    got = lib.rm_turn(ring, ffi.NULL, 0, 1, events, 8)
    lib.rm_ring_free(ring)
    return 0 if got == 1 and events[0].data == NOWHERE else 1
