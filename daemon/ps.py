"""`ringmount ps`: the requests in flight, each with its caller. What to look at when a mount hangs."""

import contextlib
import json
from typing import Any

import msgspec
import psutil

from ringmount.config.errors import one_line
from ringmount.daemon import asked, client, status, text
from ringmount.daemon.exitcodes import Failure
from ringmount.daemon.inflight import InFlight

HEADING = ("AGE", "WORKER", "STATE", "OPCODE", "NODE", "NAME", "USER", "PID", "COMMAND")


def show(name: str, as_json: bool) -> str:
    """The text of a mount's requests in flight, the oldest first. Raises Failure for a name that is not running."""
    found = status.choose(name)
    identity = found.known.identity
    try:
        with client.Connection(identity.socket, identity.owner) as connection:
            raw = connection.ask(asked.Requests())
    except client.NotRunning:
        raise Failure(f"{name} is not running any more") from None
    requests = checked(name, raw)
    if as_json:
        return json.dumps([{**msgspec.to_builtins(one), "command": command(one.pid)} for one in requests], indent=2)
    return table(requests) if requests else f"{name}: no request is in flight"


def checked(name: str, raw: Any) -> list[InFlight]:
    """A supervisor's answer, which may be another user's. Raises Failure if it is none."""
    try:
        return msgspec.convert(raw, list[InFlight])
    except msgspec.ValidationError as error:
        raise Failure(f"the supervisor of {name} answered nonsense: {error}") from error


def table(requests: list[InFlight]) -> str:
    """One line a request."""
    rows = [HEADING, *(_row(one) for one in requests)]
    return text.table(rows)


def _row(one: InFlight) -> tuple[str, ...]:
    return (
        f"{one.seconds:.1f} s",
        str(one.worker),
        one_line(one.state),
        one_line(one.opcode),
        str(one.nodeid),
        "-" if one.name is None else one_line(one.name),
        str(one.uid),
        str(one.pid) if one.pid else "kernel",
        command(one.pid) or "-",
    )


def command(pid: int) -> str | None:
    """The name of the caller's program; None for the kernel's own requests and callers that have ended."""
    if pid > 0:
        with contextlib.suppress(psutil.Error, ValueError, OverflowError):
            return one_line(psutil.Process(pid).name())
    return None
