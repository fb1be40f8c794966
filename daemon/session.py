"""INIT: what is agreed with the kernel when a mount starts.

`negotiate` turns the kernel's offer, the mount's settings and what its filesystem can do into the reply and a
`Session` that the rest of the supervisor reads. There is one INIT in a connection's life, and no second one
after a take-over: the Session is plain data, so that it can be stored for a successor.

The rule a change must keep: no I/O, and a flag is asked for only in `WISHES`, one row each.
"""

import errno
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec

from ringmount.config.model import MountConfig
from ringmount.workers import abi, codec
from ringmount.workers.abi import InitFlags

OLDEST_MINOR = 31
"""FUSE 7.31, Linux 5.4: the oldest kernel that is served."""
EPOCH_MINOR = 44
"""FUSE 7.44, Linux 6.16: FUSE_NOTIFY_INC_EPOCH, which drops all names at once."""

MIN_BACKGROUND = 64
MAX_U16 = 0xFFFF
DEFAULT_PAGES_LIMIT = 256
"""fs.fuse.max_pages_limit where the kernel has no such sysctl (before 6.13): FUSE_MAX_MAX_PAGES."""


STACK_DEPTH = 1
"""Backing files may lie on a filesystem that is not stacked on another one itself. With 2 they could (overlayfs), but
then nothing could be stacked on the mount: FILESYSTEM_MAX_STACK_DEPTH is 2."""


class SessionError(Exception):
    """There can be no session with this kernel. The reply to its INIT is the error `errno`."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.errno = errno.EPROTO


class Capabilities(Protocol):
    """What is to be known of a filesystem (`ringmount.workers.messages.Description` is one)."""

    @property
    def methods(self) -> Collection[str]:
        """Names of the methods of `ringmount.workers.api.Filesystem` that it overrides."""

    @property
    def posix_acl(self) -> bool: ...
    @property
    def handle_killpriv(self) -> bool: ...
    @property
    def export(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What this side brings to the negotiation."""

    config: MountConfig
    filesystem: Capabilities
    queues: int
    """The kernel's queues: one per possible CPU."""
    use_ring: bool
    """Whether rings are wanted and this machine lets us have them. The kernel, told yes, holds back every
    request until all queues are registered.
    """
    max_pages_limit: int = DEFAULT_PAGES_LIMIT
    """The sysctl fs.fuse.max_pages_limit."""
    page_size: int = 4096
    """The machine's, in bytes."""
    use_passthrough: bool = False
    """Whether the kernel shall read and write backing files by itself."""

    def implements(self, *methods: str) -> bool:
        return all(method in self.filesystem.methods for method in methods)


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What was agreed. Sizes in bytes, flags as `abi.InitFlags`."""

    minor: int
    """Of protocol version 7: the older one of the kernel's and ours."""
    offered: int
    """Flags of the kernel."""
    flags: int
    """Flags in force."""
    max_write: int
    """The largest READ or WRITE."""
    max_pages: int
    max_readahead: int
    max_background: int
    notes: tuple[str, ...]
    """What was wanted and cannot be had, for the log."""
    reply: bytes
    """fuse_init_out, the body of the answer to INIT."""

    def has(self, flag: InitFlags) -> bool:
        """True if all of `flag` is in force."""
        return self.flags & flag == flag

    @property
    def uses_ring(self) -> bool:
        """True if the kernel waits for rings now."""
        return self.has(InitFlags.OVER_IO_URING)

    @property
    def uses_passthrough(self) -> bool:
        """True if the kernel takes backing files."""
        return self.has(InitFlags.PASSTHROUGH)

    @property
    def setxattr_ext(self) -> bool:
        """True if SETXATTR comes with the longer struct."""
        return self.has(InitFlags.SETXATTR_EXT)

    @property
    def device_buffer(self) -> int:
        """Bytes that a read of /dev/fuse must have room for, otherwise it fails with EINVAL
        (fuse_dev_do_read()).
        """
        write = abi.FUSE_IN_HEADER.size + abi.FUSE_WRITE_IN.size + self.max_write
        return max(abi.FUSE_MIN_READ_BUFFER, write)


class OtherMajor(msgspec.Struct, frozen=True):
    """The kernel speaks a newer protocol than 7: `reply` says so, and another INIT comes."""

    reply: bytes


