"""The supervisor: makes a mount, keeps its workers alive, reads the legacy path, takes it all down again.

It owns the /dev/fuse descriptor and the arena. It never imports a filesystem, never touches its own mountpoint (a
child does where somebody must), has one thread, and does nothing that may block once the mount serves.

Start: workers prepare their filesystems - mount(2) - INIT - "serve" to the workers - all of them serve. What fails
before mount(2) leaves nothing; what fails after it is unmounted. Stop: unmount in a child, let the workers answer
what is in flight, then end whatever is left.
"""

import contextlib
import errno
import logging
import os
import select
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import msgspec

from ringmount.config.model import MountConfig
from ringmount.daemon import hangs, legacy, machine, mountinfo, mounting, places, restart
from ringmount.daemon.children import State, WorkerProcess, close_private_fds, throw_away
from ringmount.daemon.control import ControlServer
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.machine import Cpus
from ringmount.daemon.notifications import Writer
from ringmount.daemon.session import OtherMajor, Session, SessionError, Wanted, negotiate
from ringmount.workers import abi, codec, death, messages, ring
from ringmount.workers._native import ffi, lib
from ringmount.workers.api import HandlePolicy, NodeId
from ringmount.workers.arena import Arena
from ringmount.workers.handles import HandleTable
from ringmount.workers.messages import Description
from ringmount.workers.nodes import NodeTable
from ringmount.workers.worker import EXIT_TRANSPORT, INTERRUPT_SIGNAL, SPARE

log = logging.getLogger(__name__)

PREPARE_PATIENCE = 60.0
"""Seconds that the workers may take to import and make their filesystems."""
SERVE_PATIENCE = 30.0
"""Seconds that the transport may take to come up."""
INIT_PATIENCE = 10.0
STOP_PATIENCE = 5.0
"""Seconds for requests in flight when the mount is stopped, and again for workers to exit."""
NUDGE_PATIENCE = 5.0
SPARE_DELAY = 0.05
"""Seconds before a spare is made: whoever waits for an answer comes first."""
INTERRUPT_PATIENCE = 0.5
"""Seconds for which an INTERRUPT waits for its request to show up in the arena (they travel by different ways)."""
LEGACY_PER_TURN = 64
PAIR = struct.Struct("<QQ")


class Interrupted(Exception):
    """Stopped by a signal before the mount served."""


