"""The count of a node's open files, and that no death makes it wrong."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from process.dying import Region, end_of, start_until

from ringmount.workers import nodes
from ringmount.workers._native import ffi, lib
from ringmount.workers.abi import OpenReply
from ringmount.workers.nodes import NodeTable

NODE = 0x1_0000_0007
SIZE = nodes.size(64)


class Table:
    """A table, and the journal of one request. No kernel is behind it, so that no file is passed through."""

    def __init__(self) -> None:
        self.region = Region(SIZE + 4096)
        self.nodes = NodeTable(self.region.address, SIZE, 0, create=True)
        self.journal = ffi.cast("struct rm_journal *", self.region.address + SIZE)
        self.c = ffi.new("struct rm_opens *")
        assert lib.rm_opens_set_up(self.c, ffi.cast("void *", self.region.address), self.region.fd, 0) == 0

    def new_request(self) -> None:
        ffi.memmove(self.journal, bytes(ffi.sizeof("struct rm_journal")), ffi.sizeof("struct rm_journal"))

    def add(self, fd: int = -1, flags: int = 0, common: int = 0) -> Any:
        reply = ffi.new("struct rm_reply *")
        assert lib.rm_opens_add(self.c, self.journal, NODE, 0, fd, flags, common, reply) == 0
        return reply

    def release(self) -> None:
        lib.rm_opens_release(self.c, self.journal, NODE)

    def count(self) -> int:
        """Open files of the node; the table is looked through for mistakes first."""
        self.nodes.verify()
        return sum(count for node, count in self.nodes.iterate() if node != 1)


@pytest.fixture
def table() -> Table:
    return Table()


def test_files_are_counted_from_open_to_release(table: Table) -> None:
    for number in (1, 2, 3):
        table.new_request()
        assert table.add(flags=4, common=1).flags == 5
        assert table.count() == number
    for number in (2, 1, 0):
        table.new_request()
        table.release()
        assert table.count() == number
    table.new_request()
    table.release()  # of a file that was opened when nothing was counted
    assert table.count() == 0


def test_a_file_that_the_kernel_does_not_take_goes_through_the_workers(table: Table) -> None:
    reply = table.add(fd=table.region.fd, flags=32, common=1)
    assert (reply.flags, reply.backing_id) == (33, 0)
    assert table.c.refused > 0


def test_a_stream_is_not_offered_to_the_kernel(table: Table) -> None:
    table.add(fd=table.region.fd, flags=OpenReply.NONSEEKABLE)
    assert table.c.refused == 0


def test_a_release_that_is_run_again_counts_once(table: Table) -> None:
    for _ in range(2):
        table.new_request()
        table.add()
    table.new_request()
    for _ in range(3):
        table.release()
        lib.rm_opens_settle(table.c, table.journal)
    assert table.count() == 1


def at_every_step(act: Callable[[Table], None], prepare: Callable[[Table], None]) -> Iterator[Table]:
    """Tables in which a process has died in the middle of `act`, after one STEP() more each time."""
    for step in range(1, 200):
        table = Table()
        prepare(table)
        table.new_request()
        code = end_of(start_until(step, lambda table=table: act(table)))  # type: ignore[misc]
        yield table
        if code == 0:
            return
        assert code == -signal.SIGKILL
    raise AssertionError("it does not end")


@pytest.mark.parametrize("others", [0, 2])
def test_an_open_that_dies_is_taken_back_whenever_that_was(others: int) -> None:
    def prepare(table: Table) -> None:
        for _ in range(others):
            table.new_request()
            table.add()

    found = 0
    for table in at_every_step(lambda table: table.add() and None, prepare):
        lib.rm_opens_settle(table.c, table.journal)
        assert table.count() == others
        table.add()  # it is run again
        assert table.count() == others + 1
        found += 1
    assert found > 5


@pytest.mark.parametrize("others", [0, 2])
def test_a_release_that_dies_and_is_run_again_counts_once_whenever_that_was(others: int) -> None:
    def prepare(table: Table) -> None:
        for _ in range(others + 1):
            table.new_request()
            table.add()

    found = 0
    for table in at_every_step(Table.release, prepare):
        lib.rm_opens_settle(table.c, table.journal)
        table.release()
        assert table.count() == others
        found += 1
    assert found > 5
