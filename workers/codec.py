"""Bytes of the FUSE protocol to values and back, without I/O.

A request arrives as three parts, as the ring delivers them: the 40-byte header, the operation's struct
(`op_in`) and the payload. `split_legacy` cuts what was read from /dev/fuse into the same three parts.
Decoders return plain tuples; a payload is never copied to look at it, data is handed on as a memoryview of
it. Encoders write at an offset into a buffer that the caller owns and return the number of bytes written.

The rule a change must keep: the bytes are not to be trusted. Decoding any bytes gives a result or a
`DecodeError`, never another exception, and never looks beyond what the lengths say: bytes of op_in after the
operation's struct are left over from an earlier request (the kernel does not clear them) and are no part of
this one.

Encoders are given values by us, so a value that does not fit its field (a negative size, 2**64) is our
mistake: struct.error or ValueError, as is a buffer that is too small; nothing is written beyond the buffer.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

from ringmount.workers import abi
from ringmount.workers.abi import Layout, Name, Notify, Opcode, Operation

Bytes: TypeAlias = bytes | bytearray | memoryview
"""What decoders read: contiguous and of format B."""
Buffer: TypeAlias = memoryview
"""What encoders write into: writable, contiguous and of format B."""
Decoder: TypeAlias = "Callable[[int, Bytes, Bytes], tuple[Any, ...]]"
"""(total_extlen, op_in, payload) -> the request as a tuple; see `decode`."""
Seconds: TypeAlias = tuple[int, int]
"""A duration as (seconds, nanoseconds below a second); see `split_seconds`."""


# ------------------------------------------------------------------------------------------------------------
# Errors


class DecodeError(Exception):
    """The kernel sent bytes that we cannot understand. `opcode` and `unique` are set where they are known."""

    def __init__(self, message: str, opcode: int | None = None, unique: int | None = None) -> None:
        super().__init__(message)
        self.opcode = opcode
        self.unique = unique


class ShortHeader(DecodeError):
    """There is no whole fuse_in_header: nothing can be answered."""


class UnknownOpcode(DecodeError):
    """An opcode without a row in the table: ENOSYS."""


class ShortBody(DecodeError):
    """Fewer bytes than the request's struct or one of its lengths asks for."""


class MalformedBody(DecodeError):
    """Enough bytes, but they cannot be this request: a name without NUL, a length that lies."""


def _name_of(opcode: int) -> str:
    return f"FUSE_{Opcode(opcode).name}" if opcode in abi.OPERATIONS else f"opcode {opcode}"


def _short(opcode: int, part: str, needed: int, found: int) -> ShortBody:
    return ShortBody(f"{_name_of(opcode)}: {part} takes {needed} bytes, {found} are there", opcode)


def _malformed(opcode: int, reason: str) -> MalformedBody:
    return MalformedBody(f"{_name_of(opcode)}: {reason}", opcode)


# ------------------------------------------------------------------------------------------------------------
# Headers and parts


class Header(NamedTuple):
    """fuse_in_header. `total_extlen` counts units of 8 bytes."""

    len: int
    opcode: int
    unique: int
    nodeid: int
    uid: int
    gid: int
    pid: int
    total_extlen: int
    padding: int


_unpack_header = abi.FUSE_IN_HEADER.struct.unpack_from
_HEADER_SIZE = abi.FUSE_IN_HEADER.size


def decode_header(buf: Bytes) -> Header:
    """The header at the start of `buf`, which may go on after it. Raises ShortHeader."""
    try:
        header = tuple.__new__(Header, _unpack_header(buf))  # _make, less its checks
    except struct.error:
        raise ShortHeader(f"fuse_in_header takes {_HEADER_SIZE} bytes, {len(buf)} are there") from None
    if header.len < _HEADER_SIZE:
        raise ShortHeader(
            f"fuse_in_header.len is {header.len}, less than the header itself", header.opcode, header.unique
        )
    return header


_OP_IN_SIZES = {opcode: row.op_in_size for opcode, row in abi.OPERATIONS.items()}
_COMPAT_OP_IN_SIZES = _OP_IN_SIZES | {Opcode.SETXATTR: abi.FUSE_COMPAT_SETXATTR_IN.size}


def op_in_size(opcode: int, setxattr_ext: bool = True) -> int:
    """Bytes of op_in that belong to a request. Raises UnknownOpcode."""
    try:
        return (_OP_IN_SIZES if setxattr_ext else _COMPAT_OP_IN_SIZES)[opcode]
    except KeyError:
        raise UnknownOpcode(f"unknown opcode {opcode}", opcode) from None


