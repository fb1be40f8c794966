"""A terminal that shows one page after another, and is left as it was.

The rule a change must keep: whatever ends the program, but SIGKILL, the screen, the cursor and the keys are put back.
"""

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Sequence
from enum import Enum
from types import FrameType
from typing import NamedTuple


class Style(Enum):
    """How a line looks, as ECMA-48's SGR parameters."""

    PLAIN = "0"
    TITLE = "1"
    HEADING = "7"
    ALARM = "1;31"


class Line(NamedTuple):
    text: str
    style: Style = Style.PLAIN


# What xterm, the Linux console and all that call themselves like them understand.
ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"  # the other screen, no cursor, long lines cut off
LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
HOME = "\x1b[H"
CLEAR_LINE = "\x1b[0m\x1b[K"
CLEAR_BELOW = "\x1b[J"


def is_capable() -> bool:
    """Whether the standard output is a terminal that can be drawn on."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Terminal:
    """The terminal of the standard streams. Use it with `with`; SIGTERM and SIGHUP end the program by SystemExit,
    SIGINT by KeyboardInterrupt."""

    def __init__(self) -> None:
        self._in = sys.stdin.fileno() if sys.stdin.isatty() else -1
        self._before = termios.tcgetattr(self._in) if self._in >= 0 else None
        self._wakeup = os.pipe()
        self._handlers = {
            signal.SIGWINCH: signal.signal(signal.SIGWINCH, self._wake),
            signal.SIGTSTP: signal.signal(signal.SIGTSTP, self._pause),
            signal.SIGINT: signal.signal(signal.SIGINT, self._end),
            signal.SIGTERM: signal.signal(signal.SIGTERM, self._end),
            signal.SIGHUP: signal.signal(signal.SIGHUP, self._end),
        }
        self._ended_by: int | None = None

    def __enter__(self) -> "Terminal":
        self._enter()
        return self

    def __exit__(self, *exception: object) -> None:
        self._leave()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for end in self._wakeup:
            os.close(end)

    def _enter(self) -> None:
        if self._in >= 0:
            tty.setcbreak(self._in)
        _write(ENTER)

    def _leave(self) -> None:
        with contextlib.suppress(OSError):  # it may be gone
            _write(LEAVE)
        if self._before is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._in, termios.TCSADRAIN, self._before)

    def _wake(self, number: int, frame: FrameType | None) -> None:
        os.write(self._wakeup[1], b"w")

    def _pause(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-Z: the shell gets its terminal as it was, and gives it back."""
        self._leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._enter()
        os.write(self._wakeup[1], b"w")

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ended_by = number
        self._raise_end()

    def _raise_end(self) -> None:
        if self._ended_by == signal.SIGINT:
            raise KeyboardInterrupt
        if self._ended_by is not None:
            raise SystemExit(128 + self._ended_by)

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines."""
        return shutil.get_terminal_size()

    def draw(self, lines: Sequence[Line]) -> None:
        """Shows these lines, and nothing of what was shown before."""
        height = self.size.lines
        shown = [f"\x1b[{line.style.value}m{line.text}{CLEAR_LINE}" for line in lines[:height]]
        _write(HOME + "\r\n".join(shown) + (CLEAR_BELOW if len(shown) < height else ""))

    def wait(self, seconds: float) -> bool:
        """Waits that long, or until the window has another size. False once the user wants to quit."""
        deadline = time.monotonic() + seconds
        files = [self._wakeup[0]] + ([self._in] if self._in >= 0 else [])
        self._raise_end()  # what was raised in a finalizer's or weak reference's call is lost
        while (left := deadline - time.monotonic()) > 0:
            ready = select.select(files, [], [], left)[0]
            if self._in in ready and (not (keys := os.read(self._in, 64)) or b"q" in keys.lower()):
                return False
            if self._wakeup[0] in ready:
                os.read(self._wakeup[0], 64)
                return True
        return True


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
