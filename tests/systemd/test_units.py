"""The units under a real systemd: start, stop, reload, and what happens when something dies."""

import os
import signal
from pathlib import Path

import pytest
from systemd.box import COMMAND, Box, wait_for
from systemd.storm import Storm, storm

SLOW = """
import os, time
from ringmount.workers.filesystems.passthrough import Passthrough

class Slow(Passthrough):
    def __init__(self, options, mount):
        while not os.path.exists(options.source + "/go"):
            time.sleep(0.01)
        super().__init__(options, mount)
"""


def passthrough(box: Box, name: str, **settings: object) -> str:
    """Configures a mount of a folder in memory; returns its mountpoint."""
    box.do("mkdir", "-p", f"/tmp/{name}")  # not on the overlay, which has no file handles
    return box.configure(name, **{"filesystem": "passthrough", "options": {"source": f"/tmp/{name}"}, **settings})


def restarted(box: Box, unit: str, old: int) -> None:
    """Waits until the unit serves with another main process."""
    wait_for(lambda: box.main_pid(unit) not in (0, old), "another supervisor", box=box)
    wait_for(lambda: box.show(unit, "ActiveState") == "active", "the unit to be active", box=box)


def test_a_mount_is_started_and_stopped_by_its_name(box: Box) -> None:
    mountpoint = box.configure("first")
    box.systemctl("start", "ringmount@first")
    assert box.is_mounted(mountpoint)
    (box.path(mountpoint) / "file").write_text("content")
    assert (box.path(mountpoint) / "file").read_text() == "content"
    assert box.show("ringmount@first", "StatusText").startswith(f"serving {mountpoint} by ")
    box.systemctl("stop", "ringmount@first")
    assert not box.is_mounted(mountpoint)
    assert box.show("ringmount@first", "Result") == "success"
    assert box.processes("ringmount@first") == []


def test_a_mount_is_ready_when_it_answers_and_not_before(box: Box) -> None:
    mountpoint = passthrough(box, "slow", filesystem="slow:Slow")
    box.path("/etc/ringmount/slow.py").write_text(SLOW)
    starting = box.start("systemctl", "start", "ringmount@slow")
    wait_for(lambda: len(box.processes("ringmount@slow")) > 1, "a process that makes the filesystem", box=box)
    assert box.show("ringmount@slow", "ActiveState") == "activating"
    assert starting.poll() is None
    box.path("/tmp/slow/go").touch()
    assert starting.wait(60) == 0
    assert box.do("ls", mountpoint) == "go\n"
    box.systemctl("stop", "ringmount@slow")


def test_a_supervisor_that_is_killed_leaves_open_files_and_calls_to_the_next(box: Box) -> None:
    mountpoint = passthrough(box, "killed")
    box.systemctl("start", "ringmount@killed")
    with (box.path(mountpoint) / "file").open("w+") as file, storm(box.path(mountpoint)) as calls:
        file.write("before")
        file.flush()
        old = box.main_pid("ringmount@killed")
        os.kill(old, signal.SIGKILL)
        restarted(box, "ringmount@killed", old)
        calls.goes_on()
        file.write(" and after")
        file.flush()
        file.seek(0)
        assert file.read() == "before and after"
    assert box.show("ringmount@killed", "NRestarts") == "1"
    box.systemctl("stop", "ringmount@killed")


@pytest.mark.parametrize("transport", ["io_uring", "dev_fuse"])
def test_all_processes_that_are_killed_at_once_leave_open_files_to_the_next(box: Box, transport: str) -> None:
    """One of the files has no name any more, so that only the service manager can have it (`data: userspace`)."""
    unit = f"ringmount@all-{transport}"
    mountpoint = passthrough(box, f"all-{transport}", transport=transport, data="userspace")
    box.systemctl("start", unit)
    stored = box.show(unit, "NFileDescriptorStore")
    kept, nameless = box.path(mountpoint) / "kept", box.path(mountpoint) / "nameless"
    with kept.open("w+") as first, nameless.open("w+") as second:
        for file in (first, second):
            file.write("before")
            file.flush()
        nameless.unlink()
        old = box.main_pid(unit)
        box.systemctl("kill", "--kill-whom=all", "--signal=KILL", unit)
        restarted(box, unit, old)
        for file in (first, second):
            file.write(" and after")
            file.flush()
            file.seek(0)
            assert file.read() == "before and after"
    assert [path.name for path in box.path(mountpoint).iterdir()] == ["kept"]
    wait_for(lambda: box.show(unit, "NFileDescriptorStore") == stored, "the nameless file to be given up", box=box)
    box.systemctl("stop", unit)


