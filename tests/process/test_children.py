"""The supervisor's child processes: what they inherit, what they say, how they end."""

import errno
import functools
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from process.dying import end_of, start

from ringmount.config.model import MountConfig
from ringmount.daemon import notifications
from ringmount.daemon.children import (
    State,
    WorkerProcess,
    close_all_but,
    close_private_fds,
    throw_away,
)
from ringmount.daemon.notifications import Writer
from ringmount.workers import codec, messages
from ringmount.workers.arena import Arena, Plan
from ringmount.workers.worker import EXIT_FILESYSTEM, EXIT_OK, SPARE

PLAN = Plan(depths=(2, 2), owners=(0, 1), workers=2, payload=8192, nodes=1024, handles=64)
CONFIG = MountConfig(name="test", mountpoint="/nowhere", filesystem="memory")
PATIENCE = 20.0


def alone(test: Callable[[], None]) -> Callable[[], None]:
    """Runs a test in a process of its own: an arena has one address, and forks are part of the test."""

    @functools.wraps(test)
    def run() -> None:
        assert end_of(start(test)) == 0

    return run


def descriptors(pid: int | str = "self") -> set[str]:
    """What a process has open, by name."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            pass
    return found


# --- helpers -------------------------------------------------------------------------------------------------------


def test_a_helpers_result_is_its_exit_code() -> None:
    assert [end_of(throw_away(functools.partial(int, code))) for code in (0, 1, 7)] == [0, 1, 7]


def test_a_helper_that_raises_fails() -> None:
    def fail() -> int:
        raise KeyError

    assert end_of(throw_away(fail)) == 1


def test_a_helper_keeps_only_what_it_is_to_keep() -> None:
    read_end, write_end = os.pipe()
    kept = os.open("/dev/null", os.O_RDONLY)
    dropped = os.open("/dev/zero", os.O_RDONLY)

    def tell() -> int:
        os.write(write_end, "\n".join(sorted(os.listdir("/proc/self/fd"), key=int)).encode())
        return 0

    assert end_of(throw_away(tell, keep={kept, write_end})) == 0
    open_there = {int(fd) for fd in os.read(read_end, 4096).split()}
    assert {kept, write_end} <= open_there
    assert dropped not in open_there
    assert read_end not in open_there
    for fd in (read_end, write_end, kept, dropped):
        os.close(fd)


def wait_for_a_signal() -> int:
    time.sleep(PATIENCE)
    return 0


def test_a_helper_has_the_default_answer_to_signals() -> None:
    previous = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        pid = throw_away(wait_for_a_signal)
        os.kill(pid, signal.SIGTERM)
        # It may be killed before or after it set its signals: ours would only be noted.
        while not select.select([fd := os.pidfd_open(pid)], [], [], 0.05)[0]:
            os.close(fd)
            os.kill(pid, signal.SIGTERM)
        os.close(fd)
        assert end_of(pid) == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, previous)


@alone
def test_all_descriptors_but_some_can_be_closed() -> None:
    keep = os.open("/dev/null", os.O_RDONLY)
    high = os.dup2(keep, 500)
    close_all_but({0, 1, 2, keep})
    os.fstat(keep)
    with pytest.raises(OSError):
        os.fstat(high)


# --- workers -------------------------------------------------------------------------------------------------------


class Mount:
    """An arena, and workers that are started for it."""

    def __init__(self) -> None:
        self.arena = Arena.create(PLAN, "test")

    def start(self, index: int = 0, *, shared: bool = False, config: MountConfig = CONFIG) -> WorkerProcess:
        worker = WorkerProcess(index, None)
        worker.start(config, None, 2, self.arena, shared)
        return worker


def wait(fd: int) -> None:
    assert select.select([fd], [], [], PATIENCE)[0], "waited in vain"


def hear(worker: WorkerProcess) -> messages.ToSupervisor | None:
    """The worker's next message; None at its end."""
    wait(worker.channel.fileno())
    return worker.receive()


def end(worker: WorkerProcess) -> int:
    """Waits for the process's end and reaps it."""
    wait(worker.pidfd)
    return worker.reap()


