"""Invalidations on their way to the kernel: merged by node, several nodes at a time.

Writing one may block: INVAL_ENTRY takes the folder's lock (fuse_reverse_inval_entry), which a LOOKUP in flight holds,
and INVAL_INODE waits for pages under read. Exactly that makes them right. What a request in flight was answered
before the change is in the kernel's caches by the time the lock is had, and is dropped; so first the names of a
folder, then its pages. And attributes that are asked for now are dropped when they come (attr_version in
fuse_change_attributes).

One case is left: a node that a worker has just handed out, and that the kernel has no inode for yet. INVAL_INODE
fails with ENOENT, and is tried again for as long as the table has the node: either the inode comes, or the node goes.

Nodes are spread over lanes, a thread each, so that a folder which is waited for holds up few others.
"""

import errno
import heapq
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from ringmount.workers import codec
from ringmount.workers.abi import InvalEntryFlags

LANES = 8
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


class Lane:
    """One thread's share of the nodes. `put` may be called from any thread, `turn` from its own alone."""

    def __init__(self, write: Write, is_live: Callable[[int], bool]) -> None:
        self._write = write
        self._is_live = is_live
        self._waiting: OrderedDict[int, Stale] = OrderedDict()
        self._missing: dict[int, Stale] = {}
        self._tries: list[tuple[float, int]] = []
        """When to try again for which node of `_missing`; a heap."""
        self._changed = threading.Condition()

    def put(self, node: int, offset: int, name: bytes | None = None, expire_only: bool = False) -> None:
        """Adds what is to be dropped about a node to what waits already."""
        with self._changed:
            stale = self._waiting.get(node)
            if stale is None:
                stale = self._waiting[node] = Stale()
            stale.offset = max(stale.offset, offset)
            stale.delay, stale.until = FIRST_DELAY, 0.0
            if name is not None:
                stale.names[name] = expire_only and stale.names.get(name, True)
            self._changed.notify()

    def turn(self) -> None:
        """Waits for the next node, and drops what is to be dropped about it."""
        with self._changed:
            self._take_due()
            while not self._waiting:
                self._changed.wait(max(0.0, self._tries[0][0] - time.monotonic()) if self._tries else None)
                self._take_due()
            node, stale = self._waiting.popitem(last=False)
        for name, expire_only in stale.names.items():
            flags = int(InvalEntryFlags.EXPIRE_ONLY) if expire_only else 0
            self._write(codec.notify_inval_entry(node, name, flags))
        stale.names.clear()
        if self._write(codec.notify_inval_inode(node, stale.offset, 0)) == errno.ENOENT and self._is_live(node):
            self._try_again(node, stale, time.monotonic())

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
            waiting = self._waiting.setdefault(node, stale)
            waiting.offset = max(waiting.offset, stale.offset)
