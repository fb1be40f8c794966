"""The engine: takes a worker's events, runs the filesystem's methods, collects the replies.

A request's states: DELIVERED (by C, when the completion is taken) - STARTED (here, before the method runs) -
ANSWERED (here, when error, size and payload are complete) - FREE (by C, after the commit was submitted). recovery.py
says what else is written between them, and what a successor reads from it.

The engine does not wait and does not know what it runs on: `worker` drives it, in a plain loop or under
asyncio.
"""

import asyncio
import errno
import logging
import os
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ringmount.workers import abi, api, codec, messages
from ringmount.workers._native import ffi, lib
from ringmount.workers.abi import Opcode
from ringmount.workers.api import ReadFrom, SyncOf, WriteTo
from ringmount.workers.arena import JOURNAL_SIZE, Arena
from ringmount.workers.dispatch import Answer, Handler, Replies, Request, errno_of, handlers
from ringmount.workers.effects import Effect
from ringmount.workers.events import about
from ringmount.workers.nodes import INTENT, NodeTable
from ringmount.workers.recovery import repeats_itself
from ringmount.workers.ring import (
    DEVICE_ERROR,
    IO,
    IORING_FSYNC_DATASYNC,
    IORING_OP_ASYNC_CANCEL,
    IORING_OP_FSYNC,
    IORING_OP_READ,
    IORING_OP_WRITE,
    MAIL,
    Device,
    Ring,
)

log = logging.getLogger(__name__)

HEADER = abi.FUSE_IN_HEADER.struct
BATCH_FORGET_IN = abi.FUSE_BATCH_FORGET_IN.struct
FORGET_ONE = abi.FUSE_FORGET_ONE.struct
REPLY = struct.Struct("<iI")
ERROR_AT: int = ffi.offsetof("struct rm_journal", "error")
PAYLOAD_SIZE_AT: int = ffi.offsetof("struct rm_journal", "payload_size")
THREAD_AT: int = ffi.offsetof("struct rm_journal", "thread")
STATE_AT: int = ffi.offsetof("struct rm_journal", "state")
INTERRUPTED_AT: int = ffi.offsetof("struct rm_journal", "interrupted")
WORDS = JOURNAL_SIZE // 4

NO_INTENT = ffi.NULL
STARTED: int = lib.RM_STARTED
RELEASE = int(Opcode.RELEASE)
ANSWERED: int = lib.RM_ANSWERED

ENTRY_OP_IN = 128  # where fuse_uring_req_header keeps op_in, and its size
LEGACY = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT})
CANCEL_PATIENCE = 1.0
"""Seconds for cancelled coroutines to end."""
FUTURES = 1 << 32
"""Tokens of ring operations from here on belong to coroutines; below, they are entries."""
CANCELLATION = FUTURES - 1
"""The token of operations that cancel others: what became of those comes with their own events."""


class ConnectionGone(Exception):
    """The kernel ended the connection: unmounted, or aborted."""


class RingRefused(Exception):
    """The kernel refused an entry: no ring for this mount."""


def about_request(request: Request, error: int) -> dict[str, Any]:
    """For `extra=` of a message about a request. `error`: an errno."""
    return about(opcode=request.opcode, nodeid=request.nodeid, unique=request.unique, errno=error)


def read_groups(pid: int) -> tuple[int, ...]:
    """A process's supplementary groups, from /proc/PID/status (proc(5)); () if it is gone or not visible."""
    if not pid:
        return ()
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            for line in status:
                if line.startswith(b"Groups:"):
                    return tuple(map(int, line[7:].split()))
    except (OSError, ValueError):
        pass
    return ()


