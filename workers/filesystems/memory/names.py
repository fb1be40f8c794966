"""Names: finding objects by them, giving and taking them. The kernel holds the folder's lock meanwhile."""

import errno
import os
import stat

from ringmount.workers.api import Context, Entry, NodeId
from ringmount.workers.filesystems.memory import acl
from ringmount.workers.filesystems.memory.base import NAME_MAX, Base, xattrs_size
from ringmount.workers.filesystems.memory.inodes import MAX_LINKS, File, Folder, Inode, Symlink
from ringmount.workers.filesystems.memory.permission import W, X, is_member

MAX_TARGET = 4095
"""Bytes in a symbolic link's target: PATH_MAX without its NUL."""


class Names(Base):
    """What a caller makes is the caller's; a setgid folder passes on its group, a default list its rules."""

    def lookup(self, ctx: Context, parent: NodeId, name: bytes) -> Entry:
        if name == b".":
            return self._entry(self._inode(parent))
        folder = self._folder(parent)
        self.permission.demand(ctx, folder, X)
        inode = self._inode(folder.parent.st_ino) if name == b".." else folder.get(name)
        if inode is None:
            self._check_length(name)
            return Entry(0, None, 0, self._entry_timeout)
        return self._entry(inode)

    def readlink(self, ctx: Context, node: NodeId) -> bytes:
        inode = self._inode(node)
        if not isinstance(inode, Symlink):
            raise OSError(errno.EINVAL, "not a symbolic link")
        self._accessed(inode)
        return inode.target

    def symlink(self, ctx: Context, parent: NodeId, name: bytes, target: bytes) -> Entry:
        if len(target) > MAX_TARGET:
            raise OSError(errno.ENAMETOOLONG, "the target is too long")
        folder = self._folder_for_new(ctx, parent, name)
        gid = self._new_gid(ctx, folder)
        self.space.take_inode()
        inode = Symlink(next(self._numbers), stat.S_IFLNK | 0o777, ctx.uid, gid, self.clock(), target)
        return self._named(folder, name, inode)

    def mknod(self, ctx: Context, parent: NodeId, name: bytes, mode: int, rdev: int) -> Entry:
        folder = self._folder_for_new(ctx, parent, name)
        return self._named(folder, name, self._new(ctx, folder, mode, rdev))

    def mkdir(self, ctx: Context, parent: NodeId, name: bytes, mode: int) -> Entry:
        folder = self._folder_for_new(ctx, parent, name)
        self._check_links(folder)
        return self._named(folder, name, self._new(ctx, folder, stat.S_IFDIR | mode & 0o7777))

    def unlink(self, ctx: Context, parent: NodeId, name: bytes) -> None:
        folder, inode = self._existing(parent, name)
        self.permission.demand_removal(ctx, folder, inode)
        if isinstance(inode, Folder):
            raise OSError(errno.EISDIR, "a folder")
        self._remove(folder, name, inode)

    def rmdir(self, ctx: Context, parent: NodeId, name: bytes) -> None:
        folder, inode = self._existing(parent, name)
        self.permission.demand_removal(ctx, folder, inode)
        if not isinstance(inode, Folder):
            raise OSError(errno.ENOTDIR, "not a folder")
        if len(inode):
            raise OSError(errno.ENOTEMPTY, "not empty")
        self._remove(folder, name, inode)

    def link(self, ctx: Context, node: NodeId, new_parent: NodeId, new_name: bytes) -> Entry:
        inode = self._inode(node)
        if isinstance(inode, Folder):
            raise OSError(errno.EPERM, "a folder has one name")
        folder = self._folder_for_new(ctx, new_parent, new_name)
        if not inode.st_nlink and not inode.is_linkable:
            raise OSError(errno.ENOENT, "its last name was removed")
        self._check_links(inode)
        inode.st_nlink += 1
        inode.is_linkable = False
        inode.st_ctime_ns = self.clock()
        return self._named(folder, new_name, inode)

    # --- making ---------------------------------------------------------------------------------

    def _new(self, ctx: Context, folder: Folder, mode: int, rdev: int = 0) -> Inode:
        """A new object of the caller's, without a name yet. Raises OSError ENOSPC."""
        gid = self._new_gid(ctx, folder)
        kind = stat.S_IFMT(mode)
        if folder.st_mode & stat.S_ISGID:
            # As mode_strip_sgid() in the kernel: who is not in the group makes no programs that run as it.
            if kind == stat.S_IFDIR:
                mode |= stat.S_ISGID
            elif mode & stat.S_IXGRP and ctx.uid != 0 and not is_member(ctx, gid):
                mode &= ~stat.S_ISGID
        mode, xattrs = self._inherit(ctx, folder, mode)
        size = xattrs_size(xattrs)
        self.space.take(size)
        try:
            self.space.take_inode()
        except OSError:
            self.space.take(-size)
            raise
        inode = self._of_kind(kind, mode, ctx.uid, gid, rdev)
        inode.xattrs = xattrs
        return inode

    def _of_kind(self, kind: int, mode: int, uid: int, gid: int, rdev: int) -> Inode:
        number = next(self._numbers)
        if kind == stat.S_IFDIR:
            return Folder(number, mode, uid, gid, self.clock())
        if kind in (0, stat.S_IFREG):
            return File(number, stat.S_IFREG | mode, uid, gid, self.clock(), self.space)
        if kind not in (stat.S_IFCHR, stat.S_IFBLK):
            rdev = 0
        return Inode(number, mode, uid, gid, self.clock(), rdev)

    def _inherit(self, ctx: Context, folder: Folder, mode: int) -> tuple[int, dict[bytes, bytes]]:
        """Mode and lists of an object made in the folder: by its default list, or else by the umask."""
        default = folder.xattrs.get(acl.DEFAULT)
        if default is None:
            return mode & ~ctx.umask, {}
        rules = acl.inherited(acl.decode(default), mode)
        xattrs = {} if acl.is_minimal(rules) else {acl.ACCESS: acl.encode(rules)}
        if stat.S_ISDIR(mode):
            xattrs[acl.DEFAULT] = default
        return acl.to_mode(rules, mode), xattrs

    def _new_gid(self, ctx: Context, folder: Folder) -> int:
        return folder.st_gid if folder.st_mode & stat.S_ISGID else ctx.gid

    def _named(self, folder: Folder, name: bytes, inode: Inode) -> Entry:
        """Gives the object a name that is free."""
        self._inodes[inode.st_ino] = inode
        folder.add(name, inode)
        folder.modified(inode.st_ctime_ns)
        return self._entry(inode)

    # --- taking away ----------------------------------------------------------------------------

    def _remove(self, folder: Folder, name: bytes, inode: Inode) -> None:
        folder.remove(name)
        now = self.clock()
        folder.modified(now)
        self._lost_a_name(inode, now)

    def _lost_a_name(self, inode: Inode, now: int) -> None:
        inode.st_nlink = 0 if isinstance(inode, Folder) else inode.st_nlink - 1
        inode.st_ctime_ns = now
        self._drop_unused(inode)

    # --- checks ---------------------------------------------------------------------------------

    def _living_folder(self, node: NodeId) -> Folder:
        folder = self._folder(node)
        if not folder.st_nlink:
            raise OSError(errno.ENOENT, "the folder was removed")
        return folder

    def _folder_for_new(self, ctx: Context, parent: NodeId, name: bytes) -> Folder:
        """The folder, if the caller may make this name in it and it is free."""
        folder = self._living_folder(parent)
        self._check_length(name)
        if folder.get(name) is not None:
            raise OSError(errno.EEXIST, "the name is taken")
        self.permission.demand(ctx, folder, W | X)
        return folder

    def _existing(self, parent: NodeId, name: bytes) -> tuple[Folder, Inode]:
        folder = self._folder(parent)
        inode = folder.get(name)
        if inode is None:
            self._check_length(name)
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return folder, inode

    def _check_length(self, name: bytes) -> None:
        if len(name) > NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, "names have at most 255 bytes")

    def _check_links(self, inode: Inode) -> None:
        if inode.st_nlink >= MAX_LINKS:
            raise OSError(errno.EMLINK, "it has too many names")
