"""The arena: one memfd, mapped at the same address in every process of a mount, in every generation.

The kernel reads a reply through the entry's *virtual addresses in the process that commits it*
(fuse_uring_commit in the kernel), so a successor can answer for a dead worker only if it sees the buffers at
the addresses that its predecessor registered. Hence one fixed address, one layout, one version number.

The layout is `SECTIONS`, in order; the records inside are C structs (native/arena.h), whose fields are
found by name through cffi. Every change to either is a new RM_ARENA_VERSION. A memfd is sparse: what a
section reserves costs memory only where it was touched.
"""

import mmap
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ringmount.workers import handles, nodes
from ringmount.workers._native import ffi, lib
from ringmount.workers.handles import HandleTable
from ringmount.workers.nodes import NodeTable

ADDRESS = 0x6000_0000_0000
"""Far from where the kernel, the loader and malloc put things on x86-64 and arm64 with 47 address bits."""

MAGIC = b"RINGARNA"
PAGE = 4096
HUGE = 1 << 21
SESSION_SIZE = 16 * PAGE
FD_OWNERS = 1 << 20
MOST_CPUS = 1 << 16

SECTIONS = (
    "header",  # magic, version, what the plan said, where the sections are
    "session",  # what was negotiated with the kernel, as JSON: a successor gets no second INIT
    "queues",  # by queue: first entry, number of entries, worker
    "workers",  # struct rm_worker, one a worker: heartbeat, counters, latency histograms
    "journal",  # struct rm_journal, one an entry: the request in flight
    "fd_owners",  # by descriptor: 1 + the worker that keeps it for itself (policy `shared`)
    "handles",  # open files: handles.c
    "given",  # what the kernel has of folders: given.c
    "trace",  # struct rm_trace, one a worker: requests that were answered while somebody looked on
    "opens",  # nodes with open files, where the kernel may pass contents through: opens.c
    "nodes",  # what the kernel refers to: nodes.c
    "entries",  # by entry: a page for the ring's headers, then the payload
)

COUNTS_AT = PAGE // 2
"""Where the header's page has the supervisor's counters, 64 bits each: zeros in an arena that was made without them."""

HEADER = struct.Struct("<8sIIQQIIII")  # magic version sections total payload entries queues workers reserved
SECTION = struct.Struct("<QQ")  # offset size
QUEUE = struct.Struct("<IIII")  # first entry, entries, worker, reserved

JOURNAL_SIZE = ffi.sizeof("struct rm_journal")
WORKER_SIZE = ffi.sizeof("struct rm_worker")
TRACE_SIZE = ffi.sizeof("struct rm_trace")
ENTRY_PAGE: int = lib.RM_ENTRY_PAGE
VERSION: int = lib.RM_ARENA_VERSION


class ArenaError(Exception):
    """An arena that this version cannot use; the text says why."""


@dataclass(frozen=True)
class Plan:
    """What a mount needs, from which the layout follows.

    `depths`: by queue (one per *possible* CPU), the number of entries; `owners`: by queue, the worker
    that serves it; `payload`: bytes per entry, at least max(8192, max_write) (fuse_uring_create).
    """

    depths: tuple[int, ...]
    owners: tuple[int, ...]
    workers: int
    payload: int
    nodes: int
    handles: int

    @property
    def entries(self) -> int:
        """The number of entries of all queues."""
        return sum(self.depths)

    @property
    def buffer_bytes(self) -> int:
        """What the rings' buffers take when all are in use: this is what the mount's cap is about."""
        return self.entries * (ENTRY_PAGE + self.payload)

    def sizes(self) -> dict[str, int]:
        """Bytes of each section, before rounding to pages."""
        return {
            "header": PAGE,
            "session": SESSION_SIZE,
            "queues": QUEUE.size * len(self.depths),
            "workers": WORKER_SIZE * self.workers,
            "journal": JOURNAL_SIZE * self.entries,
            "fd_owners": 2 * FD_OWNERS,
            "handles": handles.size(self.handles),
            "given": int(lib.rm_given_size()),
            "trace": TRACE_SIZE * self.workers,
            "opens": nodes.size(self.handles),
            "nodes": nodes.size(self.nodes),
            "entries": self.buffer_bytes,
        }