def test_a_supervisor_that_takes_no_turn_is_replaced_by_the_watchdog(box: Box) -> None:
    mountpoint = passthrough(box, "watched")
    box.drop_in("ringmount@watched.service", "Service", WatchdogSec="3", TimeoutAbortSec="3")
    box.systemctl("daemon-reload")
    box.systemctl("start", "ringmount@watched")
    with (box.path(mountpoint) / "file").open("w+") as file:
        old = box.main_pid("ringmount@watched")
        os.kill(old, signal.SIGSTOP)
        restarted(box, "ringmount@watched", old)
        file.write("it goes on")
    assert box.path("/tmp/watched/file").read_text() == "it goes on"
    assert "Watchdog timeout" in box.journal("ringmount@watched", lines=2000)
    box.systemctl("stop", "ringmount@watched")


def test_a_reload_under_load_fails_no_call(box: Box) -> None:
    mountpoint = passthrough(box, "reloaded", log_level="warning")
    box.systemctl("start", "ringmount@reloaded")
    old = box.main_pid("ringmount@reloaded")
    with storm(box.path(mountpoint)):
        passthrough(box, "reloaded", log_level="info")
        box.systemctl("reload", "ringmount@reloaded")
    assert box.main_pid("ringmount@reloaded") == old
    assert box.show("ringmount@reloaded", "ActiveState") == "active"
    assert "log_level: info" in box.ringmount("check", "reloaded").stdout
    box.systemctl("stop", "ringmount@reloaded")


def test_a_reload_that_cannot_be_says_why_and_changes_nothing(box: Box) -> None:
    mountpoint = passthrough(box, "kept")
    box.systemctl("start", "ringmount@kept")
    passthrough(box, "kept", read_only=True)
    done = box.run("systemctl", "reload", "ringmount@kept")
    assert done.returncode != 0
    assert "read_only cannot change while the mount is there" in box.journal("ringmount@kept", lines=2000)
    assert "read_only" in box.show("ringmount@kept", "StatusText")
    (box.path(mountpoint) / "file").write_text("it goes on")
    assert box.show("ringmount@kept", "ActiveState") == "active"
    box.systemctl("restart", "ringmount@kept")
    with pytest.raises(OSError):
        (box.path(mountpoint) / "other").write_text("")
    box.systemctl("stop", "ringmount@kept")


def test_a_stop_during_calls_ends_in_order(box: Box) -> None:
    mountpoint = passthrough(box, "stopped")
    box.systemctl("start", "ringmount@stopped")
    calls = Storm(box.path(mountpoint))
    calls.start()
    calls.goes_on()
    box.systemctl("stop", "ringmount@stopped")
    calls.ends()
    assert all(isinstance(error, OSError) for error in calls.failures)
    assert box.show("ringmount@stopped", "Result") == "success"
    assert box.processes("ringmount@stopped") == []
    assert not box.is_mounted(mountpoint)


def test_a_mount_that_is_in_use_can_be_stopped_and_started(box: Box) -> None:
    mountpoint = passthrough(box, "busy", data="userspace")
    box.systemctl("start", "ringmount@busy")
    fd = os.open(box.path(mountpoint) / "file", os.O_RDWR | os.O_CREAT)
    try:
        os.write(fd, b"written")
        box.systemctl("stop", "ringmount@busy")
        assert not box.is_mounted(mountpoint)
        assert box.show("ringmount@busy", "Result") == "success"
        with pytest.raises(OSError):
            os.fsync(fd)
        box.systemctl("start", "ringmount@busy")
        assert box.do("cat", f"{mountpoint}/file") == "written"
    finally:
        os.close(fd)
    box.systemctl("stop", "ringmount@busy")


def test_a_mount_that_cannot_start_says_why_in_its_status(box: Box) -> None:
    box.configure("wrong", colour="blue")
    assert box.run("systemctl", "start", "ringmount@wrong").returncode != 0
    status = box.run("systemctl", "status", "--no-pager", "ringmount@wrong").stdout
    assert "/etc/ringmount/wrong.yaml:" in status
    assert "colour" in status
    assert "colour" in box.show("ringmount@wrong", "StatusText")
    assert box.show("ringmount@wrong", "ActiveState") == "failed"
    assert box.show("ringmount@wrong", "NRestarts") == "0"
    assert not box.is_mounted("/mnt/wrong")


