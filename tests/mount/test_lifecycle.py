"""From the start of a mount to its end, however it ends: nothing of it is left."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mount.clients import caller, client, cpus, said, serve_class, status, wait_for, worker_pids
from mount.support import (
    TRANSPORTS,
    ServedMount,
    assert_nothing_left,
    is_mounted,
    processes_of,
    ringmount,
    wait_until_serving,
    write_config,
)

from ringmount.daemon import mountinfo

CPUS = cpus()
PATIENCE = 5.0  # ringmount.daemon.supervisor.STOP_PATIENCE
FUSECTL = Path("/sys/fs/fuse/connections")
READ = "import sys; sys.stdout.write(open(sys.argv[1]).read(8))"
HOLD = """
import os, sys
os.chdir(sys.argv[1])
file = open("f0", "rb")
print("held", flush=True)
sys.stdin.readline()
try:
    os.pread(file.fileno(), 10, 0)
    os.stat(".")
except OSError as error:
    print(error.errno)
"""
both = pytest.mark.parametrize("transport", TRANSPORTS)


@pytest.fixture(scope="module")
def connections(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of fusectl, mounted if it was not."""
    if mountinfo.find(str(FUSECTL)) is not None:
        yield FUSECTL
        return
    folder = tmp_path_factory.mktemp("fusectl")
    subprocess.run(["mount", "-t", "fusectl", "none", str(folder)], check=True, timeout=10)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=10)


def connection_of(path: Path) -> str:
    entry = mountinfo.find(str(path))
    assert entry is not None
    return str(entry.minor)


def is_connected(connections: Path, number: str) -> bool:
    """Whether the connection lives; the number may have gone to a mount of somebody else."""
    others = {str(entry.minor) for entry in mountinfo.read()}
    return (connections / number).exists() and number not in others


def ends(mount: ServedMount, seconds: float) -> None:
    """Waits for the server's end, and sees to it that nothing is left."""
    mount.process.wait(seconds)
    assert_nothing_left(mount.process.pid, mount.path)


# --- many times -----------------------------------------------------------------------------------------------


def mount_once(folder: Path, name: str, transport: str, connections: Path, environment: dict[str, str]) -> str:
    """Mounts, looks at a file, unmounts; returns the connection's number."""
    mountpoint = folder / f"mnt-{name}"
    mountpoint.mkdir()
    file = write_config(folder, name, mountpoint=str(mountpoint), filesystem="memory", transport=transport)
    log = folder / f"{name}.log"
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-P", "-m", "ringmount.daemon", "run", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            cwd="/",
            env=environment,
        )
    with server:
        watchdog = threading.Timer(30, kill_all_of, [server.pid])
        watchdog.start()
        try:
            wait_until_serving(server, log)
            number = connection_of(mountpoint)
            assert (connections / number).exists()
            assert os.listdir(mountpoint) == []
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == 0, log.read_text()
        finally:
            watchdog.cancel()
    assert_nothing_left(server.pid, mountpoint)
    mountpoint.rmdir()
    return number


def kill_all_of(session: int) -> None:
    for pid in processes_of(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def open_memfds(word: str) -> list[str]:
    """Arenas of mounts with this word in their names that some process has open."""
    found = []
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            found += [name for fd in folder.iterdir() if word in (name := os.readlink(fd)) and "memfd" in name]
    return found


@pytest.mark.timeout(300)
@pytest.mark.ring
def test_a_hundred_mounts_leave_nothing(tmp_path: Path, connections: Path) -> None:
    word = f"many{os.getpid()}"
    descriptors = sorted(os.listdir("/proc/self/fd"))
    names = [(f"{word}-{i}", ("io_uring", "dev_fuse")[i % 2]) for i in range(100)]
    # Compiling what is imported would take half of the time, where bytecode is not kept.
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}
    with ThreadPoolExecutor(2) as lanes:
        numbers = list(lanes.map(lambda row: mount_once(tmp_path, row[0], row[1], connections, environment), names))
    assert len(numbers) == 100
    wait_for(lambda: not any(is_connected(connections, number) for number in set(numbers)))
    assert open_memfds(word) == []
    assert not list(Path("/run/ringmount").glob(f"*{word}*"))
    assert word not in Path("/proc/self/mountinfo").read_text()
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)


