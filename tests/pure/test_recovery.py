"""What a successor makes of an entry, whenever its predecessor died."""

from dataclasses import dataclass, replace

import pytest

from ringmount.workers import abi
from ringmount.workers._native import lib
from ringmount.workers.recovery import IDEMPOTENT, Left, classify


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
        "TMPFILE",
        "SETLK",
        "SETLKW",
        "IOCTL",
        "COPY_FILE_RANGE",
        "COPY_FILE_RANGE_64",
    ],
)
def test_what_a_second_run_would_answer_otherwise_is_not_run_twice(opcode: str) -> None:
    assert abi.Opcode[opcode] not in IDEMPOTENT


def test_only_requests_that_are_replied_to_can_be_run_again() -> None:
    assert all(abi.OPERATIONS[opcode].replies for opcode in IDEMPOTENT)
