"""The rows of the bench: what clients do, and which number of it is compared.

A row's `metric` is the number that ratios are made of: `p50_us` for one client's system calls, `ops_per_s` for
several clients and for sequential data (one operation is 1 MiB), `seconds` for programs.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import processes
from servers import Running

PATIENCE = 30.0
"""Seconds that a client may take beyond the time that it was given."""


@dataclass(frozen=True)
class Row:
    """`needs_tree`: the floor, which has only constants, cannot take part. `cached`: with attributes cached."""

    key: str
    title: str
    group: str
    metric: str
    needs_tree: bool = False
    cached: bool = False

    @property
    def is_crowd(self) -> bool:
        """Whether this is another row with more clients."""
        return self.key.endswith("-all")

    @property
    def lower_is_better(self) -> bool:
        return self.metric != "ops_per_s"

    def ratio(self, value: float, reference: float) -> float:
        """How many times as good as `value` the reference is: 2 means that `value` is twice as slow."""
        return value / reference if self.lower_is_better else reference / value


@dataclass(frozen=True)
class Bench:
    """What a run measures with: the CPUs of clients (the last one is that of a single client), seconds, files."""

    client: Path
    cpus: tuple[int, ...]
    seconds: float
    archive: Path

    @property
    def one(self) -> tuple[int, ...]:
        return self.cpus[-1:]


Outcome = dict[str, Any]
"""`operations`, `ops_per_s`, and what there is of `p50_us`, `p99_us`, ..., `seconds`, `cpu_s_per_100k`.

In a run for counting, `requests` and `instructions` per operation besides."""

Measure = Callable[[Running, Bench], list[Outcome]]


@dataclass(frozen=True)
class Task:
    """Rows that are measured together, each outcome belonging to the row at its place. `weight` scales the rounds."""

    rows: tuple[Row, ...]
    measure: Measure
    weight: float = 1.0


def metered(running: Running, run: Callable[[], Outcome]) -> Outcome:
    """Adds what the server's processes spent meanwhile, and what its counters counted."""
    pids = running.pids()
    counted = {kind: counter.read() for kind, counter in running.counters.items()}
    before = processes.cpu_seconds(pids)
    outcome = run()
    spent = processes.cpu_seconds(pids) - before
    if pids:
        outcome["cpu_s_per_100k"] = spent / outcome["operations"] * 1e5
    for kind, counter in running.counters.items():
        counts = counter.read()
        outcome[kind] = {name: (counts[name] - counted[kind][name]) / outcome["operations"] for name in counts}
    return outcome


# -- the C client ---------------------------------------------------------------------------------------------------


def calls(operation: str, everywhere: bool) -> Measure:
    def measure(running: Running, bench: Bench) -> list[Outcome]:
        cpus = bench.cpus if everywhere else bench.one
        arguments = [operation, str(running.path), str(bench.seconds), *map(str, cpus)]

        def run() -> Outcome:
            timeout = bench.seconds + PATIENCE
            return dict(
                json.loads(processes.run_command([str(bench.client), *arguments], timeout=timeout, free=running.free))
            )

        return [metered(running, run)]

    return measure


# -- fio ------------------------------------------------------------------------------------------------------------


def fio(direction: str, file: str, *flags: str) -> Measure:
    """One job, pinned. With `--loops` fio opens the file anew and drops its pages for each pass over it."""

    def measure(running: Running, bench: Bench) -> list[Outcome]:
        seconds = max(0.3, bench.seconds)
        command = [
            "fio",
            "--name=bench",
            "--thread",
            "--output-format=json",
            f"--filename={running.path / file}",
            f"--rw={direction}",
            f"--cpus_allowed={bench.one[0]}",
            f"--runtime={int(seconds * 1000)}ms",
            "--loops=1000000",
            *flags,
        ]

        def run() -> Outcome:
            output = processes.run_command(command, timeout=seconds + PATIENCE, free=running.free)
            job = json.loads(output[output.index("{") :])["jobs"][0]
            part = job["write" if "write" in direction else "read"]
            percentiles = part["clat_ns"]["percentile"]
            return {
                "operations": part["total_ios"],
                "ops_per_s": part["iops"],
                "p50_us": percentiles["50.000000"] / 1000,
                "p90_us": percentiles["90.000000"] / 1000,
                "p99_us": percentiles["99.000000"] / 1000,
            }

        return [metered(running, run)]

    return measure


def sequential(direction: str, *flags: str) -> Measure:
    return fio(direction, "sequential", "--bs=1M", "--ioengine=psync", *flags)


# -- programs -------------------------------------------------------------------------------------------------------