# --- ends from outside ----------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("Living", "SIGTERM"),
        ("AsyncLiving", "SIGTERM"),
        ("AsyncLiving", "umount"),
        ("Living", "umount -l"),
        ("Living", "abort"),
        ("AsyncLiving", "abort"),
    ],
)
def test_every_worker_starts_and_stops_its_filesystem_however_the_mount_ends(
    tmp_path: Path, connections: Path, transport: str, name: str, how: str
) -> None:
    with serve_class(tmp_path, name, transport=transport) as mount:
        number = connection_of(mount.path)
        workers = sorted(range(len(worker_pids(mount))))
        assert sorted(said(tmp_path, "start")) == workers
        match how:
            case "SIGTERM":
                mount.process.send_signal(signal.SIGTERM)
            case "abort":
                (connections / number / "abort").write_text("1")
            case _:
                subprocess.run([*how.split(), str(mount.path)], check=True, timeout=10)
        ends(mount, 4)
        assert sorted(said(tmp_path, "stop")) == workers
        wait_for(lambda: not is_connected(connections, number))


# --- what is in use -------------------------------------------------------------------------------------------


@both
def test_a_busy_mountpoint_does_not_delay_the_end(tmp_path: Path, transport: str, connections: Path) -> None:
    with (
        serve_class(tmp_path, "Tree", transport=transport) as mount,
        client(HOLD, mount.path) as holder,
    ):
        assert holder.process.stdout is not None
        assert holder.process.stdout.readline() == "held\n"
        number = connection_of(mount.path)
        mount.process.send_signal(signal.SIGTERM)
        ends(mount, 3)
        assert int(holder.result()) in (errno.ENOTCONN, errno.ECONNABORTED)
        wait_for(lambda: not is_connected(connections, number))


HEAVY = """
import os, sys
root = sys.argv[1]
os.chdir(root)
print("held", flush=True)
fd = os.open("f0", os.O_RDONLY | os.O_DIRECT)
try:
    while True:
        os.pread(fd, 65536, 0)
        os.stat("f1")
except OSError as error:
    print(error.errno)
"""


@both
@pytest.mark.parametrize("name", ["Tree", "AsyncBusy"])
def test_heavy_use_does_not_delay_the_end(tmp_path: Path, transport: str, name: str) -> None:
    settings = {"transport": transport, "timeouts": {"attr": 0, "entry": 0}}
    with serve_class(tmp_path, name, **settings) as mount, contextlib.ExitStack() as clients:
        users = [clients.enter_context(client(HEAVY, mount.path, cpu=CPUS[i % len(CPUS)])) for i in range(6)]
        for user in users:
            assert user.process.stdout is not None
            assert user.process.stdout.readline() == "held\n"
        before = sum(worker["requests"] for worker in status(mount)["workers"])
        wait_for(lambda: sum(worker["requests"] for worker in status(mount)["workers"]) > before + 100)
        mount.process.send_signal(signal.SIGTERM)
        ends(mount, PATIENCE - 1)
        for user in users:
            assert int(user.result()) in (errno.ENOTCONN, errno.ECONNABORTED, errno.ECANCELED)
        assert "killing it" not in mount.output()


