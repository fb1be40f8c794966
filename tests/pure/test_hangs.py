"""When a worker counts as hung, and what is done about it."""

import pytest

from ringmount.daemon import hangs
from ringmount.daemon.hangs import Step


@pytest.mark.parametrize(
    ("age", "timeout", "asked", "expected"),
    [
        (None, 60.0, None, Step.NOTHING),
        (59.9, 60.0, None, Step.NOTHING),
        (60.1, 60.0, None, Step.REPLACE),
        (1e9, 0.0, None, Step.NOTHING),
        (61.0, 60.0, 1000.0 - hangs.GRACE / 2, Step.NOTHING),
        (None, 60.0, 1000.0 - 2 * hangs.GRACE, Step.KILL),
    ],
)
def test_a_step_follows_from_age_and_patience(
    age: float | None, timeout: float, asked: float | None, expected: Step
) -> None:
    assert hangs.step(age, timeout, asked, now=1000.0) is expected


def test_a_long_timeout_is_looked_at_seldom_and_a_short_one_not_too_often() -> None:
    assert hangs.interval(60.0) == 60.0 / hangs.CHECKS
    assert hangs.interval(0.001) == hangs.SHORTEST_INTERVAL
