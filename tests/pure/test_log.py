"""Log lines for people and for the journal."""

import contextlib
import io
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pure.entries import decoded

from ringmount.daemon import journald, log
from ringmount.daemon.exitcodes import Failure
from ringmount.daemon.ratelimit import BURST, INTERVAL
from ringmount.workers import events
from ringmount.workers.events import about

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def record(level: int, message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("x", level, "file.py", 1, message, arguments, None)


def for_people(record: logging.LogRecord) -> str:
    """Without the time."""
    return re.sub(TIME, "", log.Lines(for_journal=False).format(record))


def test_people_get_the_level_where_it_matters() -> None:
    assert for_people(record(logging.INFO, "serving %s", "x")) == "ringmount: serving x"
    assert for_people(record(logging.WARNING, "slow")) == "ringmount: warning: slow"


def test_people_get_the_time() -> None:
    assert re.match(TIME, log.Lines(for_journal=False).format(record(logging.INFO, "x")))


def test_further_lines_are_indented_for_people_and_marked_for_the_journal() -> None:
    both = record(logging.ERROR, "one\ntwo")
    assert for_people(both) == "ringmount: error: one\n    two"
    assert log.Lines(for_journal=True).format(both) == "<3>one\n<3>two"


def test_an_empty_message_is_a_line() -> None:
    assert log.Lines(for_journal=True).format(record(logging.DEBUG, "")) == "<7>"


def test_every_level_has_its_priority() -> None:
    lines = log.Lines(for_journal=True)
    levels = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG, 25)
    assert [lines.format(record(level, "x")) for level in levels] == ["<2>x", "<3>x", "<4>x", "<6>x", "<7>x", "<6>x"]


def test_the_journal_is_known_by_the_streams_own_inode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "journal").open("w") as journal, (tmp_path / "other").open("w") as other:
        status = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert log.is_journal(journal)
        assert not log.is_journal(other)  # a terminal opened inside a unit inherits the variable, too
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not log.is_journal(journal)


def test_a_closed_stream_is_no_journal(tmp_path: Path) -> None:
    stream = (tmp_path / "closed").open("w")
    stream.close()
    assert not log.is_journal(stream)


