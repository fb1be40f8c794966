"""The journal's catalog: what `journalctl -x` explains of each event (systemd/ringmount.catalog).

python -m ringmount.daemon.catalog          prints the file
python -m ringmount.daemon.catalog table    prints the table of events in docs/logging.md
"""

import sys
import textwrap

from ringmount.workers.events import EVENTS, Event

WIDTH = 100


def catalog() -> str:
    """All entries, in the form of systemd.io/CATALOG; `@FIELD@` is filled in from the message."""
    head = "# Made by: python -m ringmount.daemon.catalog"
    return "\n\n".join([head, *map(_entry, EVENTS)]) + "\n"


def _entry(event: Event) -> str:
    advice = event.advice.replace("NAME", "@RINGMOUNT_MOUNT@")
    paragraphs = (textwrap.fill(text, WIDTH, break_on_hyphens=False) for text in (event.what, advice))
    subject = f"{event.name} (mount @RINGMOUNT_MOUNT@)"
    head = f"-- {event.id}\nSubject: {subject}\nDefined-By: ringmount\nDocumentation: man:ringmount(1)"
    return "\n\n".join([head, *paragraphs])


def table() -> str:
    """The events as a table of Markdown."""
    rows = [f"| {event.name} | `{event.id}` | {event.what} | {event.advice} |" for event in EVENTS]
    return "\n".join(["| event | `MESSAGE_ID` | what has happened | what to do |", "| --- | --- | --- | --- |", *rows])


if __name__ == "__main__":
    sys.stdout.write(table() + "\n" if sys.argv[1:] == ["table"] else catalog())
