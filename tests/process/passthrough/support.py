"""What the engine gives to a filesystem, without an engine: the real tables in this process's memory, callers, and the
buffers of listings. And the passthrough filesystem over a folder, driven as the kernel would."""

import logging
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ringmount.workers import handles, nodes
from ringmount.workers._native import ffi
from ringmount.workers.api import ROOT, AttrLike, Context, Earlier, Entry, Handle, NodeId, Opened
from ringmount.workers.filesystems.passthrough import Options, Passthrough
from ringmount.workers.handles import HandleTable
from ringmount.workers.nodes import NodeTable

NODES = 1 << 13
HANDLES = 1 << 12


class Caller:
    """Who asks: `ringmount.workers.api.Context`."""

    def __init__(self, uid: int = -1, gid: int = -1, groups: tuple[int, ...] = (), umask: int = 0o022) -> None:
        self.unique = 1
        self.uid = os.geteuid() if uid < 0 else uid
        self.gid = os.getegid() if gid < 0 else gid
        self.pid = os.getpid()
        self.umask = umask
        self.kill_suidgid = False
        self.groups = groups
        self.interrupted = False
        self.earlier: Earlier | None = None
        """What an earlier run noted, for the next one: `noted` of that one."""
        self.noted: Earlier | None = None

    def begin(self, *before: int) -> None:
        self.noted = Earlier(False, 0, (*before, 0, 0, 0, 0)[:4])

    def done(self, result: int = 0) -> None:
        assert self.noted is not None
        self.noted = self.noted._replace(done=True, result=result)


class Timeouts:
    attr = entry = 1.0
    negative = 0.0


class Tables:
    """The tables of a mount, shared by its workers."""

    def __init__(self) -> None:
        self._nodes = mmap.mmap(-1, nodes.size(NODES))
        self._handles = mmap.mmap(-1, handles.size(HANDLES))
        self.nodes(0, create=True)
        self.handles(0, create=True)

    def nodes(self, worker: int, create: bool = False) -> NodeTable:
        return NodeTable(_address(self._nodes), len(self._nodes), worker, create=create)

    def handles(self, worker: int, create: bool = False) -> HandleTable:
        return HandleTable(_address(self._handles), len(self._handles), worker, create=create)


def _address(memory: mmap.mmap) -> int:
    return int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))


class Mount:
    """`ringmount.workers.api.Mount`, as one worker sees it. `owned`: the descriptors noted as its own."""

    name = "test"
    mountpoint = "/nowhere"
    read_only = False
    writeback = False
    notify: Any = None
    io: Any = None
    log = logging.getLogger("filesystem")
    max_write = 1 << 20
    unwatched: Timeouts | None = None
    watches_folders = False

    def __init__(self, tables: Tables, worker: int = 0, default_permissions: bool = True) -> None:
        self.tables = tables  # keeps their memory
        self.nodes = tables.nodes(worker)
        self.handles = tables.handles(worker)
        self.timeouts = Timeouts()
        self.worker = worker
        self.workers = 2
        self.default_permissions = default_permissions
        self.owned: set[int] = set()

    def watch(self, folder: int) -> bool:
        return True

    def own_fd(self, fd: int) -> int:
        assert fd not in self.owned
        self.owned.add(fd)
        return fd

    def disown_fd(self, fd: int) -> None:
        self.owned.remove(fd)


