"""What workers are asked when a mount hangs: the stacks of their threads, and where their coroutines wait.

The rule a change must keep: nothing waits for a worker. Each question goes out, the loop goes on, and after a deadline
the client gets what has come; of a thread that has not answered, what the kernel says of it.
"""

import contextlib
import itertools
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from ringmount.daemon import inflight
from ringmount.daemon.asked import Paths, Stacks
from ringmount.daemon.children import State, WorkerProcess
from ringmount.daemon.control import LATER, Client
from ringmount.daemon.crew import Crew
from ringmount.daemon.inflight import InFlight
from ringmount.daemon.loop import Loop
from ringmount.daemon.mount import Mount
from ringmount.workers import explain, messages
from ringmount.workers._native import lib

PATIENCE = 0.4
"""Seconds for workers' loops to answer."""
STACKS_PATIENCE = 0.8
"""Seconds for threads to write their stacks: on a busy machine they wait for a CPU first."""
INTERVAL = 0.01
MOST_ROUNDS = 16
MOST_THREADS = 64
MOST_BYTES = 256 << 10
"""Read of what a worker's threads wrote."""
MOST_NODES = 512


class Thread(msgspec.Struct):
    """One thread of a worker. `stack`: None if it did not answer; the innermost call first, empty if it is no Python's.

    `state` and `waits_in` are the kernel's words (proc(5): stat, wchan).
    """

    tid: int
    state: str
    waits_in: str
    stack: list[str] | None


class Explained(msgspec.Struct):
    """One worker: its threads, and by request (its unique) where its coroutine waits."""

    worker: int
    pid: int
    threads: list[Thread]
    coroutines: dict[int, list[str]]


class Insight(msgspec.Struct):
    """The answer to `Stacks`. `paths`: by nodeid, of nodes in flight whose path is known."""

    requests: list[InFlight]
    workers: list[Explained]
    paths: dict[int, str]


class _Round:
    """One question to all workers that serve."""

    def __init__(self, token: int, client: Client, nodes: list[int], with_stacks: bool) -> None:
        self.token = token
        self.client = client
        self.nodes = nodes
        self.with_stacks = with_stacks
        self.began = time.monotonic()
        self.paths: dict[int, str] = {}
        self.coroutines: dict[int, dict[int, list[str]]] = {}
        """By worker, from those that have answered."""
        self.threads: dict[int, set[int]] = {}
        """By worker, those that were asked."""
        self.requests: list[InFlight] = []


class Insights:
    """Asks the workers, and gathers."""

    def __init__(self, mount: Mount, loop: Loop, crew: Crew) -> None:
        self._mount = mount
        self._crew = crew
        self._tokens = itertools.count(1)
        self._rounds: dict[int, _Round] = {}
        loop.duties.append(self._look)

    def stacks(self, question: Stacks, client: Client) -> Any:
        """The command."""
        requests = inflight.requests(self._mount.arena)
        nodes = list(dict.fromkeys(request.nodeid for request in requests))[:MOST_NODES]
        return self._begin(client, nodes, requests)

    def paths(self, question: Paths, client: Client) -> Any:
        """The command."""
        return self._begin(client, question.nodes[:MOST_NODES], None)

    def heard(self, worker: WorkerProcess, message: messages.Explained) -> None:
        """A worker has answered."""
        round = self._rounds.get(message.token)
        if round is None:
            return
        round.coroutines[worker.index] = message.stacks
        for node, path in message.paths.items():
            round.paths.setdefault(node, path.decode("utf-8", "backslashreplace"))

    def _begin(self, client: Client, nodes: list[int], requests: list[InFlight] | None) -> Any:
        if len(self._rounds) >= MOST_ROUNDS:
            client.refuse("too many are asking already")
            return LATER
        round = _Round(next(self._tokens), client, nodes, requests is not None)
        self._rounds[round.token] = round
        client.on_gone = lambda: self._forget(round)
        if requests is not None:
            round.requests = requests
        is_first = sum(other.with_stacks for other in self._rounds.values()) == round.with_stacks
        for worker in self._crew.workers:
            if worker.state is State.SERVING:
                if not len(worker.outbox):  # one that takes no mail is not sent more and more
                    worker.outbox.send(messages.Explain(round.token, nodes))
                round.threads[worker.index] = _ask(worker, afresh=is_first) if round.with_stacks else set()
        return LATER

    def _forget(self, round: _Round) -> None:
        self._rounds.pop(round.token, None)

    def _look(self, now: float) -> float | None:
        for round in list(self._rounds.values()):
            workers = [worker for worker in self._crew.workers if worker.index in round.threads]
            if not self._is_over(round, workers, now - round.began):
                continue
            del self._rounds[round.token]
            if round.with_stacks:
                round.client.answer(Insight(round.requests, [_explained(round, one) for one in workers], round.paths))
            else:
                round.client.answer(round.paths)
        return now + INTERVAL if self._rounds else None

    @staticmethod
    def _is_over(round: _Round, workers: list[WorkerProcess], age: float) -> bool:
        """Whether all have said all, or had the time; or, where paths are all that is wanted, any has said them."""
        serving = [worker for worker in workers if worker.state is State.SERVING]
        if not round.with_stacks and round.paths.keys() >= set(round.nodes):
            return True
        if age < PATIENCE and any(worker.index not in round.coroutines for worker in serving):
            return False
        return age >= STACKS_PATIENCE or all(
            round.threads[worker.index] & _threads(worker.pid) <= _told(worker).keys() for worker in serving
        )