@alone
def test_a_worker_says_when_it_is_prepared_and_ends_when_told() -> None:
    mount = Mount()
    worker = mount.start()
    assert worker.state is State.STARTING
    record = mount.arena.worker(0)
    assert (record.pid, record.generation) == (worker.pid, 1)
    assert hear(worker) == messages.Prepared()
    worker.outbox.send(messages.Stop())
    assert end(worker) == EXIT_OK
    assert (worker.state, worker.pidfd) == (State.DEAD, -1)


@alone
def test_a_worker_ends_with_its_supervisors_end_of_the_channel() -> None:
    worker = Mount().start()
    assert hear(worker) == messages.Prepared()
    worker.channel.shutdown(socket.SHUT_RDWR)
    assert end(worker) == EXIT_OK


@alone
def test_a_worker_inherits_nothing_but_its_channel_and_the_arena() -> None:
    mount = Mount()
    secret = os.open("/etc/passwd", os.O_RDONLY)
    others = socket.socketpair()
    worker = mount.start()
    assert hear(worker) == messages.Prepared()
    there = descriptors(worker.pid)
    assert "/etc/passwd" not in there
    assert sum("memfd:ringmount-test" in name for name in there) == 1
    assert sum(name.startswith("socket:") for name in there - descriptors(os.getppid())) == 1
    worker.kill()
    end(worker)
    os.close(secret)
    for other in others:
        other.close()


@alone
def test_a_worker_that_was_killed_is_told_by_its_signal() -> None:
    worker = Mount().start()
    assert hear(worker) == messages.Prepared()
    worker.kill()
    assert end(worker) == -signal.SIGKILL
    worker.kill()  # there is none any more


@alone
def test_a_worker_that_cannot_make_its_filesystem_says_why_and_that_it_is_for_good() -> None:
    for config, text in (
        (msgspec.structs.replace(CONFIG, filesystem="no_such_module:Class"), "no_such_module"),
        (msgspec.structs.replace(CONFIG, filesystem="json:NoSuchClass"), "NoSuchClass"),
        (msgspec.structs.replace(CONFIG, options={"colour": "red"}), "colour"),
        (msgspec.structs.replace(CONFIG, user="no-such-user"), "no-such-user"),
    ):

        def fail(config: MountConfig = config, text: str = text) -> None:
            worker = Mount().start(config=config)
            said = hear(worker)
            assert isinstance(said, messages.Failed)
            assert (said.what, said.is_hopeless) == ("filesystem", True)
            assert text in said.message
            assert end(worker) == EXIT_FILESYSTEM

        assert end_of(start(fail)) == 0


@alone
def test_what_a_worker_says_that_is_no_message_is_refused() -> None:
    worker = WorkerProcess(0, None)
    worker.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    worker.channel.setblocking(False)
    assert worker.receive() is None
    theirs.send(b"\xff\xff")
    with pytest.raises(msgspec.DecodeError):
        worker.receive()
    theirs.send(messages.encode(messages.Prepared()))
    assert worker.receive() == messages.Prepared()
    theirs.close()
    assert worker.receive() is None


@alone
def test_a_spare_becomes_the_worker_that_it_is_told_to_be() -> None:
    mount = Mount()
    dead, spare = WorkerProcess(1, None), mount.start(SPARE)
    assert hear(spare) == messages.Prepared()
    spare.state = State.PREPARED
    pid = spare.pid
    dead.replace_by(spare, mount.arena)
    assert (dead.pid, dead.state, spare.state) == (pid, State.PREPARED, State.DEAD)
    assert mount.arena.worker(1).pid == pid
    deadline = time.monotonic() + PATIENCE
    while not Path(f"/proc/{pid}/comm").read_text().endswith("/1\n"):
        assert time.monotonic() < deadline
    dead.outbox.send(messages.Stop())
    assert end(dead) == EXIT_OK


# --- the shared descriptor table -------------------------------------------------------------------------------------


@alone
def test_a_worker_of_a_shared_table_leaves_nothing_in_it() -> None:
    mount = Mount()
    before = descriptors()
    for number in (signal.SIGKILL, None):
        worker = mount.start(shared=True)
        assert hear(worker) == messages.Prepared()
        if number is None:
            worker.outbox.send(messages.Stop())
        else:
            worker.kill(number)
        end(worker)
        close_private_fds(mount.arena, 0)
        assert descriptors() == before


