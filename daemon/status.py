"""`ringmount status`: running mounts in a table, or one of them in detail."""

import json
import os
import time
from typing import Any

import msgspec

from ringmount.config.errors import one_line
from ringmount.daemon import asked, client, places, text
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.places import Known

HEADING = ("NAME", "USER", "MOUNTPOINT", "FILESYSTEM", "TRANSPORT", "WORKERS", "REQUESTS", "UP")
WORKER_HEADING = ("WORKER", "CPU", "PID", "STATE", "REQUESTS", "ERRORS", "READ", "WRITTEN", "BUSY", "DEATHS", "RSS")
OPERATION_HEADING = ("OPERATION", "REQUESTS", "ERRORS", "MEAN", "P50", "P99", "MAX")


class WorkerStatus(msgspec.Struct):
    """One worker, as its supervisor describes it."""

    index: int
    cpu: int | None
    pid: int | None
    state: str
    requests: int
    errors: int
    bytes_read: int
    bytes_written: int
    in_flight: int
    deaths: int
    rescued: int = 0
    retried: int = 0
    lost: int = 0
    quarantined: int = 0
    trouble: str = ""
    entries: int = 0
    rss: int | None = None


class OperationStatus(msgspec.Struct):
    """One operation of all workers together, as its supervisor describes it; times in seconds."""

    opcode: str
    count: int
    errors: int
    mean: float | None
    p50: float | None
    p99: float | None
    max: float


class RatesStatus(msgspec.Struct):
    """What a mount did per second over the last `seconds`."""

    seconds: float
    requests: float
    errors: float
    bytes_read: float
    bytes_written: float


class MetricsStatus(msgspec.Struct):
    """Where a mount's metrics are served; `pid` is None while nobody serves them."""

    at: str
    pid: int | None
    deaths: int


class WatcherStatus(msgspec.Struct):
    """What watches for changes beneath a mount, as its supervisor describes it."""

    kind: str
    scope: str
    pid: int | None
    deaths: int
    events: int
    own: int
    overflows: int
    sweeps: int


class MountStatus(msgspec.Struct):
    """One mount, as its supervisor describes it."""

    name: str
    mountpoint: str
    filesystem: str
    pid: int
    since: float
    transport: str
    transport_reason: str
    protocol: str | None
    queues: int
    queue_depth: int
    buffer_bytes: int
    nodes: int | None
    workers: list[WorkerStatus]
    counts: dict[str, int]
    watcher: WatcherStatus | None = None
    data: str = "userspace"
    data_reason: str = ""
    adoptions: int = 0
    reloads: int = 0
    rates: RatesStatus | None = None
    operations: list[OperationStatus] = []
    metrics: MetricsStatus | None = None
    draining: float | None = None


class Found(msgspec.Struct):
    """A mount and what its supervisor says of it, or why that is nothing."""

    known: Known
    status: MountStatus | None = None
    raw: dict[str, Any] | None = None
    """The status with what this version does not know of."""
    error: str = ""

    @property
    def mountpoint(self) -> str:
        """Where it is, or was."""
        return self.known.mountpoints[0] if self.status is None else self.status.mountpoint


def show(name: str | None, as_json: bool) -> str:
    """The text of one mount's status, or of all mounts'. Raises Failure for a name that is not running."""
    if name is not None:
        found = choose(name)
        return json.dumps(_as_json(found), indent=2) if as_json else details(found)
    everything = [each for known in places.known() if (each := look_at(known))]
    if as_json:
        return json.dumps([_as_json(each) for each in everything], indent=2)
    return table(everything) if everything else "no mount is running"


def choose(name: str) -> Found:
    """The first mount of that name that serves. Raises Failure if none does."""
    known = places.known()
    found = [each for one in known if one.identity.name == name and (each := look_at(one))]
    for each in found:
        if each.status is not None:
            return each
    for each in found:
        hint = f"if its server is dead, clear it with: ringmount umount {name}"
        raise Failure(f"{name} on {each.mountpoint}: {each.error}", hint, code=ExitCode.NO_SUCH_MOUNT)
    names = ", ".join(dict.fromkeys(one.identity.name for one in known if look_at(one)))
    raise Failure(f"no mount named {name} is running", f"running: {names or 'none'}", code=ExitCode.NO_SUCH_MOUNT)


def look_at(known: Known) -> Found | None:
    """What its supervisor says; None for a socket that nobody answers any more."""
    identity = known.identity
    try:
        with client.Connection(identity.socket, identity.owner) as connection:
            raw = connection.ask(asked.Status())
        status = checked(identity.name, raw)
    except client.NotRunning:
        is_own = identity.owner == os.geteuid()
        error = "no server answers for it" if is_own else "its server cannot be asked from here"
        return Found(known, error=error) if known.mountpoints else None
    except Failure as failure:
        return Found(known, error=failure.message)
    if known.mountpoints and status.mountpoint not in known.mountpoints:
        return Found(known, error="the server of that name serves another mount")
    return Found(known, status, raw)


def checked(name: str, raw: object) -> MountStatus:
    """A supervisor's answer, which may be another user's. Raises Failure if it is none."""
    try:
        return msgspec.convert(raw, MountStatus)
    except msgspec.ValidationError as error:
        raise Failure(f"the supervisor of {name} answered nonsense: {error}") from error


def _as_json(found: Found) -> dict[str, Any]:
    user = found.known.identity.user
    if found.raw is not None:
        return {**found.raw, "user": user}
    return {"name": found.known.identity.name, "mountpoint": found.mountpoint, "user": user, "error": found.error}


