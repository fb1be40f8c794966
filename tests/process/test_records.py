"""Records of traced requests, as the reader finds them in an arena that somebody else writes, or claims to."""

import os
from pathlib import Path

import pytest
from process.test_arena import alone, made

from ringmount.daemon.records import KEPT, MARGIN, Records
from ringmount.workers.arena import ArenaError


@alone
def test_what_is_new_is_read_once_and_what_was_overwritten_is_counted() -> None:
    arena = made()
    trace = arena.c.traces[0]
    records = Records(arena.fd, [0] * arena.workers)
    for number in range(3):
        trace.records[number].unique = number
        trace.records[number].named = 5
        trace.records[number].name[0:5] = b"a\0bc\0"
        trace.records[number].error = -2
        trace.records[number].command[0:3] = b"cat"
    trace.next = 3
    found = records.read()
    assert [one.unique for one in found] == [0, 1, 2]
    assert (found[0].names, found[0].error, found[0].command) == ((b"a", b"bc"), 2, b"cat")
    assert records.read() == []
    trace.next = 3 + KEPT + 100
    assert len(records.read()) == KEPT - MARGIN
    assert records.lost == 100 + MARGIN
    trace.next = 5  # a writer that goes back says nothing
    assert records.read() == []


@alone
def test_a_name_longer_than_its_field_and_lies_about_its_length_do_no_harm() -> None:
    arena = made()
    trace = arena.c.traces[0]
    trace.records[0].named = 2**32 - 1
    trace.records[0].name[0:104] = b"x" * 104
    trace.next = 1
    (record,) = Records(arena.fd, []).read()
    assert record.names == (b"x" * 104,)


@alone
def test_what_is_no_arena_is_refused() -> None:
    end, other = os.pipe()
    for fd in (end, other, os.open("/dev/zero", os.O_RDONLY), os.open(__file__, os.O_RDONLY)):
        with pytest.raises(ArenaError):
            Records(fd, [])
    arena = made()
    records = Records(arena.fd, [])
    arena.c.traces[0].next = 10
    os.ftruncate(arena.fd, arena.address("trace") - arena.address("header") + 8)
    with pytest.raises(ArenaError):
        records.read()
    os.ftruncate(arena.fd, 4096)
    with pytest.raises(ArenaError):
        Records(arena.fd, [])
    empty = os.memfd_create("ringmount-empty")
    with pytest.raises(ArenaError):
        Records(empty, [])


def test_a_file_that_makes_its_reader_wait_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    fd = os.open(tmp_path / "fifo", os.O_RDWR)
    with pytest.raises(ArenaError):
        Records(fd, [])
    os.close(fd)
