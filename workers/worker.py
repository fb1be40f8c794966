"""A worker process: prepares its filesystem, then serves its queues until it is told to stop.

In order: identity (name, CPU, signals) - filesystem class - arena and filesystem - "prepared" - the supervisor's word
to serve, with the transport - what a predecessor left - "serving" - the loop. The mount is made after "prepared", so
that a filesystem that cannot start fails before anything is mounted.

The rule: nothing here forks, and the ring is made after the fork.
"""

import asyncio
import contextlib
import errno
import gc
import inspect
import logging
import os
import pwd
import select
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ringmount.config.model import YEAR, MountConfig, Timeouts
from ringmount.workers import api, codec, death, events, explain, fanotify, load, messages, recovery
from ringmount.workers._native import ffi, lib
from ringmount.workers.abi import Opcode, OpenReply
from ringmount.workers.accelerate import Accelerated, Tables
from ringmount.workers.arena import Arena
from ringmount.workers.dispatch import Replies
from ringmount.workers.engine import HEADER, ConnectionGone, Engine, EngineIo, RingRefused
from ringmount.workers.events import Event, about
from ringmount.workers.handles import HandleInfo, HandleTable
from ringmount.workers.nodes import NodeTable
from ringmount.workers.notify import Notifier
from ringmount.workers.opens import Opens
from ringmount.workers.reopen import ReopenHandles
from ringmount.workers.ring import Device, Ring

log = logging.getLogger(__name__)

SPARE = -1
KEEP_PATIENCE = 1.0
"""Seconds for the supervisor to have descriptors kept; a request waits meanwhile."""
STOP_GRACE = 1.0
"""Seconds for requests to be answered, and coroutines to end by themselves, when the mount is stopped."""
EXIT_OK = 0
EXIT_FILESYSTEM = 3
"""The filesystem could not be made or started; what was said before says why."""
EXIT_TRANSPORT = 4
"""The ring was refused."""

OUTBOX_PATIENCE = 1
"""Milliseconds for which requests may wait while the supervisor is slow to take a worker's messages."""

INTERRUPT_SIGNAL = signal.SIGUSR1

UNTIL_TOLD = Timeouts(attr=YEAR, entry=YEAR, negative=YEAR)
"""`cache: coherent`: answers are valid until a notification says otherwise."""


@dataclass(frozen=True)
class Setup:
    """What a worker is given. The descriptors are inherited over the fork."""

    config: MountConfig
    search: str | None
    index: int
    """SPARE: to be told later which worker it shall be."""
    workers: int
    cpu: int | None
    arena_fd: int
    channel: socket.socket
    shared_files: bool
    watch_group: int = -1
    """`cache: coherent`, where folders are watched one by one: the group to add them to
    (`ringmount.workers.fanotify`)."""
    stacks_fd: int = -1
    """Where stacks are written that the supervisor asks for (`ringmount.workers.explain`)."""


