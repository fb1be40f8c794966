"""Who may do what: left to the kernel, or decided by mode and owner as the kernel would.

The second is for mounts whose `default_permissions` is off.
"""

import errno
import stat

from ringmount.workers.api import NOW, Context, SetAttr
from ringmount.workers.filesystems.memory.inodes import Folder, Inode

R, W, X = 4, 2, 1
"""As in access(2)."""


def is_member(ctx: Context, gid: int) -> bool:
    """Whether the caller is in the group."""
    return ctx.gid == gid or gid in ctx.groups


def mode_without_privileges(ctx: Context, inode: Inode) -> int:
    """The mode after a change by the caller: setattr_should_drop_suidgid() in the kernel.

    S_ISGID of a file that its group may not execute gives no privileges: it stays for those who could set it.
    """
    mode = inode.st_mode & ~stat.S_ISUID
    if mode & stat.S_IXGRP or (ctx.uid != 0 and not is_member(ctx, inode.st_gid)):
        mode &= ~stat.S_ISGID
    return mode


class ByKernel:
    """The kernel has checked: everything that arrives is permitted."""

    def demand(self, ctx: Context, inode: Inode, mask: int) -> None:
        """Raises OSError EACCES unless the caller may do all of `mask` (R, W, X)."""

    def demand_removal(self, ctx: Context, folder: Folder, inode: Inode) -> None:
        """May the caller take this object's name out of the folder?

        Raises OSError EACCES, or EPERM in a sticky folder.
        """

    def demand_change(self, ctx: Context, inode: Inode, changes: SetAttr, is_open: bool) -> None:
        """May the caller change these attributes? `is_open`: through a handle, for a size one that may write.

        Raises OSError EPERM, or EACCES where the permission to write is enough.
        """

    def granted_mode(self, ctx: Context, gid: int, mode: int) -> int:
        """What chmod(2) makes of `mode` for an object of this group: others than members lose S_ISGID."""
        return mode


class ByMode(ByKernel):
    """Mode and owner decide; root may do everything but execute what nobody may execute."""

    def demand(self, ctx: Context, inode: Inode, mask: int) -> None:
        mode = inode.st_mode
        if ctx.uid == 0:
            granted = 7 if stat.S_ISDIR(mode) or mode & 0o111 else R | W
        elif ctx.uid == inode.st_uid:
            granted = mode >> 6
        elif is_member(ctx, inode.st_gid):
            granted = mode >> 3
        else:
            granted = mode
        if mask & ~granted:
            raise OSError(errno.EACCES, "not permitted by the mode")

    def demand_removal(self, ctx: Context, folder: Folder, inode: Inode) -> None:
        self.demand(ctx, folder, W | X)
        if folder.st_mode & stat.S_ISVTX and ctx.uid not in (0, folder.st_uid, inode.st_uid):
            raise OSError(errno.EPERM, "the folder is sticky and the object another's")

    def demand_change(self, ctx: Context, inode: Inode, changes: SetAttr, is_open: bool) -> None:
        if changes.size is not None and not is_open:
            self.demand(ctx, inode, W)
        if ctx.uid == 0:
            return
        is_owner = ctx.uid == inode.st_uid
        new_owner = changes.uid is not None and not (is_owner and changes.uid == inode.st_uid)
        new_group = changes.gid is not None and not (
            is_owner and (changes.gid == inode.st_gid or is_member(ctx, changes.gid))
        )
        if new_owner or new_group or (changes.mode is not None and not is_owner):
            raise OSError(errno.EPERM, "not the owner")
        times = {changes.atime_ns, changes.mtime_ns} - {None}
        if times and changes.size is None and not is_owner:
            if times != {NOW}:
                raise OSError(errno.EPERM, "not the owner")
            self.demand(ctx, inode, W)

    def granted_mode(self, ctx: Context, gid: int, mode: int) -> int:
        return mode if ctx.uid == 0 or is_member(ctx, gid) else mode & ~stat.S_ISGID
