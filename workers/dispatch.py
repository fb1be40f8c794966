"""From a request to a call of the filesystem's method, and from its result to the reply's bytes. No I/O.

One row of `ROUTES` per opcode: the method, how to call it (decode), what to do with its result (encode into the
request's own buffer). An encoder returns the reply's size in bytes, or a `ReadFrom`, `WriteTo` or `SyncOf` for
the engine to carry out. The rule: a request's names are copied out of the buffer before anything is written to it,
because request and reply share it.
"""

import errno
import inspect
import struct
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

from ringmount.workers import abi, api, codec
from ringmount.workers.abi import Opcode
from ringmount.workers.api import NOW, AttrLike, Entry, Handle, Lock, NodeId, Opened, ReadFrom, SetAttr, SyncOf, WriteTo
from ringmount.workers.codec import DECODERS

Deferred: TypeAlias = ReadFrom | WriteTo | SyncOf
Answer: TypeAlias = "int | Deferred"
"""The reply's payload in bytes, or an operation whose outcome is the reply."""

MAX_ERRNO = 133
"""Larger ones mean something else inside the kernel (ERESTARTSYS), or EINVAL to the caller."""

# Plain ints: an operation on an IntFlag takes a microsecond.
GETATTR_FH = int(abi.GetattrFlags.FH)
OPEN_KILL_SUIDGID = int(abi.OpenIn.KILL_SUIDGID)
FLOCK_UNLOCK = int(abi.ReleaseFlags.FLOCK_UNLOCK)
FDATASYNC = int(abi.FsyncFlags.FDATASYNC)
ACL_KILL_SGID = int(abi.SetxattrFlags.ACL_KILL_SGID)
SCHEDULE_NOTIFY = int(abi.PollFlags.SCHEDULE_NOTIFY)
LK_FLOCK = int(abi.LockFlags.FLOCK)
FATTR_MODE = int(abi.SetattrValid.MODE)
FATTR_UID = int(abi.SetattrValid.UID)
FATTR_GID = int(abi.SetattrValid.GID)
FATTR_SIZE = int(abi.SetattrValid.SIZE)
FATTR_ATIME = int(abi.SetattrValid.ATIME)
FATTR_MTIME = int(abi.SetattrValid.MTIME)
FATTR_FH = int(abi.SetattrValid.FH)
FATTR_ATIME_NOW = int(abi.SetattrValid.ATIME_NOW)
FATTR_MTIME_NOW = int(abi.SetattrValid.MTIME_NOW)
PARALLEL = int(abi.OpenReply.DIRECT_IO | abi.OpenReply.PARALLEL_DIRECT_WRITES)
FATTR_CTIME = int(abi.SetattrValid.CTIME)
FATTR_KILL_SUIDGID = int(abi.SetattrValid.KILL_SUIDGID)


class Effect(Protocol):
    """The journal's part of a request (ringmount.workers.effects)."""

    def begin(self, before: tuple[int, ...]) -> None: ...
    def done(self, result: int) -> None: ...
    def earlier(self) -> api.Earlier | None: ...
    def list(self) -> None: ...
    def listed(self, size: int) -> None: ...


class Request:
    """One entry's request; a `ringmount.workers.api.Context` for the methods. Reused for the entry's next one."""

    __slots__ = (
        "buffer",
        "effect",
        "gid",
        "index",
        "is_interrupted",
        "kill_suidgid",
        "nodeid",
        "op_in",
        "opcode",
        "payload_size",
        "pid",
        "read_groups",
        "total_extlen",
        "uid",
        "umask",
        "unique",
    )

    def __init__(
        self,
        index: int,
        op_in: memoryview,
        buffer: memoryview,
        read_groups: Callable[[int], tuple[int, ...]],
        is_interrupted: Callable[["Request"], bool],
        effect: Effect,
    ) -> None:
        self.index = index
        self.op_in = op_in
        self.buffer = buffer
        self.read_groups = read_groups
        self.is_interrupted = is_interrupted
        self.effect = effect
        self.unique = self.nodeid = self.opcode = self.uid = self.gid = self.pid = 0
        self.total_extlen = self.payload_size = self.umask = 0
        self.kill_suidgid = False

    @property
    def payload(self) -> memoryview:
        """What the request carries."""
        return self.buffer[: self.payload_size]

    @property
    def groups(self) -> tuple[int, ...]:
        """The caller's supplementary groups."""
        return self.read_groups(self.pid)

    @property
    def interrupted(self) -> bool:
        """True once the caller got a signal."""
        return self.is_interrupted(self)

    @property
    def earlier(self) -> api.Earlier | None:
        """What a predecessor noted of its run."""
        return self.effect.earlier()

    def begin(self, *before: int) -> None:
        """The change comes next."""
        self.effect.begin(before)

    def done(self, result: int = 0) -> None:
        """The change was made."""
        self.effect.done(result)

    def decode(self) -> tuple[Any, ...]:
        """The request's fields, names and data. Raises codec.DecodeError."""
        return DECODERS[self.opcode](self.total_extlen, self.op_in, self.buffer[: self.payload_size])


