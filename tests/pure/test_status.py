"""What `ringmount status` makes of the answers of supervisors, which may be other users' and hostile."""

import json
import re
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from ringmount.daemon import client, places, status
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.places import Identity, Known

WORKER = {
    "index": 0,
    "cpu": 0,
    "pid": None,
    "state": "serving",
    "requests": 12,
    "errors": 3,
    "bytes_read": 4096,
    "bytes_written": 0,
    "in_flight": 1,
    "deaths": 2,
}
ANSWER: dict[str, Any] = {
    "name": "data",
    "mountpoint": "/mnt/data",
    "filesystem": "passthrough",
    "pid": 1,
    "since": 0.0,
    "transport": "io_uring",
    "transport_reason": "",
    "data": "userspace",
    "data_reason": "data: userspace",
    "protocol": "7.45",
    "queues": 2,
    "queue_depth": 8,
    "buffer_bytes": 16842752,
    "nodes": 5,
    "workers": [WORKER, {**WORKER, "index": 1, "cpu": 1, "state": "dead"}],
    "counts": {"forgets": 7},
    "of a later version": True,
}


class Connection:
    """Stands in for client.Connection: answers by the mount's socket."""

    answers: ClassVar[dict[str, Any]] = {}

    def __init__(self, path: Any, owner: int) -> None:
        self.answer = self.answers.get(path.stem)
        if self.answer is None:
            raise client.NotRunning

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *exception: object) -> None: ...

    def ask(self, command: str) -> Any:
        if isinstance(self.answer, Failure):
            raise self.answer
        return self.answer


