"""Bytes of the protocol decode to what they say and to nothing else, and replies say what they were given."""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmount.workers import abi, codec
from ringmount.workers.abi import OPERATIONS, InitFlags, Layout, Name, Opcode, Operation
from ringmount.workers.codec import DecodeError, MalformedBody, ShortBody, ShortHeader, UnknownOpcode

UNIQUE = 0x42


class Message(NamedTuple):
    """One request and what it says. Those up to IOCTL were sent by Linux 6.18."""

    opcode: Opcode
    op_in: str
    payload: bytes
    expected: tuple[Any, ...]
    total_extlen: int = 0

    @property
    def struct(self) -> bytes:
        return bytes.fromhex(self.op_in)


# Made with InitFlags.SECURITY_CTX and CREATE_SUPP_GROUP in a directory of group 4242 by a caller who is in
# it: no security context (8 bytes), then 16 bytes of groups.
GROUP_4242 = bytes.fromhex("0800000000000000 1000000020000000 0100000092100000")
OWNER = 0x4A28F98C39E163A5

MESSAGES = (
    Message(
        Opcode.INIT,
        "07000000 2d000000 00000200 fbffff73 fd070000" + 44 * "00",
        b"",
        (7, 45, 131072, 0x73FFFFFB, 0x7FD),
    ),
    Message(Opcode.ACCESS, "04000000 00000000", b"", (4, 0)),
    Message(Opcode.GETATTR, "00000000 00000000 0000000000000000", b"", (0, 0, 0)),
    Message(Opcode.OPENDIR, "00880100 00000000", b"", (0o304000, 0)),
    Message(
        Opcode.READDIRPLUS,
        "4d00000000000000 0000000000000000 00100000 00000000 0000000000000000 00880100 00000000",
        b"",
        (77, 0, 4096, 0, 0, 0o304000, 0),
    ),
    Message(
        Opcode.READDIR,
        "4d00000000000000 0100000000000000 00100000 00000000 0000000000000000 00880100 00000000",
        b"",
        (77, 1, 4096, 0, 0, 0o304000, 0),
    ),
    Message(Opcode.RELEASEDIR, "4d00000000000000 00800000 00000000 0000000000000000", b"", (77, 0x8000, 0, 0)),
    Message(Opcode.LOOKUP, "", b"file\0", (b"file",)),
    Message(Opcode.STATFS, "", b"", ()),
    Message(Opcode.FORGET, "0100000000000000", b"", (1,)),
    Message(Opcode.OPEN, "02800000 00000000", b"", (0o100002, 0)),
    Message(
        Opcode.READ,
        "4d00000000000000 0000000000000000 64000000 02000000 a563e1398cf9284a 02800000 00000000",
        b"",
        (77, 0, 100, 2, OWNER, 0o100002, 0),
    ),
    Message(
        Opcode.WRITE,
        "4d00000000000000 0400000000000000 05000000 02000000 a563e1398cf9284a 02800000 00000000",
        b"hello",
        (77, 4, 5, 2, OWNER, 0o100002, 0, b"hello"),
    ),
    Message(Opcode.FSYNC, "4d00000000000000 01000000 00000000", b"", (77, 1, 0)),
    Message(Opcode.LSEEK, "4d00000000000000 0100000000000000 03000000 00000000", b"", (77, 1, 3, 0)),
    Message(Opcode.GETXATTR, "00000000 00000000", b"security.capability\0", (0, 0, b"security.capability")),
    Message(
        Opcode.FALLOCATE,
        "4d00000000000000 0000000000000000 0a00000000000000 00000000 00000000",
        b"",
        (77, 0, 10, 0, 0),
    ),
    Message(
        Opcode.SETLK,
        "4d00000000000000 a563e1398cf9284a 0200000000000000 0600000000000000 01000000 fe490000 0000000000000000",
        b"",
        (77, OWNER, 2, 6, 1, 18942, 0, 0),
    ),
    Message(  # flock
        Opcode.SETLKW,
        "4d00000000000000 2f0f5b4dc92b638a 0000000000000000 ffffffffffffff7f 00000000 fe490000 0100000000000000",
        b"",
        (77, 0x8A632BC94D5B0F2F, 0, 2**63 - 1, 0, 18942, 1, 0),
    ),
    Message(
        Opcode.GETLK,
        "4d00000000000000 a563e1398cf9284a 0300000000000000 0600000000000000 00000000 00000000 0000000000000000",
        b"",
        (77, OWNER, 3, 6, 0, 0, 0, 0),
    ),
    Message(Opcode.POLL, "4d00000000000000 0200000000000000 00000000 19000000", b"", (77, 2, 0, 0x19)),
    Message(
        Opcode.COPY_FILE_RANGE_64,
        "4d00000000000000 0000000000000000 0600000000000000 4d00000000000000 1400000000000000"
        "0a00000000000000 0000000000000000",
        b"",
        (77, 0, 6, 77, 20, 10, 0),
    ),
    Message(
        Opcode.COPY_FILE_RANGE,
        "4d00000000000000 0000000000000000 0600000000000000 4d00000000000000 1400000000000000"
        "0a00000000000000 0000000000000000",
        b"",
        (77, 0, 6, 77, 20, 10, 0),
    ),
    Message(  # utime(-5 ns, 1.5 s): a time before 1970 is a negative second and a positive nanosecond
        Opcode.SETATTR,
        "30000000 00000000 0000000000000000 0000000000000000 0000000000000000 ffffffffffffffff"
        "0100000000000000 0000000000000000 fbc99a3b 0065cd1d 00000000 00000000 00000000 00000000 00000000"
        "00000000",
        b"",
        (0x30, 0, 0, 0, 0, -1, 1, 0, 999999995, 500000000, 0, 0, 0, 0, 0, 0),
    ),
    Message(
        Opcode.BATCH_FORGET,
        "02000000 00000000",
        bytes.fromhex("0d00000000000000 0100000000000000 0c00000000000000 0100000000000000"),
        (2, 0, ((13, 1), (12, 1))),
    ),
    Message(
        Opcode.SETXATTR,
        "05000000 00000000 00000000 00000000",
        b"user.k\0value",
        (5, 0, 0, 0, b"user.k", b"value"),
    ),
    Message(Opcode.LISTXATTR, "00010000 00000000", b"", (256, 0)),
    Message(Opcode.REMOVEXATTR, "", b"user.k\0", (b"user.k",)),
    Message(Opcode.STATX, "00000000 00000000 0000000000000000 00000000 ff0f0000", b"", (0, 0, 0, 0, 0xFFF)),
    Message(Opcode.SYMLINK, "", b"link\0target\0" + GROUP_4242, (b"link", b"target"), 3),
    Message(Opcode.READLINK, "", b"", ()),
    Message(Opcode.MKDIR, "e8010000 12000000", b"dir\0" + GROUP_4242, (0o750, 0o22, b"dir"), 3),
    Message(  # a fifo
        Opcode.MKNOD,
        "b6110000 00000000 12000000 00000000",
        b"fifo\0" + GROUP_4242,
        (0o10666, 0, 0o22, 0, b"fifo"),
        3,
    ),
    Message(Opcode.LINK, "1d00000000000000", b"hard\0", (29, b"hard")),
    Message(Opcode.RENAME, "0100000000000000", b"file\0new\0", (1, b"file", b"new")),
    Message(Opcode.RENAME2, "0100000000000000 01000000 00000000", b"file\0xchg\0", (1, 1, 0, b"file", b"xchg")),
    Message(Opcode.UNLINK, "", b"file\0", (b"file",)),
    Message(Opcode.RMDIR, "", b"adir\0", (b"adir",)),
    Message(
        Opcode.CREATE,
        "42800000 a0810000 12000000 00000000",
        b"created\0" + GROUP_4242,
        (0o100102, 0o100640, 0o22, 0, b"created"),
        3,
    ),
    Message(
        Opcode.TMPFILE,
        "02804100 80810000 12000000 00000000",
        b"/\0" + GROUP_4242,
        (0o20300002, 0o100600, 0o22, 0, b"/"),
        3,
    ),
    Message(Opcode.FSYNCDIR, "4d00000000000000 00000000 00000000", b"", (77, 0, 0)),
    Message(Opcode.FLUSH, "4e00000000000000 00000000 00000000 a563e1398cf9284a", b"", (78, 0, 0, OWNER)),
    Message(Opcode.RELEASE, "4e00000000000000 02800000 00000000 0000000000000000", b"", (78, 0o100002, 0, 0)),
    Message(
        Opcode.IOCTL,
        "4d00000000000000 00000000 014610c0 1fe5815dfd7f0000 10000000 10000000",
        b"inputdata1234567",
        (77, 0, 0xC0104601, 0x7FFD5D81E51F, 16, 16, b"inputdata1234567"),
    ),
    Message(Opcode.INTERRUPT, "4200000000000000", b"", (0x42,)),
    Message(Opcode.BMAP, "0300000000000000 00100000 00000000", b"", (3, 4096, 0)),
    Message(Opcode.DESTROY, "", b"", ()),
    Message(
        Opcode.NOTIFY_REPLY,
        "",
        bytes.fromhex("0000000000000000 0010000000000000 05000000 00000000" + 32 * "0") + b"pages",
        (0, 4096, 5, 0, 0, 0, b"pages"),
    ),
    Message(
        Opcode.SETUPMAPPING,
        "4d00000000000000 0000000000000000 0010000000000000 0300000000000000 0000200000000000",
        b"",
        (77, 0, 4096, 3, 2 << 20),
    ),
    Message(
        Opcode.REMOVEMAPPING,
        "01000000",
        bytes.fromhex("0000200000000000 0010000000000000"),
        (1, ((2 << 20, 4096),)),
    ),
    Message(Opcode.SYNCFS, "0000000000000000", b"", (0,)),
    Message(Opcode.CUSE_INIT, "07000000 2d000000 00000000 01000000", b"", (7, 45, 0, 1)),
)

