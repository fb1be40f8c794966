"""The crew of a mount: its workers and the spare. How they are started, what becomes of them, who follows a dead one.

The rule a change must keep: a worker's death is seen to in one order. Its last words are heard, what it kept in the
shared tables is put right, and only then does its successor start.
"""

import gc
import logging
import signal
import time
from collections.abc import Callable

import msgspec

from ringmount.config.model import LogLevel
from ringmount.daemon import machine, restart
from ringmount.daemon.children import IS_SERVING, State, WorkerProcess, close_private_fds
from ringmount.daemon.connection import Connection
from ringmount.daemon.errands import Errands, statfs_on
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.loop import Loop
from ringmount.daemon.mount import Mount, Phase
from ringmount.workers import death, events, messages
from ringmount.workers.api import HandlePolicy
from ringmount.workers.worker import EXIT_TRANSPORT, INTERRUPT_SIGNAL, SPARE

log = logging.getLogger(__name__)

PREPARE_PATIENCE = 60.0
"""Seconds that the workers may take to import and make their filesystems."""
SERVE_PATIENCE = 30.0
"""Seconds that the transport may take to come up."""
NUDGE_PATIENCE = 5.0
LEAVE_PATIENCE = 2.0
"""Seconds to die when the supervisor is replaced."""
SPARE_DELAY = 0.05
"""Seconds before a spare is made: whoever waits for an answer comes first."""
SPARE_PATIENCE = restart.WINDOW
"""Seconds before another is tried where they do not come up: workers that die are started without one meanwhile."""
OUTBOX_INTERVAL = 0.01
MESSAGES_PER_TURN = 64


class Interrupted(Exception):
    """Stopped by a signal before the mount served."""