class Opens(Protocol):
    """What decides which way an open file's contents take."""

    def add(self, index: int, node: int, open_flags: int, opened: Opened, common: int) -> tuple[int, int]:
        """FOPEN_* and backing id of a file that is opened in answer to the request in entry `index`."""

    def release(self, index: int, node: int) -> None:
        """One open file less, in answer to the request in entry `index`."""


@dataclass(frozen=True)
class Replies:
    """What encoders need to know of the mount."""

    entry_valid: codec.Seconds
    attr_valid: codec.Seconds
    negative_valid: codec.Seconds
    took: Callable[[int], None] | None = None
    """Told of each reference that an Entry passes to the kernel (policy `single` counts them)."""
    open_flags: int = 0
    """FOPEN_* that every open file gets whose contents come from the workers (`cache: none`: DIRECT_IO)."""
    parallel_with: int = 0
    """Flags of open(2), O_DIRECT: files opened with one of them are written to by several callers at a time."""
    folder_flags: int = 0
    """FOPEN_* that every open folder gets."""
    keeps_changed: bool = True
    """Attributes in answers to what changes them are valid as long as others are. The kernel takes them without asking
    whether they are outdated (attr_version, which it compares for GETATTR and LOOKUP)."""
    gathers: bool = False
    """The kernel gathers what is written (`writeback`): where a file has holes it knows best."""
    opens: Opens | None = None
    """Counts open files (`ringmount.workers.opens`); None: no file is passed through."""


Call: TypeAlias = Callable[[Request], Any]
Finish: TypeAlias = Callable[[Replies, Request, Any], Answer]


class Route(NamedTuple):
    """An opcode's way: the method's name, what makes its caller, what encodes its result."""

    method: str
    call: Callable[[Any], Call]
    finish: Finish


class Handler(NamedTuple):
    """A route bound to a filesystem: `call` gives a result, or an awaitable if `is_async`; `finish` the answer."""

    call: Call
    finish: Callable[[Request, Any], Answer]
    is_async: bool
    implemented: bool
    repeatable: bool = False
    """The method sees to it that a second run does no harm."""


# --- results to bytes ---------------------------------------------------------------------------------------


def _valid(seconds: float | None, default: codec.Seconds) -> codec.Seconds:
    return default if seconds is None else codec.split_seconds(seconds)


def _attr_valid(replies: Replies, attr: AttrLike) -> codec.Seconds:
    return _valid(attr.timeout, replies.attr_valid) if type(attr) is api.Attr else replies.attr_valid


UNTIL_NEXT = (0, 0)


def _write_entry(replies: Replies, buffer: memoryview, at: int, entry: Entry, is_changed: bool = False) -> int:
    if entry.attr is None:
        if entry.node:
            raise TypeError("an Entry with a node needs attributes")
        return codec.encode_negative_entry(buffer, at, _valid(entry.entry_timeout, replies.negative_valid))
    size = codec.encode_entry_out(
        buffer,
        at,
        entry.node,
        entry.generation,
        _valid(entry.entry_timeout, replies.entry_valid),
        UNTIL_NEXT if is_changed and not replies.keeps_changed else _valid(entry.attr_timeout, replies.attr_valid),
        entry.attr,
    )
    if replies.took is not None:
        replies.took(entry.node)
    return size


def finish_none(_replies: Replies, _request: Request, _result: None) -> int:
    """A success without a body."""
    return 0


def finish_entry(replies: Replies, request: Request, entry: Entry) -> int:
    """fuse_entry_out."""
    return _write_entry(replies, request.buffer, 0, entry)


