"""Numbers and tables as people read them.

The rule a change must keep: what is printed here is never read by a program; those ask for --json.
"""

import sys
from collections.abc import Sequence


def say(lines: str) -> None:
    """A live command's output, at once."""
    sys.stdout.write(f"{lines}\n")
    sys.stdout.flush()


def remark(line: str) -> None:
    """Something beside a command's output."""
    sys.stderr.write(f"ringmount: {line}\n")


def size(count: int) -> str:
    """`count` bytes in the largest unit that leaves a whole part: "512 B", "16.1 MiB", "1 GiB"."""
    if count < 1024:
        return f"{count} B"
    value = float(min(count, 1 << 80))
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if round(value, 1) < 1024 or unit == "TiB":
            break
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"


def latency(seconds: float | None) -> str:
    """`seconds` in three digits or so: "640 ns", "12.3 us", "1.25 ms", "34 s"; "-" for None."""
    if seconds is None:
        return "-"
    for factor, unit in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds < 100 else duration(seconds)


def count(number: float) -> str:
    """A number that is not below 0, in a few digits: "0.4", "12", "45.1k", "3.2M"."""
    for unit in ("", "k", "M", "G"):
        if number < 999.5 or unit == "G":
            break
        number /= 1000
    return (f"{number:.1f}" if number < 99.95 and (unit or number != int(number)) else f"{number:.0f}") + unit


def duration(seconds: float) -> str:
    """`seconds` in two units at most: "59 s", "12 min", "3 h 5 min", "2 d 4 h"."""
    whole = int(min(max(0.0, seconds), 1e12))  # whatever it is, infinite or no number
    if whole < 120:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def table(rows: Sequence[Sequence[str]]) -> str:
    """The rows, the first of which is the heading, with their columns aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def pairs(facts: Sequence[tuple[str, str]]) -> str:
    """One line a fact, name and value, the values aligned."""
    width = max(len(name) for name, _ in facts)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in facts)
