"""The excerpt of a run that README.md quotes, between two marks that only this module writes between."""

from pathlib import Path
from typing import Any

import report
from checks import PYTHON_PEERS, Results
from rows import ROWS

BEGIN = "<!-- bench: written by make bench -->"
END = "<!-- bench: end -->"
QUOTED = (
    "fstat",
    "fstat-all",
    "open-all",
    "create-all",
    "read4k",
    "seqread-direct",
    "untar",
    "git-status",
    "cached-stat",
    "cached-git-status",
)
COLUMNS = {"native": "native", "ringmount": "ringmount", "passthrough_ll": "libfuse in C"}


class NoMarks(Exception):
    """The file has no place for the excerpt."""


def write(results: dict[str, Any], readme: Path) -> None:
    """Replaces what is between the marks. Raises NoMarks, OSError."""
    text = readme.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise NoMarks(f"{readme} has no line {BEGIN} with {END} after it")
    readme.write_text("\n".join([before + BEGIN, *_excerpt(results), END + after]))


def _excerpt(results: dict[str, Any]) -> list[str]:
    found = results["machine"]
    lines = [
        "| | " + " | ".join(COLUMNS.values()) + " | best Python peer | ringmount as fast |",
        "|--" * (len(COLUMNS) + 3) + "|",
    ]
    read = Results(results)
    for row in (ROWS[key] for key in QUOTED if key in results["rows"]):
        values = [report.value_of(results, row, key) for key in COLUMNS]
        best, name = read.best(row.key, PYTHON_PEERS)
        cells = ["-" if value is None else report.shown(row, value) for value in values]
        ours = report.value_of(results, row, "ringmount")
        cells.append("-" if best is None else f"{report.shown(row, best)} ({name})")
        cells.append(f"{row.ratio(best, ours):.1f} x" if ours and best else "-")
        crowd = ", one client per CPU" if row.is_crowd else ""
        cached = ", cached" if row.cached else ""
        lines.append(f"| {row.title}{crowd}{cached} | " + " | ".join(cells) + " |")
    kind = "A virtual machine with" if found["virtual"] else "A machine with"
    system = f"Linux {found['kernel'].split('-')[0]}, Python {found['python']}, {found['date'].split()[0]}"
    lines += [
        "",
        f"{kind} {found['cpus']} CPUs {found['cpu']}, {system}; tmpfs beneath all, nothing cached unless it says so.",
    ]
    return lines
