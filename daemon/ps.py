"""`ringmount ps`: the requests in flight, each with its caller. What to look at when a mount hangs."""

import contextlib
import json
import re
from typing import Any, TypeVar

import msgspec
import psutil

from ringmount.config.errors import one_line
from ringmount.daemon import asked, client, status, text
from ringmount.daemon.asked import Asked
from ringmount.daemon.exitcodes import Failure
from ringmount.daemon.inflight import InFlight
from ringmount.daemon.insight import Explained, Insight, Thread
from ringmount.workers.api import ROOT

HEADING = ("AGE", "WORKER", "STATE", "OPCODE", "NODE", "NAME", "USER", "PID", "COMMAND")
STATES = {
    "R": "it waits for a CPU",
    "T": "it is stopped",
    "t": "a debugger has stopped it",
    "D": "it waits in the kernel",
    "": "it has ended",
}
OUR_OWN = re.compile(r'/workers/(engine|dispatch|worker)[.]py"')
"""Frames that are the same for every request."""


def show(name: str, as_json: bool, with_stacks: bool = False) -> str:
    """The text of a mount's requests in flight, the oldest first. Raises Failure for a name that is not running."""
    found = status.choose(name)
    identity = found.known.identity

    def ask(question: Asked) -> Any:
        with client.Connection(identity.socket, identity.owner) as connection:
            return connection.ask(question)

    try:
        if with_stacks:
            insight = checked(name, ask(asked.Stacks()), Insight)
        else:
            requests = checked(name, ask(asked.Requests()), list[InFlight])
            nodes = list(dict.fromkeys(one.nodeid for one in requests))
            paths = checked(name, ask(asked.Paths(nodes=nodes)), dict[int, str]) if nodes else {}
            insight = Insight(requests, [], paths)
    except client.NotRunning:
        raise Failure(f"{name} is not running any more") from None
    if as_json:
        return json.dumps(_as_json(insight, with_stacks), indent=2)
    lines = [table(insight, with_stacks) if insight.requests else f"{name}: no request is in flight"]
    return "\n".join([*lines, *_silent(insight)])


T = TypeVar("T")


def checked(name: str, raw: Any, kind: type[T]) -> T:
    """A supervisor's answer, which may be another user's. Raises Failure if it is none."""
    try:
        return msgspec.convert(raw, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Failure(f"the supervisor of {name} answered nonsense: {error}") from error


def _as_json(insight: Insight, with_stacks: bool) -> Any:
    requests = [
        {
            **msgspec.to_builtins(one),
            "path": path_of(one, insight.paths),
            "command": command(one.pid),
            **({"stack": stack_of(one, insight.workers)} if with_stacks else {}),
        }
        for one in insight.requests
    ]
    return {"requests": requests, "workers": msgspec.to_builtins(insight.workers)} if with_stacks else requests


def table(insight: Insight, with_stacks: bool = False) -> str:
    """One line a request, and beneath it where it is."""
    lines = text.table([HEADING, *(_row(one, insight.paths) for one in insight.requests)]).splitlines()
    if not with_stacks:
        return "\n".join(lines)
    shown = lines[:1]
    for line, one in zip(lines[1:], insight.requests, strict=True):
        shown += [line, *(f"    {one_line(each)}" for each in _where(one, insight.workers))]
    return "\n".join(shown)


def _row(one: InFlight, paths: dict[int, str]) -> tuple[str, ...]:
    path = path_of(one, paths)
    return (
        f"{one.seconds:.1f} s",
        str(one.worker),
        one_line(one.state),
        one_line(one.opcode),
        f"node {one.nodeid}" if path is None else one_line(path),
        "-" if one.name is None else one_line(one.name),
        str(one.uid),
        str(one.pid) if one.pid else "kernel",
        command(one.pid) or "-",
    )


def path_of(one: InFlight, paths: dict[int, str]) -> str | None:
    """The path of the node that a request is about, None if it is not known."""
    return "/" if one.nodeid == ROOT else paths.get(one.nodeid)


def stack_of(one: InFlight, workers: list[Explained]) -> list[str] | None:
    """The Python stack of a request's handler, the innermost call first; None if it is not begun, or not known."""
    worker = next((each for each in workers if each.worker == one.worker), None)
    if worker is None or one.state != "started":
        return None
    if not one.thread and one.unique in worker.coroutines:
        return worker.coroutines[one.unique]
    wanted = one.thread or worker.pid
    return next((thread.stack for thread in worker.threads if thread.tid == wanted), None)


def _where(one: InFlight, workers: list[Explained]) -> list[str]:
    """The lines beneath a request."""
    if one.state != "started":
        return ["not begun: its worker is busy with another, or does not go on"]
    stack = stack_of(one, workers)
    if stack is None:
        return ["its worker did not answer"]
    ends = (at for at, line in enumerate(stack) if at and OUR_OWN.search(line))
    return stack[: next(ends, None)] or ["not in Python"]


def _silent(insight: Insight) -> list[str]:
    """Lines about threads that did not answer."""
    return [
        f"worker {worker.worker} (pid {worker.pid}): thread {thread.tid} did not answer: {_kernel_says(thread)}"
        for worker in insight.workers
        for thread in worker.threads
        if thread.stack is None
    ]


def _kernel_says(thread: Thread) -> str:
    what = STATES.get(thread.state, f"state {one_line(thread.state)}")
    return f"{what}, in {one_line(thread.waits_in)}" if thread.waits_in else what


def command(pid: int) -> str | None:
    """The name of the caller's program; None for the kernel's own requests and callers that have ended."""
    if pid > 0:
        with contextlib.suppress(psutil.Error, ValueError, OverflowError):
            return one_line(psutil.Process(pid).name())
    return None
