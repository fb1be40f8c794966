"""The table of nodes in shared memory: what a node is, and how often the kernel refers to it.

One table serves all processes of a mount; `native/nodes.c` keeps it, with locks and repair, and says why nothing
is lost when a process dies inside. This module gives it the shape of `ringmount.workers.api.Nodes`.

Rule for a change here: one crossing into C per call, because every LOOKUP comes through `take`.
"""

import errno
import os
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import msgspec

from ringmount.workers._native import ffi, lib
from ringmount.workers.api import NodeId

MOST_BYTES = 1024
"""Key and value of a node together."""

DEFAULT_CAPACITY = 1 << 22
"""Slots of 128 bytes, which cost memory when they are used. A node takes one for up to 80 bytes of key and value."""

_ITERATE = 1024


class NodeStats(msgspec.Struct, frozen=True):
    """Numbers of a table: slots, nodes (the root among them), slots that take memory, references given back that
    had never been taken, shards repaired after the death of a process inside."""

    capacity: int
    live: int
    used: int
    anomalies: int
    repairs: int


def size(capacity: int = DEFAULT_CAPACITY) -> int:
    """Bytes of a table of `capacity` slots, rounded up to a power of two."""
    return int(lib.rm_nodes_size(capacity))


INTENT: ContextVar[Any] = ContextVar("intent", default=ffi.NULL)
"""Where `take` notes its reference unless told otherwise: the engine points it to the journal of the request whose
handler runs in this context (thread, coroutine); NULL for none."""


def _new_room() -> tuple[Any, Any, Any]:
    """Where C puts an answer: bytes, a view of them, a number."""
    room = ffi.new("char[]", MOST_BYTES)
    return room, ffi.buffer(room), ffi.new("uint64_t *")


def _error(result: int) -> OSError:
    return OSError(-result, os.strerror(-result))


