"""The supervisor's loop: what is called may fail, and the mount goes on."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from ringmount.daemon import restart
from ringmount.daemon.loop import Loop


class Fault(Exception):
    """What is called fails."""


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    for name in ("FIRST_DELAY", "MAX_DELAY"):
        monkeypatch.setattr(restart, name, 0.001)
    made = Loop()
    yield made
    made.selector.close()


def failing(times: int, calls: list[int]) -> None:
    calls.append(1)
    if len(calls) <= times:
        raise Fault


def test_an_exception_ends_a_loop_that_is_not_tolerant(loop: Loop) -> None:
    loop.duties.append(lambda now: failing(1, []))
    with pytest.raises(Fault):
        loop.turn(0)


def test_what_fails_is_called_again_and_the_others_meanwhile(loop: Loop) -> None:
    faults: list[int] = []
    duty: list[int] = []
    event: list[int] = []
    others: list[int] = []
    loop.is_tolerant = True
    loop.on_fault = lambda: faults.append(1)
    loop.duties += [lambda now: failing(2, duty), lambda now: others.append(1)]
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours), contextlib.closing(theirs):
        loop.watch(ours, lambda: failing(3, event))
        theirs.send(b"x")
        for _ in range(5):
            loop.turn(0)
    assert [len(calls) for calls in (duty, event, others, faults)] == [5, 5, 5, 5]


def test_what_fails_without_end_ends_the_loop(loop: Loop) -> None:
    calls: list[int] = []
    loop.is_tolerant = True
    loop.duties.append(lambda now: failing(10**6, calls))
    for _ in range(restart.MOST - 1):
        loop.turn(0)
    with pytest.raises(Fault):
        loop.turn(0)
