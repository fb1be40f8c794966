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
MOST_HOPELESS = 4
"""The same where it said itself that another try would fail too. A module that is missing may be on its way."""
HOPELESS_DELAY = 0.25


@dataclass(frozen=True)
class Restart:
    """Start again after `delay` seconds."""

    delay: float


@dataclass(frozen=True)
class GiveUp:
    """Do not: it would fail the same way."""

    reason: str


def after_death(
    early: Sequence[float], now: float, how: str = "it died", *, is_hopeless: bool = False
) -> Restart | GiveUp:
    """What to do about a worker that died `how`.

    `early`: when it died before it served (seconds; the last one included). A worker that served is started again at
    once, however often it dies: a request that kills workers is not run a third time. `is_hopeless`: it said that
    another try would fail the same way. The delay doubles with each death in the window after the first few.
    """
    recent = sum(1 for at in early if now - at < WINDOW)
    if is_hopeless:
        return GiveUp(how) if recent >= MOST_HOPELESS else Restart(HOPELESS_DELAY * 2.0 ** max(0, recent - 1))
    if recent >= MOST:
        return GiveUp(f"{recent} times in a row it did not come to serve: {how}")
    if recent <= FREE:
        return Restart(0.0)
    return Restart(min(MAX_DELAY, FIRST_DELAY * 2.0 ** (recent - FREE - 1)))
