"""Invalidations on their way to the kernel: merged by node, several nodes at a time.

Writing one may block: INVAL_ENTRY takes the folder's lock (fuse_reverse_inval_entry), which a LOOKUP in flight holds,
and INVAL_INODE waits for pages under read. Exactly that makes them right. What a request in flight was answered before
the change is in the kernel's caches by the time the lock is had, and is dropped; so first the names of a folder, then
its pages. And attributes that are asked for now are dropped when they come (attr_version in fuse_change_attributes).

One case is left: a node that a worker has just handed out, and that the kernel has no inode for yet. INVAL_INODE fails
with ENOENT, and is tried again for as long as the table has the node: either the inode comes, or the node goes.

Each node that is being waited for has a thread, so that it holds up no other.
"""

import errno
import heapq
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from ringmount.workers import codec
from ringmount.workers.abi import InvalEntryFlags

MOST_THREADS = 64
FIRST_DELAY, LONGEST_DELAY = 0.001, 1.0
"""Seconds between two tries for a node that the kernel does not have."""
PATIENCE = 60.0
"""Seconds after which it is believed that the kernel never will."""

ATTRIBUTES = -1
"""Of INVAL_INODE, in place of an offset: attributes alone."""
EVERYTHING = 0

Write = Callable[[bytes], int]
"""Writes a notification; 0 or an errno."""


class Stale:
    """What is to be dropped about a node."""

    __slots__ = ("delay", "names", "offset", "until")

    def __init__(self) -> None:
        self.names: dict[bytes, bool] = {}
        """Names in it, and whether asking again for them is enough (EXPIRE_ONLY)."""
        self.offset = ATTRIBUTES
        self.delay = FIRST_DELAY
        self.until = 0.0
        """Until when it is tried again (time.monotonic); 0 before the first try."""


class Invalidations:
    """Those that wait, oldest node first, and the threads that write them. `is_live`: whether the table has a node."""

    def __init__(self, write: Write, is_live: Callable[[int], bool]) -> None:
        self._write = write
        self._is_live = is_live
        self._waiting: OrderedDict[int, Stale] = OrderedDict()
        self._busy: dict[int, Stale | None] = {}
        """Nodes that are being written about, and what came for them meanwhile."""
        self._missing: dict[int, Stale] = {}
        self._tries: list[tuple[float, int]] = []
        """When to try again for which node of `_missing`; a heap."""
        self._changed = threading.Condition()
        self._idle = self._threads = 0

    def put(self, node: int, offset: int, name: bytes | None = None, expire_only: bool = False) -> None:
        """Adds what is to be dropped about a node to what waits already. Never blocks for long."""
        with self._changed:
            stale = self._of(node)
            stale.offset = max(stale.offset, offset)
            stale.delay, stale.until = FIRST_DELAY, 0.0
            if name is not None:
                stale.names[name] = expire_only and stale.names.get(name, True)
            if self._idle:
                self._changed.notify()
            elif self._threads < MOST_THREADS:
                self._threads += 1
                threading.Thread(target=self._run, daemon=True).start()

    def _of(self, node: int) -> Stale:
        """Where to add what is to be dropped about a node."""
        if node in self._busy:
            later = self._busy[node] = self._busy[node] or Stale()
            return later
        return self._waiting.setdefault(node, Stale())

    def _run(self) -> None:
        try:
            while True:
                self._turn()
        finally:
            os._exit(1)  # the supervisor starts another watcher, which drops everything

    def _turn(self) -> None:
        with self._changed:
            node, stale = self._take()
            self._busy[node] = None
        error = self._drop(node, stale)
        with self._changed:
            later = self._busy.pop(node)
            if later is not None:
                self._waiting[node] = later
            if error == errno.ENOENT and self._is_live(node):
                self._try_again(node, stale, time.monotonic())

    def _take(self) -> tuple[int, Stale]:
        self._take_due()
        while not self._waiting:
            self._idle += 1
            self._changed.wait(max(0.0, self._tries[0][0] - time.monotonic()) if self._tries else None)
            self._idle -= 1
            self._take_due()
        return self._waiting.popitem(last=False)

    def _drop(self, node: int, stale: Stale) -> int:
        """Names first: see above. Returns how it went with the node itself."""
        for name, expire_only in stale.names.items():
            flags = int(InvalEntryFlags.EXPIRE_ONLY) if expire_only else 0
            self._write(codec.notify_inval_entry(node, name, flags))
        stale.names.clear()
        return self._write(codec.notify_inval_inode(node, stale.offset, 0))

    def _try_again(self, node: int, stale: Stale, now: float) -> None:
        stale.until = stale.until or now + PATIENCE
        if now >= stale.until:
            return
        known = self._missing.get(node)
        if known is not None:
            known.offset = max(known.offset, stale.offset)
            return
        self._missing[node] = stale
        heapq.heappush(self._tries, (now + stale.delay, node))
        stale.delay = min(2 * stale.delay, LONGEST_DELAY)

    def _take_due(self) -> None:
        while self._tries and self._tries[0][0] <= time.monotonic():
            _, node = heapq.heappop(self._tries)
            stale = self._missing.pop(node)
            if node in self._busy or node in self._waiting:
                waiting = self._of(node)
                waiting.offset = max(waiting.offset, stale.offset)
            else:
                self._waiting[node] = stale
