"""Supervisors that die: another takes the mount over, and applications notice nothing but a pause."""

import contextlib
import os
import signal
import struct
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mount.clients import call, caller, client, cpus, said, serve_class, status, wait_for, worker_pids
from mount.filesystems import content
from mount.support import TRANSPORTS, ServedMount, is_mounted, processes_of, serve

from ringmount.workers import arena as arenas

CPUS = cpus()
READ = "import sys; sys.stdout.write(open(sys.argv[1]).read(8))"
PATIENCE = 30.0
both = pytest.mark.parametrize("transport", TRANSPORTS)
whom = pytest.mark.parametrize("victims", ["supervisor", "all"])


@contextlib.contextmanager
def keep_class(folder: Path, name: str, **settings: Any) -> Iterator[ServedMount]:
    with serve_class(folder, name, arguments=["--keep"], **settings) as mount:
        yield mount


def kill(mount: ServedMount, victims: str) -> dict[str, Any]:
    """Kills the supervisor, or with it all processes of the mount but the holder; returns its status before."""
    now = status(mount)
    others = [pid for pid in processes_of(mount.process.pid) if pid not in (mount.process.pid, now["pid"])]
    for pid in [now["pid"], *(others if victims == "all" else [])]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return now


def kill_and_wait(mount: ServedMount, victims: str) -> None:
    """The same, and waits until another tree serves."""
    wait_until_taken_over(mount, kill(mount, victims)["adoptions"] + 1)


def wait_until_dead(mount: ServedMount, before: dict[str, Any]) -> None:
    """Waits until the supervisor and the workers of that status have ended."""
    old = {before["pid"], *worker_pids_of(before)}
    wait_for(lambda: not old & set(processes_of(mount.process.pid)))


def wait_until_taken_over(mount: ServedMount, adoptions: int) -> None:
    def is_well() -> bool:
        try:
            now = status(mount)
        except Exception:  # nobody listens in between
            return False
        serving = all(worker["state"] == "serving" for worker in now["workers"])
        return bool(now["adoptions"] == adoptions and now["ready"] and serving)

    wait_for(is_well, "another supervisor", PATIENCE)


@both
@whom
def test_a_read_under_way_is_finished_by_the_next_tree(tmp_path: Path, transport: str, victims: str) -> None:
    with keep_class(tmp_path, "AsyncGate", transport=transport) as mount:
        with client(READ, mount.path / "f0", cpu=CPUS[0]) as reader:
            wait_for(lambda: said(tmp_path, "begin"))
            kill_and_wait(mount, victims)
            wait_for(lambda: len(said(tmp_path, "begin")) == 2)
            (tmp_path / "go").touch()
            assert reader.result() == content(2, 0, 8).decode()
        now = status(mount)
        assert sum(worker["retried"] for worker in now["workers"]) == 1
        assert sum(worker["lost"] for worker in now["workers"]) == 0


@both
@whom
def test_requests_that_waited_while_nobody_served_are_answered(tmp_path: Path, transport: str, victims: str) -> None:
    with keep_class(tmp_path, "Tree", transport=transport) as mount, contextlib.ExitStack() as readers:
        wait_until_dead(mount, kill(mount, victims))
        waiting = [readers.enter_context(client(READ, mount.path / f"f{i}", cpu=CPUS[i % len(CPUS)])) for i in range(6)]
        assert [reader.result(PATIENCE) for reader in waiting] == [content(i + 2, 0, 8).decode() for i in range(6)]


def worker_pids_of(now: dict[str, Any]) -> list[int]:
    return [worker["pid"] for worker in now["workers"]]


def test_the_settings_of_the_mount_stay_what_they_were(tmp_path: Path) -> None:
    with keep_class(tmp_path, "Tree") as mount:
        before = status(mount)
        file = tmp_path / f"{mount.name}.yaml"
        file.write_text(file.read_text() + "\nnonsense: true\n")
        kill_and_wait(mount, "supervisor")
        after = status(mount)
        same = ("mountpoint", "transport", "transport_reason", "protocol", "since", "queue_depth")
        assert {key: after[key] for key in same} == {key: before[key] for key in same}
        assert after["pid"] != before["pid"]
        assert not set(worker_pids_of(after)) & set(worker_pids_of(before))


