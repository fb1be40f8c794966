"""The legacy path at work: forgets are given back to the table of nodes, interrupts go to the worker concerned.

With rings the supervisor alone reads /dev/fuse; without them the workers read it, and pass these messages on.
"""

import errno
import logging
import select
import struct
import time
from collections.abc import Callable

from ringmount.daemon import legacy
from ringmount.daemon.connection import Connection
from ringmount.daemon.crew import Crew
from ringmount.daemon.loop import Loop
from ringmount.daemon.mount import Mount
from ringmount.workers import codec
from ringmount.workers._native import lib
from ringmount.workers.api import HandlePolicy, NodeId
from ringmount.workers.events import about

log = logging.getLogger(__name__)

INTERRUPT_PATIENCE = 0.5
"""Seconds for which an INTERRUPT waits for its request to show up in the arena (they travel by different ways)."""
RETRY_INTERVAL = 0.01
MESSAGES_PER_TURN = 64
PAUSE = 0.01
"""Seconds in which forgets gather, once they come. The kernel hands out many at once (fuse_read_forget), and waking up
for each costs more than all the rest of removing a file."""
PAIR = struct.Struct("<QQ")


class LegacyPath:
    """Reads the connection's descriptor from `watch` on. `on_end` is called when the connection has ended."""

    def __init__(
        self, mount: Mount, loop: Loop, connection: Connection, crew: Crew, on_end: Callable[[], None]
    ) -> None:
        self._mount = mount
        self._loop = loop
        self._connection = connection
        self._crew = crew
        self._on_end = on_end
        self._watched: int | select.epoll | None = None
        self._paused_until: float | None = None
        self._interrupts: list[tuple[int, float]] = []
        self._forgets: list[tuple[int, int]] = []
        # By entry, its worker. The arena says so as well, but workers can write there.
        depths = zip(mount.plan.depths, mount.plan.owners, strict=True)
        self._owners = [owner for depth, owner in depths for _ in range(depth)]
        loop.duties += [self._retry, self._resume]

    def watch(self) -> None:
        """With rings the legacy path is the supervisor's alone; without, it only looks for the connection's end."""
        if self._connection.transport == "io_uring":
            self._watched = self._connection.fd
            self._loop.watch(self._watched, self._read)
            return
        self._watched = select.epoll()  # an epoll without events reports errors and hang-ups alone
        self._watched.register(self._connection.fd, 0)
        self._loop.watch(self._watched, self.ended)

    def ended(self) -> None:
        """The connection has ended: unmounted, by us or from outside, or aborted."""
        self.unwatch()  # it would be readable to no end
        self._on_end()

    def unwatch(self) -> None:
        """Stops reading, if it has begun."""
        if self._watched is None:
            return
        if self._paused_until is None:
            self._loop.unwatch(self._watched)
        self._paused_until = None
        if isinstance(self._watched, select.epoll):
            self._watched.close()
        self._watched = None

    def _read(self) -> None:
        forgets = self._mount.counts["forgets"]
        self._read_all()
        if self._watched is not None and self._mount.counts["forgets"] != forgets:
            self._loop.unwatch(self._watched)
            self._paused_until = time.monotonic() + PAUSE

    def _resume(self, now: float) -> float | None:
        if self._watched is not None and self._paused_until is not None and self._paused_until <= now:
            self._paused_until = None
            self._loop.watch(self._watched, self._read)
        return self._paused_until

    def _read_all(self) -> None:
        for _ in range(MESSAGES_PER_TURN):
            try:
                message = self._connection.read()
            except BlockingIOError:
                return
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.ECONNABORTED, errno.EPERM):
                    self.ended()
                    return
                if error.errno == errno.ENOENT:  # the request was taken back while it was read
                    continue
                raise
            self.take(message)

    def take(self, message: memoryview) -> None:
        """A message of the legacy path, read here or by a worker."""
        counts = self._mount.counts
        try:
            said = legacy.parse(message)
        except codec.DecodeError as error:
            log.error("/dev/fuse delivered what is no message: %s", error)
            return
        if isinstance(said, legacy.Forgets):
            counts["forgets"] += sum(count for _, count in said.pairs)
            self._forget(list(said.pairs))
        elif isinstance(said, legacy.Interrupted):
            counts["interrupts"] += 1
            if not self._interrupt(said.unique):
                self._interrupts.append((said.unique, time.monotonic() + INTERRUPT_PATIENCE))
        else:
            counts["unexpected"] += 1
            extra = about(opcode=said.header.opcode, nodeid=said.header.nodeid, unique=said.header.unique)
            what = "a request (opcode %d) came by /dev/fuse, and not by a ring: answered EIO"
            log.warning(what, said.header.opcode, extra=extra)
            self._connection.answer(said.header.unique, errno.EIO)

    def _retry(self, now: float) -> float | None:
        """What could not be done at once is tried again."""
        self._interrupts = [
            (unique, until) for unique, until in self._interrupts if until > now and not self._interrupt(unique)
        ]
        if self._forgets:
            self._forget([])
        return now + RETRY_INTERVAL if self._interrupts or self._forgets else None

    def _forget(self, pairs: list[tuple[int, int]]) -> None:
        pairs = self._forgets + pairs
        self._forgets = []
        if self._mount.policy is HandlePolicy.SINGLE:
            self._crew.tell_forgets(self._crew.workers[0], pairs)
            return
        done, gone = self._mount.nodes.forget_batch(b"".join([PAIR.pack(node, count) for node, count in pairs]))
        self._forgets = pairs[done:]
        self.tell_departed(gone)

    def tell_departed(self, gone: list[tuple[NodeId, int]]) -> None:
        """Tells the workers that watch these nodes (bit n % 64 for worker n)."""
        for worker in self._crew.workers:
            bit = 1 << worker.index % 64
            nodes = [(int(node), 0) for node, watchers in gone if watchers & bit]
            if nodes:
                self._crew.tell_forgets(worker, nodes)

    def _interrupt(self, unique: int) -> bool:
        """Tells the worker that has the request; False if no entry has it (yet)."""
        arena = self._mount.arena
        index = lib.rm_find_unique(arena.c, unique)
        if index < 0:
            return False
        arena.c.journal[index].interrupted = unique
        self._crew.interrupt(self._crew.workers[self._owners[index]], index, unique)
        return True