class Listing:
    """`DirectoryBuffer` for `room` names."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.entries: dict[bytes, tuple[int, int, int]] = {}

    def add(self, name: bytes, ino: int, mode: int, next_offset: int) -> bool:
        if len(self.entries) == self.room:
            return False
        assert name not in self.entries
        assert 0 < next_offset < 1 << 63
        self.entries[name] = (ino, mode, next_offset)
        return True


class ListingPlus:
    """`DirectoryPlusBuffer` for `room` names; `lies`: it says that more fits than does."""

    def __init__(self, room: int = 1 << 30, lies: bool = False) -> None:
        self.room = room
        self.lies = lies
        self.entries: dict[bytes, tuple[Entry, int]] = {}

    def fits(self, name: bytes) -> bool:
        return self.lies or len(self.entries) < self.room

    def add(self, name: bytes, entry: Entry, next_offset: int) -> bool:
        if len(self.entries) >= self.room:
            return False
        self.entries[name] = (entry, next_offset)
        return True


class Worker:
    """A filesystem object of one worker, with shorthands. Names may be paths from the root, as b"a/b"."""

    def __init__(
        self,
        source: Path,
        tables: Tables,
        worker: int = 0,
        cls: type[Passthrough] = Passthrough,
        default_permissions: bool = True,
        **options: Any,
    ) -> None:
        self.mount = Mount(tables, worker, default_permissions)
        self.fs = cls(Options(str(source), **options), self.mount)
        self.source = source
        self.root = Caller()

    # --- names --------------------------------------------------------------------------------------------------------

    def node(self, path: bytes, ctx: Context | None = None) -> NodeId:
        """The node at a path, with one more reference on each name on the way."""
        return self.entry(path, ctx).node if path else ROOT

    def entry(self, path: bytes, ctx: Context | None = None) -> "Found":
        at = ROOT
        found: Found | None = None
        for name in path.split(b"/"):
            found = Found(self.fs.lookup(ctx or self.root, at, name))
            at = found.node
        assert found is not None
        return found

    def parent(self, path: bytes) -> tuple[NodeId, bytes]:
        above, _, name = path.rpartition(b"/")
        return self.node(above), name

    def mkdir(self, path: bytes, mode: int = 0o755, ctx: Context | None = None) -> "Found":
        return Found(self.fs.mkdir(ctx or self.root, *self.parent(path), mode))

    def mknod(self, path: bytes, mode: int, rdev: int = 0, ctx: Context | None = None) -> "Found":
        return Found(self.fs.mknod(ctx or self.root, *self.parent(path), mode, rdev))

    def symlink(self, path: bytes, target: bytes, ctx: Context | None = None) -> "Found":
        return Found(self.fs.symlink(ctx or self.root, *self.parent(path), target))

    def create(
        self, path: bytes, mode: int = 0o644, flags: int = os.O_RDWR, ctx: Context | None = None
    ) -> tuple["Found", Handle]:
        entry, opened = self.fs.create(ctx or self.root, *self.parent(path), mode, flags | os.O_CREAT)
        return Found(entry), Handle(opened.fh)

    def link(self, node: NodeId, path: bytes) -> "Found":
        return Found(self.fs.link(self.root, node, *self.parent(path)))

    def unlink(self, path: bytes, ctx: Context | None = None) -> None:
        self.fs.unlink(ctx or self.root, *self.parent(path))

    def rmdir(self, path: bytes) -> None:
        self.fs.rmdir(self.root, *self.parent(path))

    def rename(self, path: bytes, new_path: bytes, flags: int = 0, ctx: Context | None = None) -> None:
        self.fs.rename(ctx or self.root, *self.parent(path), *self.parent(new_path), flags)

    # --- files --------------------------------------------------------------------------------------------------------

    def attr(self, node: NodeId, fh: Handle | None = None) -> AttrLike:
        return self.fs.getattr(self.root, node, fh)

    def open(self, node: NodeId, flags: int = os.O_RDWR, ctx: Context | None = None) -> Handle:
        return Handle(self.opened(node, flags, ctx).fh)

    def opened(self, node: NodeId, flags: int = os.O_RDWR, ctx: Context | None = None) -> Opened:
        return self.fs.open(ctx or self.root, node, flags)

    def read(self, node: NodeId, fh: Handle, size: int = 1 << 16, offset: int = 0) -> bytes:
        buffer = bytearray(size)
        done = self.fs.read(self.root, node, fh, offset, memoryview(buffer))
        if not isinstance(done, int):
            done = os.preadv(done.fd, [buffer], done.offset)
        return bytes(buffer[:done])

    def write(self, node: NodeId, fh: Handle, data: bytes, offset: int = 0, flags: int = 0) -> int:
        return self.fs.write(self.root, node, fh, offset, memoryview(data), flags)

    def release(self, node: NodeId, fh: Handle) -> None:
        self.fs.release(self.root, node, fh, 0, None)

    def content(self, path: bytes) -> bytes:
        node = self.node(path)
        fh = self.open(node, os.O_RDONLY)
        try:
            return self.read(node, fh)
        finally:
            self.release(node, fh)

    def listing(self, node: NodeId = ROOT, offset: int = 0, room: int = 1 << 30) -> Listing:
        out = Listing(room)
        fh = self.opendir(node)
        self.fs.readdir(self.root, node, fh, offset, out)
        self.fs.releasedir(self.root, node, fh)
        return out

    def opendir(self, node: NodeId = ROOT) -> Handle:
        return Handle(self.fs.opendir(self.root, node, os.O_RDONLY).fh)

    # --- the kernel's part --------------------------------------------------------------------------------------------

    def forget_all(self, *others: "Worker") -> None:
        """The kernel gives all references back, and workers are told, these among them."""
        workers = {worker.mount.worker: worker for worker in (self, *others)}
        words = b"".join(
            node.to_bytes(8, "little") + count.to_bytes(8, "little")
            for node, count in list(self.mount.nodes.iterate())
            if node != ROOT and count
        )
        done, gone = self.mount.nodes.forget_batch(bytearray(words))
        assert done == len(words) // 16
        for node, watchers in gone:
            for number, worker in workers.items():
                if watchers >> number & 1:
                    worker.fs.forget(node)

    def evict(self) -> None:
        """Closes all descriptors that are kept only to be quick."""
        self.fs.objects.descriptors.close()
        self.fs.objects._once.clear()


class Found:
    """An Entry that has attributes."""

    def __init__(self, entry: Entry) -> None:
        assert entry.attr is not None
        self.node = NodeId(entry.node)
        self.attr = entry.attr


def open_descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}


@contextmanager
def nothing_stays_open() -> Iterator[None]:
    """Asserts that all descriptors which were opened within are closed again."""
    before = open_descriptors()
    yield
    assert open_descriptors() - before == set()


def error(number: int) -> "pytest.RaisesExc[OSError]":
    """Asserts that within, OSError with this number is raised."""
    return pytest.raises(OSError, check=lambda raised: raised.errno == number)