each_message = pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.opcode.name)


def plain(result: tuple[Any, ...]) -> tuple[Any, ...]:
    """The result with its memoryviews read out."""
    return tuple(bytes(value) if isinstance(value, memoryview) else value for value in result)


def decode(message: Message, op_in: bytes | None = None, payload: bytes | None = None) -> tuple[Any, ...]:
    return plain(
        codec.decode(
            message.opcode,
            message.total_extlen,
            memoryview(message.struct if op_in is None else op_in),
            memoryview(message.payload if payload is None else payload),
        )
    )


def header(opcode: int, body_size: int, total_extlen: int = 0, unique: int = UNIQUE) -> bytes:
    fields = (40 + body_size, opcode, unique, 1, 1000, 1000, 4321, total_extlen, 0)
    return abi.FUSE_IN_HEADER.struct.pack(*fields)


def as_read_from_the_device(message: Message) -> bytes:
    body = message.struct + message.payload
    return header(message.opcode, len(body), message.total_extlen) + body


# --- requests as the kernel sends them
# ------------------------------------------------------------------------


def test_there_is_a_message_for_every_opcode() -> None:
    assert [message.opcode for message in MESSAGES if message.opcode not in OPERATIONS] == []
    assert sorted(message.opcode for message in MESSAGES) == sorted(OPERATIONS)


@each_message
def test_a_request_decodes_to_what_it_says(message: Message) -> None:
    assert decode(message) == message.expected


@each_message
def test_what_an_earlier_request_left_in_op_in_changes_nothing(message: Message) -> None:
    if message.opcode is Opcode.INIT:
        return  # never on the ring, and its length tells its form
    for stale in (b"\0", b"\xff", b"A"):
        assert decode(message, op_in=message.struct.ljust(128, stale)) == message.expected


@each_message
def test_an_op_in_cut_anywhere_is_a_short_body(message: Message) -> None:
    forms = (16, 64) if message.opcode is Opcode.INIT else ()
    for size in range(len(message.struct)):
        if forms and size >= forms[0]:
            continue
        with pytest.raises(ShortBody) as caught:
            decode(message, op_in=message.struct[:size])
        assert caught.value.opcode == message.opcode
        assert OPERATIONS[message.opcode].op_in_size


@each_message
def test_a_payload_cut_anywhere_is_an_error(message: Message) -> None:
    for size in range(len(message.payload)):
        with pytest.raises((ShortBody, MalformedBody)) as caught:
            decode(message, payload=message.payload[:size])
        assert caught.value.opcode == message.opcode


