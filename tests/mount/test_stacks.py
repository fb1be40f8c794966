"""`ringmount ps --stack`: where each handler is, whatever it hangs in, and what asking does to it: nothing."""

import functools
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from mount.clients import client, cpus, said, serve_class, status, stopped, wait_for, worker_pids
from mount.support import TRANSPORTS, ServedMount, ringmount, serve

from ringmount.daemon import asked, control, places, ps
from ringmount.daemon.insight import Insight

CPUS = cpus()
READ = "import sys; sys.stdout.write(open(sys.argv[1]).read(8))"
READLINK = "import os, sys; print(os.readlink(sys.argv[1]))"
both = pytest.mark.parametrize("transport", TRANSPORTS)

STUCK = """
import ctypes, os, stat
from ringmount.workers.api import ROOT, Attr, Entry, Filesystem, NodeId

HOLDS_THE_LOCK = ctypes.PyDLL(None)
NODES = {b"loop": 2, b"call": 3, b"native": 4}

class Stuck(Filesystem):
    def lookup(self, ctx, parent, name):
        if name not in NODES:
            raise FileNotFoundError(2, "none")
        return Entry(NodeId(NODES[name]), self.getattr(ctx, NodeId(NODES[name]), None))

    def getattr(self, ctx, node, fh):
        return Attr(st_ino=node, st_mode=stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFLNK | 0o777)

    def path_of(self, node):
        return {number: b"/" + name for name, number in NODES.items()}.get(node)

    def readlink(self, ctx, node):
        if node == 2:
            return in_a_loop()
        fd = os.open(os.environ["FIFO"], os.O_RDWR)
        try:
            return in_a_call(fd) if node == 3 else in_native_code(fd)
        finally:
            os.close(fd)

def in_a_loop():
    while not os.path.exists(os.environ["FIFO"] + ".go"):
        pass
    return b"went on"

def in_a_call(fd):
    return os.read(fd, 100)

def in_native_code(fd):
    buffer = ctypes.create_string_buffer(100)
    size = HOLDS_THE_LOCK.read(fd, buffer, 100)
    return buffer.raw[:size]

class Pool(Stuck):
    threads = 4
"""
PLACES = {"loop": "in in_a_loop", "call": "in in_a_call", "native": "in in_native_code"}


def stack_through(mount: ServedMount, place: str) -> list[str] | None:
    """The stack of the one READLINK in flight, once it has come to this place."""
    insight = ps.checked(mount.name, control.ask(places.socket_path(mount.name), asked.Stacks()), Insight)
    found = [ps.stack_of(one, insight.workers) for one in insight.requests if one.opcode == "READLINK"]
    return next((stack for stack in found if any(place in line for line in stack or ())), None)


def text_with(mount: ServedMount, *wanted: str) -> str | None:
    """What `ringmount ps --stack` prints, once that has all of this: on a busy machine a worker may answer too late."""
    text = ringmount("ps", mount.name, "--stack").stdout
    return text if all(each in text for each in wanted) else None


def release(fifo: Path, kind: str) -> None:
    if kind == "loop":
        Path(f"{fifo}.go").touch()
    else:
        fd = os.open(fifo, os.O_WRONLY)
        os.write(fd, b"went on")
        os.close(fd)


@pytest.fixture
def fifo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    monkeypatch.setenv("FIFO", str(path))
    (tmp_path / "stuck.py").write_text(STUCK)
    return path


@both
@pytest.mark.parametrize("name", ["Stuck", "Pool"])
def test_a_handler_shows_where_it_is_whatever_it_waits_in_and_goes_on(
    tmp_path: Path, fifo: Path, transport: str, name: str
) -> None:
    with serve(tmp_path, filesystem=f"stuck:{name}", transport=transport, workers=1) as mount:
        for kind, place in PLACES.items():
            with client(READLINK, mount.path / kind) as reader:
                found = wait_for(functools.partial(stack_through, mount, place))
                assert any("in readlink" in line for line in found)
                # Where the worker's loop turns, it says what its nodes are called.
                path = f" /{kind} " if name == "Pool" and kind != "native" else ""
                shown = wait_for(functools.partial(text_with, mount, place, path), seconds=30)
                assert "/engine.py" not in shown
                release(fifo, kind)
                assert reader.result() == "went on\n"
        assert status(mount)["workers"][0]["deaths"] == 0
        assert "request" not in mount.output()


@both
def test_a_coroutine_shows_what_it_awaits(tmp_path: Path, transport: str) -> None:
    with (
        serve_class(tmp_path, "AsyncGate", transport=transport) as mount,
        client(READ, mount.path / "f0", cpu=CPUS[0]) as reader,
    ):
        wait_for(lambda: said(tmp_path, "begin"))

        def stack() -> list[str]:
            done = ringmount("ps", mount.name, "--stack", "--json")
            assert done.returncode == 0, done.stderr
            (request,) = json.loads(done.stdout)["requests"]
            found = list(request["stack"] or [])
            return found if any("in sleep" in line for line in found) else []

        assert any("in read" in line for line in wait_for(stack, seconds=30))
        (tmp_path / "go").touch()
        assert reader.result() == "00000002"


def test_of_a_worker_that_is_stopped_it_says_so(tmp_path: Path) -> None:
    with serve_class(tmp_path, "AsyncGate") as mount, client(READ, mount.path / "f0", cpu=CPUS[0]):
        wait_for(lambda: said(tmp_path, "begin"))
        pids = worker_pids(mount)
        with stopped(pids):
            for _ in range(2):
                done = ringmount("ps", mount.name, "--stack")
                assert done.returncode == 0, done.stderr
                assert done.stdout.count("did not answer: it is stopped") >= len(pids)
                assert "    its worker did not answer" in done.stdout
        (tmp_path / "go").touch()


STORM = """
import os, sys
folder = sys.argv[1]
print("begins", flush=True)
count = 0
while not os.path.exists(sys.argv[2]):
    path = f"{folder}/{count % 7}"
    with open(path, "wb") as file:
        file.write(b"x" * 70000)
    with open(path, "rb") as file:
        assert len(file.read()) == 70000
    os.rename(path, path + ".new")
    assert len(os.listdir(folder)) > 0
    os.unlink(path + ".new")
    count += 1
print(count)
"""


@both
def test_no_request_fails_of_it(tmp_path: Path, transport: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    settings: dict[str, Any] = {"filesystem": "passthrough", "options": {"source": str(source)}, "data": "userspace"}
    with serve(tmp_path, transport=transport, **settings) as mount:
        folders = [mount.path / str(i) for i in range(2)]
        for folder in folders:
            folder.mkdir()
        end = tmp_path / "end"
        with client(STORM, folders[0], end) as one, client(STORM, folders[1], end) as other:
            for each in (one, other):
                assert each.process.stdout is not None
                assert each.process.stdout.readline() == "begins\n"
            askers = [threading.Thread(target=_ask, args=(mount, 40)) for _ in range(2)]
            for asker in askers:
                asker.start()
            for asker in askers:
                asker.join(60)
            end.touch()
            assert int(one.result()) > 0
            assert int(other.result()) > 0
        assert [worker["deaths"] for worker in status(mount)["workers"]] == [0] * len(worker_pids(mount))


def _ask(mount: ServedMount, times: int) -> None:
    for _ in range(times):
        control.ask(places.socket_path(mount.name), asked.Stacks())
