"""The filesystem API: write one class, and ringmount serves it on every core.

A filesystem is a subclass of `Filesystem`. The kernel knows files by *nodes*: 64-bit numbers that the
filesystem hands out (the root is always `ROOT`). `lookup` turns a name in a folder into a node and
*takes a reference* on it; so does every method that returns an `Entry`. The kernel gives the
references back some time later, in bulk, and then `forget` is called. Between the two the node must
stay usable, even when its last name is gone: an open file may be read long after `unlink`.

Where the methods run
    Each CPU has a worker process with a filesystem object of its own; a LOOKUP may be answered by one
    worker and the READ on its result by another. What all of them must know goes into `Mount.nodes`
    and `Mount.handles` (shared memory). A filesystem that keeps its state in ordinary Python objects
    declares `handle_policy = HandlePolicy.SINGLE` and gets one worker for all CPUs.

How a method waits
    A plain method answers at once; nothing else runs in its worker meanwhile. An `async def` method
    may wait: its worker goes on with other requests on the same asyncio loop. A filesystem that calls
    blocking libraries sets `threads = N`, and its plain methods run on a pool of N threads per worker.

How a method answers
    It returns the value that its docstring names, or raises `OSError(errno.EXXX, ...)`. Any other
    exception is logged with its traceback and answered as EIO. A method that is not overridden
    answers ENOSYS; its docstring says what the kernel then does for the rest of the mount.

The smallest filesystem, one file:

>>> import errno, stat
>>> class Hello(Filesystem):
...     def lookup(self, ctx, parent, name):
...         if parent != ROOT or name != b"hello":
...             raise OSError(errno.ENOENT, "no such file")
...         return Entry(2, self.getattr(ctx, NodeId(2), None))
...     def getattr(self, ctx, node, fh):
...         if node == ROOT:
...             return Attr(st_ino=1, st_mode=stat.S_IFDIR | 0o755, st_nlink=2)
...         return Attr(st_ino=2, st_mode=stat.S_IFREG | 0o444, st_size=6)
...     def readdir(self, ctx, node, fh, offset, out):
...         if offset == 0:
...             out.add(b"hello", 2, stat.S_IFREG, 1)
...     def read(self, ctx, node, fh, offset, buffer):
...         data = b"hello\n"[offset : offset + len(buffer)]
...         buffer[: len(data)] = data
...         return len(data)

Rule for a change here: a method's docstring is its contract with authors of filesystems; it says what
the kernel may assume, and what ENOSYS does.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NewType, Protocol, TypeAlias, TypeVar

import msgspec

from ringmount.workers import codec

if TYPE_CHECKING:
    import logging

NodeId = NewType("NodeId", int)
"""A node's number, 1 .. 2**64-1. Never reused for another object while the kernel holds references."""

Handle = NewType("Handle", int)
"""An open file's number (the kernel's `fh`), 0 .. 2**64-1, chosen by `open`, `create` and `opendir`."""

ROOT = NodeId(1)
"""The mount's top folder. It needs no lookup and is never forgotten."""

T = TypeVar("T")
MaybeAsync: TypeAlias = T | Awaitable[T]
"""What a method returns: the value, or (an `async def`) an awaitable of it."""


class HandlePolicy(Enum):
    """How a file handle made in one worker is understood in another."""

    STATELESS = "stateless"
    """The handle is not used: every request can be answered from the node alone."""
    REOPEN = "reopen"
    """The handle's record (`Mount.handles`) says how to open again; each worker does so when it first
    meets the handle, through `Filesystem.reopen`."""
    SHARED = "shared"
    """The handle's record holds a file descriptor, valid in all workers: they share one descriptor table."""
    SINGLE = "single"
    """One worker serves all CPUs, so handles and nodes may be ordinary Python objects. They are lost with that worker:
    its successor starts with a new filesystem object, and must not give old numbers to other objects."""


AttrLike: TypeAlias = codec.Attr
"""A file's attributes. `Attr` is one; `os.stat_result` fits as it is."""


class Attr(msgspec.Struct, gc=False):
    """A file's attributes, named and measured as in stat(2): bytes, 512-byte blocks, nanoseconds."""

    st_ino: int
    st_mode: int
    st_nlink: int = 1
    st_uid: int = 0
    st_gid: int = 0
    st_rdev: int = 0
    st_size: int = 0
    st_blksize: int = 4096
    st_blocks: int = 0
    st_atime_ns: int = 0
    st_mtime_ns: int = 0
    st_ctime_ns: int = 0
    timeout: float | None = None
    """Returned by `getattr`: seconds for which the kernel may use them; None takes the mount's setting."""


class Entry(msgspec.Struct, gc=False):
    """A name's answer: the node, its attributes, and how long the kernel may remember both.

    Returning an Entry takes one reference on the node, given back by `forget`. `node` 0 says that
    the name does not exist and that the kernel may remember that for `entry_timeout` seconds.
    Timeouts are in seconds; None takes the mount's setting.
    """

    node: int
    attr: AttrLike | None
    generation: int = 0
    entry_timeout: float | None = None
    attr_timeout: float | None = None