def finish_made(replies: Replies, request: Request, entry: Entry) -> int:
    """fuse_entry_out of what was made or linked."""
    return _write_entry(replies, request.buffer, 0, entry, is_changed=True)


def finish_created(replies: Replies, request: Request, result: tuple[Entry, Opened]) -> int:
    """fuse_entry_out and fuse_open_out."""
    entry, opened = result
    at = _write_entry(replies, request.buffer, 0, entry, is_changed=True)
    return at + _write_opened(replies, request, at, entry.node, opened)


def finish_attr(replies: Replies, request: Request, attr: AttrLike) -> int:
    """fuse_attr_out."""
    return codec.encode_attr_out(request.buffer, 0, attr, *_attr_valid(replies, attr))


def finish_setattr(replies: Replies, request: Request, attr: AttrLike) -> int:
    """fuse_attr_out of what was changed."""
    if replies.keeps_changed:
        return finish_attr(replies, request, attr)
    return codec.encode_attr_out(request.buffer, 0, attr, *UNTIL_NEXT)


def finish_statx(replies: Replies, request: Request, result: api.Statx) -> int:
    """fuse_statx_out."""
    attr = result.attr
    return codec.encode_statx_out(
        request.buffer,
        0,
        attr,
        *_attr_valid(replies, attr),
        mask=result.mask,
        btime_ns=result.btime_ns if result.mask & codec.STATX_BTIME else None,
        attributes=result.attributes,
        attributes_mask=result.attributes_mask,
    )


def _write_opened(replies: Replies, request: Request, at: int, node: int, opened: Opened) -> int:
    (open_flags,) = _OPEN_FLAGS(request.op_in)  # first in fuse_open_in and in fuse_create_in
    common = replies.open_flags | (PARALLEL if open_flags & replies.parallel_with else 0)
    if replies.opens is None:
        return codec.encode_open_out(request.buffer, at, opened.fh, opened.flags | common)
    flags, backing_id = replies.opens.add(request.index, node, open_flags, opened, common)
    return codec.encode_open_out(request.buffer, at, opened.fh, flags, backing_id)


_OPEN_FLAGS = struct.Struct("<I").unpack_from


def finish_opened(replies: Replies, request: Request, opened: Opened) -> int:
    """fuse_open_out of a file."""
    return _write_opened(replies, request, 0, request.nodeid, opened)


def finish_opened_folder(replies: Replies, request: Request, opened: Opened) -> int:
    """fuse_open_out of a folder."""
    flags = opened.flags | replies.folder_flags
    return codec.encode_open_out(request.buffer, 0, opened.fh, flags)


def finish_bytes(_replies: Replies, request: Request, data: bytes) -> int:
    """The bytes themselves."""
    request.buffer[: len(data)] = data
    return len(data)


def finish_read(_replies: Replies, request: Request, result: int | ReadFrom) -> Answer:
    """The bytes that the method put into the buffer, which had the size that was asked for."""
    if isinstance(result, int):
        (asked,) = _READ_SIZE(request.op_in, _READ_SIZE_AT)
        if not 0 <= result <= asked or result > len(request.buffer):
            raise ValueError(f"read() returned {result} for a buffer of {asked} bytes")
    return result


_READ_SIZE = struct.Struct("<I").unpack_from
_READ_SIZE_AT = abi.FUSE_READ_IN.offsets["size"]


def finish_write(_replies: Replies, request: Request, result: int | WriteTo) -> Answer:
    """fuse_write_out."""
    if isinstance(result, WriteTo):
        return result
    return codec.encode_write_out(request.buffer, 0, result)


def finish_fsync(_replies: Replies, _request: Request, result: SyncOf | None) -> Answer:
    """A success without a body, now or when the ring has synced."""
    return 0 if result is None else result


def finish_statfs(_replies: Replies, request: Request, result: api.StatfsLike) -> int:
    """fuse_statfs_out."""
    return codec.encode_statfs_out(request.buffer, 0, result)


def _finish_sized(request: Request, asked: int, data: bytes) -> int:
    """xattr replies: the size alone if the caller asked with 0 (getxattr(2))."""
    if asked == 0:
        return codec.encode_xattr_size(request.buffer, 0, len(data))
    if len(data) > asked:
        raise OSError(errno.ERANGE, "the caller's buffer is too small")
    request.buffer[: len(data)] = data
    return len(data)


