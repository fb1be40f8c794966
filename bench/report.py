"""A run's results as text, as results.json and as the Markdown page of docs/bench/."""

import json
from pathlib import Path
from typing import Any

from checks import PEERS
from rows import ROWS, Row
from servers import CACHED, SERVERS

PLOTS = (
    ("latency.svg", "Latency of one client"),
    ("throughput.svg", "Throughput of one client per CPU"),
    ("cpu.svg", "CPU time of the server"),
    ("data.svg", "Sequential data"),
    ("programs.svg", "Programs"),
)
TITLES = {server.key: server.title for server in SERVERS}


def write(results: dict[str, Any], folder: Path) -> None:
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "README.md").write_text("\n".join(page(results)) + "\n")


# -- numbers --------------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Three significant digits, and thousands with commas."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def shown(row: Row, value: float) -> str:
    if row.metric == "seconds":
        return f"{value * 1000:,.0f} ms"
    if row.metric == "ops_per_s":
        return f"{number(value)}/s"
    return f"{value / 1000:.1f} ms" if value >= 10_000 else f"{number(value)} µs"


def value_of(results: dict[str, Any], row: Row, server: str) -> float | None:
    found = results["rows"].get(row.key, {}).get(server)
    return found and found.get(row.metric)


def best_peer(results: dict[str, Any], row: Row) -> str | None:
    there = {key: value for key in PEERS if (value := value_of(results, row, key)) is not None}
    if not there:
        return None
    return (min if row.lower_is_better else max)(there, key=lambda key: there[key])


def ratio(results: dict[str, Any], row: Row, server: str, reference: str | None) -> str:
    """How many times as long `server` takes as `reference`: below 1 it is faster."""
    ours = value_of(results, row, server)
    other = value_of(results, row, reference) if reference else None
    return f"{row.ratio(ours, other):.2f}" if ours and other else "-"


def progress(row: Row, found: dict[str, Any]) -> str:
    cells = ", ".join(f"{key} {shown(row, one[row.metric])}" for key, one in found.items())
    rounds = max((one["rounds"] for one in found.values()), default=0)
    return f"bench: {row.key} ({rounds} rounds): {cells}"


# -- text -----------------------------------------------------------------------------------------------------------


def as_text(results: dict[str, Any]) -> str:
    missing = [f"missing: {TITLES[key]}: {reason}" for key, reason in results["missing"].items()]
    return "\n".join(["", *missing, *results["trouble"], "", "Requirements", "", *map(_check_line, results["checks"])])


def _check_line(check: dict[str, Any]) -> str:
    line = f"{_verdict(check):<14} {check['what']:<55} {_value(check):>8}  {_limits(check):<24} {check['note']}"
    return line.rstrip()


def _value(check: dict[str, Any]) -> str:
    return "missing" if check["value"] is None else f"{check['value']:.2f}"


def _verdict(check: dict[str, Any]) -> str:
    if check["value"] is None:
        return "FAIL (missing)" if check["must"] is not None else "(missing)"
    if check["must"] is None:
        return "aim reached" if check["reaches_aim"] else "aim missed"
    return "pass" if check["is_met"] else "FAIL"


def _limits(check: dict[str, Any]) -> str:
    sign = ">=" if check["at_least"] else "<="
    parts = [f"must {sign} {check['must']:g}"] if check["must"] is not None else []
    parts += [f"aim {sign} {check['aim']:g}"] if check["aim"] is not None else []
    return ", ".join(parts)


# -- the page -------------------------------------------------------------------------------------------------------


def page(results: dict[str, Any]) -> list[str]:
    return [
        "# The bench",
        "",
        "<!-- Written by bench/run.py; change it there. -->",
        "",
        *_introduction(results),
        *_machine(results),
        *_missing(results),
        *_requirements(results),
        *_summary(results),
        *_plots(),
        *_memory(results),
        *_details(results),
    ]


