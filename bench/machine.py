"""What the numbers were measured on: hardware, kernel, versions, and how busy the machine was."""

import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import prepare

TOOLS = {
    "fio": ["fio", "--version"],
    "bindfs": ["bindfs", "--version"],
    "libfuse": ["pkg-config", "--modversion", "fuse3"],
    "liburing": ["pkg-config", "--modversion", "liburing"],
    "gcc": ["gcc", "-dumpfullversion"],
    "git": ["git", "--version"],
}
MODULES = ("mfusepy", "pyfuse3", "trio")


def describe() -> dict[str, object]:
    cpus = os.sched_getaffinity(0)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": _first(r"model name\s*:\s*(.+)", "/proc/cpuinfo") or platform.machine(),
        "cpus": len(cpus),
        "memory_gib": round(int(_first(r"MemTotal:\s*(\d+)", "/proc/meminfo") or 0) / 2**20, 1),
        "virtual": "hypervisor" in (_first(r"flags\s*:\s*(.+)", "/proc/cpuinfo") or "").split(),
        "clocksource": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "none",
        "kernel": platform.release(),
        "os": _first(r'PRETTY_NAME="(.+)"', "/etc/os-release"),
        "python": _say([str(prepare.ROOT / ".venv" / "bin" / "python"), "--version"]) or sys.version.split()[0],
        "ringmount": _say(["git", "-C", str(prepare.ROOT), "describe", "--always", "--dirty"]),
        "versions": {**{tool: _say(command) for tool, command in TOOLS.items()}, **_modules()},
        "load_before": os.getloadavg()[0],
    }


def _modules() -> dict[str, str]:
    code = f"import importlib.metadata as m\nfor n in {MODULES!r}: print(n, m.version(n))"
    return dict(line.split() for line in _say([str(prepare.PYTHON), "-c", code], every_line=True).splitlines())


def _say(command: list[str], every_line: bool = False) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return ""
    if every_line:
        return done.stdout
    words = (done.stdout.strip().splitlines() or [""])[0].split()
    return words[-1].removeprefix("fio-") if words else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _first(pattern: str, path: str) -> str | None:
    found = re.search(pattern, _read(path))
    return found.group(1) if found else None