def finish_getxattr(_replies: Replies, request: Request, data: bytes) -> int:
    """The value, or its size."""
    return _finish_sized(request, _asked(request), data)


def finish_listxattr(_replies: Replies, request: Request, names: Iterable[bytes]) -> int:
    """The names, each with a NUL, or their size."""
    return _finish_sized(request, _asked(request), b"".join([name + b"\0" for name in names]))


def _asked(request: Request) -> int:
    return int(abi.FUSE_GETXATTR_IN.struct.unpack_from(request.op_in)[0])


def finish_lock(_replies: Replies, request: Request, lock: Lock) -> int:
    """fuse_lk_out."""
    return codec.encode_lk_out(request.buffer, 0, lock.start, lock.end, lock.type, lock.pid)


def finish_bmap(_replies: Replies, request: Request, block: int) -> int:
    """fuse_bmap_out."""
    return codec.encode_bmap_out(request.buffer, 0, block)


def finish_ioctl(_replies: Replies, request: Request, result: tuple[int, bytes]) -> int:
    """fuse_ioctl_out and the data."""
    value, data = result
    room = abi.FUSE_IOCTL_IN.struct.unpack_from(request.op_in)[-1]
    if len(data) > room:
        raise ValueError(f"ioctl() returned {len(data)} bytes, the caller has room for {room}")
    at = codec.encode_ioctl_out(request.buffer, 0, value)
    request.buffer[at : at + len(data)] = data
    return at + len(data)


def finish_poll(_replies: Replies, request: Request, events: int) -> int:
    """fuse_poll_out."""
    return codec.encode_poll_out(request.buffer, 0, events)


def finish_lseek(_replies: Replies, request: Request, offset: int) -> int:
    """fuse_lseek_out."""
    return codec.encode_lseek_out(request.buffer, 0, offset)


def finish_copied(_replies: Replies, request: Request, copied: int) -> int:
    """fuse_write_out, or its 64-bit form."""
    if request.opcode == Opcode.COPY_FILE_RANGE_64:
        return codec.encode_copy_file_range_out(request.buffer, 0, copied)
    return codec.encode_write_out(request.buffer, 0, copied)


HELD = (1 << 64) - 1
"""The place of an entry's generation while the journal has its reference (COUNTED in native/listing.c)."""
_GENERATION = struct.Struct("<Q")
_GENERATION_AT = abi.FUSE_ENTRY_OUT.offsets["generation"]


class Listing:
    """`DirectoryBuffer` over a request's buffer."""

    __slots__ = ("_at", "_buffer", "_limit")

    def __init__(self, buffer: memoryview, limit: int) -> None:
        self._buffer = buffer
        self._limit = min(limit, len(buffer))
        self._at = 0

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._at

    def add(self, name: bytes, ino: int, mode: int, next_offset: int) -> bool:
        at = codec.encode_dirent(self._buffer, self._at, self._limit, ino, next_offset, mode >> 12 & 15, name)
        if not at:
            return False
        self._at = at
        return True


class ListingPlus:
    """`DirectoryPlusBuffer` over a request's buffer."""

    __slots__ = ("_at", "_buffer", "_effect", "_limit", "_replies")

    def __init__(self, replies: Replies, buffer: memoryview, limit: int, effect: Effect) -> None:
        self._replies = replies
        self._effect = effect
        self._buffer = buffer
        self._limit = min(limit, len(buffer))
        self._at = 0
        effect.list()

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._at

    def fits(self, name: bytes) -> bool:
        return self._at + (abi.FUSE_DIRENTPLUS.size + len(name) + 7 & ~7) <= self._limit

    def add(self, name: bytes, entry: Entry, next_offset: int) -> bool:
        attr = entry.attr
        at = codec.encode_direntplus(
            self._buffer,
            self._at,
            self._limit,
            0 if attr is None else attr.st_ino,
            next_offset,
            0 if attr is None else attr.st_mode >> 12 & 15,
            name,
            entry.node,
            HELD if entry.node else entry.generation,
            _valid(entry.entry_timeout, self._replies.entry_valid),
            _valid(entry.attr_timeout, self._replies.attr_valid),
            attr,
        )
        if not at:
            return False
        if entry.node and self._replies.took is not None:
            self._replies.took(entry.node)
        self._effect.listed(at - self._at)
        if entry.node:
            _GENERATION.pack_into(self._buffer, self._at + _GENERATION_AT, entry.generation)
        self._at = at
        return True


