"""Logging of supervisor, workers and their helpers: to the journal with fields, or as lines on stderr.

Which of the three it is is decided once, by what reads stderr:

- The journal does, JOURNAL_STREAM says (systemd.exec(5)), and its socket is there: entries with fields (journald.py).
- The journal does, but its socket cannot be reached, or it is /dev/kmsg: lines with `<N>` in front (sd-daemon(3)).
- Somebody else does: lines with the time.

The rule a change must keep: nothing here waits for a reader, and what was dropped for want of one is counted and told.
"""

import contextlib
import logging
import os
import re
import select
import stat
import sys
import time
from collections.abc import Hashable
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import TextIO

from ringmount.daemon import journald
from ringmount.daemon.ratelimit import Limiter, Verdict
from ringmount.workers import events
from ringmount.workers.events import about, event_of, fields_of

PRIORITY = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""sd-daemon(3)."""
IDENTIFIER = "ringmount"
ATOMIC = select.PIPE_BUF
"""Bytes that a pipe takes at once if it takes any (pipe(7)); a socket that polls writable takes more."""
KMSG = os.makedev(1, 11)
CGROUP = Path("/proc/self/cgroup")
UNIT = re.compile(r"/([^/]+\.service)(?:/|$)", re.MULTILINE)


class Way(Enum):
    """How messages go."""

    JOURNAL = "journal"
    MARKED = "marked"
    PLAIN = "plain"


class Lines(logging.Formatter):
    """`TIME ringmount: LEVEL: MESSAGE`, further lines indented; for the journal `<PRIORITY>MESSAGE`, each line so
    marked."""

    def __init__(self, for_journal: bool) -> None:
        super().__init__("%(message)s", "%Y-%m-%d %H:%M:%S")
        self._for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).splitlines() or [""]
        if self._for_journal:
            mark = f"<{PRIORITY.get(record.levelno, 6)}>"
            return "\n".join(mark + line for line in lines)
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return f"{self.formatTime(record, self.datefmt)} ringmount: {level}" + "\n    ".join(lines)


class Log(logging.Handler):
    """A process's log. What is alike and too much is left out (ratelimit.py), but never an event."""

    def __init__(self, stream: TextIO, way: Way, limiter: Limiter | None = None) -> None:
        super().__init__()
        self.way = way
        self.dropped = 0
        """Messages that nobody took."""
        self._stream = stream
        self._journal = journald.Sender()
        self._text = logging.Formatter("%(message)s")
        self._lines = Lines(for_journal=way is not Way.PLAIN)
        self._unit = _unit()
        self._limiter = limiter or Limiter()
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """logging.Handler's. Raises nothing."""
        try:
            if self._pid != os.getpid():  # a fork: what was left out before is said by the parent
                self._pid, self._limiter, self.dropped = os.getpid(), Limiter(), 0
            self.say_left_out()
            if event_of(record) is None:
                match self._limiter.admit(kind(record), record, time.monotonic()):
                    case Verdict.LEAVE_OUT:
                        return
                    case Verdict.LOG_LAST:
                        wait = f"{self._limiter.interval:.0f} s"
                        record = _copy(record, f"{record.getMessage()} (more like this are left out for {wait})")
            self._put(record)
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """The process ends: what was left out is said."""
        self.say_left_out(at_once=True)

    def say_left_out(self, *, at_once: bool = False) -> float | None:
        """Says how many were left out where that is over; returns when it has to be called again (time.monotonic)."""
        for window in self._limiter.over(float("inf") if at_once else time.monotonic()):
            assert isinstance(window.last, logging.LogRecord)
            last = window.last.getMessage()
            self._put(_copy(window.last, f"{window.left_out} more like this were left out; the last: {last}", True))
        return self._limiter.next_end()

    def _put(self, record: logging.LogRecord) -> None:
        dropped, self.dropped = self.dropped, 0
        if dropped and not self._write(_copy(record, f"{dropped} messages were lost: nobody took them", True)):
            self.dropped += dropped
        self.dropped += not self._write(record)

    def _write(self, record: logging.LogRecord) -> bool:
        if self.way is Way.JOURNAL:
            with contextlib.suppress(OSError):
                self._journal.send(journald.encode(self._fields(record)))
                return True
        return _write_nowait(self._stream, self._lines.format(record) + "\n")

    def _fields(self, record: logging.LogRecord) -> list[tuple[str, object]]:
        event = event_of(record)
        fields: list[tuple[str, object]] = [
            ("MESSAGE", self._text.format(record)),
            ("PRIORITY", PRIORITY.get(record.levelno, 6)),
            ("SYSLOG_IDENTIFIER", IDENTIFIER),
            ("CODE_FILE", record.pathname),
            ("CODE_LINE", record.lineno),
            ("CODE_FUNC", record.funcName),
            *fields_of(record).items(),
        ]
        if event is not None:
            fields.append(("MESSAGE_ID", event.id))
        if self._unit:
            # Of a process that has ended before journald looks at it the unit is not known (sd_pid_get_unit);
            # `journalctl -u` believes root's processes who say it themselves.
            fields.append(("OBJECT_SYSTEMD_UNIT", self._unit))
        return fields


