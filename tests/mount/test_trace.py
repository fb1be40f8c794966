"""`ringmount trace`: what the workers answer, as they answer it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mount.clients import call, serve_class, status, wait_for
from mount.support import TRANSPORTS, ServedMount, ringmount, serve

both = pytest.mark.parametrize("transport", TRANSPORTS)


@contextlib.contextmanager
def trace(mount: ServedMount, out: Path, *options: str) -> "Iterator[subprocess.Popen[str]]":
    """`ringmount trace --json` that has begun to look on."""
    before = status(mount)["trace"]["readers"]
    with out.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ringmount.daemon", "trace", mount.name, "--json", *options],
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        wait_for(lambda: status(mount)["trace"]["readers"] > before, seconds=30)
        yield process
    finally:
        process.kill()
        process.wait(30)


def shown(out: Path) -> list[dict[str, Any]]:
    """The lines so far, without one that is under way."""
    return [json.loads(line) for line in out.read_text().splitlines(keepends=True) if line.endswith("\n")]


def passthrough(folder: Path, transport: str) -> Any:
    source = folder / "source"
    source.mkdir()
    (source / "file").write_bytes(b"x" * 10_000)
    options = {"source": str(source)}
    return serve(folder, filesystem="passthrough", options=options, transport=transport, data="userspace")


@both
def test_what_is_answered_in_c_is_shown_with_who_asked_and_what_came_of_it(tmp_path: Path, transport: str) -> None:
    out = tmp_path / "out"
    with passthrough(tmp_path, transport) as mount:
        with trace(mount, out):
            call("import os, sys; os.mkdir(sys.argv[1]); os.rename(sys.argv[1], sys.argv[2])",
                 mount.path / "old", mount.path / "new")  # fmt: skip
            call("import sys; assert len(open(sys.argv[1], 'rb').read()) == 10000", mount.path / "file")
            with pytest.raises(FileNotFoundError):
                os.stat(mount.path / "nothing")
            wait_for(lambda: [one for one in shown(out) if one["path"] == "/nothing"])
        found = shown(out)
        (made,) = [one for one in found if one["opcode"] == "MKDIR"]
        assert (made["path"], made["errno"], made["uid"]) == ("/old", None, 0)
        assert made["command"].startswith("python")
        (renamed,) = [one for one in found if one["opcode"].startswith("RENAME")]
        assert renamed["path"] == "/old -> new"
        assert renamed["pid"] == made["pid"]
        reads = [one for one in found if one["opcode"] == "READ" and one["path"] == "/file"]
        assert sum(one["size"] for one in reads) == 10_000
        assert reads[0]["offset"] == 0
        (nothing,) = [one for one in found if one["path"] == "/nothing"]
        assert (nothing["opcode"], nothing["errno"], nothing["pid"]) == ("LOOKUP", "ENOENT", os.getpid())
        assert all(one["seconds"] > 0 for one in found)
        wait_for(lambda: status(mount)["trace"] == {"readers": 0, "on": False})


@both
def test_what_is_answered_in_python_is_shown(tmp_path: Path, transport: str) -> None:
    out = tmp_path / "out"
    with serve_class(tmp_path, "Tree", transport=transport) as mount, trace(mount, out, "--opcode", "read,lookup"):
        assert (mount.path / "f3").read_bytes()[:8] == b"00000005"
        wait_for(lambda: [one for one in shown(out) if one["opcode"] == "READ"])
        assert {one["opcode"] for one in shown(out)} == {"LOOKUP", "READ"}
        assert "/f3" in [one["path"] for one in shown(out)]
        assert "#5" in [one["path"] for one in shown(out)]  # it does not say what its nodes are called


def test_only_what_is_wanted_is_shown(tmp_path: Path) -> None:
    with passthrough(tmp_path, "auto") as mount:
        outs = [tmp_path / f"out{i}" for i in range(4)]
        with (
            trace(mount, outs[0], "--errors"),
            trace(mount, outs[1], "--path", "/dir/*"),
            trace(mount, outs[2], "--pid", str(os.getpid()), "--opcode", "LOOKUP"),
            trace(mount, outs[3], "--slower-than", "1h"),
        ):
            (mount.path / "dir").mkdir()
            (mount.path / "dir" / "file").touch()
            call("import os, sys; assert not os.path.exists(sys.argv[1])", mount.path / "nothing")
            with pytest.raises(FileNotFoundError):
                os.stat(mount.path / "last")
            wait_for(lambda: [one for one in shown(outs[0]) if one["path"] == "/last"])
            wait_for(lambda: [one for one in shown(outs[2]) if one["path"] == "/last"])
            wait_for(lambda: [one for one in shown(outs[1]) if one["path"] == "/dir/file"])
        assert all(one["errno"] for one in shown(outs[0]))
        assert all(one["path"].startswith("/dir/") for one in shown(outs[1]))
        assert "/nothing" not in [one["path"] for one in shown(outs[2])]
        assert {one["opcode"] for one in shown(outs[2])} == {"LOOKUP"}
        assert shown(outs[3]) == []


def test_it_ends_after_so_many_and_recording_with_it(tmp_path: Path) -> None:
    with passthrough(tmp_path, "auto") as mount:
        with trace(mount, tmp_path / "out", "--count", "3") as tracer:
            wait_for(lambda: os.path.exists(mount.path / "a") or os.path.exists(mount.path / "b") or tracer.poll() == 0)
        assert len(shown(tmp_path / "out")) == 3
        wait_for(lambda: status(mount)["trace"] == {"readers": 0, "on": False})


def test_recording_ends_with_a_tracer_that_is_killed_and_with_the_supervisor_that_began_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    settings: dict[str, Any] = {"filesystem": "passthrough", "options": {"source": str(source)}}
    with serve(tmp_path, arguments=["--keep"], **settings) as mount:
        with trace(mount, tmp_path / "out") as tracer:
            tracer.kill()
            wait_for(lambda: status(mount)["trace"] == {"readers": 0, "on": False})
        with trace(mount, tmp_path / "out") as tracer:
            os.kill(mount.status()["pid"], signal.SIGKILL)
            assert tracer.wait(30) == 0
            assert "has ended or was replaced" in (tmp_path / "out").read_text()
            wait_for(lambda: os.path.isdir(mount.path), seconds=30)
            wait_for(lambda: mount.status()["adoptions"] == 1, seconds=30)
            assert status(mount)["trace"] == {"readers": 0, "on": False}


def test_what_cannot_be_traced_is_said() -> None:
    done = ringmount("trace", "nowhere", "--opcode", "LOOKUP,read", "--slower-than", "1.5ms")
    assert "no mount named nowhere is running" in done.stderr