@each_message
def test_a_payload_that_goes_on_is_cut_or_refused_but_never_taken(message: Message) -> None:
    try:
        result = decode(message, payload=message.payload + b"more")
    except MalformedBody:
        assert OPERATIONS[message.opcode].kinds
    else:
        assert result == message.expected


@each_message
def test_the_device_s_message_is_cut_into_the_ring_s_three_parts(message: Message) -> None:
    read = as_read_from_the_device(message)
    head, op_in, payload = codec.split_legacy(memoryview(read))
    assert plain((head, op_in, payload)) == (read[:40], message.struct, message.payload)
    assert plain(codec.decode(message.opcode, message.total_extlen, op_in, payload)) == message.expected


@each_message
def test_a_device_s_message_cut_anywhere_is_a_typed_error(message: Message) -> None:
    read = as_read_from_the_device(message)
    for size in range(len(read)):
        with pytest.raises(ShortHeader if size < 40 else ShortBody) as caught:
            codec.split_legacy(memoryview(read)[:size])
        assert caught.value.unique == (None if size < 40 else UNIQUE)


@each_message
def test_a_device_s_message_ends_where_its_header_says(message: Message) -> None:
    read = as_read_from_the_device(message)
    assert codec.split_legacy(memoryview(read + b"left over")) == codec.split_legacy(memoryview(read))


@each_message
def test_the_lengths_of_a_ring_s_entry_must_agree(message: Message) -> None:
    size = len(message.payload)
    head = codec.decode_header(header(message.opcode, len(message.struct) + size))
    area = memoryview(message.payload + bytes(100))
    op_in = memoryview(message.struct.ljust(128, b"\xff"))
    assert plain(codec.split_ring(head, op_in, area, size)) == (message.struct, message.payload)
    with pytest.raises(MalformedBody, match="payload_sz"):
        codec.split_ring(head, op_in, area, size + 1)
    with pytest.raises(ShortBody, match="the payload") as caught:
        codec.split_ring(head, op_in, area, len(area) + 1)
    assert caught.value.unique == UNIQUE


def test_a_header_says_who_asks_for_what() -> None:
    captured = bytes.fromhex("4c00000006000000a00000000000000001000000000000000000000000000000fe49000003000000")
    assert codec.decode_header(captured) == (76, Opcode.SYMLINK, 160, 1, 0, 0, 18942, 3, 0)


def test_a_header_longer_than_the_request_it_counts_is_refused() -> None:
    with pytest.raises(ShortHeader, match=r"len is 39") as caught:
        codec.decode_header(struct.pack("<I", 39) + header(Opcode.LOOKUP, 0)[4:])
    assert (caught.value.opcode, caught.value.unique) == (Opcode.LOOKUP, UNIQUE)


def test_data_is_not_copied() -> None:
    payload = bytearray(b"hello")
    write = next(message for message in MESSAGES if message.opcode is Opcode.WRITE)
    *_fields, data = codec.decode(Opcode.WRITE, 0, write.struct, memoryview(payload))
    data[0:1] = b"J"
    assert payload == b"Jello"


def test_setxattr_has_a_short_form_with_the_same_result() -> None:
    op_in, payload = struct.pack("<II", 5, 1), b"user.k\0value"
    assert codec.decode(Opcode.SETXATTR, 0, op_in, payload, setxattr_ext=False) == (
        *(5, 1, 0, 0),
        *(b"user.k", b"value"),
    )
    body = op_in + payload
    read = memoryview(header(Opcode.SETXATTR, len(body)) + body)
    assert plain(codec.split_legacy(read, setxattr_ext=False)[1:]) == (op_in, payload)


def test_init_of_a_kernel_before_7_36_has_no_second_flags() -> None:
    short = struct.pack("<IIII", 7, 31, 65536, 0x1FFFFFB)
    assert codec.decode(Opcode.INIT, 0, short, b"") == (7, 31, 65536, 0x1FFFFFB, 0)
    assert codec.decode_init_in(short) == (7, 31, 65536, 0x1FFFFFB)
    read = memoryview(header(Opcode.INIT, len(short)) + short)
    assert plain(codec.split_legacy(read)[1:]) == (short, b"")


def test_init_flags_are_one_number() -> None:
    init = next(message for message in MESSAGES if message.opcode is Opcode.INIT)
    flags = codec.decode_init_in(init.struct).flags
    assert flags == 0x7FD_73FF_FFFB
    assert InitFlags.OVER_IO_URING in InitFlags(flags)


def test_second_flags_count_only_with_init_ext() -> None:
    without = 0x1 | InitFlags.ASYNC_READ
    op_in = struct.pack("<IIIII", 7, 45, 0, without, 0x7FD) + bytes(44)
    assert codec.decode_init_in(op_in).flags == without


@pytest.mark.parametrize("size", range(16))
def test_a_short_init_is_refused(size: int) -> None:
    with pytest.raises(ShortBody):
        codec.decode_init_in(bytes(size))


# --- requests that no kernel sends
# ----------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [0, 7, 19, 54, 4095, 4097, 2**32 - 1, -1, 1048576, 436207616])
def test_an_opcode_without_a_row_is_unknown(opcode: int) -> None:
    with pytest.raises(UnknownOpcode) as caught:
        codec.decode(opcode, 0, bytes(128), b"")
    assert caught.value.opcode == opcode
    if 0 <= opcode < len(codec.DECODERS):
        with pytest.raises(UnknownOpcode):
            codec.DECODERS[opcode](0, bytes(128), b"")
    if opcode >= 0:
        with pytest.raises(UnknownOpcode) as caught:
            codec.split_legacy(memoryview(header(opcode, 0)))
        assert caught.value.unique == UNIQUE


def test_an_opcode_newer_than_the_connection_is_unknown() -> None:
    op_in = bytes(128)
    assert codec.decode(Opcode.STATX, 0, op_in, b"", minor=39)
    with pytest.raises(UnknownOpcode, match=r"7\.38"):
        codec.decode(Opcode.STATX, 0, op_in, b"", minor=38)


