"""The command `ringmount` on mounts that serve: what each of its commands prints and does."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mount.support import (
    TRANSPORTS,
    assert_nothing_left,
    is_mounted,
    on_cpu,
    processes_of,
    ringmount,
    serve,
    write_config,
)

COMMAND = (sys.executable, "-P", "-m", "ringmount.daemon")
CPUS = sorted(os.sched_getaffinity(0))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "hello.txt").write_text("hello\n")
    return folder


@contextlib.contextmanager
def started(file: Path, mountpoint: Path, **options: Any) -> "Iterator[subprocess.Popen[str]]":
    """`ringmount run` in a session of its own, of which nothing is left after the block."""
    process = subprocess.Popen(
        [*COMMAND, "run", str(file)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        text=True,
        start_new_session=True,
        cwd="/",
    )
    with process:
        try:
            yield process
        finally:
            clean_up(process.pid, mountpoint)


def clean_up(session: int, mountpoint: Path) -> None:
    """Ends what a failed test may have left."""
    for pid in processes_of(session):
        os.kill(pid, signal.SIGKILL)
    if is_mounted(mountpoint):
        subprocess.run(["umount", "-l", str(mountpoint)], timeout=30, check=True)


def wait_for_mount(process: "subprocess.Popen[str]", mountpoint: Path) -> None:
    """Until the server has mounted and answers questions."""
    deadline = time.monotonic() + 30
    while not (is_mounted(mountpoint) and ringmount("status", "own").returncode == 0):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- run ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_run_says_where_the_mount_is_what_serves_it_and_what_to_try(
    tmp_path: Path, source: Path, transport: str
) -> None:
    options = {"source": str(source)}
    with serve(tmp_path, filesystem="passthrough", options=options, transport=transport) as mount:
        first, *others = mount.output().splitlines()
        said = dict(re.findall(r"^  (\w+) +(.*)$", "\n".join(others), re.MULTILINE))
        assert first == f"ringmount: {mount.name}: passthrough is mounted on {mount.path}"
        assert said["transport"].startswith(f"{transport}, FUSE 7.")
        pids = mount.worker_pids()
        assert said["workers"] == "; ".join(
            f"worker {index} on CPU {cpu}, pid {pid}" for index, (cpu, pid) in enumerate(zip(CPUS, pids, strict=True))
        )
        assert said["try"] == f"ls -la {mount.path}"
        assert said["stop"].startswith("Ctrl-C, or: ")
        # What it says to try works as it is written.
        assert "hello.txt" in subprocess.check_output(said["try"], shell=True, text=True, timeout=30)
        stop = said["stop"].removeprefix("Ctrl-C, or: ")
        assert subprocess.run(stop, shell=True, timeout=60, cwd="/", check=True, capture_output=True).returncode == 0
        assert mount.process.wait(timeout=30) == 0
        assert mount.output().endswith(f"ringmount: {mount.name}: unmounted\n")


def test_ctrl_c_in_a_terminal_unmounts_and_leaves_nothing(tmp_path: Path, source: Path) -> None:
    """The terminal sends SIGINT to the whole foreground group, workers and all."""
    (tmp_path / "mnt").mkdir()
    options = {"source": str(source)}
    file = write_config(tmp_path, "own", mountpoint=str(tmp_path / "mnt"), filesystem="passthrough", options=options)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(COMMAND[0], [*COMMAND, "run", str(file)])
    try:
        said = read_until(terminal, "Ctrl-C")
        assert (tmp_path / "mnt/hello.txt").read_text() == "hello\n"
        os.write(terminal, b"\x03")
        said += read_until(terminal, "unmounted")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert "warning" not in said
        assert_nothing_left(pid, tmp_path / "mnt")
    finally:
        clean_up(pid, tmp_path / "mnt")
        os.close(terminal)


def read_until(terminal: int, word: str) -> str:
    said = b""
    while word.encode() not in said:
        said += os.read(terminal, 4096)
    return said.decode()


def test_sigterm_before_the_mount_is_made_ends_it_without_one(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\n"
        "from ringmount.workers.api import Filesystem\n"
        "class Slow(Filesystem):\n"
        "    def __init__(self, options, mount):\n"
        f"        pathlib.Path({str(tmp_path / 'begun')!r}).touch()\n"
        "        time.sleep(100)\n"
        "    def lookup(self, ctx, parent, name): ...\n"
        "    def getattr(self, ctx, node, fh): ...\n"
    )
    file = write_config(tmp_path, "own", mountpoint=str(tmp_path / "mnt"), filesystem="slow:Slow")
    with started(file, tmp_path / "mnt") as process:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
        process.terminate()  # its workers do not listen: do not wait for them
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0
        assert out == "ringmount: own: stopped before it was mounted\n", err
        assert_nothing_left(process.pid, tmp_path / "mnt")


def test_a_mount_goes_on_when_nobody_reads_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    file = write_config(tmp_path, "own", mountpoint=str(tmp_path / "mnt"), filesystem="memory")
    read_end, write_end = os.pipe()
    os.close(read_end)
    with started(file, tmp_path / "mnt", stdout=write_end) as process:
        os.close(write_end)
        wait_for_mount(process, tmp_path / "mnt")
        assert ringmount("umount", "own").returncode == 0
        assert process.wait(timeout=30) == 0


def test_a_mountpoint_may_be_given_by_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    file = write_config(tmp_path, "own", mountpoint=str(tmp_path / "link"), filesystem="memory")
    with started(file, tmp_path / "real") as process:
        wait_for_mount(process, tmp_path / "real")
        stopped = ringmount("umount", str(tmp_path / "link"))
        assert stopped.stdout == f"ringmount: own: unmounted from {tmp_path / 'real'}\n"
        assert process.wait(timeout=30) == 0


# --- check ----------------------------------------------------------------------------------------------------------


def test_check_prints_every_setting_and_what_it_comes_to_here(tmp_path: Path, source: Path) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(f"mountpoint: /mnt/data\nfilesystem: passthrough\noptions:\n  source: {source}\n")
    done = ringmount("check", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search("^queue_depth: 8 +# default$", done.stdout, re.MULTILINE)
    facts = dict(re.findall(r"^# (\w+) +(.*)$", done.stdout, re.MULTILINE))
    assert facts["valid"] == str(file)
    assert facts["workers"].startswith(f"{len(CPUS)}, pinned to CPU ")
    assert facts["handles"] == "shared"
    assert re.fullmatch("[0-9.]+ [MG]iB at most for the rings' buffers, of .* allowed", facts["memory"])
    # It is a mount's file itself, and says the same.
    again = tmp_path / "again" / "data.yaml"
    again.parent.mkdir()
    again.write_text(done.stdout)
    settings = [line.split(" #")[0].rstrip() for line in done.stdout.splitlines() if not line.startswith("#")]
    once_more = ringmount("check", str(again)).stdout
    assert [line.split(" #")[0].rstrip() for line in once_more.splitlines() if not line.startswith("#")] == settings


# --- status ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_status_shows_requests_answered_by_every_worker(tmp_path: Path, source: Path, transport: str) -> None:
    options = {"source": str(source)}
    timeouts = {"attr": 0, "entry": 0}
    with serve(tmp_path, filesystem="passthrough", options=options, transport=transport, timeouts=timeouts) as mount:
        for cpu in CPUS:
            on_cpu(cpu, "cat", str(mount.path / "hello.txt"))
        shown = ringmount("status", mount.name).stdout
        assert re.search(f"^mount +passthrough on {mount.path}$", shown, re.MULTILINE)
        assert re.search(rf"^server +pid {mount.process.pid}, user root, up \d+ s$", shown, re.MULTILINE)
        assert re.search(f"^transport +{transport}[, ]", shown, re.MULTILINE)
        rows = [line.split() for line in shown.split("\n\n")[1].splitlines()[1:]]
        assert [(row[0], row[1], row[3]) for row in rows] == [
            (str(index), str(cpu), "serving") for index, cpu in enumerate(CPUS)
        ]
        if transport == "io_uring":  # by /dev/fuse any worker may take a request
            assert all(int(row[4]) > 0 for row in rows)
        table = ringmount("status").stdout
        workers = f"{len(CPUS)}/{len(CPUS)}"
        assert re.search(
            rf"^{mount.name} +root +{mount.path} +passthrough +{transport} +{workers} +\d+ +\d+ s$", table, re.MULTILINE
        )


def test_status_for_programs_is_json(tmp_path: Path) -> None:
    with serve(tmp_path) as mount:
        one = json.loads(ringmount("status", mount.name, "--json").stdout)
        assert (one["name"], one["mountpoint"], one["user"]) == (mount.name, str(mount.path), "root")
        every = json.loads(ringmount("status", "--json").stdout)
        assert [each["pid"] for each in every if each["name"] == mount.name] == [mount.process.pid]


def test_output_that_nobody_reads_to_its_end_is_no_error() -> None:
    script = f"{COMMAND[0]} -P -m ringmount.daemon schema | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


# --- umount ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["name", "mountpoint"])
def test_umount_stops_the_server_and_waits_for_its_end(tmp_path: Path, by: str) -> None:
    with serve(tmp_path) as mount:
        done = ringmount("umount", mount.name if by == "name" else str(mount.path))
        assert (done.returncode, done.stdout) == (0, f"ringmount: {mount.name}: unmounted from {mount.path}\n")
        assert not is_mounted(mount.path)
        assert mount.process.wait(timeout=1) == 0


def test_umount_takes_a_mount_away_that_is_in_use(tmp_path: Path) -> None:
    with serve(tmp_path) as mount, (mount.path / "file").open("w") as file:
        assert ringmount("umount", mount.name).returncode == 0
        assert mount.process.wait(timeout=30) == 0
        with pytest.raises(OSError):
            os.write(file.fileno(), b"too late")


# --- completion -----------------------------------------------------------------------------------------------------


def completions(script: Path, *words: str) -> list[str]:
    """What bash would offer for the last of these words."""
    code = f"""
source {script}
COMP_WORDS=({" ".join(f"'{word}'" for word in words)}); COMP_CWORD={len(words) - 1}
_shtab_ringmount ringmount "${{COMP_WORDS[COMP_CWORD]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=30, check=True)
    return sorted(done.stdout.split())


def test_bash_completes_commands_files_and_names(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(ringmount("completion", "bash").stdout)
    assert completions(script, "ringmount", "u") == ["umount"]
    assert completions(script, "ringmount", "status", "--j") == ["--json"]
    with serve(tmp_path, name="completed") as mount:
        assert completions(script, "ringmount", "umount", "compl") == [mount.name]
        assert completions(script, "ringmount", "run", f"{tmp_path}/compl") == [f"{tmp_path}/completed.yaml"]
