"""The supervisor: makes a mount, keeps its workers alive, reads the legacy path, takes it all down again.

It owns the /dev/fuse descriptor and the arena. It never imports a filesystem, never touches its own mountpoint (a
child does where somebody must), has one thread, and does nothing that may block once the mount serves.

Start: workers prepare their filesystems - mount(2) - INIT - "serve" to the workers - all of them serve. What fails
before mount(2) leaves nothing; what fails after it is unmounted. Stop: unmount in a child, let the workers answer
what is in flight, then end whatever is left.
"""

import logging
import signal
from collections.abc import Callable
from typing import Any

from ringmount.config.model import MountConfig
from ringmount.daemon import inflight, machine, places
from ringmount.daemon.children import WorkerProcess
from ringmount.daemon.coherence import Coherence
from ringmount.daemon.connection import Connection
from ringmount.daemon.control import ControlServer
from ringmount.daemon.crew import Crew, Interrupted
from ringmount.daemon.device import LegacyPath
from ringmount.daemon.errands import Errands
from ringmount.daemon.exitcodes import Failure
from ringmount.daemon.loop import Loop
from ringmount.daemon.machine import Cpus
from ringmount.daemon.mount import Mount, Phase
from ringmount.daemon.report import Report
from ringmount.daemon.stop import Stop
from ringmount.daemon.watch import Watch
from ringmount.workers import messages
from ringmount.workers.api import NodeId
from ringmount.workers.messages import Description

log = logging.getLogger(__name__)

CONTROL_INTERVAL = 1.0


class Supervisor:
    """One mount. `serve` runs it until it is stopped."""

    def __init__(self, config: MountConfig, search: str | None, description: Description, cpus: Cpus) -> None:
        self.mount = Mount(config, search, description, cpus)
        self.loop = Loop()
        self.errands = Errands(self.loop)
        self.connection = Connection(self.mount, self.loop)
        self.crew = Crew(self.mount, self.loop, self.connection, self.errands)
        self.legacy = LegacyPath(self.mount, self.loop, self.connection, self.crew, self._connection_ended)
        self.watch = Watch(self.mount, self.loop, self.crew)
        self.coherence = Coherence(self.mount, self.loop, self.connection)
        self.control: ControlServer
        self.on_ready: Callable[[Supervisor], None] = lambda supervisor: None
        self._stop_requested = 0
        self._exit: Failure | None = None
        self.crew.on_message = self._heard
        self.crew.on_failure = self._stop_with
        self.crew.on_end = self.legacy.ended
        self.crew.was_stopped = lambda: self._stop_requested > 0

    def serve(self) -> None:
        """Mounts, serves until stopped, unmounts. Raises Failure; then nothing is left mounted or running."""
        places.make_runtime_folder()
        self.connection.choose_transport()
        machine.raise_descriptor_limit()
        commands: dict[str, Callable[[], Any]] = {
            "status": Report(self.mount, self.connection, self.crew, self.coherence),
            "requests": lambda: inflight.requests(self.mount.arena),
        }
        self.control = ControlServer(places.socket_path(self.mount.config.name), self.loop.selector, commands)
        self.loop.duties.append(self._expire_clients)
        try:
            self.mount.make_arena()
            with self.loop.signals(self._on_signal, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                try:
                    self._start()
                    while not self._stop_requested:
                        self.loop.turn()
                except Interrupted:
                    pass
                finally:
                    self._shut_down()
        finally:
            self.control.close()
        if self._exit is not None:
            raise self._exit

    def _start(self) -> None:
        self.coherence.prepare()
        self.crew.watch_group = self.coherence.group
        self.crew.start()
        self.connection.make()
        self.coherence.start()
        self._bring_up()
        self.legacy.watch()
        self.mount.phase = Phase.READY
        self.crew.have_spare()
        self.on_ready(self)

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
        self.crew.start_no_more()
        path, signals = self.mount.config.mountpoint, self._stop_requested
        stop = Stop(self.loop, self.connection, self.crew, self.errands, lambda: self._stop_requested > signals)
        was_mounted = self.connection.fd >= 0
        if was_mounted:
            stop.unmount(path)
        stop.end_workers()
        self.errands.end()
        self.coherence.end()
        if was_mounted:
            self.legacy.unwatch()
            self.connection.close()
            stop.unmount_the_dead(path)

    # --- what happens -----------------------------------------------------------------------------------------------

    def _heard(self, worker: WorkerProcess, message: messages.ToSupervisor) -> None:
        if isinstance(message, messages.Notification):
            self.mount.counts["notifications"] += 1
            self.connection.writer.put(message.data)
        elif isinstance(message, messages.Legacy):
            self.legacy.take(memoryview(message.data))
        elif isinstance(message, messages.Departed):
            self.legacy.tell_departed([(NodeId(node), watchers) for node, watchers in message.nodes])

    def _on_signal(self, number: int) -> None:
        if number != signal.SIGHUP:
            self._stop_requested += 1

    def _stop_with(self, failure: Failure) -> None:
        """The mount cannot go on."""
        if self._exit is None:
            log.error("%s", failure)
            self._exit = failure
        self._stop_requested += 1

    def _connection_ended(self) -> None:
        if self.mount.phase is not Phase.STOPPING:
            log.info("the mount was taken away")
            self._stop_requested += 1

    def _expire_clients(self, now: float) -> float | None:
        self.control.expire()
        return now + CONTROL_INTERVAL if len(self.control) else None
