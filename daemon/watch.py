"""Looks after the workers at intervals: one whose request hangs, or that takes no turn, is replaced."""

import logging
import signal

from ringmount.daemon import hangs
from ringmount.daemon.children import State, WorkerProcess
from ringmount.daemon.crew import PREPARE_PATIENCE, Crew
from ringmount.daemon.loop import Loop
from ringmount.daemon.mount import Mount
from ringmount.workers import abi, codec, death
from ringmount.workers._native import ffi, lib

log = logging.getLogger(__name__)


class Watch:
    """Looks once the mount is ready, if it has a request timeout."""

    def __init__(self, mount: Mount, loop: Loop, crew: Crew) -> None:
        self._mount = mount
        self._crew = crew
        self._next = 0.0
        if mount.config.timeouts.request:
            loop.duties.append(self._look)

    def _look(self, now: float) -> float | None:
        if not self._mount.is_ready:
            return None
        if now >= self._next:
            self._next = now + hangs.interval(self._mount.config.timeouts.request)
            for worker in self._crew.workers:
                if worker.state is not State.DEAD:
                    self._look_at(worker, now)
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
                log.error("worker %d hangs: %s for %.1f s; its stacks, and another:", worker.index, what, longest)
                self._mount.counts["hangs"] += 1
                worker.asked_to_die = now
                worker.kill(death.REPLACE)
                worker.kill(signal.SIGCONT)  # a stopped process would not hear of it
            case hangs.Step.KILL:
                log.error("worker %d does not die: killing it", worker.index)
                worker.kill()

    def _describe_request(self, index: int) -> str:
        header = codec.decode_header(bytes(self._mount.arena.c.journal[index].header))
        name = abi.Opcode(header.opcode).name
        return f"{name} (request {header.unique}) of node {header.nodeid} for process {header.pid}"
