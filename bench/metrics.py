"""What metrics cost a request: one mount without them and one with, asked in turn, A B B A ..., while one is scraped.

    sudo python bench/metrics.py [TRANSPORT] [ROUNDS]

Prints the medians over ROUNDS (40) of a stat's wall time and of the CPU time that the mount's processes spend on one,
the one that serves the metrics among them, and the ratio of the two mounts.
"""

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import yaml

SECONDS = 0.25
"""Of one measurement."""
SCRAPE_INTERVAL = 1.0
"""Prometheus' default is fifteen times as long, or sixty."""
PATIENCE = 30.0


class Mount:
    """A passthrough mount of one worker, on the CPU whose callers it serves."""

    def __init__(self, folder: Path, name: str, transport: str, cpu: int, metrics: str | None) -> None:
        where, source = folder / name, folder / f"{name}-source"
        where.mkdir()
        source.mkdir()
        (source / "file").touch()
        self.file = str(where / "file")
        self.metrics = metrics
        settings = {
            "mountpoint": str(where),
            "filesystem": "passthrough",
            "options": {"source": str(source)},
            "transport": transport,
            "cpus": [cpu],
            "timeouts": {"attr": 0, "entry": 0},
            "metrics": metrics,
        }
        yaml_file = folder / f"bench-{name}-{os.getpid()}.yaml"
        yaml_file.write_text(yaml.safe_dump(settings))
        log = folder / f"{name}.log"
        with log.open("wb") as out:
            command = [sys.executable, "-P", "-m", "ringmount.daemon", "run", str(yaml_file)]
            self.server = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        deadline = time.monotonic() + PATIENCE
        while " is mounted on " not in log.read_text() or (metrics and "serving metrics" not in log.read_text()):
            if time.monotonic() > deadline or self.server.poll() is not None:
                raise SystemExit(f"the mount does not come to serve:\n{log.read_text()}")
            time.sleep(0.01)

    def cpu_seconds(self) -> float:
        """CPU time of all its processes: the first number of /proc/PID/schedstat, in ns."""
        total = 0
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if int((entry / "stat").read_text().rpartition(")")[2].split()[3]) == self.server.pid:
                        total += int((entry / "schedstat").read_text().split()[0])
                except OSError:
                    pass
        return total / 1e9

    def measure(self) -> tuple[float, float]:
        """Seconds of wall time and of CPU time for one stat."""
        file, calls = self.file, 0
        before = self.cpu_seconds()
        began = time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            for _ in range(100):
                os.stat(file)
            calls += 100
        took = time.perf_counter() - began
        return took / calls, (self.cpu_seconds() - before) / calls


def scrape_for_ever(at: str) -> None:
    while True:
        urllib.request.urlopen(f"http://{at}/metrics", timeout=PATIENCE).read()
        time.sleep(SCRAPE_INTERVAL)


def main() -> None:
    transport = sys.argv[1] if len(sys.argv) > 1 else "auto"
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    cpu = min(os.sched_getaffinity(0))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        at = f"127.0.0.1:{taken.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="ringmount-metrics-") as name:
        mounts: list[Mount] = []
        try:
            mounts.append(Mount(Path(name), "without", transport, cpu, None))
            mounts.append(Mount(Path(name), "with", transport, cpu, at))
            threading.Thread(target=scrape_for_ever, args=(at,), daemon=True).start()
            os.sched_setaffinity(0, {cpu})  # this thread alone
            found: list[list[tuple[float, float]]] = [[], []]
            for each in (0, 1):
                mounts[each].measure()
            for number in range(rounds):
                for each in (0, 1) if number % 2 else (1, 0):
                    found[each].append(mounts[each].measure())
            for index, what in enumerate(("wall time", "CPU time of the mount")):
                a, b = (statistics.median(pair[index] for pair in each) * 1e6 for each in found)
                sys.stdout.write(
                    f"{what:22} of a stat: {a:.2f} us without metrics, {b:.2f} us with, {100 * (b / a - 1):+.1f} %\n"
                )
        finally:
            for mount in mounts:
                mount.server.send_signal(signal.SIGTERM)
            for mount in mounts:
                mount.server.wait(PATIENCE)


if __name__ == "__main__":
    main()