class Opened(msgspec.Struct, gc=False):
    """An open file: its handle, and how the kernel shall treat it (`flags`: FOPEN_* of `ringmount.workers.abi`).

    `backing_fd` is an offer: a regular file beneath that holds the very contents, on which the kernel may read, write
    and map by itself (`backing_files` of the class must be True). It stays the filesystem's and may be closed after
    the answer. Whether the kernel takes the offer depends on the mount's `data:`, on the file (one on a stacked
    filesystem is refused), and on how the node is open already, so `read` and `write` must work all the same. While a
    node is passed through, files of it that were opened without an offer read and write by the methods and map the
    file beneath.
    """

    fh: int = 0
    flags: int = 0
    backing_fd: int = -1


class SetAttr(msgspec.Struct, gc=False):
    """What `setattr` shall change; None leaves a value as it is.

    Times are nanoseconds since the epoch, or `NOW` for the time at which the change is made.
    `kill_suidgid`: clear S_ISUID, and S_ISGID of a group-executable file, along with a change of size or owner
    (an unprivileged write loses them). A SetAttr without any change is chown(-1, -1), which clears them as well.
    `ctime_ns` comes only from a kernel with write-back caching.
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None
    kill_suidgid: bool = False


NOW = -(1 << 63)
"""In `SetAttr`: "the current time" (UTIME_NOW), which only the filesystem's own clock can tell."""


class Lock(msgspec.Struct, gc=False):
    """A byte-range lock (fcntl(2)): `type` is F_RDLCK, F_WRLCK or F_UNLCK; `end` is inclusive, 2**63-1 for "to the
    end"."""

    type: int
    start: int = 0
    end: int = (1 << 63) - 1
    pid: int = 0


class Statfs(msgspec.Struct, gc=False):
    """A filesystem's size and use, as in statvfs(3). `os.statvfs_result` fits as it is."""

    f_bsize: int = 4096
    f_frsize: int = 4096
    f_blocks: int = 0
    f_bfree: int = 0
    f_bavail: int = 0
    f_files: int = 0
    f_ffree: int = 0
    f_namemax: int = 255


StatfsLike: TypeAlias = codec.Statfs
"""What `statfs` returns: `Statfs` or `os.statvfs_result`."""


class Statx(msgspec.Struct, gc=False):
    """Extended attributes of a file (statx(2)): `attr` plus the birth time and STATX_ATTR_* bits.

    `mask` says which fields are valid (STATX_*), `dev` is the (major, minor) to report, (0, 0) for the mount's own.
    """

    attr: AttrLike
    mask: int = 0x7FF
    btime_ns: int = 0
    attributes: int = 0
    attributes_mask: int = 0


class ReadFrom(msgspec.Struct, gc=False):
    """Returned by `read`: let the worker's ring read from descriptor `fd` at `offset` into the buffer.

    The worker answers other requests meanwhile and nothing is copied through Python.
    """

    fd: int
    offset: int


class WriteTo(msgspec.Struct, gc=False):
    """Returned by `write`: let the worker's ring write the data to descriptor `fd` at `offset`."""

    fd: int
    offset: int


class SyncOf(msgspec.Struct, gc=False):
    """Returned by `fsync`: let the worker's ring do fsync(2) (or fdatasync(2)) on descriptor `fd`."""

    fd: int
    datasync: bool


class Earlier(NamedTuple):
    """What is known of the run of a request in which its worker died."""

    done: bool
    """It said `Context.done`; else only `Context.begin`, and its change may have been made or not."""
    result: int
    """As given to `done`."""
    before: tuple[int, ...]
    """As given to `begin`, filled up to four numbers."""


class Context(Protocol):
    """Who asks. Valid until the method has answered."""

    unique: int
    """The request's number on this mount."""
    uid: int
    """The caller's filesystem user id (fsuid), in the mount's user namespace."""
    gid: int
    """The caller's filesystem group id (fsgid)."""
    pid: int
    """The caller's thread id in the mount's pid namespace; 0 for the kernel itself or another namespace."""
    umask: int
    """The caller's umask; set for `create`, `mknod`, `mkdir` and `tmpfile`, else 0."""
    kill_suidgid: bool
    """In `open` and `create` with O_TRUNC: clear S_ISUID, and S_ISGID of a group-executable file (the caller may not
    keep them)."""

    @property
    def groups(self) -> tuple[int, ...]:
        """The caller's supplementary groups, read from /proc when asked for; () when the caller is gone."""

    @property
    def interrupted(self) -> bool:
        """True once a signal came to the caller (FUSE_INTERRUPT): what waits should end with EINTR."""

    @property
    def earlier(self) -> Earlier | None:
        """For methods that are `repeatable`: an earlier run of this request, which ended with its worker's death. None
        if there was none, or if it had not begun its change."""

    def begin(self, *before: int) -> None:
        """For methods that are `repeatable`: the change comes next. `before`: up to four numbers (0 .. 2**64-1) by
        which a second run will see whether it was made, such as an inode number, a size, or a time."""

    def done(self, result: int = 0) -> None:
        """For methods that are `repeatable`: the change was made. `result`: what a second run needs for the answer."""