def split_legacy(buf: memoryview, setxattr_ext: bool = True) -> tuple[memoryview, memoryview, memoryview]:
    """Cut a request that was read from /dev/fuse into (header, op_in, payload), as the ring delivers them.

    `buf` is what read() returned. Nothing is copied. fuse_in_header.len rules: bytes after it are cut off.
    Raises ShortHeader, UnknownOpcode, and ShortBody if `buf` ends before len or len before the operation's
    struct does. INIT's struct may be any length here; its decoder knows both forms.
    """
    header = decode_header(buf)
    end = header.len
    try:
        size = op_in_size(header.opcode, setxattr_ext)
        if end > len(buf):
            raise _short(header.opcode, "the whole request", end, len(buf))
        start = _HEADER_SIZE + size
        if start > end:
            if header.opcode != Opcode.INIT:
                raise _short(header.opcode, "its struct", size, end - _HEADER_SIZE)
            start = end
    except DecodeError as error:
        error.unique = header.unique
        raise
    return buf[:_HEADER_SIZE], buf[_HEADER_SIZE:start], buf[start:end]


def split_ring(
    header: Header, op_in: memoryview, area: memoryview, payload_sz: int, setxattr_ext: bool = True
) -> tuple[memoryview, memoryview]:
    """Cut an entry's op_in and payload areas to the lengths of the request that is in them: (op_in, payload).

    The kernel sets header.len = 40 + op_in + payload_sz (fuse_uring_ent_in_out), so the three must agree.
    Raises UnknownOpcode, ShortBody (payload_sz is more than the area), MalformedBody (the lengths disagree).
    """
    try:
        size = op_in_size(header.opcode, setxattr_ext)
        if payload_sz > len(area):
            raise _short(header.opcode, "the payload", payload_sz, len(area))
        if header.len != _HEADER_SIZE + size + payload_sz:
            raise _malformed(
                header.opcode,
                f"len {header.len} is not {_HEADER_SIZE} + {size} + payload_sz {payload_sz}",
            )
    except DecodeError as error:
        error.unique = header.unique
        raise
    return op_in[:size], area[:payload_sz]


# ------------------------------------------------------------------------------------------------------------
# Requests: one decoder per row of the table, built at import.
#
# Each is a closure over what its row says, so that a request costs one call, one unpack and what its names
# take. The exception of unpack_from is the length check: try costs nothing while nothing is raised.


_PATTERNS: Mapping[Name, bytes] = {
    Name.ENTRY: rb"(?!\.\.?\0)([^/\0]+)\0",
    Name.LOOKUP: rb"([^/\0]+)\0",
    Name.TARGET: rb"([^\0]*)\0",
    Name.LABEL: rb"([^\0]+)\0",
}


def _pattern(kinds: tuple[Name, ...]) -> re.Pattern[bytes]:
    """Names as they follow one another. Matching one does not copy the payload, its groups are the names."""
    return re.compile(b"".join(_PATTERNS[kind] for kind in kinds))


def _bad_names(opcode: int, kinds: tuple[Name, ...], found: bytes) -> MalformedBody:
    """The error for names that did not match; `found` is where they should have been."""
    if found.count(b"\0") < len(kinds):
        return _malformed(opcode, f"{len(kinds)} names take as many NULs, there are {found.count(0)}")
    *names, rest = found.split(b"\0", len(kinds))
    for name, kind in zip(names, kinds, strict=True):
        if not re.fullmatch(_PATTERNS[kind], name + b"\0"):
            return _malformed(opcode, f"{name!r} is not {kind.value}")
    return _malformed(opcode, f"{len(rest)} bytes after the last name")


def _unknown(opcode: int) -> Decoder:
    def decode_unknown(total_extlen: int, op_in: Bytes, payload: Bytes) -> tuple[Any, ...]:
        raise UnknownOpcode(f"unknown opcode {opcode}", opcode)

    return decode_unknown


def _nothing() -> Decoder:
    def decode_nothing(total_extlen: int, op_in: Bytes, payload: Bytes) -> tuple[Any, ...]:
        return ()

    return decode_nothing


def _struct_only(opcode: int, request: Layout) -> Decoder:
    unpack, size = request.struct.unpack_from, request.size

    def decode_struct(total_extlen: int, op_in: Bytes, payload: Bytes) -> tuple[Any, ...]:
        try:
            return unpack(op_in)
        except struct.error:
            raise _short(opcode, request.name, size, len(op_in)) from None

    return decode_struct


def _names_only(opcode: int, kinds: tuple[Name, ...]) -> Decoder:
    fullmatch = _pattern(kinds).fullmatch

    def decode_names(total_extlen: int, op_in: Bytes, payload: Bytes) -> tuple[Any, ...]:
        end = len(payload) - 8 * total_extlen
        found = fullmatch(payload, 0, end)
        if found is None:
            if end < 0:
                raise _short(opcode, "its extension block", 8 * total_extlen, len(payload))
            raise _bad_names(opcode, kinds, bytes(payload[:end]))
        return found.groups()

    return decode_names


def _struct_and_names(opcode: int, request: Layout, kinds: tuple[Name, ...]) -> Decoder:
    unpack = request.struct.unpack_from
    decode_names = _names_only(opcode, kinds)

    def decode_both(total_extlen: int, op_in: Bytes, payload: Bytes) -> tuple[Any, ...]:
        try:
            fields = unpack(op_in)
        except struct.error:
            raise _short(opcode, request.name, request.size, len(op_in)) from None
        return fields + decode_names(total_extlen, op_in, payload)

    return decode_both


