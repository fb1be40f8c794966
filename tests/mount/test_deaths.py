"""Workers that die: they are replaced, the mount goes on, and no call hangs."""

import contextlib
import os
import signal
from pathlib import Path

import pytest
from mount.clients import (
    call,
    caller,
    client,
    cpus,
    said,
    serve_class,
    state_of,
    status,
    wait_for,
    worker_pids,
)
from mount.filesystems import content
from mount.support import TRANSPORTS, ServedMount, is_mounted, processes_of

CPUS = cpus()
READ = "import sys; sys.stdout.write(open(sys.argv[1]).read(8))"
both = pytest.mark.parametrize("transport", TRANSPORTS)


def wait_until_all_serve(mount: ServedMount, other_than: int = 0) -> None:
    """All workers serve, none of them in process `other_than`."""

    def is_well() -> bool:
        workers = status(mount)["workers"]
        return all(worker["state"] == "serving" and worker["pid"] != other_than for worker in workers)

    wait_for(is_well)


def deaths(mount: ServedMount) -> int:
    return sum(worker["deaths"] for worker in status(mount)["workers"])


@both
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_read_under_way_is_finished_by_the_next_worker(tmp_path: Path, transport: str, number: int) -> None:
    with serve_class(tmp_path, "AsyncGate", transport=transport) as mount:
        with client(READ, mount.path / "f0", cpu=CPUS[0]) as reader:
            (worker,) = wait_for(lambda: said(tmp_path, "begin"))
            pid = worker_pids(mount)[worker]
            os.kill(pid, number)
            wait_for(lambda: len(said(tmp_path, "begin")) == 2)
            (tmp_path / "go").touch()
            assert reader.result() == content(2, 0, 8).decode()
        found = status(mount)["workers"][worker]
        assert found["pid"] != pid
        assert (found["deaths"], found["retried"], found["lost"]) == (1, 1, 0)
        assert f"worker {worker} (pid {pid}) died: {signal.Signals(number).name}" in mount.output()


@both
def test_where_the_settings_say_so_a_read_under_way_fails(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "DirectGate", transport=transport, on_crash="eio") as mount, caller(CPUS[0]) as reader:
        reader.begin(f"Path('{mount.path}/f0').read_text()")
        (worker,) = wait_for(lambda: said(tmp_path, "begin"))
        os.kill(worker_pids(mount)[worker], signal.SIGKILL)
        with pytest.raises(OSError, match="Input/output error"):
            reader.finish()
        assert status(mount)["workers"][worker]["lost"] == 1
        (tmp_path / "go").touch()
        assert len(reader.ask(f"Path('{mount.path}/f1').read_text()")) > 0


@both
@pytest.mark.parametrize(("name", "file"), [("Fatal", "f1"), ("AsyncFatal", "f2")])
def test_a_request_that_kills_its_workers_fails_and_the_mount_goes_on(
    tmp_path: Path, transport: str, name: str, file: str
) -> None:
    (tmp_path / "poison").touch()
    with serve_class(tmp_path, name, transport=transport) as mount, caller(CPUS[0]) as reader:
        with pytest.raises(OSError, match="Input/output error"):
            reader.ask(f"os.pread(os.open('{mount.path}/{file}', os.O_RDONLY | os.O_DIRECT), 4096, 0).decode()")
        assert len(said(tmp_path, "poisoned")) == 2
        wait_until_all_serve(mount)
        assert deaths(mount) == 2
        assert sum(worker["quarantined"] for worker in status(mount)["workers"]) == 1
        assert f"for process {reader.pid} (python" in mount.output()
        assert "2 workers died, whose stacks are above: it is not run again" in mount.output()
        (tmp_path / "poison").unlink()
        assert reader.ask(f"Path('{mount.path}/{file}').read_text()[:8]") == content(int(file[1]) + 2, 0, 8).decode()


