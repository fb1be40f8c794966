"""Attributes, extended attributes and access control lists."""

import errno
import os
import stat
from collections.abc import Iterable

from ringmount.workers.api import NOW, Context, Handle, NodeId, SetAttr, Statx
from ringmount.workers.filesystems.memory import acl
from ringmount.workers.filesystems.memory.base import Base
from ringmount.workers.filesystems.memory.chunks import check_end
from ringmount.workers.filesystems.memory.inodes import File, Folder, Inode, Symlink
from ringmount.workers.filesystems.memory.permission import ByMode, R, W

NAMESPACES = (b"user.", b"trusted.", b"security.")
"""Where extended attributes may be. Lists come beside them, as `acl.NAMES`."""

VALUE_MAX = 65_536
"""Bytes in an extended attribute's value (XATTR_SIZE_MAX)."""

STATX_BASIC_AND_BTIME = 0xFFF

NO_CHANGE = SetAttr()


class Attributes(Base):
    """Objects are their own attributes, so the ones that are returned change with them."""

    def getattr(self, ctx: Context, node: NodeId, fh: Handle | None) -> Inode:
        return self._inode(node)

    def statx(self, ctx: Context, node: NodeId, fh: Handle | None, flags: int, mask: int) -> Statx:
        inode = self._inode(node)
        return Statx(inode, STATX_BASIC_AND_BTIME, inode.btime_ns)

    def setattr(self, ctx: Context, node: NodeId, changes: SetAttr, fh: Handle | None) -> Inode:
        inode = self._inode(node)
        self.permission.demand_change(ctx, inode, changes, fh is not None)
        now = self.clock()
        mode = inode.st_mode
        # As tmpfs: truncate(2) of a file without blocks to the size that it has changes no times; ftruncate(2) does.
        is_same = changes == SetAttr(size=inode.st_size, kill_suidgid=changes.kill_suidgid)
        is_idle = is_same and fh is None and not inode.st_blocks and stat.S_ISREG(mode)
        if changes.size is not None and not is_idle:
            self._resize(inode, changes.size, now)
        if changes.uid is not None:
            inode.st_uid = changes.uid
        if changes.gid is not None:
            inode.st_gid = changes.gid
        if changes.mode is not None:
            self._chmod(inode, self.permission.granted_mode(ctx, inode.st_gid, changes.mode))
        if not isinstance(inode, Folder):
            self._drop_privileges_by(ctx, inode, changes)
        if changes.atime_ns is not None:
            inode.st_atime_ns = now if changes.atime_ns == NOW else changes.atime_ns
        if changes.mtime_ns is not None:
            inode.st_mtime_ns = now if changes.mtime_ns == NOW else changes.mtime_ns
        if changes.ctime_ns is not None:
            inode.st_ctime_ns = changes.ctime_ns
        elif not is_idle or inode.st_mode != mode:
            inode.st_ctime_ns = now
        return inode

    def access(self, ctx: Context, node: NodeId, mask: int) -> None:
        ByMode().demand(ctx, self._inode(node), mask)

    # --- extended attributes --------------------------------------------------------------------

    def getxattr(self, ctx: Context, node: NodeId, name: bytes) -> bytes:
        inode = self._inode(node)
        self._check_xattr(ctx, inode, name, R)
        value = inode.xattrs.get(name)
        if value is None:
            raise OSError(errno.ENODATA, "no such attribute")
        return value

    def listxattr(self, ctx: Context, node: NodeId) -> Iterable[bytes]:
        names = self._inode(node).xattrs
        return [name for name in names if ctx.uid == 0 or not name.startswith(b"trusted.")]

    def setxattr(self, ctx: Context, node: NodeId, name: bytes, value: memoryview, flags: int, kill_sgid: bool) -> None:
        inode = self._inode(node)
        self._check_xattr(ctx, inode, name, W)
        if len(value) > VALUE_MAX:
            raise OSError(errno.E2BIG, "the value is too long")
        if name in acl.NAMES:
            self._set_acl(inode, name, acl.decode(bytes(value)), kill_sgid)
        elif flags & os.XATTR_CREATE and name in inode.xattrs:
            raise OSError(errno.EEXIST, "the attribute exists")
        elif flags & os.XATTR_REPLACE and name not in inode.xattrs:
            raise OSError(errno.ENODATA, "no such attribute")
        else:
            self._store_xattr(inode, name, bytes(value))
        inode.st_ctime_ns = self.clock()

    def removexattr(self, ctx: Context, node: NodeId, name: bytes) -> None:
        inode = self._inode(node)
        self._check_xattr(ctx, inode, name, W)
        # A list that is not there says what the mode says: vfs_remove_acl() succeeds.
        if name not in inode.xattrs and name not in acl.NAMES:
            raise OSError(errno.ENODATA, "no such attribute")
        self._store_xattr(inode, name, None)
        inode.st_ctime_ns = self.clock()

    def _check_xattr(self, ctx: Context, inode: Inode, name: bytes, mask: int) -> None:
        """Whether such an attribute can be there, and the caller may read (R) or change (W) it."""
        if name in acl.NAMES:
            # Who decides by mode alone would ignore the list.
            if not self.mount.default_permissions or isinstance(inode, Symlink):
                raise OSError(errno.EOPNOTSUPP, "no access control lists here")
            if name == acl.DEFAULT and mask == W and not isinstance(inode, Folder):
                raise OSError(errno.EACCES, "only a folder has a default list")
        elif not name.startswith(NAMESPACES):
            raise OSError(errno.EOPNOTSUPP, "no such namespace")
        elif name in NAMESPACES:
            raise OSError(errno.EINVAL, "a namespace is no name")
        elif name.startswith(b"user."):
            # xattr(7): the modes of other objects say nothing about who may attach data to them.
            if not isinstance(inode, File | Folder):
                raise OSError(errno.EPERM if mask == W else errno.ENODATA, "not a file or folder")
            self.permission.demand(ctx, inode, mask)

    def _set_acl(self, inode: Inode, name: bytes, rules: acl.Acl, kill_sgid: bool) -> None:
        is_needed = bool(rules) and (name == acl.DEFAULT or not acl.is_minimal(rules))
        self._store_xattr(inode, name, acl.encode(rules) if is_needed else None)
        if name == acl.ACCESS and rules:
            inode.st_mode = acl.to_mode(rules, inode.st_mode)
        if kill_sgid:
            inode.st_mode &= ~stat.S_ISGID

    # --- changes --------------------------------------------------------------------------------

    def _drop_privileges_by(self, ctx: Context, inode: Inode, changes: SetAttr) -> None:
        # chown(-1, -1) drops them too, but it names nothing: what is left of it is a request for no change, or with
        # `writeback` for that of ctime.
        is_chown_of_nothing = changes in (NO_CHANGE, SetAttr(ctime_ns=changes.ctime_ns))
        if is_chown_of_nothing or (changes.size, changes.uid, changes.gid) != (None, None, None):
            self._drop_privileges(ctx, inode, changes.kill_suidgid or is_chown_of_nothing)

    def _resize(self, inode: Inode, size: int, now: int) -> None:
        if not isinstance(inode, File):
            raise OSError(errno.EISDIR if isinstance(inode, Folder) else errno.EINVAL, "not a regular file")
        check_end(size)
        inode.chunks.resize(size)
        inode.st_mtime_ns = now

    def _chmod(self, inode: Inode, mode: int) -> None:
        inode.st_mode = stat.S_IFMT(inode.st_mode) | stat.S_IMODE(mode)
        if (value := inode.xattrs.get(acl.ACCESS)) is not None:
            self._store_xattr(inode, acl.ACCESS, acl.encode(acl.with_mode(acl.decode(value), mode)))
