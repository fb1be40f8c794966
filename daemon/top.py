"""`ringmount top`: what mounts do, second by second.

Everything is asked of supervisors, so that it goes on while workers hang. The rule a change must keep: what is shown
comes from somebody else, perhaps hostile; it is checked, and is one line of printable text (`one_line`).
"""

import contextlib
import time
from collections.abc import Sequence

import msgspec
import psutil

from ringmount.config.errors import one_line
from ringmount.daemon import asked, client, operations, places, ps, status, terminal, text
from ringmount.daemon.exitcodes import Failure
from ringmount.daemon.inflight import InFlight
from ringmount.daemon.insight import Insight
from ringmount.daemon.operations import Operation
from ringmount.daemon.status import Found, MountStatus, WorkerStatus
from ringmount.daemon.terminal import Line, Style, Terminal

FIRST = 1.0
"""Seconds until the first page at most: it needs two looks."""
MAX_FLIGHT = 8
PLAIN_WIDTH, PLAIN_HEIGHT = 500, 1000

MOUNTS = ("NAME", "USER", "MOUNTPOINT", "TRANSPORT", "WORKERS", "BUSY", "REQ/S", "ERR/S", "READ", "WRITTEN", "UP")
OPERATIONS = ("OPERATION", "REQ/S", "ERR/S", "MEAN", "P50", "P99", "TIME%")
WORKERS = ("WORKER", "CPU", "PID", "STATE", "REQ/S", "ERR/S", "BUSY", "CPU%", "RSS", "DEATHS")


class Look(msgspec.Struct):
    """What there was to see at one moment (`at`: time.monotonic())."""

    at: float
    mounts: list[Found]
    is_one: bool = False
    """One mount was asked for; what follows is about it."""
    operations: list[Operation] = []
    requests: list[InFlight] = []
    not_told: str = ""
    """Why there are no requests."""
    cpu: dict[int, float] = {}
    """CPU seconds by pid."""


def run(name: str | None, interval: float, once: bool) -> None:
    """Shows one mount, or all of them, until the user quits; one page, as plain text, if `once` or without a terminal.

    Raises Failure for a name that is not running.
    """
    before = look(name)
    if once or not terminal.is_capable():
        time.sleep(interval)
        lines = page(before, look(name), PLAIN_WIDTH, PLAIN_HEIGHT)
        print("\n".join(line.text for line in lines))  # noqa: T201 - the command's own output
        return
    with contextlib.suppress(KeyboardInterrupt), Terminal() as screen:
        _show(screen, name, before, interval)


def _show(screen: Terminal, name: str | None, first: Look, interval: float) -> None:
    before = after = first
    trouble = ""
    patience = min(interval, FIRST)
    while True:
        screen.draw(_lines(before, after, trouble, *screen.size))
        due = time.monotonic() + patience
        while (left := due - time.monotonic()) > 0:
            if not screen.wait(left):
                return
            screen.draw(_lines(before, after, trouble, *screen.size))  # the window may have another size
        patience = interval
        try:
            before, after, trouble = after, look(name), ""
        except Failure as failure:  # in a reload, say
            trouble = one_line(str(failure))


def _lines(before: Look, after: Look, trouble: str, width: int, height: int) -> list[Line]:
    if before is after:
        return [Line("ringmount top: looking ...")]
    if not trouble:
        return page(before, after, width, height)
    return [Line(trouble[:width], Style.ALARM), *page(before, after, width, height - 1)]


# --- looking ----------------------------------------------------------------------------------------------------------


def look(name: str | None) -> Look:
    """At one mount, or at all. Raises Failure for a name that is not running."""
    if name is None:
        found = [each for known in places.known() if (each := status.look_at(known))]
        return Look(time.monotonic(), found)
    found = [status.choose(name)]
    at = time.monotonic()
    seen = Look(at, found, is_one=True)
    identity = found[0].known.identity
    try:
        with client.Connection(identity.socket, identity.owner) as connection:
            seen.operations = _checked(name, connection.ask(asked.Operations()))
        with client.Connection(identity.socket, identity.owner) as connection:
            seen.requests = ps.checked(name, connection.ask(asked.Requests()), list[InFlight])
    except client.NotRunning:
        raise Failure(f"{name} is not running any more") from None
    except Failure as failure:
        seen.not_told = failure.message
    assert found[0].status is not None
    for worker in found[0].status.workers:
        with contextlib.suppress(psutil.Error, ValueError, OverflowError):
            times = psutil.Process(worker.pid or -1).cpu_times()
            seen.cpu[worker.pid or -1] = times.user + times.system
    return seen


def _checked(name: str, raw: object) -> list[Operation]:
    try:
        return msgspec.convert(raw, list[Operation], str_keys=True)
    except msgspec.ValidationError as error:
        raise Failure(f"the supervisor of {name} answered nonsense: {error}") from error


# --- showing ----------------------------------------------------------------------------------------------------------


def page(before: Look, after: Look, width: int, height: int) -> list[Line]:
    """What happened between two looks, in at most that many lines of at most that many characters."""
    seconds = max(1e-3, after.at - before.at)
    lines = _one(before, after, seconds, height) if after.is_one else _all(before, after, seconds)
    return [Line(line.text[:width].rstrip(), line.style) for line in lines[:height]]


