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
from collections import OrderedDict

from ringmount.workers import abi
from ringmount.workers._native import lib
from ringmount.workers.abi import Notify

log = logging.getLogger(__name__)

CODE_AT = abi.FUSE_OUT_HEADER.offsets["error"]
BODY_AT = abi.FUSE_OUT_HEADER.size
INODE = abi.FUSE_NOTIFY_INVAL_INODE_OUT.struct
MAX_IN_HAND = 32
"""Notifications handed to the writer at a time: the others can still be merged."""


class Queue:
    """Notifications that wait, oldest first, without duplicates."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[bytes, bytes] = OrderedDict()
        self.merged = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, data: bytes) -> None:
        """Adds one. What is equal to a waiting one, or covered by it, is merged."""
        key = data
        if int.from_bytes(data[CODE_AT : CODE_AT + 4], "little") == Notify.INVAL_INODE:
            nodeid, offset, length = INODE.unpack_from(data, BODY_AT)
            whole = data[:BODY_AT] + INODE.pack(nodeid, 0, 0)
            if whole in self._waiting:
                self.merged += 1
                return
            if offset == 0 and length <= 0:
                key = whole
        if key in self._waiting:
            self.merged += 1
            return
        self._waiting[key] = data

    def take(self) -> bytes | None:
        """The oldest one."""
        return self._waiting.popitem(last=False)[1] if self._waiting else None


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
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                # A stop of the whole group is the supervisor's to carry out: it ends this process.
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
                signal.pthread_sigmask(signal.SIG_SETMASK, ())
                lib.rm_die_with_parent(signal.SIGKILL)
                with open("/proc/self/comm", "w") as comm:
                    comm.write("rm-notifier")
                keep = {0, 1, 2, fuse_fd, theirs.fileno()}
                for name in os.listdir("/proc/self/fd"):
                    if int(name) not in keep:
                        with contextlib.suppress(OSError):
                            os.close(int(name))
                if os.getppid() == supervisor:
                    write_all(theirs, fuse_fd)
            os._exit(0)
        theirs.close()
        ours.setblocking(False)
        self.channel = ours
        self.queue = Queue()
        self.in_hand = 0
        self.ended = False
        """The process is gone: its channel said so."""
        self.sent = 0
        self.refused = 0

    def put(self, data: bytes) -> None:
        """Queues a notification; never blocks."""
        self.queue.put(data)
        self.pump()

    def pump(self) -> None:
        """Hands on what fits and takes the outcomes that came."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                outcome = self.channel.recv(4)
                if not outcome:
                    self.ended = True
                    return
                self.in_hand -= 1
                error = int.from_bytes(outcome, "little")
                # ENOENT: the kernel does not have that node or name in its caches, so nothing had to be dropped.
                if error and error != errno.ENOENT:
                    self.refused += 1
                    log.debug("a notification was refused: %s", os.strerror(error))
        while self.in_hand < MAX_IN_HAND:
            data = self.queue.take()
            if data is None:
                return
            try:
                self.channel.send(data)
            except (BlockingIOError, ConnectionError):
                self.queue.put(data)
                return
            self.in_hand += 1
            self.sent += 1

    def close(self) -> None:
        """Ends the process: it has no state worth a wait."""
        self.channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