STORM = """
import errno, os, sys, time
root, end = sys.argv[1], time.monotonic() + float(sys.argv[2])
calls = failed = 0
slowest = 0.0
while time.monotonic() < end:
    for i in range(8):
        began = time.monotonic()
        calls += 1
        try:
            fd = os.open(f"{root}/f{i}", os.O_RDONLY | os.O_DIRECT)
            data = os.pread(fd, 4096, 4096 * i)
            os.close(fd)
            assert data == (b"%08d" % (i + 2)) * 512, data
        except OSError as error:
            assert error.errno in (errno.ECANCELED, errno.EIO), error
            failed += 1
        slowest = max(slowest, time.monotonic() - began)
assert slowest < 5, slowest
print(calls, failed)
"""


@both
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_no_call_hangs_while_workers_die_one_after_the_other(tmp_path: Path, transport: str, number: int) -> None:
    settings = {"transport": transport, "timeouts": {"attr": 0, "entry": 0}}
    with serve_class(tmp_path, "Tree", **settings) as mount, contextlib.ExitStack() as clients:
        storms = [clients.enter_context(client(STORM, mount.path, 2.5, cpu=CPUS[i % len(CPUS)])) for i in range(4)]
        killed = 0
        while not storms[0].is_done():
            pids = worker_pids(mount)
            victim = pids[killed % len(pids)]
            os.kill(victim, number)
            killed += 1
            wait_until_all_serve(mount, other_than=victim)
        calls = failed = 0
        for storm in storms:
            some, bad = map(int, storm.result().split())
            calls, failed = calls + some, failed + bad
        assert killed >= 3
        assert deaths(mount) == killed
        assert calls > 100
        # SIGKILL takes along what the kernel had just handed to the ring; a fault does not.
        assert failed <= (2 * killed if number == signal.SIGKILL and transport == "io_uring" else 0)


@both
def test_the_only_worker_is_replaced_too(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "Single", transport=transport) as mount:
        for _ in range(2):
            (pid,) = worker_pids(mount)
            os.kill(pid, signal.SIGKILL)
            wait_until_all_serve(mount, other_than=pid)
            for cpu in CPUS:
                call("import os, sys; os.statvfs(sys.argv[1])", mount.path, cpu=cpu)


@both
def test_requests_that_waited_for_an_entry_are_answered_by_the_next_worker(tmp_path: Path, transport: str) -> None:
    settings = {"transport": transport, "queue_depth": 1, "workers": 1}
    with serve_class(tmp_path, "AsyncGate", **settings) as mount, contextlib.ExitStack() as readers:
        waiting = [readers.enter_context(client(READ, mount.path / "f0", cpu=CPUS[0]))]
        wait_for(lambda: said(tmp_path, "begin"))
        # The queue's one entry is taken. (A free one is handed requests while its worker dies, which SIGKILL cancels.)
        waiting += [readers.enter_context(client(READ, mount.path / f"f{i}", cpu=CPUS[0])) for i in range(1, 6)]

        def are_all_waiting() -> bool:
            """For a request of their own, or for a page that one fills."""
            states = [state_of(reader.pid) for reader in waiting]
            return all("request_wait_answer" in state or "folio_wait" in state for state in states)

        wait_for(are_all_waiting)
        (pid,) = worker_pids(mount)
        os.kill(pid, signal.SIGKILL)
        (tmp_path / "go").touch()
        assert [reader.result() for reader in waiting] == [content(i + 2, 0, 8).decode() for i in range(6)]


@both
def test_the_shared_descriptor_table_does_not_grow_by_deaths(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "SharedTable", transport=transport) as mount:
        supervisor = mount.process.pid

        def descriptors() -> int:
            return len(os.listdir(f"/proc/{supervisor}/fd"))

        def kill_one() -> None:
            victim = worker_pids(mount)[0]
            os.kill(victim, signal.SIGKILL)
            wait_until_all_serve(mount, other_than=victim)
            call("import os, sys; os.statvfs(sys.argv[1])", mount.path, cpu=CPUS[0])

        wait_for(lambda: len(processes_of(supervisor)) == everybody(mount))
        before = descriptors()
        for _ in range(3):
            kill_one()
        wait_for(lambda: len(processes_of(supervisor)) == everybody(mount) and descriptors() <= before)


