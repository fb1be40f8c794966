"""Clients of a mount, each in a process of its own: a call that never returns fails a test and does not hang it.

Also how the small filesystems of `filesystems.py` are served, and what their workers said.
"""

import contextlib
import errno
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mount.support import ServedMount, serve

from ringmount.daemon import asked, control, places

PATIENCE = 10.0
"""Seconds for a client's call, and for what is waited for."""

_kept: list["subprocess.Popen[str]"] = []
"""Clients that could not be killed: a reference, lest the interpreter complain of them."""


@contextlib.contextmanager
def serve_class(folder: Path, name: str, **settings: Any) -> Iterator[ServedMount]:
    """Serves the class of this name in `filesystems.py`. `options`: its own ones instead of the folder."""
    shutil.copy(Path(__file__).with_name("filesystems.py"), folder / "mountfs.py")
    options = settings.pop("options", {"folder": str(folder)})
    with serve(folder, filesystem=f"mountfs:{name}", options=options, **settings) as mount:
        yield mount


def events(folder: Path) -> list[list[str]]:
    """What workers said so far: for each line the worker's number and its words."""
    try:
        return [line.split() for line in (folder / "events").read_text().splitlines()]
    except FileNotFoundError:
        return []


def said(folder: Path, *words: object) -> list[int]:
    """The workers that said these words, in order."""
    wanted = [str(word) for word in words]
    return [int(worker) for worker, *rest in events(folder) if rest[: len(wanted)] == wanted]


def wait_for(condition: Callable[[], Any], what: str = "", seconds: float = PATIENCE) -> Any:
    """Waits until the condition holds and returns what it returned."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what or condition}"
        time.sleep(0.005)
    return found


class Client:
    """A process that runs a piece of Python with `arguments` as sys.argv[1:], on one CPU if `cpu` is given."""

    def __init__(self, code: str, *arguments: object, cpu: int | None = None) -> None:
        pin = "" if cpu is None else f"import os; os.sched_setaffinity(0, [{cpu}])\n"
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", pin + code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def is_done(self) -> bool:
        return self.process.poll() is not None

    def result(self, seconds: float = PATIENCE) -> str:
        """What it printed, once it has ended well."""
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the client hangs: {state_of(self.pid)}") from None
        assert self.process.returncode == 0, err
        return out

    def end(self) -> None:
        """Kills it if it still runs. One that the mount keeps is left to die with the mount."""
        self.process.kill()
        try:
            self.process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
                assert pipe is not None
                pipe.close()
            _kept.append(self.process)


@contextlib.contextmanager
def client(code: str, *arguments: object, cpu: int | None = None) -> Iterator[Client]:
    """A `Client` that does not outlive the block."""
    started = Client(code, *arguments, cpu=cpu)
    try:
        yield started
    finally:
        started.end()


def call(code: str, *arguments: object, cpu: int | None = None, seconds: float = PATIENCE) -> str:
    """Runs a `Client` to its end and returns what it printed."""
    with client(code, *arguments, cpu=cpu) as started:
        return started.result(seconds)


CALLER = """
import errno, json, os, sys
from pathlib import Path
for line in sys.stdin:
    try:
        answer = [eval(line), None]
    except OSError as error:
        answer = [None, errno.errorcode[error.errno]]
    print(json.dumps(answer), flush=True)
"""


class Caller(Client):
    """A process that evaluates one Python expression after the other, each with a time limit."""

    def __init__(self, cpu: int | None = None) -> None:
        super().__init__(CALLER, cpu=cpu)

    def begin(self, expression: str) -> None:
        """Sends an expression; `finish` brings its value. `os`, `json` and `Path` are imported."""
        assert self.process.stdin is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()

    def finish(self, seconds: float = PATIENCE) -> Any:
        """The value of the expression begun. Raises OSError as the expression did."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            raise AssertionError(f"the client hangs: {state_of(self.pid)}")
        line = self.process.stdout.readline()
        assert line, "the client died: " + self.process.communicate()[1]
        value, error = json.loads(line)
        if error is not None:
            raise OSError(getattr(errno, error), os.strerror(getattr(errno, error)))
        return value

    def ask(self, expression: str, seconds: float = PATIENCE) -> Any:
        """The value of an expression. Raises OSError as it does."""
        self.begin(expression)
        return self.finish(seconds)


@contextlib.contextmanager
def caller(cpu: int | None = None) -> Iterator[Caller]:
    """A `Caller` that does not outlive the block."""
    started = Caller(cpu)
    try:
        yield started
    finally:
        started.end()


def state_of(pid: int) -> str:
    """A process's state and where in the kernel it waits, for a failed test's message."""
    found = []
    for name in ("stat", "wchan", "stack"):
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{pid}/{name}").read_text().strip())
    return "\n".join(found)


@contextlib.contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """These processes do nothing meanwhile (SIGSTOP)."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def status(mount: ServedMount) -> dict[str, Any]:
    """What `ringmount status` would print, without the time that a process takes."""
    return dict(control.ask(places.socket_path(mount.name), asked.Status()))


def requests(mount: ServedMount) -> list[int]:
    """Requests that each worker has answered."""
    return [worker["requests"] for worker in status(mount)["workers"]]


def worker_pids(mount: ServedMount) -> list[int]:
    return [worker["pid"] for worker in status(mount)["workers"]]


def cpus() -> list[int]:
    """The CPUs that workers run on."""
    return sorted(os.sched_getaffinity(0))