def _all(before: Look, after: Look, seconds: float) -> list[Line]:
    old = {each.known: each.status for each in before.mounts}
    rows: list[tuple[str, ...]] = [MOUNTS]
    for each in after.mounts:
        who, now = (each.known.identity.name, each.known.identity.user), each.status
        if now is None:
            rows.append((*who, one_line(each.mountpoint), f"({one_line(each.error)})", *["-"] * 7))
            continue
        then = old.get(each.known) or now
        rows.append(
            (
                *who,
                one_line(now.mountpoint),
                one_line(now.transport) or "-",
                f"{sum(worker.state == 'serving' for worker in now.workers)}/{len(now.workers)}",
                _busy(now),
                _per_second(then, now, "requests", seconds),
                _per_second(then, now, "errors", seconds),
                *(status.rate(_grown(then, now, name) / seconds) for name in ("bytes_read", "bytes_written")),
                text.duration(time.time() - now.since),
            )
        )
    title = Line(f"ringmount top: {len(after.mounts)} mounts, {time.strftime('%H:%M:%S')}", Style.TITLE)
    return [title, Line(""), *_table(rows)] if after.mounts else [title, Line("no mount is running")]


def _one(before: Look, after: Look, seconds: float, height: int) -> list[Line]:
    now = after.mounts[0].status
    then = before.mounts[0].status if before.mounts else None
    assert now is not None
    then = then or now
    read, written = (status.rate(_grown(then, now, name) / seconds) for name in ("bytes_read", "bytes_written"))
    lines = [
        Line(
            f"{one_line(now.name)}: {one_line(now.filesystem)} on {one_line(now.mountpoint)}, "
            f"{one_line(now.transport)}, data {one_line(now.data)}, up {text.duration(time.time() - now.since)}, "
            f"{time.strftime('%H:%M:%S')}",
            Style.TITLE,
        ),
        Line(
            f"{_per_second(then, now, 'requests', seconds)} requests/s, {_per_second(then, now, 'errors', seconds)} "
            f"errors/s, {read} read, {written} written, {_busy(now)} entries in use"
        ),
        _trouble(now),
        Line(""),
    ]
    workers = [Line(""), *_table([WORKERS, *_worker_rows(before, after, then, now, seconds)])]
    flight = [Line(""), *_flight(after)]
    room = max(3, height - len(lines) - len(workers) - len(flight))
    return [*lines, *_table([OPERATIONS, *_operation_rows(before, after, seconds)])[:room], *workers, *flight]


def _trouble(now: MountStatus) -> Line:
    """What became of workers and their requests since the mount was made."""
    sums = {
        name: sum(getattr(worker, name) for worker in now.workers)
        for name in ("deaths", "rescued", "retried", "lost", "quarantined")
    }
    told = ", ".join(f"{count} {name}" for name, count in sums.items())
    style = Style.ALARM if sums["lost"] or sums["quarantined"] else Style.PLAIN
    return Line(f"workers: {told}; supervisors: {now.adoptions} adoptions, {now.reloads} reloads", style)


def _operation_rows(before: Look, after: Look, seconds: float) -> list[tuple[str, ...]]:
    old = {each.opcode: each for each in before.operations}
    grown = [operations.difference(old[now.opcode], now) if now.opcode in old else now for now in after.operations]
    grown = sorted((each for each in grown if each.count), key=lambda each: -each.total_ns)
    total = sum(each.total_ns for each in grown) or 1
    return [
        (
            one_line(each.opcode),
            text.count(each.count / seconds),
            text.count(each.errors / seconds),
            text.latency(each.total_ns / 1e9 / each.count),
            text.latency(operations.quantile(each, 0.5)),
            text.latency(operations.quantile(each, 0.99)),
            f"{100 * each.total_ns / total:.0f}",
        )
        for each in grown
    ]


def _worker_rows(
    before: Look, after: Look, then: MountStatus, now: MountStatus, seconds: float
) -> list[tuple[str, ...]]:
    old = {worker.index: worker for worker in then.workers}
    return [
        (
            str(worker.index),
            "any" if worker.cpu is None else str(worker.cpu),
            str(worker.pid or "-"),
            one_line(worker.state),
            text.count(max(0, worker.requests - was.requests) / seconds),
            text.count(max(0, worker.errors - was.errors) / seconds),
            status.busy(worker),
            _cpu(before, after, worker, seconds),
            "-" if worker.rss is None else text.size(worker.rss),
            str(worker.deaths),
        )
        for worker in now.workers
        for was in (old.get(worker.index, worker),)
    ]


def _cpu(before: Look, after: Look, worker: WorkerStatus, seconds: float) -> str:
    pid = worker.pid or -1
    if pid not in before.cpu or pid not in after.cpu:
        return "-"
    return f"{100 * (after.cpu[pid] - before.cpu[pid]) / seconds:.0f}"


def _flight(after: Look) -> list[Line]:
    if after.not_told:
        return [Line(one_line(after.not_told))]
    if not after.requests:
        return [Line("no request is in flight")]
    shown, more = after.requests[:MAX_FLIGHT], len(after.requests) - MAX_FLIGHT
    lines = [Line(each) for each in ps.table(Insight(shown, [], {})).split("\n")]
    lines[0] = Line(lines[0].text, Style.HEADING)
    return lines if more <= 0 else [*lines, Line(f"and {more} more: ringmount ps")]


def _table(rows: Sequence[Sequence[str]]) -> list[Line]:
    heading, *rest = text.table(rows).split("\n")
    return [Line(heading, Style.HEADING), *map(Line, rest)]


def _busy(now: MountStatus) -> str:
    return f"{sum(worker.in_flight for worker in now.workers)}/{sum(worker.entries for worker in now.workers)}"


def _grown(then: MountStatus, now: MountStatus, name: str) -> int:
    count, was = (sum(int(getattr(worker, name)) for worker in each.workers) for each in (now, then))
    return max(0, count - was)


def _per_second(then: MountStatus, now: MountStatus, name: str, seconds: float) -> str:
    return text.count(_grown(then, now, name) / seconds)
