"""Stand-ins for what the engine gives to a filesystem, so that it can be tried without a mount.

Each is the smallest thing that keeps the contract of its protocol in `ringmount.workers.api`; `Kernel` counts
references as the kernel and the engine do, and hands them back.
"""

import errno
import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ringmount.workers.api import (
    ROOT,
    Context,
    DirectoryBuffer,
    DirectoryPlusBuffer,
    Earlier,
    Entry,
    Filesystem,
    Handle,
    Mount,
    NodeId,
)


@dataclass
class FakeContext:
    """A caller; root by default."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    umask: int = 0
    pid: int = 1
    unique: int = 2
    interrupted: bool = False
    kill_suidgid: bool = False
    earlier: Earlier | None = None

    def begin(self, *before: int) -> None:
        pass

    def done(self, result: int = 0) -> None:
        pass


@dataclass
class FakeTimeouts:
    attr: float = 1.0
    entry: float = 1.0
    negative: float = 0.0


class FakeNodes:
    """The nodes' table as a dict. Numbers are not reused."""

    def __init__(self, root: bytes = b"") -> None:
        self._values: dict[int, bytes] = {ROOT: root}
        self._keys: dict[int, bytes] = {}
        self._counts: Counter[int] = Counter()
        self._next = ROOT + 1
        self.watched: set[int] = set()

    def take(self, key: bytes, value: bytes) -> NodeId:
        node = self.find(key)
        if node is None:
            node = NodeId(self._next)
            self._next += 1
            self._values[node] = value
            self._keys[node] = key
        self._counts[node] += 1
        return node

    def find(self, key: bytes) -> NodeId | None:
        return next((NodeId(node) for node, its in self._keys.items() if its == key), None)

    def value(self, node: NodeId) -> bytes:
        self._check(node)
        return self._values[node]

    def replace(self, node: NodeId, value: bytes) -> None:
        self._check(node)
        self._values[node] = value

    def rekey(self, node: NodeId, key: bytes | None) -> None:
        self._check(node)
        if key is None:
            self._keys.pop(node, None)
        elif self.find(key) not in (None, node):
            raise OSError(errno.EEXIST, "the key is in use")
        else:
            self._keys[node] = key

    def key(self, node: NodeId) -> bytes | None:
        self._check(node)
        return self._keys.get(node)

    def watch(self, node: NodeId) -> None:
        self._check(node)
        self.watched.add(node)

    def give_back(self, node: NodeId, count: int = 1) -> bool:
        self._counts[node] -= count
        if node == ROOT or self._counts[node] > 0:
            return False
        self._values.pop(node, None)
        self._keys.pop(node, None)
        return True

    def __len__(self) -> int:
        """Nodes besides the root."""
        return len(self._values) - 1

    def _check(self, node: NodeId) -> None:
        if node not in self._values:
            raise OSError(errno.ESTALE, "no such node")


class FakeHandles:
    """The handles' table as a dict."""

    reopen_descriptor: Callable[[NodeId, int], int] | None = None

    def __init__(self) -> None:
        self.open: dict[int, tuple[NodeId, int, int]] = {}
        self.locals: dict[int, Any] = {}
        self._next = 1

    def add(self, node: NodeId, flags: int, fd: int = -1) -> Handle:
        fh = Handle(self._next)
        self._next += 1
        self.open[fh] = node, flags, fd
        return fh

    def fd(self, fh: Handle) -> int:
        return self._row(fh)[2]

    def info(self, fh: Handle) -> tuple[NodeId, int]:
        return self._row(fh)[:2]

    def remove(self, fh: Handle) -> int:
        fd = self._row(fh)[2]
        del self.open[fh]
        self.locals.pop(fh, None)
        return fd

    def keep(self, fh: Handle) -> None:
        self._row(fh)

    def losing_name(self, found: os.stat_result) -> None:
        pass

    def set_local(self, fh: Handle, value: Any) -> None:
        self._row(fh)
        self.locals[fh] = value

    def local(self, fh: Handle) -> Any:
        self._row(fh)
        return self.locals[fh]

    def _row(self, fh: Handle) -> tuple[NodeId, int, int]:
        try:
            return self.open[fh]
        except KeyError:
            raise OSError(errno.EBADF, "no such handle") from None


