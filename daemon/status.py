"""`ringmount status`: running mounts in a table, or one of them in detail."""

import json
import time
from typing import Any

from ringmount.config.units import format_size
from ringmount.daemon import control, mounting, places
from ringmount.daemon.exitcodes import ExitCode, Failure


def show(name: str | None, as_json: bool) -> None:
    """Prints one mount's status, or all mounts'. Raises Failure for a name that is not running."""
    if name is not None:
        found = [_ask(name)]
    else:
        found = [_ask_or_dead(each) for each in _names()]
    if as_json:
        print(json.dumps(found[0] if name is not None else found, indent=2))
    elif name is not None:
        print(details(found[0]))
    else:
        print(table(found) if found else "no mount is running")


def _names() -> list[str]:
    folder = places.runtime_folder()
    sockets = {path.stem for path in folder.glob("*.sock")} if folder.is_dir() else set()
    return sorted(sockets | {mount.name for mount in mounting.ringmount_mounts()})


def _ask(name: str) -> dict[str, Any]:
    try:
        return dict(control.ask(places.socket_path(name), "status"))
    except Failure as failure:
        dead = [mount for mount in mounting.ringmount_mounts() if mount.name == name]
        if failure.code is ExitCode.NO_SUCH_MOUNT and dead:
            raise Failure(
                f"{name} is mounted on {dead[0].mountpoint}, but no server of yours answers for it",
                f"ringmount umount {name} clears it away if the server is dead",
                code=ExitCode.NO_SUCH_MOUNT,
            ) from failure
        if failure.code is ExitCode.NO_SUCH_MOUNT:
            running = ", ".join(_names())
            raise Failure(
                f"no mount named {name} is running", f"running are: {running or 'none'}", code=failure.code
            ) from failure
        raise


def _ask_or_dead(name: str) -> dict[str, Any]:
    try:
        return _ask(name)
    except Failure as failure:
        mountpoint = next((m.mountpoint for m in mounting.ringmount_mounts() if m.name == name), "-")
        return {"name": name, "mountpoint": mountpoint, "error": str(failure)}


def table(found: list[dict[str, Any]]) -> str:
    """One line a mount."""
    rows = [("NAME", "MOUNTPOINT", "FILESYSTEM", "TRANSPORT", "WORKERS", "REQUESTS", "ERRORS")]
    for mount in found:
        if "error" in mount:
            rows.append((mount["name"], mount["mountpoint"], "no answer", "-", "-", "-", "-"))
            continue
        workers = mount["workers"]
        serving = sum(worker["state"] == "serving" for worker in workers)
        rows.append(
            (
                mount["name"],
                mount["mountpoint"],
                mount["filesystem"],
                mount["transport"] or "-",
                f"{serving}/{len(workers)}",
                str(sum(worker["requests"] for worker in workers)),
                str(sum(worker["errors"] for worker in workers)),
            )
        )
    return _align(rows)


def details(mount: dict[str, Any]) -> str:
    """Everything about one mount."""
    reason = f" ({mount['transport_reason']})" if mount["transport_reason"] else ""
    counts = mount["counts"]
    head = [
        ("mount", f"{mount['name']}: {mount['filesystem']} on {mount['mountpoint']}"),
        ("supervisor", f"pid {mount['pid']}, up {_duration(time.time() - mount['since'])}"),
        ("transport", f"{mount['transport']}{reason}, FUSE {mount['protocol']}, {mount['queues']} queues"),
        ("buffers", f"up to {format_size(mount['buffer_bytes'])}"),
        ("nodes", "kept by the filesystem" if mount["nodes"] is None else str(mount["nodes"])),
        ("forgets", f"{counts['forgets']}, interrupts {counts['interrupts']}, notifications {counts['notifications']}"),
    ]
    rows = [("WORKER", "CPU", "PID", "STATE", "REQUESTS", "ERRORS", "READ", "WRITTEN", "IN FLIGHT", "DEATHS", "RSS")]
    for worker in mount["workers"]:
        rows.append(
            (
                str(worker["index"]),
                "any" if worker["cpu"] is None else str(worker["cpu"]),
                str(worker["pid"] or "-"),
                worker["state"],
                str(worker["requests"]),
                str(worker["errors"]),
                _bytes(worker["bytes_read"]),
                _bytes(worker["bytes_written"]),
                str(worker["in_flight"]),
                str(worker["deaths"]),
                _rss(worker["pid"]),
            )
        )
    width = max(len(key) for key, _ in head)
    return "\n".join([*(f"{key:<{width}}  {value}" for key, value in head), "", _align(rows)])


def _align(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _bytes(size: int) -> str:
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):  # noqa: B007
        if value < 1024:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _rss(pid: int | None) -> str:
    import psutil

    try:
        return "-" if pid is None else _bytes(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return "-"
