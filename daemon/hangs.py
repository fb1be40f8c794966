"""When a request has been with its worker for too long, and what is done about it: a plain function of times."""

from enum import Enum

GRACE = 2.0
"""Seconds that a worker has to die of its own after it was asked to; a stopped process never does."""
CHECKS = 10
"""Looks within one request timeout."""
SHORTEST_INTERVAL = 0.1


class Step(Enum):
    """What to do about a worker."""

    NOTHING = "nothing"
    REPLACE = "replace"
    """Have it print its stacks and die: its spare goes on."""
    KILL = "kill"
    """It did not: end it."""


def interval(timeout: float) -> float:
    """Seconds between two looks."""
    return max(SHORTEST_INTERVAL, timeout / CHECKS)


def step(age: float | None, timeout: float, asked: float | None, now: float) -> Step:
    """`age`: seconds since the worker's oldest request came (None: it has none); `asked`: when it was asked to die."""
    if asked is not None:
        return Step.KILL if now - asked > GRACE else Step.NOTHING
    return Step.REPLACE if age is not None and timeout and age > timeout else Step.NOTHING