@both
def test_files_that_dead_workers_had_just_opened_are_closed_and_no_others(tmp_path: Path, transport: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("leak-a", "leak-b", "open"):
        (source / name).write_text(name)
    options = {"source": str(source), "fast": False}
    with serve_class(tmp_path, "Leaky", transport=transport, options=options) as mount, caller(CPUS[0]) as user:
        fds = Path(f"/proc/{mount.process.pid}/fd")

        def are_open(start: str) -> int:
            """How many descriptors of such files are in the table that all share."""
            found = 0
            for fd in os.listdir(fds):
                with contextlib.suppress(FileNotFoundError):
                    # What nodes are kept by (O_PATH) is somebody's own.
                    flags = int((fds.parent / "fdinfo" / fd).read_text().split()[3], 8)
                    found += os.readlink(fds / fd).startswith(f"{source}/{start}") and not flags & os.O_PATH
            return found

        assert user.ask(f"[os.open('{mount.path}/open', os.O_RDWR), os.pread(3, 9, 0).decode()][1]") == "open"
        for name in ("leak-a", "leak-b"):
            assert user.ask(f"os.stat('{mount.path}/{name}').st_size") == 6
        assert deaths(mount) == 2
        wait_for(lambda: not are_open("leak"), seconds=20)
        assert status(mount)["counts"]["strays"] == 2
        assert are_open("open") == 1
        assert user.ask("[os.pwrite(3, b'more', 4), os.pread(3, 9, 0).decode()][1]") == "openmore"
        assert os.path.samefile(fds / "1", mount.log)  # its own log lies on the same filesystem


def everybody(mount: ServedMount) -> int:
    """How many processes a healthy mount has: supervisor, notifier, workers, the spare."""
    return 2 + len(status(mount)["workers"]) + 1


@both
def test_a_filesystem_that_cannot_be_made_again_ends_the_mount(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "OnceOnly", transport=transport) as mount:
        (tmp_path / "spoiled").touch()
        mount.exit_code = 7
        while mount.process.poll() is None:  # the spare was made before
            for pid in serving_pids(mount):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert "it is spoiled" in mount.output()
        assert not is_mounted(mount.path)


@both
def test_a_shortage_at_a_workers_start_does_not_end_the_mount(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "OftenShort", transport=transport) as mount:
        (tmp_path / "shortage").touch()
        os.kill(worker_pids(mount)[0], signal.SIGKILL)

        def trouble() -> str:
            return str(status(mount)["workers"][0]["trouble"])

        wait_for(lambda: "there is a shortage" in trouble())
        (tmp_path / "shortage").unlink()
        wait_until_all_serve(mount)
        assert not trouble()
        for cpu in CPUS:
            assert call(READ, mount.path / "f0", cpu=cpu) == content(2, 0, 8).decode()


@both
def test_a_worker_that_ends_by_itself_has_died_and_the_mount_goes_on(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "OftenShort", transport=transport) as mount, caller(CPUS[0]) as reader:
        (tmp_path / "exit").touch()
        with pytest.raises(OSError, match="Input/output error"):  # by the second one it is quarantined
            reader.ask(f"Path('{mount.path}/f0').read_text()")
        (tmp_path / "exit").unlink()
        assert len(said(tmp_path, "leaves")) >= 2
        wait_until_all_serve(mount)
        assert reader.ask(f"Path('{mount.path}/f1').read_text()[:8]") == content(3, 0, 8).decode()
        assert "died: exit code 0" in mount.output()


def serving_pids(mount: ServedMount) -> list[int]:
    """The workers that serve. (One that dies before it does may be given up for that.)"""
    try:
        return [worker["pid"] for worker in status(mount)["workers"] if worker["state"] == "serving"]
    except Exception:
        return []
