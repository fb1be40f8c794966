"""Runs each program at every place, the native one first, and ends with a table.

Only `make test-programs` collects these tests: they take an hour, and bring programs that nothing else needs.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from programs import places
from programs.places import BesideNative, Place

HERE = Path(__file__).parent
LIMIT = 1800
"""Seconds that a program may take at one place."""

RESULTS: dict[str, dict[str, str]] = defaultdict(dict)
"""Results by program and place."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and isinstance(item, pytest.Function):
            item.add_marker(pytest.mark.timeout(LIMIT))
            name, user = cast(tuple[str, str], item.callspec.params["place"])
            others = [str(value) for key, value in item.callspec.params.items() if key != "place"]
            program = " ".join([item.originalname.removeprefix("test_").replace("_", " "), *others])
            item.user_properties += [("program", program), ("place", column(name, user))]


def column(name: str, user: str) -> str:
    return name if user == "root" else f"{name}, user"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`everybody`: what an ordinary user may do as well."""
    if "place" not in metafunc.fixturenames:
        return
    users = ["root", places.USER] if metafunc.definition.get_closest_marker("everybody") else ["root"]
    chosen = os.environ.get("PLACES", "").split() or list(places.SETTINGS)
    wanted = [
        pytest.param(
            (name, user),
            id=column(name, user).replace(", ", "-"),
            marks=pytest.mark.ring if (places.SETTINGS[name] or {}).get("transport") == "io_uring" else [],
        )
        for name in chosen
        for user in users
    ]
    metafunc.parametrize("place", wanted, indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """An empty folder."""
    name, user = request.param
    with places.made(name, user) as place:
        yield place.folder("work")


@pytest.fixture(scope="session")
def beside_native() -> BesideNative:
    """`beside_native(outcome, place)`: what outcome(place) is, and what it is at a native place, for the same user."""
    known: dict[tuple[str, str], Any] = {}

    def outcomes(outcome: Callable[[Place], Any], place: Place) -> tuple[Any, Any]:
        key = outcome.__module__, place.user
        found = outcome(place)
        if place.name == "native":
            known[key] = found
        elif key not in known:
            with places.made("native", place.user) as native:
                known[key] = outcome(native.folder("work"))
        return found, known[key]

    return outcomes


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Fills the table."""
    properties = dict(report.user_properties)
    if "program" not in properties:
        return
    program, place = str(properties["program"]), str(properties["place"])
    if report.failed or report.skipped:
        RESULTS[program][place] = report.outcome.upper()
    elif report.when == "call":
        RESULTS[program].setdefault(place, f"{report.duration:.0f} s")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table: a row for each program, a column for each place."""
    if not RESULTS:
        return
    every = [column(name, user) for name in places.SETTINGS for user in ("root", places.USER)]
    columns = [place for place in every if any(place in row for row in RESULTS.values())]
    table = [
        ["", *columns],
        *([program, *(row.get(place, "") for place in columns)] for program, row in RESULTS.items()),
    ]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    table.insert(1, ["-" * width for width in widths])
    terminalreporter.section("programs")
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line(f"| {' | '.join(cells)} |")
