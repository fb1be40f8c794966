"""The node table beside LMDB: what a LOOKUP and a FORGET cost, with a thousand and with a million nodes.

Both give the same service: a table that several processes share, that outlives the death of any of them, and that
finds a node by key, counts a reference, and drops the node with the last one. LMDB gets the best it can do for that: a
memory file system, no syncing, a writable map. Rounds of both and of both sizes alternate, in one process and in one
per CPU at once. A number is the lower quartile of the rounds (what else the machine does only ever adds), in
microseconds per call from Python.

    pip install lmdb        # for this comparison only
    python bench/nodes.py [--nodes 1000000] [--json FILE]
"""

import argparse
import json
import mmap
import os
import shutil
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from typing import Any, Protocol

from ringmount.workers._native import ffi
from ringmount.workers.api import NodeId
from ringmount.workers.nodes import NodeTable, size

VALUE = b"v" * 40  # as long as passthrough's: device, inode, file handle
ROUNDS, CALLS = 9, 1000


class Table(Protocol):
    """What is measured."""

    def take(self, key: bytes, value: bytes) -> NodeId: ...
    def find(self, key: bytes) -> NodeId | None: ...
    def value(self, node: NodeId) -> bytes: ...
    def give_back(self, node: NodeId) -> bool: ...


class Lmdb:
    """The same service by LMDB: key -> nodeid, and nodeid -> count, key, value."""

    def __init__(self, folder: str) -> None:
        import lmdb  # type: ignore[import-not-found, unused-ignore]

        self.env = lmdb.open(
            folder, map_size=4 << 30, max_dbs=2, sync=False, metasync=False, writemap=True, map_async=True
        )
        self.keys, self.nodes = self.env.open_db(b"keys"), self.env.open_db(b"nodes")

    def take(self, key: bytes, value: bytes) -> NodeId:
        with self.env.begin(write=True) as txn:
            return self.take_in(txn, key, value)

    def take_in(self, txn: Any, key: bytes, value: bytes) -> NodeId:
        name = txn.get(key, db=self.keys)
        if name is None:
            last = txn.get(b"last", b"\0" * 8, db=self.keys)
            name = struct.pack(">Q", struct.unpack(">Q", last)[0] + 1)
            txn.put(b"last", name, db=self.keys)
            txn.put(key, name, db=self.keys)
            record = struct.pack("=QH", 0, len(key)) + key + value
        else:
            record = txn.get(name, db=self.nodes)
        count = struct.unpack_from("=Q", record)[0]
        txn.put(name, struct.pack("=Q", count + 1) + record[8:], db=self.nodes)
        return NodeId(struct.unpack(">Q", name)[0])

    def find(self, key: bytes) -> NodeId | None:
        with self.env.begin() as txn:
            name = txn.get(key, db=self.keys)
            return NodeId(struct.unpack(">Q", name)[0]) if name else None

    def value(self, node: NodeId) -> bytes:
        with self.env.begin() as txn:
            record: bytes = txn.get(struct.pack(">Q", node), db=self.nodes)
            return record[10 + struct.unpack_from("=H", record, 8)[0] :]

    def give_back(self, node: NodeId) -> bool:
        name = struct.pack(">Q", node)
        with self.env.begin(write=True) as txn:
            record = txn.get(name, db=self.nodes)
            count, length = struct.unpack_from("=QH", record)
            if count > 1:
                txn.put(name, struct.pack("=Q", count - 1) + record[8:], db=self.nodes)
                return False
            txn.delete(record[10 : 10 + length], db=self.keys)
            return bool(txn.delete(name, db=self.nodes))


def make_ringmount(folder: str) -> NodeTable:
    """The node table, in a file that forked processes can open again."""
    path, n = os.path.join(folder, "table"), size()
    fresh = not os.path.exists(path)
    with open(path, "a+b") as file:
        file.truncate(n)
        memory = mmap.mmap(file.fileno(), n)
    table = NodeTable(int(ffi.cast("uintptr_t", ffi.from_buffer(memory))), n, 0, create=fresh)
    KEPT.append(memory)
    return table


KEPT: list[mmap.mmap] = []
TABLES: dict[str, Callable[[str], Table]] = {"ringmount": make_ringmount, "lmdb": Lmdb}


def key(number: int) -> bytes:
    return struct.pack("=QQ", 2049, number)


def fill(table: Table, n: int) -> None:
    """Makes nodes 0 .. n-1, as fast as each can."""
    if isinstance(table, Lmdb):
        with table.env.begin(write=True) as txn:
            for number in range(n):
                table.take_in(txn, key(number), VALUE)
        return
    for number in range(n):
        table.take(key(number), VALUE)


