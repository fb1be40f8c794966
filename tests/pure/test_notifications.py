"""The queue of notifications: order, merging, and its limit."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ringmount.daemon import notifications
from ringmount.daemon.notifications import Queue
from ringmount.workers import codec
from ringmount.workers.abi import Notify

NODE, OTHER = 7, 8
ALL_OF_IT = codec.notify_inval_inode(NODE, 0, 0)
A_RANGE = codec.notify_inval_inode(NODE, 4096, 4096)
ATTRIBUTES = codec.notify_inval_inode(NODE, -1, 0)
A_NAME = codec.notify_inval_entry(1, b"name")


def drain(queue: Queue) -> list[bytes]:
    taken = []
    while (data := queue.take()) is not None:
        taken.append(data)
    assert len(queue) == 0
    return taken


def filled(*messages: bytes) -> Queue:
    queue = Queue()
    for message in messages:
        queue.put(message)
    return queue


def store(data: bytes, node: int = NODE) -> bytes:
    return codec.notify_store(node, 0, data)


def test_an_empty_queue_gives_nothing() -> None:
    assert Queue().take() is None


def test_the_oldest_comes_first() -> None:
    messages = [A_NAME, ATTRIBUTES, codec.notify_poll(3), codec.notify_delete(1, NODE, b"name"), store(b"x")]
    assert drain(filled(*messages)) == messages


def test_equal_messages_that_wait_are_one() -> None:
    queue = filled(A_NAME, A_RANGE, A_NAME, A_RANGE)
    assert queue.merged == 2
    assert drain(queue) == [A_NAME, A_RANGE]


def test_a_message_that_was_taken_is_sent_again() -> None:
    queue = filled(A_NAME)
    assert queue.take() == A_NAME
    queue.put(A_NAME)
    assert drain(queue) == [A_NAME]


def test_a_range_is_covered_by_the_whole_inode_that_waits() -> None:
    assert drain(filled(ALL_OF_IT, A_RANGE, ATTRIBUTES)) == [ALL_OF_IT]


def test_the_whole_inode_is_not_covered_by_a_range() -> None:
    assert drain(filled(A_RANGE, ALL_OF_IT)) == [A_RANGE, ALL_OF_IT]


def test_any_length_that_reaches_the_end_is_the_whole_inode() -> None:
    assert len(drain(filled(ALL_OF_IT, codec.notify_inval_inode(NODE, 0, -1)))) == 1


def test_inodes_do_not_cover_each_other() -> None:
    other = codec.notify_inval_inode(OTHER, 0, 0)
    assert drain(filled(ALL_OF_IT, other)) == [ALL_OF_IT, other]


def test_expiry_does_not_stand_for_invalidation() -> None:
    expire = codec.notify_inval_entry(1, b"name", 1)
    assert drain(filled(expire, A_NAME)) == [expire, A_NAME]


def test_equal_stores_are_not_merged() -> None:
    """The first would otherwise put the data in place before the second message's are overwritten."""
    messages = [store(b"one"), store(b"two"), store(b"one")]
    assert drain(filled(*messages)) == messages


def test_an_invalidation_is_not_merged_across_a_store_of_its_node() -> None:
    messages = [ALL_OF_IT, store(b"old"), ALL_OF_IT, A_RANGE]
    assert drain(filled(*messages)) == messages[:3]


def test_a_store_of_another_node_does_not_keep_invalidations_apart() -> None:
    other = store(b"old", OTHER)
    assert drain(filled(ALL_OF_IT, other, ALL_OF_IT)) == [ALL_OF_IT, other]


def test_what_is_put_back_comes_first_again() -> None:
    for message in (A_NAME, ALL_OF_IT, store(b"x")):
        queue = filled(message, A_RANGE)
        taken = queue.take()
        assert taken == message
        queue.put_back(taken)
        queue.put(A_NAME)
        assert queue.take() == message


def test_too_much_data_becomes_an_invalidation_of_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "MAX_BYTES", 1000)
    fits = codec.notify_store(NODE, 8192, b"x" * 600)
    assert drain(filled(fits, fits)) == [fits, codec.notify_inval_inode(NODE, 8192, 600)]


def test_what_is_taken_makes_room_for_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "MAX_BYTES", 1000)
    fits = codec.notify_store(NODE, 8192, b"x" * 600)
    queue = filled(fits)
    for _ in range(3):
        assert queue.take() == fits
        queue.put(fits)
    assert drain(queue) == [fits]


def test_bytes_that_are_no_notification_are_refused() -> None:
    for length in range(len(ALL_OF_IT)):
        if length < notifications.BODY_AT:
            continue
        with pytest.raises(struct.error):
            Queue().put(ALL_OF_IT[:length])


class Cache:
    """What the kernel remembers of some nodes: the last STORE, unless something was invalidated after it."""

    def __init__(self) -> None:
        self.data: dict[int, bytes] = {}

    def write(self, message: bytes) -> None:
        kind = struct.unpack_from("<i", message, 4)[0]
        node = struct.unpack_from("<Q", message, 16)[0]
        if kind == Notify.STORE:
            self.data[node] = message[40:]
        elif kind == Notify.INVAL_INODE:
            self.data.pop(node, None)


MESSAGES = st.one_of(
    st.builds(store, st.sampled_from([b"one", b"two"]), st.sampled_from([NODE, OTHER])),
    st.builds(codec.notify_inval_inode, st.sampled_from([NODE, OTHER]), st.just(0), st.sampled_from([0, -1, 3])),
    st.just(A_NAME),
)


@example([store(b"one"), ALL_OF_IT, "take", store(b"one"), ALL_OF_IT])
@given(st.lists(st.one_of(MESSAGES, st.just("take"), st.just("put back"))))
def test_merging_never_changes_what_is_cached_in_the_end(steps: list[bytes | str]) -> None:
    queue, merged, plain = Queue(), Cache(), Cache()
    for step in steps:
        if isinstance(step, bytes):
            plain.write(step)
            queue.put(step)
        elif (taken := queue.take()) is not None:
            if step == "put back":
                queue.put_back(taken)
            else:
                merged.write(taken)
    for message in drain(queue):
        merged.write(message)
    assert merged.data == plain.data
