"""Draining: the mount is taken out of the tree, and ends by itself when nobody uses it any more.

The kernel ends a detached mount's connection with the last open file, mapping and working directory on it, so that
there is nothing to count. Until then it is served as ever, and workers that die are replaced.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from ringmount.daemon import asked, holders
from ringmount.daemon.connection import Connection
from ringmount.daemon.control import LATER, Client
from ringmount.daemon.errands import Errands, unmounting
from ringmount.daemon.fdstore import ServiceManager
from ringmount.daemon.loop import Loop
from ringmount.daemon.mount import Mount

log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds for taking the mount out of the tree."""
INTERVAL = 0.02


class Drain:
    """One mount's, begun when it is first asked for."""

    def __init__(
        self, mount: Mount, loop: Loop, connection: Connection, errands: Errands, manager: ServiceManager
    ) -> None:
        self._mount = mount
        self._connection = connection
        self._errands = errands
        self._manager = manager
        self._errand = 0
        self._waiting: list[Client] = []
        self._mounts: set[int] = set()
        """As they were in the tree (mnt_id)."""
        self.on_begin: Callable[[], None]
        """It is draining from now on."""
        loop.duties.append(self._look)

    def drain(self, question: asked.Drain, client: Client) -> Any:
        """The command. Answered when the mount is out of the tree, or is found to be still in it."""
        if not self._mount.is_ready:
            client.refuse("it is being stopped")
            return LATER
        if self._errand not in self._errands:
            self._begin()
        self._waiting.append(client)
        return LATER

    def _begin(self) -> None:
        path, number = self._mount.config.mountpoint, self._connection.number
        if number is not None:
            self._mounts |= holders.mount_ids(number)

        self._errand = self._errands.run(unmounting(path, number), PATIENCE)
        if self._mount.draining is None:
            self._mount.draining = time.time()
            log.info("draining: %s is taken out of the tree, the mount ends when nobody uses it any more", path)
            self._manager.say("STATUS=draining")
            self.on_begin()

    def _look(self, now: float) -> float | None:
        if not self._waiting or self._errand in self._errands:
            return now + INTERVAL if self._waiting else None
        for client in self._waiting:
            client.answer(
                {
                    "since": self._mount.draining,
                    "mounts": sorted(self._mounts),
                    "connection": self._connection.number,
                }
            )
        self._waiting.clear()
        return None
