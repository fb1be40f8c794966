"""`ringmount top` and `status` beside a mount that works, and one whose workers all hang."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest
from mount.clients import call, client, cpus, said, serve_class, stopped, wait_for, worker_pids
from mount.support import ringmount

from ringmount.daemon import asked, places
from ringmount.daemon import client as control

CPUS = cpus()
READ = "import sys; sys.stdout.write(open(sys.argv[1]).read(8))"
MISS = "import os, sys\nfor i in range(int(sys.argv[2])): assert not os.path.exists(f'{sys.argv[1]}/missing{i}')"
PATIENCE = 30.0


class Window:
    """A terminal, and a program that runs in it; what it shows is `lines`."""

    def __init__(self, *arguments: str, columns: int = 120, rows: int = 30) -> None:
        self.master, self.slave = pty.openpty()
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.resize(columns, rows)
        self.keys = termios.tcgetattr(self.slave)
        command = ["setsid", "--ctty", sys.executable, "-P", "-m", "ringmount.daemon", "top", *arguments]
        self.process = subprocess.Popen(
            command,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "", "LINES": ""},
        )

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(rows, columns)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def lines(self) -> list[str]:
        """What is on the screen by now."""
        while select.select([self.master], [], [], 0)[0]:
            part = os.read(self.master, 1 << 16)
            self.raw += part
            self.stream.feed(part)
        return [line.rstrip() for line in self.screen.display]

    def shows(self, condition: Callable[[list[str]], object], what: str) -> list[str]:
        """Waits until the screen does."""
        deadline = time.monotonic() + PATIENCE
        while not condition(lines := self.lines):
            assert time.monotonic() < deadline, f"{what}:\n" + "\n".join(lines)
            assert self.process.poll() is None, "\n".join(lines)
            select.select([self.master], [], [], 0.1)
        return lines

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        wait_for(lambda: self.process.poll() is not None, "top ends", PATIENCE)
        return int(self.process.returncode)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@contextlib.contextmanager
def window(*arguments: str) -> Iterator[Window]:
    opened = Window(*arguments)
    with contextlib.closing(opened):
        yield opened


def test_it_shows_what_is_done_and_fits_the_window(tmp_path: Path) -> None:
    with (
        serve_class(tmp_path, "AsyncGate") as mount,
        window(mount.name, "--interval", "0.2") as top,
        client(READ, mount.path / "f0", cpu=CPUS[0]) as reader,
    ):

        def shows_lookups(lines: list[str]) -> bool:
            call(MISS, mount.path, 20, cpu=CPUS[0])
            return any(line.startswith("LOOKUP ") for line in lines)

        top.shows(shows_lookups, "no LOOKUP is shown")
        lines = top.shows(lambda lines: any(f" {reader.pid} " in line for line in lines), "the READ is not shown")
        assert lines[0].startswith(f"{mount.name}: mountfs:AsyncGate on ")
        assert [line.split()[:2] for line in lines if " serving " in line] == [
            [str(i), str(cpu)] for i, cpu in enumerate(CPUS)
        ]
        top.resize(60, 12)
        top.shows(lambda lines: len(lines) == 12 and lines[0].startswith(f"{mount.name}: "), "not drawn anew")
        wait_for(lambda: said(tmp_path, "begin"))
        (tmp_path / "go").touch()
        reader.result()
        top.press(b"q")
        assert top.ended() == 0


@pytest.mark.parametrize("how", ["q", "Ctrl-C", "SIGTERM"])
def test_the_terminal_is_left_as_it_was(tmp_path: Path, how: str) -> None:
    with window("--interval", "0.3") as top:
        top.shows(lambda lines: any(line.startswith("ringmount top: ") for line in lines), "nothing is shown")
        assert termios.tcgetattr(top.slave) != top.keys
        match how:
            case "q":
                top.press(b"q")
            case "Ctrl-C":
                top.press(b"\x03")
            case "SIGTERM":
                top.process.send_signal(signal.SIGTERM)
        assert top.ended() == (128 + signal.SIGTERM if how == "SIGTERM" else 0)
        assert not [line for line in top.lines if "Traceback" in line]
        assert termios.tcgetattr(top.slave) == top.keys
        assert top.raw.endswith(b"\x1b[?7h\x1b[?25h\x1b[?1049l")


def test_a_pipe_gets_one_plain_page_also_while_every_worker_hangs(tmp_path: Path) -> None:
    with (
        serve_class(tmp_path, "Tree") as mount,
        stopped(worker_pids(mount)),
        client("import os, sys; os.stat(sys.argv[1])", mount.path / "f3", cpu=CPUS[0]) as waiting,
    ):
        done = ringmount("top", mount.name, "--interval", "0.1")
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout
        assert done.stdout.startswith(f"{mount.name}: mountfs:Tree on ")

        def answers_at_once() -> bool:
            """Within a second, which a busy machine may not give a process each time."""
            begun = time.monotonic()
            control.ask(places.socket_path(mount.name), asked.Status())
            control.ask(places.socket_path(mount.name), asked.Requests())
            return time.monotonic() - begun < 1.0

        wait_for(answers_at_once, "status and ps within a second")
        assert not waiting.is_done()


def test_a_mount_that_is_not_there_is_a_failure() -> None:
    done = ringmount("top", "nowhere", "--once")
    assert done.returncode != 0
    assert "no mount named nowhere is running" in done.stderr