class MountView:
    """`ringmount.workers.api.Mount`: what a filesystem sees of its mount."""

    def __init__(
        self,
        setup: Setup,
        arena: Arena,
        policy: api.HandlePolicy,
        outbox: messages.Outbox,
        io: EngineIo,
    ) -> None:
        config, send = setup.config, outbox.send
        self.name = config.name
        self.mountpoint = config.mountpoint
        self.read_only = config.read_only
        self.default_permissions = config.default_permissions
        self.writeback = config.writeback
        coherent = config.cache == "coherent"
        self.timeouts = UNTIL_TOLD if coherent else config.timeouts
        self.unwatched = config.timeouts if coherent else None
        self._watch_group = setup.watch_group
        self.nodes = NodeTable(arena.address("nodes"), arena.section_size("nodes"), setup.index)
        self.handles = self._handles(setup, arena, policy, send)
        self.notify = Notifier(lambda data: send(messages.Notification(data)))
        self.io = io
        self.log = logging.getLogger("filesystem")
        self.worker = setup.index
        self.workers = setup.workers
        self.max_write = config.max_write
        self._outbox = outbox
        self.handles.keeper = self._keep
        self._arena = arena
        self._fd_owners = arena.section("fd_owners").cast("H") if setup.shared_files else None

    @staticmethod
    def _handles(
        setup: Setup, arena: Arena, policy: api.HandlePolicy, send: Callable[[messages.Message], None]
    ) -> HandleTable:
        address, size = arena.address("handles"), arena.section_size("handles")
        if policy is api.HandlePolicy.REOPEN:
            return ReopenHandles(address, size, setup.index, lambda fh: send(messages.Released(fh)))
        return HandleTable(address, size, setup.index)

    def _keep(self, files: list[HandleInfo]) -> None:
        """Has the supervisor keep copies of these handles' descriptors, and waits for that: not for ever, since a
        request waits meanwhile."""
        for at in range(0, len(files), messages.MAX_KEPT):
            copies = {}
            for handle in files[at : at + messages.MAX_KEPT]:
                with contextlib.suppress(OSError):
                    copies[handle.fh] = os.dup(handle.fd)
            ended = [fh for fh in copies if not self.handles.is_live(fh)]  # its number may mean another file by now
            for fh in ended:
                os.close(copies.pop(fh))
            event = self.own_fd(os.eventfd(0, os.EFD_CLOEXEC))
            done = select.poll()
            done.register(event, select.POLLIN)
            until = time.monotonic() + KEEP_PATIENCE
            self._outbox.send(messages.Keep([int(fh) for fh in copies]), [event, *copies.values()])
            while not done.poll(100 if self._outbox.flush() else OUTBOX_PATIENCE) and time.monotonic() < until:
                pass
            if not len(self._outbox):
                for fd in copies.values():
                    os.close(fd)
                self.disown_fd(event)
                os.close(event)

    def tables(self, opens: Opens) -> Tables:
        """For filesystems that answer in C."""
        arena, owners = self._arena, self._fd_owners
        size = 0 if owners is None else len(owners)
        nodes, handles, given, fd_owners = map(arena.address, ("nodes", "handles", "given", "fd_owners"))
        c = opens.c if opens.active else ffi.NULL
        return Tables(nodes, handles, given, c, fd_owners, size)

    @property
    def watches_folders(self) -> bool:
        return self._watch_group >= 0

    def watch(self, folder: int) -> bool:
        if self._watch_group < 0:
            return True
        try:
            fanotify.watch_folder(self._watch_group, folder)
        except OSError:
            return False
        return True

    def own_fd(self, fd: int) -> int:
        if self._fd_owners is not None and fd < len(self._fd_owners):
            self._fd_owners[fd] = self.worker + 1
        return fd

    def disown_fd(self, fd: int) -> None:
        if self._fd_owners is not None and fd < len(self._fd_owners):
            self._fd_owners[fd] = 0


