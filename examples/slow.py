"""A filesystem that waits: a file's name is the number of seconds that reading it takes.

    cat /mnt/slow/0.5       # waited 0.5 s
    cat /mnt/slow/30        # Ctrl-C ends it at once
    ls -l /mnt/slow         # works meanwhile

`read` is a coroutine. While it waits, its worker answers other requests; when a signal comes to the caller (the
kernel sends FUSE_INTERRUPT), it is cancelled and the caller's read(2) fails with EINTR. A node's number says how
long its file takes, so nothing is kept and every worker can answer.

A mount's file needs two keys: `mountpoint: /mnt/slow` and `filesystem: slow:Slow`.
"""

import asyncio
import errno
import re
import stat

from ringmount.workers.abi import OpenReply
from ringmount.workers.api import ROOT, Attr, Context, DirectoryBuffer, Entry, Filesystem, Handle, NodeId, Opened

NAME = re.compile(rb"[0-9]{1,4}(\.[0-9]{1,3})?")
SHOWN = (b"0", b"0.1", b"1", b"10")
"""The names that a listing shows; any other number of seconds is there too."""


def node_of(name: bytes) -> NodeId:
    """The node of a file: its milliseconds, after the root's number. Raises OSError ENOENT."""
    if not NAME.fullmatch(name):
        raise OSError(errno.ENOENT, "a name here is a number of seconds")
    return NodeId(ROOT + 1 + round(float(name) * 1000))


def seconds_of(node: NodeId) -> float:
    """How long reading the file takes."""
    return (node - ROOT - 1) / 1000


def text_of(node: NodeId) -> bytes:
    """What is in the file."""
    return b"waited %g s\n" % seconds_of(node)


class Slow(Filesystem):
    """Plain methods and coroutines may be mixed: only what waits has to be a coroutine."""

    def lookup(self, ctx: Context, parent: NodeId, name: bytes) -> Entry:
        if parent != ROOT:
            raise OSError(errno.ENOTDIR, "not a folder")
        node = node_of(name)
        return Entry(node, self.getattr(ctx, node, None))

    def getattr(self, ctx: Context, node: NodeId, fh: Handle | None) -> Attr:
        if node == ROOT:
            return Attr(st_ino=ROOT, st_mode=stat.S_IFDIR | 0o755, st_nlink=2)
        return Attr(st_ino=node, st_mode=stat.S_IFREG | 0o444, st_size=len(text_of(node)))

    def readdir(self, ctx: Context, node: NodeId, fh: Handle, offset: int, out: DirectoryBuffer) -> None:
        for place, name in enumerate(SHOWN[offset:], offset + 1):
            if not out.add(name, node_of(name), stat.S_IFREG, place):
                return

    def open(self, ctx: Context, node: NodeId, flags: int) -> Opened:
        # With direct I/O each read(2) is one request, sent by the caller itself. Otherwise the kernel reads ahead into
        # its cache, and the caller waits for a page, which no signal but a deadly one can end.
        return Opened(flags=int(OpenReply.DIRECT_IO))

    async def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> int:
        data = text_of(node)[offset : offset + len(buffer)]
        if offset == 0:
            try:
                await asyncio.sleep(seconds_of(node))
            except asyncio.CancelledError:
                self.mount.log.info("request %d: its caller does not wait any longer", ctx.unique)
                raise
        buffer[: len(data)] = data
        return len(data)