def _struct_and_data(opcode: int, request: Layout, counter: str) -> Decoder:
    unpack = request.struct.unpack_from
    index = request.fields.index(counter)

    def decode_data(total_extlen: int, op_in: Bytes, payload: Bytes) -> tuple[Any, ...]:
        try:
            fields = unpack(op_in)
        except struct.error:
            raise _short(opcode, request.name, request.size, len(op_in)) from None
        size = fields[index]
        if size == len(payload):
            return (*fields, payload)
        if size > len(payload):
            raise _short(opcode, "its data", size, len(payload))
        return (*fields, payload[:size])

    return decode_data


def _inline_struct_and_data(opcode: int, request: Layout, counter: str) -> Decoder:
    decode_data = _struct_and_data(opcode, request, counter)

    def decode_inline(total_extlen: int, op_in: Bytes, payload: Bytes) -> tuple[Any, ...]:
        return decode_data(total_extlen, payload, payload[request.size :])

    return decode_inline


def _struct_label_and_data(opcode: int, request: Layout, counter: str, missing: int = 0) -> Decoder:
    """SETXATTR: a name as long as names may be, then the value.

    `missing` zeros stand for the fields that the short form of the struct lacks.
    """
    unpack = request.struct.unpack_from
    index = request.fields.index(counter)
    zeros = (0,) * missing
    match = _pattern((Name.LABEL,)).match
    reach = abi.XATTR_NAME_MAX + 1

    def decode_label(total_extlen: int, op_in: Bytes, payload: Bytes) -> tuple[Any, ...]:
        try:
            fields = unpack(op_in)
        except struct.error:
            raise _short(opcode, request.name, request.size, len(op_in)) from None
        found = match(payload, 0, reach)
        if found is None:
            raise _bad_names(opcode, (Name.LABEL,), bytes(payload[:reach]))
        start, size = found.end(), fields[index]
        if size > len(payload) - start:
            raise _short(opcode, "its value", size, len(payload) - start)
        return (*fields, *zeros, found[1], payload[start : start + size])

    return decode_label


def _struct_and_items(opcode: int, request: Layout, items: Layout) -> Decoder:
    unpack = request.struct.unpack_from
    index = request.fields.index("count")
    iter_unpack, item_size = items.struct.iter_unpack, items.size

    def decode_items(total_extlen: int, op_in: Bytes, payload: Bytes) -> tuple[Any, ...]:
        try:
            fields = unpack(op_in)
        except struct.error:
            raise _short(opcode, request.name, request.size, len(op_in)) from None
        size = fields[index] * item_size
        if size > len(payload):
            raise _short(opcode, f"{fields[index]} times {items.name}", size, len(payload))
        return (*fields, tuple(iter_unpack(payload[:size])))

    return decode_items


def _init_fields(op_in: Bytes) -> tuple[int, ...]:
    """major, minor, max_readahead, flags, flags2 of either form of fuse_init_in."""
    if len(op_in) >= abi.FUSE_INIT_IN.size:
        return abi.FUSE_INIT_IN.struct.unpack_from(op_in)
    try:
        return (*abi.FUSE_COMPAT_INIT_IN.struct.unpack_from(op_in), 0)
    except struct.error:
        raise _short(Opcode.INIT, "fuse_init_in", abi.FUSE_COMPAT_INIT_IN.size, len(op_in)) from None


def _init() -> Decoder:
    def decode_init(total_extlen: int, op_in: Bytes, payload: Bytes) -> tuple[Any, ...]:
        return _init_fields(op_in)

    return decode_init


def _decoder(row: Operation) -> Decoder:
    opcode, request, kinds = int(row.opcode), row.request, row.kinds
    if row.opcode is Opcode.INIT:
        return _init()
    if request is None:
        return _names_only(opcode, kinds) if kinds else _nothing()
    if row.items:
        return _struct_and_items(opcode, request, row.items)
    if row.data:
        if row.inline:
            return _inline_struct_and_data(opcode, request, row.data)
        if kinds:
            return _struct_label_and_data(opcode, request, row.data)
        return _struct_and_data(opcode, request, row.data)
    return _struct_and_names(opcode, request, kinds) if kinds else _struct_only(opcode, request)


_HIGHEST = max(opcode for opcode in abi.OPERATIONS if opcode != Opcode.CUSE_INIT)

DECODERS: list[Decoder] = [
    _decoder(abi.OPERATIONS[opcode]) if opcode in abi.OPERATIONS else _unknown(opcode) for opcode in range(_HIGHEST + 1)
]
"""Decoders by opcode, for connections with InitFlags.SETXATTR_EXT. Index with 0 <= opcode < len(DECODERS)."""

