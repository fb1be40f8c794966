"""Logging of supervisor and workers: to stderr, with the level as the journal wants it (`<N>`) when systemd reads it."""

import logging
import os
import sys

PRIORITY = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""sd-daemon(3)."""


class Lines(logging.Formatter):
    """`LEVEL message`, each further line indented; for the journal `<N>` in front of each line."""

    def __init__(self, for_journal: bool) -> None:
        super().__init__("%(message)s")
        self._for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).splitlines() or [""]
        if self._for_journal:
            mark = f"<{PRIORITY.get(record.levelno, 6)}>"
            return "\n".join(mark + line for line in lines)
        head = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return "ringmount: " + head + "\n    ".join(lines)


def set_up(level: str) -> None:
    """Logs to stderr from this level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines("JOURNAL_STREAM" in os.environ))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