class FakeNotify:
    """Remembers what the kernel would have been told: method names and arguments, in order."""

    def __init__(self) -> None:
        self.sent: list[tuple[str | int | bytes | bool, ...]] = []

    def inval_inode(self, node: NodeId, offset: int = 0, length: int = 0) -> None:
        self.sent.append(("inval_inode", node, offset, length))

    def inval_entry(self, parent: NodeId, name: bytes, expire_only: bool = False) -> None:
        self.sent.append(("inval_entry", parent, name, expire_only))

    def delete(self, parent: NodeId, child: NodeId, name: bytes) -> None:
        self.sent.append(("delete", parent, child, name))

    def store(self, node: NodeId, offset: int, data: bytes) -> None:
        self.sent.append(("store", node, offset, data))

    def poll(self, kh: int) -> None:
        self.sent.append(("poll", kh))


class FakeIo:
    """The ring's operations as ordinary system calls."""

    async def read(self, fd: int, buffer: memoryview, offset: int) -> int:
        return os.preadv(fd, [buffer], offset)

    async def write(self, fd: int, data: memoryview, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    async def fsync(self, fd: int, datasync: bool = False) -> None:
        (os.fdatasync if datasync else os.fsync)(fd)


@dataclass
class FakeMount:
    """A mount of one worker."""

    name: str = "test"
    mountpoint: str = "/mnt/test"
    read_only: bool = False
    default_permissions: bool = True
    writeback: bool = False
    timeouts: FakeTimeouts = field(default_factory=FakeTimeouts)
    nodes: FakeNodes = field(default_factory=FakeNodes)
    handles: FakeHandles = field(default_factory=FakeHandles)
    notify: FakeNotify = field(default_factory=FakeNotify)
    io: FakeIo = field(default_factory=FakeIo)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("ringmount.test"))
    worker: int = 0
    workers: int = 1
    max_write: int = 1 << 20
    unwatched: FakeTimeouts | None = None
    watches_folders: bool = False
    own_fds: set[int] = field(default_factory=set)

    def own_fd(self, fd: int) -> int:
        self.own_fds.add(fd)
        return fd

    def watch(self, folder: int) -> bool:
        return True

    def disown_fd(self, fd: int) -> None:
        self.own_fds.remove(fd)


class FakeDirectoryBuffer:
    """Takes the entries that fit into `size` bytes: each a struct fuse_dirent (24), its name and padding."""

    def __init__(self, size: int = 1 << 20) -> None:
        self.free = size
        self.entries: list[tuple[bytes, int, int, int]] = []
        """Name, inode number, type bits, next offset."""

    @property
    def names(self) -> list[bytes]:
        return [entry[0] for entry in self.entries]

    def fits(self, name: bytes) -> bool:
        return self._size(name) <= self.free

    def add(self, name: bytes, ino: int, mode: int, next_offset: int) -> bool:
        if not self.fits(name):
            return False
        self.free -= self._size(name)
        self.entries.append((name, ino, mode, next_offset))
        return True

    def _size(self, name: bytes) -> int:
        return (24 + len(name) + 7) & ~7


class FakeDirectoryPlusBuffer:
    """The same for struct fuse_direntplus. `kernel` is told of the references that are passed on."""

    def __init__(self, kernel: "Kernel | None" = None, size: int = 1 << 20) -> None:
        self.free = size
        self.entries: list[tuple[bytes, Entry, int]] = []
        """Name, entry, next offset."""
        self._kernel = kernel

    @property
    def names(self) -> list[bytes]:
        return [entry[0] for entry in self.entries]

    def fits(self, name: bytes) -> bool:
        return self._size(name) <= self.free

    def add(self, name: bytes, entry: Entry, next_offset: int) -> bool:
        if not self.fits(name):
            return False
        self.free -= self._size(name)
        self.entries.append((name, entry, next_offset))
        if self._kernel is not None:
            self._kernel.took(entry)
        return True

    def _size(self, name: bytes) -> int:
        return (152 + len(name) + 7) & ~7


class Kernel:
    """The references that a filesystem has given out, and the one who gives them back."""

    def __init__(self, filesystem: Filesystem) -> None:
        self.filesystem = filesystem
        self.references: Counter[int] = Counter()

    def took(self, entry: Entry) -> NodeId:
        """Counts an entry that a method returned. Returns its node."""
        if entry.node:
            self.references[entry.node] += 1
        return NodeId(entry.node)

    def forget(self, node: NodeId) -> None:
        """Gives back all references on a node; the filesystem is told, as under the policy `single`."""
        if self.references.pop(node, 0) and node != ROOT:
            self.filesystem.forget(node)

    def forget_all(self) -> None:
        for node in list(self.references):
            self.forget(NodeId(node))


def _fit_the_protocols() -> tuple[Context, Mount, DirectoryBuffer, DirectoryPlusBuffer]:
    """For the type checker alone."""
    return FakeContext(), FakeMount(), FakeDirectoryBuffer(), FakeDirectoryPlusBuffer()
