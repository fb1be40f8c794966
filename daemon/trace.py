"""`ringmount trace`: a live stream of the requests that a mount answers.

This process reads the workers' records from the arena and prints them; nodes' paths are asked for as they come, and
believed for a moment.
"""

import contextlib
import errno
import fnmatch
import json
import select
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from ringmount.config.errors import one_line
from ringmount.daemon import asked, client, inflight, ps, status, text
from ringmount.daemon.client import Connection, Stream
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.places import Identity
from ringmount.daemon.records import Record, Records
from ringmount.workers.abi import Opcode
from ringmount.workers.api import ROOT
from ringmount.workers.arena import ArenaError

INTERVAL = 0.02
"""Seconds between two looks; a worker's ring holds more than it answers in that time."""
PATH_LASTS = 2.0
"""Seconds for which a node is taken to be where it was."""
MOST_NODES = 512
MOST_PATHS = 20_000

TWO_NAMES = (Opcode.RENAME, Opcode.RENAME2, Opcode.SYMLINK)
XATTRS = (Opcode.GETXATTR, Opcode.SETXATTR, Opcode.REMOVEXATTR)
SIZED = (Opcode.READ, Opcode.WRITE, Opcode.READDIR, Opcode.READDIRPLUS, Opcode.READLINK, Opcode.GETXATTR)


class Wanted(NamedTuple):
    """What is to be shown: of these opcodes (none: all), of paths like this, of this process, that took so many
    seconds, that failed; `most`: so many (0: without end)."""

    opcodes: frozenset[int] = frozenset()
    path: str | None = None
    pid: int | None = None
    slower_than: float = 0.0
    errors: bool = False
    most: int = 0

    def takes(self, record: Record) -> bool:
        """Whether the record is wanted, its path aside."""
        return (
            (not self.opcodes or record.opcode in self.opcodes)
            and (self.pid is None or record.pid == self.pid)
            and record.took >= self.slower_than * 1e9
            and (not self.errors or record.error != 0)
        )


def opcodes(names: str) -> frozenset[int]:
    """The numbers of operations that are named with commas between them. Raises ValueError."""
    found = set()
    for name in filter(None, (part.strip().upper() for part in names.split(","))):
        if name not in Opcode.__members__:
            raise ValueError(f"there is no operation {name}; some that there are: LOOKUP, GETATTR, OPEN, READ, WRITE")
        found.add(int(Opcode[name]))
    return frozenset(found)


def trace(name: str, wanted: Wanted, as_json: bool) -> None:
    """Prints until Ctrl-C, `wanted.most` or the supervisor's end. Raises Failure."""
    identity = status.choose(name).known.identity
    question = asked.Trace(opcodes=sorted(wanted.opcodes), slower_than=wanted.slower_than, errors=wanted.errors)
    try:
        with Connection(identity.socket, identity.owner) as connection:
            stream = connection.follow(question)
            with contextlib.closing(stream):
                _print(stream, Paths(identity), wanted, as_json)
    except client.NotRunning:
        raise Failure(f"{name} is not running any more", code=ExitCode.NO_SUCH_MOUNT) from None


def _print(stream: Stream, paths: "Paths", wanted: Wanted, as_json: bool) -> None:
    name = paths.identity.name
    since = ps.checked(name, stream.result, Begun).next
    with _arena_of(name):
        records = Records(stream.fd, since)
    left = wanted.most or sys.maxsize
    if not as_json:
        text.say(HEADING)
    lost = 0
    while left > 0:
        is_over = bool(select.select([stream], [], [], INTERVAL)[0])  # nothing comes after the first line
        with _arena_of(name):
            found = records.read()
        lines = [*_lines(found, paths, wanted, as_json)][:left]
        if lines:
            text.say("\n".join(lines))
        left -= len(lines)
        if records.lost > lost:
            text.remark(f"{records.lost - lost} requests came too fast to be shown")
            lost = records.lost
        if is_over and left > 0:
            text.remark(f"the supervisor of {name} has ended or was replaced")
            return


@contextlib.contextmanager
def _arena_of(name: str) -> Iterator[None]:
    try:
        yield
    except (ArenaError, OSError) as error:
        raise Failure(f"the supervisor of {name} gave nothing to read: {error}") from error


