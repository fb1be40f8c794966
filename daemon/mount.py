"""What all parts of a supervisor know of its mount: settings, machine, arena and its tables, how far it is."""

import os
import time
from enum import Enum

from ringmount.config.model import LogLevel, MountConfig
from ringmount.daemon import machine
from ringmount.daemon.counts import Counts
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.kept import Kept
from ringmount.daemon.machine import Cpus
from ringmount.workers import opens
from ringmount.workers.api import HandlePolicy
from ringmount.workers.arena import Arena
from ringmount.workers.handles import HandleTable
from ringmount.workers.messages import Description
from ringmount.workers.nodes import NodeTable


class Phase(Enum):
    """Where a mount is in its life."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


class Mount:
    """One mount. The arena and the tables in it are there after `make_arena`."""

    def __init__(self, config: MountConfig, search: str | None, description: Description, cpus: Cpus) -> None:
        self.config = config
        self.search = search
        self.description = description
        self.policy = HandlePolicy(description.handle_policy)
        self.cpus = cpus
        self.worker_cpus = machine.worker_cpus(config, cpus, self.policy is HandlePolicy.SINGLE)
        self.plan = machine.plan(config, cpus, self.worker_cpus)
        self.phase = Phase.STARTING
        self.since = time.time()
        """When it was mounted."""
        self.adoptions = 0
        """Supervisors that took it over after a death so far."""
        self.draining: float | None = None
        """Since when it is out of the tree, and ends when nobody uses it any more."""
        self.tracers = 0
        """Those who look on (`ringmount trace`)."""
        self.reloads = 0
        """Those that took it over on purpose."""
        self.log_level = config.log_level
        """The supervisor's, and that of workers that have none of their own."""
        self.worker_log_levels: dict[int, LogLevel] = {}
        """By worker."""
        self.arena: Arena
        self.counts: Counts
        self.nodes: NodeTable
        self.handles: HandleTable
        self.opens: NodeTable

    @property
    def is_ready(self) -> bool:
        """It serves, and is not being stopped."""
        return self.phase is Phase.READY

    def make_arena(self) -> None:
        """Raises Failure."""
        try:
            self.arena = Arena.create(self.plan, self.config.name)
        except OSError as error:
            raise Failure(f"cannot make the arena: {error.strerror}", code=ExitCode.RESOURCES) from error
        self._open_tables()

    def adopt(self, kept: Kept, arena: Arena, is_reload: bool) -> None:
        """Takes over from a predecessor, all of whose workers have ended. Raises Failure.

        `is_reload`: it was this process, and what it had open for open files is open.
        """
        self.since, self.draining = kept.since, kept.draining
        self.adoptions = kept.adoptions + (not is_reload)
        self.reloads = kept.reloads + is_reload
        self.arena = arena
        same = [(depth, owner) for _, depth, owner in arena.queues] == list(
            zip(self.plan.depths, self.plan.owners, strict=True)
        )
        if not same or (arena.payload, arena.workers) != (self.plan.payload, self.plan.workers):
            raise Failure("this machine's CPUs are others than when the mount was made", code=ExitCode.RESOURCES)
        self._open_tables()
        self.nodes.recover()
        self.opens.recover()
        if is_reload:
            for fd in self.files():
                os.set_inheritable(fd, False)
        else:
            self.handles.lose_descriptors()
        arena.section("fd_owners")[:] = bytes(arena.section_size("fd_owners"))
        for index in range(arena.workers):
            self.handles.sweep(index)
            arena.worker(index).traced = 0  # its readers were a predecessor's
            arena.worker(index).died_from_outside = 1  # it is not counted against the requests that they had

    def files(self) -> list[int]:
        """The descriptors of open files in the table that all processes of the mount share (policy `shared`)."""
        return [handle.fd for handle in self.handles.iterate() if handle.fd >= 0]

    def _open_tables(self) -> None:
        arena, nobody = self.arena, len(self.worker_cpus)
        self.counts = Counts(arena)
        self.nodes = NodeTable(arena.address("nodes"), arena.section_size("nodes"), nobody)
        self.opens = opens.table(arena, nobody)
        self.handles = HandleTable(arena.address("handles"), arena.section_size("handles"), nobody)