def finish_listing(_replies: Replies, _request: Request, size: int) -> int:
    """The entries that the method put into the buffer."""
    return size


# --- requests to calls --------------------------------------------------------------------------------------


def call_node(method: Any) -> Call:
    """method(ctx, node)"""
    return lambda request: method(request, request.nodeid)


def call_name(method: Any) -> Call:
    """method(ctx, parent, name)"""
    return lambda request: method(request, request.nodeid, request.decode()[0])


def call_getattr(method: Any) -> Call:
    unpack = abi.FUSE_GETATTR_IN.struct.unpack_from

    def call(request: Request) -> Any:
        flags, _, fh = unpack(request.op_in)
        return method(request, request.nodeid, fh if flags & GETATTR_FH else None)

    return call


def call_statx(method: Any) -> Call:
    def call(request: Request) -> Any:
        flags, _, fh, sx_flags, sx_mask = request.decode()[:5]
        return method(request, request.nodeid, fh if flags & GETATTR_FH else None, sx_flags, sx_mask)

    return call


def decode_changes(fields: tuple[Any, ...]) -> tuple[SetAttr, Handle | None]:
    """fuse_setattr_in as the API's `SetAttr`, and the handle if one came along."""
    (valid, _, fh, size, _, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns, mode, _, uid, gid, _) = fields
    changes = SetAttr(kill_suidgid=bool(valid & FATTR_KILL_SUIDGID))
    if valid & FATTR_MODE:
        changes.mode = mode
    if valid & FATTR_UID:
        changes.uid = uid
    if valid & FATTR_GID:
        changes.gid = gid
    if valid & FATTR_SIZE:
        changes.size = size
    if valid & FATTR_ATIME:
        changes.atime_ns = NOW if valid & FATTR_ATIME_NOW else atime * 1_000_000_000 + atime_ns
    if valid & FATTR_MTIME:
        changes.mtime_ns = NOW if valid & FATTR_MTIME_NOW else mtime * 1_000_000_000 + mtime_ns
    if valid & FATTR_CTIME:
        changes.ctime_ns = ctime * 1_000_000_000 + ctime_ns
    return changes, fh if valid & FATTR_FH else None


def call_setattr(method: Any) -> Call:
    def call(request: Request) -> Any:
        changes, fh = decode_changes(request.decode())
        return method(request, request.nodeid, changes, fh)

    return call


def call_symlink(method: Any) -> Call:
    return lambda request: method(request, request.nodeid, *request.decode())


def call_mknod(method: Any) -> Call:
    def call(request: Request) -> Any:
        mode, rdev, request.umask, _, name = request.decode()
        return method(request, request.nodeid, name, mode, codec.decode_rdev(rdev))

    return call


def call_mkdir(method: Any) -> Call:
    def call(request: Request) -> Any:
        mode, request.umask, name = request.decode()
        return method(request, request.nodeid, name, mode)

    return call


def call_rename(method: Any) -> Call:
    def call(request: Request) -> Any:
        new_parent, name, new_name = request.decode()
        return method(request, request.nodeid, name, new_parent, new_name, 0)

    return call


def call_rename2(method: Any) -> Call:
    def call(request: Request) -> Any:
        new_parent, flags, _, name, new_name = request.decode()
        return method(request, request.nodeid, name, new_parent, new_name, flags)

    return call


def call_link(method: Any) -> Call:
    def call(request: Request) -> Any:
        node, new_name = request.decode()
        return method(request, node, request.nodeid, new_name)

    return call


def call_open(method: Any) -> Call:
    def call(request: Request) -> Any:
        flags, open_flags = request.decode()
        request.kill_suidgid = bool(open_flags & OPEN_KILL_SUIDGID)
        return method(request, request.nodeid, flags)

    return call


def call_create(method: Any) -> Call:
    def call(request: Request) -> Any:
        flags, mode, request.umask, open_flags, name = request.decode()
        request.kill_suidgid = bool(open_flags & OPEN_KILL_SUIDGID)
        return method(request, request.nodeid, name, mode, flags)

    return call


