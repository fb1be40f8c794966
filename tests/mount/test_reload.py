"""`ringmount reload`: new code and settings under a running mount, or the old ones go on and it says why."""

import contextlib
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from mount.clients import call, client, cpus, serve_class, status, wait_for
from mount.filesystems import content
from mount.support import TRANSPORTS, ServedMount, processes_of, ringmount, serve

CPUS = cpus()
READ = "import sys; sys.stdout.write(open(sys.argv[1]).read(8))"
PATIENCE = 40.0
both = pytest.mark.parametrize("transport", TRANSPORTS)

STORM = """
import os, select, sys
root = sys.argv[1]
kept = os.open(f"{root}/kept", os.O_RDWR | os.O_CREAT)
nameless = os.open(f"{root}/nameless{os.getpid()}", os.O_RDWR | os.O_CREAT)
os.write(nameless, b"still here")
os.unlink(f"{root}/nameless{os.getpid()}")
print("ready", flush=True)
rounds = 0
while not select.select([0], [], [], 0)[0]:
    name = f"{root}/{os.getpid()}-{rounds % 7}"
    with open(name, "w") as file:
        file.write(str(rounds))
    assert open(name).read() == str(rounds)
    os.rename(name, name + "x")
    assert os.stat(name + "x").st_size == len(str(rounds))
    os.unlink(name + "x")
    assert os.pread(nameless, 100, 0) == b"still here"
    assert os.pwrite(kept, b"%8d" % rounds, 0) == 8
    rounds += 1
print(rounds)
"""


def reload(mount: ServedMount) -> "subprocess.CompletedProcess[str]":
    return ringmount("reload", mount.name)


def change(mount: ServedMount, folder: Path, **settings: Any) -> None:
    file = folder / f"{mount.name}.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **settings}))


@both
@pytest.mark.parametrize("arguments", [(), ("--keep",)])
def test_nobody_notices_a_reload(tmp_path: Path, transport: str, arguments: tuple[str, ...]) -> None:
    (tmp_path / "source").mkdir()
    options = {"source": str(tmp_path / "source")}
    settings: dict[str, Any] = {"transport": transport, "arguments": arguments}
    with (
        serve(tmp_path, filesystem="passthrough", options=options, **settings) as mount,
        contextlib.ExitStack() as clients,
    ):
        storms = [clients.enter_context(client(STORM, mount.path, cpu=cpu)) for cpu in CPUS[:2]]
        for storm in storms:
            assert storm.process.stdout is not None
            assert storm.process.stdout.readline() == "ready\n"
        before = status(mount)
        for _ in range(2):
            done = reload(mount)
            assert done.returncode == 0, done.stderr
        after = status(mount)
        for storm in storms:
            assert storm.process.stdin is not None
            storm.process.stdin.write("\n")
            storm.process.stdin.flush()
        assert all(int(storm.result(PATIENCE)) > 0 for storm in storms)
        assert (after["pid"], after["reloads"], after["adoptions"]) == (before["pid"], 2, 0)
        assert after["since"] == before["since"]
        everybody = 2 + len(after["workers"]) + 1 + len(arguments)
        wait_for(lambda: len(processes_of(mount.process.pid)) == everybody)


@both
def test_new_code_answers_after_a_reload(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "Tree", transport=transport, log_level="debug") as mount:
        code = tmp_path / "mountfs.py"
        code.write_text(code.read_text() + "\ndef content(number, start, size):\n    return b'new code' * 512\n")
        change(mount, tmp_path, log_level="info")
        mount.process.send_signal(signal.SIGHUP)
        wait_for(lambda: reloads(mount) == 1, seconds=PATIENCE)
        assert call(READ, mount.path / "f3", cpu=CPUS[0]) == "new code"


def reloads(mount: ServedMount) -> int | None:
    try:
        now = status(mount)
    except Exception:  # nobody listens in between
        return None
    return int(now["reloads"]) if now["ready"] else None


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"queue_depth": 3, "read_only": True}, "queue_depth, read_only cannot change"),
        ({"nonsense": 1}, "nonsense"),
        ({"options": {"nonsense": 1}}, "nonsense"),
    ],
)
def test_settings_that_cannot_be_had_change_nothing(tmp_path: Path, settings: dict[str, Any], why: str) -> None:
    with serve_class(tmp_path, "Tree") as mount:
        change(mount, tmp_path, **settings)
        assert_refused(mount, why)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise ImportError('half an upgrade')", "half an upgrade"),
        ("Tree.__init__ = lambda self, options, mount: 1 / 0", "cannot be made: ZeroDivisionError"),
        ("Tree.handle_policy = HandlePolicy.SINGLE", "handle_policy cannot change"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    ],
)
def test_code_that_does_not_work_changes_nothing(tmp_path: Path, code: str, why: str) -> None:
    with serve_class(tmp_path, "Tree") as mount:
        file = tmp_path / "mountfs.py"
        file.write_text(f"{file.read_text()}\n{code}\n")
        assert_refused(mount, why)


def assert_refused(mount: ServedMount, why: str) -> None:
    """The old workers go on, and the reason is said by the command, in the log and in `status`."""
    before = status(mount)
    done = reload(mount)
    assert done.returncode == 3
    assert why in done.stderr
    after = status(mount)
    assert [worker["pid"] for worker in after["workers"]] == [worker["pid"] for worker in before["workers"]]
    assert after["reloads"] == 0
    assert why in after["reload"]["error"]
    assert why in mount.output()
    assert call(READ, mount.path / "f0", cpu=CPUS[0]) == content(2, 0, 8).decode()