COMPAT_DECODERS: list[Decoder] = list(DECODERS)
"""The same for a connection without InitFlags.SETXATTR_EXT."""
COMPAT_DECODERS[Opcode.SETXATTR] = _struct_label_and_data(
    Opcode.SETXATTR,
    abi.FUSE_COMPAT_SETXATTR_IN,
    "size",
    missing=len(abi.FUSE_SETXATTR_IN.fields) - len(abi.FUSE_COMPAT_SETXATTR_IN.fields),
)

_decode_cuse_init = _decoder(abi.OPERATIONS[Opcode.CUSE_INIT])


def decode(
    opcode: int,
    total_extlen: int,
    op_in: Bytes,
    payload: Bytes,
    minor: int = abi.FUSE_KERNEL_MINOR_VERSION,
    *,
    setxattr_ext: bool = True,
) -> tuple[Any, ...]:
    """A request as a tuple: the fields of its struct in order, then its names, then its data or items.

    - Fields: those of the row's `request` (`Layout.fields`), padding included, as ints.
    - Names: bytes without the NUL.
    - Data: a memoryview of `payload` (a slice of whatever `payload` is), exactly as long as the struct says.
    - Items (BATCH_FORGET, REMOVEMAPPING): a tuple of tuples.

    SETXATTR gives the same tuple for both forms of its struct, INIT for all (flags2 is 0 where it was not
    sent). `op_in` may be longer than the struct; `payload` must be cut to payload_sz. An extension block at
    its end is skipped, see `decode_extensions`. Raises UnknownOpcode (also for an opcode that came after
    `minor`), ShortBody, MalformedBody. On the way of a request, index DECODERS directly.
    """
    row = abi.OPERATIONS.get(opcode)
    if row is None or row.since > minor:
        raise UnknownOpcode(f"unknown opcode {opcode} in version 7.{minor}", opcode)
    if opcode == Opcode.CUSE_INIT:
        return _decode_cuse_init(total_extlen, op_in, payload)
    return (DECODERS if setxattr_ext else COMPAT_DECODERS)[opcode](total_extlen, op_in, payload)


class InitIn(NamedTuple):
    """fuse_init_in, both halves of the flags in one number (compare with abi.InitFlags)."""

    major: int
    minor: int
    max_readahead: int
    flags: int


def decode_init_in(op_in: Bytes) -> InitIn:
    """INIT's struct in any of its lengths. flags2 counts only with InitFlags.INIT_EXT. Raises ShortBody."""
    major, minor, max_readahead, flags, flags2 = _init_fields(op_in)
    if flags & abi.InitFlags.INIT_EXT:
        flags |= flags2 << 32
    return InitIn(major, minor, max_readahead, flags)


class Extensions(NamedTuple):
    """What came along with a request that creates something.

    - `groups`: supplementary groups of the caller; the kernel sends the one that matches the parent's group.
    - `secctx`: (name of the extended attribute, value) for each security module that labels new objects.
    """

    groups: tuple[int, ...]
    secctx: tuple[tuple[bytes, bytes], ...]


NO_EXTENSIONS = Extensions((), ())


def decode_extensions(payload: Bytes, total_extlen: int) -> Extensions:
    """The extension block: the last `total_extlen` * 8 bytes of the payload, not aligned in it.

    Types that are not known are skipped. Raises ShortBody if the payload is shorter than the block,
    MalformedBody for sizes that leave the block or are not multiples of 8.
    """
    if not total_extlen:
        return NO_EXTENSIONS
    start = len(payload) - 8 * total_extlen
    if start < 0:
        raise ShortBody(f"the extension block takes {8 * total_extlen} bytes, {len(payload)} are there")
    block = bytes(payload[start:])
    groups: list[int] = []
    secctx: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(block):
        size, kind = abi.FUSE_EXT_HEADER.struct.unpack_from(block, at)
        if size < abi.FUSE_EXT_HEADER.size or size % 8 or size > len(block) - at:
            raise MalformedBody(f"extension of {size} bytes, {len(block) - at} are left")
        body = block[at + abi.FUSE_EXT_HEADER.size : at + size]
        if kind <= abi.ExtType.MAX_NR_SECCTX:
            secctx += _decode_secctx(body, kind)
        elif kind == abi.ExtType.EXT_GROUPS:
            groups += _decode_groups(body)
        at += size
    return Extensions(tuple(groups), tuple(secctx))


def _decode_groups(body: bytes) -> tuple[int, ...]:
    head = abi.FUSE_SUPP_GROUPS.size
    count = int.from_bytes(body[:head], "little")
    if len(body) < head + 4 * count:
        raise MalformedBody(f"{count} groups in an extension of {len(body)} bytes")
    return struct.unpack_from(f"<{count}I", body, head)