def negotiate(init: codec.InitIn, wanted: Wanted) -> Session | OtherMajor:
    """Answers the kernel's INIT. Raises SessionError if there can be no session."""
    if init.major > abi.FUSE_KERNEL_VERSION:
        return OtherMajor(_encode(minor=abi.FUSE_KERNEL_MINOR_VERSION))
    if (init.major, init.minor) < (abi.FUSE_KERNEL_VERSION, OLDEST_MINOR):
        raise SessionError(
            f"the kernel speaks FUSE {init.major}.{init.minor}; ringmount needs"
            f" {abi.FUSE_KERNEL_VERSION}.{OLDEST_MINOR} (Linux 5.4) or newer"
        )
    if wanted.config.cache == "coherent" and init.minor < EPOCH_MINOR:
        raise SessionError(f"cache: coherent needs FUSE 7.{EPOCH_MINOR} (Linux 6.16): the kernel has 7.{init.minor}")
    asked = _asked(wanted)
    flags = asked & init.flags
    max_pages = max(1, min(wanted.config.max_write // wanted.page_size, wanted.max_pages_limit))
    max_write = min(wanted.config.max_write, max_pages * wanted.page_size)
    max_background = min(MAX_U16, max(MIN_BACKGROUND, wanted.queues * wanted.config.queue_depth))
    max_readahead = min(init.max_readahead, wanted.config.readahead or init.max_readahead)
    minor = min(init.minor, abi.FUSE_KERNEL_MINOR_VERSION)
    return Session(
        minor=minor,
        offered=init.flags,
        flags=flags,
        max_write=max_write,
        max_pages=max_pages,
        # More than max_write is of use: readahead is sent as several READs at a time.
        max_readahead=max_readahead,
        max_background=max_background,
        notes=tuple(_notes(wanted, asked & ~init.flags, max_write)),
        reply=_encode(
            minor=minor,
            max_readahead=max_readahead,
            flags=flags,
            max_background=max_background,
            max_write=max_write,
            max_pages=max_pages,
            max_stack_depth=STACK_DEPTH if flags & InitFlags.PASSTHROUGH else 0,
        ),
    )


class Wish(NamedTuple):
    """A flag that is asked for if `condition` holds; `loss` says what is missed where the kernel has not
    got it.
    """

    flag: InitFlags
    condition: Callable[[Wanted], bool]
    loss: str = ""


def _always(wanted: Wanted) -> bool:
    return True


def _caches(wanted: Wanted) -> bool:
    return wanted.config.cache != "none"


def _keeps_entries(wanted: Wanted) -> bool:
    return wanted.config.cache == "coherent" or (_caches(wanted) and wanted.config.timeouts.entry > 0)


def _lists_plus(wanted: Wanted) -> bool:
    # Attributes that come with names are of use to a kernel that may keep them until they are asked for.
    when = wanted.config.readdirplus
    useful = when == "always" or (when == "auto" and _keeps_entries(wanted))
    return useful and wanted.implements("readdirplus")


def _applies_acls(wanted: Wanted) -> bool:
    # FUSE_POSIX_ACL turns default_permissions on (process_init_reply()), so it must not come without the
    # settings' consent.
    return wanted.filesystem.posix_acl and wanted.config.default_permissions


# In kernel order. Not asked for: FILE_OPS, MAP_ALIGNMENT, SUBMOUNTS and HAS_INODE_DAX (virtiofs); the SPLICE
# flags (they tell, they do not ask); HANDLE_KILLPRIV (V2 is better); EXPLICIT_INVAL_DATA (mtime and size tell
# what nobody else does); SECURITY_CTX (labels are the business of setxattr here); CREATE_SUPP_GROUP (a
# caller's groups are read from /proc, all of them); HAS_EXPIRE_ONLY and HAS_RESEND (they tell: see
# `Session.offered`); NO_EXPORT_SUPPORT (handles of cached inodes do no harm); ALLOW_IDMAP (creation with
# mapped owners is not implemented); REQUEST_TIMEOUT (an expiry aborts the connection, and some kernels crash
# in the check: the supervisor watches for hung handlers).
WISHES = (
    Wish(InitFlags.ASYNC_READ, _always),
    Wish(
        InitFlags.POSIX_LOCKS,
        lambda wanted: wanted.implements("getlk", "setlk"),
        "POSIX locks are kept by the kernel alone",
    ),
    Wish(InitFlags.ATOMIC_O_TRUNC, _always),
    Wish(
        InitFlags.EXPORT_SUPPORT,
        lambda wanted: wanted.filesystem.export,
        "an export by NFS loses its handles when inodes leave the cache",
    ),
    Wish(InitFlags.BIG_WRITES, _always),
    Wish(
        InitFlags.DONT_MASK,
        lambda wanted: wanted.filesystem.posix_acl,
        "default access control lists are cut by the umask",
    ),
    Wish(
        InitFlags.FLOCK_LOCKS,
        lambda wanted: wanted.implements("flock"),
        "flock locks are kept by the kernel alone",
    ),
    Wish(InitFlags.HAS_IOCTL_DIR, lambda wanted: wanted.implements("ioctl"), "folders take no ioctl"),
    Wish(InitFlags.AUTO_INVAL_DATA, _caches),
    Wish(InitFlags.DO_READDIRPLUS, _lists_plus, "listing a folder with attributes takes a request per file"),
    Wish(
        InitFlags.READDIRPLUS_AUTO,
        lambda wanted: _lists_plus(wanted) and wanted.config.readdirplus == "auto",
    ),
    Wish(InitFlags.ASYNC_DIO, _always),
    Wish(InitFlags.WRITEBACK_CACHE, lambda wanted: wanted.config.writeback),
    Wish(InitFlags.NO_OPEN_SUPPORT, lambda wanted: not wanted.implements("open")),
    Wish(InitFlags.PARALLEL_DIROPS, _always),
    Wish(InitFlags.POSIX_ACL, _applies_acls, "access control lists are not applied"),
    # A read after an abort then fails with ECONNABORTED, and after an unmount with ENODEV.
    Wish(InitFlags.ABORT_ERROR, _always),
    Wish(InitFlags.MAX_PAGES, _always, "a request carries 128 KiB at most"),
    Wish(InitFlags.CACHE_SYMLINKS, _caches),
    Wish(InitFlags.NO_OPENDIR_SUPPORT, lambda wanted: not wanted.implements("opendir")),
    Wish(
        InitFlags.HANDLE_KILLPRIV_V2,
        lambda wanted: wanted.filesystem.handle_killpriv,
        "every write is preceded by a GETXATTR of security.capability",
    ),
    Wish(InitFlags.SETXATTR_EXT, _always),
    Wish(InitFlags.INIT_EXT, _always),
    # Files opened with FOPEN_DIRECT_IO could otherwise not be mapped with MAP_SHARED.
    Wish(
        InitFlags.DIRECT_IO_ALLOW_MMAP,
        lambda wanted: wanted.config.cache == "none" or wanted.config.parallel_direct_writes,
        "files that leave out the page cache cannot be mapped shared",
    ),
    Wish(
        InitFlags.PASSTHROUGH,
        lambda wanted: wanted.use_passthrough,
        "file contents go through the workers",
    ),
    Wish(
        InitFlags.OVER_IO_URING,
        lambda wanted: wanted.use_ring,
        "it is older than Linux 6.14 or its switch is off (echo Y >/sys/module/fuse/parameters/enable_uring)",
    ),
)


def _asked(wanted: Wanted) -> InitFlags:
    asked = InitFlags(0)
    for wish in WISHES:
        if wish.condition(wanted):
            asked |= wish.flag
    return asked


def _notes(wanted: Wanted, missing: int, max_write: int) -> Iterator[str]:
    for wish in WISHES:
        if missing & wish.flag and wish.loss:
            yield f"the kernel does not offer FUSE_{wish.flag.name}: {wish.loss}"
    if wanted.filesystem.posix_acl and not wanted.config.default_permissions:
        yield "access control lists are not applied: they need default_permissions: true"
    if max_write < wanted.config.max_write:
        pages = wanted.config.max_write // wanted.page_size
        kib = max_write >> 10
        yield f"max_write is lowered to {kib} KiB: the sysctl fs.fuse.max_pages_limit is below {pages}"


def _encode(
    *,
    minor: int,
    max_readahead: int = 0,
    flags: int = 0,
    max_background: int = 0,
    max_write: int = 0,
    max_pages: int = 0,
    max_stack_depth: int = 0,
) -> bytes:
    reply = bytearray(abi.FUSE_INIT_OUT.size)
    codec.encode_init_out(
        memoryview(reply),
        0,
        minor=minor,
        max_readahead=max_readahead,
        flags=flags,
        max_background=max_background,
        # The point where the kernel calls the mount congested: its own proportion
        # (FUSE_DEFAULT_CONGESTION_THRESHOLD).
        congestion_threshold=max_background * 3 // 4,
        max_write=max_write,
        max_pages=max_pages,
        max_stack_depth=max_stack_depth,
    )
    return bytes(reply)
