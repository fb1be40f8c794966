"""What the kernel says by /dev/fuse while requests go over the rings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringmount.daemon.legacy import Forgets, Interrupted, Unexpected, parse
from ringmount.workers import abi, codec
from ringmount.workers.abi import Opcode


def message(opcode: int, body: bytes, nodeid: int = 0, unique: int = 8, length: int | None = None) -> memoryview:
    size = abi.FUSE_IN_HEADER.size + len(body) if length is None else length
    return memoryview(abi.FUSE_IN_HEADER.struct.pack(size, opcode, unique, nodeid, 0, 0, 0, 0, 0) + body)


def batch(*pairs: tuple[int, int], count: int | None = None) -> memoryview:
    head = abi.FUSE_BATCH_FORGET_IN.struct.pack(len(pairs) if count is None else count, 0)
    return message(Opcode.BATCH_FORGET, head + b"".join(abi.FUSE_FORGET_ONE.struct.pack(*pair) for pair in pairs))


def test_a_forget_gives_back_references_on_one_node() -> None:
    assert parse(message(Opcode.FORGET, abi.FUSE_FORGET_IN.struct.pack(3), nodeid=7)) == Forgets(((7, 3),))


def test_a_batch_gives_back_references_on_many_nodes() -> None:
    pairs = tuple((i, 2 * i) for i in range(1, 1000))
    assert parse(batch(*pairs)) == Forgets(pairs)


def test_an_interrupt_names_the_request() -> None:
    body = abi.FUSE_INTERRUPT_IN.struct.pack(1234)
    assert parse(message(Opcode.INTERRUPT, body, unique=1235)) == Interrupted(1234)


def test_a_request_that_came_the_wrong_way_is_told_with_its_header() -> None:
    said = parse(message(Opcode.LOOKUP, b"name\0", nodeid=1, unique=42))
    assert isinstance(said, Unexpected)
    assert (said.header.opcode, said.header.unique, said.header.nodeid) == (Opcode.LOOKUP, 42, 1)


def test_a_batch_that_lies_about_its_length_is_refused() -> None:
    with pytest.raises(codec.DecodeError):
        parse(batch((1, 1), count=2))


@given(st.binary(max_size=300))
def test_any_bytes_are_understood_or_refused(data: bytes) -> None:
    try:
        parse(memoryview(data))
    except codec.DecodeError:
        pass


@given(st.sampled_from([Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT]), st.binary(max_size=100))
def test_any_body_of_these_is_understood_or_refused(opcode: Opcode, body: bytes) -> None:
    try:
        parse(message(opcode, body))
    except codec.DecodeError:
        pass
