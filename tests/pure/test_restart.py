"""When a worker that died is started again."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ringmount.daemon.restart import (
    FIRST_DELAY,
    FREE,
    MAX_DELAY,
    MOST,
    MOST_HOPELESS,
    WINDOW,
    GiveUp,
    Restart,
    after_death,
)

NOW = 1000.0


def delay(deaths: int, age: float = 0.0) -> float:
    """The delay after so many deaths, all of this age but the last, which is now."""
    decision = after_death([*[NOW - age] * (deaths - 1), NOW], NOW)
    assert isinstance(decision, Restart)
    return decision.delay


def test_the_first_deaths_cost_no_delay() -> None:
    assert [delay(deaths) for deaths in range(1, FREE + 1)] == [0.0] * FREE


def test_the_delay_doubles_from_then_on_up_to_a_limit() -> None:
    delays = [delay(deaths) for deaths in range(FREE + 1, MOST)]
    assert delays[0] == FIRST_DELAY
    assert all(later in (2 * earlier, MAX_DELAY) for earlier, later in pairwise(delays))
    assert delays[-1] == MAX_DELAY


def test_deaths_of_long_ago_do_not_count() -> None:
    assert delay(MOST - 1, age=WINDOW) == 0.0
    assert delay(MOST - 1, age=WINDOW - 1) == MAX_DELAY


def test_what_would_fail_the_same_way_is_tried_a_few_times_only() -> None:
    tries = [after_death([NOW] * deaths, NOW, "no such module", is_hopeless=True) for deaths in range(1, MOST)]
    assert all(isinstance(each, Restart) and 0 < each.delay <= MAX_DELAY for each in tries[: MOST_HOPELESS - 1])
    assert set(tries[MOST_HOPELESS - 1 :]) == {GiveUp("no such module")}


def test_a_worker_that_never_comes_to_serve_is_given_up_in_the_end() -> None:
    assert isinstance(after_death([NOW] * (MOST - 1), NOW), Restart)
    decision = after_death([NOW] * MOST, NOW, "SIGSEGV")
    assert isinstance(decision, GiveUp)
    assert "SIGSEGV" in decision.reason


def test_a_worker_that_had_served_is_started_at_once_whatever_was_before() -> None:
    assert after_death([], NOW) == Restart(0.0)


@given(st.lists(st.floats(0, NOW), max_size=MOST - 2))
def test_no_history_delays_beyond_the_limit(deaths: list[float]) -> None:
    decision = after_death(sorted([*deaths, NOW]), NOW)
    assert isinstance(decision, Restart)
    assert 0 <= decision.delay <= MAX_DELAY