class Engine:
    """A worker's requests. `filesystem` answers, `transport` carries, `send` speaks to the supervisor."""

    def __init__(
        self,
        arena: Arena,
        worker: int,
        filesystem: api.Filesystem,
        replies: Replies,
        nodes: NodeTable,
        send: Callable[[messages.Message], None],
    ) -> None:
        self.arena = arena
        self.filesystem = filesystem
        self.nodes = nodes
        self.transport: Ring | Device
        self.answered: list[int] = []
        """Entries whose replies wait for the next turn."""
        self.mail: Callable[[bytes], None] = lambda packet: None
        self.orphaned: Callable[[], None] = lambda: None
        """The supervisor has ended without a word."""
        self.loop: asyncio.AbstractEventLoop | None = None
        self.wake: Callable[[], None] = lambda: None
        """Asks the loop for a turn: a coroutine or a thread has answered."""
        self._send = send
        self._handlers = handlers(filesystem, replies)
        self._opens = replies.opens
        self._journal = arena.section("journal")
        self._words = self._journal.cast("I")
        self._longs = self._journal.cast("Q")
        self._requests = {index: self._request(index) for index in arena.entries_of(worker)}
        self._intents = {index: arena.c.journal[index].intent for index in self._requests}
        self._tasks: dict[int, asyncio.Task[Answer]] = {}
        self._pool = ThreadPoolExecutor(filesystem.threads, "handler") if filesystem.threads else None
        self._interruptible = filesystem.interrupt_sync
        self._running: Request | None = None
        self._operations: dict[int, tuple[asyncio.Future[int], Any]] = {}
        self._next_token = FUTURES
        self._deferred: dict[int, Any] = {}

    def _request(self, index: int) -> Request:
        op_in = self.arena.page(index)[ENTRY_OP_IN : 2 * ENTRY_OP_IN]
        effect = Effect(self.arena, index)
        return Request(index, op_in, self.arena.payload_view(index), read_groups, self._is_interrupted, effect)

    @property
    def busy(self) -> int:
        """Requests that were started and not answered."""
        return len(self._tasks) + len(self._deferred)

    def waiting(self) -> dict[int, asyncio.Task[Answer] | str]:
        """By unique, the requests that were begun and wait: for a coroutine or a thread, or for what the text says."""
        waits: dict[int, asyncio.Task[Answer] | str] = {}
        for index, task in list(self._tasks.items()):
            waits[self._requests[index].unique] = task
        for index, answer in list(self._deferred.items()):
            waits[self._requests[index].unique] = f"the ring does its {type(answer).__name__}"
        return waits

    # --- events -------------------------------------------------------------------------------------------------

    def event(self, data: int, result: int) -> None:
        """One event of the transport. Raises ConnectionGone, RingRefused, or OSError for what cannot be."""
        if data < self.arena.entries:
            if result == 0:
                self.serve(data)
            else:
                self._refused(data, result)
        elif data == MAIL:
            self._mail_arrived(result)
        elif data == DEVICE_ERROR:
            if -result in (errno.ENODEV, errno.ECONNABORTED, errno.EPERM):
                raise ConnectionGone
            raise OSError(-result, f"reading /dev/fuse: {os.strerror(-result)}")
        elif data & IO:
            self._operation_done(data & ~IO, result)

    def _mail_arrived(self, result: int) -> None:
        try:
            if result < 0:
                raise OSError(-result, "reading the supervisor's channel")
            packet = self.transport.mail(result)
        except ConnectionResetError:
            packet = b""
        if not packet:
            self.orphaned()
            raise ConnectionGone
        self.mail(packet)
        self.transport.listen()

    def _refused(self, index: int, result: int) -> None:
        """A command of an entry failed (fuse_uring_cmd)."""
        error = -result
        if error in (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV):
            raise ConnectionGone
        if not isinstance(self.transport, Ring):
            request = self._requests[index]
            what = "the kernel refused the answer to request %d: %s"
            log.warning(what, request.unique, os.strerror(error), extra=about_request(request, error))
            return
        if error == errno.ENOENT:  # the commit was taken before, by a predecessor: the entry needs a new registration
            self.transport.register([index])
            return
        if error in (errno.EAGAIN, errno.EINTR):
            self.transport.register([index])
            return
        raise RingRefused(f"FUSE_IO_URING_CMD: {os.strerror(error)}")

    # --- requests -----------------------------------------------------------------------------------------------

    def serve(self, index: int) -> None:
        """Runs the request that lies in an entry."""
        request = self._requests[index]
        at = index * JOURNAL_SIZE
        (
            _,
            opcode,
            request.unique,
            request.nodeid,
            request.uid,
            request.gid,
            request.pid,
            request.total_extlen,
            _,
        ) = HEADER.unpack_from(self._journal, at)
        request.opcode = opcode
        request.payload_size = self._words[index * WORDS + PAYLOAD_SIZE_AT // 4]
        request.umask = 0
        request.kill_suidgid = False
        handler = self._handlers[opcode] if opcode < len(self._handlers) else None
        if handler is None:
            self._unrouted(request)
            return
        self._words[index * WORDS + STATE_AT // 4] = STARTED
        if opcode == RELEASE and self._opens is not None:
            self._opens.release(index, request.nodeid)
        if handler.is_async:
            if self._is_interrupted(request):
                self.reply(index, errno.EINTR, 0)
            else:
                self._start(request, self._await(request, handler))
        elif self._pool is not None and handler.implemented:
            self._start(request, self._in_pool(request, handler, self._pool))
        else:
            INTENT.set(self._intents[index])
            try:
                if self._interruptible:
                    result = self._call_interruptibly(request, handler)
                else:
                    result = handler.call(request)
                answer = handler.finish(request, result)
            except BaseException as error:
                self._failed(request, error)
            else:
                self._answered(request, answer)
            INTENT.set(NO_INTENT)

    def may_repeat(self, index: int, opcode: int) -> bool:
        """Whether a request that a predecessor had begun may be run again."""
        handler = self._handlers[opcode] if opcode < len(self._handlers) else None
        repeatable = handler is not None and handler.repeatable
        return repeatable or repeats_itself(opcode, self._requests[index].op_in)

    def _call_interruptibly(self, request: Request, handler: Handler) -> Any:
        """Runs a plain method so that `interrupt_running` can end it. Raises what it raises."""
        # The signal may come at any bytecode, in the finally clause too: whatever it raises there is the method's.
        try:
            self._running = request
            if self._is_interrupted(request):  # while it waited behind another one: no second signal will come
                raise InterruptedError(errno.EINTR, "interrupted")
            return handler.call(request)
        finally:
            self._running = None

    def _answered(self, request: Request, answer: Answer) -> None:
        if type(answer) is int:
            self.reply(request.index, 0, answer)
        else:
            self._defer(request, answer)

    def reply(self, index: int, error: int, size: int) -> None:
        """Makes an entry's answer complete: `error` 0 or an errno, `size` bytes of payload."""
        REPLY.pack_into(self._journal, index * JOURNAL_SIZE + ERROR_AT, -error, size)
        self._words[index * WORDS + STATE_AT // 4] = ANSWERED
        self.answered.append(index)

    def _failed(self, request: Request, error: BaseException) -> None:
        if isinstance(error, OSError):
            self.reply(request.index, errno_of(error), 0)
        elif isinstance(error, codec.DecodeError):
            what = "request %d (opcode %d) is no valid message: %s: answered EIO"
            log.error(what, request.unique, request.opcode, error, extra=about_request(request, errno.EIO))
            self.reply(request.index, errno.EIO, 0)
        elif isinstance(error, asyncio.CancelledError):
            self.reply(request.index, errno.EINTR, 0)
        elif isinstance(error, Exception):
            name = Opcode(request.opcode).name
            extra = about_request(request, errno.EIO)
            log.error("%s of node %d raised %r: answered EIO", name, request.nodeid, error, exc_info=error, extra=extra)
            self.reply(request.index, errno.EIO, 0)
        else:
            raise error

    def _unrouted(self, request: Request) -> None:
        """An opcode that is not for filesystems."""
        index = request.index
        if request.opcode in LEGACY:
            for message in self._as_read(request):
                self._send(messages.Legacy(message))
            if isinstance(self.transport, Device):
                self.transport.release(index)
                return
        elif request.opcode in (Opcode.NOTIFY_REPLY, Opcode.DESTROY):
            self.reply(index, 0, 0)  # to be committed like any other; there is nobody to tell
            return
        self.reply(index, errno.ENOSYS, 0)

    def _as_read(self, request: Request) -> Iterator[bytes]:
        """A message of the legacy path as it was read, for the supervisor, who alone keeps the counts.

        A BATCH_FORGET fills the buffer that it is read into and a channel's packet is smaller: it becomes several.
        """
        header = bytes(self._journal[request.index * JOURNAL_SIZE :][: HEADER.size])
        if request.opcode != Opcode.BATCH_FORGET:
            operation = abi.OPERATIONS[request.opcode]
            size = 0 if operation.request is None else operation.request.size
            yield header + bytes(request.op_in[:size]) + bytes(request.payload)
            return
        most = messages.MAX_FORGETS * FORGET_ONE.size
        payload = request.payload
        for at in range(0, len(payload), most):
            part = bytes(payload[at : at + most])
            body = BATCH_FORGET_IN.pack(len(part) // FORGET_ONE.size, 0) + part
            yield struct.pack("<I", HEADER.size + len(body)) + header[4:] + body

    # --- what waits -----------------------------------------------------------------------------------------------

    def _start(self, request: Request, coroutine: Coroutine[Any, Any, Answer]) -> None:
        assert self.loop is not None
        task = self._tasks[request.index] = self.loop.create_task(coroutine)
        task.add_done_callback(lambda task: self._ended(request, task))

    def _ended(self, request: Request, task: asyncio.Task[Answer]) -> None:
        """A coroutine is done; it may have been cancelled before it ran at all."""
        del self._tasks[request.index]
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self._answered(request, task.result())
        else:
            self._failed(request, error)
        self.wake()

    async def _await(self, request: Request, handler: Handler) -> Answer:
        INTENT.set(self._intents[request.index])  # in the task's own context
        return handler.finish(request, await handler.call(request))

    async def _in_pool(self, request: Request, handler: Handler, pool: ThreadPoolExecutor) -> Answer:
        assert self.loop is not None
        return handler.finish(request, await self.loop.run_in_executor(pool, self._call_in_thread, request, handler))

    def _call_in_thread(self, request: Request, handler: Handler) -> Any:
        INTENT.set(self._intents[request.index])  # in the thread's own context
        self._words[request.index * WORDS + THREAD_AT // 4] = threading.get_native_id()
        try:
            return handler.call(request)
        finally:
            self._words[request.index * WORDS + THREAD_AT // 4] = 0
            INTENT.set(NO_INTENT)

    def interrupt(self, index: int, unique: int) -> None:
        """The request's caller got a signal: its coroutine is cancelled; others can ask `Context.interrupted`."""
        request = self._requests.get(index)
        if request is None or request.unique != unique:
            return
        self._longs[(index * JOURNAL_SIZE + INTERRUPTED_AT) // 8] = unique
        task = self._tasks.get(index)
        handler = self._handlers[request.opcode]
        if task is not None and handler is not None and handler.is_async:
            task.cancel()

    async def cancel_all(self) -> None:
        """Cancels the coroutines of requests whose callers are gone with the mount, and waits until they have ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_PATIENCE)

    def _is_interrupted(self, request: Request) -> bool:
        interrupted: int = self._longs[(request.index * JOURNAL_SIZE + INTERRUPTED_AT) // 8]
        return interrupted == request.unique

    def interrupt_running(self) -> None:
        """From a signal handler: ends the plain method that runs for an interrupted request, if one does."""
        request = self._running
        if request is not None and self._is_interrupted(request):
            self._running = None
            raise InterruptedError(errno.EINTR, "interrupted")

    # --- operations on the ring -------------------------------------------------------------------------------------

    def _defer(self, request: Request, answer: Any) -> None:
        """Carries out what a method returned instead of a result."""
        address = self.arena.address("entries") + self._offset(request.index)
        if isinstance(answer, ReadFrom):
            size = min(abi.FUSE_READ_IN.struct.unpack_from(request.op_in)[2], len(request.buffer))
            started = self.transport.io(IORING_OP_READ, answer.fd, address, size, answer.offset, 0, request.index)
        elif isinstance(answer, WriteTo):
            size = abi.FUSE_WRITE_IN.struct.unpack_from(request.op_in)[2]
            started = self.transport.io(IORING_OP_WRITE, answer.fd, address, size, answer.offset, 0, request.index)
        elif isinstance(answer, SyncOf):
            flags = IORING_FSYNC_DATASYNC if answer.datasync else 0
            size = 0
            started = self.transport.io(IORING_OP_FSYNC, answer.fd, 0, 0, 0, flags, request.index)
        else:
            self._failed(request, TypeError(f"a method returned {type(answer).__name__}"))
            return
        if started:
            self._deferred[request.index] = answer
            return
        try:
            self._deferred[request.index] = answer
            self._deferred_done(request.index, self._at_once(request, answer, size))
        except OSError as error:
            self._deferred_done(request.index, -errno_of(error))

    def _offset(self, index: int) -> int:
        page = int(lib.RM_ENTRY_PAGE)
        return index * (page + self.arena.payload) + page

    @staticmethod
    def _at_once(request: Request, answer: Any, size: int) -> int:
        """Without a ring the operation is done by the ordinary system call."""
        if isinstance(answer, ReadFrom):
            return os.preadv(answer.fd, [request.buffer[:size]], answer.offset)
        if isinstance(answer, WriteTo):
            return os.pwrite(answer.fd, request.buffer[:size], answer.offset)
        (os.fdatasync if answer.datasync else os.fsync)(answer.fd)
        return 0

    def _deferred_done(self, index: int, result: int) -> None:
        answer = self._deferred.pop(index)
        request = self._requests[index]
        if result < 0:
            self.reply(index, -result, 0)
        elif isinstance(answer, ReadFrom):
            self.reply(index, 0, result)
        elif isinstance(answer, WriteTo):
            self.reply(index, 0, codec.encode_write_out(request.buffer, 0, result))
        else:
            self.reply(index, 0, 0)

    def _operation_done(self, token: int, result: int) -> None:
        if token == CANCELLATION:
            return
        if token < FUTURES:
            self._deferred_done(token, result)
            return
        future, _ = self._operations.pop(token)
        if not future.done():
            if result < 0:
                future.set_exception(OSError(-result, os.strerror(-result)))
            else:
                future.set_result(result)

    async def operation(self, opcode: int, fd: int, buffer: Any, length: int, offset: int, flags: int) -> int | None:
        """An operation of a coroutine; None where there is no ring. Raises OSError."""
        assert self.loop is not None
        address = int(ffi.cast("uintptr_t", ffi.from_buffer(buffer))) if length else 0
        token = self._next_token
        self._next_token += 1
        if not self.transport.io(opcode, fd, address, length, offset, flags, token):
            return None
        future: asyncio.Future[int] = self.loop.create_future()
        self._operations[token] = (future, buffer)  # the kernel holds the address until the event comes
        self.wake()
        return await keep_until_done(future, lambda: self._cancel_operation(token))

    def _cancel_operation(self, token: int) -> None:
        self.transport.io(IORING_OP_ASYNC_CANCEL, -1, IO | token, 0, 0, 0, CANCELLATION)
        self.wake()


async def keep_until_done(future: asyncio.Future[int], give_up: Callable[[], None] = lambda: None) -> int:
    """Waits for what reads or writes a request's buffer, to its end: the buffer belongs to another request afterwards.

    `give_up` is called once if the waiting coroutine is cancelled, and CancelledError raised in the end.
    """
    cancelled = False
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            if not cancelled:
                cancelled = True
                give_up()
        except OSError:
            break
    if cancelled:
        future.exception()  # it was looked at: asyncio would complain otherwise
        raise asyncio.CancelledError
    return future.result()


def on_a_thread(function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
    """A system call on a thread of asyncio's own."""
    return asyncio.get_running_loop().run_in_executor(None, function, *arguments)


class EngineIo:
    """`ringmount.workers.api.RingIo`: on the worker's ring, or on a thread where there is none."""

    def __init__(self) -> None:
        self.engine: Engine | None = None

    def _engine(self) -> Engine:
        if self.engine is None or self.engine.loop is None:
            raise RuntimeError("mount.io is for async methods of a mounted filesystem")
        return self.engine

    async def read(self, fd: int, buffer: memoryview, offset: int) -> int:
        done = await self._engine().operation(IORING_OP_READ, fd, buffer, len(buffer), offset, 0)
        return await keep_until_done(on_a_thread(os.preadv, fd, [buffer], offset)) if done is None else done

    async def write(self, fd: int, data: memoryview, offset: int) -> int:
        done = await self._engine().operation(IORING_OP_WRITE, fd, data, len(data), offset, 0)
        return await keep_until_done(on_a_thread(os.pwrite, fd, data, offset)) if done is None else done

    async def fsync(self, fd: int, datasync: bool = False) -> None:
        flags = IORING_FSYNC_DATASYNC if datasync else 0
        if await self._engine().operation(IORING_OP_FSYNC, fd, b"", 0, 0, flags) is None:
            await keep_until_done(on_a_thread(os.fdatasync if datasync else os.fsync, fd))
