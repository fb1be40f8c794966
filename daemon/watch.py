"""Looks after the workers at intervals: one whose request hangs, that takes no turn or too much memory, is replaced."""

import logging
import math
import signal
from typing import Any

import psutil

from ringmount.daemon import hangs, text
from ringmount.daemon.children import State, WorkerProcess
from ringmount.daemon.crew import PREPARE_PATIENCE, Crew
from ringmount.daemon.loop import Loop
from ringmount.daemon.mount import Mount
from ringmount.workers import abi, codec, death, events, messages
from ringmount.workers._native import ffi, lib
from ringmount.workers.api import HandlePolicy

MEMORY_INTERVAL = 0.5
"""Seconds between two looks at the workers' memory."""
LEAST_AGE = 2.0
"""Seconds for which a new worker's memory is not looked at."""
RETIRE_PATIENCE = 5.0
"""Seconds for requests in flight to be answered before their worker is replaced all the same."""

log = logging.getLogger(__name__)


class Watch:
    """Looks once the mount is ready, if it has a request timeout or a limit of memory."""

    def __init__(self, mount: Mount, loop: Loop, crew: Crew) -> None:
        self._mount = mount
        self._crew = crew
        self._next = 0.0
        self._interval = hangs.interval(mount.config.timeouts.request) if mount.config.timeouts.request else math.inf
        self._limit = mount.config.memory_limit
        if self._limit is not None and mount.policy is HandlePolicy.SINGLE:
            log.warning("memory_limit has no effect: this filesystem's one worker cannot be replaced without a loss")
            self._limit = None
        if self._limit is not None:
            self._interval = min(self._interval, MEMORY_INTERVAL)
        if self._interval < math.inf:
            loop.duties.append(self._look)

    def _look(self, now: float) -> float | None:
        if not self._mount.is_ready:
            return None
        if now >= self._next:
            self._next = now + self._interval
            for worker in self._crew.workers:
                if worker.state is not State.DEAD:
                    self._look_at(worker, now)
                if worker.state is State.SERVING and self._limit is not None:
                    self._weigh(worker, self._limit, now)
        return self._next

    def _look_at(self, worker: WorkerProcess, now: float) -> None:
        """Replaces a worker in which a request hangs, or that takes no turn. SETLKW may wait as long as it likes."""
        if worker.state is not State.SERVING and now - worker.began < PREPARE_PATIENCE:
            return
        arena = self._mount.arena
        since = ffi.new("uint64_t *")
        index = lib.rm_oldest(arena.c, worker.index, abi.Opcode.SETLKW, since)
        # A successor has had a request since it began, whenever that came.
        age = None if index < 0 else min((lib.rm_now() - since[0]) / 1e9, now - worker.began)
        silence = worker.silence(arena, now) if worker.state is State.SERVING else None
        longest = max((seconds for seconds in (age, silence) if seconds is not None), default=None)
        match hangs.step(longest, self._mount.config.timeouts.request, worker.asked_to_die, now):
            case hangs.Step.REPLACE:
                what = "takes no turn" if index < 0 else self._describe_request(index)
                what_now = "worker %d hangs: %s for %.1f s; it is replaced, and its stacks follow"
                log.error(what_now, worker.index, what, longest, extra=self._about(worker, index))
                self._mount.counts["hangs"] += 1
                worker.asked_to_die = now
                worker.kill(death.REPLACE)
                worker.kill(signal.SIGCONT)  # a stopped process would not hear of it
            case hangs.Step.KILL:
                log.error("worker %d does not die: killing it", worker.index, extra=worker.about())
                worker.kill()

    def _weigh(self, worker: WorkerProcess, limit: int, now: float) -> None:
        """Replaces a worker that takes more memory than it may; what is shared with others does not count."""
        if worker.asked_to_retire is not None:
            if now - worker.asked_to_retire > RETIRE_PATIENCE:
                worker.kill(death.REPLACE)
            return
        if now - worker.began < LEAST_AGE:  # one that needs so much from the start is not replaced without end
            return
        try:
            memory = psutil.Process(worker.pid).memory_info()
        except psutil.Error:
            return
        taken = memory.rss - memory.shared
        if taken > limit:
            log.warning(
                "worker %d takes %s of memory, memory_limit is %s: it is replaced",
                worker.index,
                text.size(taken),
                text.size(limit),
                extra=worker.about(events.WORKER_OVER_MEMORY),
            )
            self._mount.counts["memory"] += 1
            worker.asked_to_retire = now
            worker.outbox.send(messages.Retire())

    def _about(self, worker: WorkerProcess, index: int) -> dict[str, Any]:
        if index < 0:
            return worker.about(events.HANG)
        header = codec.decode_header(bytes(self._mount.arena.c.journal[index].header))
        return events.about(
            events.HANG,
            worker=worker.index,
            cpu=worker.cpu,
            opcode=header.opcode,
            nodeid=header.nodeid,
            unique=header.unique,
        )

    def _describe_request(self, index: int) -> str:
        header = codec.decode_header(bytes(self._mount.arena.c.journal[index].header))
        name = abi.Opcode(header.opcode).name
        return f"{name} (request {header.unique}) of node {header.nodeid} for process {header.pid}"