@pytest.mark.parametrize(
    ("opcode", "payload", "reason"),
    [
        (Opcode.LOOKUP, b"", "NULs, there are 0"),
        (Opcode.LOOKUP, b"name", "NULs, there are 0"),
        (Opcode.LOOKUP, b"\0", "b'' is not"),
        (Opcode.LOOKUP, b"a/b\0", "b'a/b' is not"),
        (Opcode.LOOKUP, b"a\0b\0", "2 bytes after"),
        (Opcode.LOOKUP, b"a\0\0", "1 bytes after"),
        (Opcode.UNLINK, b".\0", "b'.' is not"),
        (Opcode.UNLINK, b"..\0", "b'..' is not"),
        (Opcode.RENAME, b"a\0", "NULs, there are 1"),
        (Opcode.RENAME, b"a\0..\0", "b'..' is not"),
        (Opcode.RENAME, b"a\0/\0", "b'/' is not"),
        (Opcode.RENAME, b"\0b\0", "b'' is not"),
        (Opcode.CREATE, b"../etc/passwd\0", "is not"),
        (Opcode.SYMLINK, b"a/\0target\0", "is not"),
        (Opcode.TMPFILE, b"\0", "b'' is not"),
        (Opcode.GETXATTR, b"\0", "b'' is not"),
        (Opcode.SETXATTR, b"\0value", "b'' is not"),
        (Opcode.SETXATTR, 256 * b"n" + b"\0", "NULs, there are 0"),
    ],
)
def test_a_name_that_no_kernel_sends_is_malformed(opcode: Opcode, payload: bytes, reason: str) -> None:
    with pytest.raises(MalformedBody) as caught:
        codec.decode(opcode, 0, bytes(128), memoryview(payload))
    assert reason in str(caught.value)
    assert str(caught.value).startswith(f"FUSE_{opcode.name}: ")


@pytest.mark.parametrize(
    ("opcode", "payload", "names"),
    [
        (Opcode.LOOKUP, b".\0", (b".",)),
        (Opcode.LOOKUP, b"..\0", (b"..",)),
        (Opcode.LOOKUP, b"...\0", (b"...",)),
        (Opcode.UNLINK, b"...\0", (b"...",)),
        (Opcode.UNLINK, b".a\0", (b".a",)),
        (Opcode.UNLINK, b"..a\0", (b"..a",)),
        (Opcode.UNLINK, b"\n\xff\xfe\0", (b"\n\xff\xfe",)),
        (Opcode.LOOKUP, 4095 * b"n" + b"\0", (4095 * b"n",)),
        (Opcode.SYMLINK, b"a\0/an/absolute/../target\0", (b"a", b"/an/absolute/../target")),
        (Opcode.SYMLINK, b"a\0\0", (b"a", b"")),
        (Opcode.REMOVEXATTR, b"user.a/b\0", (b"user.a/b",)),
    ],
)
def test_an_odd_name_is_still_a_name(opcode: Opcode, payload: bytes, names: tuple[bytes, ...]) -> None:
    assert codec.decode(opcode, 0, bytes(128), memoryview(payload)) == names


def test_the_longest_attribute_name_fits_without_a_value() -> None:
    name = 255 * b"n"
    assert codec.decode(Opcode.SETXATTR, 0, bytes(16), name + b"\0")[-2:] == (name, b"")


@pytest.mark.parametrize("opcode", [Opcode.WRITE, Opcode.IOCTL, Opcode.SETXATTR, Opcode.BATCH_FORGET])
def test_a_count_beyond_the_payload_is_a_short_body(opcode: Opcode) -> None:
    with pytest.raises(ShortBody):
        codec.decode(opcode, 0, 128 * b"\xff", b"name\0 and a little more")


def test_an_extension_block_longer_than_the_payload_is_a_short_body() -> None:
    with pytest.raises(ShortBody, match="extension block") as caught:
        codec.decode(Opcode.MKDIR, 2, bytes(8), b"name\0")
    assert caught.value.opcode == Opcode.MKDIR


# --- properties over all rows
# ---------------------------------------------------------------------------------

INTEGERS = {
    "H": st.integers(0, 2**16 - 1),
    "I": st.integers(0, 2**32 - 1),
    "i": st.integers(-(2**31), 2**31 - 1),
    "Q": st.integers(0, 2**64 - 1),
    "q": st.integers(-(2**63), 2**63 - 1),
}
NAMES = {
    Name.ENTRY: st.binary(min_size=1, max_size=300)
    .map(lambda name: name.replace(b"\0", b"0").replace(b"/", b"_"))
    .filter(lambda name: name not in (b".", b"..")),
    Name.LOOKUP: st.sampled_from([b".", b"..", b"name", b"-", b"\xff"]),
    Name.TARGET: st.binary(max_size=300).map(lambda name: name.replace(b"\0", b"0")),
    Name.LABEL: st.binary(min_size=1, max_size=255).map(lambda name: name.replace(b"\0", b"0")),
}
MAX_EXAMPLES = 40
"""For each of the rows; many share a decoder."""
each_row = pytest.mark.parametrize("row", OPERATIONS.values(), ids=lambda row: row.opcode.name)


def value_codes(layout: Layout) -> list[str]:
    """The format of each value: formats of our structs are single letters, and padding, `24x`."""
    return [code for code in layout.struct.format.removeprefix("<") if code in INTEGERS]


@st.composite
def requests(draw: st.DrawFn, row: Operation) -> Message:
    """Any request of this row that the kernel could send."""
    fields: list[Any] = []
    op_in = b""
    names = tuple(draw(NAMES[kind]) for kind in row.kinds)
    data = draw(st.binary(max_size=100)) if row.data else b""
    items: tuple[tuple[int, ...], ...] = ()
    if row.items:
        items = tuple(draw(st.lists(st.tuples(INTEGERS["Q"], INTEGERS["Q"]), max_size=5)))
    if row.request:
        fields = [draw(INTEGERS[code]) for code in value_codes(row.request)]
        if row.data:
            fields[row.request.fields.index(row.data)] = len(data)
        if row.items:
            fields[row.request.fields.index("count")] = len(items)
        op_in = row.request.struct.pack(*fields)
    total_extlen = draw(st.integers(0, 4)) if row.ext else 0
    payload = b"".join(name + b"\0" for name in names) + data
    payload += b"".join(row.items.struct.pack(*item) for item in items if row.items)
    payload += draw(st.binary(min_size=8 * total_extlen, max_size=8 * total_extlen))
    expected = (*fields, *names, *((data,) if row.data else ()), *((items,) if row.items else ()))
    if row.inline:
        return Message(row.opcode, "", op_in + payload, expected, total_extlen)
    return Message(row.opcode, op_in.hex(), payload, expected, total_extlen)


