"""Benchmarks ringmount against the directory beneath, the limit of the kernel path, and its peers, side by side.

All competitors serve one tmpfs at the same time. For each row they are measured in turn, A B C ... B C A ..., for
several rounds, and medians over the rounds are compared, so that a noisy neighbour hits all of them alike.

    make bench                                            everything, into docs/bench/
    make bench QUICK=1                                    a glance, into build/bench/
    python bench/run.py --only ringmount,floor --rows fstat,stat
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import checks
import counters
import machine
import prepare
import processes
import quote
import report
import rows
import sandbox
import tree
from servers import CACHED, SERVERS, Running, Server, ServerError, Setup

COUNTING_SECONDS = 0.15
DOCS = prepare.ROOT / "docs" / "bench"


@dataclass(frozen=True)
class Scale:
    """How long a run takes. `rounds` and `seconds` are of one row and competitor; `budget` in minutes, of the whole."""

    rounds: int
    seconds: float
    budget: float
    sizes: tree.Sizes


FULL = Scale(rounds=5, seconds=0.6, budget=22, sizes=tree.Sizes())
QUICK = Scale(rounds=2, seconds=0.15, budget=3, sizes=tree.QUICK)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few and short rounds, small files; about 3 minutes")
    parser.add_argument("--only", help=f"competitors: {','.join(server.key for server in SERVERS)}")
    parser.add_argument("--rows", help=f"rows: {','.join(rows.ROWS)}")
    parser.add_argument("--rounds", type=int, help="rounds of each row")
    parser.add_argument("--seconds", type=float, help="time of one measurement")
    parser.add_argument("--budget", type=float, help="minutes after which rounds are cut short")
    parser.add_argument("--depth", type=int, default=8, help="entries of each ring's queue (ringmount and floor)")
    parser.add_argument("--permissions", action="store_true", help="mount all with default_permissions")
    parser.add_argument("--output", type=Path, help="folder of the results (default: docs/bench, if all was run)")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a requirement is not met")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--missing", type=json.loads, default={}, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for given, known in ((options.only, {server.key for server in SERVERS}), (options.rows, set(rows.ROWS))):
        unknown = set(given.split(",")) - known if given else set()
        if unknown:
            parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    scale = QUICK if options.quick else FULL
    budget = 60 * (options.budget or scale.budget)
    if options.inside:
        return measure_and_report(options, scale, budget)
    if os.geteuid() != 0:
        print("bench: needs root, to mount", file=sys.stderr)
        return 2
    try:
        tools = prepare.prepare()
    except prepare.PrepareError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return sandbox.run(["--missing", json.dumps(tools.missing), *arguments], deadline=2 * budget + 300)


# -- inside the sandbox ---------------------------------------------------------------------------------------------


def measure_and_report(options: argparse.Namespace, scale: Scale, budget: float) -> int:
    chosen = [server for server in SERVERS if not options.only or server.key in options.only.split(",")]
    wanted = set(options.rows.split(",")) if options.rows else set(rows.ROWS)
    is_whole = not (options.only or options.rows or options.quick)
    output = options.output or (DOCS if is_whole else prepare.BUILD)
    results: dict[str, Any] = {
        "machine": machine.describe(),
        "settings": {
            "rounds": options.rounds or scale.rounds,
            "seconds": options.seconds or scale.seconds,
            "depth": options.depth,
            "quick": options.quick,
            "default_permissions": options.permissions,
        },
        "rows": {key: {} for key in rows.ROWS if key in wanted},
        "memory": {},
        "missing": {},
        "trouble": [],
    }
    started = time.monotonic()
    deadline = started + budget
    try:
        measure(options, scale, chosen, wanted, deadline, results)
    except KeyboardInterrupt:
        print("bench: interrupted; nothing is written", file=sys.stderr)
        return 130
    results["settings"]["minutes"] = round((time.monotonic() - started) / 60, 1)
    results["machine"]["load_after"] = os.getloadavg()[0]
    results["checks"] = [check.as_json() for check in checks.evaluate(results)]
    output.mkdir(parents=True, exist_ok=True)
    report.write(results, output)
    if output == DOCS:
        quote.write(results, prepare.ROOT / "README.md")
    draw(output)
    print(report.as_text(results))
    print(f"bench: {output}/README.md, results.json", file=sys.stderr)
    is_met = all(check["is_met"] for check in results["checks"])
    return 1 if options.check and not is_met else 0


def measure(
    options: argparse.Namespace,
    scale: Scale,
    chosen: list[Server],
    wanted: set[str],
    deadline: float,
    results: dict[str, Any],
) -> None:
    folder: Path = options.inside
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4G", "ringmount-bench", str(folder)], check=True, timeout=30)
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    tools = prepare.Tools(missing=options.missing)
    source = folder / "source"
    tree.make(source, folder, scale.sizes, len(cpus), [server.key for server in chosen])
    bench = rows.Bench(tools.client, cpus, options.seconds or scale.seconds, folder / "archive.tar")
    ours = prepare.ROOT / ".venv" / "bin" / "python"
    python = str(ours) if ours.exists() else sys.executable
    tracepoint = None
    if not options.quick:
        try:
            tracepoint = counters.mount_tracefs(folder / "trace")
        except counters.Unavailable as error:
            results["trouble"].append(f"requests were not counted: {error}")
    tasks = [task for task in rows.TASKS if any(row.key in wanted for row in task.rows)]
    for is_cached in (False, True):
        now = [task for task in tasks if task.rows[0].cached == is_cached]
        keys = {row.key: row for task in now for row in task.rows}
        setup = Setup(folder, source, CACHED * is_cached, options.depth, tools, python, options.permissions)
        taking_part = [s for s in chosen if any(s.takes(row.key, row.needs_tree) for row in keys.values())]
        with fleet(taking_part, setup, results) as running:
            for number, task in enumerate(now):
                left = len(tasks) - number if not is_cached else len(now) - number
                share = (deadline - time.monotonic()) / left
                rounds = max(1, round((options.rounds or scale.rounds) * task.weight))
                counted = {} if options.quick or task.rows[0].is_crowd else count(task, bench, running, tracepoint)
                run_task(task, bench, running, rounds, share, results)
                for row in task.rows:
                    for key, found in results["rows"].get(row.key, {}).items():
                        found.update(counted.get((row.key, key), {}))
            if not is_cached or not any(not task.rows[0].cached for task in tasks):
                results["memory"] = {key: memory(one) for key, one in running.items() if one.process}


@contextlib.contextmanager
def fleet(chosen: list[Server], setup: Setup, results: dict[str, Any]) -> Iterator[dict[str, Running]]:
    """All competitors at once; those that cannot be started are noted as missing."""
    running: dict[str, Running] = {}
    try:
        for server in chosen:
            try:
                running[server.key] = Running(server, setup)
            except ServerError as error:
                results["missing"][server.key] = str(error)
                print(f"bench: without {server.title}: {error}", file=sys.stderr)
        settle(running)
        yield running
    finally:
        for one in running.values():
            trouble = one.stop()
            if trouble:
                results["trouble"].append(f"{one.server.title} {trouble}")


def settle(running: dict[str, Running]) -> None:
    """Waits until the servers have finished starting (a warm spare imports its filesystem, say), at most 10 s."""
    spent = -1.0
    for _ in range(40):
        before, spent = spent, processes.cpu_seconds([pid for one in running.values() for pid in one.pids()])
        if spent - before < 0.005:
            return
        time.sleep(0.25)


def count(
    task: rows.Task, bench: rows.Bench, running: dict[str, Running], tracepoint: Path | None
) -> dict[tuple[str, str], dict[str, Any]]:
    """A short run of its own, not timed: by row and competitor, requests and instructions per operation."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for key, one in running.items():
        if not (one.server.is_mount and one.is_alive() and one.server.takes(task.rows[0].key, task.rows[0].needs_tree)):
            continue
        with contextlib.suppress(counters.Unavailable):
            one.counters["instructions"] = counters.Instructions(one.pids())
        with contextlib.suppress(counters.Unavailable):
            if tracepoint:
                one.counters["requests"] = counters.Requests(tracepoint, one.path)
        try:
            outcomes = task.measure(one, replace(bench, seconds=COUNTING_SECONDS))
        except (processes.CommandError, ValueError, KeyError) as error:
            print(f"bench: {one.server.title}, {task.rows[0].key}: not counted: {error}", file=sys.stderr)
        else:
            for row, outcome in zip(task.rows, outcomes, strict=True):
                requests = {name: round(n, 2) for name, n in outcome.get("requests", {}).items() if n >= 0.005}
                instructions = {name: round(n) for name, n in outcome.get("instructions", {}).items()}
                found[row.key, key] = {"requests": requests, "instructions": instructions}
        finally:
            for counter in one.counters.values():
                counter.close()
            one.counters.clear()
    return found