class SingleCounts:
    """Lookup counts of policy `single`: how many references on each node the kernel holds."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def took(self, node: int) -> None:
        """One more reference."""
        self._counts[node] = self._counts.get(node, 0) + 1

    def given_back(self, node: int, count: int) -> bool:
        """`count` less; True if that was the last one."""
        left = self._counts.get(node, 0) - count
        if left > 0:
            self._counts[node] = left
            return False
        return self._counts.pop(node, None) is not None


class StartError(Exception):
    """`Filesystem.start` raised, which is the cause."""


class Worker:
    """One worker's life after its identity is set."""

    def __init__(self, setup: Setup, cls: type[api.Filesystem], options: Any) -> None:
        self.setup = setup
        self.outbox = messages.Outbox(setup.channel)
        self.arena = Arena.attach(setup.arena_fd)
        self.record = self.arena.worker(setup.index)
        self.stopping = False
        self.retiring = False
        self.single: SingleCounts | None = None
        io = EngineIo()
        self.mount = MountView(setup, self.arena, cls.handle_policy, self.outbox, io)
        self.filesystem = cls(options, self.mount)
        if isinstance(self.mount.handles, ReopenHandles):
            self.mount.handles.reopen = self.filesystem.reopen
        if cls.handle_policy is api.HandlePolicy.SINGLE:
            self.single = SingleCounts()
        self.is_async = load.describe(cls).is_async or cls.threads > 0
        self.opens = Opens(self.arena)
        self.replies = self._replies()
        self.engine = Engine(self.arena, setup.index, self.filesystem, self.replies, self.mount.nodes, self.outbox.send)
        self.engine.mail = self._mail
        self.engine.orphaned = death.follow_parent
        io.engine = self.engine

    def _replies(self) -> Replies:
        timeouts = self.mount.timeouts
        never = (0, 0)
        cached = self.setup.config.cache != "none"
        coherent = self.setup.config.cache == "coherent"
        keep = int(OpenReply.KEEP_CACHE)
        parallel = self.setup.config.parallel_direct_writes
        direct = int(OpenReply.DIRECT_IO | (OpenReply.PARALLEL_DIRECT_WRITES if parallel else 0))
        return Replies(
            entry_valid=codec.split_seconds(timeouts.entry) if cached else never,
            attr_valid=codec.split_seconds(timeouts.attr) if cached else never,
            negative_valid=codec.split_seconds(timeouts.negative) if cached else never,
            took=None if self.single is None else self.single.took,
            open_flags=keep if coherent or self.setup.config.keep_cache else 0 if cached else direct,
            parallel_with=os.O_DIRECT if parallel else 0,
            folder_flags=keep | int(OpenReply.CACHE_DIR) if coherent else 0,
            keeps_changed=not coherent,
            gathers=self.setup.config.writeback,
            opens=self.opens,
        )

    # --- mail -------------------------------------------------------------------------------------------------------

    def _mail(self, packet: bytes) -> None:
        message = messages.to_worker(packet)
        if isinstance(message, messages.Interrupt):
            self.engine.interrupt(message.index, message.unique)
        elif isinstance(message, messages.Forget):
            self._forget(message.nodes)
        elif isinstance(message, messages.Released):
            if isinstance(self.mount.handles, ReopenHandles):
                self.mount.handles.drop(api.Handle(message.fh))
        elif isinstance(message, messages.Explain):
            self.outbox.send(explain.explain(message, self.filesystem, self.engine.waiting()))
        elif isinstance(message, messages.Retire):
            self.retiring = True
        elif isinstance(message, messages.Stop):
            self.stopping = True
        elif isinstance(message, messages.LogLevel):
            logging.getLogger().setLevel(message.level.upper())

    def _forget(self, nodes: list[tuple[int, int]]) -> None:
        for node, count in nodes:
            if self.single is None or self.single.given_back(node, count):
                try:
                    self.filesystem.forget(api.NodeId(node))
                except Exception:
                    log.exception("forget() of node %d raised: it goes on", node, extra=about(nodeid=node))

    # --- transport --------------------------------------------------------------------------------------------------

    def connect(self, serve: messages.Serve, fds: list[int]) -> None:
        """Sets the transport up and takes over what a predecessor left. Raises OSError, RingRefused."""
        index, engine = self.setup.index, self.engine
        left = recovery.leftovers(self.arena, index)
        occupied = {leftover.index for leftover in left}
        free = [entry for entry in self.arena.entries_of(index) if entry not in occupied]
        mail_fd = self.setup.channel.fileno()
        self.mount.own_fd(fds[0])
        if serve.passthrough:
            self.opens.start(fds[0], self.setup.config.data == "passthrough")
        if serve.transport == "io_uring":
            ring = Ring(self.arena, index, fds[0], mail_fd, self.is_async)
            for fd in ring.wait_fds:
                self.mount.own_fd(fd)
            engine.transport = ring
            ring.register(free)
        else:
            device = Device(self.arena, index, fds[0], mail_fd, free)
            engine.transport = device
            for fd in device.files.wait_fds if device.files else ():
                self.mount.own_fd(fd)
            if device.unread():
                left = recovery.leftovers(self.arena, index)
        if isinstance(self.filesystem, Accelerated):
            fast = self.filesystem.accelerate(self.mount.tables(self.opens), self.replies)
            if fast is not None:
                engine.transport.accelerate(fast)
        engine.transport.listen()
        # A refused registration shows at once: fuse_uring_cmd completes it inside the submission.
        self.turn(wait=False)
        # Before anything of a predecessor's is run again, which may be what it hung in.
        self.outbox.send(messages.Serving(serve.transport))
        for leftover in left:
            self._take_over(leftover)
        self.record.died_of = self.record.died_from_outside = 0

    def _take_over(self, leftover: recovery.Leftover) -> None:
        index, engine = leftover.index, self.engine
        journal = self.arena.c.journal[index]
        if leftover.left is recovery.Left.ANSWERED:
            self.record.rescued += 1
            if isinstance(engine.transport, Ring):
                engine.transport.recommit(index)
            else:
                engine.transport.reply(index)
            return
        if leftover.left is recovery.Left.DELIVERED:
            lib.rm_journal_delivery(self.arena.c, index)
            self.record.rescued += 1
            engine.serve(index)
            return
        opcode = HEADER.unpack(bytes(journal.header))[1]
        self._give_back(index, opcode)
        seconds = (lib.rm_now() - journal.delivered_ns) / 1e9
        timeout = self.setup.config.timeouts.request
        if recovery.is_guilty(self.record.died_of, bool(self.record.died_from_outside), seconds, timeout):
            journal.deaths += 1
        fate = recovery.fate(journal.deaths, engine.may_repeat(index, opcode), self.setup.config.on_crash)
        if fate is recovery.Fate.RETRY:
            self.record.retried += 1
            engine.serve(index)
            return
        if fate is recovery.Fate.LOST:
            self.record.lost += 1
            what = "was under way when its worker died"
            event = events.REQUEST_LOST
        else:
            self.record.quarantined += 1
            what = f"was under way when {journal.deaths} workers died, whose stacks are above: it is not run again"
            event = events.REQUEST_QUARANTINED
        log.error("%s %s: answered EIO", self._describe(index), what, extra=self._about(index, event))
        engine.reply(index, errno.EIO, 0)

    def _give_back(self, index: int, opcode: int) -> None:
        """Gives back what was taken for an answer that never went out, and puts the request as it was."""
        journal = self.arena.c.journal[index]
        self.mount.nodes.settle_listing(self.arena.c.journal + index, self.arena.payload_at(index), self.arena.payload)
        recovery.restore_payload(self.arena, index)
        self.opens.settle(index)
        self.mount.nodes.settle(journal.intent)
        fh = api.Handle(journal.intent[2])
        journal.intent[2] = 0
        if fh and opcode in recovery.OPENING:
            with contextlib.suppress(OSError):  # it had not come that far
                fd = self.mount.handles.remove(fh)
                if fd >= 0 and self.setup.shared_files:
                    os.close(fd)

    def _about(self, index: int, event: Event) -> dict[str, Any]:
        _, opcode, unique, node, *_ = HEADER.unpack(bytes(self.arena.c.journal[index].header))
        return about(event, opcode=opcode, nodeid=node, unique=unique, errno=errno.EIO)

    def _describe(self, index: int) -> str:
        """A request in words: what, on which node, for whom."""
        _, opcode, unique, node, uid, _, pid, *_ = HEADER.unpack(bytes(self.arena.c.journal[index].header))
        try:
            path = self.filesystem.path_of(api.NodeId(node))
        except Exception:
            path = None
        try:
            with open(f"/proc/{pid}/comm") as comm:
                who = f"process {pid} ({comm.read().strip()})"
        except OSError:
            who = f"process {pid}"
        name = recovery.name_in(self.arena, index, opcode)
        where = f"node {node}" if path is None else f"node {node} ({os.fsdecode(path)!r})"
        what = f" and name {os.fsdecode(name)!r}" if name is not None else ""
        return f"{Opcode(opcode).name} (request {unique}) of {where}{what} for {who} of user {uid}"

    # --- loops ------------------------------------------------------------------------------------------------------

    def turn(self, wait: bool) -> bool:
        """One turn of the transport; True if it had events. Raises what `Engine.event` raises."""
        engine = self.engine
        answered, engine.answered = engine.answered, []
        try:
            happened = engine.transport.turn(answered, wait)
        except InterruptedError:
            return False
        for data, result in happened:
            engine.event(data, result)
        if self.mount.nodes.departed:
            self._tell_departed()
        if len(self.outbox):
            self.outbox.flush()
        if self.opens.active and (error := self.opens.take_refusal()):
            what = (
                "the kernel does not take a file beneath (%s): contents of it, and maybe others, go through the workers"
            )
            log.warning(what, refusal(error), extra=about(events.DATA_FELL_BACK, errno=error))
        if self.retiring and not engine.busy and not engine.answered:
            os.kill(os.getpid(), signal.SIGTERM)  # what arrives from here on waits for the successor
        return bool(happened)

    def _tell_departed(self) -> None:
        departed = self.mount.nodes.departed
        while departed:
            # Popped one by one: a thread of the filesystem may be adding to the list.
            nodes = [departed.pop() for _ in range(min(len(departed), messages.MAX_FORGETS))]
            self.outbox.send(messages.Departed([(int(node), watchers) for node, watchers in nodes]))

    def run(self, serve: messages.Serve, fds: list[int]) -> None:
        """Serves with plain methods only, one blocking system call a turn, until told to stop or the mount is gone.

        Raises StartError, OSError, RingRefused.
        """
        try:
            self.filesystem.start()
        except Exception as error:
            raise StartError from error
        with contextlib.suppress(ConnectionGone):
            self.connect(serve, fds)
            self._serve_plainly()
        try:
            self.filesystem.stop()
        except Exception:
            log.exception("stop() of the filesystem raised")

    def _serve_plainly(self) -> None:
        mail_room = select.poll()
        mail_room.register(self.setup.channel, select.POLLOUT)
        while not self.stopping:
            # A full channel does not wake the transport when it has room again: look after it meanwhile.
            if not self.turn(wait=not len(self.outbox)) and len(self.outbox):
                mail_room.poll(OUTBOX_PATIENCE)
        # A mount that was in use when it was taken out of the tree is asked on and on: not for longer than a moment.
        end = time.monotonic() + STOP_GRACE
        while (self.engine.answered or self.engine.busy) and time.monotonic() < end:
            self.turn(wait=bool(self.engine.busy))
        self._commit_the_last()

    def _commit_the_last(self) -> None:
        """Commits what is answered and looks at nothing new."""
        answered, self.engine.answered = self.engine.answered, []
        if answered:
            with contextlib.suppress(OSError):  # nobody waits any more
                self.engine.transport.turn(answered, False)

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """An event loop whose descriptors are known as this worker's own."""
        selector = selectors.EpollSelector()
        loop = asyncio.SelectorEventLoop(selector)
        self.mount.own_fd(selector.fileno())
        for name in ("_ssock", "_csock"):  # by which threads wake it; asyncio has no public name for them
            if (end := getattr(loop, name, None)) is not None:
                self.mount.own_fd(end.fileno())
        return loop

    async def run_async(self, serve: messages.Serve, fds: list[int]) -> None:
        """Serves under asyncio: coroutines and threads wait, the worker goes on. Ends and raises as `run` does."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self.engine.loop = loop
        scheduled = False
        watching = True
        mailing = False
        cancelling: asyncio.TimerHandle | None = None

        def finish(error: BaseException | None) -> None:
            if not done.done():
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)

        def turns() -> None:
            nonlocal scheduled
            scheduled = False
            try:
                for _ in range(64):
                    if not self.turn(wait=False) and not self.engine.answered:
                        break
                else:
                    wake()  # others in this loop get their turn
            except BaseException as error:
                finish(error)
                return
            watch_requests()
            watch_outbox()
            if self.stopping:
                end_soon()

        def end_soon() -> None:
            """Ends when all is answered. What still waits after a moment is cancelled: its callers get EINTR."""
            nonlocal cancelling
            if not self.engine.busy and not self.engine.answered:
                finish(None)
            elif cancelling is None:
                cancelling = loop.call_later(STOP_GRACE, lambda: loop.create_task(end_now()))

        async def end_now() -> None:
            await self.engine.cancel_all()
            finish(None)

        def watch_requests() -> None:
            nonlocal watching
            transport = self.engine.transport
            if watching != transport.has_room():
                watching = not watching
                if watching:
                    loop.add_reader(transport.wait_fds[0], turns)
                else:
                    loop.remove_reader(transport.wait_fds[0])

        def watch_outbox() -> None:
            nonlocal mailing
            if mailing != bool(len(self.outbox)):
                mailing = not mailing
                if mailing:
                    loop.add_writer(self.setup.channel, turns)
                else:
                    loop.remove_writer(self.setup.channel)

        def wake() -> None:
            nonlocal scheduled
            if not scheduled:
                scheduled = True
                loop.call_soon(turns)

        self.engine.wake = wake
        try:
            await _maybe(self.filesystem.start())
        except Exception as error:
            raise StartError from error
        with contextlib.suppress(ConnectionGone):
            self.connect(serve, fds)
            for fd in self.engine.transport.wait_fds:
                loop.add_reader(fd, turns)
            wake()
            try:
                await done
            finally:
                for fd in self.engine.transport.wait_fds:
                    loop.remove_reader(fd)
                loop.remove_writer(self.setup.channel)
        await self.engine.cancel_all()
        self._commit_the_last()
        try:
            await _maybe(self.filesystem.stop())
        except Exception:
            log.exception("stop() of the filesystem raised")


def refusal(error: int) -> str:
    """Why the kernel did not take a backing file (fuse_backing_open())."""
    return "it lies on a filesystem that is stacked itself" if error == errno.ELOOP else os.strerror(error)


async def _maybe(result: Any) -> None:
    if inspect.isawaitable(result):
        await result


# --- identity ---------------------------------------------------------------------------------------------------------


def _pin(setup: Setup) -> None:
    """Name and CPU."""
    events.identify(WORKER=None if setup.index == SPARE else setup.index, CPU=setup.cpu)
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:
        comm.write(f"rm-{setup.config.name}"[:11] + ("/spare" if setup.index == SPARE else f"/{setup.index}"))
    if setup.cpu is not None:
        os.sched_setaffinity(0, {setup.cpu})


def _become(setup: Setup, supervisor: int) -> None:
    """Name, CPU, signals, descriptors, rights: what makes the forked process a worker. Raises OSError, LookupError."""
    _pin(setup)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    # Ctrl-C reaches the whole foreground group: the supervisor decides, and workers go on until it unmounted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # An interrupt may come before the loop can hear of it: the journal's mark says the same.
    signal.signal(INTERRUPT_SIGNAL, signal.SIG_IGN)
    signal.signal(explain.SIGNAL, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0)
    if not setup.shared_files:
        keep = {0, 1, 2, setup.arena_fd, setup.channel.fileno(), setup.watch_group, setup.stacks_fd}
        for name in os.listdir("/proc/self/fd"):
            if int(name) not in keep:
                with contextlib.suppress(OSError):
                    os.close(int(name))
    if setup.config.user is not None and os.geteuid() == 0:
        drop_privileges(setup.config.user)
    _live_with_supervisor(supervisor)


def drop_privileges(user: str) -> None:
    """Becomes `user` for good. Raises OSError, or LookupError for a user that does not exist."""
    entry = pwd.getpwnam(user)
    os.setgroups(os.getgrouplist(user, entry.pw_gid))
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    lib.rm_no_new_privileges()


def _live_with_supervisor(supervisor: int) -> None:
    """A worker without its supervisor would serve for ever, and nobody would read the forgets."""
    death.die_with_parent()
    if os.getppid() != supervisor:
        os._exit(EXIT_OK)


def main(setup: Setup, supervisor: int) -> int:
    """Runs a worker in a freshly forked process; returns its exit code."""
    outbox = messages.Outbox(setup.channel)
    try:
        _become(setup, supervisor)
        gc.disable()  # an import makes no garbage worth looking for, and somebody may be waiting
        cls, options = load.load(setup.config, setup.search)
        gc.freeze()
        gc.enable()
        if setup.index == SPARE:
            outbox.send(messages.Prepared())
            assigned = _wait_for(setup.channel, messages.Assign)
            if assigned is None:
                return EXIT_OK
            setup = replace(setup, index=assigned[0].index, cpu=assigned[0].cpu)
            _pin(setup)
            worker = Worker(setup, cls, options)
        else:
            worker = Worker(setup, cls, options)
            outbox.send(messages.Prepared())
    except load.FilesystemError as error:
        outbox.send(messages.Failed("filesystem", f"{error.path}: {error.message}", _is_hopeless(error)))
        return EXIT_FILESYSTEM
    except Exception as error:
        log.debug("the filesystem cannot start", exc_info=True)
        outbox.send(messages.Failed("filesystem", _text_of(error), _is_hopeless(error)))
        return EXIT_FILESYSTEM
    death.arm(worker.record)
    if setup.stacks_fd >= 0:
        explain.tell_stacks(setup.stacks_fd)
    worker.record.pid = os.getpid()
    worker.record.cpu = 0xFFFFFFFF if setup.cpu is None else setup.cpu
    worker.record.started_ns = lib.rm_now()
    word = _wait_for(setup.channel, messages.Serve)
    return EXIT_OK if word is None else _serve(worker, *word)


def _is_hopeless(error: BaseException | None) -> bool:
    """Whether another start would fail the same way: the system was not the one that refused."""
    while error is not None:
        if isinstance(error, OSError):
            return False
        error = error.__cause__
    return True


def _text_of(error: BaseException | None) -> str:
    """What a filesystem raised for the administrator to read (OSError, ValueError), or what else went wrong."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"


