"""The supervisor: makes a mount, keeps its workers alive, reads the legacy path, takes it all down again.

It owns the /dev/fuse descriptor and the arena. It never imports a filesystem, never touches its own mountpoint (a
child does where somebody must), has one thread, and does nothing that may block once the mount serves.

Start: workers prepare their filesystems - mount(2) - INIT - "serve" to the workers - all of them serve. What fails
before mount(2) leaves nothing; what fails after it is unmounted. Stop: unmount in a child, let the workers answer
what is in flight, then end whatever is left.

With a service manager that keeps descriptors (fdstore.py), a supervisor that dies, of whatever, leaves the mount to its
successor, which starts with `Inherited`: it awaits the end of the old workers - workers prepare - "serve" to them -
they take over what lies in the entries. Only an orderly stop unmounts; what fails before a successor serves leaves all
as it was, for the service manager to try again or to give up.
"""

import functools
import logging
import signal
from collections.abc import Callable
from typing import NoReturn

from ringmount.config.model import MountConfig
from ringmount.daemon import adoption, asked, inflight, kept, loglevel, machine, operations, places
from ringmount.daemon.adoption import Inherited
from ringmount.daemon.asked import Asked
from ringmount.daemon.children import WorkerProcess
from ringmount.daemon.coherence import Coherence
from ringmount.daemon.connection import Connection
from ringmount.daemon.control import Command, ControlServer, group_of
from ringmount.daemon.crew import Crew, Interrupted
from ringmount.daemon.device import LegacyPath
from ringmount.daemon.drain import Drain
from ringmount.daemon.errands import Errands
from ringmount.daemon.exitcodes import Failure
from ringmount.daemon.exporter import Exporter
from ringmount.daemon.fdstore import ServiceManager
from ringmount.daemon.insight import Insights
from ringmount.daemon.keeping import Keeping
from ringmount.daemon.kept import Kept
from ringmount.daemon.log import say_left_out
from ringmount.daemon.loop import Loop
from ringmount.daemon.machine import Cpus
from ringmount.daemon.mount import Mount, Phase
from ringmount.daemon.rates import Rates
from ringmount.daemon.reload import Reload, hand_over
from ringmount.daemon.report import Report
from ringmount.daemon.stop import Stop
from ringmount.daemon.strays import Strays
from ringmount.daemon.tracing import Tracing
from ringmount.daemon.trial import Answer
from ringmount.daemon.watch import Watch
from ringmount.daemon.watchdog import Watchdog
from ringmount.workers import events, messages
from ringmount.workers.api import HandlePolicy, NodeId
from ringmount.workers.events import about
from ringmount.workers.messages import Description

log = logging.getLogger(__name__)

CONTROL_INTERVAL = 1.0


