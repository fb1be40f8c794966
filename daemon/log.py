"""Logging of supervisor and workers, to stderr: for people, or with each line's priority where the journal reads it."""

import logging
import os
import sys
from typing import TextIO

PRIORITY = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""sd-daemon(3)."""


class Lines(logging.Formatter):
    """`ringmount: LEVEL: MESSAGE`, further lines indented; for the journal `<PRIORITY>MESSAGE`, each line so marked."""

    def __init__(self, for_journal: bool) -> None:
        super().__init__("%(message)s")
        self._for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).splitlines() or [""]
        if self._for_journal:
            mark = f"<{PRIORITY.get(record.levelno, 6)}>"
            return "\n".join(mark + line for line in lines)
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return f"ringmount: {level}" + "\n    ".join(lines)


def set_up(level: str, stream: TextIO | None = None) -> None:
    """Logs to `stream` (stderr) from this level on; workers inherit it over the fork."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines(is_journal(stream)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def is_journal(stream: TextIO) -> bool:
    """True if the journal reads this stream.

    Being inherited, JOURNAL_STREAM is also set where a terminal or a pipe has taken the stream's place: it counts only
    with the stream's own device and inode number (systemd.exec(5)).
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