def test_a_stopped_worker_of_the_old_tree_does_not_live_on(tmp_path: Path) -> None:
    with keep_class(tmp_path, "Tree") as mount:
        stopped = worker_pids(mount)[0]
        os.kill(stopped, signal.SIGSTOP)
        kill_and_wait(mount, "supervisor")
        assert stopped not in processes_of(mount.process.pid)
        assert call(READ, mount.path / "f0", cpu=CPUS[0]) == content(2, 0, 8).decode()


def test_a_mount_that_was_taken_away_meanwhile_is_not_made_again(tmp_path: Path) -> None:
    with keep_class(tmp_path, "Tree") as mount:
        os.kill(mount.process.pid, signal.SIGSTOP)
        kill(mount, "supervisor")
        subprocess.run(["umount", "-l", mount.path], check=True, timeout=20)
        os.kill(mount.process.pid, signal.SIGCONT)
        assert mount.process.wait(PATIENCE) == 0
        assert "unmounted while nobody served it" in mount.output()


def test_a_mount_that_cannot_be_served_again_is_given_up(tmp_path: Path) -> None:
    with keep_class(tmp_path, "Tree") as mount, caller(CPUS[0]) as user:
        user.ask(f"os.chdir('{mount.path}')")
        (tmp_path / "mountfs.py").write_text("raise ImportError('gone')")
        mount.exit_code = 1
        wait_until_dead(mount, kill(mount, "supervisor"))
        user.begin("os.stat('f0').st_size")
        with pytest.raises(OSError, match=r"connection abort|not connected"):
            user.finish(PATIENCE)
        assert mount.process.wait(PATIENCE) == 1
        assert "the mount is given up" in mount.output()
        assert not is_mounted(mount.path)


SPOILED: dict[str, tuple[int, bytes, str]] = {
    "version": (8, struct.pack("<I", arenas.VERSION + 1), f"the arena has layout {arenas.VERSION + 1}"),
    "sections": (12, struct.pack("<I", 3), "the arena has layout"),
    "place": (
        arenas.HEADER.size + arenas.SECTION.size,
        struct.pack("<Q", 1),
        "the arena is damaged: its section session",
    ),
    "settings": (arenas.PAGE + 8, b"?", "another version stored it"),
}
"""By what is spoiled: where, by what, and what is said of it."""


@pytest.mark.parametrize("what", SPOILED)
def test_an_arena_that_this_version_cannot_read_is_refused_and_the_mount_is_made_anew(
    tmp_path: Path, what: str
) -> None:
    where, by, why = SPOILED[what]
    with keep_class(tmp_path, "Tree") as mount, caller(CPUS[0]) as user:
        user.ask(f"os.open('{mount.path}/f0', os.O_RDONLY)")
        os.kill(mount.process.pid, signal.SIGSTOP)  # so that no other supervisor is started yet
        before = kill(mount, "supervisor")
        wait_until_dead(mount, before)
        folder = Path(f"/proc/{mount.process.pid}/fd")
        (memory,) = [fd for fd in folder.iterdir() if os.readlink(fd).startswith("/memfd:ringmount-")]
        with memory.open("r+b", buffering=0) as arena:
            os.pwrite(arena.fileno(), by, where)
        os.kill(mount.process.pid, signal.SIGCONT)
        wait_for(lambda: f"cannot be taken over ({why}" in mount.output(), why, PATIENCE)
        wait_for(lambda: mount.output().count(" is mounted on ") == 2, "the new mount", PATIENCE)
        with pytest.raises(OSError, match=r"connection abort|not connected"):
            user.ask("os.pread(3, 8, 0).decode()")
        assert user.ask(f"Path('{mount.path}/f0').read_text()[:8]") == content(2, 0, 8).decode()


def test_stopping_while_nobody_serves_unmounts(tmp_path: Path) -> None:
    with keep_class(tmp_path, "Tree") as mount:
        kill(mount, "supervisor")
        mount.process.send_signal(signal.SIGTERM)
        mount.exit_code = mount.process.wait(PATIENCE)
        assert not is_mounted(mount.path)


def test_the_holder_stays_small(tmp_path: Path) -> None:
    with keep_class(tmp_path, "Tree") as mount:
        lines = Path(f"/proc/{mount.process.pid}/smaps_rollup").read_text().splitlines()
        (pss,) = [int(line.split()[1]) for line in lines if line.startswith("Pss:")]
        assert pss < 8 << 10