class Supervisor:
    """One mount. `serve` runs it until it is stopped.

    `inherited`: the mount is there already, and its supervisor died. `made_mountpoint`: to be told to a successor.
    `is_handed`: others make the mount and take it away.
    """

    def __init__(
        self,
        path: str,
        config: MountConfig,
        search: str | None,
        description: Description,
        cpus: Cpus,
        manager: ServiceManager,
        inherited: Inherited | None = None,
        *,
        asked: MountConfig,
        made_mountpoint: bool = False,
        is_handed: bool = False,
    ) -> None:
        self.mount = Mount(config, search, description, cpus)
        self.loop = Loop()
        self.errands = Errands(self.loop)
        self.manager = manager
        self.connection = Connection(self.mount, self.loop, manager)
        self.crew = Crew(self.mount, self.loop, self.connection, self.errands)
        self.legacy = LegacyPath(self.mount, self.loop, self.connection, self.crew, self._connection_ended)
        self.watch = Watch(self.mount, self.loop, self.crew)
        self.watchdog = Watchdog(self.loop, self.crew, manager)
        self.strays = Strays(self.mount, self.loop, self.crew)
        self.keeping = Keeping(self.mount, self.loop, manager, others=2 + len(self.crew.workers))
        self.coherence = Coherence(self.mount, self.loop, self.connection)
        self.exporter = Exporter(self.mount, self.loop, self.connection)
        self.insights = Insights(self.mount, self.loop, self.crew)
        self.drain = Drain(self.mount, self.loop, self.connection, self.errands, manager)
        self.control: ControlServer
        self.on_ready: Callable[[Supervisor], None] = lambda supervisor: None
        self.inherited = inherited
        self._asked = asked
        self._made_mountpoint = made_mountpoint
        self._is_handed = is_handed
        self._is_kept = False
        self._reload_asked = False
        self._successor: Answer | None = None
        self.reload = Reload(path, self.mount, self.loop, self.errands, manager, self._replace)
        self._stop_requested = 0
        self._why_stopping = ""
        self._exit: Failure | None = None
        self.loop.on_fault = self._count_fault
        self.drain.on_begin = lambda: self._store(self.mount.config, self._asked)
        self.crew.on_message = self._heard
        self.crew.on_failure = self._stop_with
        self.crew.on_end = self.legacy.ended
        self.crew.was_stopped = lambda: self._stop_requested > 0

    def serve(self) -> None:
        """Mounts or takes over, serves until stopped, unmounts.

        Raises Failure: nothing is mounted or running then, but for a mount that was there before and is not yet served.
        """
        places.make_runtime_folder()
        if self.inherited is None:
            self.connection.choose_transport()
            self.connection.choose_data()
        else:  # they may still hold the name's socket, in a descriptor table that all shared
            adoption.await_old_workers(self.inherited.arena)
        machine.raise_descriptor_limit()
        rates = Rates(self.mount, self.loop)
        report = Report(self.mount, self.connection, self.crew, self.coherence, self.exporter, self.reload, rates)
        commands: dict[type[Asked], Command] = {
            asked.Status: lambda question, client: report(),
            asked.Operations: lambda question, client: operations.read(self.mount.arena),
            asked.Requests: lambda question, client: inflight.requests(self.mount.arena),
            asked.SetLogLevel: functools.partial(loglevel.answer, self.mount, self.crew),
            asked.Stacks: self.insights.stacks,
            asked.Paths: self.insights.paths,
            asked.Trace: Tracing(self.mount).trace,
            asked.Drain: self.drain.drain,
        }
        config = self.mount.config
        self.control = ControlServer(
            places.socket_path(config.name), self.loop.selector, commands, group_of(config.control_group)
        )
        self.loop.duties += [self._expire_clients, lambda now: say_left_out()]
        try:
            with self.loop.signals(self._on_signal, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                self._serve()
        finally:
            self.control.close()
        if self._exit is not None:
            raise self._exit

    def _serve(self) -> None:
        try:
            if self.inherited is None:
                self._start()
            else:
                self._take_over(self.inherited)
            self._be_ready()
            while not self._stop_requested:
                self.loop.turn()
                if self._reload_asked:
                    self._reload_asked = False
                    self.reload.begin()
                if self._successor is not None and not self._stop_requested:
                    self._hand_over(self._successor)
        except Interrupted:
            pass
        except BaseException:
            if self._has_successor():
                raise
            self._shut_down()
            raise
        self._shut_down()

    def _has_successor(self) -> bool:
        """Whether another supervisor will take the mount over from here."""
        return self.manager.is_there and (self.inherited is not None or self._is_kept)

    def _start(self) -> None:
        self.mount.make_arena()
        self.keeping.start({})
        self.coherence.prepare()
        self.crew.watch_group = self.coherence.group
        self.crew.start()
        self.connection.make()
        self.coherence.start()
        self._bring_up()

    def _take_over(self, inherited: Inherited) -> None:
        path = self.mount.config.mountpoint
        self.mount.adopt(inherited.kept, inherited.arena, inherited.is_reload)
        self.keeping.start(inherited.files)
        self.connection.adopt(inherited)
        self.coherence.prepare()
        self.crew.watch_group = self.coherence.group
        self.coherence.start(is_fresh=False)
        self.crew.start()
        self.crew.serve()
        self.crew.nudge_all()
        if inherited.is_reload:
            log.info("reloaded: %s is served with new code and settings", path, extra=about(events.RELOADED))
        else:
            log.warning("took %s over from a supervisor that died", path, extra=about(events.ADOPTED))

    def _be_ready(self) -> None:
        self._keep()
        self.legacy.watch()
        self.mount.phase = Phase.READY
        self.loop.is_tolerant = True
        self.crew.have_spare()
        self.exporter.start()
        self.on_ready(self)

    def _replace(self, answer: Answer) -> None:
        self._successor = answer

    def _hand_over(self, answer: Answer) -> NoReturn:
        """Lets another program go on in this one's place, with these settings. Raises OSError."""
        assert answer.config is not None
        assert answer.asked is not None
        if self.mount.worker_log_levels or self.mount.log_level != answer.config.log_level:
            logging.getLogger().setLevel(answer.config.log_level.upper())
            log.info("log level: %s again, as the mount's file says", answer.config.log_level)
        self.errands.end()
        self.exporter.end()
        self.coherence.end()
        self.connection.send_notifications()
        self.mount.phase = Phase.STOPPING
        self.crew.start_no_more()
        self.crew.leave()
        self.connection.end_notifier()
        self._store(answer.config, answer.asked)
        files = self.mount.files() if self.mount.policy is HandlePolicy.SHARED else []
        hand_over(self.manager, {adoption.ARENA: self.mount.arena.fd, **self.connection.descriptors()}, files)

    def _keep(self) -> None:
        """Has ready what a successor needs."""
        self._store(self.mount.config, self._asked)
        if self.inherited is None:
            self.manager.store(adoption.ARENA, self.mount.arena.fd)
            self.connection.store()
        self._is_kept = True

    def _store(self, config: MountConfig, asked: MountConfig) -> None:
        assert self.connection.session is not None
        known = Kept(
            config=config,
            asked=asked,
            description=self.mount.description,
            session=self.connection.session,
            transport=self.connection.transport,
            transport_reason=self.connection.transport_reason,
            connection=self.connection.number,
            made_mountpoint=self._made_mountpoint,
            since=self.mount.since,
            draining=self.mount.draining,
            adoptions=self.mount.adoptions,
            reloads=self.mount.reloads,
        )
        self.mount.arena.store_session(kept.encode(known))

    def _bring_up(self) -> None:
        """Tells the workers to serve; where the rings fail, gives them up and serves by /dev/fuse."""
        try:
            self.crew.serve()
        except Failure as failure:
            failed = [worker.failure.what for worker in self.crew.workers if worker.failure is not None]
            is_choosy = self.mount.config.transport == "io_uring"
            if self.connection.transport != "io_uring" or is_choosy or "filesystem" in failed:
                raise
            self.crew.end()
            self.connection.give_up_rings(str(failure))
            self.crew.start()
            self.crew.serve()

    def _shut_down(self) -> None:
        self.mount.phase = Phase.STOPPING
        self.manager.say("STOPPING=1")
        if self._why_stopping:
            log.info("stopping: %s", self._why_stopping, extra=about(events.STOPPING))
        self.crew.start_no_more()
        path, signals = self.mount.config.mountpoint, self._stop_requested
        stop = Stop(self.loop, self.connection, self.crew, self.errands, lambda: self._stop_requested > signals)
        was_mounted = self.connection.fd >= 0
        if was_mounted and not self._is_handed:
            stop.unmount(path)
        stop.end_workers()
        self.errands.end()
        self.exporter.end()
        self.coherence.end()
        if was_mounted:
            self.legacy.unwatch()
            self.connection.close()
            self.keeping.end()
            self.manager.remove(adoption.ARENA)
            if not self._is_handed:
                stop.unmount_the_dead(path)

    # --- what happens -----------------------------------------------------------------------------------------------

    def _heard(self, worker: WorkerProcess, message: messages.ToSupervisor) -> None:
        if isinstance(message, messages.Notification):
            self.mount.counts["notifications"] += 1
            self.connection.writer.put(message.data)
        elif isinstance(message, messages.Legacy):
            self.legacy.take(memoryview(message.data))
        elif isinstance(message, messages.Keep):
            self.keeping.take(message, worker.fds)
        elif isinstance(message, messages.Departed):
            self.legacy.tell_departed([(NodeId(node), watchers) for node, watchers in message.nodes])
        elif isinstance(message, messages.Explained):
            self.insights.heard(worker, message)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._reload_asked = True
        else:
            self._stop_requested += 1
            self._why_stopping = self._why_stopping or signal.Signals(number).name

    def _stop_with(self, failure: Failure) -> None:
        """The mount cannot go on."""
        if self._exit is None:
            log.error("the mount cannot go on: %s", failure)
            self._exit = failure
        self._stop_requested += 1

    def _count_fault(self) -> None:
        self.mount.counts["faults"] += 1

    def _connection_ended(self) -> None:
        if self.mount.phase is not Phase.STOPPING:
            is_drained = self.mount.draining is not None
            what = "drained, nobody uses the mount any more" if is_drained else "unmounted from outside"
            self._why_stopping = self._why_stopping or what
            self._stop_requested += 1

    def _expire_clients(self, now: float) -> float | None:
        self.control.expire()
        return now + CONTROL_INTERVAL if len(self.control) else None
