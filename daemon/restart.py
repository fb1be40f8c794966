"""When to start a worker again after it died: a plain function of what happened, without clock or processes."""

from collections.abc import Sequence
from dataclasses import dataclass

WINDOW = 60.0
"""Seconds over which deaths count."""
FREE = 3
"""Deaths in the window that cost no delay: whoever waits for an answer should not wait longer."""
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


def after_death(deaths: Sequence[float], now: float, permanent: str | None) -> Restart | GiveUp:
    """What to do about a worker whose deaths were at these times (seconds, the last one included).

    `permanent`: why another try would fail too, as the worker said; None if it said nothing of the kind.
    The delay doubles with each death in the window after the first few.
    """
    if permanent is not None:
        return GiveUp(permanent)
    recent = sum(1 for at in deaths if now - at < WINDOW)
    if recent <= FREE:
        return Restart(0.0)
    return Restart(min(MAX_DELAY, FIRST_DELAY * 2.0 ** (recent - FREE - 1)))