def _ask(worker: WorkerProcess, *, afresh: bool) -> set[int]:
    """Has each of a worker's threads write its stack. Returns those that were asked."""
    asked = set()
    with contextlib.suppress(OSError):
        if afresh:
            os.ftruncate(worker.stacks_fd, 0)
        for name in os.listdir(f"/proc/{worker.pid}/task")[:MOST_THREADS]:
            tid = int(name)
            # One that has not taken the last signal is not sent another: they would queue up.
            if not _is_asked(worker.pid, tid) and lib.rm_ask_stack(worker.pid, tid, int(explain.SIGNAL)) == 0:
                asked.add(tid)
    return asked


def _is_asked(pid: int, tid: int) -> bool:
    """Whether the signal waits for this thread (proc(5), SigPnd)."""
    for line in _read(f"/proc/{pid}/task/{tid}/status").splitlines():
        if line.startswith("SigPnd:"):
            return bool(int(line.split()[1], 16) >> (explain.SIGNAL - 1) & 1)
    return False


def _told(worker: WorkerProcess) -> dict[int, list[str]]:
    """By thread, the stacks that a worker's threads have written since they were asked."""
    try:
        text = os.pread(worker.stacks_fd, MOST_BYTES, 0).decode("ascii", "backslashreplace")
    except OSError:
        return {}
    return stacks_in(text)


def stacks_in(text: str) -> dict[int, list[str]]:
    """By thread, the last stack that is whole (native/stacks.c). A worker may write what it likes."""
    told: dict[int, list[str]] = {}
    stack: list[str] = []
    for line in text.split("\n")[:-1]:
        if line.startswith("@"):
            stack = []
        elif line.startswith("!") and line[1:].isdecimal() and len(line) < 12:
            told[int(line[1:])] = stack
            stack = []
        elif line.startswith("  "):
            stack.append(line.strip())
    return told


def _explained(round: _Round, worker: WorkerProcess) -> Explained:
    told = _told(worker) if worker.state is State.SERVING else {}
    threads = [_thread(worker.pid, tid, told.get(tid)) for tid in sorted(_threads(worker.pid) | told.keys())]
    return Explained(worker.index, worker.pid, threads, round.coroutines.get(worker.index, {}))


def _threads(pid: int) -> set[int]:
    with contextlib.suppress(OSError):
        return {int(name) for name in os.listdir(f"/proc/{pid}/task")[:MOST_THREADS]}
    return set()


def _thread(pid: int, tid: int, stack: list[str] | None) -> Thread:
    place = f"/proc/{pid}/task/{tid}"
    state = _read(f"{place}/stat").rpartition(")")[2][:2].strip()
    waits_in = _read(f"{place}/wchan")
    return Thread(tid, state, "" if waits_in == "0" else waits_in, stack)


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(errors="backslashreplace")
    return ""
