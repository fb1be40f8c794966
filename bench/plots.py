"""The plots of docs/bench/, from results.json.

usage: plots.py FOLDER     (run by run.py with bench/.venv's Python, which has matplotlib)
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from rows import ROWS
from servers import SERVERS

COLORS = {  # by kind: ours orange, the limits grey and black, C blue, Python green
    "native": "#999999",
    "floor": "#333333",
    "ringmount": "#d55e00",
    "ringmount-fuse": "#e69f00",
    "ringmount-data": "#cc79a7",
    "ringmount-coherent": "#cc79a7",
    "passthrough_ll": "#0072b2",
    "bindfs": "#56b4e9",
    "mfusepy": "#00704f",
    "mfusepy-nothreads": "#009e73",
    "pyfuse3": "#8fd18f",
}
TITLES = {server.key: server.title for server in SERVERS}

FIGURES = (
    ("latency", "Median latency of one client, µs (less is better)", "p50_us", "fstat stat open create read4k", True),
    (
        "throughput",
        "Operations a second, one client per CPU (more is better)",
        "ops_per_s",
        "fstat-all stat-all open-all create-all read4k-all",
        True,
    ),
    (
        "cpu",
        "Server CPU, seconds per 100,000 operations (less is better)",
        "cpu_s_per_100k",
        "fstat stat open read4k",
        False,
    ),
    (
        "data",
        "Sequential data in pieces of 1 MiB, MiB/s (more is better)",
        "ops_per_s",
        "seqread seqwrite seqread-direct seqwrite-direct",
        False,
    ),
    (
        "programs",
        "Programs, seconds (less is better)",
        "seconds",
        "untar rm git-status cached-untar cached-rm cached-git-status",
        False,
    ),
)


def draw(results: dict[str, Any], metric: str, keys: list[str], title: str, logarithmic: bool, file: Path) -> None:
    rows = [key for key in keys if results["rows"].get(key)]
    servers = [
        server.key for server in SERVERS if any(metric in results["rows"][row].get(server.key, {}) for row in rows)
    ]
    if not rows or not servers:
        return
    figure, axes = plt.subplots(figsize=(11, 4.2), layout="constrained")
    width = 0.85 / len(servers)
    for at, server in enumerate(servers):
        values = [results["rows"][row].get(server, {}).get(metric, 0) for row in rows]
        places = [x + (at - (len(servers) - 1) / 2) * width for x in range(len(rows))]
        axes.bar(places, values, width * 0.92, color=COLORS[server], label=TITLES[server])
    axes.set_xticks(range(len(rows)), [_label(row) for row in rows])
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    if logarithmic:
        axes.set_yscale("log")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def _label(row: str) -> str:
    cached = "\n(cached)" if ROWS[row].cached else ""
    return row.removeprefix("cached-").removesuffix("-all") + cached


def main(folder: Path) -> None:
    mpl.rcParams["svg.hashsalt"] = "bench"  # the same numbers give the same file
    results = json.loads((folder / "results.json").read_text())
    for name, title, metric, keys, logarithmic in FIGURES:
        draw(results, metric, keys.split(), title, logarithmic, folder / f"{name}.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