def table(found: list[Found]) -> str:
    """One line a mount."""
    rows = [HEADING]
    for each in found:
        status, who = each.status, (each.known.identity.name, each.known.identity.user)
        if status is None:
            rows.append((*who, one_line(each.mountpoint), f"({each.error})", "-", "-", "-", "-"))
            continue
        serving = sum(worker.state == "serving" for worker in status.workers)
        rows.append(
            (
                *who,
                one_line(status.mountpoint),
                one_line(status.filesystem),
                one_line(status.transport) or "-",
                f"{serving}/{len(status.workers)}",
                str(sum(worker.requests for worker in status.workers)),
                text.duration(time.time() - status.since),
            )
        )
    return text.table(rows)


def details(found: Found) -> str:
    """Everything about one mount that serves."""
    status, user = found.status, found.known.identity.user
    assert status is not None
    reason = f" ({status.transport_reason})" if status.transport_reason else ""
    data = f"{status.data} ({status.data_reason})" if status.data_reason else status.data
    counts = ", ".join(f"{count} {one_line(name)}" for name, count in status.counts.items())
    facts = [
        ("mount", f"{status.filesystem} on {status.mountpoint}"),
        ("server", f"pid {status.pid}, user {user}, up {text.duration(time.time() - status.since)}"),
        ("transport", f"{status.transport or 'not chosen yet'}{reason}, FUSE {status.protocol or '-'}"),
        ("data", data),
        ("buffers", f"{status.queues} queues of {status.queue_depth}, {text.size(status.buffer_bytes)} at most"),
        ("nodes", "kept by the filesystem itself" if status.nodes is None else str(status.nodes)),
        ("kernel", counts),
    ]
    if status.draining is not None:
        facts.insert(1, ("draining", f"for {text.duration(time.time() - status.draining)}; ends when nobody uses it"))
    if status.watcher is not None:
        facts.append(("watcher", _watcher(status.watcher)))
    if status.metrics is not None:
        who = "by nobody at the moment" if status.metrics.pid is None else f"by pid {status.metrics.pid}"
        facts.append(("metrics", f"{status.metrics.at}, {who}"))
    if status.rates is not None:
        facts.append(("rate", _rates(status.rates)))
    if status.adoptions or status.reloads:
        facts.append(("replaced", f"{status.adoptions} supervisors after a death, {status.reloads} by reloads"))
    if any(worker.deaths for worker in status.workers):
        facts.append(("deaths", _deaths(status.workers)))
    facts += [
        (f"worker {worker.index}", f"does not serve: {worker.trouble}") for worker in status.workers if worker.trouble
    ]
    rows = [WORKER_HEADING, *(_worker_row(worker) for worker in status.workers)]
    head = text.pairs([(name, one_line(value)) for name, value in facts])
    tables = [text.table(rows)]
    if status.operations:
        tables.append(text.table([OPERATION_HEADING, *map(_operation_row, status.operations)]))
    return "\n\n".join([head, *tables])


def _rates(rates: RatesStatus) -> str:
    moved = ", ".join(
        f"{rate(volume)} {what}" for volume, what in ((rates.bytes_read, "read"), (rates.bytes_written, "written"))
    )
    requests, errors = text.count(max(0.0, rates.requests)), text.count(max(0.0, rates.errors))
    return f"{requests} requests/s, {errors} errors/s, {moved}, over {rates.seconds:.0f} s"


def rate(volume: float) -> str:
    """Bytes per second, as people read them, of a number that may be any."""
    return f"{text.size(int(min(max(0.0, volume), 1e18)))}/s"


def _operation_row(operation: OperationStatus) -> tuple[str, ...]:
    times = (operation.mean, operation.p50, operation.p99, operation.max)
    counts = (str(operation.count), str(operation.errors))
    return (one_line(operation.opcode), *counts, *map(text.latency, times))


def _watcher(watcher: WatcherStatus) -> str:
    where = {"filesystem": "of the whole filesystem", "folders": "of each folder"}.get(watcher.scope, watcher.scope)
    who = "none at the moment" if watcher.pid is None else f"pid {watcher.pid}"
    events = f"{watcher.events} events, {watcher.own} of them our own, {watcher.overflows} overflows"
    return f"{watcher.kind} {where}, {who}, {events}, {watcher.sweeps} times all was dropped, {watcher.deaths} deaths"


def _deaths(workers: list[WorkerStatus]) -> str:
    """How often workers died, and what became of the requests that they had."""
    names = ("rescued", "retried", "lost", "quarantined")
    requests = ", ".join(f"{sum(getattr(worker, name) for worker in workers)} {name}" for name in names)
    return f"{sum(worker.deaths for worker in workers)} of workers; of their requests {requests}"


def _worker_row(worker: WorkerStatus) -> tuple[str, ...]:
    return (
        str(worker.index),
        "any" if worker.cpu is None else str(worker.cpu),
        str(worker.pid or "-"),
        one_line(worker.state),
        str(worker.requests),
        str(worker.errors),
        text.size(worker.bytes_read),
        text.size(worker.bytes_written),
        busy(worker),
        str(worker.deaths),
        "-" if worker.rss is None else text.size(worker.rss),
    )


def busy(worker: WorkerStatus) -> str:
    """Its entries in use, of all."""
    return f"{worker.in_flight}/{worker.entries}" if worker.entries else str(worker.in_flight)
