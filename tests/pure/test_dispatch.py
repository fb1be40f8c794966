"""From a request's bytes to a method's arguments, and from its result to the reply's bytes: every route once."""

import asyncio
import errno
import os
import stat
import struct
from collections.abc import Awaitable, Iterable
from typing import Any, NamedTuple

import pytest

from ringmount.workers import abi, api, codec, dispatch
from ringmount.workers.abi import OPERATIONS, Layout, Opcode
from ringmount.workers.api import Attr, Earlier, Entry, Filesystem, Lock, Opened, ReadFrom, SetAttr, SyncOf, WriteTo
from ringmount.workers.dispatch import Replies, Request

NODE, UNIQUE = 77, 1234
ATTR = Attr(st_ino=9, st_mode=stat.S_IFREG | 0o640, st_size=12345, st_mtime_ns=5_000_000_007)
ENTRY = Entry(9, ATTR, generation=3)
STALE = b"\xee" * 128
"""What op_in holds after the request's struct: bytes of an earlier request."""
REPLIES = Replies(entry_valid=(1, 500), attr_valid=(2, 600), negative_valid=(3, 700))


def no_groups(pid: int) -> tuple[int, ...]:
    return (pid,)


def packed(layout: Layout, **fields: int) -> bytes:
    """A struct whose other fields are 0."""
    return layout.struct.pack(*(fields.pop(name.replace(".", "_"), 0) for name in layout.fields))


class NoEffect:
    """A journal that nobody reads."""

    def begin(self, before: tuple[int, ...]) -> None: ...

    def done(self, result: int) -> None: ...

    def earlier(self) -> Earlier | None:
        return None

    def list(self) -> None: ...

    def listed(self, size: int) -> None: ...


def request_for(opcode: int, op_in: bytes = b"", payload: bytes = b"", room: int = 1 << 16) -> Request:
    buffer = bytearray(payload + b"\xdd" * (room - len(payload)))
    request = Request(
        5,
        memoryview(bytearray(op_in + STALE[len(op_in) :])),
        memoryview(buffer),
        no_groups,
        lambda request: False,
        NoEffect(),
    )
    request.opcode, request.nodeid, request.unique = opcode, NODE, UNIQUE
    request.pid = 42
    request.payload_size = len(payload)
    return request


