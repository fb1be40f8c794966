"""What Prometheus is told of a mount: a collector over the arena, and the text that it makes.

The names follow Prometheus' conventions; docs/monitoring/README.md lists them with what they are good for, and the
alert rules and the dashboard beside it use them. The rule a change must keep: only a few labels, none of which grows
with what callers do; and nothing is asked of a worker or of the supervisor, for this runs in a process of its own.
"""

import contextlib
from collections.abc import Callable, Iterator
from itertools import accumulate

import psutil
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

from ringmount.daemon import operations
from ringmount.daemon.children import IS_SERVING
from ringmount.daemon.counts import Counts
from ringmount.daemon.exporter import Facts
from ringmount.daemon.operations import Operation
from ringmount.workers._native import ffi, lib
from ringmount.workers.abi import Opcode
from ringmount.workers.arena import Arena
from ringmount.workers.handles import HandleTable
from ringmount.workers.nodes import NodeTable

EDGES = tuple(operations.CEILINGS.index(1 << n) for n in (*range(13, 31), 32, 34, 36))
"""The buckets of the arena that end a bucket of Prometheus: from 8 us in factors of two to 1 s, of four to 69 s.
Each is the end of one of the arena's, so that every number is exact."""

OUTCOMES = {
    "rescued": "Requests of workers that died which were answered all the same.",
    "retried": "Those of them that were run a second time.",
    "lost": "Requests that a worker's death ended with an error.",
    "quarantined": "Requests that were answered with EIO because workers died of them.",
}
COUNTED = {
    "forgets": "References to nodes that the kernel gave back.",
    "interrupts": "Calls that were interrupted by a signal.",
    "notifications": "Notifications sent to the kernel.",
    "nudges": "Requests made to have the kernel hand out others that waited.",
    "hangs": "Workers replaced because a request hung in them.",
}


