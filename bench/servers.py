"""The competitors: how each is started with the same settings, known to answer, and ended.

Same settings for all: the source beneath, allow_other, requests of up to 1 MiB, and one attribute and entry timeout
(0, or CACHED seconds), the page cache as each file is opened (no direct_io, no keep_cache, no writeback cache).
The kernel checks no permissions (default_permissions is off), so that a stat is LOOKUP and GETATTR and no more;
bindfs alone cannot be told so, and its stat pays for one GETATTR of the folder.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import counters
import prepare
import processes

PATIENCE = 30.0
"""Seconds that a server may take to come up or to end."""

CACHED = 3600
"""Timeout of attributes and entries in rows with caching, in seconds."""

PROBE = "file0"


class ServerError(Exception):
    """A server cannot be started or does not answer; the text says why."""


@dataclass(frozen=True)
class Setup:
    """What a server is started with. `timeout`: of attributes and entries, in seconds."""

    folder: Path
    source: Path
    timeout: int
    depth: int
    tools: prepare.Tools
    python: str
    permissions: bool = False

    @property
    def options(self) -> str:
        """Mount options of libfuse that all its users take."""
        return "allow_other" + (",default_permissions" if self.permissions else "")

    @property
    def path_options(self) -> str:
        """Those that its path-based interface takes besides."""
        return f"{self.options},attr_timeout={self.timeout},entry_timeout={self.timeout},negative_timeout=0"


@dataclass(frozen=True)
class Server:
    """A competitor. `command` tells how to start it; None is the source itself, served by nobody.

    `is_python`: a peer that the requirements call so. `has_tree`: it serves what is beneath, and not just constants.
    `only`: the rows that it is for, when it is a variant of another. `needs`: tools without which it is missing.
    """

    key: str
    title: str
    command: Callable[[Setup, Path], list[str]] | None = None
    needs: tuple[str, ...] = ()
    is_python: bool = False
    is_ours: bool = False
    has_tree: bool = True
    only: frozenset[str] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def is_mount(self) -> bool:
        return self.command is not None

    @property
    def is_peer(self) -> bool:
        return self.command is not None and not self.is_ours and self.has_tree

    def takes(self, row: str, needs_tree: bool) -> bool:
        return (self.has_tree or not needs_tree) and (self.only is None or row in self.only)


def ringmount(**settings: object) -> Callable[[Setup, Path], list[str]]:
    def command(setup: Setup, mountpoint: Path) -> list[str]:
        file = setup.folder / f"bench-{os.urandom(4).hex()}.yaml"
        config = {
            "mountpoint": str(mountpoint),
            "filesystem": "passthrough",
            "options": {"source": str(setup.source)},
            "queue_depth": setup.depth,
            "max_write": 1 << 20,
            "timeouts": {"attr": setup.timeout, "entry": setup.timeout, "negative": 0},
            "cache": "normal",
            "data": "userspace",
            "default_permissions": setup.permissions,
            "log_level": "warning",
            **settings,
        }
        file.write_text(json.dumps(config))  # JSON is YAML
        return [setup.python, "-P", "-m", "ringmount.daemon", "run", str(file)]

    return command


def passthrough_ll(setup: Setup, mountpoint: Path) -> list[str]:
    options = f"source={setup.source},timeout={setup.timeout},cache=auto,{setup.options}"
    return [str(setup.tools.passthrough_ll), "-f", "-o", options, str(mountpoint)]


def bindfs(setup: Setup, mountpoint: Path) -> list[str]:
    options = setup.path_options.removeprefix("allow_other,")
    return ["bindfs", "-f", "--multithreaded", "-o", options, str(setup.source), str(mountpoint)]


def mfusepy(*flags: str) -> Callable[[Setup, Path], list[str]]:
    def command(setup: Setup, mountpoint: Path) -> list[str]:
        program = str(prepare.BENCH / "peers" / "mfusepy_loopback.py")
        return [str(prepare.PYTHON), program, str(setup.source), str(mountpoint), *flags, "-o", setup.path_options]

    return command


def pyfuse3(setup: Setup, mountpoint: Path) -> list[str]:
    program = str(prepare.BENCH / "peers" / "pyfuse3_loopback.py")
    where = [str(setup.source), str(mountpoint)]
    return [str(prepare.PYTHON), program, *where, "-t", str(setup.timeout), "-o", setup.options]


def floor(setup: Setup, mountpoint: Path) -> list[str]:
    return [str(setup.tools.floor), "-d", str(setup.depth), "-c", str(setup.timeout), str(mountpoint)]


DATA_ROWS = frozenset(
    ("read4k", "read4k-all", "read4k-qd16", "seqread", "seqwrite", "seqread-direct", "seqwrite-direct")
)
COHERENT_ROWS = frozenset(("cached-fstat", "cached-stat", "cached-stat-all", "cached-scandir", "cached-git-status"))

SERVERS = (
    Server("native", "native"),
    Server("ringmount", "ringmount io_uring", ringmount(transport="io_uring"), is_ours=True),
    Server("ringmount-fuse", "ringmount dev_fuse", ringmount(transport="dev_fuse"), is_ours=True),
    Server(
        "ringmount-data",
        "ringmount io_uring, data: passthrough",
        ringmount(transport="io_uring", data="passthrough"),
        is_ours=True,
        only=DATA_ROWS,
    ),
    Server(
        "ringmount-coherent",
        "ringmount io_uring, cache: coherent",
        ringmount(transport="io_uring", cache="coherent"),
        is_ours=True,
        only=COHERENT_ROWS,
    ),
    Server("floor", "floor (C, ring, constants)", floor, needs=("floor",), has_tree=False),
    Server("passthrough_ll", "libfuse passthrough_ll (C)", passthrough_ll, needs=("passthrough_ll",)),
    Server("bindfs", "bindfs (C)", bindfs, needs=("bindfs",)),
    Server(
        "mfusepy",
        "mfusepy",
        mfusepy(),
        needs=("mfusepy",),
        is_python=True,
        environment=prepare.FUSE_ENVIRONMENT,
    ),
    Server(
        "mfusepy-nothreads",
        "mfusepy nothreads",
        mfusepy("-s"),
        needs=("mfusepy",),
        is_python=True,
        environment=prepare.FUSE_ENVIRONMENT,
    ),
    Server("pyfuse3", "pyfuse3", pyfuse3, needs=("pyfuse3",), is_python=True),
)


class Running:
    """A server that answers. `path` is where clients go: its mountpoint, or the source itself."""

    def __init__(self, server: Server, setup: Setup) -> None:
        self.server = server
        self.setup = setup
        self.path = setup.source
        self.process: subprocess.Popen[bytes] | None = None
        self.is_freed = False
        self.counters: dict[str, counters.Counter] = {}
        if server.command is None:
            return
        missing = [setup.tools.missing[tool] for tool in server.needs if tool in setup.tools.missing]
        if missing:
            raise ServerError(missing[0])
        self.path = setup.folder / "mounts" / server.key
        self.path.mkdir(parents=True, exist_ok=True)
        self.log = setup.folder / f"{server.key}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                server.command(setup, self.path),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
                env={**os.environ, **server.environment},
            )
        try:
            self._wait_until_mounted()
            self._probe()
        except BaseException:
            self.free()
            raise

    def pids(self) -> list[int]:
        return processes.processes_of(self.process.pid) if self.process else []

    def is_alive(self) -> bool:
        return self.process is None or (self.process.poll() is None and not self.is_freed)

    def stop(self) -> str | None:
        """Ends the server as its users do; returns what was wrong with its end, if anything."""
        if self.process is None or self.is_freed:
            return None
        self.process.send_signal(signal.SIGTERM)
        trouble = None
        try:
            self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            trouble = f"did not end within {PATIENCE:.0f} s of SIGTERM"
        if trouble is None and self.pids():
            trouble = "left processes behind"
        if trouble is None and is_mounted(self.path):
            trouble = "left its mount behind"
        self.free()
        return trouble

    def free(self) -> None:
        """Ends the server by force, which lets go whoever waits for it, and takes its mount away."""
        self.is_freed = True
        if self.process is not None:
            processes.kill_session(self.process.pid)
            self.process.wait(timeout=PATIENCE)
            if is_mounted(self.path):
                subprocess.run(["umount", "-l", str(self.path)], capture_output=True, timeout=PATIENCE, check=False)

    def _wait_until_mounted(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE
        while not is_mounted(self.path):
            if self.process.poll() is not None:
                raise ServerError(self._last_words(f"ended with exit code {self.process.returncode}"))
            if time.monotonic() > deadline:
                raise ServerError(self._last_words(f"did not mount within {PATIENCE:.0f} s"))
            time.sleep(0.02)

    def _probe(self) -> None:
        command = ["stat", "-c", "%F", str(self.path / PROBE)]
        try:
            found = processes.run_command(command, timeout=PATIENCE, free=self.free)
        except processes.CommandError as error:
            raise ServerError(self._last_words(f"is mounted and does not answer: {error}")) from None
        if found.strip() != "regular file":
            raise ServerError(f"answers wrongly: {PROBE} is a {found.strip()}")

    def _last_words(self, text: str) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        last = re.sub(r"^.*\.yaml:\d+:\d+: ", "", lines[-1]) if lines else ""
        return f"{text}: {last[:300]}" if lines else text


def is_mounted(path: Path) -> bool:
    """Looked up in mountinfo: the bench itself touches no mountpoint."""
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())
