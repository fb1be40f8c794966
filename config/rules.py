"""What the types of the model cannot say: places that are not mounted over, keys that contradict each other.

The rule: only what contradicts itself, or is wrong on every machine, is refused here. Whether the CPUs, the
folder or the user exist, and what the filesystem can do, is found out where the mount is made.
"""

import difflib
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from ringmount.config.errors import quoted
from ringmount.config.model import BUILT_IN, FILESYSTEM_PATTERN, NOT_YET, PAGE, MountConfig
from ringmount.config.units import format_size

KERNEL_TREES = ("/proc", "/sys", "/dev")
"""Nothing in these is mounted over: what is there belongs to the kernel."""

# fmt: off
SYSTEM_FOLDERS = frozenset((
    "/", "/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/root", "/run", "/run/ringmount",
    "/run/systemd", "/sbin", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/libexec",
    "/usr/local", "/usr/sbin", "/usr/share", "/var", "/var/lib", "/var/log", "/var/run", "/var/tmp",
))
# fmt: on
"""Folders without which the machine, or ringmount itself, does not work. Folders below them are fine."""


def parse_mountpoint(text: str) -> str:
    """`text` without superfluous slashes, if it is a path that may be mounted over; ValueError otherwise."""
    if text.startswith("~"):
        raise ValueError(f"{quoted(text)} is not an absolute path: ~ is not expanded, write the home folder out")
    if not text.startswith("/"):
        raise ValueError(f"{quoted(text)} is not an absolute path: it must start with /")
    if len(text.encode()) >= PAGE:
        raise ValueError(f"The path is too long: Linux takes at most {PAGE - 1} bytes")
    if re.search("[\0-\x1f\x7f]", text):
        raise ValueError(f"{quoted(text)} holds a control character: write the path without it")
    if ".." in text.split("/"):
        raise ValueError(f"{quoted(text)} holds '..': write the path without it")
    path = "/" + posixpath.normpath(text).lstrip("/")
    if path in SYSTEM_FOLDERS or any(path == tree or path.startswith(tree + "/") for tree in KERNEL_TREES):
        raise ValueError(f"{quoted(path)} is needed by the system: mount on a folder of its own, such as /mnt/data")
    return path


def parse_filesystem(text: str) -> str:
    """`text` if it is a built-in name or has the form of a class's place; ValueError otherwise."""
    if re.search(FILESYSTEM_PATTERN, text):
        return text
    near = difflib.get_close_matches(text.lower(), BUILT_IN, n=1)
    if near:
        raise ValueError(f"{quoted(text)} is not a filesystem: did you mean {near[0]}?")
    raise ValueError(f"{quoted(text)} is not a filesystem: give {' or '.join(BUILT_IN)}, or package.module:Class")


def parse_metrics(text: str) -> str:
    """`text` if it is a Unix socket's absolute path, or a port of the loopback address; ValueError otherwise."""
    if text.startswith("/"):
        path = parse_mountpoint(text)
        if text.endswith("/"):
            raise ValueError(f"{quoted(text)} is a folder: name a socket in it, such as {path}/metrics.sock")
        return path
    host, _, port = text.rpartition(":")
    if host not in ("127.0.0.1", "[::1]"):
        raise ValueError(f"{quoted(text)} is not of this machine alone: give 127.0.0.1:PORT, [::1]:PORT or a path")
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{quoted(port)} is not a port: give a number from 1 to 65535")
    return f"{host}:{int(port)}"


Mistake = tuple[str, str, str]
"""Key path, message, hint."""


def _no_cpu_twice(values: dict[str, Any]) -> Iterator[Mistake]:
    cpus = Counter(values.get("cpus") or ())
    for cpu, times in cpus.most_common(1):
        if times > 1:
            yield "cpus", f"CPU {cpu} is named {times} times", "a CPU has one worker; name it once"


def _a_cpu_for_each_worker(values: dict[str, Any]) -> Iterator[Mistake]:
    cpus, workers = values.get("cpus"), values.get("workers")
    if cpus and isinstance(workers, int) and workers > len(cpus):
        hint = f"name more CPUs, or lower workers to {len(cpus)}"
        yield "workers", f"{workers} workers for {len(cpus)} CPUs: each worker has a CPU of its own", hint


def _memory_for_one_queue(values: dict[str, Any]) -> Iterator[Mistake]:
    """Each possible CPU has a queue: a cap below what one queue's buffers take contradicts the other keys."""
    cap = values.get("ring_memory")
    need = _get(values, "queue_depth") * _get(values, "max_write")
    if cap and cap < need and _get(values, "transport") != "dev_fuse":
        message = f"{format_size(cap)} is less than the {format_size(need)} of one queue"
        yield "ring_memory", message, "raise it, or lower queue_depth or max_write"


def _metrics_outside(values: dict[str, Any]) -> Iterator[Mistake]:
    """Whoever binds a socket in the mount waits for the mount."""
    path, mountpoint = values.get("metrics"), values.get("mountpoint")
    if path and mountpoint and f"{path}/".startswith(f"{mountpoint}/"):
        hint = "name a place outside, such as /run/ringmount/NAME.metrics"
        yield "metrics", f"{quoted(path)} is inside of the mount", hint


def _what_writeback_excludes(values: dict[str, Any]) -> Iterator[Mistake]:
    if not values.get("writeback"):
        return
    for key, wrong, reason in (
        ("cache", ("none", "coherent"), "what the kernel gathers lies in its cache, which then goes by nobody else"),
        ("data", ("passthrough",), "the kernel does one or the other (process_init_reply)"),
        ("default_permissions", (False,), "the kernel sets times for whoever has written, who may not own the file"),
    ):
        value = _get(values, key)
        if value in wrong:
            yield "writeback", f"writeback does not go with {key}: {format_value(value)}: {reason}", f"leave {key} out"


def _what_keeping_excludes(values: dict[str, Any]) -> Iterator[Mistake]:
    if values.get("keep_cache") and _get(values, "cache") == "none":
        yield "keep_cache", "cache: none keeps nothing", "leave one of the two out"


def format_value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _only_what_is_implemented(values: dict[str, Any]) -> Iterator[Mistake]:
    for key, missing in NOT_YET.items():
        if values.get(key) in missing:
            hint = f"remove the key to use {_get({}, key)}"
            yield key, f"{values[key]} is not supported by this version of ringmount", hint


RULES: tuple[Callable[[dict[str, Any]], Iterator[Mistake]], ...] = (
    _no_cpu_twice,
    _a_cpu_for_each_worker,
    _memory_for_one_queue,
    _metrics_outside,
    _what_writeback_excludes,
    _what_keeping_excludes,
    _only_what_is_implemented,
)
"""Checks on the values of the keys that are valid on their own; the others are left out of the values."""


def _get(values: dict[str, Any], key: str) -> Any:
    """The value of `key`, or its default."""
    return values.get(key, _DEFAULTS[key])


_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(MountConfig)}