def call_tmpfile(method: Any) -> Call:
    def call(request: Request) -> Any:
        flags, mode, request.umask, _, _ = request.decode()
        return method(request, request.nodeid, mode, flags)

    return call


def call_read(method: Any) -> Call:
    unpack = abi.FUSE_READ_IN.struct.unpack_from

    def call(request: Request) -> Any:
        fh, offset, size, _, _, _, _ = unpack(request.op_in)
        return method(request, request.nodeid, fh, offset, request.buffer[:size])

    return call


WRITE_FLAGS = 7
"""The bits of FUSE_WRITE_*. In open(2)'s flags they are the access mode, which a WRITE need not tell."""


def call_write(method: Any) -> Call:
    def call(request: Request) -> Any:
        fh, offset, _, write_flags, _, flags, _, data = request.decode()
        return method(request, request.nodeid, fh, offset, data, write_flags | flags & ~WRITE_FLAGS)

    return call


def call_flush(method: Any) -> Call:
    def call(request: Request) -> Any:
        fh, _, _, lock_owner = request.decode()
        return method(request, request.nodeid, fh, lock_owner)

    return call


def call_release(method: Any) -> Call:
    def call(request: Request) -> Any:
        fh, flags, release_flags, owner = request.decode()
        flock_owner = owner if release_flags & FLOCK_UNLOCK else None
        return method(request, request.nodeid, fh, flags, flock_owner)

    return call


def call_releasedir(method: Any) -> Call:
    return lambda request: method(request, request.nodeid, request.decode()[0])


def call_fsync(method: Any) -> Call:
    def call(request: Request) -> Any:
        fh, flags, _ = request.decode()
        return method(request, request.nodeid, fh, bool(flags & FDATASYNC))

    return call


def call_access(method: Any) -> Call:
    return lambda request: method(request, request.nodeid, request.decode()[0])


def call_getxattr(method: Any) -> Call:
    return lambda request: method(request, request.nodeid, request.decode()[2])


def call_setxattr(method: Any) -> Call:
    def call(request: Request) -> Any:
        _, flags, setxattr_flags, _, name, value = request.decode()
        kill_sgid = bool(setxattr_flags & ACL_KILL_SGID)
        return method(request, request.nodeid, name, value, flags, kill_sgid)

    return call


def call_fallocate(method: Any) -> Call:
    def call(request: Request) -> Any:
        fh, offset, length, mode, _ = request.decode()
        return method(request, request.nodeid, fh, mode, offset, length)

    return call


def call_lseek(method: Any) -> Call:
    def call(request: Request) -> Any:
        fh, offset, whence, _ = request.decode()
        return method(request, request.nodeid, fh, offset, whence)

    return call


def call_copy(method: Any) -> Call:
    def call(request: Request) -> Any:
        fh, offset, node_out, fh_out, offset_out, length, flags = request.decode()
        if request.opcode == Opcode.COPY_FILE_RANGE:  # its reply counts in 32 bits
            length = min(length, 1 << 30)
        return method(request, request.nodeid, fh, offset, node_out, fh_out, offset_out, length, flags)

    return call


def call_getlk(method: Any) -> Call:
    def call(request: Request) -> Any:
        fh, owner, start, end, kind, pid, _, _ = request.decode()
        return method(request, request.nodeid, fh, owner, Lock(kind, start, end, pid))

    return call


def call_bmap(method: Any) -> Call:
    def call(request: Request) -> Any:
        block, blocksize, _ = request.decode()
        return method(request, request.nodeid, block, blocksize)

    return call


def call_ioctl(method: Any) -> Call:
    def call(request: Request) -> Any:
        fh, flags, command, argument, _, out_size, data = request.decode()
        return method(request, request.nodeid, fh, command, argument, flags, data, out_size)

    return call


def call_poll(method: Any) -> Call:
    def call(request: Request) -> Any:
        fh, kh, flags, events = request.decode()
        notify = kh if flags & SCHEDULE_NOTIFY else None
        return method(request, request.nodeid, fh, notify, events)

    return call


