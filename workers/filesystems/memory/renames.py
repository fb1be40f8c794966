"""Renaming, which is about two names: of one object perhaps, in one folder, or one above the other."""

import errno
import stat

from ringmount.workers.api import Context, NodeId
from ringmount.workers.filesystems.memory.inodes import Folder, Inode
from ringmount.workers.filesystems.memory.names import Names
from ringmount.workers.filesystems.memory.permission import W, X

RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
"""Flags of renameat2(2)."""


class Renames(Names):
    """All checks come first: a rename that fails has changed nothing."""

    def rename(
        self, ctx: Context, parent: NodeId, name: bytes, new_parent: NodeId, new_name: bytes, flags: int
    ) -> None:
        check_flags(flags)
        old, inode = self._existing(parent, name)
        new = self._living_folder(new_parent)
        self._check_length(new_name)
        target = new.get(new_name)
        if target is not None and flags & RENAME_NOREPLACE:
            raise OSError(errno.EEXIST, "the new name is taken")
        if target is None and flags & RENAME_EXCHANGE:
            raise OSError(errno.ENOENT, "there is nothing to exchange it with")
        if target is inode:
            return
        self._check_move(ctx, old, inode, new, target)
        now = self.clock()
        if target is not None and flags & RENAME_EXCHANGE:
            self._check_move(ctx, new, target, old, inode)
            old.replace(name, target)
            new.replace(new_name, inode)
            target.st_ctime_ns = now
        else:
            check_replaceable(inode, target)
            self._vacate(ctx, old, name, bool(flags & RENAME_WHITEOUT))
            if target is None:
                new.add(new_name, inode)
            else:
                new.replace(new_name, inode)
                self._lost_a_name(target, now)
        inode.st_ctime_ns = now
        old.modified(now)
        new.modified(now)

    def _check_move(self, ctx: Context, old: Folder, inode: Inode, new: Folder, target: Inode | None) -> None:
        """Whether the object may go from one folder into the other, and the target out of the way."""
        self.permission.demand_removal(ctx, old, inode)
        self.permission.demand(ctx, new, W | X)
        if target is not None:
            self.permission.demand_removal(ctx, new, target)
        if isinstance(inode, Folder) and old is not new:
            self.permission.demand(ctx, inode, W)
            if new.is_within(inode):
                raise OSError(errno.EINVAL, "a folder cannot go into itself")
            if not isinstance(target, Folder):
                self._check_links(new)

    def _vacate(self, ctx: Context, folder: Folder, name: bytes, whiteout: bool) -> None:
        """Takes the name away, or leaves a whiteout there, by which overlayfs tells that a name is gone."""
        if whiteout:
            inode = self._new(ctx, folder, stat.S_IFCHR)
            self._inodes[inode.st_ino] = inode
            folder.replace(name, inode)
        else:
            folder.remove(name)


def check_flags(flags: int) -> None:
    """Raises OSError EINVAL for flags that are not known or exclude each other."""
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT):
        raise OSError(errno.EINVAL, "flags that are not known")
    if flags & RENAME_EXCHANGE and flags != RENAME_EXCHANGE:
        raise OSError(errno.EINVAL, "flags that exclude each other")


def check_replaceable(inode: Inode, target: Inode | None) -> None:
    """Raises OSError ENOTDIR, EISDIR or ENOTEMPTY if the object may not take the target's name."""
    if isinstance(target, Folder):
        if not isinstance(inode, Folder):
            raise OSError(errno.EISDIR, "a folder is replaced by a folder only")
        if len(target):
            raise OSError(errno.ENOTEMPTY, "not empty")
    elif target is not None and isinstance(inode, Folder):
        raise OSError(errno.ENOTDIR, "a folder replaces a folder only")
