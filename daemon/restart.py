"""When to start a worker again after it died: a plain function of what happened, without clock or processes."""

from collections.abc import Sequence
from dataclasses import dataclass

WINDOW = 60.0
"""Seconds over which deaths count."""
FREE = 3
"""Deaths in the window that cost no delay: whoever waits for an answer should not wait longer."""
MOST = 12
"""Deaths in the window after which it is not started again: about half a minute of tries."""
FIRST_DELAY = 0.1
MAX_DELAY = 5.0


@dataclass(frozen=True)
class Restart:
    """Start again after `delay` seconds."""

    delay: float


@dataclass(frozen=True)
class GiveUp:
    """Do not: it would fail the same way."""

    reason: str


def after_death(early: Sequence[float], now: float, permanent: str | None, how: str = "it died") -> Restart | GiveUp:
    """What to do about a worker that died `how`.

    `early`: when it died before it served (seconds; the last one included). A worker that served is started again at
    once, however often it dies: a request that kills workers is not run a third time. `permanent`: why another try
    would fail too, as the worker said; None if it said nothing of the kind. The delay doubles with each death in the
    window after the first few.
    """
    if permanent is not None:
        return GiveUp(permanent)
    recent = sum(1 for at in early if now - at < WINDOW)
    if recent >= MOST:
        return GiveUp(f"{recent} times in a row it did not come to serve: {how}")
    if recent <= FREE:
        return Restart(0.0)
    return Restart(min(MAX_DELAY, FIRST_DELAY * 2.0 ** (recent - FREE - 1)))
