"""The box that the tests of this folder use: it leaves nothing, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from systemd.box import booted, lack_of_box, wait_for

from systemd import box as boxes

KILLED = """
import sys
from pathlib import Path
from systemd.box import booted
with booted(Path(sys.argv[1])) as box:
    print(box.cgroup, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def a_machine_for_boxes() -> None:
    if reason := lack_of_box():
        pytest.skip(reason)


def test_a_box_runs_systemd_and_leaves_nothing(tmp_path: Path) -> None:
    with booted(tmp_path) as box:
        cgroup = box.cgroup
        assert box.do("systemctl", "is-system-running") == "running\n"
        assert box.do("cat", "/proc/1/comm") == "systemd\n"
        box.path("/etc/made-in-the-box").write_text("seen")
        assert box.do("cat", "/etc/made-in-the-box") == "seen"
    assert not cgroup.exists()
    assert not Path("/etc/made-in-the-box").exists()
    assert [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(tmp_path) in line] == []


def test_a_box_dies_with_a_test_run_that_is_killed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    with process:
        assert process.stdout is not None
        cgroup = Path(process.stdout.readline().strip())
        assert (cgroup / "inside").is_dir()
        os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: "populated 0" in (cgroup / "cgroup.events").read_text(), "the box to die")
    root = boxes.cgroup_root()
    assert root is not None
    boxes.remove_leftovers(root)
    assert not cgroup.exists()
