"""Which workers keep the supervisor from feeding systemd's watchdog."""

from ringmount.daemon import hangs, watchdog
from ringmount.daemon.children import State, WorkerProcess

NOW = 1e6


def worker(state: State, **times: float) -> WorkerProcess:
    made = WorkerProcess(0, 0)
    made.state, made.began = state, times.get("began", NOW)
    made.asked_to_die = times.get("asked_to_die")
    return made


def test_a_worker_that_serves_is_not_lost() -> None:
    assert not watchdog.is_lost(worker(State.SERVING, began=0), NOW)


def test_a_worker_that_hangs_is_the_supervisors_to_replace() -> None:
    just_killed = NOW - 2 * hangs.GRACE
    assert not watchdog.is_lost(worker(State.SERVING, asked_to_die=just_killed), NOW)


def test_a_worker_that_does_not_die_is_lost() -> None:
    assert watchdog.is_lost(worker(State.SERVING, asked_to_die=NOW - watchdog.MENDING - 1), NOW)


def test_a_worker_that_takes_its_time_to_start_is_not_lost() -> None:
    assert not watchdog.is_lost(worker(State.STARTING, began=NOW - watchdog.STARTING), NOW)
    assert watchdog.is_lost(worker(State.STARTING, began=NOW - watchdog.STARTING - watchdog.MENDING - 1), NOW)


def test_a_dead_worker_waits_to_be_started_again() -> None:
    assert not watchdog.is_lost(worker(State.DEAD, began=0, asked_to_die=0), NOW)
