"""Numbers and tables as people read them."""

import pytest

from ringmount.daemon import text


@pytest.mark.parametrize(
    ("count", "written"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        ((1 << 20) - 1, "1 MiB"),
        (16842752, "16.1 MiB"),
        (1 << 30, "1 GiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_sizes_have_the_unit_that_leaves_a_whole_part(count: int, written: str) -> None:
    assert text.size(count) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (-1.0, "0 s"),
        (119.9, "119 s"),
        (120, "2 min"),
        (7199, "119 min"),
        (7200, "2 h 0 min"),
        (47 * 3600 + 59 * 60, "47 h 59 min"),
        (50 * 3600, "2 d 2 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, written: str) -> None:
    assert text.duration(seconds) == written


def test_columns_are_aligned_and_lines_end_where_their_text_ends() -> None:
    assert text.table([("A", "LONG"), ("abc", "x")]) == "A    LONG\nabc  x"


def test_values_of_facts_are_aligned() -> None:
    assert text.pairs([("a", "1"), ("long", "2"), ("", "3")]) == "a     1\nlong  2\n      3"
