"""Numbers and tables as people read them.

The rule a change must keep: what is printed here is never read by a program; those ask for --json.
"""

from collections.abc import Sequence


def size(count: int) -> str:
    """`count` bytes in the largest unit that leaves a whole part: "512 B", "16.1 MiB", "1 GiB"."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if round(value, 1) < 1024 or unit == "TiB":
            break
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"


def duration(seconds: float) -> str:
    """`seconds` in two units at most: "59 s", "12 min", "3 h 5 min", "2 d 4 h"."""
    whole = max(0, int(seconds))
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