def kind(record: logging.LogRecord) -> Hashable:
    """Messages with the same kind are alike."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return (record.pathname, record.lineno)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = None if trace is None else (trace.tb_frame.f_code.co_filename, trace.tb_lineno)
    return (record.pathname, record.lineno, type(error), place)


def _copy(record: logging.LogRecord, message: str, is_about_messages: bool = False) -> logging.LogRecord:
    """The record with another text."""
    copy = logging.makeLogRecord(record.__dict__)
    copy.msg, copy.args = message, None
    if is_about_messages:
        copy.exc_info = copy.exc_text = copy.stack_info = None
        copy.__dict__.update(about(events.SUPPRESSED))
    return copy


def _write_nowait(stream: TextIO, text: str) -> bool:
    """Writes what the stream takes at once; False if that was not all."""
    try:
        fd = stream.fileno()
    except (OSError, ValueError):  # a stream of somebody's own, or a closed one
        with contextlib.suppress(ValueError):
            stream.write(text)
        return True
    data = text.encode("utf-8", "backslashreplace")
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    try:
        while data:
            if not any(mask & select.POLLOUT for _, mask in poll.poll(0)):
                return False
            data = data[os.write(fd, data[:ATOMIC]) :]
    except OSError:
        return False
    return True


def set_up(level: str, stream: TextIO | None = None, mount: str | None = None) -> None:
    """Logs to the journal or to `stream` (stderr) from this level on; workers inherit it over the fork.

    `mount`: the name of the mount that it is about.
    """
    stream = stream or sys.stderr
    root = logging.getLogger()
    root.handlers[:] = [Log(stream, way_to(stream))]
    root.setLevel(level.upper())
    events.identify(RINGMOUNT_MOUNT=mount)
    if goes_to_journal():
        sys.excepthook = _log_unexpected


def _log_unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What ends a process unexpectedly, as one message instead of one a line."""
    extra = about(events.FAILED)
    logging.getLogger(__name__).critical("ended unexpectedly: %s", error, exc_info=(kind, error, trace), extra=extra)


def way_to(stream: TextIO) -> Way:
    """How messages go if `stream` is where the lines went."""
    if is_journal(stream):
        return Way.JOURNAL if journald.Sender().is_there() else Way.MARKED
    return Way.MARKED if _is_kmsg(stream) else Way.PLAIN


def goes_to_journal() -> bool:
    """Whether what is logged is read in the journal, or as the kernel's log."""
    return any(isinstance(handler, Log) and handler.way is not Way.PLAIN for handler in logging.getLogger().handlers)


def say_left_out(*, at_once: bool = False) -> float | None:
    """See `Log.say_left_out`."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Log):
            return handler.say_left_out(at_once=at_once)
    return None


def complain(error: Exception) -> None:
    """Says why a mount failed: in the journal, if it reads this process, else as commands do."""
    if goes_to_journal():
        logging.getLogger(__name__).error("%s", error, extra=about(events.FAILED))
    else:
        print(f"ringmount: {error}", file=sys.stderr)  # noqa: T201


def is_journal(stream: TextIO) -> bool:
    """True if the journal reads this stream.

    Being inherited, JOURNAL_STREAM is also set where a terminal or a pipe has taken the stream's place: it counts only
    with the stream's own device and inode number (systemd.exec(5)).
    """
    status = _status(stream)
    return status is not None and os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _is_kmsg(stream: TextIO) -> bool:
    status = _status(stream)
    return status is not None and stat.S_ISCHR(status.st_mode) and status.st_rdev == KMSG


def _status(stream: TextIO) -> os.stat_result | None:
    try:
        return os.fstat(stream.fileno())
    except (OSError, ValueError):
        return None


def _unit() -> str:
    """The system's service that this process belongs to; "" for none."""
    with contextlib.suppress(OSError):
        found = UNIT.search(CGROUP.read_text())
        if found is not None and not found[1].startswith("user@") and os.geteuid() == 0:
            return found[1]
    return ""