def _decode_secctx(body: bytes, count: int) -> Iterable[tuple[bytes, bytes]]:
    """`count` times fuse_secctx, name, NUL, value; each padded to 8 bytes (kernel: get_security_context)."""
    contexts = []
    at = 0
    for _ in range(count):
        name_at = at + abi.FUSE_SECCTX.size
        if name_at > len(body):
            raise MalformedBody("a security context ends before its header does")
        size, _padding = abi.FUSE_SECCTX.struct.unpack_from(body, at)
        nul = body.find(b"\0", name_at)
        if nul <= name_at:
            raise MalformedBody("a security context without a name")
        end = nul + 1 + size
        if end > len(body):
            raise MalformedBody(f"a security context of {size} bytes, {len(body) - nul - 1} are left")
        contexts.append((body[name_at:nul], body[nul + 1 : end]))
        at = end + (-end & 7)
    return contexts


# ------------------------------------------------------------------------------------------------------------
# Numbers


def split_seconds(seconds: float) -> Seconds:
    """A timeout as the kernel takes it: whole seconds and nanoseconds, cut at 2**32 - 1 s, also for infinity.

    Raises ValueError for a negative number and NaN.
    """
    if not seconds >= 0:
        raise ValueError(f"a timeout of {seconds} s")
    if seconds >= _LONGEST:
        return (_LONGEST, 0)
    whole = int(seconds)
    return (whole, min(round((seconds - whole) * _GIGA), _GIGA - 1))


_GIGA = 1_000_000_000
_LONGEST = (1 << 32) - 1


def encode_rdev(rdev: int) -> int:
    """st_rdev as the kernel's 32-bit device number (new_encode_dev). Raises ValueError if it does not fit.

    glibc's 64-bit dev_t keeps the low 12 bits of major and the low 20 of minor where new_encode_dev has them,
    and the others above bit 32. The kernel has no others: a number that fits is the same in both forms.
    """
    if not 0 <= rdev < 1 << 32:
        raise ValueError(f"device number {rdev:#x} has a major over 12 or a minor over 20 bits")
    return rdev


def decode_rdev(rdev: int) -> int:
    """The 32-bit device number of a request (fuse_mknod_in) as os.makedev would make it; see encode_rdev."""
    return rdev


# ------------------------------------------------------------------------------------------------------------
# Replies


class Attr(Protocol):
    """Attributes as os.stat_result has them. Times are nanoseconds and may be negative."""

    @property
    def st_ino(self) -> int: ...
    @property
    def st_size(self) -> int: ...
    @property
    def st_blocks(self) -> int: ...
    @property
    def st_atime_ns(self) -> int: ...
    @property
    def st_mtime_ns(self) -> int: ...
    @property
    def st_ctime_ns(self) -> int: ...
    @property
    def st_mode(self) -> int: ...
    @property
    def st_nlink(self) -> int: ...
    @property
    def st_uid(self) -> int: ...
    @property
    def st_gid(self) -> int: ...
    @property
    def st_rdev(self) -> int: ...
    @property
    def st_blksize(self) -> int: ...


class Statfs(Protocol):
    """Sizes of a filesystem as os.statvfs_result has them."""

    @property
    def f_blocks(self) -> int: ...
    @property
    def f_bfree(self) -> int: ...
    @property
    def f_bavail(self) -> int: ...
    @property
    def f_files(self) -> int: ...
    @property
    def f_ffree(self) -> int: ...
    @property
    def f_bsize(self) -> int: ...
    @property
    def f_namemax(self) -> int: ...
    @property
    def f_frsize(self) -> int: ...


_pack_attr = abi.FUSE_ATTR.struct.pack_into
_pack_attr_out = abi.FUSE_ATTR_OUT.struct.pack_into
_pack_entry_out = abi.FUSE_ENTRY_OUT.struct.pack_into
_pack_open_out = abi.FUSE_OPEN_OUT.struct.pack_into
_pack_write_out = abi.FUSE_WRITE_OUT.struct.pack_into
_pack_out_header = abi.FUSE_OUT_HEADER.struct.pack_into
_pack_dirent = abi.FUSE_DIRENT.struct.pack_into
_ATTR_SIZE = abi.FUSE_ATTR.size
_ATTR_OUT_SIZE = abi.FUSE_ATTR_OUT.size
_ENTRY_OUT_SIZE = abi.FUSE_ENTRY_OUT.size
_OUT_HEADER_SIZE = abi.FUSE_OUT_HEADER.size
_DIRENT_SIZE = abi.FUSE_DIRENT.size
_PADDING = [b"\0" * (-size & 7) for size in range(8)]


def _attr_fields(attr: Attr, flags: int) -> tuple[int, ...]:
    atime, atimensec = divmod(attr.st_atime_ns, _GIGA)
    mtime, mtimensec = divmod(attr.st_mtime_ns, _GIGA)
    ctime, ctimensec = divmod(attr.st_ctime_ns, _GIGA)
    return (
        attr.st_ino,
        attr.st_size,
        attr.st_blocks,
        atime,
        mtime,
        ctime,
        atimensec,
        mtimensec,
        ctimensec,
        attr.st_mode,
        attr.st_nlink,
        attr.st_uid,
        attr.st_gid,
        attr.st_rdev,  # the same number: encode_rdev
        attr.st_blksize,
        flags,
    )


