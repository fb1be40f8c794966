"""The ring on a real FUSE connection: registration, delivery, commits, and what happens when it cannot be."""

import errno
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from mount.clients import client
from process.dying import end_of, start
from ring.connection import (
    PATIENCE,
    Connection,
    address_of,
    alarm_handler,
    alone,
    attr_out,
    is_private_ring_hidden,
)

from ringmount.workers import recovery, ring
from ringmount.workers._native import lib
from ringmount.workers.abi import Opcode
from ringmount.workers.recovery import Left
from ringmount.workers.ring import IO, IORING_OP_FSYNC, IORING_OP_READ, IORING_OP_WRITE, MAIL, Ring

WITHOUT_IO_URING = Path(__file__).parents[1] / "mount" / "without_io_uring.py"
STAT = "import os, sys; print(os.stat(sys.argv[1]).st_ino)"
STATVFS = "import os, sys; print(os.statvfs(sys.argv[1]).f_bsize)"
ERROR = """
import errno, os, sys
try:
    os.statvfs(sys.argv[1])
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def delivered(connection: Connection, found: Ring, count: int = 1) -> list[int]:
    """Waits for so many requests; returns their entries."""
    entries: list[int] = []
    while len(entries) < count:
        entries += [data for data, result in found.turn([], True) if data < connection.arena.entries]
    return entries


# --- delivery -------------------------------------------------------------------------------------------------------


@alone
def test_a_request_is_delivered_into_an_entry_and_its_reply_reaches_the_caller(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt")
    connection.answer_init()
    found = connection.registered()
    with client(STAT, connection.path, cpu=0) as caller:
        (index,) = delivered(connection, found)
        journal = connection.arena.c.journal[index]
        assert journal.qid == 0
        assert journal.state == lib.RM_DELIVERED
        assert journal.commit_id != 0
        assert journal.delivered_ns != 0
        assert connection.opcode(index) == Opcode.GETATTR
        found.turn([connection.answer(index, attr_out())], False)
        assert journal.state == lib.RM_FREE
        assert caller.result() == "1\n"
    assert connection.arena.worker(0).requests == 1
    assert connection.arena.worker(0).ops[Opcode.GETATTR].count == 1


@alone
def test_each_cpu_has_a_queue_of_its_own(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt")
    connection.answer_init()
    found = connection.registered()
    for cpu in sorted(os.sched_getaffinity(0)):
        with client(STATVFS, connection.path, cpu=cpu) as caller:
            (index,) = delivered(connection, found)
            assert connection.arena.c.journal[index].qid == cpu
            found.turn([connection.answer_anything(index)], False)
            caller.result()


@alone
def test_many_replies_are_committed_in_one_turn(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt", depth=8)
    connection.answer_init()
    found = connection.registered()
    callers = [client(STATVFS, connection.path, cpu=0) for _ in range(6)]
    running = [caller.__enter__() for caller in callers]
    entries = delivered(connection, found, 6)
    assert len(set(entries)) == 6
    found.turn([connection.answer_anything(index) for index in entries], False)
    for caller in running:
        caller.result()
    assert connection.arena.worker(0).requests == 6


@alone
def test_requests_beyond_the_entries_wait_and_come_with_the_commits(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt", depth=1)
    connection.answer_init()
    found = connection.registered()
    callers = [client(STATVFS, connection.path, cpu=0) for _ in range(4)]
    running = [caller.__enter__() for caller in callers]
    connection.serve(found, lambda: all(caller.is_done() for caller in running))
    for caller in running:
        caller.result()


@alone
def test_more_entries_than_the_submission_queue_has_room_for_are_registered(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt", depth=200)
    connection.answer_init()
    found = connection.registered()
    with client(STAT, connection.path) as caller:
        connection.serve(found, caller.is_done)
        caller.result()


@alone
def test_an_error_is_passed_on(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt")
    connection.answer_init()
    found = connection.registered()
    with client(ERROR, connection.path) as caller:
        (index,) = delivered(connection, found)
        found.turn([connection.answer(index, error=errno.EDQUOT)], False)
        assert caller.result() == "EDQUOT\n"
    assert connection.arena.worker(0).errors == 1


# --- waiting --------------------------------------------------------------------------------------------------------


@alone
def test_a_signal_interrupts_a_wait(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt")
    connection.answer_init()
    found = connection.registered()
    with alarm_handler():
        timer = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGUSR1])
        timer.start()
        with pytest.raises(InterruptedError):
            found.turn([], True)
        timer.join()
    with client(STAT, connection.path) as caller:
        connection.serve(found, caller.is_done)
        caller.result()


@alone
def test_a_turn_need_not_wait(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt")
    connection.answer_init()
    assert list(connection.registered().turn([], False)) == []


@alone
def test_the_eventfd_wakes_an_event_loop(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt")
    connection.answer_init()
    found = connection.registered(with_eventfd=True)
    (eventfd,) = found.wait_fds
    poll = select.epoll()
    poll.register(eventfd, select.EPOLLIN)
    assert poll.poll(0) == []
    for _ in range(3):
        with client(STATVFS, connection.path) as caller:
            assert poll.poll(PATIENCE) == [(eventfd, select.EPOLLIN)]
            ((index, result),) = found.turn([], False)
            assert result == 0
            assert poll.poll(0) == []
            found.turn([connection.answer_anything(index)], False)
            caller.result()


@alone
def test_mail_comes_through_the_ring(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt")
    connection.answer_init()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    found = connection.registered(mail_fd=theirs.fileno())
    for message in (b"one", b"x" * 65536, b"three"):
        found.listen()
        ours.send(message)
        assert list(found.turn([], True)) == [(MAIL, len(message))]
        assert found.mail(len(message)) == message
    found.listen()
    ours.close()
    assert list(found.turn([], True)) == [(MAIL, 0)]


# --- ordinary operations --------------------------------------------------------------------------------------------


@alone
def test_files_are_read_and_written_from_and_to_a_payload(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt")
    connection.answer_init()
    found = connection.registered()
    data = os.urandom(8000)
    (tmp_path / "file").write_bytes(data)
    file = os.open(tmp_path / "file", os.O_RDWR)
    payload = connection.arena.payload_view(2)
    assert found.io(IORING_OP_READ, file, address_of(payload), 5000, 1000, 0, 41)
    assert list(found.turn([], True)) == [(IO | 41, 5000)]
    assert bytes(payload[:5000]) == data[1000:6000]
    payload[:4] = b"abcd"
    assert found.io(IORING_OP_WRITE, file, address_of(payload), 4, 8000, 0, 42)
    assert list(found.turn([], True)) == [(IO | 42, 4)]
    assert found.io(IORING_OP_FSYNC, file, 0, 0, 0, 0, 43)
    assert list(found.turn([], True)) == [(IO | 43, 0)]
    assert (tmp_path / "file").read_bytes() == data + b"abcd"
    assert found.io(IORING_OP_READ, 999_999, address_of(payload), 1, 0, 0, 44)
    assert list(found.turn([], True)) == [(IO | 44, -errno.EBADF)]


# --- privacy --------------------------------------------------------------------------------------------------------


@alone
def test_the_ring_has_no_descriptor(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt")
    connection.answer_init()
    connection.registered(with_eventfd=True)
    assert is_private_ring_hidden()


@alone
def test_a_forked_child_does_not_keep_a_dead_process_ring(tmp_path: Path) -> None:
    """Were the ring inherited, its entries would go on being handed requests which nobody takes."""
    connection = Connection(tmp_path / "mnt")
    connection.answer_init()
    told, tell = os.pipe()

    def register_and_fork() -> None:
        connection.attach()
        found = connection.registered()
        child = start(lambda: signal.pause())
        os.write(tell, child.to_bytes(4, "little"))
        found.turn([], True)

    holder = start(register_and_fork)
    child = int.from_bytes(os.read(told, 4), "little")
    try:
        with client(STAT, connection.path, cpu=0) as caller:
            end_of(holder)  # it ends with the request delivered
            (leftover,) = recovery.leftovers(connection.arena, 0)
            assert leftover.left is Left.DELIVERED
            found = connection.ring()
            found.register(index for index in range(connection.arena.entries) if index != leftover.index)
            found.turn([], False)
            connection.answer(leftover.index, attr_out())
            found.recommit(leftover.index)
            connection.serve(found, caller.is_done)
            assert caller.result() == "1\n"
        with client(STATVFS, connection.path, cpu=0) as caller:
            connection.serve(found, caller.is_done)
            caller.result()
    finally:
        os.kill(child, signal.SIGKILL)


# --- succession -----------------------------------------------------------------------------------------------------


@alone
def test_a_successor_answers_what_a_killed_process_left(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt")
    connection.answer_init()

    def take_one_and_die() -> None:
        connection.attach()
        found = connection.registered()
        delivered(connection, found)
        os.kill(os.getpid(), signal.SIGKILL)

    holder = start(take_one_and_die)
    with client(STAT, connection.path, cpu=0) as caller:
        assert end_of(holder) == -signal.SIGKILL
        (leftover,) = recovery.leftovers(connection.arena, 0)
        assert leftover.left is Left.DELIVERED
        found = connection.ring()
        found.register(index for index in range(connection.arena.entries) if index != leftover.index)
        found.turn([connection.answer(leftover.index, attr_out())], False)
        connection.serve(found, caller.is_done)
        assert caller.result() == "1\n"


@alone
def test_an_answer_that_was_taken_already_is_refused_and_the_entry_can_be_registered_again(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt")
    connection.answer_init()
    found = connection.registered()
    with client(STAT, connection.path, cpu=0) as caller:
        (index,) = delivered(connection, found)
        found.turn([connection.answer(index, attr_out())], False)
        caller.result()
    found.recommit(index)
    assert list(found.turn([], True)) == [(index, -errno.ENOENT)]
    found.register([index])
    assert list(found.turn([], False)) == []


@alone
def test_when_the_mount_goes_every_entry_says_so(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt", depth=2)
    connection.answer_init()
    found = connection.registered()
    connection.unmount()
    ended: set[int] = set()
    while len(ended) < connection.arena.entries:
        for data, result in found.turn([], True):
            assert result == -errno.ENOTCONN
            ended.add(data)
    assert ended == set(range(connection.arena.entries))


# --- refusal --------------------------------------------------------------------------------------------------------


def test_this_machine_has_rings() -> None:
    assert ring.probe() is None


@alone
def test_a_registration_before_init_is_to_be_repeated(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt", depth=1)
    found = connection.ring()
    found.register([0])
    assert list(found.turn([], True)) == [(0, -errno.EAGAIN)]


@alone
def test_a_payload_that_is_too_small_is_refused_and_nobody_hangs(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt", depth=1, max_write=1 << 20, payload=8192)
    connection.answer_init()
    with client(STAT, connection.path) as caller:
        found = connection.ring()
        found.register([0])
        assert list(found.turn([], True)) == [(0, -errno.EINVAL)]
        answer_by_legacy(connection)
        assert caller.result() == "1\n"


def answer_by_legacy(connection: Connection) -> None:
    """Answers the GETATTR of a stat that came by /dev/fuse."""
    header, _ = connection.read_legacy()
    assert header.opcode == Opcode.GETATTR
    connection.reply_legacy(header.unique, attr_out())


def give_up(connection: Connection) -> None:
    """Gives the rings up in a child, as the supervisor does."""

    def tell() -> None:
        assert ring.give_up(connection.arena.fd, connection.fd) == 0

    assert end_of(start(tell)) == 0


@alone
def test_giving_up_wakes_whoever_waits_for_the_rings(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt")
    connection.answer_init()
    with client("print('begun', flush=True)\n" + STAT, connection.path) as caller:
        assert caller.process.stdout is not None
        assert caller.process.stdout.readline() == "begun\n"
        assert not select.select([connection.fd], [], [], 0.2)[0]  # the kernel holds it back
        give_up(connection)
        answer_by_legacy(connection)
        assert caller.result() == "1\n"


@alone
def test_giving_up_fails_where_no_ring_can_be_made(tmp_path: Path) -> None:
    connection = Connection(tmp_path / "mnt")
    connection.answer_init()
    for fd in (connection.arena.fd, connection.fd):
        os.set_inheritable(fd, True)
    code = "import sys; from ringmount.workers import ring; sys.exit(40 + ring.give_up(*map(int, sys.argv[1:])))"
    arguments = [str(connection.arena.fd), str(connection.fd)]
    done = subprocess.run(
        [sys.executable, str(WITHOUT_IO_URING), "0", sys.executable, "-P", "-c", code, *arguments],
        timeout=PATIENCE,
        close_fds=False,
        check=False,
    )
    assert done.returncode == 41