def test_setting_up_replaces_what_was_set_up_and_filters_by_level(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        log.set_up("debug", stream)
        log.set_up("warning", stream)
        logging.getLogger("anything").info("not this")
        logging.getLogger("anything").warning("this")
    assert re.fullmatch(f"{TIME}ringmount: warning: this\n", (tmp_path / "log").read_text())


def test_the_log_goes_to_stderr(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with os.fdopen(os.dup(2), "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        log.set_up("info")
        logging.getLogger("anything").info("hello")
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(f"{TIME}ringmount: hello\n", err)


def test_a_stream_without_a_descriptor_is_written_to() -> None:
    stream = io.StringIO()
    log.set_up("info", stream)
    logging.getLogger("anything").info("hello")
    assert stream.getvalue().endswith("ringmount: hello\n")


def test_a_file_gets_lines_for_people(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        assert log.way_to(stream) is log.Way.PLAIN


def test_the_kernels_log_gets_marked_lines() -> None:
    try:
        fd = os.open("/dev/kmsg", os.O_WRONLY)
    except OSError:
        pytest.skip("there is no /dev/kmsg to be written to")
    with os.fdopen(fd, "w") as kmsg:
        assert log.way_to(kmsg) is log.Way.MARKED


def test_the_holder_marks_its_lines_for_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w") as stderr:
        status = os.fstat(stderr.fileno())
        for stream in ("elsewhere", f"{status.st_dev}:{status.st_ino}"):
            command = [sys.executable, "-P", "-c", "from ringmount.daemon import keeper; keeper.say('it died')"]
            environment = {**os.environ, "JOURNAL_STREAM": stream}
            subprocess.run(command, env=environment, stderr=stderr, timeout=60, check=True)
    assert (tmp_path / "stderr").read_text() == "ringmount: it died\n<3>it died\n"


# --- a journal that is a socket in the test's own folder -------------------------------------------------------------


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Stands in for journald: what is logged to `tmp_path / "stderr"` arrives here."""
    address = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening, (tmp_path / "stderr").open("w") as stderr:
        listening.bind(address)
        listening.setblocking(False)
        status = os.fstat(stderr.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        monkeypatch.setattr(journald, "ADDRESS", address)
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        monkeypatch.setattr(events, "IDENTITY", {})
        log.set_up("info", stderr, mount="m")
        yield listening


def received(journal: socket.socket) -> dict[str, str]:
    return decoded(journal.recv(1 << 20))


def drained(journal: socket.socket) -> list[str]:
    """The messages that have come."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(received(journal)["MESSAGE"])
    return found


def lines_instead(tmp_path: Path) -> list[str]:
    return (tmp_path / "stderr").read_text().splitlines()


def test_the_journal_gets_a_message_with_its_fields(journal: socket.socket) -> None:
    events.identify(WORKER=3, CPU=None)
    extra = about(events.REQUEST_LOST, opcode=1, nodeid=7, unique=9, errno=5)
    logging.getLogger("anything").error("lost %s", "it", extra=extra)
    entry = received(journal)
    assert entry.pop("CODE_FILE") == __file__
    assert int(entry.pop("CODE_LINE")) > 0
    entry.pop("OBJECT_SYSTEMD_UNIT", None)  # where the tests themselves are a unit
    assert entry == {
        "MESSAGE": "lost it",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "ringmount",
        "CODE_FUNC": "test_the_journal_gets_a_message_with_its_fields",
        "RINGMOUNT_MOUNT": "m",
        "WORKER": "3",
        "OPCODE": "LOOKUP",
        "NODEID": "7",
        "UNIQUE": "9",
        "ERRNO": "5",
        "MESSAGE_ID": events.REQUEST_LOST.id,
    }


def test_a_traceback_belongs_to_its_message(journal: socket.socket) -> None:
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("anything").exception("failed")
    message = received(journal)["MESSAGE"]
    assert message.startswith("failed\nTraceback (most recent call last):\n")
    assert message.endswith("\nValueError: why")


def test_where_the_journal_is_gone_its_stream_gets_marked_lines(journal: socket.socket, tmp_path: Path) -> None:
    os.unlink(journald.ADDRESS)
    logging.getLogger("anything").warning("one\ntwo")
    assert lines_instead(tmp_path) == ["<4>one", "<4>two"]


def test_a_journal_that_does_not_read_is_not_waited_for(journal: socket.socket, tmp_path: Path) -> None:
    for number in range(1000):
        logging.getLogger("anything").warning("%d", number, extra=about(events.WORKER_DIED))  # never left out
    taken = len(drained(journal))
    assert 0 < taken < 1000
    assert len(lines_instead(tmp_path)) == 1000 - taken


def test_what_nobody_took_is_counted_and_told() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as reader, os.fdopen(write_end, "w") as writer:
        log.set_up("info", writer)
        for _ in range(100):  # a pipe takes 16 pages
            logging.getLogger("anything").error("x" * 4000, extra=about(events.WORKER_DIED))
        os.set_blocking(read_end, False)
        first = reader.read()
        logging.getLogger("anything").error("the last", extra=about(events.WORKER_DIED))
        told, last = reader.read().decode().splitlines()
    whole = first.count(b"x" * 4000 + b"\n")
    assert told.endswith(f"ringmount: error: {100 - whole} messages were lost: nobody took them")
    assert last.endswith("ringmount: error: the last")


def test_a_child_logs_what_its_parent_logs_to(journal: socket.socket) -> None:
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.closerange(3, 1000)
            logging.getLogger("anything").error("from the child")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert received(journal)["MESSAGE"] == "from the child"


def test_messages_that_are_alike_are_left_out_and_counted(journal: socket.socket) -> None:
    said = []
    for number in range(100):
        logging.getLogger("anything").error("number %d", number)
        said += drained(journal)
    last = f"number {BURST - 1} (more like this are left out for {INTERVAL:.0f} s)"
    assert said == [*(f"number {number}" for number in range(BURST - 1)), last]
    logging.getLogger("anything").error("another")
    assert drained(journal) == ["another"]
    log.say_left_out(at_once=True)
    told = received(journal)
    assert told["MESSAGE"] == f"{100 - BURST} more like this were left out; the last: number 99"
    assert told["MESSAGE_ID"] == events.SUPPRESSED.id
    assert told["CODE_FUNC"] == "test_messages_that_are_alike_are_left_out_and_counted"


def test_what_counts_deaths_is_never_left_out(journal: socket.socket) -> None:
    said = []
    for number in range(100):
        logging.getLogger("anything").error("%d", number, extra=about(events.WORKER_DIED))
        said += drained(journal)
    assert said == [str(number) for number in range(100)]


def test_exceptions_from_different_places_are_not_alike() -> None:
    def raised_at(place: int) -> logging.LogRecord:
        same = record(logging.ERROR, "failed")
        try:
            if place:
                raise ValueError
            raise ValueError
        except ValueError as error:
            same.exc_info = (ValueError, error, error.__traceback__)
        return same

    assert log.kind(raised_at(0)) == log.kind(raised_at(0))
    assert log.kind(raised_at(0)) != log.kind(raised_at(1))


def test_a_failure_is_an_event_for_the_journal_and_a_line_for_people(
    journal: socket.socket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.complain(Failure("no way", "turn round"))
    entry = received(journal)
    assert (entry["MESSAGE"], entry["MESSAGE_ID"]) == ("no way; turn round", events.FAILED.id)
    with (tmp_path / "log").open("w") as stream:
        log.set_up("info", stream)
        log.complain(Failure("no way"))
    assert capsys.readouterr().err == "ringmount: no way\n"