class Crew:
    """The workers of `mount`, started by `start`. What it finds out is told to the supervisor by the `on_...` calls."""

    def __init__(self, mount: Mount, loop: Loop, connection: Connection, errands: Errands) -> None:
        self._mount = mount
        self._loop = loop
        self._connection = connection
        self._errands = errands
        single = mount.policy is HandlePolicy.SINGLE
        self.workers = [WorkerProcess(index, None if single else cpu) for index, cpu in enumerate(mount.worker_cpus)]
        self.spare = WorkerProcess(SPARE, None)
        """A worker that has imported the filesystem and waits to take a dead one's place."""
        self.watch_group = -1
        """See `ringmount.daemon.coherence.Coherence.group`."""
        self._restarts: list[tuple[float, WorkerProcess]] = []
        self.deaths = 0
        """Of workers, so far."""
        self._waiting: list[WorkerProcess] = []
        """Dead ones who get the next spare."""
        self.on_message: Callable[[WorkerProcess, messages.ToSupervisor], None]
        """A worker said something that is not about itself."""
        self.on_failure: Callable[[Failure], None]
        """A worker cannot be replaced: the mount cannot go on."""
        self.on_end: Callable[[], None]
        """A worker found that the connection has ended."""
        self.was_stopped: Callable[[], bool]
        """Whether to go on waiting for the workers."""
        loop.duties.append(self._send_mail)
        loop.duties.append(self._restart)

    def processes(self) -> list[WorkerProcess]:
        """The workers, and the spare, that have a process."""
        return [worker for worker in (*self.workers, self.spare) if worker.state is not State.DEAD]

    # --- start ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the workers and waits until their filesystems are made. Raises Failure, Interrupted."""
        gc.collect()
        gc.freeze()  # a collection in a child would copy every page that it shares with this process
        for worker in self.workers:
            self._start(worker)
        self._await(State.PREPARED, PREPARE_PATIENCE, "preparing the filesystem")

    def serve(self) -> None:
        """Tells them to serve, and waits until they do. Raises Failure, Interrupted."""
        for worker in self.workers:
            self._tell_to_serve(worker)
        self._await(State.SERVING, SERVE_PATIENCE, f"setting up {self._connection.transport}")

    def nudge_all(self) -> None:
        """What waited while nobody served is handed out."""
        for worker in self.workers:
            self.nudge(worker)

    def end(self) -> None:
        """Kills them and waits for that."""
        for worker in self.workers:
            worker.kill()
        while any(worker.state is not State.DEAD for worker in self.workers):
            self._loop.turn(1.0)

    def have_spare(self) -> None:
        """The mount serves: there shall be a spare."""
        self._restarts.append((0.0, self.spare))

    def leave(self) -> None:
        """Has all workers die by exec, which loses no request, and waits for that. Those that cannot are killed."""
        for worker in self.processes():
            worker.kill(death.PARENT_DIED)
        until = time.monotonic() + LEAVE_PATIENCE
        while self.processes():
            left = until - time.monotonic()
            if left <= 0:
                for worker in self.processes():
                    log.warning("%s does not die: killing it", worker.name, extra=worker.about())
                    worker.kill()
                left = LEAVE_PATIENCE
            self._loop.turn(left)

    def start_no_more(self) -> None:
        """The mount is being stopped."""
        self._restarts.clear()
        self._waiting.clear()

    def _start(self, worker: WorkerProcess) -> None:
        mount = self._mount
        shared = mount.policy is HandlePolicy.SHARED
        try:
            worker.start(mount.config, mount.search, len(self.workers), mount.arena, shared, self.watch_group)
        except OSError as error:
            raise Failure(f"cannot start a worker: {error.strerror}", code=ExitCode.RESOURCES) from error
        self._watch(worker)

    def _watch(self, worker: WorkerProcess) -> None:
        self._loop.watch(worker.channel, lambda: self._hear(worker))
        self._loop.watch(worker.pidfd, lambda: self._died(worker))

    def _unwatch(self, worker: WorkerProcess) -> None:
        self._loop.unwatch(worker.channel)
        self._loop.unwatch(worker.pidfd)

    def _await(self, state: State, patience: float, what: str) -> None:
        """Turns the loop until all workers are there. Raises Failure for the first one that failed, Interrupted."""
        deadline = time.monotonic() + patience
        while any(worker.state is not state for worker in self.workers):
            for worker in self.workers:
                if worker.failure is not None:
                    raise _failure_of(worker.failure)
                if worker.state is State.DEAD:
                    raise Failure(f"worker {worker.index} died while {what}", code=ExitCode.FILESYSTEM)
            if self.was_stopped():
                raise Interrupted
            left = deadline - time.monotonic()
            if left <= 0:
                late = [str(worker.index) for worker in self.workers if worker.state is not state]
                raise Failure(
                    f"{what} took more than {patience:.0f} s in worker {', '.join(late)}", code=ExitCode.FILESYSTEM
                )
            self._loop.turn(left)

    def _tell_to_serve(self, worker: WorkerProcess) -> None:
        word, fd = self._connection.word_for(worker.index)
        worker.outbox.send(word, [fd])

    # --- mail -------------------------------------------------------------------------------------------------------

    def _send_mail(self, now: float) -> float | None:
        waits = [worker for worker in self.processes() if not worker.outbox.flush()]
        return now + OUTBOX_INTERVAL if waits else None

    def _hear(self, worker: WorkerProcess) -> bool:
        """What a worker says; True if there may be more. Nothing it says can stop the supervisor."""
        for _ in range(MESSAGES_PER_TURN):
            try:
                message = worker.receive()
            except msgspec.DecodeError as error:
                log.error("%s said what is no message: %s", worker.name, error, extra=worker.about())
                continue
            if message is None:
                return False
            self._act_on(worker, message)
            if worker.state is State.DEAD:  # a spare that was promoted: what comes next is said by its new self
                return False
        return True

    def _act_on(self, worker: WorkerProcess, message: messages.ToSupervisor) -> None:
        if isinstance(message, messages.Prepared):
            worker.state = State.PREPARED
            if worker is self.spare:
                if self._waiting and self._mount.is_ready:
                    self._promote_spare(self._waiting.pop(0))
            elif self._mount.is_ready:
                self._tell_to_serve(worker)
        elif isinstance(message, messages.Serving):
            worker.state = State.SERVING
            if worker is not self.spare:
                self._mount.arena.worker(worker.index).state = IS_SERVING
            worker.began = time.monotonic()
            worker.trouble = ""
            if self._mount.phase is not Phase.STARTING:
                extra = worker.about(events.WORKER_BACK)
                log.info("worker %d serves again (pid %d)", worker.index, worker.pid, extra=extra)
                self.nudge(worker)
        elif isinstance(message, messages.Failed):
            worker.failure = message
        elif isinstance(message, messages.Released):
            for other in self.workers:
                if other is not worker and other.state is State.SERVING:
                    other.outbox.send(message)
        else:
            self.on_message(worker, message)

    def tell_forgets(self, worker: WorkerProcess, nodes: list[tuple[int, int]]) -> None:
        """Tells a worker of nodes that are gone."""
        if worker.state is State.DEAD:
            return  # its successor has none of what they were about
        for at in range(0, len(nodes), messages.MAX_FORGETS):
            worker.outbox.send(messages.Forget(nodes[at : at + messages.MAX_FORGETS]))

    def set_log_level(self, level: LogLevel, index: int | None = None) -> None:
        """Has one worker log from this level on, and those that follow it, or all of them and the supervisor."""
        levels = self._mount.worker_log_levels
        if index is None:
            self._mount.log_level = level
            levels.clear()
            logging.getLogger().setLevel(level.upper())
        else:
            levels[index] = level
        for worker in self.workers:
            if index in (None, worker.index) and worker.state is not State.DEAD:
                worker.outbox.send(messages.LogLevel(level))

    def interrupt(self, worker: WorkerProcess, index: int, unique: int) -> None:
        """Tells a worker that the caller of the request in this entry got a signal."""
        if worker.state is State.DEAD:
            return  # its successor sees it in the journal
        worker.outbox.send(messages.Interrupt(index, unique))
        if self._mount.description.interrupt_sync:
            worker.kill(INTERRUPT_SIGNAL)

    # --- deaths -----------------------------------------------------------------------------------------------------

    def _died(self, worker: WorkerProcess) -> None:
        while self._hear(worker):  # its last words
            pass
        if worker.state is State.DEAD:  # a spare that was promoted by them: it has died as what it is by now
            return
        self._unwatch(worker)
        served = worker.state is State.SERVING
        code = worker.reap()
        if worker is self.spare:
            self._spare_died(code)
            return
        record = self._mount.arena.worker(worker.index)
        record.state = 0
        if self._mount.policy is HandlePolicy.SHARED:
            close_private_fds(self._mount.arena, worker.index)
        self._recover_tables(worker)
        if not self._mount.is_ready:
            return
        if code == 0 and record.died_of:  # by exec: see ringmount.workers.death
            code = -record.died_of
        else:
            record.died_of, record.died_from_outside = max(0, -code), 0
        if record.died_of == death.REPLACE:  # its successor wants to know whether for a request that hung
            record.died_from_outside = worker.asked_to_die is None
        if code == 0 and self._connection.has_ended():
            self.on_end()
            return
        now = time.monotonic()
        record.deaths += 1
        self.deaths += 1
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        extra = worker.about(events.WORKER_DIED)
        log.error("worker %d (pid %d) died: %s", worker.index, worker.pid, how, extra=extra)
        if worker.failure is not None:
            how = worker.failure.message
        worker.early_deaths = [] if served else [*worker.early_deaths, now]
        is_hopeless = worker.failure is not None and worker.failure.is_hopeless
        decision = restart.after_death(worker.early_deaths, now, how, is_hopeless=is_hopeless)
        if isinstance(decision, restart.GiveUp):
            what = ExitCode.UNAVAILABLE if code == EXIT_TRANSPORT else ExitCode.FILESYSTEM
            self.on_failure(Failure(f"worker {worker.index} cannot serve: {decision.reason}", code=what))
            return
        worker.trouble = "" if served else how
        if decision.delay:
            self._restarts.append((now + decision.delay, worker))
        else:
            self._replace(worker)

    def _replace(self, worker: WorkerProcess) -> None:
        """Has the spare take a dead worker's place, which may still be on its way."""
        if self.spare.state is State.PREPARED:
            self._promote_spare(worker)
        elif self.spare.state is State.STARTING:
            self._waiting.append(worker)
        else:
            self._restarts.append((time.monotonic(), worker))

    def _recover_tables(self, worker: WorkerProcess) -> None:
        """Puts right what the worker was in the middle of in the tables that all share."""
        try:
            self._mount.nodes.recover(worker.pid)
            self._mount.opens.recover(worker.pid)
            self._mount.handles.sweep(worker.index)
        except OSError as error:  # a stopped process holds a lock: whoever takes it next sees to it
            extra = worker.about(errno=error.errno)
            what = "what worker %d held in the shared tables is put right later: %s"
            log.warning(what, worker.index, error.strerror, extra=extra)

    def _promote_spare(self, worker: WorkerProcess) -> None:
        """The spare takes the dead worker's place; another is made once that is under way."""
        self._unwatch(self.spare)
        worker.replace_by(self.spare, self._mount.arena)
        self._watch(worker)
        self._tell_to_serve(worker)
        self._restarts.append((time.monotonic() + SPARE_DELAY, self.spare))

    def _spare_died(self, code: int) -> None:
        if self._mount.phase is Phase.STOPPING:
            return
        now = time.monotonic()
        for worker in self._waiting:
            self._restarts.append((now, worker))
        self._waiting.clear()
        self.spare.early_deaths = [*self.spare.early_deaths[-restart.MOST :], now]
        failed = self.spare.failure
        how = f"exit code {code}" if failed is None else failed.message
        decision = restart.after_death(
            self.spare.early_deaths, now, how, is_hopeless=bool(failed and failed.is_hopeless)
        )
        if isinstance(decision, restart.GiveUp):
            log.error("no spare worker, another try in %.0f s: %s", SPARE_PATIENCE, decision.reason)
            self._restarts.append((now + SPARE_PATIENCE, self.spare))
        else:
            self._restarts.append((now + max(SPARE_DELAY, decision.delay), self.spare))

    def _restart(self, now: float) -> float | None:
        """Starts processes in dead ones' places. A shortage may pass: the mount goes on."""
        if self._mount.is_ready:
            due = [*self._waiting, *(worker for _, worker in self._restarts)]
            for worker in self.workers:
                if worker.state is State.DEAD and worker not in due:  # an error came in between: see Loop.is_tolerant
                    self._restarts.append((now, worker))
        for at, worker in [due for due in self._restarts if due[0] <= now]:
            self._restarts.remove((at, worker))
            try:
                self._start(worker)
            except Failure as failure:
                log.error("%s; trying again", failure, extra=worker.about())
                self._restarts.append((now + restart.MAX_DELAY, worker))
        return min((at for at, _ in self._restarts), default=None)

    def nudge(self, worker: WorkerProcess) -> None:
        """Makes the kernel hand out what waited while the worker's queues had no entry.

        A fresh REGISTER does not dispatch waiting requests; the next request of that queue does, so a child issues one
        on each of its CPUs. statfs is never cached.
        """
        if self._connection.transport != "io_uring":
            return
        for cpu in self._mount.cpus.online:
            if machine.owner_of(cpu, self._mount.worker_cpus) == worker.index:
                self._mount.counts["nudges"] += 1
                self._errands.run(statfs_on(cpu, self._mount.config.mountpoint), NUDGE_PATIENCE)


def _failure_of(failed: messages.Failed) -> Failure:
    code = ExitCode.FILESYSTEM if failed.what == "filesystem" else ExitCode.UNAVAILABLE
    return Failure(failed.message, code=code)