def payload_size(max_write: int) -> int:
    """Bytes of an entry's payload for a mount's max_write: what fuse_uring_create asks for, in whole pages."""
    return max(2 * PAGE, (max_write + PAGE - 1) // PAGE * PAGE)


def _offsets(sizes: dict[str, int]) -> tuple[dict[str, tuple[int, int]], int]:
    where: dict[str, tuple[int, int]] = {}
    at = 0
    for name in SECTIONS:
        alignment = HUGE if name in ("entries", "nodes", "opens") else PAGE
        at = (at + alignment - 1) // alignment * alignment
        where[name] = (at, sizes[name])
        at += sizes[name]
    return where, (at + PAGE - 1) // PAGE * PAGE


@dataclass(frozen=True)
class Layout:
    """What an arena's header says, checked: no offset, size or number in it leads out of the arena."""

    size: int
    payload: int
    entries: int
    workers: int
    where: dict[str, tuple[int, int]]
    """By section, its offset and its size."""
    queues: tuple[tuple[int, int, int], ...]
    """By queue: its first entry, how many, and the worker."""

    @classmethod
    def read(cls, fd: int) -> "Layout":
        """Of an arena that need not be mapped, from a descriptor that need not be one. Raises ArenaError, OSError."""
        size = os.fstat(fd).st_size
        header = os.pread(fd, PAGE, 0)
        if len(header) < PAGE:
            raise ArenaError("this is not an arena of ringmount, or it was cut short")
        magic, version, sections, total, payload, entries, queues, workers, _ = HEADER.unpack_from(header)
        if magic != MAGIC or total != size:
            raise ArenaError("this is not an arena of ringmount, or it was cut short")
        if version != VERSION or sections != len(SECTIONS):
            raise ArenaError(f"the arena has layout {version}, this ringmount knows layout {VERSION}")
        if max(queues, workers) > MOST_CPUS:
            raise ArenaError("the arena is damaged: its header")
        where = {name: SECTION.unpack_from(header, HEADER.size + SECTION.size * i) for i, name in enumerate(SECTIONS)}
        sizes = {
            "session": SESSION_SIZE,
            "queues": QUEUE.size * queues,
            "workers": WORKER_SIZE * workers,
            "journal": JOURNAL_SIZE * entries,
            "fd_owners": 2 * FD_OWNERS,
            "trace": TRACE_SIZE * workers,
            "entries": entries * (ENTRY_PAGE + payload),
        }
        end = 0
        for name, (offset, length) in where.items():
            if offset < end or offset % PAGE or offset + length > size or length != sizes.get(name, length):
                raise ArenaError(f"the arena is damaged: its section {name}")
            end = offset + length
        start = where["queues"][0]
        table = tuple(each[:3] for each in QUEUE.iter_unpack(os.pread(fd, QUEUE.size * queues, start)))
        if any(first + count > entries or worker >= workers for first, count, worker in table):
            raise ArenaError("the arena is damaged: its queues")
        return cls(size, payload, entries, workers, where, table)

    def session(self, fd: int) -> bytes:
        """See `Arena.session`."""
        data = os.pread(fd, SESSION_SIZE, self.where["session"][0])
        return _session_in(data)


class Arena:
    """A mapped arena. Made by `create` (supervisor), `attach` (its workers, and successors) or `look_into`."""

    def __init__(self, fd: int, layout: Layout, base: int = ADDRESS) -> None:
        self.fd = fd
        self.size = layout.size
        self._base = base
        self.view = memoryview(ffi.buffer(ffi.cast("char *", base), layout.size)).cast("B")
        self.payload = layout.payload
        self.entries = layout.entries
        self.workers = layout.workers
        self.queues = layout.queues
        self._where = layout.where
        self._memory: mmap.mmap | None = None
        self.c = ffi.new("struct rm_arena *")
        self.c.entries = ffi.cast("uint8_t *", self.address("entries"))
        self.c.payload = layout.payload
        self.c.journal = ffi.cast("struct rm_journal *", self.address("journal"))
        self.c.count = layout.entries
        self.c.traces = ffi.cast("struct rm_trace *", self.address("trace"))

    @classmethod
    def create(cls, plan: Plan, name: str) -> "Arena":
        """A new arena, mapped here and not inherited over fork (a fork would stall on the mapping's lock).

        Raises OSError: ENOMEM, or EEXIST when something else is at the address.
        """
        where, total = _offsets(plan.sizes())
        fd = os.memfd_create(f"ringmount-{name}", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, total)
            _map(fd, total, dontfork=True)
        except OSError:
            os.close(fd)
            raise
        view = memoryview(ffi.buffer(ffi.cast("char *", ADDRESS), total)).cast("B")
        for i, section in enumerate(SECTIONS):
            SECTION.pack_into(view, HEADER.size + SECTION.size * i, *where[section])
        first = 0
        journal = ffi.cast("struct rm_journal *", ADDRESS + where["journal"][0])
        for queue, (depth, owner) in enumerate(zip(plan.depths, plan.owners, strict=True)):
            QUEUE.pack_into(view, where["queues"][0] + QUEUE.size * queue, first, depth, owner, 0)
            for index in range(first, first + depth):
                journal[index].qid = queue
                journal[index].worker = owner
            first += depth
        for section, make in (("handles", HandleTable), ("opens", NodeTable), ("nodes", NodeTable)):
            offset, size = where[section]
            make(ADDRESS + offset, size, plan.workers, create=True)
        # The header last: an arena that was not finished is not taken for one.
        header = (VERSION, len(SECTIONS), total, plan.payload, plan.entries, len(plan.depths), plan.workers, 0)
        HEADER.pack_into(view, 0, MAGIC, *header)
        return cls(fd, Layout.read(fd))

    @classmethod
    def attach(cls, fd: int, dontfork: bool = True) -> "Arena":
        """Maps an arena that another process made. Raises OSError, or ArenaError for one that does not fit."""
        layout = Layout.read(fd)
        _map(fd, layout.size, dontfork)
        return cls(fd, layout)

    @classmethod
    def look_into(cls, fd: int) -> "Arena":
        """Maps it somewhere, to be read only: a write ends this process. Raises OSError, ArenaError.

        What it returns keeps no descriptor that can be written to, and `fd` is the caller's to close.
        """
        layout = Layout.read(fd)
        readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            memory = mmap.mmap(readable, layout.size, prot=mmap.PROT_READ)
        finally:
            os.close(readable)
        arena = cls(-1, layout, int(ffi.cast("uintptr_t", ffi.from_buffer(memory))))
        arena._memory = memory
        return arena

    def address(self, section: str) -> int:
        """Where a section starts, as a virtual address."""
        return self._base + self._where[section][0]

    def section(self, section: str) -> memoryview:
        """A section's bytes."""
        offset, size = self._where[section]
        return self.view[offset : offset + size]

    def section_size(self, section: str) -> int:
        """A section's size in bytes."""
        return self._where[section][1]

    def journal(self, index: int) -> memoryview:
        """Entry `index`'s journal record."""
        return self.section("journal")[JOURNAL_SIZE * index : JOURNAL_SIZE * (index + 1)]

    def page(self, index: int) -> memoryview:
        """Entry `index`'s page: the ring's headers, and the saved start of the payload."""
        at = self._where["entries"][0] + index * (ENTRY_PAGE + self.payload)
        return self.view[at : at + ENTRY_PAGE]

    def payload_view(self, index: int) -> memoryview:
        """Entry `index`'s payload buffer."""
        at = self._where["entries"][0] + index * (ENTRY_PAGE + self.payload) + ENTRY_PAGE
        return self.view[at : at + self.payload]

    def payload_at(self, index: int) -> Any:
        """Entry `index`'s payload buffer, for C: a `uint8_t *`."""
        return self.c.entries + index * (ENTRY_PAGE + self.payload) + ENTRY_PAGE

    def worker(self, index: int) -> Any:
        """Worker `index`'s record, a `struct rm_worker *`."""
        return ffi.cast("struct rm_worker *", self.address("workers") + WORKER_SIZE * index)

    @property
    def counts(self) -> memoryview:
        """The supervisor's counters, 64 bits each."""
        return self.view[COUNTS_AT:PAGE].cast("Q")

    def entries_of(self, worker: int) -> Iterable[int]:
        """The entries of the queues that a worker serves."""
        for first, count, owner in self.queues:
            if owner == worker:
                yield from range(first, first + count)

    @property
    def session(self) -> bytes:
        """What `store_session` stored, b"" before."""
        return _session_in(bytes(self.section("session")))

    def store_session(self, data: bytes) -> None:
        """Stores what was negotiated. Raises ValueError when it does not fit."""
        if len(data) > SESSION_SIZE - 8:
            raise ValueError(f"{len(data)} bytes of session do not fit into {SESSION_SIZE - 8}")
        section = self.section("session")
        struct.pack_into("<Q", section, 0, 0)  # a successor takes all of it, or nothing
        section[8 : 8 + len(data)] = data
        struct.pack_into("<Q", section, 0, len(data))


def _session_in(section: bytes) -> bytes:
    (size,) = struct.unpack_from("<Q", section)
    return section[8 : 8 + size] if size <= SESSION_SIZE - 8 else b""


def _map(fd: int, size: int, dontfork: bool) -> None:
    error = lib.rm_map_shared(fd, ADDRESS, size, dontfork)
    if error:
        raise OSError(-error, f"mapping {size} bytes at {ADDRESS:#x}: {os.strerror(-error)}")


def machine_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
