"""How long a caller waits when its worker dies: from the signal to the first answer of its successor.

    sudo python bench/deaths.py [TRANSPORT] [DEATHS]

One client calls statfs(2), which is never cached, on the CPU whose worker dies. Prints the median and the slowest of
DEATHS (50) for each way to die.
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from ringmount.daemon import asked, control, places

WAYS = {"SIGSEGV": signal.SIGSEGV, "replaced": signal.SIGUSR2, "SIGKILL": signal.SIGKILL}
PATIENCE = 30.0


def serve(folder: Path, transport: str) -> "subprocess.Popen[bytes]":
    """A passthrough mount of one worker."""
    for name in ("source", "mount"):
        (folder / name).mkdir()
    settings = {
        "mountpoint": str(folder / "mount"),
        "filesystem": "passthrough",
        "options": {"source": str(folder / "source")},
        "transport": transport,
        "workers": 1,
    }
    file = folder / f"deaths-{os.getpid()}.yaml"
    file.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-P", "-m", "ringmount.daemon", "run", str(file)]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def wait_for(condition: Callable[[], bool]) -> None:
    """Waits until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the mount does not come to serve")
        time.sleep(0.01)


def one_death(name: str, mount: Path, number: int) -> float:
    """Seconds from the signal to an answer. The next worker's spare is there when it returns."""
    socket = places.socket_path(name)
    status = control.ask(socket, asked.Status())
    began = time.perf_counter()
    os.kill(status["workers"][0]["pid"], number)
    answered = False
    while not answered:
        try:
            os.statvfs(mount)
            # The dying worker may have answered this one.
            answered = control.ask(socket, asked.Status())["workers"][0]["pid"] != status["workers"][0]["pid"]
        except OSError:
            pass
    took = time.perf_counter() - began
    wait_for(lambda: control.ask(socket, asked.Status())["spare"] is not None)
    return took


def main() -> None:
    transport = sys.argv[1] if len(sys.argv) > 1 else "auto"
    deaths = int(sys.argv[2]) if len(sys.argv) > 2 else 50
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(prefix="ringmount-deaths-") as folder:
        server = serve(Path(folder), transport)
        try:
            wait_for(lambda: " is mounted on " in (Path(folder) / "log").read_text())
            for way, number in WAYS.items():
                times = [one_death(f"deaths-{os.getpid()}", Path(folder) / "mount", number) for _ in range(deaths)]
                median, slowest = statistics.median(times) * 1e3, max(times) * 1e3
                sys.stdout.write(f"{way:9} {deaths} deaths, median {median:.1f} ms, slowest {slowest:.1f} ms\n")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(PATIENCE)


if __name__ == "__main__":
    main()