def program(running: Running, operations: int, *command: str, environment: dict[str, str] | None = None) -> Outcome:
    """The whole run of a program, from its start to its end, is one measurement."""

    def run() -> Outcome:
        begin = time.perf_counter()
        processes.run_command(command, timeout=4 * PATIENCE, free=running.free, environment=environment)
        seconds = time.perf_counter() - begin
        return {"operations": operations, "seconds": seconds, "ops_per_s": operations / seconds}

    return metered(running, run)


def untar_and_remove(running: Running, bench: Bench) -> list[Outcome]:
    target = running.path / f"untar-{running.server.key}" / "tree"
    files = 2_000
    processes.run_command(["mkdir", str(target)], timeout=PATIENCE, free=running.free)
    untar = program(running, files, "tar", "-xf", str(bench.archive), "-C", str(target))
    remove = program(running, files, "rm", "-rf", str(target))
    return [untar, remove]


def git_status(running: Running, bench: Bench) -> list[Outcome]:
    environment = {
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }
    command = ["git", "-C", str(running.path / "repository"), "status", "--porcelain"]
    return [program(running, 1, *command, environment=environment)]


# -- the table ------------------------------------------------------------------------------------------------------

CALLS, ALL, LISTING, DATA, PROGRAMS, CACHED = (
    "Metadata, one client",
    "Metadata, one client per CPU",
    "Listings of 10,000 entries",
    "Data",
    "Programs",
    "With attributes and entries cached",
)


def _calls() -> Iterator[Task]:
    titles = {
        "fstat": "fstat (GETATTR)",
        "stat": "stat (LOOKUP, GETATTR)",
        "open": "open, close",
        "create": "create, write 4k, close, unlink",
    }
    for operation, title in titles.items():
        yield Task((Row(operation, title, CALLS, "p50_us"),), calls(operation, False))
        yield Task((Row(f"{operation}-all", title, ALL, "ops_per_s"),), calls(operation, True))
    for operation, title in (("readdir", "readdir"), ("scandir", "scandir and stat of each")):
        yield Task((Row(operation, title, LISTING, "p50_us", needs_tree=True),), calls(operation, False), 0.6)


def _data() -> Iterator[Task]:
    yield Task((Row("read4k", "4k O_DIRECT reads, one client", DATA, "p50_us"),), calls("read", False))
    yield Task((Row("read4k-all", "4k O_DIRECT reads, one client per CPU", DATA, "ops_per_s"),), calls("read", True))
    yield Task(
        (Row("read4k-qd16", "4k O_DIRECT reads, depth 16 (fio io_uring)", DATA, "ops_per_s"),),
        fio("randread", "file0", "--bs=4k", "--direct=1", "--ioengine=io_uring", "--iodepth=16", "--size=16M"),
        0.6,
    )
    for key, title, direction, flags in (
        ("seqread", "1M sequential read, buffered (MiB/s)", "read", ()),
        ("seqwrite", "1M sequential write, buffered (MiB/s)", "write", ()),
        ("seqread-direct", "1M sequential read, O_DIRECT (MiB/s)", "read", ("--direct=1",)),
        ("seqwrite-direct", "1M sequential write, O_DIRECT (MiB/s)", "write", ("--direct=1",)),
    ):
        yield Task((Row(key, title, DATA, "ops_per_s"),), sequential(direction, *flags), 0.6)


def _programs(prefix: str, group: str, cached: bool) -> Iterator[Task]:
    def row(key: str, title: str) -> Row:
        return Row(prefix + key, title, group, "seconds", needs_tree=True, cached=cached)

    yield Task((row("untar", "untar 2,000 files"), row("rm", "rm -rf of them")), untar_and_remove, 0.6)
    yield Task((row("git-status", "git status of a large tree"),), git_status, 0.6)


def _cached() -> Iterator[Task]:
    for operation, title in (("fstat", "fstat"), ("stat", "stat"), ("open", "open, close")):
        row = Row(f"cached-{operation}", f"{title}, one client", CACHED, "p50_us", cached=True)
        yield Task((row,), calls(operation, False))
    row = Row("cached-stat-all", "stat, one client per CPU", CACHED, "ops_per_s", cached=True)
    yield Task((row,), calls("stat", True))
    row = Row("cached-scandir", "scandir and stat of each", CACHED, "p50_us", needs_tree=True, cached=True)
    yield Task((row,), calls("scandir", False), 0.6)
    yield from _programs("cached-", CACHED, True)


TASKS = (*_calls(), *_data(), *_programs("", PROGRAMS, False), *_cached())
ROWS = {row.key: row for task in TASKS for row in task.rows}
