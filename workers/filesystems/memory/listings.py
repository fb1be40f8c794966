"""Reading folders. Offsets are the places of names, so that any handle, also a later one, may go on there."""

import stat

from ringmount.workers.api import (
    Context,
    DirectoryBuffer,
    DirectoryPlusBuffer,
    Entry,
    Handle,
    NodeId,
    Opened,
)
from ringmount.workers.filesystems.memory.base import Base
from ringmount.workers.filesystems.memory.inodes import Folder
from ringmount.workers.filesystems.memory.permission import R


class Listings(Base):
    """Folders are read name by name until the request's buffer is full."""

    def opendir(self, ctx: Context, node: NodeId, flags: int) -> Opened:
        folder = self._folder(node)
        self.permission.demand(ctx, folder, R)
        return Opened(self._handle(folder, flags))

    def readdir(self, ctx: Context, node: NodeId, fh: Handle, offset: int, out: DirectoryBuffer) -> None:
        folder = self._folder(node)
        self._accessed(folder, fh)
        for place, name, its in dots(folder, offset):
            if not out.add(name, its.st_ino, stat.S_IFDIR, place):
                return
        for place, name, inode in folder.after(offset):
            if not out.add(name, inode.st_ino, stat.S_IFMT(inode.st_mode), place):
                return

    def readdirplus(self, ctx: Context, node: NodeId, fh: Handle, offset: int, out: DirectoryPlusBuffer) -> None:
        folder = self._folder(node)
        self._accessed(folder, fh)
        for place, name, its in dots(folder, offset):
            if not out.add(name, Entry(0, its), place):
                return
        for place, name, inode in folder.after(offset):
            if not out.fits(name):
                return
            out.add(name, self._entry(inode), place)

    def releasedir(self, ctx: Context, node: NodeId, fh: Handle) -> None:
        self._closed(fh)

    def fsyncdir(self, ctx: Context, node: NodeId, fh: Handle, datasync: bool) -> None:
        """There is nothing more durable than memory to write to."""


def dots(folder: Folder, offset: int) -> list[tuple[int, bytes, Folder]]:
    """The names after `offset` that every folder has: each one's place, itself and what it means."""
    return [(1, b".", folder), (2, b"..", folder.parent)][offset:]
