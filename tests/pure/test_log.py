"""Log lines for people and for the journal."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringmount.daemon import log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def record(level: int, message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("x", level, "file.py", 1, message, arguments, None)


def test_people_get_the_level_where_it_matters() -> None:
    lines = log.Lines(for_journal=False)
    assert lines.format(record(logging.INFO, "serving %s", "x")) == "ringmount: serving x"
    assert lines.format(record(logging.WARNING, "slow")) == "ringmount: warning: slow"


def test_further_lines_are_indented_for_people_and_marked_for_the_journal() -> None:
    both = record(logging.ERROR, "one\ntwo")
    assert log.Lines(for_journal=False).format(both) == "ringmount: error: one\n    two"
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
    assert (tmp_path / "log").read_text() == "ringmount: warning: this\n"


def test_the_log_goes_to_stderr(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with os.fdopen(os.dup(2), "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        log.set_up("info")
        logging.getLogger("anything").info("hello")
    assert capfd.readouterr() == ("", "ringmount: hello\n")
