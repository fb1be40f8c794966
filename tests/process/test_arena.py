"""The memory that all processes of a mount share: its layout, who may map it, and what a successor reads in it.

An arena has one address, so each test has a process of its own.
"""

import faulthandler
import functools
import os
import signal
import struct
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from process.dying import end_of, start

from ringmount.workers import arena as arenas
from ringmount.workers import recovery
from ringmount.workers._native import ffi, lib
from ringmount.workers.arena import ADDRESS, ENTRY_PAGE, HUGE, PAGE, SECTIONS, Arena, ArenaError, Plan, payload_size
from ringmount.workers.recovery import Left, Leftover

PLAN = Plan(depths=(3, 2, 1), owners=(0, 1, 0), workers=2, payload=8192, nodes=1024, handles=64)


def alone(test: Callable[[], None]) -> Callable[[], None]:
    """Runs a test in a child process; what it prints on failure is shown."""

    @functools.wraps(test)
    def run() -> None:
        assert end_of(start(test)) == 0

    return run


def made(plan: Plan = PLAN) -> Arena:
    return Arena.create(plan, "test")


# --- plan ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_write", "expected"), [(4096, 8192), (8192, 8192), (8193, 12288), (1 << 20, 1 << 20), (1, 8192)]
)
def test_a_payload_holds_max_write_and_what_the_kernel_demands(max_write: int, expected: int) -> None:
    assert payload_size(max_write) == expected


def test_the_buffers_of_a_plan_are_a_page_and_a_payload_for_each_entry() -> None:
    assert PLAN.entries == 6
    assert PLAN.buffer_bytes == 6 * (ENTRY_PAGE + 8192)


# --- layout --------------------------------------------------------------------------------------------------------


@alone
def test_sections_are_aligned_and_do_not_overlap() -> None:
    arena = made()
    end = 0
    for name in SECTIONS:
        at = arena.address(name) - ADDRESS
        assert at >= end
        assert at % (HUGE if name in ("nodes", "entries") else PAGE) == 0
        end = at + arena.section_size(name)
    assert end <= arena.size


@alone
def test_entries_are_page_aligned_and_do_not_overlap() -> None:
    arena = made()
    start_of_entries = arena.address("entries")
    for index in range(arena.entries):
        page, payload = arena.page(index), arena.payload_view(index)
        page[:] = bytes([index + 1]) * len(page)
        payload[:] = bytes([0x80 + index]) * len(payload)
        address = int(ffi.cast("uintptr_t", ffi.from_buffer(page)))
        assert address == start_of_entries + index * (ENTRY_PAGE + arena.payload)
        assert address % PAGE == 0
    for index in range(arena.entries):
        assert bytes(arena.page(index)) == bytes([index + 1]) * ENTRY_PAGE
        assert bytes(arena.payload_view(index)) == bytes([0x80 + index]) * 8192


@alone
def test_each_worker_has_the_entries_of_its_queues() -> None:
    arena = made()
    assert list(arena.entries_of(0)) == [0, 1, 2, 5]
    assert list(arena.entries_of(1)) == [3, 4]
    journal = arena.c.journal
    assert [(journal[i].qid, journal[i].worker) for i in range(6)] == [(0, 0), (0, 0), (0, 0), (1, 1), (1, 1), (2, 0)]


@alone
def test_what_is_not_touched_takes_no_memory() -> None:
    arena = made(Plan((64,) * 64, tuple(range(64)), 64, 1 << 20, 1 << 22, 1 << 20))
    assert arena.size > 4 << 30
    assert os.fstat(arena.fd).st_blocks * 512 < 16 << 20


# --- sharing -------------------------------------------------------------------------------------------------------


@alone
def test_another_process_sees_the_same_at_the_same_address() -> None:
    arena = made()

    def write() -> None:
        other = Arena.attach(arena.fd)
        assert (other.entries, other.payload, other.workers, other.queues) == (
            arena.entries,
            arena.payload,
            arena.workers,
            arena.queues,
        )
        assert other.address("entries") == arena.address("entries")
        other.payload_view(4)[:5] = b"hello"
        other.worker(1).requests = 7

    assert end_of(start(write)) == 0
    assert bytes(arena.payload_view(4)[:5]) == b"hello"
    assert arena.worker(1).requests == 7


@alone
def test_a_fork_does_not_inherit_it() -> None:
    """The fork would otherwise wait for the lock of the mapping while workers use it."""
    arena = made()

    def look() -> None:
        faulthandler.disable()
        assert arena.view[0] == 0

    assert end_of(start(look)) == -signal.SIGSEGV


@alone
def test_a_second_arena_in_one_process_is_refused() -> None:
    made()
    with pytest.raises(OSError, match="mapping"):
        made()


@alone
def test_what_is_no_arena_is_refused() -> None:
    fd = os.memfd_create("test")
    for content in (b"", b"x" * PAGE, b"x" * 10 * PAGE):
        os.ftruncate(fd, 0)
        os.pwrite(fd, content, 0)

        def attach() -> None:
            with pytest.raises(ArenaError, match="not an arena"):
                Arena.attach(fd)

        assert end_of(start(attach)) == 0


