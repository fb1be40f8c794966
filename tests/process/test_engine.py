"""The engine between a transport and a filesystem, where the moment matters: both are stood in for."""

import asyncio
import errno
import functools
import os
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fakes import FakeMount
from process.dying import end_of, start

from ringmount.daemon import legacy
from ringmount.workers import abi, engine, messages
from ringmount.workers._native import lib
from ringmount.workers.abi import Opcode
from ringmount.workers.api import Filesystem, NoOptions
from ringmount.workers.arena import Arena, Plan
from ringmount.workers.dispatch import Replies
from ringmount.workers.engine import ConnectionGone, Engine, EngineIo, RingRefused
from ringmount.workers.nodes import NodeTable
from ringmount.workers.recovery import COMMIT_ID_AT
from ringmount.workers.ring import DEVICE_ERROR, MAIL, Device, Ring

PLAN = Plan(depths=(4,), owners=(0,), workers=1, payload=1 << 20, nodes=1024, handles=64)
REPLIES = Replies((0, 0), (0, 0), (0, 0))


def alone(test: Callable[[], None]) -> Callable[[], None]:
    """Runs a test in a process of its own: an arena has one address."""

    @functools.wraps(test)
    def run() -> None:
        assert end_of(start(test)) == 0

    return run


class FakeDevice(Device):
    """Notes what is asked of it. No descriptor is read."""

    def __init__(self) -> None:
        self.released: list[int] = []

    def release(self, index: int) -> None:
        self.released.append(index)

    def io(self, *arguments: int) -> bool:
        return False


class FakeRing(Ring):
    """Notes what is asked of it. There is no ring."""

    def __init__(self) -> None:
        self.registered: list[int] = []

    def register(self, indices: Any) -> None:
        self.registered += indices

    def mail(self, size: int) -> bytes:
        return b"x" * size

    def listen(self) -> None:
        pass


class Bench:
    """An engine with its arena, and what it said to the supervisor."""

    def __init__(self, filesystem: type[Filesystem], transport: Device | Ring) -> None:
        self.arena = Arena.create(PLAN, "test")
        self.said: list[messages.Message] = []
        nodes = NodeTable(self.arena.address("nodes"), self.arena.section_size("nodes"), 0)
        made = filesystem(NoOptions(), FakeMount())
        self.engine = Engine(self.arena, 0, made, REPLIES, nodes, self.said.append)
        self.engine.transport = transport

    def deliver(self, index: int, opcode: int, op_in: bytes = b"", payload: bytes = b"", unique: int = 6) -> None:
        """Puts a request into an entry, as C does."""
        page = self.arena.page(index)
        length = abi.FUSE_IN_HEADER.size + len(op_in) + len(payload)
        page[:40] = abi.FUSE_IN_HEADER.struct.pack(length, opcode, unique, 7, 0, 0, 0, 0, 0)
        page[128 : 128 + len(op_in)] = op_in
        self.arena.payload_view(index)[: len(payload)] = payload
        struct.pack_into("<QI", page, COMMIT_ID_AT, unique, len(payload))
        lib.rm_journal_delivery(self.arena.c, index)

    def errors(self) -> dict[int, int]:
        """The errno of each answered entry."""
        return {index: -self.arena.c.journal[index].error for index in self.engine.answered}


class Nothing(Filesystem):
    """Implements nothing."""


class Waiting(Filesystem):
    """Reads wait for ever."""

    began = 0

    async def read(self, ctx: Any, node: Any, fh: Any, offset: int, buffer: memoryview) -> int:
        Waiting.began += 1
        await asyncio.Event().wait()
        return 0


READ_IN = abi.FUSE_READ_IN.struct.pack(0, 0, 4096, 0, 0, 0, 0)


# --- the legacy path ------------------------------------------------------------------------------------------------


@alone
def test_forgets_that_a_device_read_reach_the_supervisor_whole_in_packets_that_fit() -> None:
    bench = Bench(Nothing, device := FakeDevice())
    count = 3 * messages.MAX_FORGETS + 5
    pairs = [(2 + i, 1 + i % 3) for i in range(count)]
    body = b"".join(abi.FUSE_FORGET_ONE.struct.pack(*pair) for pair in pairs)
    bench.deliver(1, Opcode.BATCH_FORGET, abi.FUSE_BATCH_FORGET_IN.struct.pack(count, 0), body)
    bench.engine.event(1, 0)
    found: list[tuple[int, int]] = []
    for message in bench.said:
        assert isinstance(message, messages.Legacy)
        assert len(messages.encode(message)) <= messages.MAX_PACKET
        parsed = legacy.parse(memoryview(message.data))
        assert isinstance(parsed, legacy.Forgets)
        found += parsed.pairs
    assert found == pairs
    assert device.released == [1]
    assert bench.engine.answered == []


@alone
def test_a_forget_and_an_interrupt_are_passed_on_as_they_were_read() -> None:
    bench = Bench(Nothing, device := FakeDevice())
    bench.deliver(0, Opcode.FORGET, abi.FUSE_FORGET_IN.struct.pack(9))
    bench.engine.event(0, 0)
    bench.deliver(1, Opcode.INTERRUPT, abi.FUSE_INTERRUPT_IN.struct.pack(1234), unique=1235)
    bench.engine.event(1, 0)
    parsed = [legacy.parse(memoryview(message.data)) for message in bench.said if isinstance(message, messages.Legacy)]
    assert parsed == [legacy.Forgets(((7, 9),)), legacy.Interrupted(1234)]
    assert device.released == [0, 1]


