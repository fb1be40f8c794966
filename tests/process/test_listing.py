"""A READDIRPLUS reply whose worker dies: whatever it had counted is given back, exactly once."""

from collections.abc import Callable
from itertools import count

import pytest
from process.dying import Region, deaths, kill_at

from ringmount.workers import codec
from ringmount.workers._native import ffi, lib
from ringmount.workers.api import ROOT, Attr
from ringmount.workers.dispatch import HELD
from ringmount.workers.nodes import NodeTable, size

NODES = size(64)
ROOM = 4096
NAMES = (b".", b"a", b"longer", b"known", b"b" * 30)


class Reply:
    """A table of nodes, a journal record and a payload, as an arena has them."""

    def __init__(self, room: int = ROOM) -> None:
        self.region = Region(NODES + 3 * 4096)
        self.room = room
        self.nodes = NodeTable(self.region.address, NODES, 0, create=True)
        self.journal = ffi.cast("struct rm_journal *", self.region.address + NODES)
        self.payload = ffi.cast("uint8_t *", self.region.address + NODES + 4096)
        self.view = memoryview(ffi.buffer(self.payload, ROOM))
        # What an earlier request left: it must not be taken for references.
        self.known = self.nodes.take(b"known", b"")
        self.view[:] = (self.known.to_bytes(8, "little") + HELD.to_bytes(8, "little")) * (ROOM // 16)
        self.journal.listed = lib.RM_NOT_LISTING

    def make(self) -> None:
        """Lists NAMES, those that fit; all but the first take a reference."""
        intent = lib.rm_listing_begin(self.journal, self.payload)
        at = 0
        for number, name in enumerate(NAMES):
            node = 0 if name == b"." else self.nodes.take(name, b"value", intent)
            held = HELD if node else 0
            end = codec.encode_direntplus(
                self.view, at, self.room, 7, number + 1, 8, name, node, held, (1, 0), (1, 0), Attr(st_ino=7, st_mode=0)
            )
            intent = lib.rm_listing_add(self.journal, self.payload, self.room, end - at)
            at = end

    def settle(self) -> None:
        self.nodes.settle_listing(self.journal, self.payload, self.room)

    def counts(self) -> list[tuple[int, int]]:
        """Nodes and their references, but the root's, with the table in order."""
        self.nodes.verify()
        return [(node, references) for node, references in self.nodes.iterate() if node != ROOT]


WHOLE = sum(152 + (len(name) + 7 & ~7) for name in NAMES)


@pytest.mark.parametrize("room", [ROOM, WHOLE])
def test_what_a_dead_worker_had_listed_is_given_back_exactly_once(room: int) -> None:
    made: list[Reply] = []

    def prepare() -> Callable[[], object]:
        made.append(Reply(room))
        return made[-1].make

    for number, pid in enumerate(deaths(prepare)):
        reply = made.pop()
        if number % 2:
            reply.nodes.recover(pid or None)
        for _ in range(2):
            reply.settle()
            assert reply.counts() == [(reply.known, 1)]
            assert reply.journal.listed == lib.RM_NOT_LISTING
        assert reply.nodes.stats().anomalies == 0


@pytest.mark.parametrize("second", [1, 7, 20])
def test_successors_that_die_themselves_give_nothing_back_twice(second: int) -> None:
    for first in count(1):
        reply = Reply()
        reply.make()
        assert len(reply.counts()) == len(NAMES) - 1
        died = kill_at(first, reply.settle)
        kill_at(second, reply.settle)
        reply.settle()
        assert reply.counts() == [(reply.known, 1)]
        assert reply.nodes.stats().anomalies == 0
        if not died:
            break
    assert first > 2 * len(NAMES)


def test_a_reply_that_was_never_begun_has_nothing_to_give_back() -> None:
    reply = Reply()
    reply.settle()
    assert reply.counts() == [(reply.known, 1)]


def test_a_damaged_list_is_left_alone() -> None:
    reply = Reply()
    reply.make()
    before = reply.counts()
    reply.view[144] = 0xFF  # the first name's length
    reply.settle()
    assert reply.counts() == before