class Collector:
    """Reads the arena each time that it is asked."""

    def __init__(self, arena: Arena, facts: Facts) -> None:
        self._arena = arena
        self._facts = facts
        self._counts = Counts(arena)
        self._nodes = NodeTable(arena.address("nodes"), arena.section_size("nodes"), arena.workers)
        self._handles = HandleTable(arena.address("handles"), arena.section_size("handles"), arena.workers)

    def collect(self) -> Iterator[Metric]:
        """The metrics, as prometheus_client wants them."""
        yield from self._mount()
        yield from self._operations()
        yield from self._workers()
        yield from self._processes()

    def _mount(self) -> Iterator[Metric]:
        facts, counts = self._facts, self._counts
        info = InfoMetricFamily("ringmount", "The mount, as it is served.", labels=["mount"])
        info.add_metric([facts.mount], facts.about)
        yield info
        yield self._gauge("start_time_seconds", "When the mount was made, in seconds since 1970.", facts.since)
        yield self._gauge(
            "transport_fallback", "1 if requests come by /dev/fuse because there are no rings.", facts.is_fallback
        )
        if facts.memory_limit is not None:
            yield self._gauge("memory_limit_bytes", "The most memory that a worker may take.", facts.memory_limit)
        if facts.has_nodes:
            yield self._gauge("nodes", "Files and folders that the kernel refers to.", self._nodes.stats().live)
        yield self._gauge("open_files", "Files that are open.", self._handles.live())
        yield self._counter("adoptions", "Supervisors that took the mount over after a death.", facts.adoptions)
        yield self._counter("reloads", "Supervisors that took the mount over on purpose.", facts.reloads)
        for name, what in COUNTED.items():
            yield self._counter(name, what, counts[name])
        yield self._counter("memory_replacements", "Workers replaced because of their memory.", counts["memory"])

    def _operations(self) -> Iterator[Metric]:
        labels = ["mount", "opcode"]
        seconds = HistogramMetricFamily(
            "ringmount_request_seconds",
            "From when a worker took a request until its reply was handed in.",
            labels=labels,
        )
        errors = CounterMetricFamily(
            "ringmount_errors", "Replies with an errno, ENOENT of a name that is not there included.", labels=labels
        )
        for operation in operations.read(self._arena):
            where = [self._facts.mount, operation.opcode]
            seconds.add_metric(where, buckets(operation), operation.total_ns / 1e9)
            errors.add_metric(where, operation.errors)
        yield seconds
        yield errors

    def _workers(self) -> Iterator[Metric]:
        records = [self._arena.worker(index) for index in range(self._arena.workers)]
        labels = ["mount", "worker"]
        requests = CounterMetricFamily("ringmount_requests", "Requests that were answered.", labels=labels)
        deaths = CounterMetricFamily("ringmount_worker_deaths", "Deaths of workers.", labels=labels)
        in_use = GaugeMetricFamily("ringmount_entries_in_use", "Requests in flight.", labels=labels)
        entries = GaugeMetricFamily(
            "ringmount_entries",
            "Requests that can be in flight; further ones wait in the kernel.",
            labels=labels,
        )
        oldest = GaugeMetricFamily(
            "ringmount_oldest_request_seconds",
            "Age of the oldest request in flight; locks that wait are left out.",
            labels=labels,
        )
        for index, record in enumerate(records):
            where = [self._facts.mount, str(index)]
            own = list(self._arena.entries_of(index))
            requests.add_metric(where, record.requests)
            deaths.add_metric(where, record.deaths)
            in_use.add_metric(where, sum(map(self._is_in_flight, own)))
            entries.add_metric(where, len(own))
            oldest.add_metric(where, self._oldest(index))
        yield from (requests, deaths, in_use, entries, oldest)
        volume = CounterMetricFamily(
            "ringmount_bytes", "Bytes of file contents in replies and requests.", labels=["mount", "direction"]
        )
        volume.add_metric([self._facts.mount, "read"], sum(record.bytes_read for record in records))
        volume.add_metric([self._facts.mount, "written"], sum(record.bytes_written for record in records))
        yield volume
        for name, what in OUTCOMES.items():
            yield self._counter(f"requests_{name}", what, sum(getattr(record, name) for record in records))
        serving = sum(record.state == IS_SERVING for record in records)
        yield self._gauge("workers", "Workers that there should be.", len(records))
        yield self._gauge("workers_serving", "Workers that serve.", serving)

    def _processes(self) -> Iterator[Metric]:
        labels = ["mount", "process"]
        memory = GaugeMetricFamily("ringmount_resident_memory_bytes", "Memory of a process.", labels=labels)
        cpu = CounterMetricFamily("ringmount_cpu_seconds", "CPU time of a process, user and system.", labels=labels)
        pids = {"supervisor": self._facts.supervisor}
        pids |= {f"worker {index}": self._arena.worker(index).pid for index in range(self._arena.workers)}
        for name, pid in pids.items():
            with contextlib.suppress(psutil.Error, ValueError):
                process = psutil.Process(pid)
                times = process.cpu_times()
                memory.add_metric([self._facts.mount, name], process.memory_info().rss)
                cpu.add_metric([self._facts.mount, name], times.user + times.system)
        yield memory
        yield cpu

    def _is_in_flight(self, entry: int) -> bool:
        return self._arena.c.journal[entry].state in (lib.RM_DELIVERED, lib.RM_STARTED)

    def _oldest(self, worker: int) -> float:
        since = ffi.new("uint64_t *")
        entry = lib.rm_oldest(self._arena.c, worker, Opcode.SETLKW, since)
        return 0.0 if entry < 0 else max(0.0, (lib.rm_now() - since[0]) / 1e9)

    def _gauge(self, name: str, what: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"ringmount_{name}", what, labels=["mount"])
        family.add_metric([self._facts.mount], value)
        return family

    def _counter(self, name: str, what: str, value: float) -> Metric:
        family = CounterMetricFamily(f"ringmount_{name}", what, labels=["mount"])
        family.add_metric([self._facts.mount], value)
        return family


def buckets(operation: Operation) -> list[tuple[str, float]]:
    """An operation's histogram as Prometheus has them: upper limits in seconds, and how many are below each."""
    counts = [operation.buckets.get(bucket, 0) for bucket in range(operations.BUCKETS)]
    below = list(accumulate(counts))
    edges = [(repr(operations.CEILINGS[edge] / 1e9), float(below[edge])) for edge in EDGES]
    return [*edges, ("+Inf", float(below[-1]))]


def exposition(arena: Arena, facts: Facts) -> Callable[[str], tuple[str, bytes]]:
    """A function from what a client accepts to a content type, and the metrics in it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(arena, facts))

    def text(accept: str) -> tuple[str, bytes]:
        encode, content_type = choose_encoder(accept)
        return content_type, encode(registry)

    return text
