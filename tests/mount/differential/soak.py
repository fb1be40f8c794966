"""Walks that hypothesis chooses, for RINGMOUNT_SOAK seconds a group: `make soak-differential`.

Not collected by itself: hypothesis finds new walks each time. It makes a failing one short and prints it as a case for
test_cases.py.
"""

import os
import time
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from mount.differential import mounts, values
from mount.differential.calls import ROWS, USERS, Row
from mount.differential.walk import Walk, Worlds

SECONDS = float(os.environ.get("RINGMOUNT_SOAK", "60"))
AT_A_TIME = 20
"""Walks between two looks at the clock."""

RANDOM = settings(
    max_examples=AT_A_TIME,
    stateful_step_count=60,
    phases=[Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    derandomize=False,
    deadline=None,
)


class Calls(RuleBasedStateMachine):
    """A rule for every row of `calls`; below."""

    worlds: ClassVar[Worlds]

    def __init__(self) -> None:
        super().__init__()
        self.walk = Walk(self.worlds)
        self.has_failed = False

    @initialize(user=st.sampled_from(USERS), append=st.booleans())
    def begin(self, user: str, append: bool) -> None:
        """One file is open from the beginning, whatever calls are chosen."""
        self.attempt(self.walk.begin)
        flags = os.O_RDWR | (os.O_APPEND if append else 0)
        self.attempt(self.walk.step, user, ROWS[0], [values.New(False), b"a/x", flags, 0])

    def attempt(self, action: Callable[..., object], *arguments: object) -> None:
        try:
            with self.walk.noted():
                action(*arguments)
        except BaseException:
            self.has_failed = True
            raise

    def teardown(self) -> None:
        if not self.has_failed:
            self.attempt(self.walk.end)


def _rule(row: Row) -> Any:
    def call(self: Calls, user: str, **drawn: object) -> None:
        if user in self.worlds.users:
            self.attempt(self.walk.step, user, row, list(drawn.values()))

    call.__name__ = row.label
    arguments: dict[str, Any] = {f"argument{n}": st.sampled_from(kind.choices) for n, kind in enumerate(row.kinds)}
    made: Any = rule(user=st.sampled_from(USERS), **arguments)
    return made(call)


RULES = {f"{row.label}_{n}" if n else row.label: _rule(row) for row in ROWS for n in range((row.weight + 1) // 2)}


@pytest.mark.timeout(0)
@pytest.mark.parametrize("group", mounts.chosen(mounts.SOAKED))
def test_random_calls_agree(group: str) -> None:
    deadline = time.monotonic() + SECONDS
    with mounts.worlds(mounts.SOAKED[group], patience=SECONDS * 10 + 1000) as worlds:
        machine = type("Machine", (Calls,), {"worlds": worlds, **RULES})
        while time.monotonic() < deadline:
            run_state_machine_as_test(machine, settings=RANDOM)
