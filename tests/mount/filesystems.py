"""Small filesystems, each for what some test needs to see. `serve_class` (clients.py) lays this file beside the
mount's YAML, and the workers load it as `mountfs:CLASS`.

A test and the workers meet in a folder (option `folder`): workers append lines to `events`, and what must wait
waits for the file `go`.
"""

import asyncio
import errno
import os
import stat
import time
from pathlib import Path
from typing import Any

import msgspec

from ringmount.workers.abi import OpenReply
from ringmount.workers.api import (
    ROOT,
    Attr,
    Context,
    DirectoryBuffer,
    Entry,
    Filesystem,
    Handle,
    HandlePolicy,
    Mount,
    NodeId,
    Opened,
    ReadFrom,
    SetAttr,
    SyncOf,
    WriteTo,
)

FOPEN_DIRECT_IO = int(OpenReply.DIRECT_IO)

FILES = 64
SIZE = 64 << 10


def content(node: int, offset: int, size: int) -> bytes:
    """What a file of `Tree` holds."""
    word = b"%08d" % node
    whole = word * (SIZE // 8)
    return whole[offset : offset + size]


class Meeting(msgspec.Struct, forbid_unknown_fields=True):
    """The options: where a test and the workers meet."""

    folder: str = ""


class Tree(Filesystem):
    """f0 .. f63, which never change: nothing is shared, so that every worker can answer for every node."""

    Options = Meeting

    def __init__(self, options: Meeting, mount: Mount) -> None:
        super().__init__(options, mount)
        self.folder = Path(options.folder)

    def say(self, *words: object) -> None:
        """One line in `events`: this worker's number, and what it has to say."""
        line = " ".join(map(str, (self.mount.worker, *words)))
        fd = os.open(self.folder / "events", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
        try:
            os.write(fd, line.encode() + b"\n")
        finally:
            os.close(fd)

    def may_go(self) -> bool:
        return (self.folder / "go").exists()

    def number(self, parent: NodeId, name: bytes) -> int:
        """N of the file fN."""
        if parent != ROOT or name[:1] != b"f" or not name[1:].isdigit() or int(name[1:]) >= FILES:
            raise OSError(errno.ENOENT, "no such file")
        return int(name[1:])

    def lookup(self, ctx: Context, parent: NodeId, name: bytes) -> Entry:
        node = NodeId(2 + self.number(parent, name))
        return Entry(node, self.attr(node))

    def attr(self, node: NodeId) -> Attr:
        if node == ROOT:
            return Attr(st_ino=1, st_mode=stat.S_IFDIR | 0o755, st_nlink=2)
        return Attr(st_ino=node, st_mode=stat.S_IFREG | 0o666, st_size=SIZE)

    def getattr(self, ctx: Context, node: NodeId, fh: Handle | None) -> Any:
        return self.attr(node)

    def readdir(self, ctx: Context, node: NodeId, fh: Handle, offset: int, out: DirectoryBuffer) -> None:
        for i in range(offset, FILES):
            if not out.add(b"f%d" % i, 2 + i, stat.S_IFREG, i + 1):
                return

    def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> Any:
        data = content(node, offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)


class AsyncGate(Tree):
    """Reads wait for `go`, as coroutines."""

    async def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> int:
        self.say("begin", node)
        try:
            while not self.may_go():
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.say("cancelled", node)
            raise
        self.say("end", node)
        return int(super().read(ctx, node, fh, offset, buffer))


class Single(Tree):
    """What `Tree` does, in one worker that says which CPUs it may run on."""

    handle_policy = HandlePolicy.SINGLE

    def start(self) -> None:
        self.say("started", *sorted(os.sched_getaffinity(0)))


class Shared(Tree):
    """Nodes in the table that all workers share: a name's node is made by the worker that is asked first.

    Each says what it looked up and read.
    """

    def lookup(self, ctx: Context, parent: NodeId, name: bytes) -> Entry:
        self.number(parent, name)
        node = self.mount.nodes.take(name, name)
        self.say("lookup", name.decode())
        return Entry(node, self.attr(node))

    def attr(self, node: NodeId) -> Attr:
        found = super().attr(node)
        if node != ROOT:
            found.st_ino = int(self.mount.nodes.value(node)[1:]) + 2
        return found

    def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> Any:
        name = self.mount.nodes.value(node)
        self.say("read", name.decode())
        return super().read(ctx, NodeId(int(name[1:]) + 2), fh, offset, buffer)


class Backed(Tree):
    """Every file shows the file `backing` of the folder; the worker's ring does the work."""

    def start(self) -> None:
        self.fd = self.mount.own_fd(os.open(self.folder / "backing", os.O_RDWR | os.O_CLOEXEC))

    def attr(self, node: NodeId) -> Attr:
        found = super().attr(node)
        if node != ROOT:
            found.st_size = os.fstat(self.fd).st_size
        return found

    def setattr(self, ctx: Context, node: NodeId, changes: SetAttr, fh: Handle | None) -> Any:
        if changes.size is not None:
            os.ftruncate(self.fd, changes.size)
        return self.attr(node)

    def open(self, ctx: Context, node: NodeId, flags: int) -> Opened:
        return Opened(flags=FOPEN_DIRECT_IO)

    def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> Any:
        return ReadFrom(self.fd, offset)

    def write(self, ctx: Context, node: NodeId, fh: Handle, offset: int, data: memoryview, flags: int) -> Any:
        return WriteTo(self.fd, offset)

    def fsync(self, ctx: Context, node: NodeId, fh: Handle, datasync: bool) -> Any:
        self.say("fsync", datasync)
        return SyncOf(self.fd, datasync)


class BadBacked(Backed):
    """The same with a descriptor that does not exist."""

    def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> Any:
        return ReadFrom(999_999, offset)

    def write(self, ctx: Context, node: NodeId, fh: Handle, offset: int, data: memoryview, flags: int) -> Any:
        return WriteTo(999_999, offset)

    def fsync(self, ctx: Context, node: NodeId, fh: Handle, datasync: bool) -> Any:
        return SyncOf(999_999, datasync)


class AsyncBacked(Backed):
    """The same with coroutines and `mount.io`."""

    async def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> int:
        return await self.mount.io.read(self.fd, buffer, offset)

    async def write(self, ctx: Context, node: NodeId, fh: Handle, offset: int, data: memoryview, flags: int) -> int:
        return await self.mount.io.write(self.fd, data, offset)

    async def fsync(self, ctx: Context, node: NodeId, fh: Handle, datasync: bool) -> None:
        self.say("fsync", datasync)
        await self.mount.io.fsync(self.fd, datasync)


class BadAsyncBacked(AsyncBacked):
    """The same with a descriptor that does not exist."""

    def start(self) -> None:
        super().start()
        self.good, self.fd = self.fd, 999_999

    def attr(self, node: NodeId) -> Attr:
        return Tree.attr(self, node)


class ThreadGate(Tree):
    """Reads wait for `go`, each on a thread."""

    threads = 6

    def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> int:
        self.say("begin", node)
        while not self.may_go():
            time.sleep(0.005)
        self.say("end", node)
        return int(super().read(ctx, node, fh, offset, buffer))


class DirectGate(AsyncGate):
    """`AsyncGate` whose readers wait for the request itself, not for a page, and so can be interrupted."""

    def open(self, ctx: Context, node: NodeId, flags: int) -> Opened:
        return Opened(flags=FOPEN_DIRECT_IO)


class StubbornGate(DirectGate):
    """Its coroutines clean up, slowly, when they are cancelled, and end with a result of their own."""

    async def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> int:
        try:
            return await super().read(ctx, node, fh, offset, buffer)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            buffer[:7] = b"partial"
            return 7


class ThreadsThatAsk(Tree):
    """Threads that ask whether their caller was interrupted."""

    threads = 2

    def open(self, ctx: Context, node: NodeId, flags: int) -> Opened:
        return Opened(flags=FOPEN_DIRECT_IO)

    def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> int:
        self.say("begin", node)
        while not self.may_go():
            if ctx.interrupted:
                self.say("interrupted", node)
                raise OSError(errno.EINTR, "interrupted")
            time.sleep(0.005)
        return int(super().read(ctx, node, fh, offset, buffer))


class Sleepers(Tree):
    """Plain methods that sleep for a minute, unless they are interrupted."""

    interrupt_sync = True

    def open(self, ctx: Context, node: NodeId, flags: int) -> Opened:
        return Opened(flags=FOPEN_DIRECT_IO)

    def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> int:
        self.say("begin", node)
        try:
            deadline = time.monotonic() + 60
            while not self.may_go() and time.monotonic() < deadline:
                time.sleep(0.01)
                self.say("tick")
        except InterruptedError:
            self.say("interrupted", node)
            raise
        return int(super().read(ctx, node, fh, offset, buffer))


class Deaf(Sleepers):
    """The same, without having asked for interruption."""

    interrupt_sync = False