class Supervisor:
    """One mount. `serve` runs it until it is stopped."""

    def __init__(self, config: MountConfig, search: str | None, description: Description, cpus: Cpus) -> None:
        self.config = config
        self.search = search
        self.description = description
        self.policy = HandlePolicy(description.handle_policy)
        self.machine = cpus
        single = self.policy is HandlePolicy.SINGLE
        self.worker_cpus = machine.worker_cpus(config, cpus, single)
        self.plan = machine.plan(config, cpus, self.worker_cpus)
        self.transport = ""
        self.transport_reason = ""
        self.session: Session | None = None
        self.started_at = time.time()
        self.on_ready: Callable[[Supervisor], None] = lambda supervisor: None
        self.fuse_fd = -1
        self.arena: Arena
        self.nodes: NodeTable
        self.handles: HandleTable
        self.writer: Writer
        self.control: ControlServer
        self.workers = [WorkerProcess(index, None if single else cpu) for index, cpu in enumerate(self.worker_cpus)]
        self.spare = WorkerProcess(SPARE, None)
        """A worker that has imported the filesystem and waits to take a dead one's place."""
        self._clones: dict[int, int] = {}
        self._selector = selectors.DefaultSelector()
        self._stop_requested = 0
        self._stopping = False
        self._exit: Failure | None = None
        self._connection: int | None = None
        self._device_watch: int | select.epoll | None = None
        self._restarts: list[tuple[float, WorkerProcess]] = []
        self._helpers: dict[int, tuple[int, float]] = {}
        self._interrupts: list[tuple[int, float]] = []
        self._forgets: list[tuple[int, int]] = []
        self._ready = False
        self._next_look = 0.0
        self._counts = {"forgets": 0, "interrupts": 0, "notifications": 0, "nudges": 0, "hangs": 0, "unexpected": 0}
        # By entry, its worker. The arena says so as well, but workers can write there.
        depths = zip(self.plan.depths, self.plan.owners, strict=True)
        self._owners = [owner for depth, owner in depths for _ in range(depth)]
        self._buffer = bytearray(max(abi.FUSE_MIN_READ_BUFFER, 80 + self.plan.payload))

    # --- life ---------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Mounts, serves until stopped, unmounts. Raises Failure; then nothing is left mounted or running."""
        places.make_runtime_folder()
        use_ring = self._choose_transport()
        machine.raise_descriptor_limit()
        self.control = ControlServer(places.socket_path(self.config.name), self._selector, {"status": self.status})
        try:
            try:
                self.arena = Arena.create(self.plan, self.config.name)
            except OSError as error:
                raise Failure(f"cannot make the arena: {error.strerror}", code=ExitCode.RESOURCES) from error
            self.nodes = NodeTable(self.arena.address("nodes"), self.arena.section_size("nodes"), len(self.workers))
            self.handles = HandleTable(
                self.arena.address("handles"), self.arena.section_size("handles"), len(self.workers)
            )
            with self._signals():
                try:
                    self._start_workers()
                    self._mount()
                    self._negotiate(use_ring)
                    self._bring_up()
                    self._watch_device()
                    self._ready = True
                    self._restarts.append((0.0, self.spare))
                    self.on_ready(self)
                    while not self._stop_requested:
                        self._turn(None)
                except Interrupted:
                    pass
                finally:
                    self._shut_down()
        finally:
            self.control.close()
        if self._exit is not None:
            raise self._exit

    @contextlib.contextmanager
    def _signals(self) -> Any:
        """SIGTERM and SIGINT wake the loop; a second one ends it at once."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        previous = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        handlers = {
            number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        self._selector.register(ours, selectors.EVENT_READ, lambda mask: ours.recv(64))
        try:
            yield
        finally:
            self._selector.unregister(ours)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(previous)
            ours.close()
            theirs.close()

    def _on_signal(self, number: int, frame: Any) -> None:
        if number != signal.SIGHUP:
            self._stop_requested += 1

    def _stop_with(self, failure: Failure) -> None:
        """The mount cannot go on."""
        if self._exit is None:
            log.error("%s", failure)
            self._exit = failure
        self._stop_requested += 1

    # --- start --------------------------------------------------------------------------------------------------

    def _choose_transport(self) -> bool:
        """Whether to ask for rings. Raises Failure when the mount insists on them and there can be none."""
        if self.config.transport == "dev_fuse":
            self.transport_reason = "transport: dev_fuse"
            return False
        reason = self._why_no_ring()
        if reason is None:
            return True
        self.transport_reason = reason
        if self.config.transport == "io_uring":
            raise Failure(
                f"transport: io_uring is not to be had: {reason}",
                "ringmount doctor says how to get it; transport: auto falls back to /dev/fuse",
                code=ExitCode.UNAVAILABLE,
            )
        return False

    @staticmethod
    def _why_no_ring() -> str | None:
        switch = machine.ring_switch()
        if switch is None:
            return "this kernel has no FUSE over io_uring (it came with Linux 6.14)"
        if not switch:
            return f"the kernel's switch is off (echo Y > {machine.URING_SWITCH})"
        return ring.probe()

    def _start_workers(self) -> None:
        for worker in self.workers:
            self._start_worker(worker)
        self._await_state(State.PREPARED, PREPARE_PATIENCE, "preparing the filesystem")

    def _start_worker(self, worker: WorkerProcess) -> None:
        shared = self.policy is HandlePolicy.SHARED
        try:
            worker.start(self.config, self.search, len(self.workers), self.arena, shared)
        except OSError as error:
            raise Failure(f"cannot start a worker: {error.strerror}", code=ExitCode.RESOURCES) from error
        self._watch(worker)

    def _start_again(self, worker: WorkerProcess, now: float) -> None:
        """Starts a process in a dead one's place. A shortage may pass: the mount goes on."""
        try:
            self._start_worker(worker)
        except Failure as failure:
            log.error("%s; trying again", failure)
            self._restarts.append((now + restart.MAX_DELAY, worker))

    def _watch(self, worker: WorkerProcess) -> None:
        self._selector.register(worker.channel, selectors.EVENT_READ, lambda mask: self._heard(worker))
        self._selector.register(worker.pidfd, selectors.EVENT_READ, lambda mask: self._died(worker))

    def _await_state(self, state: State, patience: float, what: str) -> None:
        """Turns the loop until all workers are there. Raises Failure for the first one that failed, Interrupted."""
        deadline = time.monotonic() + patience
        while any(worker.state is not state for worker in self.workers):
            for worker in self.workers:
                if worker.failure is not None:
                    raise self._failure_of(worker)
                if worker.state is State.DEAD:
                    raise Failure(f"worker {worker.index} died while {what}", code=ExitCode.FILESYSTEM)
            if self._stop_requested:
                raise Interrupted
            left = deadline - time.monotonic()
            if left <= 0:
                late = [str(worker.index) for worker in self.workers if worker.state is not state]
                raise Failure(
                    f"{what} took more than {patience:.0f} s in worker {', '.join(late)}", code=ExitCode.FILESYSTEM
                )
            self._turn(left)

    @staticmethod
    def _failure_of(worker: WorkerProcess) -> Failure:
        failed = worker.failure
        assert failed is not None
        code = ExitCode.FILESYSTEM if failed.what == "filesystem" else ExitCode.UNAVAILABLE
        return Failure(failed.message, code=code)

    def _mount(self) -> None:
        self.fuse_fd = mounting.mount(self.config)
        entry = mountinfo.find(self.config.mountpoint)
        self._connection = None if entry is None else mounting.connection_id(entry)
        self._start_writer()

    def _start_writer(self) -> None:
        self.writer = Writer(self.fuse_fd)
        self._selector.register(self.writer.channel, selectors.EVENT_READ, lambda mask: self._writer_spoke())

    def _writer_spoke(self) -> None:
        self.writer.pump()
        if not self.writer.ended:
            return
        log.warning("the notifier died: starting another")
        queue = self.writer.queue
        self._end_writer()
        self._start_writer()
        self.writer.queue = queue
        self.writer.pump()

    def _end_writer(self) -> None:
        self._selector.unregister(self.writer.channel)
        self.writer.close()
        os.waitpid(self.writer.pid, 0)

    def _negotiate(self, use_ring: bool) -> None:
        wanted = Wanted(
            config=self.config,
            filesystem=self.description,
            queues=self.machine.possible,
            use_ring=use_ring,
            max_pages_limit=self.plan.payload // os.sysconf("SC_PAGESIZE"),
            page_size=os.sysconf("SC_PAGESIZE"),
        )
        while True:
            if not select.select([self.fuse_fd], [], [], INIT_PATIENCE)[0]:
                raise Failure("the kernel sent no INIT", code=ExitCode.UNAVAILABLE)
            size = os.readv(self.fuse_fd, [self._buffer])
            header_bytes, op_in, _ = codec.split_legacy(memoryview(self._buffer)[:size])
            header = codec.decode_header(header_bytes)
            try:
                agreed = negotiate(codec.decode_init_in(op_in), wanted)
            except (SessionError, codec.DecodeError) as error:
                self._answer_init(header.unique, errno.EPROTO, b"")
                raise Failure(str(error), code=ExitCode.UNAVAILABLE) from error
            self._answer_init(header.unique, 0, agreed.reply)
            if not isinstance(agreed, OtherMajor):
                break
        self.session = agreed
        for note in agreed.notes:
            log.info("%s", note)
        if use_ring and not agreed.uses_ring:
            self.transport_reason = "the kernel did not offer FUSE over io_uring"
            if self.config.transport == "io_uring":
                raise Failure(
                    f"transport: io_uring is not to be had: {self.transport_reason}", code=ExitCode.UNAVAILABLE
                )
        self.transport = "io_uring" if agreed.uses_ring else "dev_fuse"
        self.arena.store_session(msgspec.json.encode(agreed))

    def _answer_init(self, unique: int, error: int, body: bytes) -> None:
        reply = bytearray(abi.FUSE_OUT_HEADER.size)
        codec.encode_out_header(memoryview(reply), 0, unique, error, len(body))
        os.write(self.fuse_fd, bytes(reply) + body)

    def _bring_up(self) -> None:
        """Tells the workers to serve; where the rings fail, gives them up and serves by /dev/fuse."""
        try:
            self._serve_all()
        except Failure as failure:
            failed = [worker.failure.what for worker in self.workers if worker.failure is not None]
            if self.transport != "io_uring" or self.config.transport == "io_uring" or "filesystem" in failed:
                raise
            self._fall_back(str(failure))

    def _serve_all(self) -> None:
        for worker in self.workers:
            self._tell_to_serve(worker)
        self._await_state(State.SERVING, SERVE_PATIENCE, f"setting up {self.transport}")

    def _tell_to_serve(self, worker: WorkerProcess) -> None:
        assert self.session is not None
        if self.transport == "io_uring":
            fd = self.fuse_fd
        else:
            # The supervisor keeps each worker's clone: closed with its last reference, it would end the requests that a
            # dead worker had read (fuse_dev_release).
            if worker.index not in self._clones:
                self._clones[worker.index] = ring.clone(self.fuse_fd)
            fd = self._clones[worker.index]
        worker.outbox.send(messages.Serve(self.transport, self.session.setxattr_ext), [fd])

    def _fall_back(self, reason: str) -> None:
        log.warning("io_uring failed (%s): falling back to /dev/fuse", reason)
        self.transport_reason = reason
        for worker in self.workers:
            worker.kill()
        while any(worker.state is not State.DEAD for worker in self.workers):
            self._turn(1.0)
        pid = throw_away(lambda: ring.give_up(self.arena.fd, self.fuse_fd), {self.arena.fd, self.fuse_fd})
        if os.waitpid(pid, 0)[1]:  # whoever calls on the mount would wait for the rings for ever
            raise Failure(f"{reason}; and the kernel could not be told", code=ExitCode.UNAVAILABLE)
        self.transport = "dev_fuse"
        self._start_workers()
        self._serve_all()

    def _watch_device(self) -> None:
        """With rings the legacy path is the supervisor's alone; without, it only looks for the connection's end."""
        if self.transport == "io_uring":
            self._device_watch = self.fuse_fd
            self._selector.register(self.fuse_fd, selectors.EVENT_READ, lambda mask: self._read_legacy())
            return
        self._device_watch = select.epoll()  # an epoll without events reports errors and hang-ups alone
        self._device_watch.register(self.fuse_fd, 0)
        self._selector.register(self._device_watch, selectors.EVENT_READ, lambda mask: self._connection_ended())

    # --- loop ---------------------------------------------------------------------------------------------------

    def _turn(self, patience: float | None) -> None:
        """Waits for what happens next, at most `patience` seconds, and sees to it."""
        for key, mask in self._selector.select(self._timeout(patience)):
            try:
                if self._selector.get_key(key.fileobj) is not key:
                    continue
            except (KeyError, ValueError):  # an earlier event of this turn has closed it
                continue
            key.data(mask)
        self._do_what_is_due()

    def _timeout(self, patience: float | None) -> float | None:
        now = time.monotonic()
        times = [now + patience] if patience is not None else []
        times += [at for at, _ in self._restarts]
        times += [deadline for _, deadline in self._helpers.values()]
        if self._ready and self.config.timeouts.request:
            times.append(self._next_look)
        waiting = any(len(worker.outbox) for worker in self._processes())
        if waiting or self._interrupts or self._forgets:
            times.append(now + 0.01)
        if len(self.control):
            times.append(now + 1.0)
        return max(0.0, min(times) - now) if times else None

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        for worker in self._processes():
            worker.outbox.flush()
        if self._interrupts:
            self._retry_interrupts()
        if self._forgets:
            self._forget([])
        for at, worker in [due for due in self._restarts if due[0] <= now]:
            self._restarts.remove((at, worker))
            if not self._stopping:
                self._start_again(worker, now)
        for pid, (pidfd, deadline) in list(self._helpers.items()):
            if deadline <= now:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                self._helpers[pid] = (pidfd, now + 1.0)
        self.control.expire()
        if self._ready and not self._stopping and self.config.timeouts.request and now >= self._next_look:
            self._next_look = now + hangs.interval(self.config.timeouts.request)
            for worker in self.workers:
                if worker.state is not State.DEAD:
                    self._look_at(worker, now)

    # --- workers ------------------------------------------------------------------------------------------------

    def _processes(self) -> list[WorkerProcess]:
        """The workers, and the spare, that have a process."""
        return [worker for worker in (*self.workers, self.spare) if worker.state is not State.DEAD]

    def _heard(self, worker: WorkerProcess) -> bool:
        """What a worker says; True if there may be more. Nothing it says can stop the supervisor."""
        for _ in range(LEGACY_PER_TURN):
            try:
                message = worker.receive()
            except msgspec.DecodeError as error:
                log.error("worker %d said something strange: %s", worker.index, error)
                continue
            if message is None:
                return False
            self._act_on(worker, message)
        return True

    def _act_on(self, worker: WorkerProcess, message: messages.ToSupervisor) -> None:
        if isinstance(message, messages.Notification):
            self._counts["notifications"] += 1
            self.writer.put(message.data)
        elif isinstance(message, messages.Legacy):
            self._legacy(memoryview(message.data))
        elif isinstance(message, messages.Departed):
            self._tell_departed([(NodeId(node), watchers) for node, watchers in message.nodes])
        elif isinstance(message, messages.Released):
            for other in self.workers:
                if other is not worker and other.state is State.SERVING:
                    other.outbox.send(message)
        elif isinstance(message, messages.Prepared):
            worker.state = State.PREPARED
            if self._ready and not self._stopping and worker is not self.spare:
                self._tell_to_serve(worker)
        elif isinstance(message, messages.Serving):
            worker.state = State.SERVING
            if self._ready:
                log.info("worker %d serves again (pid %d)", worker.index, worker.pid)
                self._nudge(worker)
        elif isinstance(message, messages.Failed):
            worker.failure = message

    def _died(self, worker: WorkerProcess) -> None:
        while self._heard(worker):  # its last words
            pass
        self._selector.unregister(worker.channel)
        self._selector.unregister(worker.pidfd)
        code = worker.reap()
        if worker is self.spare:
            self._spare_died(code)
            return
        record = self.arena.worker(worker.index)
        if self.policy is HandlePolicy.SHARED:
            close_private_fds(self.arena, worker.index)
        self._recover_tables(worker)
        if self._stopping or not self._ready:
            return
        if code == 0 and record.died_of:  # by exec: see ringmount.workers.death
            code = -record.died_of
        if code == 0:  # the connection has ended
            self._connection_ended()
            return
        now = time.monotonic()
        record.deaths += 1
        worker.deaths = [*worker.deaths[-31:], now]
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        log.error("worker %d (pid %d) died: %s", worker.index, worker.pid, how)
        permanent = worker.failure.message if worker.failure is not None and worker.failure.permanent else None
        decision = restart.after_death(worker.deaths, now, permanent)
        if isinstance(decision, restart.GiveUp):
            what = ExitCode.UNAVAILABLE if code == EXIT_TRANSPORT else ExitCode.FILESYSTEM
            self._stop_with(Failure(f"worker {worker.index} cannot serve: {decision.reason}", code=what))
            return
        if self.spare.state is State.PREPARED:
            self._promote_spare(worker)
        else:
            self._restarts.append((now + decision.delay, worker))

    def _promote_spare(self, worker: WorkerProcess) -> None:
        """The spare takes the dead worker's place; another is made once that is under way."""
        self._selector.unregister(self.spare.channel)
        self._selector.unregister(self.spare.pidfd)
        worker.replace_by(self.spare, self.arena)
        self._watch(worker)
        self._tell_to_serve(worker)
        self._restarts.append((time.monotonic() + SPARE_DELAY, self.spare))

    def _spare_died(self, code: int) -> None:
        if self._stopping:
            return
        now = time.monotonic()
        self.spare.deaths = [*self.spare.deaths[-31:], now]
        permanent = self.spare.failure.message if self.spare.failure is not None else None
        decision = restart.after_death(self.spare.deaths, now, permanent)
        if isinstance(decision, restart.GiveUp):
            log.error("no spare worker: %s", decision.reason)
        else:
            self._restarts.append((now + max(SPARE_DELAY, decision.delay), self.spare))

    def _look_at(self, worker: WorkerProcess, now: float) -> None:
        """Replaces a worker in which a request hangs, or that takes no turn. SETLKW may wait as long as it likes."""
        since = ffi.new("uint64_t *")
        index = lib.rm_oldest(self.arena.c, worker.index, abi.Opcode.SETLKW, since)
        # A successor has had a request since it began, whenever that came.
        age = None if index < 0 else min((lib.rm_now() - since[0]) / 1e9, now - worker.began)
        silence = worker.silence(self.arena, now) if worker.state is State.SERVING else None
        longest = max((seconds for seconds in (age, silence) if seconds is not None), default=None)
        match hangs.step(longest, self.config.timeouts.request, worker.asked_to_die, now):
            case hangs.Step.REPLACE:
                what = "takes no turn" if index < 0 else self._describe_request(index)
                log.error("worker %d hangs: %s for %.1f s; its stacks, and another:", worker.index, what, longest)
                self._counts["hangs"] += 1
                worker.asked_to_die = now
                worker.kill(death.REPLACE)
            case hangs.Step.KILL:
                log.error("worker %d does not die: killing it", worker.index)
                worker.kill()

    def _describe_request(self, index: int) -> str:
        header = codec.decode_header(bytes(self.arena.c.journal[index].header))
        name = abi.Opcode(header.opcode).name
        return f"{name} (request {header.unique}) of node {header.nodeid} for process {header.pid}"

    def _recover_tables(self, worker: WorkerProcess) -> None:
        """Puts right what the worker was in the middle of in the tables that all share."""
        try:
            self.nodes.recover(worker.pid)
            self.handles.sweep(worker.index)
        except OSError as error:  # a stopped process holds a lock: whoever takes it next sees to it
            log.warning("after the death of worker %d: %s", worker.index, error.strerror)

    def _nudge(self, worker: WorkerProcess) -> None:
        """Makes the kernel hand out what waited while the worker's queues had no entry.

        A fresh REGISTER does not dispatch waiting requests; the next request of that queue does, so a child issues one
        on each of its CPUs. statfs is never cached.
        """
        if self.transport != "io_uring":
            return
        for cpu in self.machine.online:
            if machine.owner_of(cpu, self.worker_cpus) == worker.index:
                self._counts["nudges"] += 1
                self._run_helper(lambda cpu=cpu: _statfs_on(cpu, self.config.mountpoint), NUDGE_PATIENCE)  # type: ignore[misc]

    def _run_helper(self, function: Callable[[], int], patience: float) -> None:
        pid = throw_away(function)
        pidfd = os.pidfd_open(pid)
        self._helpers[pid] = (pidfd, time.monotonic() + patience)
        self._selector.register(pidfd, selectors.EVENT_READ, lambda mask: self._helper_ended(pid))

    def _helper_ended(self, pid: int) -> None:
        pidfd, _ = self._helpers.pop(pid)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        os.waitpid(pid, 0)

    # --- legacy path --------------------------------------------------------------------------------------------

    def _read_legacy(self) -> None:
        for _ in range(LEGACY_PER_TURN):
            try:
                size = os.readv(self.fuse_fd, [self._buffer])
            except BlockingIOError:
                return
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.ECONNABORTED, errno.EPERM):
                    self._connection_ended()
                    return
                if error.errno == errno.ENOENT:  # the request was taken back while it was read
                    continue
                raise
            self._legacy(memoryview(self._buffer)[:size])

    def _legacy(self, message: memoryview) -> None:
        try:
            said = legacy.parse(message)
        except codec.DecodeError as error:
            log.error("/dev/fuse: %s", error)
            return
        if isinstance(said, legacy.Forgets):
            self._counts["forgets"] += sum(count for _, count in said.pairs)
            self._forget(list(said.pairs))
        elif isinstance(said, legacy.Interrupted):
            self._counts["interrupts"] += 1
            if not self._interrupt(said.unique):
                self._interrupts.append((said.unique, time.monotonic() + INTERRUPT_PATIENCE))
        else:
            self._counts["unexpected"] += 1
            log.warning("opcode %d came by /dev/fuse: answered EIO", said.header.opcode)
            self._answer_init(said.header.unique, errno.EIO, b"")

    def _forget(self, pairs: list[tuple[int, int]]) -> None:
        pairs = self._forgets + pairs
        self._forgets = []
        if self.policy is HandlePolicy.SINGLE:
            self._tell_forgets(self.workers[0], pairs)
            return
        done, gone = self.nodes.forget_batch(b"".join([PAIR.pack(node, count) for node, count in pairs]))
        self._forgets = pairs[done:]
        self._tell_departed(gone)

    def _tell_departed(self, gone: list[tuple[NodeId, int]]) -> None:
        """Tells the workers that watch these nodes (bit n % 64 for worker n)."""
        for worker in self.workers:
            bit = 1 << worker.index % 64
            nodes = [(int(node), 0) for node, watchers in gone if watchers & bit]
            if nodes:
                self._tell_forgets(worker, nodes)

    def _tell_forgets(self, worker: WorkerProcess, nodes: list[tuple[int, int]]) -> None:
        if worker.state is State.DEAD:
            return  # its successor has none of what they were about
        for at in range(0, len(nodes), messages.MAX_FORGETS):
            worker.outbox.send(messages.Forget(nodes[at : at + messages.MAX_FORGETS]))

    def _interrupt(self, unique: int) -> bool:
        """Tells the worker that has the request; False if no entry has it (yet)."""
        index = lib.rm_find_unique(self.arena.c, unique)
        if index < 0:
            return False
        self.arena.c.journal[index].interrupted = unique
        worker = self.workers[self._owners[index]]
        if worker.state is not State.DEAD:
            worker.outbox.send(messages.Interrupt(index, unique))
            if self.description.interrupt_sync:
                worker.kill(INTERRUPT_SIGNAL)
        return True

    def _retry_interrupts(self) -> None:
        now = time.monotonic()
        self._interrupts = [
            (unique, until) for unique, until in self._interrupts if until > now and not self._interrupt(unique)
        ]

    def _connection_ended(self) -> None:
        """Unmounted, by us or from outside, or aborted."""
        if self._device_watch is not None:  # it would be readable to no end
            self._selector.unregister(self._device_watch)
            if isinstance(self._device_watch, select.epoll):
                self._device_watch.close()
            self._device_watch = None
        if not self._stopping:
            log.info("the mount was taken away")
            self._stop_requested += 1

    # --- stop ---------------------------------------------------------------------------------------------------

    def _shut_down(self) -> None:
        self._stopping = True
        self._restarts.clear()
        signals = self._stop_requested
        if self.fuse_fd >= 0:
            self._unmount(signals)
        self._end_workers(signals)
        for pid, (pidfd, _) in list(self._helpers.items()):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            self._helper_ended(pid)
        if self.fuse_fd >= 0:
            self._end_writer()
            if isinstance(self._device_watch, select.epoll):
                self._device_watch.close()
            for clone in self._clones.values():
                os.close(clone)
            os.close(self.fuse_fd)
            self._unmount_the_dead()

    def _unmount_the_dead(self) -> None:
        """Takes away what an impatient user left mounted. Its connection has ended: this cannot block."""
        try:
            if self._connection is not None and mounting.unmount(self.config.mountpoint, connection=self._connection):
                log.info("unmounted %s", self.config.mountpoint)
        except Failure as failure:
            log.error("%s", failure)

    def _unmount(self, signals: int) -> None:
        """Takes the mount out of the tree, by a child: it may have to write back what the workers must answer."""
        path, connection = self.config.mountpoint, self._connection

        def unmount() -> int:
            try:
                mounting.unmount(path, connection=connection)
            except Failure as failure:
                log.error("%s", failure)
                return 1
            return 0

        self._run_helper(unmount, 10 * STOP_PATIENCE)
        (helper,) = list(self._helpers)[-1:]
        while helper in self._helpers and self._stop_requested <= signals:
            self._turn(1.0)

    def _end_workers(self, signals: int) -> None:
        """Lets them answer what is in flight and exit; what does not is killed."""
        deadline = time.monotonic() + STOP_PATIENCE
        told = killed = False
        while self._processes():
            left = deadline - time.monotonic()
            if left <= 0 or self._stop_requested > signals:
                for worker in self._processes():
                    log.warning("worker %d does not end: killing it", worker.index)
                    worker.kill()
                if killed and self._connection is not None:  # it waits for an answer of its own mount
                    with contextlib.suppress(Failure):
                        mounting.abort_connection(self._connection)
                killed = True
                deadline = time.monotonic() + STOP_PATIENCE
                self._turn(1.0)
                continue
            if not told:
                told = True
                for worker in self._processes():
                    if worker.state is State.STARTING:  # still making its filesystem: it has nothing to answer
                        worker.kill()
                    else:
                        worker.outbox.send(messages.Stop())
            self._turn(left)

    # --- status -------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What `ringmount status` shows."""
        workers = []
        for worker in self.workers:
            record = self.arena.worker(worker.index)
            workers.append(
                {
                    "index": worker.index,
                    "cpu": worker.cpu,
                    "pid": worker.pid if worker.state is not State.DEAD else None,
                    "state": worker.state.value,
                    "requests": record.requests,
                    "errors": record.errors,
                    "bytes_read": record.bytes_read,
                    "bytes_written": record.bytes_written,
                    "deaths": record.deaths,
                    "rescued": record.rescued,
                    "retried": record.retried,
                    "lost": record.lost,
                    "in_flight": self._in_flight(worker.index),
                }
            )
        return {
            "name": self.config.name,
            "mountpoint": self.config.mountpoint,
            "filesystem": self.config.filesystem,
            "ready": self._ready and not self._stopping,
            "pid": os.getpid(),
            "since": self.started_at,
            "transport": self.transport,
            "transport_reason": self.transport_reason,
            "protocol": None if self.session is None else f"7.{self.session.minor}",
            "queues": self.machine.possible,
            "queue_depth": self.config.queue_depth,
            "buffer_bytes": self.plan.buffer_bytes,
            "nodes": self.nodes.stats().live if self.policy is not HandlePolicy.SINGLE else None,
            "workers": workers,
            "spare": self.spare.pid if self.spare.state is State.PREPARED else None,
            "counts": dict(self._counts),
        }

    def _in_flight(self, worker: int) -> int:
        journal = self.arena.c.journal
        return sum(1 for i in self.arena.entries_of(worker) if journal[i].state in (lib.RM_DELIVERED, lib.RM_STARTED))


def _statfs_on(cpu: int, mountpoint: str) -> int:
    """One request on a CPU's queue, from a throw-away process."""
    os.sched_setaffinity(0, {cpu})
    with contextlib.suppress(OSError):
        os.statvfs(mountpoint)
    return 0
