"""ringmount.config.units"""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringmount.config.units import (
    MAX_CPUS,
    format_cpulist,
    format_size,
    parse_cpulist,
    parse_seconds,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("128KiB", 128 << 10),
        ("1 MiB", 1 << 20),
        ("1M", 1 << 20),
        ("2GiB", 2 << 30),
        ("3T", 3 << 40),
    ],
)
def test_a_size_is_a_whole_number_with_a_binary_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5MiB", "1MB", "1kib", "1MiB\n", "٣", "1 M iB", "9" * 20])
def test_what_is_not_a_size_is_refused_with_the_units(text: str) -> None:
    with pytest.raises(ValueError, match="not a size: write bytes, or a whole number with KiB, MiB, GiB or TiB"):
        parse_size(text)


@given(st.integers(0, 1 << 60))
def test_a_formatted_size_is_read_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (4097, "4097B"), (4096, "4KiB"), (1 << 20, "1MiB"), (3 << 19, "1536KiB")]
)
def test_a_size_is_formatted_in_the_largest_unit_that_divides_it(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", ()),
        ("\n", ()),
        ("0", (0,)),
        ("0-3,5\n", (0, 1, 2, 3, 5)),
        ("5, 0-1", (5, 0, 1)),
        ("2,2", (2, 2)),
        ("8191", (8191,)),
    ],
)
def test_a_cpu_list_has_numbers_and_ranges_in_their_order(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpulist(text) == cpus


@pytest.mark.parametrize("text", ["x", "1-", "-1", "1,,2", "3-1", "0-3:2", "8192", "0-99999", "1 2", "٣"])
def test_what_is_not_a_cpu_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=": "):
        parse_cpulist(text)


def test_a_cpu_list_that_repeats_itself_cannot_fill_the_memory() -> None:
    with pytest.raises(ValueError, match="more than 8192"):
        parse_cpulist(",".join(["0-8191"] * 1000))


@given(st.lists(st.integers(0, MAX_CPUS - 1), max_size=50).map(tuple))
def test_a_formatted_cpu_list_is_read_back(cpus: tuple[int, ...]) -> None:
    assert parse_cpulist(format_cpulist(cpus)) == cpus


def test_a_cpu_list_is_formatted_with_ranges() -> None:
    assert format_cpulist((0, 1, 2, 3, 5, 7, 8)) == "0-3,5,7-8"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("1.5", 1.5),
        ("500ms", 0.5),
        ("7ms", 0.007),
        ("1s", 1.0),
        ("1 min", 60.0),
        ("2h", 7200.0),
        ("365d", 31536000.0),
    ],
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1m", "1e3", "inf", "1.s", "1s\n", "٣s", "1 0s"])
def test_what_is_not_a_duration_is_refused_with_the_units(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration: write seconds, or a number with ms, s, min, h or d"):
        parse_seconds(text)


@given(st.text())
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    for parse in (parse_size, parse_cpulist, parse_seconds):
        with contextlib.suppress(ValueError):
            parse(text)
