"""`ringmount drain`: nobody new gets in, who is there finishes, and then the mount ends."""

import subprocess
import sys
from pathlib import Path

import pytest
from mount.clients import client, status, wait_for
from mount.support import TRANSPORTS, ServedMount, is_mounted, ringmount, serve

both = pytest.mark.parametrize("transport", TRANSPORTS)

WRITER = """
import os, sys
with open(sys.argv[1], "w+b", buffering=0) as file:
    print("open", flush=True)
    sys.stdin.readline()
    file.write(b"written late")
    file.seek(0)
    print(file.read().decode(), flush=True)
    sys.stdin.readline()
"""


def begin(mount: ServedMount, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "ringmount.daemon", "drain", mount.name, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@both
def test_who_is_there_finishes_and_then_the_mount_ends(tmp_path: Path, transport: str) -> None:
    with serve(tmp_path, transport=transport) as mount, client(WRITER, mount.path / "file") as writer:
        assert writer.process.stdin is not None
        assert writer.process.stdout is not None
        assert writer.process.stderr is not None
        assert writer.process.stdout.readline() == "open\n"
        with begin(mount) as draining:
            assert draining.stderr is not None
            assert f"(pid {writer.pid}, 1 use)" in draining.stderr.readline()
            assert not is_mounted(mount.path)
            assert list(mount.path.iterdir()) == []
            assert status(mount)["draining"] is not None
            assert "draining" in ringmount("status", mount.name).stdout
            writer.process.stdin.write("\n")
            writer.process.stdin.flush()
            assert writer.process.stdout.readline() == "written late\n"
            writer.process.stdin.write("\n")
            writer.process.stdin.flush()
            out, _ = draining.communicate(timeout=60)
        assert draining.returncode == 0
        assert out == f"ringmount: {mount.name}: drained, and unmounted from {mount.path}\n"
        assert mount.process.wait(30) == 0


def test_after_the_time_it_says_who_is_left_and_goes_on_draining_or_ends_by_force(tmp_path: Path) -> None:
    with serve(tmp_path) as mount, client(WRITER, mount.path / "file") as writer:
        assert writer.process.stdout is not None
        assert writer.process.stdout.readline() == "open\n"
        done = ringmount("drain", mount.name, "--timeout", "10ms")
        assert done.returncode == 10
        assert f"is still in use: python3 (pid {writer.pid}" in done.stderr.replace(
            Path(sys.executable).name, "python3"
        )
        assert mount.process.poll() is None
        done = ringmount("drain", mount.name, "--timeout", "10ms", "--force")
        assert done.returncode == 0, done.stderr
        assert "ended while it was in use: " in done.stdout
        assert f"(pid {writer.pid}" in done.stdout
        assert mount.process.wait(30) == 0


def test_a_mount_that_nobody_uses_ends_at_once_and_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    with serve(tmp_path) as mount:
        done = ringmount("drain", str(mount.path))
        assert done.returncode == 0, done.stderr
        wait_for(lambda: mount.process.poll() == 0)
    assert ringmount("drain", "nowhere").returncode == 8
