"""Which worker answers what, and what happens where there are no rings."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.clients import Client, call, cpus, events, requests, said, serve_class, status, wait_for
from mount.filesystems import content
from mount.support import TRANSPORTS, is_mounted, ringmount, write_config

CPUS = cpus()
STATVFS = """
import os, sys
for _ in range(int(sys.argv[2])):
    os.statvfs(sys.argv[1])
"""
READ = "import sys; sys.stdout.write(open(sys.argv[1]).read(64))"
STAT = "import os, sys; os.stat(sys.argv[1])"

WITHOUT_IO_URING = Path(__file__).with_name("without_io_uring.py")
PROBED_ENTRIES = 8  # of the ring by which ringmount.workers.ring.probe finds out

several_cpus = pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")


@pytest.mark.ring
def test_a_request_issued_on_a_cpu_is_answered_by_its_worker(tmp_path: Path) -> None:
    with serve_class(tmp_path, "Tree", transport="io_uring") as mount:
        workers = status(mount)["workers"]
        assert [worker["cpu"] for worker in workers] == CPUS
        for index, cpu in enumerate(CPUS):
            before = requests(mount)
            call(STATVFS, mount.path, 200, cpu=cpu)
            grown = [after - then for after, then in zip(requests(mount), before, strict=True)]
            assert grown[index] >= 200
            assert sum(grown) == grown[index]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_worker_is_pinned_to_its_cpu(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "Tree", transport=transport) as mount:
        for worker in status(mount)["workers"]:
            allowed = Path(f"/proc/{worker['pid']}/status").read_text().partition("Cpus_allowed_list:\t")[2].split()[0]
            assert allowed == str(worker["cpu"])


@several_cpus
@pytest.mark.ring
def test_a_name_looked_up_on_one_cpu_is_read_on_another(tmp_path: Path) -> None:
    with serve_class(tmp_path, "Shared", transport="io_uring", timeouts={"entry": 60, "attr": 60}) as mount:
        for i, (first, second) in enumerate(((0, 1), (1, 0))):
            file = mount.path / f"f{i}"
            call(STAT, file, cpu=CPUS[first])
            assert call(READ, file, cpu=CPUS[second]) == content(i + 2, 0, 64).decode()
            assert said(tmp_path, "lookup", f"f{i}") == [first]
            assert set(said(tmp_path, "read", f"f{i}")) == {second}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_nodes_made_by_any_worker_are_known_to_all(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "Shared", transport=transport, timeouts={"entry": 0, "attr": 0}) as mount:
        for i in range(16):
            assert call(READ, mount.path / f"f{i}", cpu=CPUS[i % len(CPUS)]) == content(i + 2, 0, 64).decode()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_one_worker_serves_the_queues_of_all_cpus(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "Tree", transport=transport, workers=1) as mount:
        for cpu in CPUS:
            (before,) = requests(mount)
            call(STATVFS, mount.path, 50, cpu=cpu)
            assert requests(mount)[0] - before >= 50


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_filesystem_with_state_of_its_own_gets_one_worker_that_runs_anywhere(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "Single", transport=transport) as mount:
        assert events(tmp_path) == [["0", "started", *map(str, CPUS)]]
        assert [worker["cpu"] for worker in status(mount)["workers"]] == [None]
        for cpu in CPUS:
            call(STATVFS, mount.path, 10, cpu=cpu)
        assert requests(mount)[0] >= 10 * len(CPUS)


def without_rings(most: int = 0) -> list[str]:
    """A launcher for servers that get no io_uring of more than `most` entries."""
    return [sys.executable, "-I", "-S", str(WITHOUT_IO_URING), str(most)]


def test_where_io_uring_is_forbidden_dev_fuse_serves_and_says_why(tmp_path: Path) -> None:
    with serve_class(tmp_path, "Tree", launcher=without_rings()) as mount:
        assert call(READ, mount.path / "f1") == content(3, 0, 64).decode()
        found = status(mount)
        assert found["transport"] == "dev_fuse"
        assert "Operation not permitted" in found["transport_reason"]


@contextlib.contextmanager
def caller_from_the_first_moment(folder: Path, code: str) -> Iterator[list[Client]]:
    """A client that calls on the mount that appears in this folder as soon as it does, before its server is ready."""
    found: list[Client] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.001):
            for path in folder.glob("mnt-*"):
                if is_mounted(path):
                    found.append(Client(code, path))
                    return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
        for each in found:
            each.end()


@pytest.mark.ring
def test_rings_that_fail_after_init_hang_nobody(tmp_path: Path) -> None:
    code = "import os, sys; os.stat(sys.argv[1] + '/f1')"
    with (
        caller_from_the_first_moment(tmp_path, code) as callers,
        serve_class(tmp_path, "Tree", launcher=without_rings(PROBED_ENTRIES)) as mount,
    ):
        (caller,) = wait_for(lambda: callers)
        caller.result()
        for cpu in CPUS:
            assert call(READ, mount.path / "f1", cpu=cpu) == content(3, 0, 64).decode()
        found = status(mount)
        assert found["transport"] == "dev_fuse"
        assert "Operation not permitted" in found["transport_reason"]
        assert "falling back to /dev/fuse" in mount.output()


@pytest.mark.parametrize("most", [0, PROBED_ENTRIES])
@pytest.mark.ring
def test_a_mount_that_insists_on_rings_fails_cleanly_without(tmp_path: Path, most: int) -> None:
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    file = write_config(tmp_path, "insists", mountpoint=str(mountpoint), filesystem="memory", transport="io_uring")
    done = ringmount("run", str(file), launcher=without_rings(most))
    assert done.returncode == 6
    assert "Operation not permitted" in done.stderr
    assert not is_mounted(mountpoint)