def outcome(opcode: int, total_extlen: int, op_in: memoryview, payload: memoryview) -> tuple[Any, ...] | str:
    """What decoding gives. Any exception but a DecodeError is the test's failure."""
    try:
        return plain(codec.decode(opcode, total_extlen, op_in, payload))
    except DecodeError as error:
        return f"{type(error).__name__}: {error}"


@each_row
@settings(max_examples=MAX_EXAMPLES)
@given(choice=st.data())
def test_what_is_encoded_is_decoded(row: Operation, choice: st.DataObject) -> None:
    message = choice.draw(requests(row))
    assert decode(message) == message.expected


@each_row
@settings(max_examples=MAX_EXAMPLES)
@given(choice=st.data())
def test_a_request_cut_anywhere_gives_a_typed_error_or_a_valid_result(row: Operation, choice: st.DataObject) -> None:
    message = choice.draw(requests(row))
    payload = memoryview(message.payload)
    for size in range(len(payload)):
        result = outcome(message.opcode, message.total_extlen, memoryview(message.struct), payload[:size])
        # The extension block is at the end, so that a cut moves it: a shorter request may be valid again.
        assert isinstance(result, str) or message.total_extlen


@each_row
@settings(max_examples=MAX_EXAMPLES)
@given(
    op_in=st.binary(max_size=128),
    payload=st.binary(max_size=200) | st.binary(max_size=64).map(lambda name: name + b"\0"),
    total_extlen=st.integers(0, 30) | st.integers(0, 2**16 - 1),
)
def test_any_bytes_give_a_result_or_a_typed_error(
    row: Operation, op_in: bytes, payload: bytes, total_extlen: int
) -> None:
    results = {
        repr(outcome(row.opcode, total_extlen, memoryview(op_in), surrounded[9 : 9 + len(payload)]))
        for surrounded in (memoryview(9 * around + payload + 300 * around) for around in (b"\0", b"A"))
    }
    assert len(results) == 1
    if row.opcode is not Opcode.INIT and len(op_in) >= row.op_in_size:
        stale = memoryview(op_in[: row.op_in_size] + bytes(64))
        results.add(repr(outcome(row.opcode, total_extlen, stale, memoryview(payload))))
        assert len(results) == 1


@given(read=st.binary(max_size=300))
def test_any_bytes_from_the_device_give_parts_or_a_typed_error(read: bytes) -> None:
    try:
        head, op_in, payload = codec.split_legacy(memoryview(read))
    except DecodeError:
        return
    assert len(head) == 40
    assert bytes(head) + bytes(op_in) + bytes(payload) == read[: codec.decode_header(head).len]


@each_row
@settings(max_examples=MAX_EXAMPLES)
@given(body=st.binary(max_size=200), total_extlen=st.integers(0, 30))
def test_any_body_from_the_device_gives_a_result_or_a_typed_error(
    row: Operation, body: bytes, total_extlen: int
) -> None:
    read = memoryview(header(row.opcode, len(body), total_extlen) + body)
    try:
        _head, op_in, payload = codec.split_legacy(read)
    except ShortBody:
        assert len(body) < row.op_in_size
    else:
        outcome(row.opcode, total_extlen, op_in, payload)


# --- extensions
# -----------------------------------------------------------------------------------------------


def extension(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) & 7)
    return struct.pack("<II", 8 + len(body), kind) + body


def groups_extension(groups: tuple[int, ...]) -> bytes:
    return extension(32, struct.pack(f"<I{len(groups)}I", len(groups), *groups))


def secctx_extension(contexts: tuple[tuple[bytes, bytes], ...]) -> bytes:
    body = b""
    for name, value in contexts:
        body += struct.pack("<II", len(value), 0) + name + b"\0" + value
        body += bytes(-len(body) & 7)
    return extension(len(contexts), body)


def test_no_block_has_no_extensions() -> None:
    assert codec.decode_extensions(b"name\0", 0) == ((), ())


def test_the_kernel_s_block_has_its_group() -> None:
    assert codec.decode_extensions(memoryview(b"name\0" + GROUP_4242), 3) == ((4242,), ())


def test_an_empty_security_context_is_eight_bytes() -> None:
    assert codec.decode_extensions(bytes.fromhex("0800000000000000"), 1) == ((), ())


@given(
    prefix=st.binary(max_size=9),
    groups=st.lists(INTEGERS["I"], max_size=5).map(tuple),
    contexts=st.lists(st.tuples(NAMES[Name.LABEL], st.binary(max_size=40)), max_size=3).map(tuple),
    unknown=st.integers(33, 2**32 - 1),
    padding=st.binary(max_size=20),
)
def test_extensions_are_found_wherever_they_lie(
    prefix: bytes,
    groups: tuple[int, ...],
    contexts: tuple[tuple[bytes, bytes], ...],
    unknown: int,
    padding: bytes,
) -> None:
    block = secctx_extension(contexts) + extension(unknown, padding) + groups_extension(groups)
    assert len(block) % 8 == 0
    found = codec.decode_extensions(memoryview(prefix + block), len(block) // 8)
    assert found == codec.Extensions(groups, contexts)


@pytest.mark.parametrize(
    "block",
    [
        "0000000020000000",  # size 0 would never end
        "0700000020000000",  # smaller than its header
        "0900000021000000 0000000000000000",  # not a multiple of 8
        "0800000021000000 1000000021000000",  # beyond the block, though not longer than it
        "1800000020000000 0000000000000000",  # beyond the block
        "ffffffff20000000",
        "0800000020000000",  # no room for nr_groups
        "1000000020000000 0200000092100000",  # two groups, room for one
        "1000000020000000 ffffffff92100000",
        "0800000001000000",  # one context, no room for it
        "1000000001000000 0000000000000000",  # no name
        "1800000001000000 0000000000000000 0041414141414141",  # empty name
        "1800000001000000 0000000000000000 4141414141414141",  # name without NUL
        "1800000001000000 0800000000000000 4100414141414141",  # value beyond the extension
        "180000001f000000 0000000000000000 4100000000000000",  # 31 contexts, room for one
    ],
)
def test_a_hostile_extension_is_malformed(block: str) -> None:
    raw = bytes.fromhex(block)
    with pytest.raises(MalformedBody):
        codec.decode_extensions(raw, len(raw) // 8)


def test_a_block_longer_than_the_payload_is_short() -> None:
    with pytest.raises(ShortBody):
        codec.decode_extensions(bytes(15), 2)


@given(payload=st.binary(max_size=200), total_extlen=st.integers(0, 26))
def test_any_block_gives_extensions_or_a_typed_error(payload: bytes, total_extlen: int) -> None:
    try:
        codec.decode_extensions(payload, total_extlen)
    except DecodeError:
        pass


# --- numbers
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "split"),
    [
        (0, (0, 0)),
        (1, (1, 0)),
        (1.5, (1, 500_000_000)),
        (0.1, (0, 100_000_000)),
        (1e-9, (0, 1)),
        (0.9999999999, (0, 999_999_999)),
        (float("inf"), (2**32 - 1, 0)),
        (1e30, (2**32 - 1, 0)),
    ],
)
def test_a_timeout_becomes_seconds_and_nanoseconds(seconds: float, split: tuple[int, int]) -> None:
    assert codec.split_seconds(seconds) == split