@alone
def test_opcodes_that_nobody_knows_are_answered_enosys() -> None:
    bench = Bench(Nothing, FakeDevice())
    for index, opcode in enumerate((0, 63, 4096, 2**32 - 1)):
        bench.deliver(index, opcode)
        bench.engine.event(index, 0)
    assert bench.errors() == dict.fromkeys(range(4), errno.ENOSYS)


# --- interruption ---------------------------------------------------------------------------------------------------


async def settle() -> None:
    """Lets every callback run that is due."""
    for _ in range(10):
        await asyncio.sleep(0)


@alone
def test_a_coroutine_that_is_cancelled_before_it_began_is_answered() -> None:
    async def run() -> None:
        bench = Bench(Waiting, FakeDevice())
        bench.engine.loop = asyncio.get_running_loop()
        bench.deliver(0, Opcode.READ, READ_IN, unique=6)
        bench.engine.event(0, 0)
        bench.engine.interrupt(0, 6)
        await settle()
        assert bench.errors() == {0: errno.EINTR}
        assert bench.engine.busy == 0
        assert Waiting.began == 0

    asyncio.run(run())


@alone
def test_a_request_that_was_interrupted_before_it_was_taken_does_not_begin() -> None:
    async def run() -> None:
        bench = Bench(Waiting, FakeDevice())
        bench.engine.loop = asyncio.get_running_loop()
        bench.deliver(0, Opcode.READ, READ_IN, unique=6)
        bench.arena.c.journal[0].interrupted = 6  # the supervisor's note
        bench.engine.event(0, 0)
        await settle()
        assert bench.errors() == {0: errno.EINTR}
        assert Waiting.began == 0

    asyncio.run(run())


@alone
def test_an_interruption_of_an_earlier_request_of_the_entry_is_not_this_ones() -> None:
    async def run() -> None:
        bench = Bench(Waiting, FakeDevice())
        bench.engine.loop = asyncio.get_running_loop()
        bench.arena.c.journal[0].interrupted = 4
        bench.deliver(0, Opcode.READ, READ_IN, unique=6)
        bench.engine.event(0, 0)
        bench.engine.interrupt(0, 4)
        bench.engine.interrupt(3, 6)
        bench.engine.interrupt(99, 6)
        await settle()
        assert bench.errors() == {}
        assert bench.engine.busy == 1
        await bench.engine.cancel_all()

    asyncio.run(run())


# --- input and output -----------------------------------------------------------------------------------------------


@alone
def test_a_cancelled_read_keeps_its_buffer_until_its_thread_is_done_with_it() -> None:
    async def run() -> None:
        bench = Bench(Waiting, FakeDevice())
        bench.engine.loop = asyncio.get_running_loop()
        io = EngineIo()
        io.engine = bench.engine
        reading, go = threading.Event(), threading.Event()
        buffer = memoryview(bytearray(4))

        def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
            reading.set()
            assert go.wait(10)
            buffers[0][:] = b"data"
            return 4

        engine.os.preadv = preadv  # type: ignore[attr-defined]
        task = asyncio.create_task(io.read(0, buffer, 0))
        while not reading.is_set():
            await asyncio.sleep(0.001)
        for _ in range(3):
            task.cancel()
            await settle()
            assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert bytes(buffer) == b"data"

    asyncio.run(run())


@alone
def test_errors_of_system_calls_on_threads_are_raised() -> None:
    async def run() -> None:
        bench = Bench(Waiting, FakeDevice())
        bench.engine.loop = asyncio.get_running_loop()
        io = EngineIo()
        io.engine = bench.engine
        for operation in (
            io.read(999_999, memoryview(bytearray(4)), 0),
            io.write(999_999, memoryview(b"data"), 0),
            io.fsync(999_999),
        ):
            with pytest.raises(OSError) as caught:
                await operation
            assert caught.value.errno == errno.EBADF

    asyncio.run(run())


def test_input_and_output_are_for_mounted_filesystems() -> None:
    with pytest.raises(RuntimeError, match="async methods"):
        asyncio.run(EngineIo().fsync(0))


# --- the transport --------------------------------------------------------------------------------------------------


@alone
def test_a_commit_that_was_taken_before_makes_the_entry_register_again() -> None:
    bench = Bench(Nothing, ring := FakeRing())
    for error in (errno.ENOENT, errno.EAGAIN, errno.EINTR):
        bench.engine.event(2, -error)
    assert ring.registered == [2, 2, 2]


@alone
def test_the_end_of_the_connection_is_told_apart_from_a_refusal() -> None:
    bench = Bench(Nothing, FakeRing())
    for error in (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV):
        with pytest.raises(ConnectionGone):
            bench.engine.event(1, -error)
        if error != errno.ENOTCONN:
            with pytest.raises(ConnectionGone):
                bench.engine.event(DEVICE_ERROR, -error)
    for error in (errno.EINVAL, errno.EOPNOTSUPP):
        with pytest.raises(RingRefused, match=os.strerror(error)):
            bench.engine.event(1, -error)
        with pytest.raises(OSError, match="/dev/fuse"):
            bench.engine.event(DEVICE_ERROR, -error)


@alone
def test_the_end_of_the_supervisors_channel_is_the_end() -> None:
    bench = Bench(Nothing, FakeRing())
    heard: list[bytes] = []
    bench.engine.mail = heard.append
    bench.engine.event(MAIL, 3)
    assert heard == [b"xxx"]
    orphaned: list[str] = []
    bench.engine.orphaned = lambda: orphaned.append("orphaned")
    for end in (0, -errno.ECONNRESET):  # the latter if the supervisor left messages unread
        with pytest.raises(ConnectionGone):
            bench.engine.event(MAIL, end)
    assert len(orphaned) == 2
    with pytest.raises(OSError, match="channel"):
        bench.engine.event(MAIL, -errno.EIO)
