"""A filesystem over a library that blocks: a file is named after a computer and holds its addresses.

    cat /mnt/hosts/localhost    # 127.0.0.1, or ::1

socket.getaddrinfo() may wait for a name server for seconds, and there is no coroutine of it. `threads` sends all
methods of the class to threads, so that their worker answers others meanwhile.

A node's number says nothing about it, so what it means goes into `mount.nodes`, the table that all workers share:
one worker answers the lookup, and another one the read.

A mount's file needs two keys: `mountpoint: /mnt/hosts` and `filesystem: blocking:Hosts`.
"""

import errno
import socket
import stat

from ringmount.workers.abi import OpenReply
from ringmount.workers.api import ROOT, Attr, Context, DirectoryBuffer, Entry, Filesystem, Handle, NodeId, Opened

NOT_A_NAME = {socket.EAI_NONAME, socket.EAI_NODATA}


def addresses(name: bytes) -> bytes:
    """The addresses of a computer, one a line. Blocks. Raises OSError ENOENT if there is none, EIO if nobody knows."""
    try:
        found = socket.getaddrinfo(name.decode("ascii"), None, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError(errno.ENOENT, "no name of a computer") from None
    except socket.gaierror as error:
        # gaierror is an OSError, but what it has in `errno` is a number of another kind.
        raise OSError(errno.ENOENT if error.errno in NOT_A_NAME else errno.EIO, str(error)) from error
    lines = dict.fromkeys(str(address[0]) for *_, address in found)
    return "".join(f"{line}\n" for line in lines).encode()


class Hosts(Filesystem):
    """Methods run on `threads` threads in each worker, several at a time: what they share must be fit for that."""

    threads = 8

    def lookup(self, ctx: Context, parent: NodeId, name: bytes) -> Entry:
        if parent != ROOT:
            raise OSError(errno.ENOTDIR, "not a folder")
        addresses(name)
        # Every call takes one reference for the kernel, which gives it back when it forgets the file.
        node = self.mount.nodes.take(key=name, value=name)
        return Entry(node, self.getattr(ctx, node, None))

    def getattr(self, ctx: Context, node: NodeId, fh: Handle | None) -> Attr:
        if node == ROOT:
            return Attr(st_ino=ROOT, st_mode=stat.S_IFDIR | 0o755, st_nlink=2)
        return Attr(st_ino=node, st_mode=stat.S_IFREG | 0o444)

    def readdir(self, ctx: Context, node: NodeId, fh: Handle, offset: int, out: DirectoryBuffer) -> None:
        """Nobody can list all computers: the folder shows none, and finds those that are asked for."""

    def open(self, ctx: Context, node: NodeId, flags: int) -> Opened:
        # The size is told as 0, because it is not known before reading: with direct I/O the kernel asks all the same.
        return Opened(flags=int(OpenReply.DIRECT_IO))

    def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> int:
        data = addresses(self.mount.nodes.value(node))[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        return len(data)