@pytest.mark.parametrize(
    ("name", "transport"), [pytest.param("DirectGate", "io_uring", marks=pytest.mark.ring), ("Deaf", "dev_fuse")]
)
def test_a_method_that_never_ends_delays_the_end_by_the_patience_at_most(
    tmp_path: Path, transport: str, name: str
) -> None:
    with serve_class(tmp_path, name, transport=transport) as mount, client(READ, mount.path / "f0") as reader:
        wait_for(lambda: said(tmp_path, "begin"))
        mount.process.send_signal(signal.SIGTERM)
        ends(mount, PATIENCE + 4)
        reader.process.wait(3)


@both
def test_a_second_signal_ends_it_at_once(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "DirectGate", transport=transport) as mount, client(READ, mount.path / "f0") as reader:
        wait_for(lambda: said(tmp_path, "begin"))
        for _ in range(2):
            mount.process.send_signal(signal.SIGTERM)
            wait_for(lambda: not is_mounted(mount.path))
        ends(mount, PATIENCE - 2)
        reader.process.wait(3)


@both
@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_in_the_foreground_unmounts(tmp_path: Path, transport: str, times: int) -> None:
    """It reaches the whole process group, workers too; an impatient user presses it again."""
    with serve_class(tmp_path, "Living", transport=transport) as mount:
        for _ in range(times):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(mount.process.pid, signal.SIGINT)
        ends(mount, 4)
        if times == 1:
            assert len(said(tmp_path, "stop")) == len(CPUS)
            assert "unmounted" in mount.output()


# --- ends of the server itself --------------------------------------------------------------------------------


@both
def test_a_supervisor_that_is_killed_leaves_a_dead_mount_and_no_process(
    tmp_path: Path, transport: str, connections: Path
) -> None:
    with serve_class(tmp_path, "Tree", transport=transport) as mount, caller() as user:
        user.ask(f"os.chdir({str(mount.path)!r})")
        number = connection_of(mount.path)
        mount.exit_code = -signal.SIGKILL
        mount.process.kill()
        mount.process.wait(5)
        wait_for(lambda: processes_of(mount.process.pid) == [])
        with pytest.raises(OSError) as caught:
            user.ask("os.stat('f0').st_ino")
        assert caught.value.errno == errno.ENOTCONN
        assert is_mounted(mount.path)
        assert not (connections / number).exists() or is_mounted(mount.path)
        done = ringmount("umount", mount.name)
        assert done.returncode == 0, done.stderr
        assert not is_mounted(mount.path)
        Path(f"/run/ringmount/{mount.name}.sock").unlink(missing_ok=True)


@pytest.mark.parametrize(("name", "text"), [("BadStart", "does not answer"), ("BadAsyncStart", "another language")])
@both
def test_a_filesystem_that_cannot_start_is_reported_once_and_nothing_is_left(
    tmp_path: Path, transport: str, name: str, text: str
) -> None:
    with (
        pytest.raises(AssertionError, match="did not come up") as caught,
        serve_class(tmp_path, name, transport="auto" if transport == "io_uring" else transport),
    ):
        pass
    output = str(caught.value)
    assert text in output
    assert "Traceback" not in output
    assert "falling back" not in output
    assert not any(is_mounted(path) for path in tmp_path.glob("mnt-*"))


@both
def test_a_signal_while_it_starts_ends_it(tmp_path: Path, transport: str) -> None:
    with contextlib.suppress(AssertionError), contextlib.ExitStack() as stack:
        starter = stack.enter_context(ThreadPoolExecutor(1))
        starter.submit(stop_when_made, tmp_path)
        stack.enter_context(serve_class(tmp_path, "SlowToMake", transport=transport))
        raise RuntimeError("it came up")
    (log,) = tmp_path.glob("*.log")
    assert "mounted on" not in log.read_text()
    assert not any(is_mounted(path) for path in tmp_path.glob("mnt-*"))


def stop_when_made(folder: Path) -> None:
    """Sends SIGTERM to the server whose workers are being made in this folder."""
    wait_for(lambda: said(folder, "making"))
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in entry.read_bytes():
                os.kill(int(entry.parent.name), signal.SIGTERM)
                return
