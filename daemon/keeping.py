"""Descriptors of open files that outlive all processes, in the hands of whoever keeps the connection's (fdstore.py).

A file that lost its last name cannot be opened again, and a lock goes with the last descriptor of its open file. So
workers say which handles it is about (`Handles.keep`), before the request is answered that takes the name or the lock.
A successor is given these descriptors at its start, and each handle gets its own back.

The rule a change must keep: what is kept is given up when its handle has ended, because it is disk space, or a lock.
"""

import logging
import os

from ringmount.daemon.fdstore import ServiceManager
from ringmount.daemon.loop import Loop
from ringmount.daemon.mount import Mount
from ringmount.workers import messages
from ringmount.workers.api import Handle, HandlePolicy

log = logging.getLogger(__name__)

PREFIX = "file-"
"""Of the names in the store; the handle follows."""
INTERVAL = 1.0
"""Seconds between two looks, besides one at each forget: it follows the last close of a file without a name."""


class Keeping:
    """What is kept of one mount's open files. `others`: descriptors that are stored besides."""

    def __init__(self, mount: Mount, loop: Loop, manager: ServiceManager, others: int) -> None:
        self._mount = mount
        self._manager = manager
        self._most = max(0, manager.capacity - others)
        self._forgets = 0
        self._next = 0.0
        self.handles: set[Handle] = set()
        """Whose descriptors are kept."""
        loop.duties.append(self._look)

    def start(self, kept: dict[Handle, int]) -> None:
        """Once there is an arena. `kept`: by handle, the descriptor that it gets back."""
        table = self._mount.handles
        table.is_lasting = self._manager.is_there and self._mount.policy is HandlePolicy.SHARED
        for fh, fd in kept.items():
            if not table.supply(fh, fd):
                os.close(fd)
        self.handles = {handle.fh for handle in table.iterate() if handle.is_kept}.union(kept)

    def take(self, message: messages.Keep, fds: list[int]) -> None:
        """What a worker said, who waits until it is done. The descriptors stay the caller's."""
        if not fds:
            return
        event, *files = fds
        for number, fd in zip(message.handles, files, strict=False):
            fh = Handle(number)
            if not self._mount.handles.is_live(fh):
                continue
            if len(self.handles) >= self._most:
                self._refuse()
                break
            self._manager.store(f"{PREFIX}{fh}", fd)
            self.handles.add(fh)
            self._mount.handles.set_kept(fh)
        os.eventfd_write(event, 1)

    def _refuse(self) -> None:
        counts = self._mount.counts
        counts["unkept"] += 1
        if counts["unkept"] == 1:
            log.warning("%d descriptors are kept, the most there can be: others would not outlive a crash", self._most)

    def _look(self, now: float) -> float | None:
        if not self.handles:
            return None
        forgets = self._mount.counts["forgets"]
        if now >= self._next or forgets != self._forgets:
            self._next, self._forgets = now + INTERVAL, forgets
            for fh in [fh for fh in self.handles if not self._mount.handles.is_live(fh)]:
                self._give_up(fh)
        return self._next if self.handles else None

    def _give_up(self, fh: Handle) -> None:
        self.handles.discard(fh)
        self._manager.remove(f"{PREFIX}{fh}")

    def end(self) -> None:
        """Nothing is open any more."""
        for fh in list(self.handles):
            self._give_up(fh)


def handle_of(name: str) -> Handle | None:
    """The handle in a stored descriptor's name; None for another's."""
    number = name.removeprefix(PREFIX)
    return Handle(int(number)) if name.startswith(PREFIX) and number.isdigit() else None
