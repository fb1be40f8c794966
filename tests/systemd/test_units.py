"""ringmount@.service under a real systemd."""

import os
import signal

from systemd.box import Box, wait_for


def test_a_mount_is_started_and_stopped_by_its_name(box: Box) -> None:
    mountpoint = box.configure("first")
    box.systemctl("start", "ringmount@first")
    assert box.is_mounted(mountpoint)
    assert os.listdir(box.path(mountpoint)) == []
    (box.path(mountpoint) / "file").write_text("content")
    assert (box.path(mountpoint) / "file").read_text() == "content"
    assert box.show("ringmount@first", "StatusText").startswith(f"serving {mountpoint} by ")
    box.systemctl("stop", "ringmount@first")
    assert not box.is_mounted(mountpoint)
    assert box.show("ringmount@first", "Result") == "success"
    assert box.processes("ringmount@first") == []


def test_a_supervisor_that_is_killed_leaves_its_mount_and_open_files_to_the_next(box: Box) -> None:
    box.do("mkdir", "-p", "/srv/killed")
    mountpoint = box.configure("killed", filesystem="passthrough", options={"source": "/srv/killed"})
    box.systemctl("start", "ringmount@killed")
    with open(box.path(mountpoint) / "file", "w+") as file:
        file.write("before")
        file.flush()
        old = box.main_pid("ringmount@killed")
        os.kill(old, signal.SIGKILL)
        file.write(" and after")
        file.seek(0)
        assert file.read() == "before and after"
    wait_for(lambda: box.main_pid("ringmount@killed") not in (0, old), "another supervisor", box=box)
    assert box.is_mounted(mountpoint)
    assert box.show("ringmount@killed", "NRestarts") == "1"
    box.systemctl("stop", "ringmount@killed")
