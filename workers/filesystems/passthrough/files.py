"""Files: opened, read, written, and what else is done with an open file.

Where a write belongs
    The kernel sends each WRITE with an offset, for O_APPEND the end of the file as it knows it. A descriptor with
    O_APPEND would append whatever the offset is: wrong for a page of a shared mapping, which the kernel writes
    through any handle of the file, and wrong once the caller has cleared the flag (F_SETFL). The offset alone would
    overwrite what another process has appended beneath since the kernel last looked. So each write says which it
    is: RWF_APPEND if `flags` has O_APPEND (the caller's flags at the time of the write), else RWF_NOAPPEND.

O_DIRECT
    Is passed on. What the filesystem beneath refuses for its alignment is done again without O_DIRECT, which is then
    off for that open file: the buffer's alignment is ours and not the caller's, and pages of a mapping, or a caller
    who cleared the flag for the last odd block (as dd(1) does), come by the same handle. So the mount asks for no
    alignment.

What the kernel reads and writes by itself (`data: passthrough`)
    Every open file is offered, but two kinds. One that has S_ISUID or S_ISGID and is opened for writing: which writes
    clear these bits depends on the caller, and the kernel writes with the rights of the worker (native/opens.c). And a
    file of a read-only mount whose access time the kernel's own reading would change.

What waits for a disk
    A read takes what is in the page cache, and leaves the rest to the worker's ring (`ReadFrom`), so that other
    requests do not wait for it; so does fsync. Writes go to the page cache and are done at once.
"""

import errno
import fcntl
import os
import stat

from ringmount.workers import system
from ringmount.workers.abi import WriteFlags
from ringmount.workers.api import Context, Handle, Mount, NodeId, Opened, ReadFrom, SyncOf, repeatable
from ringmount.workers.filesystems.passthrough import again
from ringmount.workers.filesystems.passthrough.base import Base
from ringmount.workers.filesystems.passthrough.openflags import KNOWS_NOAPPEND
from ringmount.workers.filesystems.passthrough.options import Options

KILL = int(WriteFlags.KILL_SUIDGID)
NOWAIT = os.RWF_NOWAIT
O_APPEND = os.O_APPEND
RWF_APPEND = system.RWF_APPEND
RWF_NOAPPEND = system.RWF_NOAPPEND if KNOWS_NOAPPEND else 0

COPY_MOST = 4 << 20
"""Bytes of one copy_file_range(2), after which other requests get their turn."""

FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_IOC_GETVERSION = 0x80087601
FS_IOC_FSGETXATTR = 0x801C581F
FS_IOC_FSSETXATTR = 0x401C5820
IOCTLS = {FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_GETVERSION, FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR}
"""lsattr(1), chattr(1) and the like: about the inode, with nothing in their argument that points elsewhere."""
IOCTL_LARGEST = 28