def test_a_mount_without_a_file_does_not_start(box: Box) -> None:
    assert box.run("systemctl", "start", "ringmount@nowhere").returncode != 0
    assert "/etc/ringmount/nowhere.yaml" in box.run("systemctl", "status", "--no-pager", "ringmount@nowhere").stdout


def test_two_mounts_side_by_side_do_not_touch_each_other(box: Box) -> None:
    left, right = passthrough(box, "left"), box.configure("right")
    box.systemctl("start", "ringmount@left", "ringmount@right")
    (box.path(right) / "file").write_text("in memory")
    old = box.main_pid("ringmount@left")
    os.kill(old, signal.SIGKILL)
    restarted(box, "ringmount@left", old)
    box.systemctl("stop", "ringmount@left")
    assert not box.is_mounted(left)
    assert (box.path(right) / "file").read_text() == "in memory"
    assert box.show("ringmount@right", "NRestarts") == "0"
    box.systemctl("stop", "ringmount@right")


def test_a_mount_whose_server_died_for_good_is_cleared_away_by_the_next_start(box: Box) -> None:
    mountpoint = passthrough(box, "dead")
    box.drop_in("ringmount@dead.service", "Service", Restart="no")
    box.systemctl("daemon-reload")
    box.systemctl("start", "ringmount@dead")
    os.kill(box.main_pid("ringmount@dead"), signal.SIGKILL)
    wait_for(lambda: box.show("ringmount@dead", "ActiveState") == "failed", "the unit to fail", box=box)
    assert box.is_mounted(mountpoint)
    box.systemctl("start", "ringmount@dead")
    assert box.do("ls", mountpoint) == ""
    box.systemctl("stop", "ringmount@dead")


def test_ringmount_umount_ends_the_unit_in_order(box: Box) -> None:
    mountpoint = passthrough(box, "umounted")
    box.systemctl("start", "ringmount@umounted")
    done = box.ringmount("umount", "umounted")
    assert done.returncode == 0, done.stderr
    assert not box.is_mounted(mountpoint)
    wait_for(lambda: box.show("ringmount@umounted", "ActiveState") == "inactive", "the unit to end", box=box)
    assert box.show("ringmount@umounted", "Result") == "success"


def test_a_sandboxed_mount_has_no_capability_and_sees_no_home(box: Box) -> None:
    mountpoint = box.configure("sandboxed")
    unit = "ringmount-sandboxed@sandboxed"
    box.do("mkdir", "-p", "/home/somebody")
    box.path("/home/somebody/secret").write_text("secret")
    box.systemctl("start", unit)
    processes = box.processes(unit)
    assert len(processes) > 1
    for pid in processes:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")} == {"0000000000000000"}
        assert "0" not in status["Uid"].split()
        assert not Path(f"/proc/{pid}/root/home/somebody").exists()
    assert box.path("/home/somebody/secret").exists()
    old = box.main_pid(unit)
    os.kill(old, signal.SIGKILL)
    restarted(box, unit, old)
    assert box.do("ls", mountpoint) == ""
    assert "ringmount" in box.ringmount("status").stdout
    box.systemctl("stop", unit)
    assert not box.is_mounted(mountpoint)


@pytest.mark.parametrize(("unit", "most"), [("ringmount@", "30"), ("ringmount-sandboxed@", "10")])
def test_the_units_are_understood_and_hardened(box: Box, unit: str, most: str) -> None:
    verified = box.run(
        "systemd-analyze", "verify", "--man=no", f"{unit}x.service", "ringmount.target", "ringmount.slice"
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    box.do("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={most}", f"{unit}x.service")


def test_what_is_installed_is_removed_again(box: Box) -> None:
    for arguments in (["--root", "/tmp/tree", "--prefix", "/usr"], ["--user"]):
        done = box.ringmount("install-units", *arguments)
        files = [line.removeprefix("ringmount: wrote ") for line in done.stdout.splitlines() if "wrote" in line]
        assert files
        text = "".join(box.path(file).read_text() for file in files)
        assert "/usr/bin/ringmount" not in text
        assert " ".join(COMMAND) in text
        done = box.ringmount("install-units", "--uninstall", *arguments)
        assert done.returncode == 0, done.stderr
        assert [file for file in files if box.path(file).exists()] == []
