"""Files' contents, and the handles through which they are read and written."""

import errno
import os
import stat
from typing import ClassVar

from ringmount.workers.abi import OpenReply, WriteFlags
from ringmount.workers.api import Context, Entry, Handle, NodeId, Opened
from ringmount.workers.filesystems.memory.chunks import check_end
from ringmount.workers.filesystems.memory.names import Names
from ringmount.workers.filesystems.memory.permission import R, W, X

FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE = 0x01, 0x02, 0x10
"""Modes of fallocate(2). The kernel passes on no others (fuse_file_fallocate)."""

COPY_AT_ONCE = 16 << 20
"""Bytes that one `copy_file_range` copies, so that others do not wait for long; callers ask for the rest."""

FMODE_EXEC = 0x20
"""Among the flags of an open for execve(2)."""

_WRITE_KILL_SUIDGID = int(WriteFlags.KILL_SUIDGID)
_MASKS = {os.O_RDONLY: R, os.O_WRONLY: W, os.O_RDWR: R | W}


class Files(Names):
    """Contents change by requests alone, so the kernel may keep its pages from one `open` to the next."""

    open_flags: ClassVar[int] = int(OpenReply.KEEP_CACHE | OpenReply.NOFLUSH)
    """How the kernel treats open files: with NOFLUSH it sends no `flush`, which has nothing to do here."""

    def open(self, ctx: Context, node: NodeId, flags: int) -> Opened:
        file = self._file(node)
        mask = X if flags & FMODE_EXEC else _MASKS.get(flags & os.O_ACCMODE, 0)
        self.permission.demand(ctx, file, mask | W if flags & os.O_TRUNC else mask)
        if flags & os.O_TRUNC:
            file.chunks.resize(0)
            self._modified(ctx, file, ctx.kill_suidgid)
        return Opened(self._handle(file, flags), self.open_flags)

    def create(self, ctx: Context, parent: NodeId, name: bytes, mode: int, flags: int) -> tuple[Entry, Opened]:
        found = self._living_folder(parent).get(name)
        if found is not None and not flags & os.O_EXCL:
            opened = self.open(ctx, NodeId(found.st_ino), flags)
            return self._entry(found), opened
        folder = self._folder_for_new(ctx, parent, name)
        file = self._new(ctx, folder, stat.S_IFREG | mode & 0o7777)
        return self._named(folder, name, file), Opened(self._handle(file, flags), self.open_flags)

    def tmpfile(self, ctx: Context, parent: NodeId, mode: int, flags: int) -> tuple[Entry, Opened]:
        folder = self._living_folder(parent)
        self.permission.demand(ctx, folder, W | X)
        file = self._new(ctx, folder, stat.S_IFREG | mode & 0o7777)
        file.st_nlink = 0
        file.is_linkable = not flags & os.O_EXCL
        self._inodes[file.st_ino] = file
        return self._entry(file), Opened(self._handle(file, flags), self.open_flags)

    def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> int:
        file = self._file(node)
        count = file.chunks.read(offset, buffer)
        self._accessed(file, fh)
        return count

    def write(self, ctx: Context, node: NodeId, fh: Handle, offset: int, data: memoryview, flags: int) -> int:
        file = self._file(node)
        check_end(offset + len(data))
        count = file.chunks.write(offset, data)
        if count:
            self._modified(ctx, file, bool(flags & _WRITE_KILL_SUIDGID))
        return count

    def flush(self, ctx: Context, node: NodeId, fh: Handle, lock_owner: int) -> None:
        """Nothing is held back that could fail when a file is closed."""

    def release(self, ctx: Context, node: NodeId, fh: Handle, flags: int, flock_owner: int | None) -> None:
        self._closed(fh)

    def fsync(self, ctx: Context, node: NodeId, fh: Handle, datasync: bool) -> None:
        """There is nothing more durable than memory to write to."""

    def fallocate(self, ctx: Context, node: NodeId, fh: Handle, mode: int, offset: int, length: int) -> None:
        file = self._file(node)
        check_end(offset + length)
        keeps_size = bool(mode & FALLOC_KEEP_SIZE)
        action = mode & ~FALLOC_KEEP_SIZE
        if action == 0:
            file.chunks.allocate(offset, length)
        elif action == FALLOC_PUNCH_HOLE and keeps_size:
            file.chunks.punch(offset, length)
        elif action == FALLOC_ZERO_RANGE:
            file.chunks.zero(offset, length)
        else:
            raise OSError(errno.EOPNOTSUPP, "a mode that is not known")
        if not keeps_size:
            file.chunks.size = max(file.chunks.size, offset + length)
        self._modified(ctx, file, ctx.uid != 0)

    def lseek(self, ctx: Context, node: NodeId, fh: Handle, offset: int, whence: int) -> int:
        chunks = self._file(node).chunks
        if offset < 0:
            raise OSError(errno.ENXIO, "before the start")
        if whence == os.SEEK_DATA:
            return chunks.seek_data(offset)
        if whence == os.SEEK_HOLE:
            return chunks.seek_hole(offset)
        raise OSError(errno.EINVAL, "only SEEK_DATA and SEEK_HOLE are the filesystem's")

    def copy_file_range(
        self,
        ctx: Context,
        node: NodeId,
        fh: Handle,
        offset: int,
        node_out: NodeId,
        fh_out: Handle,
        offset_out: int,
        length: int,
        flags: int,
    ) -> int:
        if flags:
            raise OSError(errno.EINVAL, "flags that are not known")
        source, target = self._file(node), self._file(node_out)
        length = min(length, COPY_AT_ONCE)
        check_end(offset_out + length)
        count = target.chunks.copy(offset_out, source.chunks, offset, length)
        self._accessed(source, fh)
        if count:
            self._modified(ctx, target, ctx.uid != 0)
        return count
