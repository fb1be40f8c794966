"""`ringmount ps`: what is in flight, also when no worker answers."""

import json
from pathlib import Path

import pytest
from mount.clients import client, cpus, said, serve_class, stopped, wait_for, worker_pids
from mount.support import TRANSPORTS, ringmount

CPUS = cpus()
READ = "import sys; sys.stdout.write(open(sys.argv[1]).read(8))"
both = pytest.mark.parametrize("transport", TRANSPORTS)


@both
def test_a_request_is_shown_with_its_caller(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "AsyncGate", transport=transport) as mount:
        assert ringmount("ps", mount.name).stdout == f"{mount.name}: no request is in flight\n"
        with client(READ, mount.path / "f0", cpu=CPUS[0]) as reader:
            (worker,) = wait_for(lambda: said(tmp_path, "begin"))
            (request,) = json.loads(ringmount("ps", mount.name, "--json").stdout)
            assert request["opcode"] == "READ"
            assert request["state"] == "started"
            assert request["worker"] == worker
            assert request["pid"] == reader.pid
            assert request["command"].startswith("python")
            heading, line = ringmount("ps", mount.name).stdout.splitlines()
            assert heading.split()[:4] == ["AGE", "WORKER", "STATE", "OPCODE"]
            assert str(reader.pid) in line.split()
            (tmp_path / "go").touch()
            reader.result()


def test_it_answers_while_every_worker_is_stopped(tmp_path: Path) -> None:
    with (
        serve_class(tmp_path, "Tree") as mount,
        stopped(worker_pids(mount)),
        client("import os, sys; os.stat(sys.argv[1])", mount.path / "f3", cpu=CPUS[0]),
    ):
        done = ringmount("ps", mount.name)
        assert done.returncode == 0, done.stderr
        assert mount.status()["workers"]


def test_a_mount_that_is_not_there_is_named() -> None:
    done = ringmount("ps", "nowhere")
    assert "no mount named nowhere is running" in done.stderr
