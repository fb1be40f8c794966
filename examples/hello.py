"""The smallest filesystem: a folder with one file that never changes.

    mkdir -p /mnt/hello
    ringmount run examples/hello.yaml
    cat /mnt/hello/hello

It keeps nothing, so every worker has an object of its own and answers any request: the default policy, STATELESS.
docs/filesystems.md starts here.
"""

import errno
import stat

from ringmount.workers.api import ROOT, Attr, Context, DirectoryBuffer, Entry, Filesystem, Handle, NodeId

HELLO = NodeId(2)
TEXT = b"Hello, world!\n"


class Hello(Filesystem):
    """The four methods without which there is nothing to see."""

    def lookup(self, ctx: Context, parent: NodeId, name: bytes) -> Entry:
        if parent != ROOT or name != b"hello":
            raise OSError(errno.ENOENT, "no such file")
        return Entry(HELLO, self.getattr(ctx, HELLO, None))

    def getattr(self, ctx: Context, node: NodeId, fh: Handle | None) -> Attr:
        if node == ROOT:
            return Attr(st_ino=ROOT, st_mode=stat.S_IFDIR | 0o755, st_nlink=2)
        return Attr(st_ino=HELLO, st_mode=stat.S_IFREG | 0o444, st_size=len(TEXT))

    def readdir(self, ctx: Context, node: NodeId, fh: Handle, offset: int, out: DirectoryBuffer) -> None:
        if offset == 0:
            out.add(b"hello", HELLO, stat.S_IFREG, 1)

    def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> int:
        data = TEXT[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        return len(data)