class DirectoryBuffer(Protocol):
    """Where `readdir` puts a folder's entries: the request's own buffer."""

    def add(self, name: bytes, ino: int, mode: int, next_offset: int) -> bool:
        """Adds an entry; False when the buffer is full (stop then).

        `mode`: the file type bits of st_mode, 0 for unknown. `next_offset`: the non-zero offset at which a later
        `readdir` goes on *after* this entry, 1 .. 2**63-1, stable while the folder changes.
        """


class DirectoryPlusBuffer(Protocol):
    """Where `readdirplus` puts a folder's entries, each with the answer that `lookup` would give."""

    def fits(self, name: bytes) -> bool:
        """True if an entry of this name still fits: ask before taking a reference on its node."""

    def add(self, name: bytes, entry: Entry, next_offset: int) -> bool:
        """Adds an entry; False when the buffer is full, and then the entry's reference was *not* passed on.

        Takes one reference on `entry.node` as `lookup` does, except for `.` and `..`: give them node 0
        and the kernel uses only `attr.st_ino` and `attr.st_mode`.
        """


class Nodes(Protocol):
    """The table of nodes that all workers share: what a node is, and how often the kernel refers to it.

    A node has a *key*, by which it is found again (two names of one file give one node), and a *value*,
    bytes that say where it is. Keys and values are any bytes, at most 1024 together. The root has a
    value but no key until it is given one.
    """

    def take(self, key: bytes, value: bytes) -> NodeId:
        """Finds the node of this key, or makes it with this value, and takes one reference for the kernel.

        Raises OSError ENFILE when the table is full.
        """

    def find(self, key: bytes) -> NodeId | None:
        """The live node of this key, without taking a reference."""

    def value(self, node: NodeId) -> bytes:
        """The node's value. Raises OSError ESTALE for a node that is not (or no longer) known."""

    def replace(self, node: NodeId, value: bytes) -> None:
        """Gives the node another value (after a rename, say). Raises OSError ESTALE or ENOSPC."""

    def rekey(self, node: NodeId, key: bytes | None) -> None:
        """Gives the node another key, or none (its last name is gone). Raises OSError ESTALE, or EEXIST for a key in
        use."""

    def key(self, node: NodeId) -> bytes | None:
        """The node's key, if it has one. Raises OSError ESTALE."""

    def watch(self, node: NodeId) -> None:
        """Asks that `Filesystem.forget` be called in this worker when the node goes (it keeps a descriptor for it,
        say).

        Raises OSError ESTALE for a node that is not known.
        """

    def give_back(self, node: NodeId, count: int = 1) -> bool:
        """Drops references that were taken but not passed to the kernel; True when the node is gone."""


class Handles(Protocol):
    """The table of open files that all workers share (policies `shared` and `reopen`)."""

    reopen_descriptor: Callable[[NodeId, int], int] | None
    """Policy `shared`: opens a node again with these flags of open(2), and returns the descriptor.

    Descriptors live as long as one process of the mount does. When all died (`run --keep`), files are open on: `fd`
    then opens the file beneath again by this, which is not to create or truncate anything.
    """

    def add(self, node: NodeId, flags: int, fd: int = -1) -> Handle:
        """Records an open file. With `fd` the descriptor belongs to the handle from here on.

        Raises OSError ENFILE when the table is full.
        """

    def fd(self, fh: Handle) -> int:
        """The handle's descriptor. Raises OSError EBADF for an unknown handle."""

    def info(self, fh: Handle) -> tuple[NodeId, int]:
        """The handle's node and open flags. Raises OSError EBADF."""

    def remove(self, fh: Handle) -> int:
        """Forgets the handle and gives its descriptor (or -1) to the caller, who closes it. Raises OSError EBADF."""

    def keep(self, fh: Handle) -> None:
        """Policy `shared`: has a copy of the descriptor outlive all processes, where somebody keeps such (`run --keep`,
        systemd): for what cannot be opened again, or holds locks. Waits until it is done.

        The copy is given up within a second of the handle's end. What has no name when it is added is kept anyway.
        Raises OSError EBADF.
        """

    def losing_name(self, found: Any) -> None:
        """Policy `shared`: to be called before an object loses a name, with its attributes beneath (os.stat_result). If
        that is its last one and it is open, its descriptors are kept."""

    def set_local(self, fh: Handle, value: Any) -> None:
        """Policy `reopen`: keeps this worker's own object for the handle (after `open`, say)."""

    def local(self, fh: Handle) -> Any:
        """Policy `reopen`: this worker's own object for the handle, made by `Filesystem.reopen` when this worker has
        none.

        Its `close()` is called, if it has one, once the handle is removed in any worker. Raises OSError EBADF, and what
        `reopen` raises.
        """