def _introduction(results: dict[str, Any]) -> list[str]:
    settings = results["settings"]
    checked = "on" if settings["default_permissions"] else "off"
    return [
        "`make bench` runs everything and writes this page, `results.json` and the plots; it needs root and about",
        "25 minutes. `make bench QUICK=1` takes 3 minutes and writes to `build/bench/`. While developing:",
        "`python bench/run.py --only ringmount,floor --rows fstat,stat` (see `--help`).",
        "",
        "All competitors serve the same tmpfs at the same time, from one mount each. A row is measured in rounds, all",
        "competitors in turn, each round starting with the next one; what is shown are medians over the rounds.",
        f"This run: up to {settings['rounds']} rounds of {settings['seconds']} s, {settings['minutes']} minutes in all"
        + (", **a quick run: not for quoting**." if settings["quick"] else "."),
        "",
        "- One client is pinned to the last CPU; *one client per CPU* pins one to each. Servers are not pinned by us.",
        f"- The same for all: attribute and entry timeouts (0, in the cached rows {CACHED} s), requests up to 1 MiB,",
        f"  page cache as each file is opened, default_permissions {checked} (bindfs always has it on, so its *stat*",
        f"  asks for the folder's attributes too). ringmount and floor have {settings['depth']} entries a queue.",
        "- *floor* is `bench/floor.c`: a C server on the ring that answers constants, the limit of this kernel path.",
        "- *mfusepy* and *pyfuse3* run the small loopbacks in `bench/peers/`; *passthrough_ll* is of libfuse.",
        "- Requests and the server's instructions per operation are counted by the kernel (perf events), in short runs",
        "  of their own that are not timed. Instructions hardly depend on what else the machine does.",
        "- CPU is the user and system time of all processes of the server, per 100,000 operations of the client.",
        "",
    ]


def _machine(results: dict[str, Any]) -> list[str]:
    found = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version)
    kind = "virtual machine, " if found["virtual"] else ""
    return [
        "## The machine",
        "",
        f"{found['date']}. {kind}{found['cpus']} CPUs {found['cpu']}, {found['memory_gib']} GiB;",
        f"Linux {found['kernel']},",
        f"{found['os']}; clock {found['clocksource']}, governor {found['governor']}; load {found['load_before']:.1f}",
        f"before and {found.get('load_after', 0):.1f} after.",
        "",
        f"ringmount {found['ringmount']} on Python {found['python']}; {versions}.",
        "",
    ]


def _missing(results: dict[str, Any]) -> list[str]:
    lines = [f"- **{TITLES[key]}** is missing: {reason}" for key, reason in results["missing"].items()]
    lines += [f"- {trouble}" for trouble in results["trouble"]]
    return ["## What is missing or went wrong", "", *lines, ""] if lines else []


def _requirements(results: dict[str, Any]) -> list[str]:
    lines = [
        "| " + " | ".join((_verdict(check), check["what"], _value(check), _limits(check), check["note"])) + " |"
        for check in results["checks"]
    ]
    return ["## Requirements", "", "| | ringmount io_uring | value | limit | |", "|--|--|--|--|--|", *lines, ""]