def _lines(records: list[Record], paths: "Paths", wanted: Wanted, as_json: bool) -> Iterator[str]:
    records = [record for record in records if wanted.takes(record)]
    paths.learn({record.nodeid for record in records})
    before = time.time() - time.monotonic()
    for record in records:
        what = what_of(record, paths.of(record.nodeid))
        if wanted.path is None or fnmatch.fnmatchcase(what, wanted.path):
            yield (json_line if as_json else line)(record, what, before + (record.delivered + record.took) / 1e9)


class Begun(msgspec.Struct):
    """The first line of the answer: by worker, the number of its first record."""

    next: list[int]


class Paths:
    """What nodes are called, asked of the mount."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self._known: dict[int, tuple[str | None, float]] = {ROOT: ("/", float("inf"))}

    def of(self, node: int) -> str | None:
        """Its path, None if it is not known."""
        return self._known.get(node, (None, 0.0))[0]

    def learn(self, nodes: set[int]) -> None:
        """Asks about those that were not asked about of late."""
        now = time.monotonic()
        unknown = [node for node in nodes if self._known.get(node, (None, 0.0))[1] < now][:MOST_NODES]
        if not unknown:
            return
        found: dict[int, str] = {}
        with contextlib.suppress(client.NotRunning, Failure), self._connection() as connection:
            answer = connection.ask(asked.Paths(nodes=unknown))
            found = ps.checked(self.identity.name, answer, dict[int, str])
        if len(self._known) > MOST_PATHS:
            self._known = {ROOT: self._known[ROOT]}
        self._known |= {node: (found.get(node), now + PATH_LASTS) for node in unknown}

    def _connection(self) -> Connection:
        return Connection(self.identity.socket, self.identity.owner)


def what_of(record: Record, path: str | None) -> str:
    """What a request is about, in words: a path, what of it, and where to."""
    names = [name.decode("utf-8", "backslashreplace") for name in record.names]
    base = f"#{record.nodeid}" if path is None else path
    if not names:
        return base
    if record.opcode in XATTRS:
        return f"{base} {names[0]}"
    return " -> ".join([f"{base.rstrip('/')}/{names[0]}", *names[1:]])


COLUMNS = "{:<15}  {:>6}  {:<12}  {:>10}  {:<12}  {:>5}  {:>7} {:<16}  {}"
HEADING = COLUMNS.format("TIME", "WORKER", "OPERATION", "TOOK", "RESULT", "USER", "PID", "COMMAND", "PATH")


def line(record: Record, what: str, at: float) -> str:
    """A record for people."""
    return COLUMNS.format(
        datetime.fromtimestamp(at).strftime("%H:%M:%S.%f"),
        record.worker,
        inflight.opcode_name(record.opcode),
        _duration(record.took),
        _result(record),
        record.uid,
        record.pid or "kernel",
        one_line(record.command.decode("utf-8", "backslashreplace")) or "-",
        one_line(what) + _place(record),
    )


def _place(record: Record) -> str:
    return f" at {record.offset}" if record.opcode in (Opcode.READ, Opcode.WRITE) else ""


def _result(record: Record) -> str:
    if record.error:
        return errno_name(record.error)
    return str(record.size) if record.opcode in SIZED else "ok"


def errno_name(error: int) -> str:
    """ENOENT and the like."""
    return errno.errorcode.get(error, str(error))


def _duration(ns: int) -> str:
    if ns < 1_000_000:
        return f"{ns / 1000:.1f} us"
    return f"{ns / 1e6:.1f} ms" if ns < 10_000_000_000 else f"{ns / 1e9:.1f} s"


def json_line(record: Record, what: str, at: float) -> str:
    """A record for programs."""
    shown: dict[str, Any] = {
        "time": at,
        "worker": record.worker,
        "opcode": inflight.opcode_name(record.opcode),
        "unique": record.unique,
        "nodeid": record.nodeid,
        "path": what,
        "pid": record.pid,
        "command": record.command.decode("utf-8", "backslashreplace"),
        "uid": record.uid,
        "seconds": record.took / 1e9,
        "errno": errno_name(record.error) if record.error else None,
        "size": record.size,
    }
    if record.opcode in (Opcode.READ, Opcode.WRITE):
        shown["offset"] = record.offset
    return json.dumps(shown)
