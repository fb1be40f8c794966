"""The requests in flight, read from the arena: no worker is asked, so that one can see into a mount that hangs.

The rule: workers write the arena meanwhile. A record is taken for what it says only if it is still of the same request
afterwards, and every text in it is somebody else's.
"""

import contextlib
from collections.abc import Iterator

import msgspec

from ringmount.workers import codec, recovery
from ringmount.workers._native import lib
from ringmount.workers.abi import Opcode
from ringmount.workers.arena import Arena

NAMED = recovery.NAMED | {Opcode.GETXATTR, Opcode.SETXATTR, Opcode.REMOVEXATTR}
"""Whose payload begins with a name: of an entry of the folder `nodeid`, or of an extended attribute."""


class InFlight(msgspec.Struct):
    """One request that waits for its answer. `pid` is that of the caller (0: the kernel itself), `seconds` its age."""

    worker: int
    queue: int
    state: str
    opcode: str
    unique: int
    nodeid: int
    name: str | None
    pid: int
    uid: int
    seconds: float
    thread: int = 0
    """The thread of its worker's pool that runs it; 0: none does."""


def requests(arena: Arena) -> list[InFlight]:
    """All of a mount's requests in flight, the oldest first."""
    return sorted(_found(arena), key=lambda one: -one.seconds)


def _found(arena: Arena) -> Iterator[InFlight]:
    states = {lib.RM_DELIVERED: "delivered", lib.RM_STARTED: "started"}
    for index in range(arena.entries):
        journal = arena.c.journal[index]
        state = states.get(journal.state)
        if state is None:
            continue
        header_bytes = bytes(journal.header)
        with contextlib.suppress(codec.DecodeError):
            header = codec.decode_header(header_bytes)
            seconds = (lib.rm_now() - journal.delivered_ns) / 1e9
            name = _name(recovery.kept_payload(arena, index)) if header.opcode in NAMED else None
            if bytes(journal.header) == header_bytes and journal.state in states:
                yield InFlight(
                    worker=journal.worker,
                    queue=journal.qid,
                    state=state,
                    opcode=opcode_name(header.opcode),
                    unique=header.unique,
                    nodeid=header.nodeid,
                    name=name,
                    pid=header.pid,
                    uid=header.uid,
                    seconds=max(0.0, seconds),
                    thread=journal.thread,
                )


def opcode_name(number: int) -> str:
    """The kernel's name of an operation, or its number."""
    try:
        return Opcode(number).name
    except ValueError:
        return str(number)


def _name(payload: bytes) -> str | None:
    name, end, _ = payload.partition(b"\0")
    return name.decode("utf-8", "backslashreplace") if end else None