def run_task(
    task: rows.Task,
    bench: rows.Bench,
    running: dict[str, Running],
    rounds: int,
    share: float,
    results: dict[str, Any],
) -> None:
    """Rounds in turn, each starting with the next competitor; at least one, and no more once `share` is spent."""
    begin = time.monotonic()
    row = task.rows[0]
    keys = [key for key, one in running.items() if one.server.takes(row.key, row.needs_tree)]
    samples: dict[str, list[list[rows.Outcome]]] = {key: [] for key in keys}
    for turn in range(rounds):
        if turn and time.monotonic() - begin > share * turn / (turn + 1):
            break
        for key in keys[turn % len(keys) :] + keys[: turn % len(keys)]:
            if not running[key].is_alive() and not restart(key, running, results):
                continue
            try:
                samples[key].append(task.measure(running[key], bench))
            except (processes.CommandError, ValueError, KeyError) as error:
                results["trouble"].append(f"{running[key].server.title}, {row.key}: {error}")
                print(f"bench: {running[key].server.title}, {row.key}: {error}", file=sys.stderr)
    for at, one in enumerate(task.rows):
        if one.key in results["rows"]:
            results["rows"][one.key] = {
                key: summary([outcomes[at] for outcomes in found]) for key, found in samples.items() if found
            }
            print(report.progress(one, results["rows"][one.key]), file=sys.stderr, flush=True)