def measure(table: Table, n: int, start: int) -> dict[str, float]:
    """Microseconds a call, once each over CALLS keys, spread over all nodes and beginning elsewhere each time."""
    known = [key((start + i * 7919) % n) for i in range(CALLS)]
    fresh = [key(n + start + i) for i in range(CALLS)]
    nodes: list[NodeId] = []

    def clock(work: Callable[[], object]) -> float:
        begin = time.perf_counter()
        work()
        return (time.perf_counter() - begin) / CALLS * 1e6

    times = {"take, known": clock(lambda: nodes.extend([table.take(each, VALUE) for each in known]))}
    times["value"] = clock(lambda: [table.value(node) for node in nodes])
    times["find"] = clock(lambda: [table.find(each) for each in known])
    times["give back, stays"] = clock(lambda: [table.give_back(node) for node in nodes])
    nodes.clear()
    times["take, new"] = clock(lambda: nodes.extend([table.take(each, VALUE) for each in fresh]))
    times["give back, goes"] = clock(lambda: [table.give_back(node) for node in nodes])
    return times


def rounds(folder: str, which: str, n: int, cpu: int) -> dict[str, list[float]]:
    """One process's rounds."""
    os.sched_setaffinity(0, {cpu})
    table = TABLES[which](folder)
    first = (cpu + 1) * 10**8 + time.monotonic_ns() // 10**6 % 10**7  # no two processes measure with the same keys
    found = [measure(table, n, first + i * CALLS) for i in range(ROUNDS)]
    return {row: [times[row] for times in found] for row in found[0]}


@contextmanager
def filled(which: str, n: int) -> Iterator[str]:
    """A folder in memory with a table of n nodes."""
    folder = tempfile.mkdtemp(prefix="ringmount-bench-", dir="/dev/shm")
    try:
        table = TABLES[which](folder)
        fill(table, n)
        if isinstance(table, Lmdb):
            table.env.close()
        yield folder
    finally:
        KEPT.clear()
        shutil.rmtree(folder)


Result = dict[str, dict[str, float]]


def run(folders: dict[str, str], n: int, cpus: list[int]) -> dict[str, dict[str, list[float]]]:
    """One turn of each table, filled with n nodes. Each process is a fresh one: LMDB must not be used across a fork."""
    found: dict[str, dict[str, list[float]]] = {}
    for which, folder in folders.items():
        rows = found.setdefault(which, {})
        with get_context("spawn").Pool(len(cpus)) as pool:
            for part in pool.starmap(rounds, [(folder, which, n, cpu) for cpu in cpus], chunksize=1):
                for row, times in part.items():
                    rows.setdefault(row, []).extend(times)
    return found


def run_all(cases: list[tuple[int, list[int]]], turns: int) -> list[Result]:
    """The lower quartile of every row, for each case (nodes, CPUs)."""
    with ExitStack() as stack:
        sizes = {n for n, _ in cases}
        folders = {n: {which: stack.enter_context(filled(which, n)) for which in TABLES} for n in sizes}
        found = [[run(folders[n], n, cpus) for n, cpus in cases] for _ in range(turns)]

    def quartile(case: int, which: str, row: str) -> float:
        return statistics.quantiles([each for turn in found for each in turn[case][which][row]], n=4)[0]

    rows = list(found[0][0]["lmdb"])
    return [
        {which: {row: quartile(case, which, row) for row in rows} for which in TABLES} for case in range(len(cases))
    ]


def show(title: str, result: Result) -> None:
    print(f"\n{title}\n\n| call | ringmount, us | LMDB, us | LMDB / ringmount |\n| --- | ---: | ---: | ---: |")
    for row, ours in result["ringmount"].items():
        theirs = result["lmdb"][row]
        print(f"| {row} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="The node table beside LMDB.")
    parser.add_argument("--nodes", type=int, default=1_000_000, help="size of the large table (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="how often all of it is measured (default: %(default)s)")
    parser.add_argument("--json", help="also write the numbers to this file")
    arguments = parser.parse_args()
    try:
        import lmdb
    except ImportError:
        sys.exit("bench/nodes.py: needs LMDB for the comparison: pip install lmdb")
    cpus = sorted(os.sched_getaffinity(0))
    print(f"LMDB {'.'.join(map(str, lmdb.version()))}, Python {sys.version.split()[0]}, {len(cpus)} CPUs")
    cases = [(1000, cpus[:1]), (arguments.nodes, cpus[:1]), (arguments.nodes, cpus)]
    titles = [f"{n:,} nodes, {len(used)} process{'es' if len(used) > 1 else ''}" for n, used in cases]
    results = run_all(cases, arguments.turns)
    for title, result in zip(titles, results, strict=True):
        show(title, result)
    small, large = results[0]["ringmount"], results[1]["ringmount"]
    print(f"\nringmount, {titles[1]} / {titles[0]}:")
    print(", ".join(f"{row} {large[row] / small[row]:.2f}" for row in small))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(dict(zip(titles, results, strict=True)), file, indent=1)


if __name__ == "__main__":
    main()
