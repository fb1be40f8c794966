"""Small filesystems, each for what some test needs to see. `serve_class` (clients.py) lays this file beside the
mount's YAML, and the workers load it as `mountfs:CLASS`.

A test and the workers meet in a folder (option `folder`): workers append lines to `events`, and what must wait
waits for the file `go`.
"""

import asyncio
import contextlib
import errno
import json
import os
import select
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

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
from ringmount.workers.filesystems.passthrough import Passthrough

FOPEN_DIRECT_IO = int(OpenReply.DIRECT_IO)
FOPEN_KEEP_CACHE = int(OpenReply.KEEP_CACHE)

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


class WriteGate(AsyncGate):
    """Writes wait, too."""

    async def write(self, ctx: Context, node: NodeId, fh: Handle, offset: int, data: memoryview, flags: int) -> int:
        self.say("write", offset)
        while not self.may_go():
            await asyncio.sleep(0.005)
        return len(data)


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


class Changing(Tree):
    """Files that are empty unless the folder has `data-NODE`, their content, and gone when it has `gone-NAME`.

    Both change behind the kernel's back. What is to be told to it comes as the value of the attribute `user.notify`:
    a method of `mount.notify` and its arguments, as JSON, names as text.
    """

    def attr(self, node: NodeId) -> Attr:
        found = super().attr(node)
        if node != ROOT:
            found.st_size = len(self.data(node))
        return found

    def data(self, node: NodeId) -> bytes:
        try:
            return (self.folder / f"data-{node}").read_bytes()
        except FileNotFoundError:
            return b""

    def lookup(self, ctx: Context, parent: NodeId, name: bytes) -> Entry:
        self.say("lookup", name.decode())
        if (self.folder / f"gone-{name.decode()}").exists():
            return Entry(0, None)
        return super().lookup(ctx, parent, name)

    def open(self, ctx: Context, node: NodeId, flags: int) -> Opened:
        return Opened(flags=FOPEN_KEEP_CACHE)

    def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> Any:
        self.say("read", node)
        data = self.data(node)[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        return len(data)

    def setxattr(self, ctx: Context, node: NodeId, name: bytes, value: memoryview, flags: int, kill_sgid: bool) -> None:
        method, *arguments = json.loads(bytes(value))
        self.notify(method, arguments)

    def notify(self, method: str, arguments: list[Any]) -> None:
        decoded = [argument.encode() if isinstance(argument, str) else argument for argument in arguments]
        getattr(self.mount.notify, method)(*decoded)

    def poll(self, ctx: Context, node: NodeId, fh: Handle, kh: int | None, events: int) -> int:
        if self.data(node):
            return events & select.POLLIN
        if kh is not None:
            self.say("poll", node, kh)
        return 0


class ChangingUnopened(Changing):
    """The same, without a method for open(2)."""

    open = Filesystem.open  # type: ignore[assignment]


class Chatty(Changing):
    """Says that what a request is about has changed while the kernel holds its locks for that very request.

    Written by whoever answers the request, each of these would wait for itself for ever.
    """

    def data(self, node: NodeId) -> bytes:
        return b"first"

    def lookup(self, ctx: Context, parent: NodeId, name: bytes) -> Entry:
        self.mount.notify.inval_entry(parent, name)
        self.mount.notify.inval_entry(parent, b"f1", expire_only=True)
        return Tree.lookup(self, ctx, parent, name)

    def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> Any:
        self.mount.notify.inval_inode(node)
        self.mount.notify.store(node, 0, b"store")
        self.mount.notify.inval_inode(node, -1)
        data = b"first"[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        return len(data)

    def unlink(self, ctx: Context, parent: NodeId, name: bytes) -> None:
        self.mount.notify.delete(parent, NodeId(2 + self.number(parent, name)), name)

    def readdir(self, ctx: Context, node: NodeId, fh: Handle, offset: int, out: DirectoryBuffer) -> None:
        self.mount.notify.inval_inode(node)
        self.mount.notify.inval_entry(node, b"f2")
        super().readdir(ctx, node, fh, offset, out)


class ChattyThreads(Chatty):
    """The same from threads."""

    threads = 4


class Flood(Changing):
    """One `setxattr` sends as many different notifications as it says."""

    def setxattr(self, ctx: Context, node: NodeId, name: bytes, value: memoryview, flags: int, kill_sgid: bool) -> None:
        for i in range(int(bytes(value))):
            self.mount.notify.inval_inode(NodeId(1_000_000 + i))
        self.mount.notify.inval_inode(node)
        self.say("flooded")


class Fatal(Tree):
    """Reading f1 kills the worker by a signal, f2 ends it with sys.exit(), each for as long as there is a `poison`."""

    def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> Any:
        if (self.folder / "poison").exists():
            self.say("poisoned", node)
            if node == 3:
                os.kill(os.getpid(), signal.SIGSEGV)
            if node == 4:
                sys.exit(5)
        return int(super().read(ctx, node, fh, offset, buffer))


class AsyncFatal(Fatal):
    """The same as a coroutine."""

    async def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> int:
        await asyncio.sleep(0)
        return int(super().read(ctx, node, fh, offset, buffer))


class OnceOnly(Tree):
    """Cannot be made again once there is a `spoiled`."""

    def __init__(self, options: Meeting, mount: Mount) -> None:
        super().__init__(options, mount)
        if (self.folder / "spoiled").exists():
            raise ValueError("it is spoiled")


class OftenShort(Tree):
    """Cannot be started while there is a `shortage`. Its workers leave, with exit code 0, as a READ finds `exit`."""

    def start(self) -> None:
        if (self.folder / "shortage").exists():
            raise OSError(errno.EMFILE, "there is a shortage")

    def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> Any:
        if (self.folder / "exit").exists():
            self.say("leaves")
            os._exit(0)
        return super().read(ctx, node, fh, offset, buffer)


class SharedTable(AsyncGate):
    """Its workers have one descriptor table; reads wait for `go`."""

    handle_policy = HandlePolicy.SHARED


class Living(Tree):
    """Says when it starts and stops."""

    def start(self) -> None:
        self.say("start")

    def stop(self) -> None:
        self.say("stop")


class AsyncLiving(Tree):
    """The same as coroutines."""

    async def start(self) -> None:
        await asyncio.sleep(0)
        self.say("start")

    async def stop(self) -> None:
        await asyncio.sleep(0)
        self.say("stop")


class BadStart(Tree):
    """Cannot start."""

    def start(self) -> None:
        raise OSError(errno.ECONNREFUSED, "its store does not answer")


class BadAsyncStart(Tree):
    """Cannot start either."""

    async def start(self) -> None:
        await asyncio.sleep(0)
        raise ValueError("its store speaks another language")


class SlowToMake(Tree):
    """Takes until `go` to be made."""

    def __init__(self, options: Meeting, mount: Mount) -> None:
        super().__init__(options, mount)
        self.say("making")
        while not self.may_go():
            time.sleep(0.01)


class AsyncBusy(Tree):
    """`Tree` whose reads are coroutines."""

    async def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> int:
        await asyncio.sleep(0)
        return int(super().read(ctx, node, fh, offset, buffer))


class Many(Tree):
    """f0 .. f8999, with nodes of the table that all workers share; says which of the first ten are forgotten."""

    COUNT = 9000

    def number(self, parent: NodeId, name: bytes) -> int:
        if parent != ROOT or name[:1] != b"f" or not name[1:].isdigit() or int(name[1:]) >= self.COUNT:
            raise OSError(errno.ENOENT, "no such file")
        return int(name[1:])

    def lookup(self, ctx: Context, parent: NodeId, name: bytes) -> Entry:
        number = self.number(parent, name)
        node = self.mount.nodes.take(name, name)
        if number < 10:
            self.mount.nodes.watch(node)
        return Entry(node, self.attr(node))

    def forget(self, node: NodeId) -> None:
        self.say("forget", node)

    def attr(self, node: NodeId) -> Attr:
        if node == ROOT:
            return Tree.attr(self, node)
        name = self.mount.nodes.value(node)
        return Attr(st_ino=2 + int(name[1:]), st_mode=stat.S_IFREG | 0o666, st_size=SIZE)

    def readdir(self, ctx: Context, node: NodeId, fh: Handle, offset: int, out: DirectoryBuffer) -> None:
        for i in range(offset, self.COUNT):
            if not out.add(b"f%d" % i, 2 + i, stat.S_IFREG, i + 1):
                return


class ManySingle(Many):
    """The same with numbers of its own, in one worker: every file is forgotten by name."""

    handle_policy = HandlePolicy.SINGLE

    def lookup(self, ctx: Context, parent: NodeId, name: bytes) -> Entry:
        node = NodeId(2 + self.number(parent, name))
        return Entry(node, self.attr(node))

    def attr(self, node: NodeId) -> Attr:
        return Tree.attr(self, node)


class ThreadBusy(Tree):
    """`Tree` on threads."""

    threads = 4


class Hostile(Tree):
    """Answers what the contract forbids, each file in a way of its own."""

    READS: ClassVar[dict[int, Any]] = {
        0: 1 << 30,
        1: -1,
        2: None,
        3: "text",
        4: b"bytes",
        5: 65536 + 4096,  # more than was asked for, less than the buffer behind it
        6: True,
        7: 1.0,
    }
    NAMES: ClassVar[list[bytes]] = [b"", b"a/b", b"nul\0", b"x" * 5000]

    def number_of(self, node: NodeId) -> int:
        return node - 2

    def open(self, ctx: Context, node: NodeId, flags: int) -> Any:
        if node == 2 + 10:
            return 7
        if node == 2 + 11:
            return Opened(fh=-1)
        return Opened(flags=FOPEN_DIRECT_IO)

    def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> Any:
        return self.READS.get(node - 2)

    def write(self, ctx: Context, node: NodeId, fh: Handle, offset: int, data: memoryview, flags: int) -> Any:
        return [len(data) + 1, -1, None, "text", 1 << 40][node - 2]

    def getattr(self, ctx: Context, node: NodeId, fh: Handle | None) -> Any:
        match node - 2:
            case 20:
                return None
            case 21:
                return Attr(st_ino=-5, st_mode=stat.S_IFREG)
            case 22:
                return Attr(st_ino=1, st_mode=stat.S_IFREG, st_size=1 << 70)
            case 23:
                raise OSError("without an errno")
            case 24:
                raise OSError(100_000, "an errno that no kernel has")
            case 25:
                raise OSError(-5, "a negative errno")
            case 26:
                raise KeyError("a mistake")
            case 27:
                raise StopIteration
            case 28:
                return object()
            case 29:
                return Attr(st_ino=31, st_mode=stat.S_IFDIR | 0o755)  # it was a file
        return self.attr(node)

    def lookup(self, ctx: Context, parent: NodeId, name: bytes) -> Any:
        number = self.number(parent, name)
        match number:
            case 40:
                return None
            case 41:
                return Entry(2, None)
            case 42:
                return Entry(-1, self.attr(NodeId(2)))
            case 43:
                return Entry(1, self.attr(ROOT))  # the root, in itself
            case 44:
                return 44
            case 45:
                return Entry(47, Attr(st_ino=47, st_mode=0))
        return Tree.lookup(self, ctx, parent, name)

    def readlink(self, ctx: Context, node: NodeId) -> Any:
        return None

    def readdir(self, ctx: Context, node: NodeId, fh: Handle, offset: int, out: DirectoryBuffer) -> None:
        try:
            which = int((self.folder / "which").read_text())
        except FileNotFoundError:
            super().readdir(ctx, node, fh, offset, out)
            return
        out.add(self.NAMES[which], 2, stat.S_IFREG, 1)

    def getxattr(self, ctx: Context, node: NodeId, name: bytes) -> Any:
        return {b"user.long": b"x" * 70_000, b"user.none": None, b"user.text": "text"}.get(name, b"")

    def listxattr(self, ctx: Context, node: NodeId) -> Any:
        return {0: None, 1: ["text"], 2: [b"x" * 100] * 1000}.get(node - 2, [])

    def statfs(self, ctx: Context, node: NodeId) -> Any:
        return None


class AsyncHostile(Hostile):
    """The same from coroutines."""

    async def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> Any:
        return super().read(ctx, node, fh, offset, buffer)

    async def getattr(self, ctx: Context, node: NodeId, fh: Handle | None) -> Any:
        await asyncio.sleep(0)
        return super().getattr(ctx, node, fh)

    async def lookup(self, ctx: Context, parent: NodeId, name: bytes) -> Any:  # type: ignore[override]
        return super().lookup(ctx, parent, name)


class Bare(Filesystem):
    """The two methods that there must be, and a count of the requests for others."""

    def lookup(self, ctx: Context, parent: NodeId, name: bytes) -> Entry:
        if name != b"file":
            raise OSError(errno.ENOENT, "no such file")
        return Entry(2, self.getattr(ctx, NodeId(2), None))

    def getattr(self, ctx: Context, node: NodeId, fh: Handle | None) -> Attr:
        if node == ROOT:
            return Attr(st_ino=1, st_mode=stat.S_IFDIR | 0o755, st_nlink=2)
        return Attr(st_ino=2, st_mode=stat.S_IFREG | 0o666, st_size=5)

    def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> int:
        assert fh == 0
        data = b"bare\n"[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        return len(data)


class Labelled(Tree):
    """Files with extended attributes."""

    VALUES: ClassVar[dict[bytes, bytes]] = {b"user.empty": b"", b"user.short": b"value", b"user.long": b"x" * 60_000}

    def getxattr(self, ctx: Context, node: NodeId, name: bytes) -> bytes:
        try:
            return self.VALUES[name]
        except KeyError:
            raise OSError(errno.ENODATA, "no such attribute") from None

    def listxattr(self, ctx: Context, node: NodeId) -> list[bytes]:
        return list(self.VALUES)


class Pipe(Tree):
    """Reads wait for a pipe that nobody writes to, on the worker's ring."""

    def start(self) -> None:
        self.end, self.other_end = os.pipe()

    def open(self, ctx: Context, node: NodeId, flags: int) -> Opened:
        return Opened(flags=FOPEN_DIRECT_IO)

    async def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> int:
        self.say("begin", node)
        try:
            return await self.mount.io.read(self.end, buffer, 0)
        finally:
            self.say("end", node)


class Held(Passthrough):
    """Passthrough that holds one answer back once it is made: whoever of the method M first finds the file `M` in the
    folder `held` beside the source makes it `M.waits`, and waits until that is removed. A lookup's is `lookup-NAME`."""


def held(method: str) -> Any:
    """A method of `Held`."""
    plain = getattr(Passthrough, method)

    async def holding(self: Held, ctx: Context, *arguments: Any) -> Any:
        answer = plain(self, ctx, *arguments)
        gate = f"lookup-{os.fsdecode(arguments[1])}" if method == "lookup" else method
        waits = Path(self.options.source).parent / "held" / f"{gate}.waits"
        with contextlib.suppress(FileNotFoundError):
            waits.with_suffix("").rename(waits)
            while waits.exists():
                await asyncio.sleep(0.005)
        return answer

    return holding


for name in ("lookup", "getattr", "setattr", "link", "mkdir", "readdir", "readdirplus", "read"):
    setattr(Held, name, held(name))


class Offering(Backed):
    """Every file offers `backing` to the kernel, but those that are opened with O_SYNC."""

    backing_files = True

    def open(self, ctx: Context, node: NodeId, flags: int) -> Opened:
        return Opened(backing_fd=-1 if flags & os.O_DSYNC else self.fd)

    def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> Any:
        self.say("read", node)
        return os.preadv(self.fd, [buffer], offset)

    def write(self, ctx: Context, node: NodeId, fh: Handle, offset: int, data: memoryview, flags: int) -> Any:
        self.say("write", node)
        return os.pwrite(self.fd, data, offset)


class Leaky(Passthrough):
    """Dies of a SIGKILL when it looks up a name that begins with `leak`, the first time, with that file just opened."""

    def lookup(self, ctx: Context, parent: NodeId, name: bytes) -> Any:
        if name.startswith(b"leak") and parent == ROOT:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(os.fsencode(self.options.source) + b"/died-" + name, os.O_CREAT | os.O_EXCL))
                os.open(os.fsencode(self.options.source) + b"/" + name, os.O_RDONLY | os.O_CLOEXEC)
                os.kill(os.getpid(), signal.SIGKILL)
        return super().lookup(ctx, parent, name)
