"""What supervisor and workers say to each other, over a channel that is never waited for."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

import msgspec
import pytest

from ringmount.workers import codec, messages
from ringmount.workers.api import ROOT, NodeId
from ringmount.workers.messages import MAX_FORGETS, MAX_PACKET, Forget, Interrupt, LogLevel, Notification, Outbox, Serve
from ringmount.workers.notify import MAX_STORE, Notifier

NODE = NodeId(7)
DESCRIPTION = messages.Description(["lookup"], "single", 3, True, False, True, False, True, False)
TO_WORKER = [Serve("io_uring", True), Interrupt(3, 2**63), Forget([(1, 2), (2**64 - 1, 1)]), messages.Stop()]
TO_SUPERVISOR = [
    messages.Prepared(),
    messages.Serving("dev_fuse"),
    messages.Failed("filesystem", "why", True),
    messages.Legacy(b"\0" * 60_000),
    messages.Departed([(2**63, 2**63)]),
    Notification(b"\xff" * 100),
    DESCRIPTION,
]


class Channel:
    """Both ends of a worker's channel."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs.setblocking(False)
        self.outbox = Outbox(self.ours)

    def receive(self) -> list[bytes]:
        """All packets that are there."""
        packets = []
        with contextlib.suppress(BlockingIOError):
            while packet := self.theirs.recv(1 << 17):
                packets.append(packet)
        return packets

    def fill(self) -> int:
        """Sends until the channel takes no more; returns how many messages."""
        count = 0
        while not len(self.outbox):
            self.outbox.send(Interrupt(count, 0))
            count += 1
        return count


@pytest.fixture
def channel() -> Iterator[Channel]:
    made = Channel()
    yield made
    made.ours.close()
    made.theirs.close()


def indices(packets: list[bytes]) -> list[int]:
    found = [messages.to_worker(packet) for packet in packets]
    return [message.index for message in found if isinstance(message, Interrupt)]


@pytest.mark.parametrize("message", TO_WORKER, ids=lambda message: type(message).__name__)
def test_what_is_said_to_a_worker_arrives_as_it_was(message: messages.Message) -> None:
    assert messages.to_worker(messages.encode(message)) == message


@pytest.mark.parametrize("message", TO_SUPERVISOR, ids=lambda message: type(message).__name__)
def test_what_is_said_to_the_supervisor_arrives_as_it_was(message: messages.Message) -> None:
    assert messages.to_supervisor(messages.encode(message)) == message


@pytest.mark.parametrize("packet", [b"", b"\xff", b"\x91\xa7Unknown", messages.encode(LogLevel("info"))[:-1]])
def test_what_is_no_message_is_refused(packet: bytes) -> None:
    for decode in (messages.to_worker, messages.to_supervisor):
        with pytest.raises(msgspec.DecodeError):
            decode(packet)


def test_nobody_is_told_what_is_for_the_other_side() -> None:
    with pytest.raises(msgspec.DecodeError):
        messages.to_supervisor(messages.encode(messages.Stop()))
    with pytest.raises(msgspec.DecodeError):
        messages.to_worker(messages.encode(messages.Prepared()))


@pytest.mark.parametrize(
    "message",
    [
        Forget([(2**64 - 1, 2**64 - 1)] * MAX_FORGETS),
        messages.Departed([(2**64 - 1, 2**64 - 1)] * MAX_FORGETS),
        Notification(codec.notify_store(2**64 - 1, 2**63, b"x" * MAX_STORE)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_the_largest_messages_fit_into_a_packet(channel: Channel, message: messages.Message) -> None:
    channel.outbox.send(message)
    (packet,) = channel.receive()
    assert len(packet) <= MAX_PACKET


def test_what_does_not_fit_into_a_packet_is_a_mistake_of_the_sender(channel: Channel) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        channel.outbox.send(Notification(b"x" * MAX_PACKET))
    channel.outbox.send(Interrupt(1, 0))
    assert indices(channel.receive()) == [1]


def test_what_does_not_fit_into_the_channel_waits_in_order(channel: Channel) -> None:
    sent = channel.fill()
    for index in range(sent, sent + 100):
        channel.outbox.send(Interrupt(index, 0))
    received = indices(channel.receive())
    while len(channel.outbox):
        assert channel.outbox.flush() or channel.outbox
        received += indices(channel.receive())
    received += indices(channel.receive())
    assert received == list(range(sent + 100))
    assert channel.outbox.flush()


def test_a_peer_that_is_gone_takes_everything(channel: Channel) -> None:
    channel.fill()
    channel.theirs.close()
    assert channel.outbox.flush()
    channel.outbox.send(Interrupt(1, 0))
    assert len(channel.outbox) == 0


def test_descriptors_come_with_their_message_even_if_it_waited(channel: Channel) -> None:
    channel.fill()
    read_end, write_end = os.pipe()
    channel.outbox.send(Serve("dev_fuse", True), [write_end])
    found: list[int] = []
    while not found:
        channel.outbox.flush()
        packet, fds, _, _ = socket.recv_fds(channel.theirs, MAX_PACKET, 1)
        if isinstance(messages.to_worker(packet), Serve):
            found = fds
        else:
            assert fds == []
    os.write(found[0], b"x")
    assert os.read(read_end, 1) == b"x"
    for fd in (read_end, write_end, *found):
        os.close(fd)


def test_threads_may_share_an_outbox(channel: Channel) -> None:
    received: list[int] = []

    def send(first: int) -> None:
        for index in range(first, first + 1000):
            channel.outbox.send(Interrupt(index, 0))

    threads = [threading.Thread(target=send, args=(t * 1000,)) for t in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or len(channel.outbox):
        channel.outbox.flush()
        received += indices(channel.receive())
    for thread in threads:
        thread.join()
    received += indices(channel.receive())
    assert len(received) == 4000
    for t in range(4):
        own = [index for index in received if index // 1000 == t]
        assert own == list(range(t * 1000, t * 1000 + 1000))


# --- what filesystems say (api.Notify) ------------------------------------------------------------------------------


def test_notifications_are_the_kernels_bytes() -> None:
    said: list[bytes] = []
    notify = Notifier(said.append)
    notify.inval_inode(NODE, 10, 20)
    notify.inval_entry(ROOT, b"name")
    notify.inval_entry(ROOT, b"name", expire_only=True)
    notify.delete(ROOT, NODE, b"name")
    notify.poll(9)
    assert said == [
        codec.notify_inval_inode(7, 10, 20),
        codec.notify_inval_entry(1, b"name"),
        codec.notify_inval_entry(1, b"name", 1),
        codec.notify_delete(1, 7, b"name"),
        codec.notify_poll(9),
    ]


@pytest.mark.parametrize("size", [0, 1, MAX_STORE, MAX_STORE + 1, 3 * MAX_STORE])
def test_data_to_store_comes_in_pieces_that_fit(size: int) -> None:
    said: list[bytes] = []
    Notifier(said.append).store(NODE, 100, b"x" * size)
    assert [len(message) for message in said] == [
        len(codec.notify_store(7, 0, b"x" * min(MAX_STORE, size - at))) for at in range(0, size, MAX_STORE)
    ]
    offsets = [int.from_bytes(message[24:32], "little") for message in said]
    assert offsets == [100 + at for at in range(0, size, MAX_STORE)]