@pytest.mark.parametrize("seconds", [-1e-9, -1, float("-inf"), float("nan")])
def test_a_timeout_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="a timeout of"):
        codec.split_seconds(seconds)


@given(seconds=st.floats(0, 1e6))
def test_a_timeout_is_kept_to_the_nanosecond(seconds: float) -> None:
    whole, nanoseconds = codec.split_seconds(seconds)
    assert 0 <= nanoseconds < 10**9
    assert abs(whole + nanoseconds / 1e9 - seconds) < 1e-8


@given(major=st.integers(0, 0xFFF), minor=st.integers(0, 0xFFFFF))
def test_a_device_number_has_the_kernel_s_form(major: int, minor: int) -> None:
    new_encode_dev = major << 8 | minor & 0xFF | (minor & ~0xFF) << 12
    assert codec.encode_rdev(os.makedev(major, minor)) == new_encode_dev
    assert codec.decode_rdev(new_encode_dev) == os.makedev(major, minor)


@pytest.mark.parametrize("rdev", [os.makedev(1 << 12, 0), os.makedev(0, 1 << 24), -1])
def test_a_device_number_beyond_the_kernel_s_is_refused(rdev: int) -> None:
    with pytest.raises(ValueError, match="device number"):
        codec.encode_rdev(rdev)


# --- replies
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FakeAttr:
    st_ino: int = 11
    st_size: int = 12
    st_blocks: int = 13
    st_atime_ns: int = -1
    st_mtime_ns: int = 5_000_000_006
    st_ctime_ns: int = 7_000_000_008
    st_mode: int = 0o100644
    st_nlink: int = 2
    st_uid: int = 1000
    st_gid: int = 1001
    st_rdev: int = 0
    st_blksize: int = 4096


ATTR = FakeAttr()
ATTR_FIELDS = {
    "ino": 11,
    "size": 12,
    "blocks": 13,
    "atime": -1,
    "mtime": 5,
    "ctime": 7,
    "atimensec": 999_999_999,
    "mtimensec": 6,
    "ctimensec": 8,
    "mode": 0o100644,
    "nlink": 2,
    "uid": 1000,
    "gid": 1001,
    "rdev": 0,
    "blksize": 4096,
    "flags": 0,
}
INIT_OUT = {
    "major": 7,
    "minor": 45,
    "max_readahead": 131072,
    "max_background": 64,
    "congestion_threshold": 48,
    "max_write": 1 << 20,
    "time_gran": 1,
    "max_pages": 256,
    "map_alignment": 0,
    "max_stack_depth": 1,
    "request_timeout": 60,
}


class FakeStatfs:
    f_blocks, f_bfree, f_bavail, f_files, f_ffree = 1, 2, 3, 4, 5
    f_bsize, f_namemax, f_frsize = 6, 7, 8


def attr_in(prefix: str, fields: dict[str, int] = ATTR_FIELDS) -> dict[str, int]:
    return {prefix + name: value for name, value in fields.items()}


class Reply(NamedTuple):
    """An encoder with arguments, and the struct that it should have written."""

    layout: Layout
    encode: Callable[[memoryview, int], int]
    fields: dict[str, int]


