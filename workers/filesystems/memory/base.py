"""The table of objects, and how they come and go."""

import errno
import os
import stat
import time
from collections.abc import Callable
from itertools import count

from ringmount.workers.api import (
    ROOT,
    Context,
    Entry,
    Filesystem,
    Handle,
    HandlePolicy,
    Mount,
    NodeId,
    Statfs,
)
from ringmount.workers.filesystems.memory.inodes import File, Folder, Inode
from ringmount.workers.filesystems.memory.options import MemoryOptions
from ringmount.workers.filesystems.memory.permission import ByKernel, ByMode, mode_without_privileges
from ringmount.workers.filesystems.memory.space import PAGE, Space

NAME_MAX = 255
"""Bytes in a name; the kernel passes longer ones on, for a filesystem that takes them."""

NUMBERS_OF_A_LIFE = 1 << 40
"""Numbers for objects that one worker has: the next one starts after them, so that none means two objects."""

PRIVILEGE = b"security.capability"
"""The extended attribute that gives a program privileges."""


class Base(Filesystem):
    """Objects by their number, and handles: twice their object's number, and 1 more if reading leaves no trace.

    An object leaves the table when it has no name, the kernel has forgotten it and no handle is open.
    """

    Options = MemoryOptions
    handle_policy = HandlePolicy.SINGLE
    posix_acl = True
    handle_killpriv = True
    export = True

    options: MemoryOptions

    def __init__(self, options: MemoryOptions, mount: Mount) -> None:
        super().__init__(options, mount)
        self.clock: Callable[[], int] = time.time_ns
        self.space = Space(options.size_limit(), options.inode_limit())
        self.permission = ByKernel() if mount.default_permissions else ByMode()
        # The kernel shows a name that it remembers to everybody, so where it does not check it must not remember.
        self._entry_timeout = None if mount.default_permissions else 0.0
        self._numbers = count(ROOT + 1 + self._life() * NUMBERS_OF_A_LIFE)
        self._inodes: dict[int, Inode] = {}
        uid = os.getuid() if options.uid is None else options.uid
        gid = os.getgid() if options.gid is None else options.gid
        self.space.take_inode()
        root = Folder(ROOT, stat.S_IFDIR | options.root_mode(), uid, gid, self.clock())
        self._inodes[ROOT] = root

    def _life(self) -> int:
        """How many workers served this mount before. Theirs is lost, but the kernel still has the numbers."""
        nodes = self.mount.nodes
        life = int.from_bytes(nodes.value(ROOT), "little")
        nodes.replace(ROOT, (life + 1).to_bytes(4, "little"))
        return life

    def forget(self, node: NodeId) -> None:
        inode = self._inodes.get(node)
        if inode is not None:
            inode.is_known = False
            self._drop_unused(inode)

    def statfs(self, ctx: Context, node: NodeId) -> Statfs:
        space = self.space
        blocks = space.size // PAGE
        free = space.free // PAGE
        return Statfs(
            f_bsize=PAGE,
            f_frsize=PAGE,
            f_blocks=blocks,
            f_bfree=free,
            f_bavail=free,
            f_files=space.inodes,
            f_ffree=space.inodes - space.inodes_used,
            f_namemax=NAME_MAX,
        )

    def syncfs(self, ctx: Context, node: NodeId) -> None:
        """There is nothing more durable than memory to write to."""

    def _inode(self, node: int) -> Inode:
        try:
            return self._inodes[node]
        except KeyError:
            raise OSError(errno.ESTALE, "no such node") from None

    def _folder(self, node: int) -> Folder:
        inode = self._inode(node)
        if not isinstance(inode, Folder):
            raise OSError(errno.ENOTDIR, "not a folder")
        return inode

    def _file(self, node: int) -> File:
        inode = self._inode(node)
        if not isinstance(inode, File):
            raise OSError(errno.EISDIR if isinstance(inode, Folder) else errno.EINVAL, "not a regular file")
        return inode

    def _entry(self, inode: Inode) -> Entry:
        """The answer that names the object, taking a reference for the kernel."""
        inode.is_known = True
        return Entry(inode.st_ino, inode, 0, self._entry_timeout)

    def _modified(self, ctx: Context, inode: Inode, kill_suidgid: bool) -> None:
        """The caller changed the contents."""
        inode.modified(self.clock())
        self._drop_privileges(ctx, inode, kill_suidgid)

    def _drop_privileges(self, ctx: Context, inode: Inode, kill_suidgid: bool) -> None:
        """A program that is changed or gets another owner loses these: file_remove_privs() in the kernel."""
        if inode.xattrs.get(PRIVILEGE):  # an empty one is none (cap_inode_need_killpriv)
            self._store_xattr(inode, PRIVILEGE, None)
        if kill_suidgid and inode.st_mode & (stat.S_ISUID | stat.S_ISGID):
            inode.st_mode = mode_without_privileges(ctx, inode)

    def _store_xattr(self, inode: Inode, name: bytes, value: bytes | None) -> None:
        """Sets an extended attribute, or removes it. Raises OSError ENOSPC, with nothing changed."""
        kept = {other: its for other, its in inode.xattrs.items() if other != name}
        if value is not None:
            kept[name] = value
        self.space.take(xattrs_size(kept) - xattrs_size(inode.xattrs))
        inode.xattrs = kept

    def _accessed(self, inode: Inode, fh: int = 0) -> None:
        if not (self.mount.read_only or fh & 1):
            inode.accessed(self.clock())

    def _handle(self, inode: Inode, flags: int) -> int:
        """A new handle of the object."""
        inode.opens += 1
        return inode.st_ino * 2 + bool(flags & os.O_NOATIME)

    def _closed(self, fh: Handle) -> None:
        """A handle was released; errors would be ignored."""
        inode = self._inodes.get(fh // 2)
        if inode is not None:
            inode.opens -= 1
            self._drop_unused(inode)

    def _drop_unused(self, inode: Inode) -> None:
        if inode.is_unused:
            del self._inodes[inode.st_ino]
            inode.clear()
            self.space.take(-xattrs_size(inode.xattrs))
            self.space.give_inode()


def xattrs_size(xattrs: dict[bytes, bytes]) -> int:
    """Bytes that an object's extended attributes are counted as."""
    return sum(len(name) + len(value) for name, value in xattrs.items())
