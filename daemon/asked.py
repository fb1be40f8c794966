"""What a control socket can be asked, and who may ask it: one struct a command, and one table.

A question is one JSON line, {"version": 1, "command": "status"}, with the struct's fields beside these two. An answer
is one line, {"version": 1, "result": ...} or {"version": 1, "error": "why"}; after a first line with a result a command
may go on with lines {"version": 1, "item": ...}, until either side hangs up. What did not fit into a client's buffer is
counted in the next line that did: {"version": 1, "item": ..., "dropped": 3}.

The rule a change must keep: a field that is added has a default, and what is not in `ALLOWED` is nobody's.
"""

from enum import IntEnum
from typing import Annotated, TypeAlias

import msgspec

from ringmount.config.model import LogLevel

VERSION = 1


class Who(IntEnum):
    """Who may ask; each may ask what those before it may."""

    EVERYBODY = 0
    """Whoever reaches the socket."""
    GROUP = 1
    """Members of `control_group`."""
    OWNER = 2
    """root, and the user that the mount belongs to."""


class Asked(msgspec.Struct, tag_field="command", forbid_unknown_fields=True, kw_only=True):
    """Base of all questions."""

    version: int = VERSION


class Status(Asked, tag="status"):
    """How the mount is. Answered: what report.py makes."""


class Operations(Asked, tag="operations"):
    """What was counted of each operation. Answered: a list of `operations.Operation`."""


class Requests(Asked, tag="requests"):
    """The requests in flight. Answered: a list of `inflight.InFlight`."""


class SetLogLevel(Asked, tag="log-level"):
    """Log from this level on: `worker`, or all of the mount. Without a level nothing is set.

    Answered: `loglevel.Levels`."""

    level: LogLevel | None = None
    worker: int | None = None


class Stacks(Asked, tag="stacks"):
    """Where workers are. Answered: `insight.Insight`."""


class Paths(Asked, tag="paths"):
    """What these nodes are called. Answered: paths by nodeid, those that are known."""

    nodes: Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]], msgspec.Meta(max_length=512)]


class Trace(Asked, tag="trace"):
    """Have the workers record what they answer, until the client hangs up. Answered: the stream's first line, with a
    descriptor of the arena to read the records from, and nothing after it (`ringmount.daemon.tracing`).

    At least what is asked for is recorded: requests of these opcodes (none: of all), that took so long, that failed.
    """

    opcodes: list[int] = []
    slower_than: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    errors: bool = False


class Drain(Asked, tag="drain"):
    """Take the mount out of the tree; it ends when nobody uses it any more. Answered: when it is out of the tree."""


Question: TypeAlias = Status | Operations | Requests | SetLogLevel | Stacks | Paths | Trace | Drain

ALLOWED: dict[type[Asked], Who] = {
    Status: Who.EVERYBODY,  # numbers and settings, as the table of mounts is for everybody
    Operations: Who.EVERYBODY,
    Requests: Who.GROUP,  # names and processes of others
    SetLogLevel: Who.OWNER,
    Paths: Who.GROUP,
    Stacks: Who.OWNER,  # interrupts the workers, and shows the filesystem's code
    Trace: Who.OWNER,  # costs, and opens the arena
    Drain: Who.OWNER,
}


class _Head(msgspec.Struct):
    version: int


_decode_head = msgspec.json.Decoder(_Head).decode
_decode: msgspec.json.Decoder[Question] = msgspec.json.Decoder(Question)


class Unknown(Exception):
    """A question that is none; the text says why."""


def decode(line: bytes) -> Question:
    """A client's line. Raises Unknown."""
    try:
        version = _decode_head(line).version
        if version != VERSION:
            raise Unknown(f"version {version} is not spoken here, version {VERSION} is")
        return _decode.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise Unknown(str(error) or "nonsense") from None


def encode(asked: Asked) -> bytes:
    """A question as a line."""
    return msgspec.json.encode(asked) + b"\n"