class Notify(Protocol):
    """Tells the kernel that something changed behind its back. Never blocks; the supervisor delivers in order.

    Equal messages that wait for delivery are merged.
    """

    def inval_inode(self, node: NodeId, offset: int = 0, length: int = 0) -> None:
        """Drop cached attributes and, from `offset` for `length` bytes (0: to the end), cached data.

        A negative offset drops attributes only.
        """

    def inval_entry(self, parent: NodeId, name: bytes, expire_only: bool = False) -> None:
        """Drop the cached name; with `expire_only` it is only looked up again at its next use."""

    def delete(self, parent: NodeId, child: NodeId, name: bytes) -> None:
        """The name is gone for good: inotify watchers are told."""

    def store(self, node: NodeId, offset: int, data: bytes) -> None:
        """Put data into the page cache."""

    def poll(self, kh: int) -> None:
        """Wake those who poll: `kh` came with `Filesystem.poll`."""


class RingIo(Protocol):
    """Input and output on the worker's own ring, for `async def` methods."""

    async def read(self, fd: int, buffer: memoryview, offset: int) -> int:
        """Reads into `buffer` as pread(2) and returns the bytes read. Raises OSError."""

    async def write(self, fd: int, data: memoryview, offset: int) -> int:
        """Writes `data` as pwrite(2) and returns the bytes written. Raises OSError."""

    async def fsync(self, fd: int, datasync: bool = False) -> None:
        """fsync(2) or fdatasync(2). Raises OSError."""


class Timeouts(Protocol):
    """Seconds for which the kernel may remember."""

    @property
    def attr(self) -> float: ...
    @property
    def entry(self) -> float: ...
    @property
    def negative(self) -> float: ...


class Mount(Protocol):
    """What a filesystem object is given: the mount it serves and the tables it shares."""

    @property
    def name(self) -> str: ...
    @property
    def mountpoint(self) -> str: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def default_permissions(self) -> bool:
        """True: the kernel checks permissions from the attributes. False: the filesystem must."""

    @property
    def writeback(self) -> bool:
        """True: the kernel gathers what is written. `read` then comes for files that are open for writing only, too."""

    @property
    def timeouts(self) -> Timeouts:
        """What answers say that give no timeout of their own."""

    @property
    def unwatched(self) -> Timeouts | None:
        """`cache: coherent`: the mount's `timeouts:`, for answers about what the watcher cannot see. None otherwise."""

    @property
    def watches_folders(self) -> bool:
        """`cache: coherent`: folders are watched one by one, because the whole filesystem cannot be."""

    def watch(self, folder: int) -> bool:
        """`cache: coherent`: has the folder at this descriptor (O_PATH will do) watched, with all its names, before
        it is looked at. False: it cannot be. True, and nothing to do, where the whole filesystem is watched."""

    @property
    def nodes(self) -> Nodes: ...
    @property
    def handles(self) -> Handles: ...
    @property
    def notify(self) -> Notify: ...
    @property
    def io(self) -> RingIo: ...
    @property
    def log(self) -> logging.Logger: ...
    @property
    def worker(self) -> int:
        """This worker's index, 0 .. workers-1."""

    @property
    def workers(self) -> int: ...
    @property
    def max_write(self) -> int:
        """The largest WRITE, in bytes."""

    def own_fd(self, fd: int) -> int:
        """Notes that `fd` is this worker's own, so that it is closed if the worker dies. Returns `fd`.

        Needed for descriptors that are kept between requests under the policy `shared`, where all workers
        have one descriptor table.
        """

    def disown_fd(self, fd: int) -> None:
        """Takes `own_fd` back. To be called before such a descriptor is closed or handed on: its number will be
        somebody else's, and must not be closed with this worker.
        """


class OptionError(ValueError):
    """Raised by `Filesystem.check`: this option's value cannot work."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option


class Watched(msgspec.Struct, frozen=True):
    """What `Filesystem.watched` returns: a folder, and what stands in front of a file handle in a node's key."""

    folder: str
    prefixes: list[bytes]


Secret = msgspec.Meta(extra={"ringmount_secret": True})
"""Marks an option that nobody is to read: `password: Annotated[str, Secret]`. It is shown as asterisks."""


class NoOptions(msgspec.Struct, forbid_unknown_fields=True):
    """A filesystem without options."""


def optional(method: T) -> T:
    """Marks a method of the base class as "not implemented": the engine answers ENOSYS without calling it."""
    method.__ringmount_optional__ = True  # type: ignore[attr-defined]
    return method


