"""The numbers that ringmount must reach, as ratios within one run; each evaluated from its results.

A check that cannot be evaluated, because a row or competitor is missing, is not met and says why.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rows import ROWS
from servers import SERVERS

OURS = "ringmount"
PYTHON_PEERS = tuple(server.key for server in SERVERS if server.is_python)
PEERS = tuple(server.key for server in SERVERS if server.is_peer)
SEQUENTIAL = ("seqread", "seqwrite", "seqread-direct", "seqwrite-direct")
PROGRAMS = ("untar", "rm", "git-status")


@dataclass(frozen=True)
class Check:
    """`value` compared with the limits `must` and `aim`, upwards if `at_least`.

    A `value` of None could not be evaluated; a `must` of None says that there is only an aim.
    """

    what: str
    value: float | None
    must: float | None
    aim: float | None = None
    at_least: bool = False
    note: str = ""

    def reaches(self, limit: float | None) -> bool:
        if limit is None:
            return True
        return self.value is not None and (self.value >= limit if self.at_least else self.value <= limit)

    def as_json(self) -> dict[str, Any]:
        reaches_aim = self.reaches(self.aim) if self.aim is not None else None
        return {**asdict(self), "is_met": self.reaches(self.must), "reaches_aim": reaches_aim}


class Results:
    """Reads a run's results; what is not there is None."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.rows = results["rows"]
        self.memory = results["memory"]

    def value(self, row: str, server: str, metric: str | None = None) -> float | None:
        found = self.rows.get(row, {}).get(server)
        return found and found.get(metric or ROWS[row].metric)

    def instructions(self, row: str, server: str) -> float | None:
        """Per operation, in user and kernel mode together: what a busy machine does not blur."""
        return sum(self.rows.get(row, {}).get(server, {}).get("instructions", {}).values()) or None

    def best(self, row: str, servers: tuple[str, ...]) -> tuple[float | None, str]:
        """The best of some competitors and its name."""
        there = [(value, key) for key in servers if (value := self.value(row, key)) is not None]
        if not there:
            return None, "no peer was measured"
        return min(there) if ROWS[row].lower_is_better else max(there)


def _ratio(value: float | None, reference: float | None) -> float | None:
    return value / reference if value is not None and reference else None


def evaluate(run: dict[str, Any]) -> list[Check]:
    """All checks of those rows that the run was asked for."""
    results = Results(run)
    return [
        check
        for rows, make in (
            (("fstat", "read4k"), _one_client),
            (("fstat-all", "stat-all", "open-all", "create-all"), _all_clients),
            (("fstat",), _cpu),
            (PROGRAMS, _programs),
            (SEQUENTIAL, _sequential),
            (("cached-stat",), _coherent),
            ((None,), _memory),
        )
        for row in rows
        if row is None or row in run["rows"]
        for check in make(results, row)
    ]


def _one_client(results: Results, row: str) -> Iterator[Check]:
    ours = results.value(row, OURS)
    yield Check(f"{row} p50, of floor", _ratio(ours, results.value(row, "floor")), 1.3, 1.12)
    for peer in ("passthrough_ll", *PYTHON_PEERS):
        yield Check(f"{row} p50, of {peer}", _ratio(ours, results.value(row, peer)), 1.0)


def _all_clients(results: Results, row: str) -> Iterator[Check]:
    ours = results.value(row, OURS)
    best, name = results.best(row, PYTHON_PEERS)
    yield Check(f"{row} ops/s, of the best Python peer", _ratio(ours, best), 2.0, 3.0, True, name)
    yield Check(f"{row} ops/s, of passthrough_ll", _ratio(ours, results.value(row, "passthrough_ll")), 1.0, None, True)
    floor = _ratio(ours, results.value(row, "floor"))
    yield Check(f"{row} ops/s, of floor", floor, None, 0.95, True, "the floor has no file beneath")


def _cpu(results: Results, row: str) -> Iterator[Check]:
    ours, floor = (results.value(row, key, "cpu_s_per_100k") for key in (OURS, "floor"))
    instructions = _ratio(results.instructions(row, OURS), results.instructions(row, "floor"))
    note = f"instructions: {instructions:.2f} of floor's" if instructions else ""
    yield Check("server CPU per GETATTR, of floor", _ratio(ours, floor), 1.8, 1.2, note=note)


def _programs(results: Results, row: str) -> Iterator[Check]:
    best, name = results.best(row, PEERS)
    yield Check(f"{row} time, of the best FUSE peer", _ratio(results.value(row, OURS), best), 1.0, None, note=name)
    cached = f"cached-{row}"
    if cached in results.rows:
        best, name = results.best(cached, PEERS)
        ours = results.value(cached, OURS)
        yield Check(f"{row} time with caching, of the best FUSE peer", _ratio(ours, best), 1.0, None, note=name)
        native = _ratio(ours, results.value(cached, "native"))
        yield Check(f"{row} time with caching, of native", native, None, 2.0)


def _sequential(results: Results, row: str) -> Iterator[Check]:
    passthrough = _ratio(results.value(row, "ringmount-data"), results.value(row, "native"))
    yield Check(f"{row} with data: passthrough, of native", passthrough, 0.85, 0.95, True)
    ours = results.value(row, OURS)
    best, name = results.best(row, (*PYTHON_PEERS, "passthrough_ll"))
    yield Check(f"{row}, of the best of Python and passthrough_ll", _ratio(ours, best), 1.0, None, True, name)


def _coherent(results: Results, row: str) -> Iterator[Check]:
    value = _ratio(results.value(row, "ringmount-coherent"), results.value(row, "native"))
    yield Check("cached stat p50 with cache: coherent, of native", value, 1.1)


def _memory(results: Results, row: None) -> Iterator[Check]:
    """The arena (ring buffers, tables of nodes and handles) is shared by all and counted apart."""
    found = results.memory.get(OURS)
    beyond = [one["pss_mib"] - one["memfd_mib"] for one in found] if found else []
    shared = f"the arena besides: {sum(one['memfd_mib'] for one in found):.1f} MiB" if found else "not measured"
    yield Check("supervisor's PSS beyond the arena, MiB", beyond[0] if beyond else None, 25, 12.5, note=shared)
    yield Check("largest worker's PSS beyond the arena, MiB", max(beyond[1:], default=None), 25, 12.5)
