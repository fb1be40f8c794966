"""What a successor makes of an entry, whenever its predecessor died."""

import os
import signal
import struct
from dataclasses import dataclass, replace

import pytest

from ringmount.workers import abi
from ringmount.workers._native import lib
from ringmount.workers.death import REPLACE
from ringmount.workers.recovery import IDEMPOTENT, Fate, Left, classify, fate, is_guilty, repeats_itself


@dataclass(frozen=True)
class Entry:
    """What lies in shared memory: the journal's state and commit id, and the commit id that the kernel wrote."""

    state: int = lib.RM_FREE
    journal_id: int = 0
    kernel_id: int = 0

    def left(self) -> Left:
        return classify(self.state, self.journal_id, self.kernel_id)


def life(entry: Entry, unique: int, following: int) -> list[tuple[str, Entry, Left]]:
    """A request's life as stores, one by one in the order of native/ring.c, and what a death after each must be
    taken for. `following`: the request that the kernel puts into the entry as it takes the answer, or 0.
    """
    delivered = replace(entry, kernel_id=unique)
    noted = replace(delivered, journal_id=unique)
    journalled = replace(noted, state=lib.RM_DELIVERED)
    started = replace(journalled, state=lib.RM_STARTED)
    answered = replace(started, state=lib.RM_ANSWERED)
    prepared = replace(answered, kernel_id=0)
    taken = replace(prepared, kernel_id=following)
    freed = replace(taken, state=lib.RM_FREE)
    after = Left.DELIVERED if following else None
    return [
        ("the kernel delivered it", delivered, Left.DELIVERED),
        ("its commit id is in the journal", noted, Left.DELIVERED),
        ("it is journalled", journalled, Left.DELIVERED),
        ("its method was called", started, Left.STARTED),
        ("the answer is complete", answered, Left.ANSWERED),
        ("the commit is prepared", prepared, Left.ANSWERED),
        ("the kernel took the commit", taken, after or Left.ANSWERED),
        ("the entry is free", freed, after or Left.FREE),
    ]


@pytest.mark.parametrize("following", [0, 8])
@pytest.mark.parametrize("before", [Entry(), Entry(lib.RM_FREE, journal_id=4)])
def test_a_death_at_any_store_is_told_from_memory_alone(before: Entry, following: int) -> None:
    for moment, entry, expected in life(before, 6, following):
        assert entry.left() is expected, moment


def test_a_request_that_follows_in_the_same_entry_is_told_as_well() -> None:
    *_, (_, freed, _) = life(Entry(), 6, 8)
    for moment, entry, expected in life(freed, 8, 0):
        assert entry.left() is expected, moment


def test_a_delivery_over_an_entry_whose_state_was_not_yet_freed_is_a_delivery() -> None:
    """The kernel hands out the next request inside the submission; the store of FREE comes after it."""
    taken = Entry(lib.RM_ANSWERED, journal_id=6, kernel_id=8)
    assert taken.left() is Left.DELIVERED


def test_an_entry_that_was_never_used_is_free() -> None:
    assert Entry().left() is Left.FREE


def test_an_entry_registered_again_is_free() -> None:
    assert Entry(lib.RM_FREE, journal_id=6, kernel_id=0).left() is Left.FREE


@pytest.mark.parametrize(
    "opcode",
    [
        "MKDIR",
        "MKNOD",
        "SYMLINK",
        "LINK",
        "UNLINK",
        "RMDIR",
        "RENAME",
        "RENAME2",
        "CREATE",
        "IOCTL",
        "REMOVEXATTR",
    ],
)
def test_what_a_second_run_would_answer_otherwise_is_not_run_twice(opcode: str) -> None:
    assert abi.Opcode[opcode] not in IDEMPOTENT


@pytest.mark.parametrize(
    ("opcode", "layout", "field", "flags"),
    [
        ("WRITE", abi.FUSE_WRITE_IN, "flags", os.O_APPEND | os.O_WRONLY),
        ("SETXATTR", abi.FUSE_SETXATTR_IN, "flags", os.XATTR_CREATE),
        ("FALLOCATE", abi.FUSE_FALLOCATE_IN, "mode", 0x08),  # FALLOC_FL_COLLAPSE_RANGE
        ("FALLOCATE", abi.FUSE_FALLOCATE_IN, "mode", 0x20),  # FALLOC_FL_INSERT_RANGE
    ],
)
def test_flags_decide_for_some_whether_they_repeat_themselves(
    opcode: str, layout: abi.Layout, field: str, flags: int
) -> None:
    op_in = bytearray(128)
    assert repeats_itself(abi.Opcode[opcode], memoryview(op_in))
    struct.pack_into("<I", op_in, layout.offsets[field], flags)
    assert not repeats_itself(abi.Opcode[opcode], memoryview(op_in))


def test_a_request_that_is_lost_or_retried_goes_by_the_mounts_policy() -> None:
    assert fate(0, may_repeat=True, on_crash="retry") is Fate.RETRY
    assert fate(1, may_repeat=True, on_crash="retry") is Fate.RETRY
    assert fate(1, may_repeat=False, on_crash="retry") is Fate.LOST
    assert fate(0, may_repeat=True, on_crash="eio") is Fate.LOST


def test_a_request_that_two_workers_died_of_is_quarantined() -> None:
    assert fate(2, may_repeat=True, on_crash="retry") is Fate.QUARANTINE


@pytest.mark.parametrize(
    ("died_of", "from_outside", "seconds", "guilty"),
    [
        (signal.SIGSEGV, False, 0.1, True),
        (signal.SIGABRT, False, 0.1, True),
        (0, False, 0.1, True),  # SIGKILL, perhaps for the memory that the request took
        (signal.SIGSEGV, True, 0.1, False),
        (signal.SIGTERM, True, 0.1, False),
        (REPLACE, True, 0.1, False),
        (REPLACE, True, 1.5, False),
        (REPLACE, False, 0.5, False),
        (REPLACE, False, 1.5, True),
    ],
)
def test_a_death_counts_against_the_request_that_may_have_caused_it(
    died_of: int, from_outside: bool, seconds: float, guilty: bool
) -> None:
    assert is_guilty(died_of, from_outside, seconds, timeout=1.0) is guilty


def test_only_requests_that_are_replied_to_can_be_run_again() -> None:
    assert all(abi.OPERATIONS[opcode].replies for opcode in IDEMPOTENT)
