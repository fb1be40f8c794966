"""What a worker finds in its entries when it starts: nothing, or what its predecessor left; and what to do about it.

The order of writes
    From the arena alone each entry is free, delivered, started or answered, whenever its worker died, because a
    request's life is this row of stores and system calls and no other:

     1. the kernel writes the request, and its commit id last, into the entry (dev_fuse: `lay_out` does, from a read
        area whose number says that something was read)
     2. journal: state FREE, the request's header and the start of its payload, the commit id, `effect` UNDONE, no
        `intent`; state DELIVERED (ring.c, journal_delivery)
     3. state STARTED (engine.py, fast.c); the method runs. What it takes for its answer, it notes first:
        `intent` names a node's reference while it is counted, and an open file before it is recorded; `listed` and
        `size` say how far a listing has come
     4. a change that cannot be made twice: `before`, `effect` BEGUN; the system call; `result`, `effect` DONE
     5. the reply's body in the payload, `error` and `size`; state ANSWERED
     6. the reply's header over the request's (the journal has a copy); the entry's commit id 0
     7. the kernel takes the commit, and may write the next request into the entry; state FREE

    So a commit id in the entry that is not the journal's is a request that nobody has seen yet; without one, ANSWERED
    is a commit that may or may not have been taken, and to repeat it does no harm (ENOENT). Each store is in memory
    when the next one is made: a thread is killed between two instructions, and shared memory outlives it.

What is done again
    Requests of which a second run has the effect and the answer of the first (`repeats_itself`), and methods that say
    that they see to it themselves (`api.repeatable`), by what the journal tells them of the first run. The others, and
    all of them where the mount says `on_crash: eio`, are lost: EIO. A request that killed two workers is answered EIO,
    too.
"""

import os
import struct
from dataclasses import dataclass
from enum import Enum

from ringmount.workers import abi
from ringmount.workers._native import ffi, lib
from ringmount.workers.arena import JOURNAL_SIZE, Arena
from ringmount.workers.death import REPLACE

MOST_DEATHS = 2
"""A request that so many workers died of is not run again."""

COMMIT_ID_AT = 264  # in fuse_uring_req_header
WORD = struct.Struct("<I")
LONG = struct.Struct("<Q")
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
        (state,) = WORD.unpack_from(journal, at + STATE_AT)
        (journal_id,) = LONG.unpack_from(journal, at + JOURNAL_COMMIT_ID_AT)
        (kernel_id,) = LONG.unpack_from(arena.page(index), COMMIT_ID_AT)
        left = classify(state, journal_id, kernel_id)
        if left is not Left.FREE:
            found.append((kernel_id or journal_id, Leftover(index, left)))
    return [leftover for _, leftover in sorted(found, key=lambda pair: pair[0])]


NAMED = frozenset(
    {
        abi.Opcode.LOOKUP,
        abi.Opcode.CREATE,
        abi.Opcode.MKDIR,
        abi.Opcode.MKNOD,
        abi.Opcode.SYMLINK,
        abi.Opcode.LINK,
        abi.Opcode.UNLINK,
        abi.Opcode.RMDIR,
        abi.Opcode.RENAME,
        abi.Opcode.RENAME2,
    }
)
"""Requests whose payload begins with a name in their node."""


def name_in(arena: Arena, index: int, opcode: int) -> bytes | None:
    """The first name that a request carries, for its description."""
    return kept_payload(arena, index).partition(b"\0")[0] if opcode in NAMED else None


def kept_payload(arena: Arena, index: int) -> bytes:
    """The start of a request's payload, as it was kept: the reply may lie over the payload itself by now."""
    at, size = int(lib.RM_SAVED_AT), min(int(arena.c.journal[index].saved), int(lib.RM_SAVED_MAX))
    return bytes(arena.page(index)[at : at + size])


def restore_payload(arena: Arena, index: int) -> None:
    """Puts back what an unfinished reply may have overwritten: the start of the request's payload (its names)."""
    saved_at, saved = int(lib.RM_SAVED_AT), arena.c.journal[index].saved
    arena.payload_view(index)[:saved] = arena.page(index)[saved_at : saved_at + saved]


class Fate(Enum):
    """What becomes of a request that was started and not answered."""

    RETRY = "retry"
    """It is run again."""
    LOST = "lost"
    """It is answered EIO: it may have had its effect or not."""
    QUARANTINE = "quarantine"
    """It is answered EIO: workers die of it."""


def fate(deaths: int, may_repeat: bool, on_crash: str) -> Fate:
    """`deaths`: of workers, by this request; `may_repeat`: another run does no harm; `on_crash`: of the mount."""
    if deaths >= MOST_DEATHS:
        return Fate.QUARANTINE
    return Fate.RETRY if may_repeat and on_crash == "retry" else Fate.LOST


def is_guilty(died_of: int, from_outside: bool, seconds: float, timeout: float) -> bool:
    """Whether a worker's death is counted against a request that it had been working on for `seconds`.

    `died_of`: the signal, 0 if not known. `from_outside`: another process wanted it dead, for no request's sake.
    The supervisor wants that when one takes longer than `timeout` (0: for ever), and then it was that one.
    """
    if from_outside:
        return False
    return 0 < timeout < seconds if died_of == REPLACE else True


def repeats_itself(opcode: int, op_in: memoryview) -> bool:
    """Whether a second run has the effect and the answer of the first, in any filesystem.

    Such requests ask, or name all that they change by number: this mode, these bytes at this offset, this owner's lock.
    """
    if opcode == abi.Opcode.WRITE:
        return not WORD.unpack_from(op_in, WRITE_FLAGS_AT)[0] & os.O_APPEND
    if opcode == abi.Opcode.FALLOCATE:
        return not WORD.unpack_from(op_in, FALLOCATE_MODE_AT)[0] & MOVING_MODES
    if opcode == abi.Opcode.SETXATTR:
        return not WORD.unpack_from(op_in, SETXATTR_FLAGS_AT)[0] & os.XATTR_CREATE
    return opcode in IDEMPOTENT


WRITE_FLAGS_AT = abi.FUSE_WRITE_IN.offsets["flags"]
FALLOCATE_MODE_AT = abi.FUSE_FALLOCATE_IN.offsets["mode"]
SETXATTR_FLAGS_AT = abi.FUSE_SETXATTR_IN.offsets["flags"]
MOVING_MODES = 0x08 | 0x20
"""FALLOC_FL_COLLAPSE_RANGE and FALLOC_FL_INSERT_RANGE (fallocate(2)): they move what is behind the range."""

OPENING = frozenset(
    {
        abi.Opcode.OPEN,
        abi.Opcode.OPENDIR,
        abi.Opcode.CREATE,
        abi.Opcode.TMPFILE,
        abi.Opcode.SETLK,
        abi.Opcode.SETLKW,
    }
)
"""Requests that record an open file for their answer."""

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
        abi.Opcode.SETATTR,
        abi.Opcode.FALLOCATE,
        abi.Opcode.COPY_FILE_RANGE,
        abi.Opcode.COPY_FILE_RANGE_64,
        abi.Opcode.GETLK,
        abi.Opcode.SETLK,
        abi.Opcode.SETLKW,
        abi.Opcode.TMPFILE,
    }
)
"""What `repeats_itself`, but for some flags. A file without a name that nobody has got is as good as none."""
