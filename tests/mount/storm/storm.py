"""Clients call on a mount without pause while its workers are made to die, one every so often: what the clients saw."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mount.clients import cpus, state_of, status, wait_for
from mount.support import ServedMount, processes_of, ringmount, serve

from ringmount.workers import death

HERE = Path(__file__).parent
HANG = signal.SIGVTALRM  # see stormfs.py
KINDLY = (signal.SIGSEGV, signal.SIGABRT, HANG, death.REPLACE)
"""Deaths that lose nothing."""
HARSHLY = (signal.SIGKILL,)
SUPERVISOR, TREE, RELOAD = 1, 2, 3
"""For `Trees`."""
PATIENCE = 30.0
CLIENTS = 6


@dataclass
class Storm:
    """What became of it."""

    deaths: int = 0
    calls: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    slowest: float = 0.0
    slowest_call: str = ""
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    def count(self, name: str) -> int:
        """`rescued`, `retried`, `lost`, `quarantined`, of all workers."""
        return sum(worker[name] for worker in self.status["workers"])


@contextlib.contextmanager
def serve_storm(folder: Path, transport: str, **settings: Any) -> Iterator[tuple[ServedMount, Path]]:
    """A passthrough mount whose workers can be made to hang, and the folder that it shows, in memory."""
    source = Path("/dev/shm") / f"ringmount-storm-{os.getpid()}-{time.monotonic_ns()}"
    source.mkdir()
    shutil.copy(HERE / "stormfs.py", folder / "stormfs.py")
    settings = {"timeouts": {"request": 0.25, "attr": 0, "entry": 0}, "cache": "none", **settings}
    try:
        with serve(
            folder,
            filesystem="stormfs:Hanging",
            options={"source": str(source)},
            transport=transport,
            patience=3600,
            **settings,
        ) as mount:
            yield mount, source
    finally:
        shutil.rmtree(source, ignore_errors=True)


class Victims:
    """Makes one worker after the other die."""

    def __init__(self, mount: ServedMount, ways: Sequence[int]) -> None:
        self._mount = mount
        self._ways = ways
        self.deaths = 0

    def kill_one(self) -> None:
        """The next worker, in the next way. Waits until it is there, not until it is dead."""

        def serving() -> int:
            workers = status(self._mount)["workers"]
            worker = workers[self.deaths % len(workers)]
            return int(worker["pid"]) if worker["state"] == "serving" else 0

        pid = wait_for(serving, "the next worker to serve", PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, self._ways[self.deaths // 2 % len(self._ways)])
        self.deaths += 1


class Trees(Victims):
    """Has the supervisor of a mount with a holder replaced, with all of its workers or without: `ways` says how often
    which of SUPERVISOR, TREE, RELOAD."""

    def kill_one(self) -> None:
        """The next one. Waits until its successor serves."""
        before = status(self._mount)
        way = self._ways[self.deaths % len(self._ways)]
        counter = "reloads" if way == RELOAD else "adoptions"
        if way == RELOAD:
            done = ringmount("reload", self._mount.name)
            assert done.returncode == 0, done.stderr
        else:
            spared = {self._mount.process.pid, before["pid"]}
            others = [pid for pid in processes_of(self._mount.process.pid) if pid not in spared]
            for pid in [before["pid"], *(others if way == TREE else [])]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

        def is_replaced() -> bool:
            try:
                now = status(self._mount)
            except Exception:  # nobody listens in between
                return False
            serving = all(worker["state"] == "serving" for worker in now["workers"])
            return bool(serving and now["ready"] and now[counter] == before[counter] + 1)

        wait_for(is_replaced, "a successor", PATIENCE)
        self.deaths += 1


def rage(
    mount: ServedMount,
    source: Path,
    ways: Sequence[int],
    deaths: int,
    interval: float,
    seed: int = 0,
    kind: type[Victims] = Victims,
) -> Storm:
    """`deaths`, one every `interval` seconds, while the clients call; then everything is compared."""
    result = Storm()
    places = cpus()
    actors = []
    for i in range(CLIENTS):
        (source / f"c{i}").mkdir(exist_ok=True)
        command = [
            sys.executable,
            "-I",
            "-S",
            HERE / "actor.py",
            mount.path / f"c{i}",
            seed + i,
            places[i % len(places)],
        ]
        actors.append(
            subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
            )
        )
    try:
        victims = kind(mount, ways)
        due = time.monotonic()
        while victims.deaths < deaths:
            due = max(due + interval, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
            victims.kill_one()
        wait_for(lambda: all(worker["state"] == "serving" for worker in status(mount)["workers"]), seconds=PATIENCE)
        for i, actor in enumerate(actors):
            gather(result, actor, source / f"c{i}")
        result.deaths = victims.deaths
        result.status = status(mount)
    finally:
        for actor in actors:
            actor.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                actor.communicate(timeout=1)
    return result


def gather(result: Storm, actor: "subprocess.Popen[str]", folder: Path) -> None:
    """Has an actor stop, adds what it saw, and compares its files with those in `folder`, beneath the mount."""
    try:
        out, _ = actor.communicate("stop\n", timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        result.hung.append(state_of(actor.pid))
        return
    if actor.returncode:
        result.wrong.append(f"an actor ended with {actor.returncode}")
        return
    said = json.loads(out)
    result.calls += said["calls"]
    result.failures.update(f"{action} {error}" for action, error in said["failures"])
    result.wrong += said["wrong"]
    if said["slowest"] > result.slowest:
        result.slowest, result.slowest_call = said["slowest"], said["slowest_call"]
    there = {path.name: None if path.is_dir() else path.read_bytes().hex() for path in folder.iterdir()}
    if there != said["files"]:
        names = sorted(
            name for name in there.keys() | said["files"].keys() if there.get(name) != said["files"].get(name)
        )
        result.wrong.append(f"beneath: {names}")