REPLIES = (
    Reply(abi.FUSE_ATTR, lambda buf, off: codec.encode_attr(buf, off, ATTR), ATTR_FIELDS),
    Reply(
        abi.FUSE_ATTR,
        lambda buf, off: codec.encode_attr(buf, off, ATTR, flags=1),
        ATTR_FIELDS | {"flags": 1},
    ),
    Reply(
        abi.FUSE_ATTR_OUT,
        lambda buf, off: codec.encode_attr_out(buf, off, ATTR, 1, 500),
        {"attr_valid": 1, "attr_valid_nsec": 500, "dummy": 0} | attr_in("attr."),
    ),
    Reply(
        abi.FUSE_ENTRY_OUT,
        lambda buf, off: codec.encode_entry_out(buf, off, 5, 6, (1, 2), (3, 4), ATTR),
        {
            "nodeid": 5,
            "generation": 6,
            "entry_valid": 1,
            "entry_valid_nsec": 2,
            "attr_valid": 3,
            "attr_valid_nsec": 4,
        }
        | attr_in("attr."),
    ),
    Reply(
        abi.FUSE_ENTRY_OUT,
        lambda buf, off: codec.encode_negative_entry(buf, off, (1, 2)),
        {"entry_valid": 1, "entry_valid_nsec": 2},
    ),
    Reply(
        abi.FUSE_OPEN_OUT,
        lambda buf, off: codec.encode_open_out(buf, off, 2**64 - 1, 0x81, 3),
        {"fh": 2**64 - 1, "open_flags": 0x81, "backing_id": 3},
    ),
    Reply(abi.FUSE_WRITE_OUT, lambda buf, off: codec.encode_write_out(buf, off, 9), {"size": 9}),
    Reply(
        abi.FUSE_COPY_FILE_RANGE_OUT,
        lambda buf, off: codec.encode_copy_file_range_out(buf, off, 1 << 40),
        {"bytes_copied": 1 << 40},
    ),
    Reply(
        abi.FUSE_STATFS_OUT,
        lambda buf, off: codec.encode_statfs_out(buf, off, FakeStatfs()),
        {
            "st.blocks": 1,
            "st.bfree": 2,
            "st.bavail": 3,
            "st.files": 4,
            "st.ffree": 5,
            "st.bsize": 6,
            "st.namelen": 7,
            "st.frsize": 8,
        },
    ),
    Reply(abi.FUSE_GETXATTR_OUT, lambda buf, off: codec.encode_xattr_size(buf, off, 10), {"size": 10}),
    Reply(
        abi.FUSE_LK_OUT,
        lambda buf, off: codec.encode_lk_out(buf, off, 1, 2**63 - 1, 2, 77),
        {"lk.start": 1, "lk.end": 2**63 - 1, "lk.type": 2, "lk.pid": 77},
    ),
    Reply(abi.FUSE_LSEEK_OUT, lambda buf, off: codec.encode_lseek_out(buf, off, 10), {"offset": 10}),
    Reply(abi.FUSE_BMAP_OUT, lambda buf, off: codec.encode_bmap_out(buf, off, 10), {"block": 10}),
    Reply(abi.FUSE_POLL_OUT, lambda buf, off: codec.encode_poll_out(buf, off, 5), {"revents": 5}),
    Reply(
        abi.FUSE_IOCTL_OUT,
        lambda buf, off: codec.encode_ioctl_out(buf, off, -5, 4, 1, 2),
        {"result": -5, "flags": 4, "in_iovs": 1, "out_iovs": 2},
    ),
    Reply(
        abi.FUSE_STATX_OUT,
        lambda buf, off: codec.encode_statx_out(
            buf,
            off,
            replace(ATTR, st_rdev=os.makedev(259, 70000)),
            1,
            2,
            btime_ns=-2_000_000_001,
            attributes=4,
            attributes_mask=6,
            dev=os.makedev(5000, 1),
        ),
        {
            "attr_valid": 1,
            "attr_valid_nsec": 2,
            "stat.mask": 0xFFF,
            "stat.blksize": 4096,
            "stat.attributes": 4,
            "stat.nlink": 2,
            "stat.uid": 1000,
            "stat.gid": 1001,
            "stat.mode": 0o100644,
            "stat.ino": 11,
            "stat.size": 12,
            "stat.blocks": 13,
            "stat.attributes_mask": 6,
            "stat.atime.tv_sec": -1,
            "stat.atime.tv_nsec": 999_999_999,
            "stat.btime.tv_sec": -3,
            "stat.btime.tv_nsec": 999_999_999,
            "stat.ctime.tv_sec": 7,
            "stat.ctime.tv_nsec": 8,
            "stat.mtime.tv_sec": 5,
            "stat.mtime.tv_nsec": 6,
            "stat.rdev_major": 259,
            "stat.rdev_minor": 70000,
            "stat.dev_major": 5000,
            "stat.dev_minor": 1,
        },
    ),
    Reply(
        abi.FUSE_OUT_HEADER,
        lambda buf, off: codec.encode_out_header(buf, off, 77, 0, 128),
        {"len": 144, "error": 0, "unique": 77},
    ),
    Reply(
        abi.FUSE_OUT_HEADER,
        lambda buf, off: codec.encode_out_header(buf, off, 77, 2),
        {"len": 16, "error": -2, "unique": 77},
    ),
    Reply(
        abi.FUSE_INIT_OUT,
        lambda buf, off: codec.encode_init_out(
            buf,
            off,
            flags=1 << 41 | 1 << 30 | 1,
            **{key: INIT_OUT[key] for key in INIT_OUT if key != "major"},
        ),
        {"flags": 1 << 30 | 1, "flags2": 1 << 9} | INIT_OUT,
    ),
)

each_reply = pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: reply.layout.name)


def read_struct(layout: Layout, buf: memoryview, off: int) -> dict[str, int]:
    """The fields that are not 0."""
    values = layout.struct.unpack_from(buf, off)
    return {name: value for name, value in zip(layout.fields, values, strict=True) if value}


@each_reply
def test_a_reply_has_its_values_in_their_fields(reply: Reply) -> None:
    buf = memoryview(bytearray(512))
    assert reply.encode(buf, 8) == reply.layout.size
    assert read_struct(reply.layout, buf, 8) == {name: value for name, value in reply.fields.items() if value}


@each_reply
def test_a_reply_writes_all_of_its_bytes_and_no_other(reply: Reply) -> None:
    written = set()
    for old in (0x00, 0xFF):
        buf = memoryview(bytearray([old]) * 512)
        size = reply.encode(buf, 8)
        assert set(buf[:8]) == set(buf[8 + size :]) == {old}
        written.add(bytes(buf[8 : 8 + size]))
    assert len(written) == 1


@each_reply
def test_a_reply_that_does_not_fit_is_not_begun(reply: Reply) -> None:
    buf = memoryview(bytearray(7 + reply.layout.size))
    with pytest.raises(struct.error):
        reply.encode(buf, 8)
    assert not any(buf)


def test_stat_results_are_attributes() -> None:
    buf = memoryview(bytearray(512))
    found = os.stat("/dev/null")
    codec.encode_attr_out(buf, 0, found, 1)
    fields = read_struct(abi.FUSE_ATTR_OUT, buf, 0)
    assert fields["attr.rdev"] == (1 << 8 | 3)
    assert fields["attr.mode"] == found.st_mode
    assert codec.encode_statfs_out(buf, 0, os.statvfs("/")) == 80


@pytest.mark.parametrize(
    "attr",
    [
        replace(ATTR, st_size=-1),
        replace(ATTR, st_size=2**64),
        replace(ATTR, st_ino=-1),
        replace(ATTR, st_mode=2**32),
        replace(ATTR, st_uid=-1),
        replace(ATTR, st_rdev=os.makedev(5000, 0)),
        replace(ATTR, st_mtime_ns=2**63 * 10**9),
    ],
)
def test_a_value_that_does_not_fit_its_field_is_refused(attr: FakeAttr) -> None:
    with pytest.raises(struct.error):
        codec.encode_attr(memoryview(bytearray(88)), 0, attr)


@pytest.mark.parametrize("error", [-1, 512, 100_000])
def test_an_error_outside_the_errnos_is_refused(error: int) -> None:
    with pytest.raises(ValueError, match="errno"):
        codec.encode_out_header(memoryview(bytearray(16)), 0, 2, error)


