"""Attributes, extended attributes, access control lists."""

import errno
import os
import stat

from ringmount.workers import system
from ringmount.workers.api import AttrLike, Context, Handle, NodeId, SetAttr, Statx, repeatable
from ringmount.workers.filesystems.passthrough import again
from ringmount.workers.filesystems.passthrough.base import Base
from ringmount.workers.filesystems.passthrough.objects import proc_path

ACL_PREFIX = b"system.posix_acl_"
TRUSTED_PREFIX = b"trusted."


def is_empty(changes: SetAttr) -> bool:
    """True if nothing is to be changed: ctime, which comes with `writeback`, is the filesystem's beneath."""
    named = (changes.mode, changes.uid, changes.gid, changes.size, changes.atime_ns, changes.mtime_ns)
    return all(change is None for change in named)


def chown(fd: int, changes: SetAttr) -> None:
    """chown(2), with which the filesystem beneath clears S_ISUID and the like.

    A SETATTR that changes nothing is chown(-1, -1), which anybody may do: fuse_setattr takes out the flags that say
    what it is to clear. Or it announces a write that must clear the same (file_remove_privs).
    """
    uid = -1 if changes.uid is None else changes.uid
    gid = -1 if changes.gid is None else changes.gid
    os.chown(proc_path(fd), uid, gid)


class Attributes(Base):
    """The operations on attributes."""

    def getattr(self, ctx: Context, node: NodeId, fh: Handle | None) -> AttrLike:
        if fh is None:
            return self.objects.attributes(node)
        return self.objects.attributes_of(self.handles.fd(fh), is_open=True)

    def statx(self, ctx: Context, node: NodeId, fh: Handle | None, flags: int, mask: int) -> Statx:
        if fh is not None:
            return self._statx(self.handles.fd(fh), flags, mask, is_open=True)
        with self.objects.borrow(node) as fd:
            return self._statx(fd, flags, mask)

    def _statx(self, fd: int, flags: int, mask: int, is_open: bool = False) -> Statx:
        more = system.statx(fd, flags, mask | system.STATX_BTIME)
        attr = self.objects.attributes_of(fd, is_open)
        known = system.STATX_BASIC_STATS | more.mask & system.STATX_BTIME
        return Statx(attr, known, more.btime_ns, more.attributes, more.attributes_mask)

    def setattr(self, ctx: Context, node: NodeId, changes: SetAttr, fh: Handle | None) -> AttrLike:
        with self.objects.borrow(node) as fd:
            if changes.uid is not None or changes.gid is not None or is_empty(changes):
                with self.credentials.privilege_free(ctx, fd, ctx.uid != 0):
                    chown(fd, changes)
            if changes.mode is not None:
                os.chmod(proc_path(fd), stat.S_IMODE(changes.mode))
            if changes.size is not None:
                with self.credentials.privilege_free(ctx, fd, changes.kill_suidgid):
                    os.truncate(proc_path(fd) if fh is None else self.handles.fd(fh), changes.size)
            if changes.atime_ns is not None or changes.mtime_ns is not None:  # last, because a truncate sets it
                self._set_times(fd, changes)
            return self.objects.shown(os.fstat(fd))

    def _set_times(self, fd: int, changes: SetAttr) -> None:
        """With `writeback` the kernel tells the time of a write afterwards (fuse_flush_times), for whoever has written:
        where its owner alone may set it, the time of the WRITE stays."""
        try:
            system.utimens(fd, changes.atime_ns, changes.mtime_ns)
        except PermissionError:
            if changes.ctime_ns is None:
                raise

    def access(self, ctx: Context, node: NodeId, mask: int) -> None:
        with self.objects.borrow(node) as fd:
            system.access(fd, mask)

    # --- extended attributes --------------------------------------------------------------------------------------

    def getxattr(self, ctx: Context, node: NodeId, name: bytes) -> bytes:
        """For an access control list the kernel asks in its own permission checks, and would take EOPNOTSUPP (from a
        filesystem without lists) for a refusal (__fuse_get_acl): there is no list, then."""
        is_acl = name.startswith(ACL_PREFIX)
        if not self.options.xattr:
            raise OSError(errno.ENODATA if is_acl else errno.EOPNOTSUPP, "extended attributes are off")
        try:
            with self.objects.borrow(node) as fd:
                return os.getxattr(proc_path(fd), name)
        except OSError as error:
            if is_acl and error.errno == errno.EOPNOTSUPP:
                raise OSError(errno.ENODATA, "no lists here") from None
            raise

    def listxattr(self, ctx: Context, node: NodeId) -> list[bytes]:
        if not self.options.xattr:
            return []
        with self.objects.borrow(node) as fd:
            names = [os.fsencode(name) for name in os.listxattr(proc_path(fd))]
        # The worker sees more than its caller may (simple_xattr_list, CAP_SYS_ADMIN).
        return names if ctx.uid == 0 else [name for name in names if not name.startswith(TRUSTED_PREFIX)]

    @repeatable
    def setxattr(self, ctx: Context, node: NodeId, name: bytes, value: memoryview, flags: int, kill_sgid: bool) -> None:
        self._need_xattr()
        with self.objects.borrow(node) as fd:
            path = proc_path(fd)
            if flags & os.XATTR_CREATE:
                if again.had_xattr(ctx) is not False or not again.has_xattr(path, name):
                    ctx.begin(again.has_xattr(path, name))
                    os.setxattr(path, name, value, flags)
                    ctx.done()
            else:
                os.setxattr(path, name, value, flags)
            if kill_sgid:
                os.chmod(path, stat.S_IMODE(os.fstat(fd).st_mode) & ~stat.S_ISGID)

    @repeatable
    def removexattr(self, ctx: Context, node: NodeId, name: bytes) -> None:
        self._need_xattr()
        with self.objects.borrow(node) as fd:
            path = proc_path(fd)
            if again.had_xattr(ctx) and not again.has_xattr(path, name):
                return
            ctx.begin(again.has_xattr(path, name))
            os.removexattr(path, name)
            ctx.done()

    def _need_xattr(self) -> None:
        if not self.options.xattr:
            raise OSError(errno.EOPNOTSUPP, "extended attributes are off")