ROUTES: dict[int, Route] = {
    Opcode.LOOKUP: Route("lookup", call_name, finish_entry),
    Opcode.GETATTR: Route("getattr", call_getattr, finish_attr),
    Opcode.SETATTR: Route("setattr", call_setattr, finish_setattr),
    Opcode.READLINK: Route("readlink", call_node, finish_bytes),
    Opcode.SYMLINK: Route("symlink", call_symlink, finish_made),
    Opcode.MKNOD: Route("mknod", call_mknod, finish_made),
    Opcode.MKDIR: Route("mkdir", call_mkdir, finish_made),
    Opcode.UNLINK: Route("unlink", call_name, finish_none),
    Opcode.RMDIR: Route("rmdir", call_name, finish_none),
    Opcode.RENAME: Route("rename", call_rename, finish_none),
    Opcode.RENAME2: Route("rename", call_rename2, finish_none),
    Opcode.LINK: Route("link", call_link, finish_made),
    Opcode.OPEN: Route("open", call_open, finish_opened),
    Opcode.READ: Route("read", call_read, finish_read),
    Opcode.WRITE: Route("write", call_write, finish_write),
    Opcode.STATFS: Route("statfs", call_node, finish_statfs),
    Opcode.RELEASE: Route("release", call_release, finish_none),
    Opcode.FSYNC: Route("fsync", call_fsync, finish_fsync),
    Opcode.SETXATTR: Route("setxattr", call_setxattr, finish_none),
    Opcode.GETXATTR: Route("getxattr", call_getxattr, finish_getxattr),
    Opcode.LISTXATTR: Route("listxattr", call_node, finish_listxattr),
    Opcode.REMOVEXATTR: Route("removexattr", call_name, finish_none),
    Opcode.FLUSH: Route("flush", call_flush, finish_none),
    Opcode.OPENDIR: Route("opendir", call_open, finish_opened_folder),
    Opcode.READDIR: Route("readdir", call_open, finish_listing),  # bound by _listing_handler
    Opcode.READDIRPLUS: Route("readdirplus", call_open, finish_listing),  # bound by _listing_handler
    Opcode.RELEASEDIR: Route("releasedir", call_releasedir, finish_none),
    Opcode.FSYNCDIR: Route("fsyncdir", call_fsync, finish_fsync),
    Opcode.GETLK: Route("getlk", call_getlk, finish_lock),
    Opcode.SETLK: Route("setlk", call_getlk, finish_none),  # bound by _lock_handler
    Opcode.SETLKW: Route("setlk", call_getlk, finish_none),  # bound by _lock_handler
    Opcode.ACCESS: Route("access", call_access, finish_none),
    Opcode.CREATE: Route("create", call_create, finish_created),
    Opcode.TMPFILE: Route("tmpfile", call_tmpfile, finish_created),
    Opcode.BMAP: Route("bmap", call_bmap, finish_bmap),
    Opcode.IOCTL: Route("ioctl", call_ioctl, finish_ioctl),
    Opcode.POLL: Route("poll", call_poll, finish_poll),
    Opcode.FALLOCATE: Route("fallocate", call_fallocate, finish_none),
    Opcode.LSEEK: Route("lseek", call_lseek, finish_lseek),
    Opcode.COPY_FILE_RANGE: Route("copy_file_range", call_copy, finish_copied),
    Opcode.COPY_FILE_RANGE_64: Route("copy_file_range", call_copy, finish_copied),
    Opcode.STATX: Route("statx", call_statx, finish_statx),
    Opcode.SYNCFS: Route("syncfs", call_node, finish_none),
}

SUCCEED = frozenset({Opcode.RELEASE, Opcode.RELEASEDIR})
"""Not overridden, these succeed: their answer reaches nobody, and ENOSYS would only be logged."""


def handlers(filesystem: api.Filesystem, replies: Replies) -> list[Handler | None]:
    """A filesystem's handlers by opcode; None where an opcode is not for filesystems."""
    table: list[Handler | None] = [None] * (max(ROUTES) + 1)
    for opcode, route in ROUTES.items():
        table[opcode] = _handler(filesystem, replies, opcode, route)
    return table