def repeatable(method: T) -> T:
    """Marks a method that may be run again for the same request after its worker died in it.

    Both runs together have one effect and the answer of one. The method looks at `ctx.earlier` first, and says
    `ctx.begin` before its change and `ctx.done` after it. Without the mark, requests that are not idempotent by
    themselves (making, removing, renaming and linking names, appending, XATTR_CREATE, REMOVEXATTR, IOCTL) are answered
    EIO after such a death.
    """
    method.__ringmount_repeatable__ = True  # type: ignore[attr-defined]
    return method


def is_repeatable(filesystem: type[Filesystem], method: str) -> bool:
    """True if the class marks the method so; overriding it takes the mark off."""
    return bool(getattr(getattr(filesystem, method), "__ringmount_repeatable__", False))


def is_implemented(filesystem: type[Filesystem], method: str) -> bool:
    """True if the class overrides the method."""
    return not getattr(getattr(filesystem, method), "__ringmount_optional__", False)


def _enosys() -> OSError:
    return OSError(errno.ENOSYS, "not implemented")


class Filesystem:
    """Base class of filesystems. See the module's text for where and how methods run.

    Arguments that all methods share: `ctx` says who asks; `node` is the object meant; `parent` and
    `name` a folder and a name in it (bytes, without '/', at most 255 or what the filesystem allows);
    `fh` is what `open`, `create` or `opendir` returned.
    """

    Options: ClassVar[type[msgspec.Struct]] = NoOptions
    """The type of the `options:` section of the mount's file; validated before the mount is made."""

    handle_policy: ClassVar[HandlePolicy] = HandlePolicy.STATELESS
    threads: ClassVar[int] = 0
    """Threads per worker on which plain methods run; 0: in the worker itself, which is fastest."""
    interrupt_sync: ClassVar[bool] = False
    """True: a signal to the caller raises InterruptedError inside a plain method that is running for it
    (in the worker's main thread, between two bytecodes or out of a blocking system call)."""
    needs_root: ClassVar[bool] = False
    """True: workers keep their privileges even where the mount's `user:` is set (which is then refused)."""
    posix_acl: ClassVar[bool] = False
    """True: access control lists (system.posix_acl_* xattrs) are kept, and the kernel applies them."""
    handle_killpriv: ClassVar[bool] = False
    """True: the filesystem clears S_ISUID and S_ISGID when a write or truncate asks for it (`SetAttr.kill_suidgid`,
    FUSE_WRITE_KILL_SUIDGID, `Context.kill_suidgid`), and security.capability with every write, truncate and chown. That
    saves a GETXATTR before every write."""
    reports_changes: ClassVar[bool] = False
    """True: with `cache: coherent` the filesystem tells of every change that the kernel did not ask for, by
    `Mount.notify`, after the change and before any method may have answered from what was before. The kernel then
    keeps names and attributes until it is told, whatever `timeouts:` says."""
    owns_descriptors: ClassVar[bool] = False
    """True (policy `shared`): every file that stays open beyond a request is a handle's or `Mount.own_fd`'s. What else
    is found open after a worker's death was opened by it a moment before, and is closed."""
    backing_files: ClassVar[bool] = False
    """True: open files may offer a file beneath to the kernel (`Opened.backing_fd`), which then reads and writes
    without the workers, where the mount's `data:` allows it and the workers have CAP_SYS_ADMIN."""
    export: ClassVar[bool] = False
    """True: `lookup` knows the names `.` and `..`, so that the mount can be exported by NFS."""

    def __init__(self, options: Any, mount: Mount) -> None:
        """`options` is an instance of `Options`. Called in each worker before it serves; raise OSError or
        ValueError, with a text for the administrator, if the filesystem cannot work."""
        self.options = options
        self.mount = mount

    @classmethod
    def variant(cls, options: Any) -> type[Filesystem]:
        """The class that serves a mount with these options: this one, or a subclass with more or other methods."""
        return cls

    @classmethod
    def check(cls, options: Any, mountpoint: str) -> None:
        """Called once before the mount is made, in a process of its own: raise OSError or ValueError, with a text
        for the administrator, if these options cannot work (a source that is missing, say); OptionError tells which."""

    @classmethod
    def watched(cls, options: Any) -> Watched | None:
        """Called once before the mount is made, for `cache: coherent`: where to watch for changes that this filesystem
        does not make itself, so that the kernel may keep what it was told until it is told otherwise.

        `folder`: changes anywhere on its filesystem are watched for (fanotify(7)). `prefixes`: a node's key must be
        one of them followed by the handle of the object that it stands for (name_to_handle_at(2): type and bytes, see
        `ringmount.workers.system.file_handle`). The node must be in `Mount.nodes` before the object's attributes are
        read. What the watcher may not see is to be answered with `Mount.unwatched`'s timeouts.

        None: there is nothing to watch. Then `reports_changes` says whether there can be `cache: coherent`.
        """
        return None

    def start(self) -> MaybeAsync[None]:
        """Called in each worker when its loop runs, before the first request."""

    def stop(self) -> MaybeAsync[None]:
        """Called in each worker after the last request of a clean stop. A crash skips it."""

    def reopen(self, node: NodeId, fh: Handle, flags: int) -> Any:
        """Policy `reopen`: makes this worker's own object for a handle that another worker opened (or that this
        worker's predecessor did), for `Handles.local`. Raises OSError."""
        raise _enosys()

    def path_of(self, node: NodeId) -> bytes | None:
        """The node's path in the mount, for messages to people; None if that is not known."""
        return None

    def forget(self, node: NodeId) -> None:
        """The kernel refers to the node no more: what is kept for it may go. Must not raise.

        Under policy `single` it is called for every node, in the one worker, when as many references were given back as
        returned `Entry`s took. Under the others it is called in those workers that asked for it (`Nodes.watch`).
        """

    # --- names ---------------------------------------------------------------------------------

    @optional
    def lookup(self, ctx: Context, parent: NodeId, name: bytes) -> MaybeAsync[Entry]:
        """Finds `name` in `parent` and takes a reference. ENOENT if there is none, or `Entry(0, None)`, which the
        kernel may remember for the mount's `timeouts.negative`.

        ENOSYS: every name is reported as not implemented; a filesystem needs this method.
        """
        raise _enosys()

    @optional
    def readlink(self, ctx: Context, node: NodeId) -> MaybeAsync[bytes]:
        """The target of a symbolic link, 1 to 4095 bytes. ENOSYS: links cannot be followed."""
        raise _enosys()

    @optional
    def symlink(self, ctx: Context, parent: NodeId, name: bytes, target: bytes) -> MaybeAsync[Entry]:
        """Makes a symbolic link. EEXIST if the name is taken. ENOSYS reaches the caller."""
        raise _enosys()

    @optional
    def mknod(self, ctx: Context, parent: NodeId, name: bytes, mode: int, rdev: int) -> MaybeAsync[Entry]:
        """Makes a file, fifo, socket or device (type bits in `mode`; `rdev` as of os.makedev).

        `mode` has the umask applied unless the filesystem sets `posix_acl` (then a default ACL decides:
        apply `ctx.umask` where the folder has none). ENOSYS reaches the caller; regular files are then made by
        `create` alone.
        """
        raise _enosys()

    @optional
    def mkdir(self, ctx: Context, parent: NodeId, name: bytes, mode: int) -> MaybeAsync[Entry]:
        """Makes a folder. About `mode` see `mknod`. ENOSYS reaches the caller."""
        raise _enosys()

    @optional
    def unlink(self, ctx: Context, parent: NodeId, name: bytes) -> MaybeAsync[None]:
        """Removes a name that is no folder's. The node lives on until it is forgotten. ENOSYS reaches the caller."""
        raise _enosys()

    @optional
    def rmdir(self, ctx: Context, parent: NodeId, name: bytes) -> MaybeAsync[None]:
        """Removes an empty folder, ENOTEMPTY otherwise. ENOSYS reaches the caller."""
        raise _enosys()

    @optional
    def rename(
        self, ctx: Context, parent: NodeId, name: bytes, new_parent: NodeId, new_name: bytes, flags: int
    ) -> MaybeAsync[None]:
        """Renames; an existing target is replaced in one step.

        `flags`: 0, RENAME_NOREPLACE (1), RENAME_EXCHANGE (2) or RENAME_WHITEOUT (4); answer EINVAL to those not known.
        ENOSYS to a call without flags reaches the caller; to one with flags it becomes EINVAL, for good.
        """
        raise _enosys()

    @optional
    def link(self, ctx: Context, node: NodeId, new_parent: NodeId, new_name: bytes) -> MaybeAsync[Entry]:
        """Gives `node` one more name and returns its Entry, taking a reference. ENOSYS is remembered: EPERM for all
        later calls."""
        raise _enosys()

    # --- attributes ----------------------------------------------------------------------------

    @optional
    def getattr(self, ctx: Context, node: NodeId, fh: Handle | None) -> MaybeAsync[AttrLike]:
        """The node's attributes. `fh` is given when the call came through an open file, and the kernel passes it.

        ENOSYS reaches the caller; a filesystem needs this method.
        """
        raise _enosys()

    @optional
    def statx(self, ctx: Context, node: NodeId, fh: Handle | None, flags: int, mask: int) -> MaybeAsync[Statx]:
        """Attributes with birth time (statx(2) `flags` and `mask`). ENOSYS: `getattr` serves, for good."""
        raise _enosys()

    @optional
    def setattr(self, ctx: Context, node: NodeId, changes: SetAttr, fh: Handle | None) -> MaybeAsync[AttrLike]:
        """Changes attributes and returns the new ones. ENOSYS reaches the caller of chmod, chown, truncate and
        utimensat."""
        raise _enosys()

    @optional
    def access(self, ctx: Context, node: NodeId, mask: int) -> MaybeAsync[None]:
        """access(2), only without `default_permissions`: returns, or raises EACCES. ENOSYS: always allowed, for
        good."""
        raise _enosys()

    @optional
    def getxattr(self, ctx: Context, node: NodeId, name: bytes) -> MaybeAsync[bytes]:
        """An extended attribute's value, whole; the engine deals with sizes. ENODATA if there is none.

        ENOSYS is remembered: EOPNOTSUPP for all later calls.
        """
        raise _enosys()

    @optional
    def listxattr(self, ctx: Context, node: NodeId) -> MaybeAsync[Iterable[bytes]]:
        """The names of the extended attributes. ENOSYS is remembered: EOPNOTSUPP for all later calls."""
        raise _enosys()

    @optional
    def setxattr(
        self, ctx: Context, node: NodeId, name: bytes, value: memoryview, flags: int, kill_sgid: bool
    ) -> MaybeAsync[None]:
        """Sets an extended attribute. `flags`: XATTR_CREATE (EEXIST), XATTR_REPLACE (ENODATA). `kill_sgid`: clear
        S_ISGID along with setting an access ACL. ENOSYS is remembered: EOPNOTSUPP."""
        raise _enosys()

    @optional
    def removexattr(self, ctx: Context, node: NodeId, name: bytes) -> MaybeAsync[None]:
        """Removes an extended attribute, ENODATA if there is none. ENOSYS is remembered: EOPNOTSUPP."""
        raise _enosys()

    # --- files ---------------------------------------------------------------------------------

    @optional
    def open(self, ctx: Context, node: NodeId, flags: int) -> MaybeAsync[Opened]:
        """Opens a file; `flags` as of open(2), never with O_CREAT or O_EXCL, with O_TRUNC only if it is to be
        truncated.

        ENOSYS is remembered: all files open without asking, `fh` is 0, and neither `flush` of new files nor `release`
        comes.
        """
        raise _enosys()

    @optional
    def create(
        self, ctx: Context, parent: NodeId, name: bytes, mode: int, flags: int
    ) -> MaybeAsync[tuple[Entry, Opened]]:
        """Makes a regular file and opens it, in one step; with O_EXCL EEXIST if the name is taken, else it is opened
        as it is.

        About `mode` see `mknod`. ENOSYS is remembered: `mknod` and `open` serve instead.
        """
        raise _enosys()

    @optional
    def tmpfile(self, ctx: Context, parent: NodeId, mode: int, flags: int) -> MaybeAsync[tuple[Entry, Opened]]:
        """Makes a file without a name (O_TMPFILE). ENOSYS is remembered: EOPNOTSUPP."""
        raise _enosys()

    @optional
    def read(
        self, ctx: Context, node: NodeId, fh: Handle, offset: int, buffer: memoryview
    ) -> MaybeAsync[int | ReadFrom]:
        """Fills `buffer` (its length is what is asked for) and returns the bytes filled; fewer only at the file's end.

        The buffer is the request's own memory: what is written there goes to the kernel without another copy. It must
        not be kept. ENOSYS reaches the caller.
        """
        raise _enosys()

    @optional
    def write(
        self, ctx: Context, node: NodeId, fh: Handle, offset: int, data: memoryview, flags: int
    ) -> MaybeAsync[int | WriteTo]:
        """Writes `data` (the request's own memory: do not keep it) and returns the bytes written.

        `flags`: in the lowest three bits FUSE_WRITE_* of `ringmount.workers.abi` (CACHE: from the page cache, the
        caller is unknown; KILL_SUIDGID), above them the open file's flags of open(2) as they are at the time
        (O_APPEND). ENOSYS reaches the caller.
        """
        raise _enosys()

    @optional
    def flush(self, ctx: Context, node: NodeId, fh: Handle, lock_owner: int) -> MaybeAsync[None]:
        """One close(2) of the file; its error reaches that caller. May come several times for one `open`.

        POSIX locks of `lock_owner` are to be dropped. ENOSYS: close(2) succeeds, and `flush` is not sent again.
        """
        raise _enosys()

    @optional
    def release(self, ctx: Context, node: NodeId, fh: Handle, flags: int, flock_owner: int | None) -> MaybeAsync[None]:
        """The last use of the handle ended; errors are ignored. It may come after the node was forgotten: use `fh`
        alone.

        `flock_owner`: drop this owner's flock(2) lock. Not overridden: succeeds.
        """
        raise _enosys()

    @optional
    def fsync(self, ctx: Context, node: NodeId, fh: Handle, datasync: bool) -> MaybeAsync[SyncOf | None]:
        """fsync(2), or fdatasync(2). ENOSYS: succeeds, and is not sent again."""
        raise _enosys()

    @optional
    def fallocate(
        self, ctx: Context, node: NodeId, fh: Handle, mode: int, offset: int, length: int
    ) -> MaybeAsync[None]:
        """fallocate(2); EOPNOTSUPP to modes not known. ENOSYS is remembered: EOPNOTSUPP."""
        raise _enosys()

    @optional
    def lseek(self, ctx: Context, node: NodeId, fh: Handle, offset: int, whence: int) -> MaybeAsync[int]:
        """SEEK_DATA or SEEK_HOLE; ENXIO past the end. ENOSYS is remembered: the kernel sees a file without holes."""
        raise _enosys()

    @optional
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
    ) -> MaybeAsync[int]:
        """copy_file_range(2) between two open files of this mount; returns the bytes copied. ENOSYS is remembered: the
        kernel copies by reading and writing."""
        raise _enosys()

    @optional
    def getlk(self, ctx: Context, node: NodeId, fh: Handle, owner: int, lock: Lock) -> MaybeAsync[Lock]:
        """F_GETLK: the lock that is in the way, or one of type F_UNLCK. Override together with `setlk`: otherwise the
        kernel keeps POSIX locks itself, which is right unless files change on another machine."""
        raise _enosys()

    @optional
    def setlk(self, ctx: Context, node: NodeId, fh: Handle, owner: int, lock: Lock, wait: bool) -> MaybeAsync[None]:
        """F_SETLK (`wait` False: EAGAIN if another lock is in the way) or F_SETLKW (`wait`: must not block the
        worker: be `async`, or run on threads; end with EINTR when `ctx.interrupted`). Override together with `getlk`:
        otherwise the kernel keeps POSIX locks itself."""
        raise _enosys()

    @optional
    def flock(self, ctx: Context, node: NodeId, fh: Handle, owner: int, operation: int, wait: bool) -> MaybeAsync[None]:
        """flock(2) with LOCK_SH, LOCK_EX or LOCK_UN. Not overridden: the kernel keeps flock locks itself. About
        `wait` see `setlk`."""
        raise _enosys()

    @optional
    def bmap(self, ctx: Context, node: NodeId, block: int, blocksize: int) -> MaybeAsync[int]:
        """FIBMAP on a mount of a block device. ENOSYS is remembered: answered as 0."""
        raise _enosys()

    @optional
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
    ) -> MaybeAsync[tuple[int, bytes]]:
        """ioctl(2) of a command whose number tells its sizes: returns the result and at most `out_size` bytes. ENOTTY
        to commands not known. ENOSYS reaches the caller as ENOTTY."""
        raise _enosys()

    @optional
    def poll(self, ctx: Context, node: NodeId, fh: Handle, kh: int | None, events: int) -> MaybeAsync[int]:
        """poll(2): the events that hold now. With `kh`, call `mount.notify.poll(kh)` once when that changes. ENOSYS
        is remembered: always ready for reading and writing."""
        raise _enosys()

    # --- folders -------------------------------------------------------------------------------

    @optional
    def opendir(self, ctx: Context, node: NodeId, flags: int) -> MaybeAsync[Opened]:
        """Opens a folder. ENOSYS is remembered: folders open without asking and `fh` is 0."""
        raise _enosys()

    @optional
    def readdir(self, ctx: Context, node: NodeId, fh: Handle, offset: int, out: DirectoryBuffer) -> MaybeAsync[None]:
        """Puts the folder's entries after `offset` (0: all) into `out` until it is full. `.` and `..` may be left out.

        ENOSYS reaches the caller.
        """
        raise _enosys()

    @optional
    def readdirplus(
        self, ctx: Context, node: NodeId, fh: Handle, offset: int, out: DirectoryPlusBuffer
    ) -> MaybeAsync[None]:
        """`readdir` that answers the lookups too: saves one request per file to `ls -l` and `find`. Not overridden:
        never asked for."""
        raise _enosys()

    @optional
    def releasedir(self, ctx: Context, node: NodeId, fh: Handle) -> MaybeAsync[None]:
        """The last use of the folder's handle ended. Not overridden: succeeds."""
        raise _enosys()

    @optional
    def fsyncdir(self, ctx: Context, node: NodeId, fh: Handle, datasync: bool) -> MaybeAsync[SyncOf | None]:
        """fsync(2) of a folder. ENOSYS: succeeds, and is not sent again."""
        raise _enosys()

    # --- the whole ------------------------------------------------------------------------------

    @optional
    def statfs(self, ctx: Context, node: NodeId) -> MaybeAsync[StatfsLike]:
        """statfs(2) of the filesystem. Not overridden: an empty filesystem with names up to 255 bytes."""
        raise _enosys()

    @optional
    def syncfs(self, ctx: Context, node: NodeId) -> MaybeAsync[None]:
        """syncfs(2). The kernel sends it only to mounts that it trusts (not to ordinary /dev/fuse mounts of 6.18). Not
        overridden: succeeds there."""
        raise _enosys()
