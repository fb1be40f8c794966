"""How a mount is stopped: unmount by a child, let the workers answer what is in flight, end whatever is left."""

import contextlib
import logging
import time
from collections.abc import Callable

from ringmount.daemon import mounting
from ringmount.daemon.children import State
from ringmount.daemon.connection import Connection
from ringmount.daemon.crew import Crew
from ringmount.daemon.errands import Errands, unmounting
from ringmount.daemon.exitcodes import Failure
from ringmount.daemon.loop import Loop
from ringmount.workers import messages

log = logging.getLogger(__name__)

STOP_PATIENCE = 5.0
"""Seconds for requests in flight when the mount is stopped, and again for workers to exit."""


class Stop:
    """One way to the end. `is_hurried`: whether to wait no more, since the user asked again."""

    def __init__(
        self, loop: Loop, connection: Connection, crew: Crew, errands: Errands, is_hurried: Callable[[], bool]
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._crew = crew
        self._errands = errands
        self._is_hurried = is_hurried

    def unmount(self, path: str) -> None:
        """Takes the mount out of the tree, by a child: it may have to write back what the workers must answer."""
        errand = self._errands.run(unmounting(path, self._connection.number), 10 * STOP_PATIENCE)
        while errand in self._errands and not self._is_hurried():
            self._loop.turn(1.0)

    def end_workers(self) -> None:
        """Lets them answer what is in flight and exit; what does not is killed."""
        deadline = time.monotonic() + STOP_PATIENCE
        told = killed = False
        while self._crew.processes():
            left = deadline - time.monotonic()
            if left <= 0 or self._is_hurried():
                for worker in self._crew.processes():
                    log.warning("%s does not end: killing it", worker.name, extra=worker.about())
                    worker.kill()
                if killed and self._connection.number is not None:  # it waits for an answer of its own mount
                    with contextlib.suppress(Failure):
                        mounting.abort_connection(self._connection.number)
                killed = True
                deadline = time.monotonic() + STOP_PATIENCE
                self._loop.turn(1.0)
                continue
            if not told:
                told = True
                for worker in self._crew.processes():
                    if worker.state is State.STARTING:  # still making its filesystem: it has nothing to answer
                        worker.kill()
                    else:
                        worker.outbox.send(messages.Stop())
            self._loop.turn(left)

    def unmount_the_dead(self, path: str) -> None:
        """Takes away what an impatient user left mounted. Its connection has ended: this cannot block."""
        number = self._connection.number
        try:
            if number is not None and mounting.unmount(path, connection=number):
                log.info("unmounted %s", path)
        except Failure as failure:
            log.error("%s", failure)