OPEN_FILES = """
import errno, fcntl, os, sys
root = sys.argv[1]
os.chdir(f"{root}/folder")
written = os.open("written", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.write(written, b"before ")
appended = os.open("appended", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0)
os.write(appended, b"before ")
read = open("read", "rb", buffering=0)
assert read.read(7) == b"before "
fcntl.lockf(written, fcntl.LOCK_EX)
fcntl.flock(read, fcntl.LOCK_EX)
listing = os.scandir(f"{root}/many")
names = {next(listing).name}
print("ready", flush=True)
sys.stdin.readline()
os.write(written, b"after")
os.write(appended, b"after")
assert os.pread(written, 100, 0) == b"before after", os.pread(written, 100, 0)
assert read.read() == b"after"
assert open("appended").read() == "before after"
assert os.listdir(".") and os.getcwd() == f"{root}/folder"
names |= {entry.name for entry in listing}
assert len(names) == 2000, len(names)
os.ftruncate(written, 3)
assert os.fstat(written).st_size == 3
print("done", flush=True)
sys.stdin.readline()
"""
LOCK = """
import fcntl, sys
for lock in (fcntl.lockf, fcntl.flock):
    name = "written" if lock is fcntl.lockf else "read"
    try:
        lock(open(f"{sys.argv[1]}/folder/{name}", "r+b"), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        continue
    sys.exit("not locked any more")
"""


NAMELESS = """
import os, sys
root = sys.argv[1]
def opened(name, flags=os.O_CREAT | os.O_EXCL):
    return os.open(f"{root}/{name}", os.O_RDWR | flags, 0o600)
removed, replaced, appended = opened("removed"), opened("replaced"), opened("appended", os.O_CREAT | os.O_APPEND)
readers = [os.open(f"{root}/{name}", os.O_RDONLY) for name in ("removed", "replaced", "appended")]
files = [removed, replaced, appended, opened(".", os.O_TMPFILE)]
for file in files:
    os.write(file, b"before ")
for name in ("removed", "appended"):
    os.unlink(f"{root}/{name}")
open(f"{root}/new", "w").close()
os.rename(f"{root}/new", f"{root}/replaced")
readers.append(os.open(f"/proc/self/fd/{files[3]}", os.O_RDONLY))
for moment in ("ready", "again", "done"):
    print(moment, flush=True)
    sys.stdin.readline()
    if moment != "done":
        for file, reader in zip(files, readers):
            os.write(file, b"after ")
            assert os.fstat(file).st_nlink == 0
            found = os.pread(reader, 100, 0)
            assert found == b"before after " + b"after " * (moment == "again"), (file, found)
for file in files + readers:
    os.close(file)
print("closed", flush=True)
sys.stdin.readline()
"""


def kept(mount: ServedMount) -> list[str]:
    """The open files without a name that the holder keeps."""
    folder = Path(f"/proc/{mount.process.pid}/fd")
    paths = []
    for fd in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # it is closed at this moment
            paths.append(os.readlink(folder / fd))
    return [path for path in paths if path.endswith("(deleted)") and not path.startswith("/memfd:")]


@pytest.mark.parametrize(
    ("transport", "fast"),
    [pytest.param("io_uring", True, marks=pytest.mark.ring), ("dev_fuse", True), ("dev_fuse", False)],
)
def test_open_files_without_a_name_outlive_all_processes(tmp_path: Path, transport: str, fast: bool) -> None:
    (tmp_path / "source").mkdir()
    options = {"source": str(tmp_path / "source"), "fast": fast}
    with (
        serve(tmp_path, filesystem="passthrough", options=options, arguments=["--keep"], transport=transport) as mount,
        client(NAMELESS, mount.path) as user,
    ):
        pipes = user.process
        assert pipes.stdin is not None
        assert pipes.stdout is not None

        def go_on(moment: str) -> None:
            assert pipes.stdin is not None
            assert pipes.stdout is not None
            pipes.stdin.write("\n")
            pipes.stdin.flush()
            assert pipes.stdout.readline() == f"{moment}\n"

        assert pipes.stdout.readline() == "ready\n"
        wait_for(lambda: len(kept(mount)) == 8)  # it may not yet have taken what it was sent
        for moment in ("again", "done"):
            kill_and_wait(mount, "all")
            go_on(moment)
        go_on("closed")
        wait_for(lambda: not kept(mount))
        pipes.stdin.write("\n")
        assert user.result() == ""
        wait_for(lambda: status(mount)["nodes"] <= 2, "the kernel's references to be given back")