def restart(key: str, running: dict[str, Running], results: dict[str, Any]) -> bool:
    """A server that died gets one more start, or is out of the race for good."""
    dead = running[key]
    if results["missing"].get(key):
        return False
    results["trouble"].append(f"{dead.server.title} died and was started again")
    dead.free()
    try:
        running[key] = Running(dead.server, dead.setup)
    except ServerError as error:
        results["missing"][key] = f"died, and did not start again: {error}"
        return False
    return True


def summary(samples: list[rows.Outcome]) -> dict[str, Any]:
    """Medians over the rounds of each number, and the samples themselves."""
    keys = [key for key in samples[0] if key != "operations"]
    medians = {key: statistics.median(sample[key] for sample in samples) for key in keys}
    return {**medians, "rounds": len(samples), "samples": samples}


def memory(running: Running) -> list[dict[str, float]]:
    """By process, the oldest first: for ringmount that is the supervisor."""
    found = []
    for pid in sorted(running.pids()):
        with contextlib.suppress(OSError):
            found.append(processes.memory(pid))
    return found


def draw(output: Path) -> None:
    """Plots need matplotlib, which the bench's own environment has."""
    command = [str(prepare.PYTHON), str(prepare.BENCH / "plots.py"), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        print(f"bench: no plots: {(done.stderr.strip().splitlines() or ['?'])[-1]}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
