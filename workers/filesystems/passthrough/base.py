"""What all parts of the passthrough filesystem share: options, the objects beneath, open files, rights."""

import errno
import fcntl
import os
import resource
from collections.abc import Callable
from typing import Any, ClassVar

from ringmount.workers import system
from ringmount.workers.abi import OpenReply
from ringmount.workers.api import Context, Filesystem, Handle, HandlePolicy, Mount, NodeId, Opened, Watched
from ringmount.workers.filesystems.passthrough import options as opts
from ringmount.workers.filesystems.passthrough.credentials import Credentials
from ringmount.workers.filesystems.passthrough.identity import BY_HANDLE, BY_NAME, DEVICE
from ringmount.workers.filesystems.passthrough.objects import Objects
from ringmount.workers.filesystems.passthrough.openflags import backing_flags

NOFLUSH = int(OpenReply.NOFLUSH)
DIRECT_IO = int(OpenReply.DIRECT_IO)

SILENT = (system.TMPFS_MAGIC, system.RAMFS_MAGIC, system.EXT_MAGIC, system.XFS_MAGIC, system.BTRFS_MAGIC)
"""Filesystems without `flush` in their file_operations: close(2) of a file that was written has nothing to report."""

RESERVE = 32
"""Descriptors that open files leave to each worker."""

CHECKED = (
    "lookup",
    "symlink",
    "mknod",
    "mkdir",
    "unlink",
    "rmdir",
    "rename",
    "link",
    "setattr",
    "access",
    "getxattr",
    "listxattr",
    "setxattr",
    "removexattr",
    "open",
    "create",
    "tmpfile",
    "opendir",
    "readdirplus",
)
"""The methods whose success depends on who asks. The others act on what is open already."""


class Base(Filesystem):
    """State and start of a passthrough filesystem. `Passthrough` says what it is."""

    Options = opts.Options
    handle_policy: ClassVar = HandlePolicy.SHARED
    needs_root: ClassVar = True
    owns_descriptors: ClassVar = True
    posix_acl: ClassVar = True
    handle_killpriv: ClassVar = True
    backing_files: ClassVar = True

    silent_reply: ClassVar = NOFLUSH
    """FOPEN_* for a file whose close(2) has nothing to report: it was only read, or its filesystem is SILENT."""

    options: opts.Options

    def __init__(self, options: opts.Options, mount: Mount) -> None:
        super().__init__(options, mount)
        self.credentials = Credentials(checks=not mount.default_permissions)
        self.objects = Objects(options.source, mount, self.credentials)
        self.handles = mount.handles
        self.handles.reopen_descriptor = self._open_again
        self.kind = system.filesystem_type(self.objects.top)
        """The source's type of filesystem: one of the *_MAGIC numbers."""
        self.written_reply = self.silent_reply if self.kind in SILENT else 0
        """FOPEN_* for a file of the source's own filesystem that is open for writing."""
        self.fd_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVE * mount.workers
        """Open files take no descriptor from here on: lookups need some for a moment."""
        if self.credentials.checks:
            for name in CHECKED:
                setattr(self, name, as_caller(self.credentials, getattr(self, name)))

    @classmethod
    def watched(cls, options: opts.Options) -> Watched:
        device = DEVICE.pack(os.stat(options.source).st_dev)
        return Watched(options.source, [BY_HANDLE + device, BY_NAME + device])

    @classmethod
    def check(cls, options: opts.Options, mountpoint: str) -> None:
        opts.check(options, mountpoint)

    def stop(self) -> None:
        self.objects.close()

    def path_of(self, node: NodeId) -> bytes | None:
        return self.objects.path_of(node)

    def forget(self, node: NodeId) -> None:
        self.objects.forget(node)

    def reply(self, flags: int, fd: int) -> int:
        """FOPEN_* for a file that was opened."""
        access = flags & os.O_ACCMODE
        if access == os.O_RDONLY:
            return self.silent_reply
        if self.mount.writeback and access == os.O_WRONLY and is_write_only(fd):
            return DIRECT_IO  # no page of it could be completed
        return self.written_reply if os.fstat(fd).st_dev == self.objects.device else 0

    def opened(self, node: NodeId, flags: int, fd: int, reply: int = 0, backing_fd: int = -1) -> Opened:
        """Records `fd`, which it takes over, as an open file. `reply`: FOPEN_* for the kernel."""
        try:
            if fd >= self.fd_limit:
                raise OSError(errno.ENFILE, "the table of descriptors is nearly full")
            return Opened(self.handles.add(node, flags, fd), reply, backing_fd)
        except OSError:
            os.close(fd)
            raise

    def close(self, fh: Handle) -> None:
        """Ends an open file."""
        fd = self.handles.remove(fh)
        if fd >= 0:
            os.close(fd)

    def _open_again(self, node: NodeId, flags: int) -> int:
        """Opens what was open when all workers died. ESTALE for what has no name left, and was not stored."""
        if flags & os.O_PATH:  # held for an object without a name (byname)
            raise OSError(errno.ESTALE, "its descriptor is gone")
        with self.credentials.worker():  # the caller had it open already
            return self.open_beneath(node, flags & ~os.O_TRUNC)

    def backing_flags(self, flags: int) -> int:
        return backing_flags(flags, self.mount.writeback)

    def open_beneath(self, node: NodeId, flags: int) -> int:
        """The file opened with the caller's flags; with `writeback`, for reading as well unless that is refused."""
        try:
            return self.objects.open(node, self.backing_flags(flags))
        except PermissionError:
            if not self.mount.writeback or flags & os.O_ACCMODE != os.O_WRONLY:
                raise
            return self.objects.open(node, backing_flags(flags))


def is_write_only(fd: int) -> bool:
    """Whether the open file cannot be read."""
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY


def as_caller(credentials: Credentials, method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, carried out with the rights of the caller."""

    def checked(ctx: Context, *arguments: Any) -> Any:
        with credentials.caller(ctx):
            return method(ctx, *arguments)

    return checked