class Recorder:
    """What its methods were called with, and what they shall return."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.results: dict[str, Any] = {}

    def __call__(self, name: str, arguments: Iterable[Any]) -> Any:
        # Views are copied at once: request and reply share the buffer.
        copied = (bytes(argument) if isinstance(argument, memoryview) else argument for argument in arguments)
        self.calls.append((name, *copied))
        result = self.results[name]
        if isinstance(result, BaseException):
            raise result
        return result


METHODS = sorted({route.method for route in dispatch.ROUTES.values()} | {"flock"})


def recording(recorder: Recorder, *, asynchronous: bool = False, methods: Iterable[str] = METHODS) -> Filesystem:
    """A filesystem whose methods record their calls."""

    def plain(name: str) -> Any:
        return lambda self, ctx, *arguments: recorder(name, arguments)

    def coroutine(name: str) -> Any:
        async def method(self: Any, ctx: Any, *arguments: Any) -> Any:
            await asyncio.sleep(0)
            return recorder(name, arguments)

        return method

    make = coroutine if asynchronous else plain
    kind: type[Filesystem] = type("Recording", (Filesystem,), {name: make(name) for name in methods})
    return kind(None, None)  # type: ignore[arg-type]


class Case(NamedTuple):
    """A request, the call that it becomes, what the method returns and how the reply begins."""

    opcode: Opcode
    op_in: bytes
    payload: bytes
    call: tuple[Any, ...]
    result: Any
    reply: bytes


def entry_out(entry: Entry = ENTRY) -> bytes:
    buffer = bytearray(abi.FUSE_ENTRY_OUT.size)
    assert entry.attr is not None
    codec.encode_entry_out(memoryview(buffer), 0, entry.node, entry.generation, (1, 500), (2, 600), entry.attr)
    return bytes(buffer)


def attr_out() -> bytes:
    buffer = bytearray(abi.FUSE_ATTR_OUT.size)
    codec.encode_attr_out(memoryview(buffer), 0, ATTR, 2, 600)
    return bytes(buffer)


OPENED = Opened(fh=8, flags=2, backing_fd=3)
OPEN_OUT = packed(abi.FUSE_OPEN_OUT, fh=8, open_flags=2)
LOCK = Lock(1, 10, 20, 30)
LK_IN = packed(abi.FUSE_LK_IN, fh=6, owner=99, lk_start=10, lk_end=20, lk_type=1, lk_pid=30)
FLOCK_IN = packed(abi.FUSE_LK_IN, fh=6, owner=99, lk_type=0, lk_flags=1)
READ_IN = packed(abi.FUSE_READ_IN, fh=6, offset=4096, size=100)
COPY_IN = packed(
    abi.FUSE_COPY_FILE_RANGE_IN, fh_in=6, off_in=1, nodeid_out=78, fh_out=7, off_out=2, len=1 << 33, flags=0
)
STATX_IN = packed(abi.FUSE_STATX_IN, getattr_flags=1, fh=6, sx_flags=0x100, sx_mask=0xFFF)

CASES = [
    Case(Opcode.LOOKUP, b"", b"name\0", ("lookup", NODE, b"name"), ENTRY, entry_out()),
    Case(Opcode.GETATTR, packed(abi.FUSE_GETATTR_IN, fh=6), b"", ("getattr", NODE, None), ATTR, attr_out()),
    Case(
        Opcode.GETATTR, packed(abi.FUSE_GETATTR_IN, getattr_flags=1, fh=6), b"", ("getattr", NODE, 6), ATTR, attr_out()
    ),
    Case(Opcode.READLINK, b"", b"", ("readlink", NODE), b"target", b"target"),
    Case(Opcode.SYMLINK, b"", b"name\0to\0", ("symlink", NODE, b"name", b"to"), ENTRY, entry_out()),
    Case(
        Opcode.MKNOD,
        packed(abi.FUSE_MKNOD_IN, mode=0o20600, rdev=codec.encode_rdev(os.makedev(8, 300)), umask=0o22),
        b"name\0",
        ("mknod", NODE, b"name", 0o20600, os.makedev(8, 300)),
        ENTRY,
        entry_out(),
    ),
    Case(
        Opcode.MKDIR,
        packed(abi.FUSE_MKDIR_IN, mode=0o755, umask=0o22),
        b"name\0",
        ("mkdir", NODE, b"name", 0o755),
        ENTRY,
        entry_out(),
    ),
    Case(Opcode.UNLINK, b"", b"name\0", ("unlink", NODE, b"name"), None, b""),
    Case(Opcode.RMDIR, b"", b"name\0", ("rmdir", NODE, b"name"), None, b""),
    Case(
        Opcode.RENAME,
        packed(abi.FUSE_RENAME_IN, newdir=78),
        b"old\0new\0",
        ("rename", NODE, b"old", 78, b"new", 0),
        None,
        b"",
    ),
    Case(
        Opcode.RENAME2,
        packed(abi.FUSE_RENAME2_IN, newdir=78, flags=2),
        b"old\0new\0",
        ("rename", NODE, b"old", 78, b"new", 2),
        None,
        b"",
    ),
    Case(
        Opcode.LINK, packed(abi.FUSE_LINK_IN, oldnodeid=78), b"name\0", ("link", 78, NODE, b"name"), ENTRY, entry_out()
    ),
    Case(Opcode.OPEN, packed(abi.FUSE_OPEN_IN, flags=2), b"", ("open", NODE, 2), OPENED, OPEN_OUT),
    Case(Opcode.WRITE, packed(abi.FUSE_WRITE_IN, fh=6, offset=4096, size=4), b"data", (), 3, struct.pack("<II", 3, 0)),
    Case(
        Opcode.STATFS,
        b"",
        b"",
        ("statfs", NODE),
        api.Statfs(f_blocks=5),
        packed(abi.FUSE_STATFS_OUT, st_blocks=5, st_bsize=4096, st_frsize=4096, st_namelen=255),
    ),
    Case(
        Opcode.RELEASE,
        packed(abi.FUSE_RELEASE_IN, fh=6, flags=1, lock_owner=99),
        b"",
        ("release", NODE, 6, 1, None),
        None,
        b"",
    ),
    Case(
        Opcode.RELEASE,
        packed(abi.FUSE_RELEASE_IN, fh=6, flags=1, release_flags=2, lock_owner=99),
        b"",
        ("release", NODE, 6, 1, 99),
        None,
        b"",
    ),
    Case(Opcode.FSYNC, packed(abi.FUSE_FSYNC_IN, fh=6), b"", ("fsync", NODE, 6, False), None, b""),
    Case(Opcode.FSYNC, packed(abi.FUSE_FSYNC_IN, fh=6, fsync_flags=1), b"", ("fsync", NODE, 6, True), None, b""),
    Case(
        Opcode.SETXATTR,
        packed(abi.FUSE_SETXATTR_IN, size=5, flags=1, setxattr_flags=1),
        b"user.x\0value",
        ("setxattr", NODE, b"user.x", b"value", 1, True),
        None,
        b"",
    ),
    Case(
        Opcode.GETXATTR,
        packed(abi.FUSE_GETXATTR_IN, size=100),
        b"user.x\0",
        ("getxattr", NODE, b"user.x"),
        b"value",
        b"value",
    ),
    Case(
        Opcode.GETXATTR,
        packed(abi.FUSE_GETXATTR_IN, size=0),
        b"user.x\0",
        ("getxattr", NODE, b"user.x"),
        b"value",
        struct.pack("<II", 5, 0),
    ),
    Case(
        Opcode.LISTXATTR,
        packed(abi.FUSE_GETXATTR_IN, size=100),
        b"",
        ("listxattr", NODE),
        [b"user.x", b"user.y"],
        b"user.x\0user.y\0",
    ),
    Case(
        Opcode.LISTXATTR,
        packed(abi.FUSE_GETXATTR_IN, size=0),
        b"",
        ("listxattr", NODE),
        [b"user.x"],
        struct.pack("<II", 7, 0),
    ),
    Case(Opcode.REMOVEXATTR, b"", b"user.x\0", ("removexattr", NODE, b"user.x"), None, b""),
    Case(Opcode.FLUSH, packed(abi.FUSE_FLUSH_IN, fh=6, lock_owner=99), b"", ("flush", NODE, 6, 99), None, b""),
    Case(Opcode.OPENDIR, packed(abi.FUSE_OPEN_IN, flags=65536), b"", ("opendir", NODE, 65536), OPENED, OPEN_OUT),
    Case(Opcode.RELEASEDIR, packed(abi.FUSE_RELEASE_IN, fh=6), b"", ("releasedir", NODE, 6), None, b""),
    Case(Opcode.FSYNCDIR, packed(abi.FUSE_FSYNC_IN, fh=6, fsync_flags=1), b"", ("fsyncdir", NODE, 6, True), None, b""),
    Case(
        Opcode.GETLK,
        LK_IN,
        b"",
        ("getlk", NODE, 6, 99, LOCK),
        Lock(2, 1, 2, 3),
        packed(abi.FUSE_LK_OUT, lk_start=1, lk_end=2, lk_type=2, lk_pid=3),
    ),
    Case(Opcode.SETLK, LK_IN, b"", ("setlk", NODE, 6, 99, LOCK, False), None, b""),
    Case(Opcode.SETLKW, LK_IN, b"", ("setlk", NODE, 6, 99, LOCK, True), None, b""),
    Case(Opcode.SETLK, FLOCK_IN, b"", ("flock", NODE, 6, 99, 1, False), None, b""),
    Case(Opcode.SETLKW, FLOCK_IN, b"", ("flock", NODE, 6, 99, 1, True), None, b""),
    Case(Opcode.ACCESS, packed(abi.FUSE_ACCESS_IN, mask=4), b"", ("access", NODE, 4), None, b""),
    Case(
        Opcode.CREATE,
        packed(abi.FUSE_CREATE_IN, flags=2, mode=0o100644, umask=0o22),
        b"name\0",
        ("create", NODE, b"name", 0o100644, 2),
        (ENTRY, OPENED),
        entry_out() + OPEN_OUT,
    ),
    Case(
        Opcode.TMPFILE,
        packed(abi.FUSE_CREATE_IN, flags=2, mode=0o100644, umask=0o22),
        b"/\0",
        ("tmpfile", NODE, 0o100644, 2),
        (ENTRY, OPENED),
        entry_out() + OPEN_OUT,
    ),
    Case(
        Opcode.BMAP,
        packed(abi.FUSE_BMAP_IN, block=5, blocksize=512),
        b"",
        ("bmap", NODE, 5, 512),
        17,
        struct.pack("<Q", 17),
    ),
    Case(
        Opcode.IOCTL,
        packed(abi.FUSE_IOCTL_IN, fh=6, flags=0, cmd=0x5401, arg=1 << 40, in_size=4, out_size=10),
        b"data",
        ("ioctl", NODE, 6, 0x5401, 1 << 40, 0, b"data", 10),
        (-3, b"answer"),
        packed(abi.FUSE_IOCTL_OUT, result=-3) + b"answer",
    ),
    Case(
        Opcode.POLL,
        packed(abi.FUSE_POLL_IN, fh=6, kh=55, flags=1, events=5),
        b"",
        ("poll", NODE, 6, 55, 5),
        4,
        struct.pack("<II", 4, 0),
    ),
    Case(
        Opcode.POLL,
        packed(abi.FUSE_POLL_IN, fh=6, kh=55, events=5),
        b"",
        ("poll", NODE, 6, None, 5),
        4,
        struct.pack("<II", 4, 0),
    ),
    Case(
        Opcode.FALLOCATE,
        packed(abi.FUSE_FALLOCATE_IN, fh=6, offset=1, length=2, mode=3),
        b"",
        ("fallocate", NODE, 6, 3, 1, 2),
        None,
        b"",
    ),
    Case(
        Opcode.LSEEK,
        packed(abi.FUSE_LSEEK_IN, fh=6, offset=100, whence=3),
        b"",
        ("lseek", NODE, 6, 100, 3),
        200,
        struct.pack("<Q", 200),
    ),
    Case(
        Opcode.COPY_FILE_RANGE,
        COPY_IN,
        b"",
        ("copy_file_range", NODE, 6, 1, 78, 7, 2, 1 << 30, 0),
        500,
        struct.pack("<II", 500, 0),
    ),
    Case(
        Opcode.COPY_FILE_RANGE_64,
        COPY_IN,
        b"",
        ("copy_file_range", NODE, 6, 1, 78, 7, 2, 1 << 33, 0),
        1 << 33,
        struct.pack("<Q", 1 << 33),
    ),
    Case(Opcode.SYNCFS, packed(abi.FUSE_SYNCFS_IN), b"", ("syncfs", NODE), None, b""),
]
# The others have tests of their own below.
ELSEWHERE = {Opcode.READ, Opcode.READDIR, Opcode.READDIRPLUS, Opcode.SETATTR, Opcode.STATX}


def answer(filesystem: Filesystem, request: Request, replies: Replies = REPLIES) -> dispatch.Answer:
    """Does what the engine does."""
    handler = dispatch.handlers(filesystem, replies)[request.opcode]
    assert handler is not None
    result = handler.call(request)
    if handler.is_async:
        assert isinstance(result, Awaitable)
        result = asyncio.run(_await(result))
    return handler.finish(request, result)


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def test_every_route_has_a_case() -> None:
    assert {case.opcode for case in CASES} | ELSEWHERE == set(dispatch.ROUTES)


def test_every_route_is_an_operation_that_is_replied_to() -> None:
    assert all(OPERATIONS[opcode].replies for opcode in dispatch.ROUTES)


def test_every_method_of_the_interface_has_a_route() -> None:
    optional = {name for name in dir(Filesystem) if getattr(getattr(Filesystem, name), "__ringmount_optional__", False)}
    assert optional == set(METHODS)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.opcode.name)
def test_a_request_becomes_a_call_and_its_result_a_reply(case: Case, asynchronous: bool) -> None:
    recorder = Recorder()
    name = dispatch.ROUTES[case.opcode].method if not case.call else case.call[0]
    recorder.results[name] = case.result
    request = request_for(case.opcode, case.op_in, case.payload)
    size = answer(recording(recorder, asynchronous=asynchronous), request)
    assert isinstance(size, int)
    assert bytes(request.buffer[:size]) == case.reply
    assert bytes(request.buffer[max(size, len(case.payload)) :]).strip(b"\xdd") == b""
    if case.call:
        assert recorder.calls == [case.call]
    else:
        assert recorder.calls == [("write", NODE, 6, 4096, b"data", 0)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.opcode.name)
def test_replies_are_as_long_as_the_kernel_expects(case: Case) -> None:
    expected = OPERATIONS[case.opcode].reply
    layouts = [part for part in (expected if isinstance(expected, tuple) else (expected,)) if isinstance(part, Layout)]
    fixed = sum(layout.size for layout in layouts)
    if layouts and case.opcode != Opcode.IOCTL:
        assert len(case.reply) == fixed
    elif expected is abi.Reply.NONE:
        assert case.reply == b""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.opcode.name)
def test_a_request_that_is_cut_short_is_refused_and_never_reaches_the_method(case: Case) -> None:
    if not case.payload:
        return
    recorder = Recorder()
    for length in range(len(case.payload)):
        request = request_for(case.opcode, case.op_in, case.payload[:length])
        with pytest.raises(codec.DecodeError):
            answer(recording(recorder), request)
    assert recorder.calls == []


# --- the caller -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [Opcode.CREATE, Opcode.TMPFILE, Opcode.MKNOD, Opcode.MKDIR])
def test_the_umask_comes_with_what_makes_a_file(opcode: Opcode) -> None:
    case = next(case for case in CASES if case.opcode is opcode)
    recorder = Recorder()
    recorder.results[case.call[0]] = case.result
    request = request_for(opcode, case.op_in, case.payload)
    answer(recording(recorder), request)
    assert request.umask == 0o22


@pytest.mark.parametrize("opcode", [Opcode.OPEN, Opcode.CREATE])
def test_truncation_by_an_unprivileged_caller_is_told(opcode: Opcode) -> None:
    case = next(case for case in CASES if case.opcode is opcode)
    layout = OPERATIONS[opcode].request
    assert layout is not None
    at = layout.offsets["open_flags"]
    op_in = bytearray(case.op_in)
    op_in[at : at + 4] = struct.pack("<I", abi.OpenIn.KILL_SUIDGID)
    recorder = Recorder()
    recorder.results[case.call[0]] = case.result
    request = request_for(opcode, bytes(op_in), case.payload)
    answer(recording(recorder), request)
    assert request.kill_suidgid


def test_groups_are_looked_up_for_the_caller() -> None:
    assert request_for(Opcode.STATFS).groups == (42,)


# --- attributes -----------------------------------------------------------------------------------------------


def test_setattr_changes_what_is_valid() -> None:
    valid = abi.SetattrValid
    op_in = packed(
        abi.FUSE_SETATTR_IN,
        valid=valid.MODE | valid.UID | valid.GID | valid.SIZE | valid.CTIME | valid.FH | valid.KILL_SUIDGID,
        fh=6,
        size=100,
        atime=1,
        mtime=2,
        ctime=9,
        ctimensec=10,
        mode=0o600,
        uid=11,
        gid=12,
    )
    changes, fh = dispatch.decode_changes(codec.decode(Opcode.SETATTR, 0, op_in, b""))
    assert fh == 6
    assert changes == SetAttr(mode=0o600, uid=11, gid=12, size=100, ctime_ns=9_000_000_010, kill_suidgid=True)


def test_times_before_1970_and_the_current_time_are_told_apart() -> None:
    valid = abi.SetattrValid
    op_in = packed(abi.FUSE_SETATTR_IN, valid=valid.ATIME | valid.MTIME, atime=-1, atimensec=5, mtime=7, mtimensec=8)
    changes, fh = dispatch.decode_changes(codec.decode(Opcode.SETATTR, 0, op_in, b""))
    assert (changes.atime_ns, changes.mtime_ns, changes.ctime_ns, fh) == (-999_999_995, 7_000_000_008, None, None)
    op_in = packed(abi.FUSE_SETATTR_IN, valid=valid.MTIME | valid.MTIME_NOW, atime=5, mtime=7)
    changes, _ = dispatch.decode_changes(codec.decode(Opcode.SETATTR, 0, op_in, b""))
    assert (changes.atime_ns, changes.mtime_ns) == (None, api.NOW)


def test_setattr_without_a_valid_field_changes_nothing() -> None:
    recorder = Recorder()
    recorder.results["setattr"] = ATTR
    request = request_for(Opcode.SETATTR, packed(abi.FUSE_SETATTR_IN, mode=0o777, uid=5))
    assert answer(recording(recorder), request) == abi.FUSE_ATTR_OUT.size
    assert recorder.calls == [("setattr", NODE, SetAttr(), None)]
    assert bytes(request.buffer[: abi.FUSE_ATTR_OUT.size]) == attr_out()


def test_statx_tells_the_birth_time_only_if_it_is_known() -> None:
    for mask, expected in ((0x7FF, 0), (0xFFF, 5)):
        recorder = Recorder()
        recorder.results["statx"] = api.Statx(ATTR, mask=mask, btime_ns=5_000_000_000, attributes=4)
        request = request_for(Opcode.STATX, STATX_IN)
        assert answer(recording(recorder), request) == abi.FUSE_STATX_OUT.size
        assert recorder.calls == [("statx", NODE, 6, 0x100, 0xFFF)]
        at = abi.FUSE_STATX_OUT.offsets["stat.btime.tv_sec"]
        assert struct.unpack_from("<q", request.buffer, at)[0] == expected


# --- entries ----------------------------------------------------------------------------------------------------


def test_an_entry_has_the_mounts_timeouts_unless_it_brings_its_own() -> None:
    recorder = Recorder()
    recorder.results["lookup"] = Entry(9, ATTR, entry_timeout=0.25, attr_timeout=0)
    request = request_for(Opcode.LOOKUP, payload=b"name\0")
    answer(recording(recorder), request)
    fields = dict(zip(abi.FUSE_ENTRY_OUT.fields, abi.FUSE_ENTRY_OUT.struct.unpack_from(request.buffer), strict=True))
    assert (fields["entry_valid"], fields["entry_valid_nsec"]) == (0, 250_000_000)
    assert (fields["attr_valid"], fields["attr_valid_nsec"]) == (0, 0)


def test_a_name_that_does_not_exist_is_remembered_for_the_negative_timeout() -> None:
    recorder = Recorder()
    recorder.results["lookup"] = Entry(0, None)
    request = request_for(Opcode.LOOKUP, payload=b"name\0")
    assert answer(recording(recorder), request) == abi.FUSE_ENTRY_OUT.size
    fields = dict(zip(abi.FUSE_ENTRY_OUT.fields, abi.FUSE_ENTRY_OUT.struct.unpack_from(request.buffer), strict=True))
    assert (fields["nodeid"], fields["entry_valid"], fields["entry_valid_nsec"]) == (0, 3, 700)


def test_references_are_counted_when_they_are_passed_on_and_only_then() -> None:
    took: list[int] = []
    replies = Replies((0, 0), (0, 0), (0, 0), took=took.append)
    recorder = Recorder()
    filesystem = recording(recorder)
    for entry, counted in ((ENTRY, [9]), (Entry(0, None), [])):
        took.clear()
        recorder.results["lookup"] = entry
        answer(filesystem, request_for(Opcode.LOOKUP, payload=b"name\0"), replies)
        assert took == counted
    took.clear()
    for entry in (Entry(9, None), Entry(9, Attr(st_ino=-1, st_mode=0)), Entry(-1, ATTR)):
        recorder.results["lookup"] = entry
        with pytest.raises((TypeError, ValueError, struct.error)):
            answer(filesystem, request_for(Opcode.LOOKUP, payload=b"name\0"), replies)
    assert took == []


def test_files_are_opened_with_the_mounts_flags_and_folders_are_not() -> None:
    replies = Replies((0, 0), (0, 0), (0, 0), open_flags=1)
    recorder = Recorder()
    recorder.results |= {"open": OPENED, "opendir": OPENED, "create": (ENTRY, OPENED)}
    at = abi.FUSE_OPEN_OUT.offsets["open_flags"]
    for opcode, start, expected in (
        (Opcode.OPEN, 0, 3),
        (Opcode.OPENDIR, 0, 2),
        (Opcode.CREATE, abi.FUSE_ENTRY_OUT.size, 3),
    ):
        case = next(case for case in CASES if case.opcode is opcode)
        request = request_for(opcode, case.op_in, case.payload)
        answer(recording(recorder), request, replies)
        assert struct.unpack_from("<I", request.buffer, start + at)[0] == expected


# --- data -------------------------------------------------------------------------------------------------------


class Reader(Filesystem):
    """Returns what it is told, having written what fits."""

    result: Any = 0

    def read(self, ctx: Any, node: Any, fh: Any, offset: int, buffer: memoryview) -> Any:
        assert (node, fh, offset) == (NODE, 6, 4096)
        buffer[:] = b"r" * len(buffer)
        return self.result


def reader(result: Any) -> Reader:
    found = Reader(None, None)  # type: ignore[arg-type]
    found.result = result
    return found


def test_a_read_fills_the_requests_own_buffer() -> None:
    request = request_for(Opcode.READ, READ_IN)
    assert answer(reader(100), request) == 100
    assert bytes(request.buffer[:101]) == b"r" * 100 + b"\xdd"


@pytest.mark.parametrize("result", [101, -1, 1 << 20])
def test_a_read_cannot_return_more_than_was_asked_for(result: int) -> None:
    with pytest.raises(ValueError, match="for a buffer of 100 bytes"):
        answer(reader(result), request_for(Opcode.READ, READ_IN))


def test_a_read_never_reaches_beyond_the_buffer() -> None:
    request = request_for(Opcode.READ, packed(abi.FUSE_READ_IN, fh=6, offset=4096, size=1 << 30), room=64)
    with pytest.raises(ValueError, match="buffer"):
        answer(reader(1 << 20), request)


def test_what_the_ring_shall_do_is_handed_on() -> None:
    recorder = Recorder()
    recorder.results |= {"write": WriteTo(5, 6), "fsync": SyncOf(5, True), "fsyncdir": SyncOf(5, False)}
    assert answer(reader(ReadFrom(5, 6)), request_for(Opcode.READ, READ_IN)) == ReadFrom(5, 6)
    for opcode, expected in (
        (Opcode.WRITE, WriteTo(5, 6)),
        (Opcode.FSYNC, SyncOf(5, True)),
        (Opcode.FSYNCDIR, SyncOf(5, False)),
    ):
        case = next(case for case in CASES if case.opcode is opcode)
        assert answer(recording(recorder), request_for(opcode, case.op_in, case.payload)) == expected


def test_data_is_not_copied_on_its_way_to_write() -> None:
    class Writer(Filesystem):
        def write(self, ctx: Any, node: Any, fh: Any, offset: int, data: memoryview, flags: int) -> int:
            assert data.obj is request.buffer.obj
            return len(data)

    request = request_for(Opcode.WRITE, packed(abi.FUSE_WRITE_IN, size=4), b"data")
    assert answer(Writer(None, None), request) == 8  # type: ignore[arg-type]


def test_an_extended_attribute_that_does_not_fit_is_an_error_of_the_caller() -> None:
    recorder = Recorder()
    recorder.results |= {"getxattr": b"12345", "listxattr": [b"1234"]}
    for opcode, payload in ((Opcode.GETXATTR, b"user.x\0"), (Opcode.LISTXATTR, b"")):
        with pytest.raises(OSError) as caught:
            answer(recording(recorder), request_for(opcode, packed(abi.FUSE_GETXATTR_IN, size=4), payload))
        assert caught.value.errno == errno.ERANGE


def test_an_ioctl_cannot_return_more_than_there_is_room_for() -> None:
    case = next(case for case in CASES if case.opcode is Opcode.IOCTL)
    recorder = Recorder()
    recorder.results["ioctl"] = (0, b"x" * 11)
    with pytest.raises(ValueError, match="room for 10"):
        answer(recording(recorder), request_for(case.opcode, case.op_in, case.payload))


# --- listings ---------------------------------------------------------------------------------------------------


class Lister(Filesystem):
    """Lists names until there is no room, or until it fails."""

    names: tuple[bytes, ...] = ()
    failure: BaseException | None = None

    def _list(self, offset: int, add: Any) -> None:
        for i, name in enumerate(self.names[offset:], offset + 1):
            if not add(name, i):
                return
        if self.failure is not None:
            raise self.failure

    def readdir(self, ctx: Any, node: Any, fh: Any, offset: int, out: Any) -> Any:
        self._list(offset, lambda name, i: out.add(name, 100 + i, stat.S_IFDIR, i))

    def readdirplus(self, ctx: Any, node: Any, fh: Any, offset: int, out: Any) -> Any:
        def add(name: bytes, i: int) -> Any:
            fits = out.fits(name)
            added = out.add(name, Entry(0, ATTR) if name in (b".", b"..") else Entry(i, ATTR), i)
            assert added == fits
            return added

        self._list(offset, add)


class AsyncLister(Lister):
    async def readdir(self, ctx: Any, node: Any, fh: Any, offset: int, out: Any) -> None:
        Lister.readdir(self, ctx, node, fh, offset, out)

    async def readdirplus(self, ctx: Any, node: Any, fh: Any, offset: int, out: Any) -> None:
        Lister.readdirplus(self, ctx, node, fh, offset, out)


def lister(*names: bytes, failure: BaseException | None = None, kind: type[Lister] = Lister) -> Lister:
    found = kind(None, None)  # type: ignore[arg-type]
    found.names, found.failure = names, failure
    return found


def listing_in(offset: int = 0, size: int = 4096) -> bytes:
    return packed(abi.FUSE_READ_IN, fh=6, offset=offset, size=size)


def parse_listing(data: bytes, plus: bool) -> list[tuple[bytes, int, int, int]]:
    """Name, inode number, next offset, type; checks the alignment."""
    found = []
    layout = abi.FUSE_DIRENTPLUS if plus else abi.FUSE_DIRENT
    at = 0
    while at < len(data):
        fields = dict(zip(layout.fields, layout.struct.unpack_from(data, at), strict=True))
        prefix = "dirent." if plus else ""
        length = fields[prefix + "namelen"]
        name = data[at + layout.size : at + layout.size + length]
        found.append((name, fields[prefix + "ino"], fields[prefix + "off"], fields[prefix + "type"]))
        at += layout.size + length + (-(layout.size + length) & 7)
    assert at == len(data)
    return found


@pytest.mark.parametrize("kind", [Lister, AsyncLister])
@pytest.mark.parametrize("plus", [False, True])
def test_a_listing_goes_on_where_it_ended(plus: bool, kind: type[Lister]) -> None:
    names = (b".", b"..", b"a", b"longer name", b"x" * 255)
    opcode = Opcode.READDIRPLUS if plus else Opcode.READDIR
    found: list[bytes] = []
    offset = 0
    while True:
        filesystem = lister(*names, kind=kind)
        request = request_for(opcode, listing_in(offset, 500 if plus else 300))
        size = answer(filesystem, request)
        assert isinstance(size, int)
        if not size:
            break
        entries = parse_listing(bytes(request.buffer[:size]), plus)
        found += [entry[0] for entry in entries]
        offset = entries[-1][2]
    assert tuple(found) == names


def test_a_listing_with_attributes_counts_a_reference_for_each_name_but_the_dots() -> None:
    took: list[int] = []
    request = request_for(Opcode.READDIRPLUS, listing_in())
    replies = Replies((0, 0), (0, 0), (0, 0), took=took.append)
    answer(lister(b".", b"..", b"a", b"b"), request, replies)
    assert took == [3, 4]


def test_an_entry_that_did_not_fit_is_not_counted() -> None:
    took: list[int] = []
    replies = Replies((0, 0), (0, 0), (0, 0), took=took.append)
    out = dispatch.ListingPlus(replies, memoryview(bytearray(200)), 200, NoEffect())
    assert out.fits(b"a")
    assert out.add(b"a", ENTRY, 1)
    assert not out.fits(b"b")
    assert not out.add(b"b", ENTRY, 2)
    assert took == [9]


@pytest.mark.parametrize("kind", [Lister, AsyncLister])
@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("failure", [OSError(errno.EIO, "no"), ValueError("mistake"), asyncio.CancelledError()])
def test_what_was_listed_before_a_failure_is_answered(plus: bool, failure: BaseException, kind: type[Lister]) -> None:
    """The references on its nodes were taken: an error would lose them. It comes with the next request."""
    opcode = Opcode.READDIRPLUS if plus else Opcode.READDIR
    request = request_for(opcode, listing_in())
    size = answer(lister(b"a", b"b", failure=failure, kind=kind), request)
    assert isinstance(size, int)
    assert [entry[0] for entry in parse_listing(bytes(request.buffer[:size]), plus)] == [b"a", b"b"]
    with pytest.raises(type(failure)):
        answer(lister(b"a", b"b", failure=failure, kind=kind), request_for(opcode, listing_in(offset=2)))


def test_a_listing_does_not_swallow_an_exit() -> None:
    with pytest.raises(SystemExit):
        answer(lister(b"a", failure=SystemExit()), request_for(Opcode.READDIR, listing_in()))


def test_a_listing_is_no_longer_than_was_asked_for() -> None:
    request = request_for(Opcode.READDIR, listing_in(size=100))
    size = answer(lister(*[b"name%d" % i for i in range(20)]), request)
    assert isinstance(size, int)
    assert 0 < size <= 100


# --- what is not implemented ------------------------------------------------------------------------------------


def nothing() -> Filesystem:
    return Filesystem(None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("opcode", sorted(dispatch.ROUTES))
def test_what_is_not_implemented_is_answered_without_a_call(opcode: int) -> None:
    request = request_for(opcode, payload=b"name\0other\0")
    handler = dispatch.handlers(nothing(), REPLIES)[opcode]
    assert handler is not None
    assert not handler.implemented
    assert not handler.is_async
    match opcode:
        case Opcode.RELEASE | Opcode.RELEASEDIR:
            assert answer(nothing(), request) == 0
        case Opcode.STATFS:
            assert answer(nothing(), request) == abi.FUSE_STATFS_OUT.size
        case _:
            with pytest.raises(OSError) as caught:
                answer(nothing(), request)
            assert caught.value.errno == (errno.ENOTTY if opcode == Opcode.IOCTL else errno.ENOSYS)


def test_an_open_that_is_not_implemented_still_gets_the_mounts_flags() -> None:
    request = request_for(Opcode.OPEN, packed(abi.FUSE_OPEN_IN))
    assert answer(nothing(), request, Replies((0, 0), (0, 0), (0, 0), open_flags=1)) == abi.FUSE_OPEN_OUT.size
    assert abi.FUSE_OPEN_OUT.struct.unpack_from(request.buffer) == (0, 1, 0)


@pytest.mark.parametrize("opcode", [Opcode.SETLK, Opcode.SETLKW])
@pytest.mark.parametrize("method", ["setlk", "flock"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_kind_of_lock_may_be_implemented_without_the_other(
    opcode: Opcode, method: str, asynchronous: bool
) -> None:
    recorder = Recorder()
    recorder.results[method] = None
    filesystem = recording(recorder, asynchronous=asynchronous, methods=[method])
    own, other = (LK_IN, FLOCK_IN) if method == "setlk" else (FLOCK_IN, LK_IN)
    assert answer(filesystem, request_for(opcode, own)) == 0
    assert len(recorder.calls) == 1
    with pytest.raises(OSError) as caught:
        answer(filesystem, request_for(opcode, other))
    assert caught.value.errno == errno.ENOSYS


def test_opcodes_that_are_not_for_filesystems_have_no_handler() -> None:
    table = dispatch.handlers(nothing(), REPLIES)
    for opcode in (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.INIT, Opcode.DESTROY):
        assert table[opcode] is None


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOENT, ""), errno.ENOENT),
        (OSError("no number"), errno.EIO),
        (OSError(0, ""), errno.EIO),
        (OSError(-5, ""), errno.EIO),
        (OSError(512, "ERESTARTSYS"), errno.EIO),
        (OSError(100_000, ""), errno.EIO),
        (FileNotFoundError(), errno.EIO),
        (TimeoutError(errno.ETIMEDOUT, ""), errno.ETIMEDOUT),
    ],
)
def test_only_errors_that_the_kernel_passes_on_are_answered(error: OSError, expected: int) -> None:
    assert dispatch.errno_of(error) == expected
