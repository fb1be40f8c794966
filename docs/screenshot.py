"""Makes docs/top.svg: a page of `ringmount top` as a terminal shows it, beside a mount at work.

    sudo make screenshot

A passthrough mount is used by a few programs; `top` runs in a terminal of its own (pyte), whose screen becomes the
picture once it shows a request in flight.
"""

import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from fcntl import ioctl
from html import escape
from itertools import groupby
from pathlib import Path
from termios import TIOCSWINSZ

import pyte
import yaml

COLUMNS, ROWS = 108, 26
PATIENCE = 60.0
PICTURE = Path(__file__).with_name("top.svg")

WORK = """
import os, sys
root, number = sys.argv[1:]
os.sched_setaffinity(0, {int(number) % os.cpu_count()})
for i in range(10**9):
    name = f"{root}/{number}-{i % 50}"
    with open(name, "wb") as file:
        file.write(bytes(20000))
    with open(name, "rb") as file:
        file.read()
    os.listdir(root)
    os.path.exists(f"{root}/missing-{i}")
    if i % 3 == 0:
        os.unlink(name)
"""

# Of the picture, in pixels.
WIDTH, HEIGHT, MARGIN = 8.0, 18.0, 14.0
DARK, LIGHT, RED = "#101418", "#d8dee4", "#ff7b72"


def run(*command: str, **options: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, **options)  # type: ignore[call-overload,no-any-return]


def main() -> None:
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="ringmount-screenshot-") as name:
        folder = Path(name)
        try:
            screen = pictured(folder, processes)
        finally:
            for process in reversed(processes):
                process.send_signal(signal.SIGTERM)
            for process in reversed(processes):
                process.wait(PATIENCE)
    PICTURE.write_text(svg(screen))
    print("\n".join(line.rstrip() for line in screen.display))
    print(f"written to {PICTURE}")


def pictured(folder: Path, processes: "list[subprocess.Popen[bytes]]") -> pyte.Screen:
    """The screen of `top`, once it has shown a few pages. What is started is added to `processes`, the server first."""
    mount, source = Path("/mnt/data"), folder / "source"
    source.mkdir()
    file = folder / "data.yaml"
    settings = {"mountpoint": str(mount), "filesystem": "passthrough", "options": {"source": str(source)}}
    file.write_text(yaml.safe_dump({**settings, "data": "userspace"}))
    ringmount = [sys.executable, "-P", "-m", "ringmount.daemon"]
    processes.append(run(*ringmount, "run", "--mkdir", str(file), stdout=subprocess.PIPE))
    assert processes[0].stdout is not None
    processes[0].stdout.readline()
    for number in "1234":
        processes.append(run(sys.executable, "-c", WORK, str(mount), number))
    master, slave = pty.openpty()
    ioctl(master, TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    top = run("setsid", "--ctty", *ringmount, "top", "data", stdin=slave, stdout=slave, stderr=slave, env=environment)
    processes.append(top)
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    until = time.monotonic() + 8
    while time.monotonic() < until or "COMMAND" not in "".join(screen.display):
        if time.monotonic() > until + PATIENCE:
            raise SystemExit("top shows no request in flight:\n" + "\n".join(screen.display))
        if select.select([master], [], [], 0.5)[0]:
            stream.feed(os.read(master, 1 << 16))
    return screen


def svg(screen: pyte.Screen) -> str:
    """The screen's characters as a picture."""
    used = max((row for row in range(ROWS) if screen.display[row].strip()), default=0) + 1
    width, height = COLUMNS * WIDTH + 2 * MARGIN, used * HEIGHT + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" role="img">',
        "<title>ringmount top</title>",
        f'<rect width="100%" height="100%" rx="8" fill="{DARK}"/>',
        '<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="13" xml:space="preserve">',
    ]
    for row in range(used):
        cells = [screen.buffer[row][column] for column in range(COLUMNS)]
        at = 0
        for look, run_of in groupby(cells, key=lambda cell: (cell.bold, cell.reverse, cell.fg)):
            text = "".join(cell.data for cell in run_of)
            parts.append(_run(text, look, MARGIN + at * WIDTH, MARGIN + row * HEIGHT))
            at += len(text)
    return "\n".join([*filter(None, parts), "</g>", "</svg>"]) + "\n"


def _run(text: str, look: tuple[bool, bool, str], x: float, y: float) -> str:
    bold, reverse, color = look
    if not text.strip() and not reverse:
        return ""
    ink = DARK if reverse else RED if color == "red" else LIGHT
    weight = ' font-weight="bold"' if bold else ""
    length = len(text) * WIDTH
    box = (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{length:.0f}" height="{HEIGHT:.0f}" fill="{LIGHT}"/>' if reverse else ""
    )
    where = f'x="{x:.0f}" y="{y + 13:.0f}" textLength="{length:.0f}" lengthAdjust="spacingAndGlyphs"'
    return f'{box}<text {where} fill="{ink}"{weight}>{escape(text)}</text>'


if __name__ == "__main__":
    main()