class Files(Base):
    """The operations on files."""

    def __init__(self, options: Options, mount: Mount) -> None:
        super().__init__(options, mount)
        in_memory = self.kind in (system.TMPFS_MAGIC, system.RAMFS_MAGIC)
        self.read_flags = 0 if in_memory else NOWAIT  # tmpfs refuses RWF_NOWAIT, and has nothing to wait for
        self._fd = mount.handles.fd
        self.offers = not self.objects.leaves_traces
        """Whether files are offered to the kernel."""

    def open(self, ctx: Context, node: NodeId, flags: int) -> Opened:
        if flags & os.O_TRUNC and ctx.kill_suidgid:
            with self.objects.borrow(node) as path_fd, self.credentials.privilege_free(ctx, path_fd):
                fd = self.open_beneath(node, flags)
        else:
            fd = self.open_beneath(node, flags)
        return self.opened(node, flags, fd, self.reply(flags, fd), self.offered(flags, fd))

    def offered(self, flags: int, fd: int) -> int:
        """The descriptor that is offered to the kernel, or -1."""
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if not self.offers or (writes and os.fstat(fd).st_mode & (stat.S_ISUID | stat.S_ISGID)):
            return -1
        return fd

    def read(self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview) -> int | ReadFrom:
        fd = self._fd(fh)
        try:
            done = size = os.preadv(fd, [buffer], offset, self.read_flags)
            while size and done < len(buffer):  # the end of the file, or of what is in memory
                size = os.preadv(fd, [buffer[done:]], offset + done, self.read_flags)
                done += size
        except BlockingIOError:
            return ReadFrom(fd, offset)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP and self.read_flags:
                return ReadFrom(fd, offset)
            if error.errno == errno.EINVAL and clear_flag(fd, os.O_DIRECT):
                return os.preadv(fd, [buffer], offset)
            raise
        return done

    @repeatable
    def write(self, ctx: Context, node: NodeId, fh: Handle, offset: int, data: memoryview, flags: int) -> int:
        fd = self._fd(fh)
        if flags & KILL:
            with self.credentials.privilege_free(ctx, fd):
                return self._write(ctx, fd, offset, data, flags)
        return self._write(ctx, fd, offset, data, flags)

    @staticmethod
    def _write(ctx: Context, fd: int, offset: int, data: memoryview, flags: int) -> int:
        if flags & O_APPEND:
            return again.append(ctx, fd, data, lambda rest: write_at(fd, rest, offset, RWF_APPEND))
        return write_at(fd, data, offset, RWF_NOAPPEND)

    def flush(self, ctx: Context, node: NodeId, fh: Handle, lock_owner: int) -> None:
        """Closing any descriptor of the file makes the filesystem beneath report what it has kept back (NFS does)."""
        os.close(self.objects.descriptors.with_room(os.dup, self._fd(fh)))

    def release(self, ctx: Context, node: NodeId, fh: Handle, flags: int, flock_owner: int | None) -> None:
        self.close(fh)

    def fsync(self, ctx: Context, node: NodeId, fh: Handle, datasync: bool) -> SyncOf:
        return SyncOf(self._fd(fh), datasync)

    def fallocate(self, ctx: Context, node: NodeId, fh: Handle, mode: int, offset: int, length: int) -> None:
        fd = self._fd(fh)
        with self.credentials.privilege_free(ctx, fd, ctx.uid != 0):
            system.fallocate(fd, mode, offset, length)

    def lseek(self, ctx: Context, node: NodeId, fh: Handle, offset: int, whence: int) -> int:
        """Moves the position of the descriptor beneath too, which nothing uses."""
        return os.lseek(self._fd(fh), offset, whence)

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
            raise OSError(errno.EINVAL, "no flags are known")
        fd, fd_out, length = self._fd(fh), self._fd(fh_out), min(length, COPY_MOST)
        with self.credentials.privilege_free(ctx, fd_out, ctx.uid != 0):
            try:
                return os.copy_file_range(fd, fd_out, length, offset, offset_out)
            except OSError as error:  # the kernel has refused callers with O_APPEND, so this one took it off
                if error.errno == errno.EBADF and clear_flag(fd_out, os.O_APPEND):
                    return os.copy_file_range(fd, fd_out, length, offset, offset_out)
                raise

    @repeatable  # each of IOCTLS asks, or sets all that it changes
    def ioctl(
        self,
        ctx: Context,
        node: NodeId,
        fh: Handle,
        command: int,
        argument: int,
        flags: int,
        data: memoryview,
        out_size: int,
    ) -> tuple[int, bytes]:
        if command not in IOCTLS:
            raise OSError(errno.ENOTTY, "an ioctl that is not passed on")
        argument_bytes = bytearray(max(IOCTL_LARGEST, len(data), out_size))
        argument_bytes[: len(data)] = data
        result = fcntl.ioctl(self._fd(fh), command, argument_bytes)
        return result, bytes(argument_bytes[:out_size])


def write_at(fd: int, data: memoryview, offset: int, how: int) -> int:
    """pwritev2(2). `how`: RWF_APPEND or RWF_NOAPPEND."""
    try:
        return os.pwritev(fd, [data], offset, how)
    except OSError as error:
        if error.errno == errno.EPERM and how == RWF_NOAPPEND:  # the append-only attribute allows nothing else
            return os.pwritev(fd, [data], offset, RWF_APPEND)
        if error.errno == errno.EINVAL and clear_flag(fd, os.O_DIRECT):
            return os.pwritev(fd, [data], offset, how)
        raise


def clear_flag(fd: int, flag: int) -> bool:
    """Takes O_DIRECT or O_APPEND off an open file; False if it was not on."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & flag:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~flag)
    return bool(flags & flag)
