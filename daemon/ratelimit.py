"""Messages that are all alike are logged so many times in a while, and then counted: plain functions of times.

Alike are those of one call with one kind of exception from one place; others have a count of their own.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from enum import Enum

BURST = 20
INTERVAL = 30.0
MOST_KINDS = 1000
"""Kinds that are counted at a time. Others go through meanwhile."""


class Verdict(Enum):
    """What becomes of a message."""

    LOG = "log"
    LOG_LAST = "log last"
    """It is logged, and those like it are not, until the interval ends."""
    LEAVE_OUT = "leave out"


@dataclass
class Window:
    """Messages of one kind since `began`. `last` is the last one that was left out."""

    began: float
    count: int = 0
    left_out: int = 0
    last: object = None


class Limiter:
    """One process's counts. `burst` messages of a kind are logged within `interval` seconds."""

    def __init__(self, burst: int = BURST, interval: float = INTERVAL) -> None:
        self.burst = burst
        self.interval = interval
        self._windows: dict[Hashable, Window] = {}

    def admit(self, kind: Hashable, message: object, now: float) -> Verdict:
        """What becomes of this message. Call `over` first."""
        window = self._windows.get(kind)
        if window is None:
            if len(self._windows) >= MOST_KINDS:
                return Verdict.LOG
            window = self._windows[kind] = Window(now)
        window.count += 1
        if window.count > self.burst:
            window.left_out += 1
            window.last = message
            return Verdict.LEAVE_OUT
        return Verdict.LOG_LAST if window.count == self.burst else Verdict.LOG

    def over(self, now: float) -> Iterator[Window]:
        """The windows that have ended (with `now` infinite, all) and left something out; their kinds begin anew."""
        for kind, window in list(self._windows.items()):
            if now - window.began >= self.interval:
                del self._windows[kind]
                if window.left_out:
                    yield window

    def next_end(self) -> float | None:
        """When the first window ends that has left something out."""
        ends = (window.began + self.interval for window in self._windows.values() if window.left_out)
        return min(ends, default=None)
