"""systemd's watchdog (WatchdogSec=): fed from the supervisor's loop, while that turns and all workers are well.

A worker that hangs is the supervisor's to replace (watch.py), and no reason to starve it: only one that should have
been replaced long ago is, which says that the supervisor is not up to its task.
"""

import logging

from ringmount.daemon import hangs
from ringmount.daemon.children import State, WorkerProcess
from ringmount.daemon.crew import PREPARE_PATIENCE, SERVE_PATIENCE, Crew
from ringmount.daemon.fdstore import ServiceManager
from ringmount.daemon.loop import Loop

MENDING = 10 * hangs.GRACE
"""Seconds for a worker to be gone that was asked to die, and killed after `hangs.GRACE`."""
STARTING = PREPARE_PATIENCE + SERVE_PATIENCE
FEEDS = 3
"""Within one WatchdogSec=."""

log = logging.getLogger(__name__)


class Watchdog:
    """Feeds, where the service manager has a watchdog for this process."""

    def __init__(self, loop: Loop, crew: Crew, manager: ServiceManager) -> None:
        self._crew = crew
        self._manager = manager
        self._next = 0.0
        self._is_starving = False
        if manager.watchdog:
            loop.duties.append(self._feed)

    def _feed(self, now: float) -> float | None:
        if now < self._next:
            return self._next
        self._next = now + self._manager.watchdog / FEEDS
        lost = [worker.index for worker in self._crew.workers if is_lost(worker, now)]
        if not lost:
            self._manager.say("WATCHDOG=1")
        elif not self._is_starving:
            log.error("worker %s cannot be replaced: the service manager is not told that all is well", lost[0])
        self._is_starving = bool(lost)
        return self._next


def is_lost(worker: WorkerProcess, now: float) -> bool:
    """Whether the worker has not been mended in the time that this takes. One that is dead waits to be started again,
    which has its own end (restart.py)."""
    if worker.state is State.DEAD:
        return False
    if worker.asked_to_die is not None and now - worker.asked_to_die > MENDING:
        return True
    return worker.state is not State.SERVING and now - worker.began > STARTING + MENDING
