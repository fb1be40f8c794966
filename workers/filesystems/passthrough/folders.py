"""Folders: opened, listed.

A handle's descriptor has one position, which each listing sets before it reads. Two listings of one handle do not
meet: the kernel holds the file position lock of the caller's file during getdents64(2) (fdget_pos), and a handle is
one such file.
"""

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from ringmount.workers import system
from ringmount.workers.api import (
    ROOT,
    Attr,
    Context,
    DirectoryBuffer,
    DirectoryPlusBuffer,
    Entry,
    Handle,
    NodeId,
    Opened,
    StatfsLike,
    SyncOf,
)
from ringmount.workers.filesystems.passthrough.base import Base

DIRENT = struct.Struct("<QqHB")
"""struct linux_dirent64 (getdents64(2)): d_ino, d_off, d_reclen, d_type; then the name."""

LISTING = 32 << 10
LISTING_PLUS = 4 << 10
"""Bytes read at a time: about what fits into one reply, of names alone and of names with attributes."""


class Dirent(NamedTuple):
    """A name in a folder. `mode`: the type bits of st_mode, or 0; `after`: the offset of what follows."""

    name: bytes
    ino: int
    mode: int
    after: int


def dirents(fd: int, offset: int, size: int) -> Iterator[Dirent]:
    """The names of an open folder after `offset`, read `size` bytes at a time."""
    buffer = bytearray(size)
    while filled := system.getdents(fd, offset, buffer):
        at = 0
        while at < filled:
            ino, after, length, kind = DIRENT.unpack_from(buffer, at)
            start = at + DIRENT.size
            yield Dirent(bytes(buffer[start : buffer.index(0, start)]), ino, kind << 12, after)
            at += length
        offset = -1


class Folders(Base):
    """The operations on folders, and on the filesystem as a whole."""

    def opendir(self, ctx: Context, node: NodeId, flags: int) -> Opened:
        fd = self.objects.open(node, os.O_RDONLY | os.O_DIRECTORY)
        return self.opened(node, flags, fd)

    def readdir(self, ctx: Context, node: NodeId, fh: Handle, offset: int, out: DirectoryBuffer) -> None:
        for name, ino, mode, after in self._listing(node, fh, offset, LISTING):
            if not out.add(name, ino, mode, after):
                return

    def readdirplus(self, ctx: Context, node: NodeId, fh: Handle, offset: int, out: DirectoryPlusBuffer) -> None:
        fd = self.handles.fd(fh)
        for name, ino, mode, after in self._listing(node, fh, offset, LISTING_PLUS):
            if not out.fits(name):
                return
            try:
                entry = self._plus(node, fd, name, ino, mode)
            except FileNotFoundError:
                continue  # removed since it was listed
            if not out.add(name, entry, after):
                if entry.node:
                    self.mount.nodes.give_back(NodeId(entry.node))
                return

    def _listing(self, node: NodeId, fh: Handle, offset: int, size: int) -> Iterator[Dirent]:
        """The folder's names with the inode numbers that the mount shows."""
        fd = self.handles.fd(fh)
        listing = dirents(fd, offset, size)
        device = os.fstat(fd).st_dev
        if node != ROOT and device == self.objects.device:
            return listing
        return (self._shown(node, device, dirent) for dirent in listing)

    def _shown(self, node: NodeId, device: int, dirent: Dirent) -> Dirent:
        if node == ROOT and dirent.name == b"..":  # what is above the source is not part of the mount
            return dirent._replace(ino=os.fstat(self.objects.root).st_ino)
        return dirent._replace(ino=self.objects.shown_number(dirent.ino, device))

    def _plus(self, node: NodeId, folder: int, name: bytes, ino: int, mode: int) -> Entry:
        """The name's entry; without a node for `.`, `..`, and what cannot be looked up: who opens it will hear why."""
        if name not in (b".", b".."):
            try:
                return self.objects.entry(node, folder, name, keep=False)
            except FileNotFoundError:
                raise
            except OSError as error:
                self.mount.log.debug("readdirplus of %r: %s", name, error.strerror)
        return Entry(0, Attr(st_ino=ino, st_mode=mode))

    def releasedir(self, ctx: Context, node: NodeId, fh: Handle) -> None:
        self.close(fh)

    def fsyncdir(self, ctx: Context, node: NodeId, fh: Handle, datasync: bool) -> SyncOf:
        return SyncOf(self.handles.fd(fh), datasync)

    def statfs(self, ctx: Context, node: NodeId) -> StatfsLike:
        with self.objects.borrow(node) as fd:
            return os.fstatvfs(fd)

    def syncfs(self, ctx: Context, node: NodeId) -> None:
        system.syncfs(self.objects.top)