def encode_attr(buf: Buffer, off: int, attr: Attr, flags: int = 0) -> int:
    """fuse_attr. `flags`: abi.AttrFlags."""
    _pack_attr(buf, off, *_attr_fields(attr, flags))
    return _ATTR_SIZE


def encode_attr_out(buf: Buffer, off: int, attr: Attr, valid_s: int = 0, valid_ns: int = 0, flags: int = 0) -> int:
    """fuse_attr_out: GETATTR, SETATTR. The kernel may use the attributes for `valid_s` + `valid_ns`."""
    _pack_attr_out(buf, off, valid_s, valid_ns, 0, *_attr_fields(attr, flags))
    return _ATTR_OUT_SIZE


def encode_entry_out(
    buf: Buffer,
    off: int,
    nodeid: int,
    generation: int,
    entry_valid: Seconds,
    attr_valid: Seconds,
    attr: Attr,
    flags: int = 0,
) -> int:
    """fuse_entry_out: LOOKUP and all that create an entry. `nodeid` with `generation` is never used again."""
    entry_s, entry_ns = entry_valid
    attr_s, attr_ns = attr_valid
    _pack_entry_out(buf, off, nodeid, generation, entry_s, attr_s, entry_ns, attr_ns, *_attr_fields(attr, flags))
    return _ENTRY_OUT_SIZE


_NO_ATTR = (0,) * len(abi.FUSE_ATTR.fields)


def encode_negative_entry(buf: Buffer, off: int, entry_valid: Seconds) -> int:
    """fuse_entry_out with nodeid 0: no such name, and the kernel may remember that for `entry_valid`."""
    entry_s, entry_ns = entry_valid
    _pack_entry_out(buf, off, 0, 0, entry_s, 0, entry_ns, 0, *_NO_ATTR)
    return _ENTRY_OUT_SIZE


def encode_open_out(buf: Buffer, off: int, fh: int, open_flags: int = 0, backing_id: int = 0) -> int:
    """fuse_open_out: OPEN, OPENDIR, and after the entry in CREATE, TMPFILE. `open_flags`: abi.OpenReply."""
    _pack_open_out(buf, off, fh, open_flags, backing_id)
    return abi.FUSE_OPEN_OUT.size


def encode_write_out(buf: Buffer, off: int, size: int) -> int:
    """fuse_write_out: WRITE, COPY_FILE_RANGE."""
    _pack_write_out(buf, off, size, 0)
    return abi.FUSE_WRITE_OUT.size


def encode_copy_file_range_out(buf: Buffer, off: int, bytes_copied: int) -> int:
    """fuse_copy_file_range_out: COPY_FILE_RANGE_64."""
    abi.FUSE_COPY_FILE_RANGE_OUT.struct.pack_into(buf, off, bytes_copied)
    return abi.FUSE_COPY_FILE_RANGE_OUT.size


def encode_statfs_out(buf: Buffer, off: int, st: Statfs) -> int:
    """fuse_statfs_out: STATFS."""
    abi.FUSE_STATFS_OUT.struct.pack_into(
        buf,
        off,
        st.f_blocks,
        st.f_bfree,
        st.f_bavail,
        st.f_files,
        st.f_ffree,
        st.f_bsize,
        st.f_namemax,
        st.f_frsize,
        0,
    )
    return abi.FUSE_STATFS_OUT.size


def encode_xattr_size(buf: Buffer, off: int, size: int) -> int:
    """fuse_getxattr_out: GETXATTR and LISTXATTR that asked with size 0."""
    abi.FUSE_GETXATTR_OUT.struct.pack_into(buf, off, size, 0)
    return abi.FUSE_GETXATTR_OUT.size


def encode_lk_out(buf: Buffer, off: int, start: int, end: int, type: int, pid: int) -> int:
    """fuse_lk_out: GETLK. `end` is inclusive; `type`: F_RDLCK, F_WRLCK or F_UNLCK (no lock is in the way)."""
    abi.FUSE_LK_OUT.struct.pack_into(buf, off, start, end, type, pid)
    return abi.FUSE_LK_OUT.size


def encode_lseek_out(buf: Buffer, off: int, offset: int) -> int:
    """fuse_lseek_out: LSEEK."""
    abi.FUSE_LSEEK_OUT.struct.pack_into(buf, off, offset)
    return abi.FUSE_LSEEK_OUT.size


def encode_bmap_out(buf: Buffer, off: int, block: int) -> int:
    """fuse_bmap_out: BMAP."""
    abi.FUSE_BMAP_OUT.struct.pack_into(buf, off, block)
    return abi.FUSE_BMAP_OUT.size


def encode_poll_out(buf: Buffer, off: int, revents: int) -> int:
    """fuse_poll_out: POLL."""
    abi.FUSE_POLL_OUT.struct.pack_into(buf, off, revents, 0)
    return abi.FUSE_POLL_OUT.size