@alone
def test_a_dead_workers_own_descriptors_are_closed_and_no_others() -> None:
    mount = Mount()
    owners = mount.arena.section("fd_owners").cast("H")
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(40)]
    for i, fd in enumerate(fds):
        owners[fd] = (1, 2, 0, 256)[i % 4]  # 256: bytes of two neighbours look like worker 0's mark
    assert close_private_fds(mount.arena, 0) == 10
    for i, fd in enumerate(fds):
        if i % 4 == 0:
            with pytest.raises(OSError) as caught:
                os.fstat(fd)
            assert caught.value.errno == errno.EBADF
            assert owners[fd] == 0
        else:
            os.fstat(fd)
    assert close_private_fds(mount.arena, 0) == 0
    assert close_private_fds(mount.arena, 1) == 10


# --- the notifier ----------------------------------------------------------------------------------------------------


class Notified:
    """A writer of notifications whose /dev/fuse is a pipe, or what else is given."""

    def __init__(self, fuse_fd: int | None = None) -> None:
        self.read_end, write_end = os.pipe()
        self.writer = Writer(write_end if fuse_fd is None else fuse_fd)
        os.close(write_end)

    def written(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            wait(self.read_end)
            data += os.read(self.read_end, size - len(data))
        return data

    def pump_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            select.select([self.writer.channel], [], [], 0.1)
            self.writer.pump()

    def end(self) -> None:
        self.writer.close()
        end_of(self.writer.pid)
        os.close(self.read_end)


def note(node: int) -> bytes:
    return codec.notify_inval_inode(node, 0, 0)


@alone
def test_notifications_are_written_in_order_by_another_process() -> None:
    notified = Notified()
    messages_ = [note(node) for node in range(1, 500)]
    for message in messages_:
        notified.writer.put(message)
    size = sum(map(len, messages_))
    read = b""
    while len(read) < size:
        wait(notified.read_end)
        read += os.read(notified.read_end, 1 << 16)
        notified.writer.pump()
    assert read == b"".join(messages_)
    notified.end()


@alone
def test_a_writer_that_is_stuck_blocks_nobody_and_what_waits_is_merged() -> None:
    notified = Notified()
    os.set_blocking(notified.read_end, False)
    filler = codec.notify_store(1, 0, b"x" * 30_000)
    for _ in range(100):  # more than pipe and channel take
        notified.writer.put(filler)
    for _ in range(1000):
        notified.writer.put(note(7))
    assert notified.writer.queue.merged >= 990
    notified.end()


@alone
def test_refusals_are_counted_and_do_not_end_it() -> None:
    refusing = os.open("/dev/full", os.O_WRONLY)
    notified = Notified(refusing)
    for node in range(1, 11):
        notified.writer.put(note(node))
    notified.pump_until(lambda: notified.writer.refused == 10)
    assert not notified.writer.ended
    notified.writer.put(b"nonsense")
    notified.writer.put(note(1)[: notifications.BODY_AT])
    assert notified.writer.refused in (11, 12)
    notified.end()


@alone
def test_what_a_dead_writer_had_in_hand_waits_for_the_next() -> None:
    notified = Notified()
    os.kill(notified.writer.pid, signal.SIGSTOP)
    expected = [note(node) for node in range(1, 100)]
    for message in expected:
        notified.writer.put(message)
    os.kill(notified.writer.pid, signal.SIGKILL)
    notified.pump_until(lambda: notified.writer.ended)
    assert [notified.writer.queue.take() for _ in expected] == expected
    assert notified.writer.queue.take() is None
    notified.end()


@alone
def test_a_writer_inherits_nothing_but_its_channel_and_the_device() -> None:
    secret = os.open("/etc/passwd", os.O_RDONLY)
    notified = Notified()
    notified.writer.put(note(1))
    notified.written(len(note(1)))  # it runs
    assert "/etc/passwd" not in descriptors(notified.writer.pid)
    os.close(secret)
    notified.end()


@alone
def test_a_writer_ends_with_its_supervisor() -> None:
    read_end, write_end = os.pipe()

    def supervise() -> None:
        writer = Writer(os.open("/dev/null", os.O_WRONLY))
        os.write(write_end, writer.pid.to_bytes(4, "little"))
        while Path(f"/proc/{writer.pid}/comm").read_text() != "rm-notifier\n":
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    assert end_of(start(supervise)) == -signal.SIGKILL
    pid = int.from_bytes(os.read(read_end, 4), "little")
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    wait(fd)