def _summary(results: dict[str, Any]) -> list[str]:
    lines = ["## Side by side", ""]
    there = [s.key for s in SERVERS if s.only is None and any(s.key in row for row in results["rows"].values())]
    for group, rows in _groups(results):
        unit = {"p50_us": "median latency", "ops_per_s": "operations a second", "seconds": "time"}
        metrics = {row.metric for row in rows}
        meaning = unit[metrics.pop()] if len(metrics) == 1 else "median latency, operations a second, or time"
        lines += [f"### {group}", "", f"{meaning.capitalize()}; in brackets how many times native's time.", ""]
        lines += ["| | " + " | ".join(TITLES[key] for key in there) + " |", "|--" * (len(there) + 1) + "|"]
        for row in rows:
            cells = []
            for key in there:
                value = value_of(results, row, key)
                beside = "" if key == "native" else f" ({ratio(results, row, key, 'native')})"
                cells.append("-" if value is None else f"{shown(row, value)}{beside}")
            lines.append(f"| {row.title} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += [
        "### ringmount io_uring in ratios",
        "",
        "How many times as long it takes: below 1 it is the faster one.",
        "",
    ]
    lines += ["| | of native | of floor | of the best peer | which is |", "|--|--|--|--|--|"]
    for row in (row for _, rows in _groups(results) for row in rows):
        peer = best_peer(results, row)
        cells = [ratio(results, row, "ringmount", reference) for reference in ("native", "floor", peer)]
        title = f"{row.key}: {row.title}"
        lines.append(f"| {title} | " + " | ".join(cells) + f" | {TITLES[peer] if peer else '-'} |")
    return [*lines, ""]


def _groups(results: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    groups: dict[str, list[Row]] = {}
    for key in results["rows"]:
        groups.setdefault(ROWS[key].group, []).append(ROWS[key])
    return list(groups.items())


def _plots() -> list[str]:
    return [line for file, title in PLOTS for line in (f"![{title}]({file})", "")]


def _memory(results: dict[str, Any]) -> list[str]:
    lines = ["## Memory", "", "PSS of the server's processes after the uncached rows, in MiB.", ""]
    lines += ["| | in all | of it memfd (ringmount's arena) | by process, without it |", "|--|--|--|--|"]
    for key, found in results["memory"].items():
        total, memfd = (sum(one[name] for one in found) for name in ("pss_mib", "memfd_mib"))
        each = ", ".join(f"{one['pss_mib'] - one['memfd_mib']:.1f}" for one in found)
        lines.append(f"| {TITLES[key]} | {total:.1f} | {memfd:.1f} | {each} |")
    return [*lines, ""]


def _details(results: dict[str, Any]) -> list[str]:
    lines = ["## Every number", ""]
    for _, rows in _groups(results):
        for row in rows:
            lines += [f"### {row.key}: {row.title}", ""]
            heads = ["p50 µs", "p99 µs", "ops/s", "s", "CPU s/100k", "spread", "of native", "of floor", "of best peer"]
            heads += ["instructions, user + kernel", "requests per operation"]
            lines += ["| | " + " | ".join(heads) + " |", "|--" * (len(heads) + 1) + "|"]
            peer = best_peer(results, row)
            for key, found in results["rows"][row.key].items():
                numbers = [
                    "-" if name not in found else number(found[name])
                    for name in ("p50_us", "p99_us", "ops_per_s", "seconds", "cpu_s_per_100k")
                ]
                ratios = [ratio(results, row, key, reference) for reference in ("native", "floor", peer)]
                cells = [*numbers, _spread(row, found), *ratios, _instructions(found), _requests(found)]
                lines.append(f"| {TITLES[key]} | " + " | ".join(cells) + " |")
            lines.append("")
    return lines


def _spread(row: Row, found: dict[str, Any]) -> str:
    """The range of the rounds around their median."""
    values = [sample[row.metric] for sample in found["samples"]]
    middle = found[row.metric]
    return f"{(min(values) / middle - 1) * 100:+.0f} {(max(values) / middle - 1) * 100:+.0f} %" if middle else "-"


def _requests(found: dict[str, Any]) -> str:
    """What the server was asked per operation of the client, most frequent first."""
    requests = sorted((found.get("requests") or {}).items(), key=lambda one: -one[1])
    return ", ".join(f"{name} {count:.4g}" for name, count in requests) or "-"


def _instructions(found: dict[str, Any]) -> str:
    """Thousands of instructions that the server's threads execute per operation."""
    counts = found.get("instructions")
    return f"{counts['user'] / 1000:.1f}k + {counts['kernel'] / 1000:.1f}k" if counts else "-"
