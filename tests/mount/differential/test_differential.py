"""The same calls on mounts and on a native folder have the same results.

The walks follow from fixed seeds, so that each run makes the same calls, whatever version of hypothesis is there.
Others are for the soak to find: soak.py, `make soak-differential`.
"""

import pytest
from mount.differential.walk import Worlds, wander

LENGTH = 120
"""Calls of a walk."""


@pytest.mark.ring
@pytest.mark.parametrize("seed", range(8))
def test_the_same_calls_have_the_same_results(worlds: Worlds, seed: int) -> None:
    wander(worlds, seed, LENGTH)