def encode_ioctl_out(buf: Buffer, off: int, result: int, flags: int = 0, in_iovs: int = 0, out_iovs: int = 0) -> int:
    """fuse_ioctl_out: IOCTL; the data that goes back to the caller follows it. `flags`: abi.IoctlFlags."""
    abi.FUSE_IOCTL_OUT.struct.pack_into(buf, off, result, flags, in_iovs, out_iovs)
    return abi.FUSE_IOCTL_OUT.size


STATX_BASIC_STATS = 0x7FF
STATX_BTIME = 0x800


def encode_statx_out(
    buf: Buffer,
    off: int,
    attr: Attr,
    valid_s: int = 0,
    valid_ns: int = 0,
    *,
    mask: int = STATX_BASIC_STATS,
    btime_ns: int | None = None,
    attributes: int = 0,
    attributes_mask: int = 0,
    dev: int = 0,
) -> int:
    """fuse_statx_out: STATX. A birth time that is known is added to `mask` as STATX_BTIME.

    Linux 6.18 takes the basic fields and the birth time from it and ignores attributes and dev
    (fuse_do_statx).
    """
    atime, atimensec = divmod(attr.st_atime_ns, _GIGA)
    mtime, mtimensec = divmod(attr.st_mtime_ns, _GIGA)
    ctime, ctimensec = divmod(attr.st_ctime_ns, _GIGA)
    btime, btimensec = divmod(btime_ns or 0, _GIGA)
    if btime_ns is not None:
        mask |= STATX_BTIME
    abi.FUSE_STATX_OUT.struct.pack_into(
        buf,
        off,
        valid_s,
        valid_ns,
        0,
        mask,
        attr.st_blksize,
        attributes,
        attr.st_nlink,
        attr.st_uid,
        attr.st_gid,
        attr.st_mode,
        attr.st_ino,
        attr.st_size,
        attr.st_blocks,
        attributes_mask,
        atime,
        atimensec,
        0,
        btime,
        btimensec,
        0,
        ctime,
        ctimensec,
        0,
        mtime,
        mtimensec,
        0,
        *_split_dev(attr.st_rdev),
        *_split_dev(dev),
    )
    return abi.FUSE_STATX_OUT.size


def _split_dev(dev: int) -> tuple[int, int]:
    """(major, minor) of glibc's 64-bit dev_t."""
    return (dev >> 8 & 0xFFF) | (dev >> 32 & 0xFFFF_F000), (dev & 0xFF) | (dev >> 12 & 0xFFFF_FF00)


def encode_dirent(buf: Buffer, off: int, limit: int, ino: int, next_off: int, type: int, name: bytes) -> int:
    """One fuse_dirent of a READDIR at `off`. Returns the offset after it, or 0 if it does not fit before
    `limit`.

    `limit` is an offset in `buf`: where the reply began plus the size that was asked for. `next_off` is what
    a later READDIR gives to go on after this entry, `type` the file's DT_* (st_mode >> 12). The kernel
    answers the whole READDIR with EIO for a name that is empty or has a slash, so they are refused:
    ValueError.
    """
    size = _DIRENT_SIZE + len(name)
    end = off + size + (-size & 7)
    if end > limit:
        return 0
    if not name or b"/" in name or b"\0" in name:
        raise ValueError(f"{name!r} is no name of a directory entry")
    _pack_dirent(buf, off, ino, next_off, len(name), type)
    buf[off + _DIRENT_SIZE : end] = name + _PADDING[size & 7]
    return end


def encode_direntplus(
    buf: Buffer,
    off: int,
    limit: int,
    ino: int,
    next_off: int,
    type: int,
    name: bytes,
    nodeid: int,
    generation: int,
    entry_valid: Seconds,
    attr_valid: Seconds,
    attr: Attr | None,
) -> int:
    """One fuse_direntplus of a READDIRPLUS at `off`; otherwise like `encode_dirent`.

    Each entry with a `nodeid` counts as a lookup, unless it is "." or "..". `nodeid` 0 (with `attr` None)
    gives the name without attributes and counts nothing.
    """
    end = encode_dirent(buf, off + _ENTRY_OUT_SIZE, limit, ino, next_off, type, name)
    if end:
        fields = _NO_ATTR if attr is None else _attr_fields(attr, 0)
        entry_s, entry_ns = entry_valid
        attr_s, attr_ns = attr_valid
        _pack_entry_out(buf, off, nodeid, generation, entry_s, attr_s, entry_ns, attr_ns, *fields)
    return end


MAX_ERRNO = 511
"""fuse_dev_do_write refuses error <= -512; by the ring too, such a reply becomes EINVAL."""


def encode_out_header(buf: Buffer, off: int, unique: int, error: int, size: int = 0) -> int:
    """fuse_out_header of a reply: `error` is 0 or a (positive) errno, `size` the bytes of the body that
    follows.

    An error has no body. Raises ValueError for an errno outside 0..MAX_ERRNO, or an error with a body.
    """
    if error and (size or not 0 < error <= MAX_ERRNO):
        raise ValueError(f"errno {error} with {size} bytes")
    _pack_out_header(buf, off, _OUT_HEADER_SIZE + size, -error, unique)
    return _OUT_HEADER_SIZE


