"""The memory filesystem with a kernel in front of it that counts references, and a clock that stands still."""

import os
import stat

from fakes import FakeContext, FakeDirectoryBuffer, FakeMount, Kernel

from ringmount.workers.api import ROOT, Attr, Handle, NodeId, SetAttr
from ringmount.workers.filesystems.memory import Memory, MemoryOptions

ROOT_USER = FakeContext()
ALICE = FakeContext(uid=1000, gid=1000, groups=(2000,))
BOB = FakeContext(uid=1001, gid=1001)

START = 1_000_000_000_000_000_000
SECOND = 1_000_000_000


def handle_of(node: NodeId) -> Handle:
    """What opening the object without O_NOATIME gives."""
    return Handle(node * 2)


class Clock:
    """Nanoseconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.ns = START

    def __call__(self) -> int:
        return self.ns

    def tick(self, seconds: int = 1) -> int:
        self.ns += seconds * SECOND
        return self.ns


class Driver:
    """Does what system calls do, as `ctx`, and keeps the books on references."""

    def __init__(
        self,
        kind: type[Memory] = Memory,
        *,
        size: int | str | None = "16MiB",
        inodes: int | None = None,
        mode: str = "0777",
        default_permissions: bool = True,
        read_only: bool = False,
    ) -> None:
        options = MemoryOptions(size=size, inodes=inodes, mode=mode, uid=0, gid=0)
        mount = FakeMount(default_permissions=default_permissions, read_only=read_only)
        self.fs = kind(options, mount)
        self.clock = self.fs.clock = Clock()
        self.kernel = Kernel(self.fs)
        self.fs.setattr(ROOT_USER, ROOT, SetAttr(atime_ns=START, mtime_ns=START), None)

    # --- names -----------------------------------------------------------------------------------

    def find(self, *names: bytes, ctx: FakeContext = ROOT_USER) -> NodeId:
        """The node at the end of the path; 0 if the last name does not exist."""
        node = ROOT
        for name in names:
            node = self.kernel.took(self.fs.lookup(ctx, node, name))
        return node

    def make(
        self,
        name: bytes,
        parent: NodeId = ROOT,
        *,
        mode: int = 0o644,
        data: bytes = b"",
        ctx: FakeContext = ROOT_USER,
    ) -> NodeId:
        """A file that is closed again."""
        entry, opened = self.fs.create(ctx, parent, name, mode, os.O_WRONLY)
        node = self.kernel.took(entry)
        if data:
            self.write(node, 0, data)
        self.fs.release(ctx, node, Handle(opened.fh), os.O_WRONLY, None)
        return node

    def mkdir(self, name: bytes, parent: NodeId = ROOT, *, mode: int = 0o755, ctx: FakeContext = ROOT_USER) -> NodeId:
        return self.kernel.took(self.fs.mkdir(ctx, parent, name, mode))

    def mknod(
        self,
        name: bytes,
        mode: int,
        rdev: int = 0,
        *,
        parent: NodeId = ROOT,
        ctx: FakeContext = ROOT_USER,
    ) -> NodeId:
        return self.kernel.took(self.fs.mknod(ctx, parent, name, mode, rdev))

    def symlink(self, name: bytes, target: bytes, parent: NodeId = ROOT, *, ctx: FakeContext = ROOT_USER) -> NodeId:
        return self.kernel.took(self.fs.symlink(ctx, parent, name, target))

    def link(self, node: NodeId, name: bytes, parent: NodeId = ROOT, *, ctx: FakeContext = ROOT_USER) -> NodeId:
        return self.kernel.took(self.fs.link(ctx, node, parent, name))

    def unlink(self, name: bytes, parent: NodeId = ROOT, *, ctx: FakeContext = ROOT_USER) -> None:
        self.fs.unlink(ctx, parent, name)

    def rmdir(self, name: bytes, parent: NodeId = ROOT, *, ctx: FakeContext = ROOT_USER) -> None:
        self.fs.rmdir(ctx, parent, name)

    def rename(
        self,
        name: bytes,
        new_name: bytes,
        *,
        parent: NodeId = ROOT,
        new_parent: NodeId = ROOT,
        flags: int = 0,
        ctx: FakeContext = ROOT_USER,
    ) -> None:
        self.fs.rename(ctx, parent, name, new_parent, new_name, flags)

    def names(self, node: NodeId = ROOT) -> list[bytes]:
        """What the folder holds, without `.` and `..`, the oldest first: a listing's order is the other one."""
        out = FakeDirectoryBuffer()
        self.fs.readdir(ROOT_USER, node, handle_of(node), 0, out)
        assert out.names[:2] == [b".", b".."]
        return out.names[:1:-1]

    # --- objects ---------------------------------------------------------------------------------

    def attr(self, node: NodeId) -> Attr:
        """The attributes as they are at this moment."""
        its = self.fs.getattr(ROOT_USER, node, None)
        return Attr(**{name: getattr(its, name) for name in Attr.__struct_fields__ if name != "timeout"})

    def mode(self, node: NodeId) -> int:
        return stat.S_IMODE(self.attr(node).st_mode)

    def setattr(
        self, node: NodeId, changes: SetAttr, *, ctx: FakeContext = ROOT_USER, fh: Handle | None = None
    ) -> None:
        self.fs.setattr(ctx, node, changes, fh)

    def read(self, node: NodeId, offset: int = 0, size: int = 1 << 20) -> bytes:
        """Reads into a buffer with something in it, as the kernel's are."""
        buffer = memoryview(bytearray(b"\xaa" * size))
        count = self.fs.read(ROOT_USER, node, handle_of(node), offset, buffer)
        assert buffer[count:] == b"\xaa" * (size - count)
        return bytes(buffer[:count])

    def write(self, node: NodeId, offset: int, data: bytes, *, flags: int = 0, ctx: FakeContext = ROOT_USER) -> int:
        return self.fs.write(ctx, node, handle_of(node), offset, memoryview(data), flags)

    def fallocate(self, node: NodeId, mode: int, offset: int, length: int, *, ctx: FakeContext = ROOT_USER) -> None:
        self.fs.fallocate(ctx, node, handle_of(node), mode, offset, length)

    def seek(self, node: NodeId, offset: int, whence: int) -> int:
        return self.fs.lseek(ROOT_USER, node, handle_of(node), offset, whence)

    def setxattr(
        self, node: NodeId, name: bytes, value: bytes, flags: int = 0, *, ctx: FakeContext = ROOT_USER
    ) -> None:
        self.fs.setxattr(ctx, node, name, memoryview(value), flags, kill_sgid=False)
