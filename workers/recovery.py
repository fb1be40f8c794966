"""What a worker finds in its entries when it starts: nothing, or what its predecessor left.

The rule is DESIGN's: from the arena alone each entry is free, delivered, started or answered.
The kernel's copy of the commit id (ring_ent_in_out) is set by the kernel when a request is delivered and
cleared by us before the commit is submitted; the journal's copy is made when the completion is taken.
"""

import struct
from dataclasses import dataclass
from enum import Enum

from ringmount.workers import abi
from ringmount.workers._native import ffi, lib
from ringmount.workers.arena import JOURNAL_SIZE, Arena

MOST_DEATHS = 2
"""A request that so many workers died of is not run again."""

COMMIT_ID_AT = 264  # in fuse_uring_req_header
STATE = struct.Struct("<I")
JOURNAL_COMMIT_ID = struct.Struct("<Q")
STATE_AT: int = ffi.offsetof("struct rm_journal", "state")
JOURNAL_COMMIT_ID_AT: int = ffi.offsetof("struct rm_journal", "commit_id")


class Left(Enum):
    """In which state a predecessor left an entry."""

    FREE = "free"
    """No request is in it."""
    DELIVERED = "delivered"
    """A request lies in it that nobody began to answer: run it."""
    STARTED = "started"
    """Its method was called; whether it took effect is not known."""
    ANSWERED = "answered"
    """The answer is complete: commit it (again; ENOENT says that it was taken)."""


@dataclass(frozen=True)
class Leftover:
    """An entry that is not free."""

    index: int
    left: Left


def classify(state: int, journal_id: int, kernel_id: int) -> Left:
    """An entry's state, from the journal's state and commit id and from the kernel's copy of the commit id.

    `kernel_id` 0: since the last delivery a commit was prepared, or there was no delivery at all.
    Another id than the journal's: a delivery that was not journalled before the death.
    """
    if kernel_id == 0:
        return Left.ANSWERED if state == lib.RM_ANSWERED else Left.FREE
    if kernel_id != journal_id or state in (lib.RM_FREE, lib.RM_DELIVERED):
        return Left.DELIVERED
    return Left.STARTED if state == lib.RM_STARTED else Left.ANSWERED


def leftovers(arena: Arena, worker: int) -> list[Leftover]:
    """The entries of a worker that are not free, in the order of their requests' numbers."""
    found = []
    journal = arena.section("journal")
    for index in arena.entries_of(worker):
        at = index * JOURNAL_SIZE
        (state,) = STATE.unpack_from(journal, at + STATE_AT)
        (journal_id,) = JOURNAL_COMMIT_ID.unpack_from(journal, at + JOURNAL_COMMIT_ID_AT)
        (kernel_id,) = JOURNAL_COMMIT_ID.unpack_from(arena.page(index), COMMIT_ID_AT)
        left = classify(state, journal_id, kernel_id)
        if left is not Left.FREE:
            found.append((kernel_id or journal_id, Leftover(index, left)))
    return [leftover for _, leftover in sorted(found, key=lambda pair: pair[0])]


def restore_payload(arena: Arena, index: int) -> None:
    """Puts back what an unfinished reply may have overwritten: the start of the request's payload (its names)."""
    saved_at, saved = int(lib.RM_SAVED_AT), arena.c.journal[index].saved
    arena.payload_view(index)[:saved] = arena.page(index)[saved_at : saved_at + saved]


IDEMPOTENT = frozenset(
    {
        abi.Opcode.LOOKUP,
        abi.Opcode.GETATTR,
        abi.Opcode.READLINK,
        abi.Opcode.OPEN,
        abi.Opcode.READ,
        abi.Opcode.WRITE,
        abi.Opcode.STATFS,
        abi.Opcode.RELEASE,
        abi.Opcode.FSYNC,
        abi.Opcode.GETXATTR,
        abi.Opcode.LISTXATTR,
        abi.Opcode.FLUSH,
        abi.Opcode.OPENDIR,
        abi.Opcode.READDIR,
        abi.Opcode.READDIRPLUS,
        abi.Opcode.RELEASEDIR,
        abi.Opcode.FSYNCDIR,
        abi.Opcode.ACCESS,
        abi.Opcode.LSEEK,
        abi.Opcode.STATX,
        abi.Opcode.SYNCFS,
        abi.Opcode.POLL,
        abi.Opcode.BMAP,
    }
)
"""Requests that may be run twice: the second run has the effect and the answer of the first."""
