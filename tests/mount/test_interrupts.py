"""A signal to a caller that waits (FUSE_INTERRUPT): what its filesystem learns, and when the caller returns."""

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.clients import Client, call, client, cpus, said, serve_class, state_of, status, wait_for
from mount.filesystems import content
from mount.support import TRANSPORTS

CPU = cpus()[0]
INTERRUPTED_READ = """
import ctypes, errno, json, os, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
signal.signal(signal.SIGUSR1, lambda *_: None)  # without SA_RESTART
fd = os.open(sys.argv[1], os.O_RDONLY)
buffer = ctypes.create_string_buffer(8)
print("open", flush=True)
sys.stdin.readline()
size = libc.read(fd, buffer, 8)
print(json.dumps([size, errno.errorcode.get(ctypes.get_errno()) if size < 0 else buffer.raw.decode()]))
"""
PROMPTLY = 3.0
STAT = "import os, sys; os.stat(sys.argv[1])"


@contextlib.contextmanager
def reader_of(file: Path) -> Iterator[Client]:
    """A client that has opened the file and reads it when told to, by `begin`."""
    with client(INTERRUPTED_READ, file, cpu=CPU) as reader:
        assert reader.process.stdout is not None
        assert reader.process.stdout.readline() == "open\n"
        yield reader


def begin(reader: Client) -> None:
    assert reader.process.stdin is not None
    reader.process.stdin.write("\n")
    reader.process.stdin.flush()


def interrupt(reader: Client) -> None:
    reader.process.send_signal(signal.SIGUSR1)


def answer(reader: Client, seconds: float = PROMPTLY) -> object:
    """What read(2) returned, and the data or the error's name."""
    return json.loads(reader.result(seconds))


def interrupt_a_read(folder: Path, file: Path, also: str = "") -> object:
    """Reads in a client, sends it a signal once the filesystem has begun, and returns what read(2) returned."""
    before = len(said(folder, "begin"))
    with reader_of(file) as reader:
        begin(reader)
        wait_for(lambda: len(said(folder, "begin")) > before)
        interrupt(reader)
        return answer(reader)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_coroutine_is_cancelled_and_the_caller_returns_at_once(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "DirectGate", transport=transport) as mount:
        for i in range(3):
            assert interrupt_a_read(tmp_path, mount.path / f"f{i}") == [-1, "EINTR"]
            assert len(said(tmp_path, "cancelled", i + 2)) == 1
        assert status(mount)["counts"]["interrupts"] >= 3
        (tmp_path / "go").touch()
        code = "import sys; sys.stdout.write(open(sys.argv[1]).read(8))"
        assert call(code, mount.path / "f0") == content(2, 0, 8).decode()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_cancelled_coroutine_may_still_answer(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "StubbornGate", transport=transport) as mount:
        assert interrupt_a_read(tmp_path, mount.path / "f0") == [7, "partial\0"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_only_the_interrupted_request_is_cancelled(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "DirectGate", transport=transport) as mount, contextlib.ExitStack() as others:
        waiting = [others.enter_context(reader_of(mount.path / f"f{i}")) for i in range(1, 4)]
        for other in waiting:
            begin(other)
        wait_for(lambda: len(said(tmp_path, "begin")) == 3)
        assert interrupt_a_read(tmp_path, mount.path / "f0") == [-1, "EINTR"]
        assert said(tmp_path, "cancelled") == said(tmp_path, "cancelled", 2)
        (tmp_path / "go").touch()
        for i, other in enumerate(waiting, 1):
            assert answer(other) == [8, content(i + 2, 0, 8).decode()]


@pytest.mark.ring
def test_an_operation_on_the_ring_is_cancelled_with_its_coroutine(tmp_path: Path) -> None:
    with serve_class(tmp_path, "Pipe", transport="io_uring") as mount:
        assert interrupt_a_read(tmp_path, mount.path / "f0") == [-1, "EINTR"]
        assert said(tmp_path, "end", 2)
        call(STAT, mount.path / "f9", cpu=CPU)


@pytest.mark.ring
def test_an_operation_on_the_ring_that_never_ends_does_not_delay_the_end(tmp_path: Path) -> None:
    with serve_class(tmp_path, "Pipe", transport="io_uring") as mount, reader_of(mount.path / "f0") as reader:
        begin(reader)
        wait_for(lambda: said(tmp_path, "begin"))
        subprocess.run(["umount", "-f", "-l", str(mount.path)], check=True, timeout=10)
        mount.process.wait(4)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_thread_sees_that_its_caller_was_interrupted(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "ThreadsThatAsk", transport=transport) as mount:
        assert interrupt_a_read(tmp_path, mount.path / "f0") == [-1, "EINTR"]
        assert len(said(tmp_path, "interrupted", 2)) == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_plain_method_that_asked_for_it_is_interrupted(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "Sleepers", transport=transport) as mount:
        for i in range(3):
            assert interrupt_a_read(tmp_path, mount.path / f"f{i}") == [-1, "EINTR"]
            assert len(said(tmp_path, "interrupted", i + 2)) == 1
        call(STAT, mount.path / "f9", cpu=CPU)


@pytest.mark.ring
def test_a_plain_method_whose_caller_was_interrupted_while_it_waited_does_not_begin(tmp_path: Path) -> None:
    with serve_class(tmp_path, "Sleepers", transport="io_uring", workers=1) as mount:
        with reader_of(mount.path / "f0") as first, reader_of(mount.path / "f1") as second:
            begin(first)
            wait_for(lambda: said(tmp_path, "begin", 2))
            begin(second)
            wait_for(lambda: "request_wait_answer" in state_of(second.pid))
            # The kernel tells of a signal only if it has delivered the request, when the worker next returned from it.
            ticks = len(said(tmp_path, "tick"))
            wait_for(lambda: len(said(tmp_path, "tick")) > ticks + 1)
            interrupt(second)
            wait_for(lambda: status(mount)["counts"]["interrupts"])
            interrupt(first)
            assert answer(first) == [-1, "EINTR"]
            assert answer(second) == [-1, "EINTR"]
        assert not said(tmp_path, "begin", 3)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_plain_method_that_did_not_ask_for_it_goes_on(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "Deaf", transport=transport) as mount:
        with reader_of(mount.path / "f0") as reader:
            begin(reader)
            wait_for(lambda: said(tmp_path, "begin"))
            interrupt(reader)
            wait_for(lambda: status(mount)["counts"]["interrupts"])
            (tmp_path / "go").touch()
            assert answer(reader) == [8, content(2, 0, 8).decode()]
        assert not said(tmp_path, "interrupted")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_killed_callers_cancel_their_requests(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "DirectGate", transport=transport) as mount:
        with reader_of(mount.path / "f0") as reader:
            begin(reader)
            wait_for(lambda: said(tmp_path, "begin"))
            reader.process.kill()
            assert reader.process.wait(PROMPTLY) == -9
        wait_for(lambda: said(tmp_path, "cancelled", 2))