def encode_init_out(
    buf: Buffer,
    off: int,
    *,
    minor: int,
    max_readahead: int,
    flags: int,
    max_background: int,
    congestion_threshold: int,
    max_write: int,
    time_gran: int = 1,
    max_pages: int = 0,
    map_alignment: int = 0,
    max_stack_depth: int = 0,
    request_timeout: int = 0,
    major: int = abi.FUSE_KERNEL_VERSION,
) -> int:
    """fuse_init_out. `flags`: abi.InitFlags, both halves in one number. `time_gran` in ns, `request_timeout`
    in s.

    Raises ValueError if flags of the upper half come without INIT_EXT: the kernel would ignore them.
    """
    if flags >> 32 and not flags & abi.InitFlags.INIT_EXT:
        raise ValueError("flags above bit 31 without INIT_EXT")
    abi.FUSE_INIT_OUT.struct.pack_into(
        buf,
        off,
        major,
        minor,
        max_readahead,
        flags & 0xFFFF_FFFF,
        max_background,
        congestion_threshold,
        max_write,
        time_gran,
        max_pages,
        map_alignment,
        flags >> 32,
        max_stack_depth,
        request_timeout,
    )
    return abi.FUSE_INIT_OUT.size


# ------------------------------------------------------------------------------------------------------------
# Notifications: whole messages, to be written to /dev/fuse by one write. The result of the write is the
# kernel's.


def _notification(code: Notify, body: bytes = b"") -> bytes:
    return abi.FUSE_OUT_HEADER.struct.pack(_OUT_HEADER_SIZE + len(body), code, 0) + body


def notify_poll(kh: int) -> bytes:
    """Wake the callers of poll(2) on the file whose POLL request had `kh`."""
    return _notification(Notify.POLL, abi.FUSE_NOTIFY_POLL_WAKEUP_OUT.struct.pack(kh))


def notify_inval_inode(ino: int, off: int, len: int) -> bytes:
    """Forget cached attributes of node `ino`, and its pages from `off` on: `len` bytes, or all if `len` <= 0.

    `off` < 0 leaves the pages alone. ENOENT from the write: the kernel does not know the node.
    """
    return _notification(Notify.INVAL_INODE, abi.FUSE_NOTIFY_INVAL_INODE_OUT.struct.pack(ino, off, len))


def notify_inval_entry(parent: int, name: bytes, flags: int = 0) -> bytes:
    """Forget entry `name` of directory `parent`. `flags`: abi.InvalEntryFlags. ENOENT: it was not cached."""
    head = abi.FUSE_NOTIFY_INVAL_ENTRY_OUT.struct.pack(parent, len(_entry(name)), flags)
    return _notification(Notify.INVAL_ENTRY, head + name + b"\0")


def notify_delete(parent: int, child: int, name: bytes) -> bytes:
    """Like notify_inval_entry, and the entry, if it is still node `child`, is gone (inotify hears of it)."""
    head = abi.FUSE_NOTIFY_DELETE_OUT.struct.pack(parent, child, len(_entry(name)), 0)
    return _notification(Notify.DELETE, head + name + b"\0")


def notify_store(nodeid: int, offset: int, data: Bytes) -> bytes:
    """Put `data` into the page cache of a node. Copies it."""
    head = abi.FUSE_NOTIFY_STORE_OUT.struct.pack(nodeid, offset, len(data), 0)
    return _notification(Notify.STORE, head + data)


def notify_retrieve(notify_unique: int, nodeid: int, offset: int, size: int) -> bytes:
    """Ask for cached pages of a node; they come as a NOTIFY_REPLY request whose unique is `notify_unique`.

    Raises ValueError for an id that is 0 or odd: the kernel cannot match the reply to such a ring request.
    """
    if not notify_unique or notify_unique & 1:
        raise ValueError(f"notify_unique {notify_unique} must be even and not 0")
    body = abi.FUSE_NOTIFY_RETRIEVE_OUT.struct.pack(notify_unique, nodeid, offset, size, 0)
    return _notification(Notify.RETRIEVE, body)


def notify_resend() -> bytes:
    """Have all requests that were read from /dev/fuse and not answered sent again. [7.40]"""
    return _notification(Notify.RESEND)


def notify_inc_epoch() -> bytes:
    """Have every cached entry looked up again before its next use. [7.44]"""
    return _notification(Notify.INC_EPOCH)


def notify_prune(nodeids: Iterable[int]) -> bytes:
    """Drop the nodes, where nothing uses them, from the kernel's caches. [7.45]"""
    ids = tuple(nodeids)
    head = abi.FUSE_NOTIFY_PRUNE_OUT.struct.pack(len(ids), 0, 0)
    return _notification(Notify.PRUNE, head + struct.pack(f"<{len(ids)}Q", *ids))


def _entry(name: bytes) -> bytes:
    if not name or b"/" in name or b"\0" in name:
        raise ValueError(f"{name!r} is no name of a directory entry")
    return name