M = TypeVar("M", bound=messages.Message)


def _wait_for(channel: socket.socket, kind: type[M]) -> tuple[M, list[int]] | None:
    """Blocks until the supervisor says this, with the descriptors that came along; None if it says to stop."""
    while True:
        packet, fds, _, _ = socket.recv_fds(channel, messages.MAX_PACKET, 1)
        message = messages.to_worker(packet) if packet else None
        if message is None or isinstance(message, messages.Stop):
            return None
        if isinstance(message, kind):
            for fd in fds:
                os.set_inheritable(fd, False)
            return message, fds


def _serve(worker: Worker, serve: messages.Serve, fds: list[int]) -> int:
    logging.getLogger().setLevel(serve.log_level.upper())
    if worker.filesystem.interrupt_sync:
        signal.signal(INTERRUPT_SIGNAL, lambda number, frame: worker.engine.interrupt_running())
    try:
        if worker.is_async:
            # Never closed: that would wait for coroutines that wait for a ring which is not looked at any more.
            asyncio.Runner(loop_factory=worker.new_loop).run(worker.run_async(serve, fds))
        else:
            worker.run(serve, fds)
    except StartError as error:
        log.debug("the filesystem cannot start", exc_info=True)
        worker.outbox.send(messages.Failed("filesystem", _text_of(error.__cause__), _is_hopeless(error)))
        return EXIT_FILESYSTEM
    except (RingRefused, OSError) as error:
        log.debug("the transport cannot be set up", exc_info=True)
        worker.outbox.send(messages.Failed("transport", str(error), _is_hopeless(error)))
        return EXIT_TRANSPORT
    return EXIT_OK


def child(setup: Setup, supervisor: int) -> None:
    """The forked child's whole life; does not return."""
    code = 1
    try:
        code = main(setup, supervisor)
    except BaseException:
        log.critical("a worker (pid %d) ended unexpectedly", os.getpid(), exc_info=True)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
            for handler in logging.getLogger().handlers:
                handler.flush()
        os._exit(code)