class NodeTable:
    """The table at `address`, `size` bytes long, as worker number `worker` sees it (`ringmount.workers.api.Nodes`).

    `create`: make it, in zeroed memory. Otherwise OSError EINVAL if there is none of this size, EPROTONOSUPPORT if
    another version of ringmount made it.
    """

    def __init__(self, address: int, size: int, worker: int, *, create: bool = False) -> None:
        self._base = ffi.cast("void *", address)
        self._worker = worker
        self._rooms = [_new_room()]
        self.departed: list[tuple[NodeId, int]] = []
        """Nodes that went away in `give_back` or `settle` though workers watch them, and bit n % 64 for each such
        worker n: whoever called must see that they are told, and empty the list."""
        self._check(lib.rm_nodes_create(self._base, size) if create else lib.rm_nodes_open(self._base, size))

    def _check(self, result: int) -> int:
        if result < 0:
            raise _error(result)
        return result

    def _take_room(self) -> tuple[Any, Any, Any]:
        """A room for one call: other threads run while one is in C. (A pool is quicker than threading.local.)"""
        try:
            return self._rooms.pop()
        except IndexError:
            return _new_room()

    # --- what filesystems use (api.Nodes) ---------------------------------------------------------

    def take(self, key: bytes, value: bytes, intent: Any = None) -> NodeId:
        """The node of `key`, made with `value` if there is none, with one more reference.

        `intent`: the address (a cffi `uint64_t *`) of two words in the journal that say at every instant whether this
        reference was counted, for `settle`; INTENT's if it is not given. Raises OSError ENFILE, or ENAMETOOLONG
        above 1024 bytes.
        """
        words = INTENT.get() if intent is None else intent
        node: NodeId = lib.rm_nodes_take(self._base, key, len(key), value, len(value), words)
        if node < 0:
            raise _error(node)
        return node

    def find(self, key: bytes) -> NodeId | None:
        """The live node of `key`, without taking a reference."""
        return lib.rm_nodes_find(self._base, key, len(key)) or None

    def value(self, node: NodeId) -> bytes:
        """The node's value. OSError ESTALE if the node is not known."""
        room = buffer, view, _ = self._take_room()
        length = lib.rm_nodes_value(self._base, node, buffer, MOST_BYTES)
        value: bytes = view[: max(length, 0)]
        self._rooms.append(room)
        if length < 0:
            raise _error(length)
        return value

    def key(self, node: NodeId) -> bytes | None:
        """The node's key, if it has one. OSError ESTALE if the node is not known."""
        room = buffer, view, _ = self._take_room()
        length = lib.rm_nodes_key(self._base, node, buffer, MOST_BYTES)
        key: bytes = view[: max(length, 0)]
        self._rooms.append(room)
        if length == -errno.ENODATA:
            return None
        self._check(length)
        return key

    def replace(self, node: NodeId, value: bytes) -> None:
        """Gives the node another value. OSError ESTALE, ENOSPC or ENAMETOOLONG."""
        self._check(lib.rm_nodes_replace(self._base, node, value, len(value)))

    def rekey(self, node: NodeId, key: bytes | None) -> None:
        """Gives the node another key, or none. OSError ESTALE, EEXIST, ENOSPC or ENAMETOOLONG."""
        length = -1 if key is None else len(key)
        self._check(lib.rm_nodes_rekey(self._base, node, key or b"", length))

    def watch(self, node: NodeId) -> None:
        """Asks that this worker be told when the node goes. OSError ESTALE."""
        self._check(lib.rm_nodes_watch(self._base, node, self._worker))

    def give_back(self, node: NodeId, count: int = 1) -> bool:
        """Drops `count` references; True if the node went away. The root stays. OSError ESTALE."""
        room = _, _, watchers = self._take_room()
        gone = lib.rm_nodes_forget(self._base, node, count, watchers)
        if gone == 1:
            self._note_departed(node, watchers[0])
        self._rooms.append(room)
        return bool(self._check(gone))

    def _note_departed(self, node: NodeId, watchers: int) -> None:
        others = watchers & ~(1 << self._worker % 64)
        if others:
            self.departed.append((node, others))

    # --- what the supervisor and successors use ---------------------------------------------------

    def forget_batch(self, pairs: bytes | bytearray | memoryview) -> tuple[int, list[tuple[NodeId, int]]]:
        """Gives back references as BATCH_FORGET brings them: pairs of 64-bit numbers, nodeid and count.

        Returns how many pairs were done (call again with the rest if a lock was not to be had within about 10 ms), and
        the nodes that went away while workers watch them, each with bit n % 64 for worker n.
        """
        words = ffi.from_buffer("uint64_t[]", pairs)
        n = len(words) // 2
        gone, watchers = ffi.new("uint64_t[]", n), ffi.new("uint64_t[]", n)
        n_gone = ffi.new("int *")
        done = lib.rm_nodes_forget_batch(self._base, words, n, gone, watchers, n_gone)
        return done, [(gone[i], watchers[i]) for i in range(n_gone[0])]

    def settle(self, intent: Any) -> bool:
        """Gives back what a dead process had counted under `intent` (see `take`), exactly once, and clears it.

        True if the node went away. OSError EAGAIN if a lock was not to be had within about 10 ms.
        """
        watchers, node = ffi.new("uint64_t *"), intent[0]
        gone = self._check(lib.rm_nodes_settle(self._base, intent, watchers))
        if gone:
            self._note_departed(node, watchers[0])
        return bool(gone)

    def settle_listing(self, journal: Any, payload: Any, room: int) -> None:
        """Gives back what a dead process had counted for the READDIRPLUS reply in `payload` (native/listing.cdef).

        Each reference exactly once, however often this is interrupted by death. OSError EAGAIN as `settle`.
        """
        node, watchers = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        while self._check(lib.rm_listing_settle(self._base, journal, payload, room, node, watchers)):
            if watchers[0]:
                self._note_departed(node[0], watchers[0])

    def recover(self, pid: int | None = None) -> int:
        """Puts right what the dead process `pid` left, and returns the number of shards it was in.

        To be called when a worker has been reaped. None: what any process left; only while no other uses the table.
        OSError EAGAIN if a stopped process is in the middle of the same.
        """
        return self._check(lib.rm_nodes_recover(self._base, pid or 0))

    def iterate(self) -> Iterator[tuple[NodeId, int]]:
        """All nodes and their counts, each as of the instant it is read. Takes no lock."""
        cursor = ffi.new("uint32_t *")
        nodes, counts = ffi.new("uint64_t[]", _ITERATE), ffi.new("uint64_t[]", _ITERATE)
        while n := lib.rm_nodes_iterate(self._base, cursor, nodes, counts, _ITERATE):
            yield from zip(ffi.unpack(nodes, n), ffi.unpack(counts, n), strict=True)

    def stats(self) -> NodeStats:
        """The table's numbers. Takes no lock."""
        stats = ffi.new("struct rm_nodes_stats *")
        lib.rm_nodes_stats(self._base, stats)
        return NodeStats(stats.capacity, stats.live, stats.used, stats.anomalies, stats.repairs)

    def verify(self) -> None:
        """For tests: walks everything with all locks held. Raises AssertionError with what is wrong."""
        message = ffi.new("char[]", 200)
        if lib.rm_nodes_verify(self._base, message, len(message)):
            raise AssertionError(ffi.string(message).decode())
