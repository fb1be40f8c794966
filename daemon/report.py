"""What the supervisor tells of its mount when `ringmount status` asks."""

import os
import time
from typing import Any

import psutil

from ringmount.daemon import operations
from ringmount.daemon.children import State
from ringmount.daemon.coherence import Coherence
from ringmount.daemon.connection import Connection
from ringmount.daemon.crew import Crew
from ringmount.daemon.exporter import Exporter
from ringmount.daemon.mount import Mount
from ringmount.daemon.rates import Rates
from ringmount.daemon.reload import Reload
from ringmount.workers._native import lib
from ringmount.workers.api import HandlePolicy


class Report:
    """Called, it makes the answer."""

    def __init__(
        self,
        mount: Mount,
        connection: Connection,
        crew: Crew,
        coherence: Coherence,
        exporter: Exporter,
        reload: Reload,
        rates: Rates,
    ) -> None:
        self._mount = mount
        self._connection = connection
        self._crew = crew
        self._coherence = coherence
        self._exporter = exporter
        self._reload = reload
        self._rates = rates

    def __call__(self) -> dict[str, Any]:
        mount, connection, crew = self._mount, self._connection, self._crew
        return {
            "name": mount.config.name,
            "mountpoint": mount.config.mountpoint,
            "filesystem": mount.config.filesystem,
            "ready": mount.is_ready,
            "pid": os.getpid(),
            "since": mount.since,
            "draining": mount.draining,
            "trace": {
                "readers": mount.tracers,
                "on": any(mount.arena.worker(index).traced for index in range(mount.arena.workers)),
            },
            "adoptions": mount.adoptions,
            "reloads": mount.reloads,
            "transport": connection.transport,
            "transport_reason": connection.transport_reason,
            "data": connection.data,
            "data_reason": connection.data_reason,
            "protocol": None if connection.session is None else f"7.{connection.session.minor}",
            "queues": mount.cpus.possible,
            "queue_depth": mount.config.queue_depth,
            "buffer_bytes": mount.plan.buffer_bytes,
            "nodes": mount.nodes.stats().live if mount.policy is not HandlePolicy.SINGLE else None,
            "workers": self._workers(),
            "rates": self._rates.at(time.monotonic()),
            "operations": [operations.summary(each) for each in operations.read(mount.arena)],
            "spare": crew.spare.pid if crew.spare.state is State.PREPARED else None,
            "watcher": self._coherence.status(),
            "metrics": self._exporter.status(),
            "counts": dict(mount.counts),
            "reload": {
                "attempts": self._reload.attempts,
                "under_way": self._reload.is_under_way,
                "error": self._reload.error,
            },
        }

    def _workers(self) -> list[dict[str, Any]]:
        workers = []
        for worker in self._crew.workers:
            record = self._mount.arena.worker(worker.index)
            workers.append(
                {
                    "index": worker.index,
                    "cpu": worker.cpu,
                    "pid": worker.pid if worker.state is not State.DEAD else None,
                    "state": worker.state.value,
                    "requests": record.requests,
                    "errors": record.errors,
                    "bytes_read": record.bytes_read,
                    "bytes_written": record.bytes_written,
                    "deaths": record.deaths,
                    "rescued": record.rescued,
                    "retried": record.retried,
                    "lost": record.lost,
                    "quarantined": record.quarantined,
                    "trouble": worker.trouble,
                    "in_flight": self._in_flight(worker.index),
                    "entries": sum(1 for _ in self._mount.arena.entries_of(worker.index)),
                    "rss": memory(worker.pid) if worker.state is not State.DEAD else None,
                }
            )
        return workers

    def _in_flight(self, worker: int) -> int:
        journal = self._mount.arena.c.journal
        entries = self._mount.arena.entries_of(worker)
        return sum(1 for i in entries if journal[i].state in (lib.RM_DELIVERED, lib.RM_STARTED))


def memory(pid: int) -> int | None:
    """Bytes that a process has in memory; None for one that has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None
