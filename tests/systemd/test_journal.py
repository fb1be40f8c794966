"""What a mount logs, as journalctl shows it."""

import errno
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from systemd.box import Box, wait_for

from ringmount.workers import events
from ringmount.workers.events import Event

UNIT = "ringmount@logged"
CPUS = sorted(os.sched_getaffinity(0))[:2]

pytestmark = [pytest.mark.ring, pytest.mark.skipif(len(CPUS) < 2, reason="tells two workers apart, one a CPU")]

Entry = dict[str, Any]


@pytest.fixture(scope="module")
def logged(box: Box) -> Iterator[str]:
    """The mountpoint of a mount whose filesystem is talking.py's."""
    mountpoint = box.configure("logged", filesystem="talking:Talking", workers=2, cpus=CPUS)
    shutil.copy(Path(__file__).with_name("talking.py"), box.path("/etc/ringmount"))
    box.systemctl("start", UNIT)
    yield mountpoint
    box.systemctl("stop", UNIT)


def entries(box: Box, *matches: str, unit: str = UNIT) -> list[Entry]:
    """The unit's entries, and those about it, that match. All that was said before is among them."""
    box.do("journalctl", "--sync")
    lines = box.do("journalctl", "--no-pager", "--output=json", "--all", f"--unit={unit}", *matches).splitlines()
    return [json.loads(line) for line in lines]


def told(box: Box, event: Event, count: int = 1, unit: str = UNIT) -> list[Entry]:
    """Entries of an event, once there are so many."""

    def found() -> list[Entry]:
        return entries(box, f"MESSAGE_ID={event.id}", unit=unit)

    wait_for(lambda: len(found()) >= count, f"the event: {event.name}", box=box)
    return found()


def look_up(box: Box, mountpoint: str, name: str, worker: int = 0) -> str:
    """What stat(1) says of a name for which it asks this worker."""
    done = box.run("timeout", "60", "taskset", "-c", str(CPUS[worker]), "stat", f"{mountpoint}/{name}")
    assert done.returncode == 1
    return done.stderr


def test_that_it_is_mounted_is_an_event(box: Box, logged: str) -> None:
    (entry,) = told(box, events.MOUNTED)
    assert entry["MESSAGE"].startswith(f"mounted on {logged}: talking:Talking, ")
    assert (entry["PRIORITY"], entry["RINGMOUNT_MOUNT"], entry["SYSLOG_IDENTIFIER"]) == ("6", "logged", "ringmount")
    assert entry["CODE_FILE"].endswith("/run.py")
    assert entry["_TRANSPORT"] == "journal"
    assert "WORKER" not in entry


def test_an_exception_is_one_entry_with_its_traceback(box: Box, logged: str) -> None:
    assert "Input/output error" in look_up(box, logged, "wrong", worker=1)
    (entry,) = entries(box, "CODE_FUNC=_failed")
    assert "\nTraceback (most recent call last):\n" in entry["MESSAGE"]
    assert entry["MESSAGE"].endswith("\nRuntimeError: first line\nsecond line")
    fields = [entry[name] for name in ("PRIORITY", "WORKER", "CPU", "OPCODE", "NODEID", "ERRNO")]
    assert fields == ["3", "1", str(CPUS[1]), "LOOKUP", "1", str(errno.EIO)]
    assert int(entry["UNIQUE"]) > 0


def test_deaths_and_the_request_that_caused_them_are_events(box: Box, logged: str) -> None:
    assert "Input/output error" in look_up(box, logged, "lethal", worker=0)
    for entry in told(box, events.WORKER_DIED, 2):
        assert entry["MESSAGE"].endswith(" died: SIGSEGV")
        assert [entry[name] for name in ("PRIORITY", "WORKER", "CPU")] == ["3", "0", str(CPUS[0])]
    (entry,) = told(box, events.REQUEST_QUARANTINED)
    fields = [entry[name] for name in ("PRIORITY", "WORKER", "CPU", "OPCODE", "NODEID", "ERRNO", "RINGMOUNT_MOUNT")]
    assert fields == ["3", "0", str(CPUS[0]), "LOOKUP", "1", str(errno.EIO), "logged"]
    assert "name 'lethal'" in entry["MESSAGE"]
    explained = box.do("journalctl", "--no-pager", "-x", f"MESSAGE_ID={events.REQUEST_QUARANTINED.id}")
    assert "Defined-By: ringmount" in explained
    assert "is not run again" in explained


def test_workers_are_told_apart(box: Box, logged: str) -> None:
    for worker in range(2):
        look_up(box, logged, "wrong", worker)
        found = entries(box, f"WORKER={worker}")
        assert "_failed" in {entry["CODE_FUNC"] for entry in found}
        assert {(entry["WORKER"], entry["CPU"]) for entry in found} == {(str(worker), str(CPUS[worker]))}


def test_levels_change_while_it_runs(box: Box, logged: str) -> None:
    def set_level(*arguments: str) -> str:
        done = box.ringmount("log-level", "logged", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    names = map("name-{}".format, itertools.count())

    def who_tells() -> set[str]:
        """The workers that log at level debug."""
        name = next(names)
        for worker in range(2):
            look_up(box, logged, name, worker)
        return {entry["WORKER"] for entry in entries(box, "PRIORITY=7") if entry["MESSAGE"] == f"asked for {name}"}

    assert who_tells() == set()
    assert set_level("debug", "--worker", "1").endswith(": info; worker 1: debug\n")
    wait_for(lambda: who_tells() == {"1"}, "worker 1 to hear of it", box=box)
    assert set_level("debug").endswith(": debug\n")
    wait_for(lambda: who_tells() == {"0", "1"}, "all workers to hear of it", box=box)
    look_up(box, logged, "lethal", worker=0)
    wait_for(lambda: who_tells() == {"0", "1"}, "the successor to log as its predecessor", box=box)
    assert set_level("info").endswith(": info\n")
    wait_for(lambda: who_tells() == set(), "all workers to hear of it", box=box)


def test_a_reload_goes_back_to_the_level_of_the_file(box: Box) -> None:
    unit = "ringmount@reloaded"
    box.configure("reloaded")
    box.systemctl("start", unit)
    assert box.ringmount("log-level", "reloaded", "error").stdout.endswith(": error\n")
    box.systemctl("reload", unit)
    assert box.ringmount("log-level", "reloaded").stdout.endswith(": info\n")
    assert entries(box, "MESSAGE=log level: info again, as the mount's file says", unit=unit)
    told(box, events.RELOADED, unit=unit)
    box.systemctl("stop", unit)


def test_a_mount_that_cannot_be_made_says_why_as_an_event(box: Box) -> None:
    box.configure("impossible", filesystem="nothing_of_this_name:Nothing")
    assert box.run("systemctl", "start", "ringmount@impossible").returncode != 0
    entry = told(box, events.FAILED, unit="ringmount@impossible")[0]
    assert "nothing_of_this_name" in entry["MESSAGE"]
    assert (entry["PRIORITY"], entry["RINGMOUNT_MOUNT"]) == ("3", "impossible")
    box.systemctl("stop", "ringmount@impossible")


def test_the_end_of_a_mount_is_an_event(box: Box) -> None:
    box.configure("ending")
    box.systemctl("start", "ringmount@ending")
    box.systemctl("stop", "ringmount@ending")
    (stopping,) = told(box, events.STOPPING, unit="ringmount@ending")
    (unmounted,) = told(box, events.UNMOUNTED, unit="ringmount@ending")
    assert stopping["__REALTIME_TIMESTAMP"] <= unmounted["__REALTIME_TIMESTAMP"]