LOCKED = """
import fcntl, os, sys
root = sys.argv[1]
ranges, whole, removed = (open(f"{root}/{name}", "r+b") for name in ("ranges", "whole", "removed"))
fcntl.lockf(ranges, fcntl.LOCK_EX, 10, 5)
fcntl.lockf(ranges, fcntl.LOCK_SH, 10, 30)
fcntl.flock(whole, fcntl.LOCK_EX)
fcntl.flock(removed, fcntl.LOCK_SH)
os.unlink(f"{root}/removed")
print("ready", flush=True)
sys.stdin.readline()
fcntl.lockf(ranges, fcntl.LOCK_UN, 10, 5)
print("partly", flush=True)
sys.stdin.readline()
ranges.close()
whole.close()
print("none", flush=True)
sys.stdin.readline()
"""


def locks_of(source: Path, *names: str) -> list[str]:
    """The locks on these files beneath, and on what ranges, whoever holds them (proc_locks(5))."""
    by_inode = {f"{os.stat(source / name).st_ino}": name for name in names}
    found = []
    for line in Path("/proc/locks").read_text().splitlines():
        kind, mode, inode, start, end = (line.replace("-> ", "").split()[at] for at in (1, 3, 5, 6, 7))
        if (name := by_inode.get(inode.rpartition(":")[2])) is not None:
            found.append(f"{name} {kind} {mode} {start} {end}")
    return sorted(found)


def has_locks(source: Path, wanted: list[str]) -> bool:
    return locks_of(source, "ranges", "whole") == wanted


@both
def test_locks_of_the_files_beneath_outlive_all_processes(tmp_path: Path, transport: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("ranges", "whole", "removed"):
        (source / name).touch()
    options = {"source": str(source), "locks": "backing"}
    settings: dict[str, Any] = {"arguments": ["--keep"], "transport": transport}
    with (
        serve(tmp_path, filesystem="passthrough", options=options, **settings) as mount,
        client(LOCKED, mount.path) as user,
    ):
        pipes = user.process
        assert pipes.stdin is not None
        assert pipes.stdout is not None
        all_locks = ["ranges OFDLCK READ 30 39", "ranges OFDLCK WRITE 5 14", "whole FLOCK WRITE 0 EOF"]
        assert pipes.stdout.readline() == "ready\n"
        assert locks_of(source, "ranges", "whole") == all_locks
        os.kill(mount.process.pid, signal.SIGSTOP)  # so that nobody serves for a while
        before = kill(mount, "all")
        wait_until_dead(mount, before)
        assert locks_of(source, "ranges", "whole") == all_locks
        os.kill(mount.process.pid, signal.SIGCONT)
        wait_until_taken_over(mount, before["adoptions"] + 1)
        assert locks_of(source, "ranges", "whole") == all_locks
        for said, left in (("partly", [all_locks[0], all_locks[2]]), ("none", [])):
            pipes.stdin.write("\n")
            pipes.stdin.flush()
            assert pipes.stdout.readline() == f"{said}\n"
            wait_for(partial(has_locks, source, left))  # close(2) tells FUSE afterwards
        pipes.stdin.write("\n")
        assert user.result() == ""


@pytest.mark.parametrize(
    ("transport", "victims", "fast"),
    [
        pytest.param("io_uring", "supervisor", True, marks=pytest.mark.ring),
        pytest.param("io_uring", "all", False, marks=pytest.mark.ring),
        ("dev_fuse", "all", True),
    ],
)
def test_files_stay_open_and_locked(tmp_path: Path, transport: str, victims: str, fast: bool) -> None:
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    (source / "folder/read").write_text("before after")
    (source / "many").mkdir()
    for i in range(2000):
        (source / f"many/{i}").touch()
    options = {"source": str(source), "fast": fast}
    settings: dict[str, Any] = {"timeouts": {"attr": 0, "entry": 0}, "cache": "none", "transport": transport}
    with (
        serve(tmp_path, filesystem="passthrough", options=options, arguments=["--keep"], **settings) as mount,
        client(OPEN_FILES, mount.path) as user,
    ):
        pipes = user.process
        assert pipes.stdin is not None
        assert pipes.stdout is not None
        assert pipes.stdout.readline() == "ready\n"
        kill_and_wait(mount, victims)
        pipes.stdin.write("\n")
        pipes.stdin.flush()
        assert pipes.stdout.readline() == "done\n"
        call(LOCK, mount.path)
        pipes.stdin.write("\n")
        assert user.result() == ""