def _handler(filesystem: api.Filesystem, replies: Replies, opcode: int, route: Route) -> Handler:
    method = getattr(filesystem, route.method)
    implemented = api.is_implemented(type(filesystem), route.method)
    if opcode in (Opcode.SETLK, Opcode.SETLKW):
        implemented = implemented or api.is_implemented(type(filesystem), "flock")
    is_async = inspect.iscoroutinefunction(method)
    # fuse_lseek() does not flush: what has not been handed over would be taken for a hole. Told ENOSYS, the kernel says
    # that there are none.
    if not implemented or (opcode == Opcode.LSEEK and replies.gathers):
        return _default_handler(replies, opcode)
    if opcode in (Opcode.READDIR, Opcode.READDIRPLUS):
        call = _call_listing(method, replies, plus=opcode == Opcode.READDIRPLUS, is_async=is_async)
    elif opcode in (Opcode.SETLK, Opcode.SETLKW):
        call = _call_lock(filesystem, wait=opcode == Opcode.SETLKW)
        is_async = is_async or inspect.iscoroutinefunction(filesystem.flock)
    else:
        call = route.call(method)
    finish = route.finish
    repeatable = api.is_repeatable(type(filesystem), route.method)
    return Handler(call, lambda request, result: finish(replies, request, result), is_async, True, repeatable)


def _default_handler(replies: Replies, opcode: int) -> Handler:
    if opcode == Opcode.OPEN and (
        replies.open_flags or replies.parallel_with
    ):  # ENOSYS would leave the flags to the kernel
        opened = Opened()
        return Handler(lambda request: opened, lambda request, r: finish_opened(replies, request, r), False, False)
    if opcode in SUCCEED:
        return Handler(lambda request: None, lambda request, result: 0, False, False)
    if opcode == Opcode.STATFS:
        empty = api.Statfs()
        return Handler(lambda request: empty, lambda request, r: finish_statfs(replies, request, r), False, False)
    error = errno.ENOTTY if opcode == Opcode.IOCTL else errno.ENOSYS

    def refuse(request: Request) -> None:
        raise OSError(error, "not implemented")

    return Handler(refuse, lambda request, result: 0, False, False)


def _call_listing(method: Any, replies: Replies, plus: bool, is_async: bool) -> Call:
    unpack = abi.FUSE_READ_IN.struct.unpack_from

    def arguments(request: Request) -> tuple[Handle, int, Listing | ListingPlus]:
        fh, offset, size, _, _, _, _ = unpack(request.op_in)
        buffer = request.buffer
        return fh, offset, ListingPlus(replies, buffer, size, request.effect) if plus else Listing(buffer, size)

    # Entries that were added have references on their nodes: they are answered, and a lasting error comes next time.
    async def call_async(request: Request) -> int:
        fh, offset, out = arguments(request)
        try:
            await method(request, request.nodeid, fh, offset, out)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            if not out.size:
                raise
        return out.size

    def call(request: Request) -> int:
        fh, offset, out = arguments(request)
        try:
            method(request, request.nodeid, fh, offset, out)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            if not out.size:
                raise
        return out.size

    return call_async if is_async else call


def _call_lock(filesystem: api.Filesystem, wait: bool) -> Call:
    """SETLK and SETLKW carry both kinds of lock (fuse_setlk, fuse_file_flock): told apart by a flag."""
    setlk, flock = filesystem.setlk, filesystem.flock
    has_setlk = api.is_implemented(type(filesystem), "setlk")
    has_flock = api.is_implemented(type(filesystem), "flock")

    def call(request: Request) -> Any:
        fh, owner, start, end, kind, pid, flags, _ = request.decode()
        if flags & LK_FLOCK:
            if not has_flock:
                raise OSError(errno.ENOSYS, "not implemented")
            return flock(request, NodeId(request.nodeid), fh, owner, _FLOCK_OPERATION[kind], wait)
        if not has_setlk:
            raise OSError(errno.ENOSYS, "not implemented")
        return setlk(request, NodeId(request.nodeid), fh, owner, Lock(kind, start, end, pid), wait)

    if inspect.iscoroutinefunction(setlk) or inspect.iscoroutinefunction(flock):

        async def call_async(request: Request) -> Any:
            result = call(request)
            return await result if isinstance(result, Awaitable) else result

        return call_async
    return call


# fcntl(2)'s F_RDLCK, F_WRLCK, F_UNLCK as flock(2)'s LOCK_SH, LOCK_EX, LOCK_UN
_FLOCK_OPERATION = {0: 1, 1: 2, 2: 8}


def errno_of(error: OSError) -> int:
    """The errno to answer with: EIO for one that the kernel would not pass on."""
    number = error.errno
    return number if isinstance(number, int) and 0 < number <= MAX_ERRNO else errno.EIO
