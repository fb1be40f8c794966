"""Messages that are alike are counted when they are too many."""

from ringmount.daemon import ratelimit
from ringmount.daemon.ratelimit import Limiter, Verdict

LOG, LAST, LEAVE_OUT = Verdict.LOG, Verdict.LOG_LAST, Verdict.LEAVE_OUT


def test_the_first_of_a_kind_are_logged_and_the_last_of_them_says_that_no_more_are() -> None:
    limiter = Limiter(burst=3, interval=10)
    assert [limiter.admit("a", n, 0.0) for n in range(5)] == [LOG, LOG, LAST, LEAVE_OUT, LEAVE_OUT]


def test_kinds_do_not_count_for_each_other() -> None:
    limiter = Limiter(burst=2, interval=10)
    assert [limiter.admit(kind, "", 0.0) for kind in "aab"] == [LOG, LAST, LOG]


def test_after_the_interval_the_number_left_out_is_told_once_and_the_count_begins_anew() -> None:
    limiter = Limiter(burst=1, interval=10)
    for n in range(4):
        limiter.admit("a", n, 5.0 + n)
    assert list(limiter.over(14.9)) == []
    (window,) = limiter.over(15.0)
    assert (window.left_out, window.last) == (3, 3)
    assert list(limiter.over(99.0)) == []
    assert limiter.admit("a", 4, 15.0) is LAST


def test_what_was_left_out_can_be_told_at_once() -> None:
    limiter = Limiter(burst=1, interval=10)
    for n in range(2):
        limiter.admit("a", n, 0.0)
    assert [window.left_out for window in limiter.over(float("inf"))] == [1]


def test_nothing_is_told_where_nothing_was_left_out() -> None:
    limiter = Limiter(burst=2, interval=10)
    for n in range(2):
        limiter.admit("a", n, 0.0)
    assert limiter.next_end() is None
    assert list(limiter.over(10.0)) == []


def test_it_says_when_to_look_again() -> None:
    limiter = Limiter(burst=1, interval=10)
    for kind, now in (("a", 3.0), ("b", 1.0), ("b", 2.0), ("c", 0.0), ("a", 5.0)):
        limiter.admit(kind, "", now)
    assert limiter.next_end() == 11.0


def test_kinds_without_end_take_no_memory_without_end() -> None:
    limiter = Limiter(burst=1, interval=10)
    for n in range(ratelimit.MOST_KINDS):
        limiter.admit(n, "", 0.0)
    assert [limiter.admit("more", n, 0.0) for n in range(3)] == [LOG] * 3
    list(limiter.over(10.0))
    assert limiter.admit("more", "", 10.0) is LAST