@alone
def test_an_arena_of_another_version_or_length_is_refused() -> None:
    def refused(spoil: Callable[[int], Any], match: str) -> None:
        def make_and_spoil() -> None:
            fd = os.dup(made().fd)
            spoil(fd)

            def attach() -> None:
                with pytest.raises(ArenaError, match=match):
                    Arena.attach(fd)

            assert end_of(start(attach)) == 0

        assert end_of(start(make_and_spoil)) == 0

    refused(lambda fd: os.pwrite(fd, struct.pack("<I", arenas.VERSION + 1), 8), "layout")
    refused(lambda fd: os.ftruncate(fd, os.fstat(fd).st_size - PAGE), "cut short")
    refused(lambda fd: os.pwrite(fd, b"UNFINISH", 0), "not an arena")


# --- session -------------------------------------------------------------------------------------------------------


@alone
def test_a_session_is_kept_for_a_successor() -> None:
    arena = made()
    assert arena.session == b""
    for data in (b"{}", b"x" * (arenas.SESSION_SIZE - 8), b"short"):
        arena.store_session(data)
        assert arena.session == data
    with pytest.raises(ValueError, match="do not fit"):
        arena.store_session(b"x" * (arenas.SESSION_SIZE - 7))
    assert arena.session == b"short"


# --- what a predecessor left -----------------------------------------------------------------------------------------


def put(arena: Arena, index: int, *, kernel_id: int = 0, journal_id: int = 0, state: int = 0) -> None:
    struct.pack_into("<Q", arena.page(index), recovery.COMMIT_ID_AT, kernel_id)
    arena.c.journal[index].commit_id = journal_id
    arena.c.journal[index].state = state


@alone
def test_a_new_arena_holds_nothing_of_a_predecessor() -> None:
    arena = made()
    assert recovery.leftovers(arena, 0) == []
    assert recovery.leftovers(arena, 1) == []


@alone
def test_leftovers_are_found_in_the_order_of_their_requests() -> None:
    arena = made()
    put(arena, 0, kernel_id=30, journal_id=30, state=lib.RM_STARTED)
    put(arena, 1, kernel_id=20, journal_id=4, state=lib.RM_FREE)
    put(arena, 2, journal_id=6, state=lib.RM_FREE)
    put(arena, 5, journal_id=10, state=lib.RM_ANSWERED)
    put(arena, 3, kernel_id=2, journal_id=2, state=lib.RM_DELIVERED)
    assert recovery.leftovers(arena, 0) == [
        Leftover(5, Left.ANSWERED),
        Leftover(1, Left.DELIVERED),
        Leftover(0, Left.STARTED),
    ]
    assert recovery.leftovers(arena, 1) == [Leftover(3, Left.DELIVERED)]


@alone
def test_names_that_a_reply_overwrote_are_put_back() -> None:
    arena = made()
    page = arena.page(2)
    arena.payload_view(2)[:9] = b"old\0new\0\0"
    page[0:40] = struct.pack("<IIQQIIIHH", 48, 12, 6, 1, 0, 0, 0, 0, 0)
    struct.pack_into("<QI", page, recovery.COMMIT_ID_AT, 6, 8)
    lib.rm_journal_delivery(arena.c, 2)
    assert arena.c.journal[2].payload_size == 8
    arena.payload_view(2)[:9] = b"OVERWRITE"
    page[0:40] = b"\xff" * 40
    recovery.restore_payload(arena, 2)
    assert bytes(arena.payload_view(2)[:9]) == b"old\0new\0E"
    assert bytes(arena.c.journal[2].header)[:8] == struct.pack("<II", 48, 12)


@alone
def test_a_delivery_that_lies_about_its_size_is_cut_to_the_payload() -> None:
    arena = made()
    struct.pack_into("<QI", arena.page(0), recovery.COMMIT_ID_AT, 6, 0xFFFF_FFFF)
    lib.rm_journal_delivery(arena.c, 0)
    assert arena.c.journal[0].payload_size == arena.payload


@alone
def test_a_request_is_found_by_its_number_while_it_waits_for_its_answer() -> None:
    arena = made()

    def find(unique: int) -> int:
        return int(lib.rm_find_unique(arena.c, unique))

    assert find(6) == -1
    struct.pack_into("<Q", arena.page(4), 8, 6)
    put(arena, 4, kernel_id=6)
    assert find(6) == 4  # delivered, though nobody has taken note
    lib.rm_journal_delivery(arena.c, 4)
    assert find(6) == 4
    arena.c.journal[4].state = lib.RM_STARTED
    assert find(6) == 4
    arena.c.journal[4].state = lib.RM_ANSWERED
    struct.pack_into("<Q", arena.page(4), recovery.COMMIT_ID_AT, 0)
    assert find(6) == -1


# --- statistics ----------------------------------------------------------------------------------------------------


def test_the_buckets_of_a_histogram_cover_all_latencies_in_order() -> None:
    floors = [lib.rm_bucket_floor(i) for i in range(lib.RM_BUCKETS)]
    assert floors[0] == 0
    assert floors == sorted(set(floors))
    for i, floor in enumerate(floors):
        assert lib.rm_bucket(floor) == i
        if i:
            assert lib.rm_bucket(floor - 1) == i - 1
    assert lib.rm_bucket(2**64 - 1) == lib.RM_BUCKETS - 1


def test_a_bucket_is_never_wider_than_an_eighth_of_its_latency() -> None:
    floors = [lib.rm_bucket_floor(i) for i in range(lib.RM_BUCKETS)]
    for low, high in pairwise(floors[16:]):
        assert high - low <= max(128, low // 8)
