"""Whose rights a system call uses: the worker's own, or those of the process that asks.

The kernel keeps ids and capabilities per thread; glibc's setgroups(2) changes them in all threads, hence the
raw calls of `ringmount.workers.system`. An ordinary user's worker has nothing to switch with: all is done as
that user.

What two capabilities are about:

- CAP_FSETID: a write by who has it leaves S_ISUID and S_ISGID alone (setattr_should_drop_suidgid in the kernel's
  fs/attr.c). Without it, the filesystem beneath clears them itself, and security.capability, within the write.
- CAP_SYS_RESOURCE: a write by who has it may exceed disk quotas (ignore_hardlimit in fs/quota/dquot.c). Workers
  write on behalf of others, so they give it up for good.

The rule: whatever is changed here is put back before the method returns.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from ringmount.workers import system
from ringmount.workers._native import ffi
from ringmount.workers.api import Context
from ringmount.workers.system import Capabilities

NOBODY_ELSE: AbstractContextManager[None] = nullcontext()


class Credentials:
    """The rights of this worker's thread. `checks`: the filesystem, not the kernel, decides what a caller may do."""

    def __init__(self, checks: bool) -> None:
        own = system.capabilities()
        self.own = own._replace(effective=own.effective & ~system.CAP_SYS_RESOURCE)
        if self.own != own:
            system.set_capabilities(self.own)
        needed = system.CAP_SETUID | system.CAP_SETGID
        self.switches = own.effective & needed == needed
        self.checks = checks and self.switches
        self.uid, self.gid = os.geteuid(), os.getegid()
        self.groups = tuple(os.getgroups())
        self.acting: ActingAs | None = None
        self.umask = ffi.new("uint32_t *")
        """The process's umask(2). native/fast_ids.c sets it, too."""
        os.umask(0)
        self._without_fsetid = self.own._replace(effective=self.own.effective & ~system.CAP_FSETID)
        self._privilege_free = WithCapabilities(self._without_fsetid, self.own)

    def owner(self, ctx: Context) -> AbstractContextManager[None]:
        """Makes the caller own what is created, with the caller's umask.

        The worker keeps its capabilities: the kernel has checked the caller already, by the caller's groups and
        capabilities, and decided about S_ISGID (vfs_prepare_mode in its fs/namei.c); beneath it would be done
        once more without knowing them. The umask is set rather than applied to the mode, because a default ACL
        takes its place (acl(5)): the filesystem beneath knows.
        """
        if ctx.umask != self.umask[0]:  # only `owner` makes files, so the last caller's can stay
            os.umask(ctx.umask)
            self.umask[0] = ctx.umask
        if self.checks or not self.switches or (ctx.uid == self.uid and ctx.gid == self.gid):
            return NOBODY_ELSE
        return ActingAs(self, ctx.uid, ctx.gid, self.groups, self.own)

    def caller(self, ctx: Context) -> AbstractContextManager[None]:
        """Makes the filesystem beneath check the caller's rights, groups included. Root as the caller is the worker."""
        if not self.checks or (ctx.uid == self.uid == 0 and ctx.gid == self.gid):
            return NOBODY_ELSE
        return ActingAs(self, ctx.uid, ctx.gid, ctx.groups, None)

    def worker(self) -> AbstractContextManager[None]:
        """Within `caller`: the worker's own rights again."""
        return NOBODY_ELSE if self.acting is None else self._own_again(self.acting)

    @contextmanager
    def _own_again(self, acting: "ActingAs") -> Iterator[None]:
        acting.__exit__()
        try:
            yield
        finally:
            acting.__enter__()

    def privilege_free(self, ctx: Context, fd: int, needed: bool = True) -> AbstractContextManager[None]:
        """Makes a write to the file at `fd` clear what a write by this caller clears: S_ISUID, and S_ISGID.

        S_ISGID of a file that is not group-executable stays for the members of its group
        (setattr_should_drop_sgid), so there the groups count as well. Within `caller` that is so already.
        """
        if not needed or not self.switches or self.acting is not None:
            return NOBODY_ELSE
        mode = os.fstat(fd).st_mode
        if not mode & (stat.S_ISUID | stat.S_ISGID):
            return NOBODY_ELSE
        if mode & (stat.S_ISGID | stat.S_IXGRP) == stat.S_ISGID:
            return ActingAs(self, self.uid, ctx.gid, ctx.groups, self._without_fsetid)
        return self._privilege_free


class ActingAs:
    """Files are accessed as another user. `capabilities` None: with those that the kernel leaves to that user."""

    def __init__(
        self,
        credentials: Credentials,
        uid: int,
        gid: int,
        groups: tuple[int, ...],
        capabilities: Capabilities | None,
    ) -> None:
        self.credentials = credentials
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.capabilities = capabilities

    def __enter__(self) -> None:
        """Switches; all or nothing."""
        try:
            if self.groups != self.credentials.groups:
                system.set_groups(self.groups)
            system.act_as(self.uid, self.gid, self.capabilities)
        except BaseException:
            self.__exit__()
            raise
        if self.capabilities is None:  # otherwise what `worker` is for is allowed as it is
            self.credentials.acting = self

    def __exit__(self, *exception: object) -> None:
        """Switches back. A worker that cannot is of no use any more, and dangerous."""
        own = self.credentials
        own.acting = None
        try:
            system.act_as(own.uid, own.gid, own.own)
            if self.groups != own.groups:
                system.set_groups(own.groups)
        except OSError:
            os.abort()


class WithCapabilities:
    """Other capabilities for a while."""

    def __init__(self, sets: Capabilities, before: Capabilities) -> None:
        self.sets = sets
        self.before = before

    def __enter__(self) -> None:
        system.set_capabilities(self.sets)

    def __exit__(self, *exception: object) -> None:
        system.set_capabilities(self.before)
