"""Methods that wait: coroutines, threads, and operations on the worker's own ring."""

import contextlib
import os
from pathlib import Path

import pytest
from mount.clients import call, client, cpus, said, serve_class, wait_for, worker_pids
from mount.filesystems import content
from mount.support import TRANSPORTS

CPUS = cpus()
READ = "import sys; sys.stdout.write(open(sys.argv[1]).read(8))"
STAT = "import os, sys; os.stat(sys.argv[1])"
KIB = 1 << 10


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", ["AsyncGate", "ThreadGate"])
def test_a_worker_goes_on_while_reads_wait_and_they_end_together(tmp_path: Path, transport: str, name: str) -> None:
    with (
        serve_class(tmp_path, name, transport=transport, timeouts={"attr": 0, "entry": 0}) as mount,
        contextlib.ExitStack() as readers,
    ):
        waiting = [readers.enter_context(client(READ, mount.path / f"f{i}", cpu=CPUS[0])) for i in range(4)]
        wait_for(lambda: len(said(tmp_path, "begin")) == 4)
        call(STAT, mount.path / "f9", cpu=CPUS[0])  # the same worker (on rings), with four requests under way
        assert not said(tmp_path, "end")
        (tmp_path / "go").touch()
        assert [reader.result() for reader in waiting] == [content(i + 2, 0, 8).decode() for i in range(4)]
        if transport == "io_uring":
            assert set(said(tmp_path, "begin")) == {0}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_more_requests_than_entries_wait_their_turn_without_a_spinning_worker(tmp_path: Path, transport: str) -> None:
    with (
        serve_class(tmp_path, "AsyncGate", transport=transport, workers=1, queue_depth=1) as mount,
        contextlib.ExitStack() as readers,
    ):
        waiting = [readers.enter_context(client(READ, mount.path / f"f{i}")) for i in range(6)]
        wait_for(lambda: said(tmp_path, "begin"))
        (worker,) = worker_pids(mount)
        used = cpu_seconds(worker)
        with contextlib.suppress(AssertionError):
            wait_for(lambda: said(tmp_path, "end"), seconds=0.5)
        assert cpu_seconds(worker) - used < 0.25
        (tmp_path / "go").touch()
        for reader in waiting:
            reader.result()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", ["Backed", "AsyncBacked"])
def test_data_goes_between_a_descriptor_and_the_request_without_python(
    tmp_path: Path, transport: str, name: str
) -> None:
    data = os.urandom(300 * KIB)
    (tmp_path / "backing").write_bytes(data)
    with serve_class(tmp_path, name, transport=transport) as mount:
        code = """
import os, sys
path, offset, other = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
fd = os.open(path, os.O_RDWR)
sys.stdout.write(os.pread(fd, 200 << 10, 1).hex())
assert os.pread(fd, 100, 1 << 30) == b""
assert os.pread(fd, 100, (300 << 10) - 7).hex() == sys.argv[4]
assert os.pwrite(fd, other, offset) == len(other)
assert os.pread(fd, len(other), offset) == other
os.fsync(fd)
os.fdatasync(fd)
"""
        other = os.urandom(20 * KIB)
        read = call(code, mount.path / "f0", 123_456, other.hex(), data[-7:].hex())
        assert bytes.fromhex(read) == data[1 : 1 + 200 * KIB]
        expected = data[:123_456] + other + data[123_456 + len(other) :]
        assert (tmp_path / "backing").read_bytes() == expected
        assert said(tmp_path, "fsync", False)
        assert said(tmp_path, "fsync", True)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", ["BadBacked", "BadAsyncBacked"])
def test_an_error_of_such_an_operation_reaches_the_caller(tmp_path: Path, transport: str, name: str) -> None:
    (tmp_path / "backing").write_bytes(b"x" * 100)
    with serve_class(tmp_path, name, transport=transport) as mount:
        code = """
import errno, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
for operation in (lambda: os.pread(fd, 10, 0), lambda: os.pwrite(fd, b"x", 0), lambda: os.fsync(fd)):
    try:
        operation()
    except OSError as error:
        assert error.errno == errno.EBADF, error
    else:
        raise AssertionError("it succeeded")
"""
        call(code, mount.path / "f0")
        call(STAT, mount.path / "f1")


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