Set = Callable[..., None]


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Says which mounts there are, and what the supervisors of some answer."""

    def set_to(known: list[tuple[str, int, tuple[str, ...]]], **answers: Any) -> None:
        found = [Known(Identity(name, owner), mountpoints) for name, owner, mountpoints in known]
        monkeypatch.setattr(places, "known", lambda: found)
        monkeypatch.setattr(Connection, "answers", answers)
        monkeypatch.setattr(client, "Connection", Connection)
        monkeypatch.setattr("os.geteuid", lambda: 0)

    return set_to


def test_no_mount_is_said_so(mounts: Set) -> None:
    mounts([])
    assert status.show(None, as_json=False) == "no mount is running"
    assert status.show(None, as_json=True) == "[]"


def test_the_table_has_a_line_for_each_mount(mounts: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 90.0)
    mounts([("data", 0, ("/mnt/data",)), ("gone", 0, ("/mnt/gone",)), ("his", 4294967, ("/mnt/his",))], data=ANSWER)
    assert [line.split(maxsplit=3) for line in status.show(None, as_json=False).splitlines()] == [
        ["NAME", "USER", "MOUNTPOINT", "FILESYSTEM                              TRANSPORT  WORKERS  REQUESTS  UP"],
        ["data", "root", "/mnt/data", "passthrough                             io_uring   1/2      24        90 s"],
        ["gone", "root", "/mnt/gone", "(no server answers for it)              -          -        -         -"],
        ["his", "4294967", "/mnt/his", "(its server cannot be asked from here)  -          -        -         -"],
    ]


def test_details_show_every_worker(mounts: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 90.0)
    mounts([("data", 0, ("/mnt/data",))], data=ANSWER)
    assert status.show("data", as_json=False).splitlines() == [
        "mount      passthrough on /mnt/data",
        "server     pid 1, user root, up 90 s",
        "transport  io_uring, FUSE 7.45",
        "data       userspace (data: userspace)",
        "buffers    2 queues of 8, 16.1 MiB at most",
        "nodes      5",
        "kernel     7 forgets",
        "deaths     4 of workers; of their requests 0 rescued, 0 retried, 0 lost, 0 quarantined",
        "",
        "WORKER  CPU  PID  STATE    REQUESTS  ERRORS  READ   WRITTEN  BUSY  DEATHS  RSS",
        "0       0    -    serving  12        3       4 KiB  0 B      1     2       -",
        "1       1    -    dead     12        3       4 KiB  0 B      1     2       -",
    ]


OPERATION = {"opcode": "READ", "count": 9, "errors": 1, "mean": 2e-6, "p50": 1.5e-6, "p99": 3.25e-3, "max": 12.0}
RATES = {"seconds": 12.0, "requests": 1234.5, "errors": 0.25, "bytes_read": 2048.0, "bytes_written": 0.0}


def test_details_show_rates_and_operations(mounts: Set) -> None:
    worker = {**WORKER, "entries": 8, "rss": 1 << 20}
    metrics = {"at": "127.0.0.1:9876", "pid": 7, "deaths": 0}
    more = {"workers": [worker], "rates": RATES, "operations": [OPERATION], "metrics": metrics, "reloads": 2}
    mounts([("data", 0, ("/mnt/data",))], data={**ANSWER, **more})
    lines = status.show("data", as_json=False).splitlines()
    assert "rate       1.2k requests/s, 0.2 errors/s, 2 KiB/s read, 0 B/s written, over 12 s" in lines
    assert "metrics    127.0.0.1:9876, by pid 7" in lines
    assert "replaced   0 supervisors after a death, 2 by reloads" in lines
    assert re.split("  +", lines[-4]) == ["0", "0", "-", "serving", "12", "3", "4 KiB", "0 B", "1/8", "2", "1 MiB"]
    assert re.split("  +", lines[-2]) == ["OPERATION", "REQUESTS", "ERRORS", "MEAN", "P50", "P99", "MAX"]
    assert re.split("  +", lines[-1]) == ["READ", "9", "1", "2 us", "1.5 us", "3.25 ms", "12 s"]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), -1.0, 1e300])
def test_numbers_that_make_no_sense_are_shown_all_the_same(mounts: Set, number: float) -> None:
    operation = {**OPERATION, "mean": number, "p50": number, "p99": number, "max": number}
    rates = dict.fromkeys(RATES, number)
    worker = {**WORKER, "rss": 10**400, "bytes_read": 10**400, "entries": -1}
    evil = {**ANSWER, "since": number, "operations": [operation], "rates": rates, "workers": [worker]}
    mounts([("evil", 1000, ())], evil=evil)
    for name, as_json in ((None, False), (None, True), ("evil", False), ("evil", True)):
        assert status.show(name, as_json=as_json)


def test_a_reason_for_the_transport_is_shown(mounts: Set) -> None:
    mounts(
        [("data", 0, ())],
        data={**ANSWER, "transport": "dev_fuse", "transport_reason": "the switch is off", "nodes": None},
    )
    shown = status.show("data", as_json=False)
    assert "transport  dev_fuse (the switch is off), FUSE 7.45\n" in shown
    assert "nodes      kept by the filesystem itself\n" in shown


def test_json_passes_on_what_this_version_does_not_know_of(mounts: Set) -> None:
    mounts([("data", 0, ("/mnt/data",)), ("gone", 0, ("/mnt/gone",))], data=ANSWER)
    assert json.loads(status.show("data", as_json=True)) == {**ANSWER, "user": "root"}
    assert json.loads(status.show(None, as_json=True)) == [
        {**ANSWER, "user": "root"},
        {"name": "gone", "mountpoint": "/mnt/gone", "user": "root", "error": "no server answers for it"},
    ]


def test_a_name_that_is_not_there_is_a_failure_that_lists_those_that_are(mounts: Set) -> None:
    mounts([("data", 0, ("/mnt/data",)), ("socket-of-a-dead-one", 0, ())], data=ANSWER)
    with pytest.raises(Failure, match=r"no mount named nope is running; running: data$") as caught:
        status.show("nope", as_json=False)
    assert caught.value.code is ExitCode.NO_SUCH_MOUNT


def test_a_dead_mount_is_a_failure_that_says_how_to_clear_it(mounts: Set) -> None:
    mounts([("gone", 0, ("/mnt/gone",))])
    with pytest.raises(Failure, match=r"gone on /mnt/gone: no server answers for it; .* ringmount umount gone"):
        status.show("gone", as_json=False)


def test_the_one_that_serves_is_shown_rather_than_a_dead_one_of_its_name(mounts: Set) -> None:
    mounts([("data", 0, ("/mnt/old",)), ("data", 0, ("/mnt/data",))], data=ANSWER)
    assert json.loads(status.show("data", as_json=True))["mountpoint"] == "/mnt/data"
    assert "/mnt/old    (the server of that name serves another mount)" in status.show(None, as_json=False)


@pytest.mark.parametrize(
    "answer",
    [{}, [], "text", {**ANSWER, "workers": 3}, {**ANSWER, "counts": {"forgets": "many"}}, {**ANSWER, "since": None}],
)
def test_nonsense_from_a_supervisor_is_told_and_hides_no_other_mount(mounts: Set, answer: Any) -> None:
    mounts([("bad", 0, ("/mnt/bad",)), ("data", 0, ("/mnt/data",))], bad=answer, data=ANSWER)
    shown = status.show(None, as_json=False)
    assert "the supervisor of bad answered nonsense" in shown
    assert "/mnt/data" in shown


def test_a_supervisor_that_does_not_answer_is_told(mounts: Set) -> None:
    mounts([("slow", 0, ("/mnt/slow",))], slow=Failure("the supervisor of slow does not answer"))
    assert "(the supervisor of slow does not answer)" in status.show(None, as_json=False)


def test_control_characters_of_another_users_answer_do_not_reach_the_terminal(mounts: Set) -> None:
    escape = "\x1b[2J"
    worker = {**WORKER, "state": escape}
    evil = {
        **ANSWER,
        **dict.fromkeys(("mountpoint", "filesystem", "transport", "transport_reason", "protocol"), escape),
        "workers": [worker],
        "counts": {escape: 1},
    }
    mounts([("evil", 1000, ())], evil=evil)
    for name, as_json in ((None, False), (None, True), ("evil", False), ("evil", True)):
        assert "\x1b" not in status.show(name, as_json=as_json)
