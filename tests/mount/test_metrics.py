"""The metrics of a mount that runs: what Prometheus is told, and that nobody who asks can do harm."""

import contextlib
import http.client
import os
import random
import re
import signal
import socket
from pathlib import Path

import pytest
import yaml
from mount.clients import call, client, cpus, said, serve_class, status, wait_for, worker_pids
from mount.support import TRANSPORTS, ServedMount, processes_of, ringmount

CPUS = cpus()
READ = "import sys; sys.stdout.write(open(sys.argv[1]).read(8))"
MISS = "import os, sys\nfor i in range(int(sys.argv[2])): assert not os.path.exists(f'{sys.argv[1]}/missing{i}')"
LINE = re.compile(r"(ringmount_\w+)(?:\{(.*)\})? (\S+)")
PATIENCE = 20.0


def free_port() -> int:
    """A port that nobody listens on, out of those that the kernel gives nobody unasked (ip_local_port_range)."""
    for port in random.sample(range(20000, 32000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, whose path is the host."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self.host)


def page(at: str) -> str:
    """What is served there. Raises OSError, HTTPException."""
    if at.startswith("/"):
        connection: http.client.HTTPConnection = UnixConnection(at)
    else:
        connection = http.client.HTTPConnection(at, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        assert response.status == 200
        return response.read().decode()


def scrape(at: str) -> dict[str, float]:
    """The metrics served there, by name and labels but `mount`: "requests_total worker=0"."""
    found = {}
    for line in page(at).splitlines():
        if match := LINE.fullmatch(line):
            name, labels, value = match.groups()
            shown = re.sub(r'mount="[^"]*",?', "", labels or "").rstrip(",").replace('"', "")
            found[f"{name.removeprefix('ringmount_')} {shown}".strip()] = float(value)
    return found


def scraped(at: str) -> dict[str, float]:
    """The same, once somebody serves them."""

    def attempt() -> dict[str, float] | None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return scrape(at)
        return None

    return dict(wait_for(attempt, f"metrics at {at}", PATIENCE))


def until(at: str, **wanted: float) -> dict[str, float]:
    """The metrics, once they have these values; `name__label_value` stands for "name label=value"."""
    names = {key.replace("__", " ").replace("_is_", "="): value for key, value in wanted.items()}

    def attempt() -> dict[str, float] | None:
        found = scraped(at)
        return found if all(found.get(name) == value for name, value in names.items()) else None

    return dict(wait_for(attempt, f"{names} at {at}", PATIENCE))


def exporter(mount: ServedMount) -> int:
    """The pid of the process that serves them."""

    def find() -> int | None:
        for pid in processes_of(mount.process.pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() == "rm-metrics\n":
                    return pid
        return None

    return int(wait_for(find, "the process that serves metrics", PATIENCE))


@pytest.fixture
def port() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_known_requests_are_counted(tmp_path: Path, transport: str, port: str) -> None:
    timeouts = {"attr": 0, "entry": 0}
    with serve_class(tmp_path, "Tree", transport=transport, timeouts=timeouts, metrics=port) as mount:
        call("import sys; assert len(open(sys.argv[1], 'rb').read(8)) == 8", mount.path / "f0", cpu=CPUS[0])
        before = scraped(port)
        for cpu in CPUS[:2]:
            call(MISS, mount.path, 40, cpu=cpu)
        misses = 40 * len(CPUS[:2])
        lookups = before.get("request_seconds_count opcode=LOOKUP", 0) + misses
        after = until(port, request_seconds_count__opcode_is_LOOKUP=lookups)
        assert after["errors_total opcode=LOOKUP"] - before.get("errors_total opcode=LOOKUP", 0) == misses
        buckets = [value for name, value in after.items() if re.match("request_seconds_bucket .*LOOKUP", name)]
        assert buckets == sorted(buckets)
        assert buckets[-1] == lookups
        assert after["bytes_total direction=read"] >= 8
        assert after["workers_serving"] == after["workers"] == len(status(mount)["workers"])
        assert sum(after[f"requests_total worker={i}"] for i in range(len(status(mount)["workers"]))) >= lookups
        assert after["start_time_seconds"] == pytest.approx(status(mount)["since"])
        assert after["nodes"] == status(mount)["nodes"]
        assert 0 < after["resident_memory_bytes process=worker 0"] < 1 << 34


def test_deaths_and_hung_requests_show(tmp_path: Path, port: str) -> None:
    with serve_class(tmp_path, "AsyncGate", metrics=port) as mount:
        with client(READ, mount.path / "f0", cpu=CPUS[0]) as reader:
            (worker,) = wait_for(lambda: said(tmp_path, "begin"))
            found = until(port, **{f"entries_in_use__worker_is_{worker}": 1})
            assert found[f"entries worker={worker}"] >= 8
            assert found[f"oldest_request_seconds worker={worker}"] > 0
            os.kill(worker_pids(mount)[worker], signal.SIGSEGV)
            found = until(port, **{f"worker_deaths_total__worker_is_{worker}": 1}, workers_serving=len(CPUS))
            (tmp_path / "go").touch()
            reader.result()
        found = until(port, **{f"entries_in_use__worker_is_{worker}": 0})
        counts = status(mount)["workers"][worker]
        for outcome, count in {"rescued": 0, "retried": 1, "lost": 0, "quarantined": 0}.items():
            assert found[f"requests_{outcome}_total"] == counts[outcome] == count


def test_a_reload_moves_them_and_keeps_what_was_counted(tmp_path: Path, port: str) -> None:
    with serve_class(tmp_path, "Tree", metrics=port) as mount:
        call(MISS, mount.path, 10, cpu=CPUS[0])
        before = until(port, reloads_total=0)
        elsewhere = str(tmp_path / "metrics.sock")
        file = tmp_path / f"{mount.name}.yaml"
        file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "metrics": elsewhere}))
        done = ringmount("reload", mount.name)
        assert done.returncode == 0, done.stderr
        after = until(elsewhere, reloads_total=1)
        lookups = "request_seconds_count opcode=LOOKUP"
        assert after[lookups] >= before[lookups] >= 10
        assert after["nudges_total"] >= before["nudges_total"]
        with pytest.raises(OSError):
            scrape(port)
    assert not Path(elsewhere).exists()


def test_another_supervisor_serves_them_where_the_dead_one_did(tmp_path: Path) -> None:
    at = str(tmp_path / "metrics.sock")
    with serve_class(tmp_path, "Tree", metrics=at, arguments=["--keep"]) as mount:
        call(MISS, mount.path, 10, cpu=CPUS[0])
        until(at, adoptions_total=0)
        os.kill(status(mount)["pid"], signal.SIGKILL)
        assert until(at, adoptions_total=1)["request_seconds_count opcode=LOOKUP"] >= 10


def test_they_are_served_by_nobody_who_can_only_read(tmp_path: Path, port: str) -> None:
    with serve_class(tmp_path, "Tree", metrics=port) as mount:
        scraped(port)
        folder = Path(f"/proc/{exporter(mount)}")
        facts = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
        assert facts["Uid"].split() == facts["Gid"].split() == ["65534"] * 4
        assert facts["CapEff"] == facts["CapPrm"] == "0" * 16
        assert facts["NoNewPrivs"] == "1"
        arena = [line for line in (folder / "maps").read_text().splitlines() if "memfd:ringmount" in line]
        assert [line.split()[1] for line in arena] == ["r--s"]
        files = set()
        for link in (folder / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # of a client that goes
                files.add(os.readlink(link))
        assert "/dev/fuse" not in files


def test_the_process_that_serves_them_is_replaced(tmp_path: Path, port: str) -> None:
    with serve_class(tmp_path, "Tree", metrics=port) as mount:
        scraped(port)
        first = exporter(mount)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: first not in processes_of(mount.process.pid))
        scraped(port)
        assert exporter(mount) != first
        assert status(mount)["metrics"] == {"at": port, "pid": exporter(mount), "deaths": 1}


def test_a_place_that_is_taken_is_told_and_tried_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = f"127.0.0.1:{taken.getsockname()[1]}"
        with serve_class(tmp_path, "Tree", metrics=port) as mount:
            call("import os, sys; os.stat(sys.argv[1])", mount.path / "f0", cpu=CPUS[0])
            wait_for(lambda: f"cannot serve metrics at {port}: Address already in use" in mount.output())
            taken.close()
            assert scraped(port)["workers_serving"] == len(CPUS)


def test_hostile_clients_disturb_nobody(tmp_path: Path, port: str) -> None:
    """More clients that say nothing than are served, floods, and those who hang up: others still get an answer."""
    host, _, number = port.rpartition(":")
    messages = (
        b"GET /metrics HTTP/1.1\r\n\r\n",
        b"\0" * 70000,
        b"GET " + b"/" * 9000,
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nA",
    )
    with serve_class(tmp_path, "Tree", metrics=port) as mount, contextlib.ExitStack() as idle:
        scraped(port)
        pid = exporter(mount)
        for _ in range(40):
            idle.enter_context(socket.create_connection((host, int(number)), timeout=PATIENCE))
        for _ in range(5):
            for message in messages:
                with contextlib.suppress(OSError), socket.create_connection((host, int(number)), PATIENCE) as hostile:
                    hostile.sendall(message)
        assert scraped(port)["workers_serving"] == len(CPUS)
        assert exporter(mount) == pid
        call("import os, sys; os.stat(sys.argv[1])", mount.path / "f0", cpu=CPUS[0])
