"""A real mount, served by `ringmount run` in a process of its own, and the proof that nothing of it is left."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

TRANSPORTS = [pytest.param("io_uring", marks=pytest.mark.ring), "dev_fuse"]
START_PATIENCE = 30.0
WATCHDOG = 90.0
"""Seconds after which a server is killed, so that a hung mount fails a test and does not hang the run."""

LOG_SHOWN = 6000
"""Characters of the server's log that a failed test shows."""


class ServedMount:
    """A mount that serves. `path` is its mountpoint."""

    def __init__(self, path: Path, name: str, process: "subprocess.Popen[str]", log: Path) -> None:
        self.path = path
        self.name = name
        self.process = process
        self.log = log
        self.exit_code = 0
        """How the server is expected to end."""

    def status(self) -> dict[str, Any]:
        """`ringmount status NAME --json`."""
        done = ringmount("status", self.name, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def worker_pids(self) -> list[int]:
        return [worker["pid"] for worker in self.status()["workers"]]

    def requests(self) -> list[int]:
        """Requests that each worker has answered."""
        return [worker["requests"] for worker in self.status()["workers"]]

    def output(self) -> str:
        return self.log.read_text()


def ringmount(*arguments: str, launcher: Sequence[str] = (), **options: Any) -> "subprocess.CompletedProcess[str]":
    """Runs the command to its end."""
    command = [*launcher, sys.executable, "-P", "-m", "ringmount.daemon", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def write_config(folder: Path, name: str, **settings: Any) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


@contextlib.contextmanager
def serve(
    folder: Path,
    *,
    filesystem: str = "memory",
    options: dict[str, Any] | None = None,
    launcher: Sequence[str] = (),
    arguments: Sequence[str] = (),
    patience: float | None = None,
    **settings: Any,
) -> Iterator[ServedMount]:
    """Mounts on a new folder below `folder`; at the end unmounts, and asserts that nothing is left.

    `launcher`: a command in front of the server's; `arguments`: more of `run`; `patience`: seconds until it is killed.
    """
    name = settings.pop("name", f"t{os.getpid()}-{time.monotonic_ns() % 1_000_000_000}")
    mountpoint = folder / f"mnt-{name}"
    mountpoint.mkdir()
    settings = {"mountpoint": str(mountpoint), "filesystem": filesystem, "options": options or {}, **settings}
    file = write_config(folder, name, **settings)
    log = folder / f"{name}.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [*launcher, sys.executable, "-P", "-m", "ringmount.daemon", "run", *arguments, str(file)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            cwd="/",
        )
    watchdog = threading.Timer(patience or WATCHDOG, _kill_session, [process.pid])
    watchdog.daemon = True
    watchdog.start()
    try:
        wait_until_serving(process, log)
        mount = ServedMount(mountpoint, name, process, log)
        try:
            yield mount
        except BaseException as error:
            error.add_note(f"{_state(process)}; its log ends:\n{mount.output()[-LOG_SHOWN:]}")
            raise
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=30)
        assert code == mount.exit_code, f"exit code {code}:\n{log.read_text()}"
        assert_nothing_left(process.pid, mountpoint)
    finally:
        watchdog.cancel()
        _kill_session(process.pid)
        process.wait(timeout=30)
        subprocess.run(["umount", "-l", str(mountpoint)], capture_output=True, timeout=30, check=False)
        (Path("/run/ringmount") / f"{name}.sock").unlink(missing_ok=True)  # of a server that was killed


def wait_until_serving(process: "subprocess.Popen[str]", log: Path) -> None:
    deadline = time.monotonic() + START_PATIENCE
    while " is mounted on " not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"the mount did not come up:\n{log.read_text()}")
        time.sleep(0.02)


def processes_of(session: int) -> list[int]:
    """The processes of a session (setsid(2)), zombies left out."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] not in "ZX":
                    found.append(int(entry))
    return found


def assert_nothing_left(session: int, mountpoint: Path) -> None:
    assert not is_mounted(mountpoint)
    deadline = time.monotonic() + 5
    while processes_of(session) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes_of(session) == []
    assert not list(Path("/run/ringmount").glob(f"{mountpoint.name.removeprefix('mnt-')}.sock"))


def is_mounted(mountpoint: Path) -> bool:
    """Looked up in mountinfo: nothing here touches a mountpoint."""
    return any(line.split()[4] == str(mountpoint) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _state(process: "subprocess.Popen[str]") -> str:
    return "the server runs" if process.poll() is None else f"the server has exited with {process.returncode}"


def _kill_session(session: int) -> None:
    for pid in processes_of(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def on_cpu(cpu: int, *command: str, timeout: float = 30) -> str:
    """Runs a command pinned to a CPU; returns what it prints."""
    done = subprocess.run(
        ["taskset", "-c", str(cpu), *command], capture_output=True, text=True, timeout=timeout, check=True
    )
    return done.stdout