def test_an_error_with_a_body_is_refused() -> None:
    with pytest.raises(ValueError, match="errno"):
        codec.encode_out_header(memoryview(bytearray(16)), 0, 2, 5, 8)


def test_upper_init_flags_need_init_ext() -> None:
    values = {name: value for name, value in INIT_OUT.items() if name != "major"}
    with pytest.raises(ValueError, match="INIT_EXT"):
        codec.encode_init_out(memoryview(bytearray(64)), 0, flags=1 << 41, **values)


# --- directories
# ----------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    ino: int
    off: int
    type: int
    name: bytes


def read_dirents(reply: bytes, plus: bool) -> list[Entry]:
    """Walk a READDIR or READDIRPLUS reply as the kernel does (parse_dirfile in fs/fuse/readdir.c)."""
    entries = []
    at = 0
    while at < len(reply):
        start = at + (abi.FUSE_ENTRY_OUT.size if plus else 0)
        ino, off, namelen, type = abi.FUSE_DIRENT.struct.unpack_from(reply, start)
        end = start + 24 + namelen
        assert end <= len(reply)
        entries.append(Entry(ino, off, type, reply[start + 24 : end]))
        at += (end - at + 7) & ~7
    assert at == len(reply)
    return entries


@given(
    names=st.lists(NAMES[Name.ENTRY], max_size=20),
    room=st.integers(0, 2000),
    plus=st.booleans(),
    old=st.binary(),
)
def test_a_directory_s_entries_are_read_back_as_far_as_they_fit(
    names: list[bytes], room: int, plus: bool, old: bytes
) -> None:
    buf = memoryview((b"\xff" + old) * 2100)[:2100].toreadonly()
    buf = memoryview(bytearray(buf))
    start, at, written = 40, 40, []
    for index, name in enumerate(names):
        entry = Entry(100 + index, 1 + index, 8, name)
        if plus:
            after = codec.encode_direntplus(buf, at, start + room, *entry, 5, 6, (1, 2), (3, 4), ATTR)
        else:
            after = codec.encode_dirent(buf, at, start + room, *entry)
        if not after:
            break
        if plus:
            assert read_struct(abi.FUSE_ENTRY_OUT, buf, at)["attr.atime"] == -1
        written.append(entry)
        at = after
    assert at <= start + room
    assert read_dirents(bytes(buf[start:at]), plus) == written


def test_padding_after_a_name_is_zero() -> None:
    buf = memoryview(bytearray(b"\xff" * 64))
    assert codec.encode_dirent(buf, 0, 64, 1, 2, 8, b"abc") == 32
    assert bytes(buf[24:40]) == b"abc" + bytes(5) + b"\xff" * 8


def test_an_entry_that_does_not_fit_is_not_begun() -> None:
    buf = memoryview(bytearray(256))
    assert codec.encode_dirent(buf, 0, 31, 1, 2, 8, b"abc") == 0
    assert codec.encode_direntplus(buf, 0, 159, 1, 2, 8, b"abc", 5, 6, (0, 0), (0, 0), ATTR) == 0
    assert not any(buf)


def test_a_limit_beyond_the_buffer_is_an_error() -> None:
    buf = memoryview(bytearray(25))
    with pytest.raises((struct.error, ValueError)):
        codec.encode_dirent(buf, 0, 1000, 1, 2, 8, b"abc")


def test_an_entry_without_a_node_has_zero_attributes() -> None:
    buf = memoryview(bytearray(b"\xff" * 256))
    assert codec.encode_direntplus(buf, 0, 256, 1, 2, 4, b".", 0, 0, (0, 0), (0, 0), None) == 160
    assert not any(buf[:128])


@pytest.mark.parametrize("name", [b"", b"a/b", b"/", b"a\0b"])
def test_a_name_that_spoils_its_directory_is_refused(name: bytes) -> None:
    with pytest.raises(ValueError, match="no name"):
        codec.encode_dirent(memoryview(bytearray(64)), 0, 64, 1, 2, 8, name)


# --- notifications
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notification", "expected"),
    [
        (codec.notify_poll(5), "18000000 01000000 0000000000000000 0500000000000000"),
        (
            codec.notify_inval_inode(5, -1, 0),
            "28000000 02000000 0000000000000000 0500000000000000 ffffffffffffffff 0000000000000000",
        ),
        (
            codec.notify_inval_entry(1, b"ab", int(abi.InvalEntryFlags.EXPIRE_ONLY)),
            "23000000 03000000 0000000000000000 0100000000000000 02000000 01000000 616200",
        ),
        (
            codec.notify_store(5, 4096, memoryview(b"data")),
            "2c000000 04000000 0000000000000000 0500000000000000 0010000000000000 04000000 00000000 64617461",
        ),
        (
            codec.notify_retrieve(2, 5, 4096, 8),
            ("30000000 05000000 00000000000000000200000000000000 0500000000000000 0010000000000000 08000000 00000000"),
        ),
        (
            codec.notify_delete(1, 5, b"ab"),
            "2b000000 06000000 0000000000000000 0100000000000000 0500000000000000 02000000 00000000 616200",
        ),
        (codec.notify_resend(), "10000000 07000000 0000000000000000"),
        (codec.notify_inc_epoch(), "10000000 08000000 0000000000000000"),
        (
            codec.notify_prune(iter([5, 6])),
            ("30000000 09000000 000000000000000002000000 00000000 0000000000000000 0500000000000000 0600000000000000"),
        ),
    ],
)
def test_a_notification_is_a_whole_message(notification: bytes, expected: str) -> None:
    assert notification == bytes.fromhex(expected)
    assert len(notification) == int.from_bytes(notification[:4], "little")


@pytest.mark.parametrize("unique", [0, 1, 2**62 + 1])
def test_an_id_that_spoils_a_retrieve_is_refused(unique: int) -> None:
    with pytest.raises(ValueError, match="even"):
        codec.notify_retrieve(unique, 5, 0, 8)


@pytest.mark.parametrize("name", [b"", b"a/b", b"a\0b"])
def test_a_notification_about_no_name_is_refused(name: bytes) -> None:
    with pytest.raises(ValueError, match="no name"):
        codec.notify_inval_entry(1, name)
    with pytest.raises(ValueError, match="no name"):
        codec.notify_delete(1, 5, name)
