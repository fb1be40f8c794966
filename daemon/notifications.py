"""The queue of notifications for the kernel, and the process that writes them.

Writing one may block until a worker answers a request (INVAL_INODE waits for a page under read), so neither a worker
nor the supervisor may do it: a child process does nothing else. The queue merges what waits: equal messages, and
ranges of an inode once all of it is to go.
"""

import contextlib
import errno
import logging
import os
import signal
import socket
import struct
from collections import OrderedDict, deque
from collections.abc import Hashable

from ringmount.daemon.children import become
from ringmount.workers import abi, codec
from ringmount.workers.abi import Notify
from ringmount.workers.events import about

log = logging.getLogger(__name__)

CODE_AT = abi.FUSE_OUT_HEADER.offsets["error"]
BODY_AT = abi.FUSE_OUT_HEADER.size
INODE = abi.FUSE_NOTIFY_INVAL_INODE_OUT.struct
STORE = abi.FUSE_NOTIFY_STORE_OUT.struct
MAX_BYTES = 8 << 20
"""A queue that is longer takes no more data (STORE): its writer may be stuck until a request is answered."""
MAX_IN_HAND = 32
"""Notifications handed to the writer at a time: the others can still be merged."""


class Queue:
    """Notifications that wait, oldest first, without duplicates.

    All kinds but STORE only drop something, so that one which waits covers an equal one that comes later: it is
    delivered after both changes. STORE puts something in place: it is never merged, and an INVAL_INODE is not merged
    across it.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, bytes] = OrderedDict()
        self._stores: dict[int, list[int]] = {}
        """By node for which a STORE waits: how many do, and a number that the last one gave the time after it."""
        self._next = 0
        self._bytes = 0
        self.merged = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, data: bytes) -> None:
        """Adds one. What is equal to a waiting one, or covered by it, is merged.

        A STORE that would make the queue too long becomes an INVAL_INODE of its range.
        """
        kind = _kind(data)
        if kind == Notify.STORE and self._bytes + len(data) > MAX_BYTES:
            nodeid, offset, size, _ = STORE.unpack_from(data, BODY_AT)
            data, kind = codec.notify_inval_inode(nodeid, offset, size), Notify.INVAL_INODE
        if kind == Notify.STORE:
            self._append(self._store_key(data), data)
            return
        key: Hashable = data
        if kind == Notify.INVAL_INODE:
            nodeid, offset, length = INODE.unpack_from(data, BODY_AT)
            _, era = self._stores.get(nodeid, (0, 0))
            whole = (nodeid, era)
            if whole in self._waiting:
                self.merged += 1
                return
            key = whole if offset == 0 and length <= 0 else (nodeid, offset, length, era)
        if key in self._waiting:
            self.merged += 1
            return
        self._append(key, data)

    def _store_key(self, data: bytes) -> Hashable:
        key = self._unique()
        counts = self._stores.setdefault(STORE.unpack_from(data, BODY_AT)[0], [0, 0])
        counts[0] += 1
        counts[1] = self._next
        return key

    def _unique(self) -> Hashable:
        self._next += 1
        return (self._next,)

    def _append(self, key: Hashable, data: bytes) -> None:
        self._waiting[key] = data
        self._bytes += len(data)

    def take(self) -> bytes | None:
        """The oldest one."""
        if not self._waiting:
            return None
        _, data = self._waiting.popitem(last=False)
        self._bytes -= len(data)
        if _kind(data) == Notify.STORE:
            nodeid = STORE.unpack_from(data, BODY_AT)[0]
            counts = self._stores[nodeid]
            counts[0] -= 1
            if not counts[0]:
                del self._stores[nodeid]
        return data

    def put_back(self, data: bytes) -> None:
        """Puts one that was taken in front of all others."""
        if _kind(data) == Notify.STORE:
            key = self._store_key(data)
        else:
            key = self._unique()
        self._append(key, data)
        self._waiting.move_to_end(key, last=False)


def _kind(data: bytes) -> int:
    return int.from_bytes(data[CODE_AT : CODE_AT + 4], "little")


def write_all(channel: socket.socket, fuse_fd: int) -> None:
    """The writer's life: takes a notification, writes it, says how it went (4 bytes: 0 or an errno)."""
    while True:
        data = channel.recv(1 << 17)
        if not data:
            return
        result = 0
        try:
            os.write(fuse_fd, data)
        except OSError as error:
            result = error.errno or errno.EIO
        channel.send(result.to_bytes(4, "little"))
        if result == errno.ENODEV:
            return


class Writer:
    """The writing process, seen from the supervisor. Made before the mount serves, by fork."""

    def __init__(self, fuse_fd: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        supervisor = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            with contextlib.suppress(BaseException):
                become("rm-notifier", supervisor, {fuse_fd, theirs.fileno()})
                write_all(theirs, fuse_fd)
            os._exit(0)
        theirs.close()
        ours.setblocking(False)
        self.channel = ours
        self.queue = Queue()
        self._in_hand: deque[bytes] = deque()
        self.ended = False
        """The process is gone: its channel said so."""
        self.sent = 0
        self.refused = 0

    def put(self, data: bytes) -> None:
        """Queues a notification; never blocks. What is none is refused: it comes from a worker."""
        try:
            self.queue.put(data)
        except struct.error as error:
            self.refused += 1
            log.error("a worker sent %d bytes that are no notification: %s", len(data), error)
            return
        self.pump()

    def pump(self) -> None:
        """Hands on what fits and takes the outcomes that came."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                outcome = self.channel.recv(4)
                if not outcome:
                    self._died()
                    return
                self._in_hand.popleft()
                error = int.from_bytes(outcome, "little")
                # ENOENT: the kernel does not have that node or name in its caches, so nothing had to be dropped.
                if error and error != errno.ENOENT:
                    self.refused += 1
                    log.debug("the kernel refused a notification: %s", os.strerror(error), extra=about(errno=error))
        while len(self._in_hand) < MAX_IN_HAND:
            data = self.queue.take()
            if data is None:
                return
            try:
                self.channel.send(data)
            except (BlockingIOError, ConnectionError):
                self.queue.put_back(data)
                return
            self._in_hand.append(data)
            self.sent += 1

    def _died(self) -> None:
        """What it had in hand may not have been written: it waits again. Writing it twice does no harm."""
        self.ended = True
        while self._in_hand:
            self.queue.put_back(self._in_hand.pop())

    @property
    def is_idle(self) -> bool:
        """All notifications are written."""
        return not self._in_hand and not len(self.queue)

    def close(self) -> None:
        """Ends the process: it has no state worth a wait."""
        self.channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
