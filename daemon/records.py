"""The records of traced requests, read from an arena that another process writes (native/trace.c).

The rule: the descriptor may be of another user's making. It is read, never mapped, and what it says is checked.
"""

import os
import stat
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ringmount.workers._native import lib
from ringmount.workers.arena import TRACE_SIZE, ArenaError, Layout

RECORD = struct.Struct("<5QIIIiII16s104s")  # struct rm_trace_record
NEXT = struct.Struct("<Q")
HEAD = 64
KEPT: int = lib.RM_TRACE_RECORDS
MARGIN = 8
"""Of the oldest records, those that may be overwritten while they are copied."""
assert HEAD + KEPT * RECORD.size == TRACE_SIZE


class Record(NamedTuple):
    """An answered request. Times in nanoseconds, `delivered` of CLOCK_MONOTONIC; `error` is 0 or an errno."""

    worker: int
    delivered: int
    took: int
    unique: int
    nodeid: int
    offset: int
    opcode: int
    pid: int
    uid: int
    error: int
    size: int
    names: tuple[bytes, ...]
    command: bytes


class Records:
    """Reads what is new. Raises ArenaError, OSError."""

    def __init__(self, fd: int, since: Sequence[int]) -> None:
        """`since`: by worker, the number of its first record of interest."""
        # What a memory file is called; a file that makes its reader wait has another name.
        if not stat.S_ISREG(os.fstat(fd).st_mode) or not os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:"):
            raise ArenaError("this is not an arena of ringmount")
        self._fd = fd
        layout = Layout.read(fd)
        self._start = layout.where["trace"][0]
        self._seen = [*since, *[0] * layout.workers][: layout.workers]
        self.lost = 0
        """Records that were overwritten before they were read."""

    def read(self) -> list[Record]:
        """Those since the last call, in the order in which they were answered."""
        found = [record for worker in range(len(self._seen)) for record in self._of(worker)]
        return sorted(found, key=lambda record: record.delivered + record.took)

    def _of(self, worker: int) -> Iterator[Record]:
        at = self._start + worker * TRACE_SIZE
        first, last = self._seen[worker], self._next(at)
        if last <= first:
            return
        self._seen[worker] = last
        begin = max(first, last - KEPT)
        raw = self._copy(at + HEAD, begin, last)
        whole = max(begin, self._next(at) - KEPT + MARGIN)
        self.lost += min(whole, last) - first
        for fields in RECORD.iter_unpack(raw[(whole - begin) * RECORD.size :]):
            yield _record(worker, fields)

    def _next(self, at: int) -> int:
        raw = os.pread(self._fd, NEXT.size, at)
        if len(raw) < NEXT.size:
            raise ArenaError("the arena was cut short")
        return int(NEXT.unpack(raw)[0])

    def _copy(self, at: int, begin: int, end: int) -> bytes:
        """The records `begin` to `end`, of which there are no more than the ring has."""
        first, count = begin % KEPT, end - begin
        to_end = min(count, KEPT - first)
        raw = os.pread(self._fd, to_end * RECORD.size, at + first * RECORD.size)
        raw += os.pread(self._fd, (count - to_end) * RECORD.size, at)
        return raw[: len(raw) // RECORD.size * RECORD.size]


def _record(worker: int, fields: tuple[int, int, int, int, int, int, int, int, int, int, int, bytes, bytes]) -> Record:
    delivered, took, unique, nodeid, offset, opcode, pid, uid, error, size, named, command, name = fields
    names = tuple(name[: min(named, len(name))].split(b"\0")) if named else ()
    names = names[:-1] if names and names[-1] == b"" else names
    return Record(
        worker, delivered, took, unique, nodeid, offset, opcode, pid, uid, -error, size, names, command.rstrip(b"\0")
    )
