"""What the doctor finds: on this machine, and on machines that lack one thing each."""

import contextlib
import importlib.metadata
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ringmount.config.model import MountConfig
from ringmount.daemon import doctor, fusectl, fusermount, machine, mountinfo, mounting, privileges
from ringmount.daemon.doctor import Check, Findings, Status
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.workers import ring


def only(findings: Findings) -> Check:
    (finding,) = findings
    return finding


@pytest.fixture
def ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where all is well for somebody who is not root."""
    monkeypatch.setattr(privileges, "may_mount", lambda: False)
    monkeypatch.setattr(privileges, "has_no_new_privs", lambda: False)
    monkeypatch.setattr(fusermount, "find_fusermount", lambda: "/usr/bin/fusermount3")
    monkeypatch.setattr(fusermount, "is_allow_other_permitted", lambda: True)
    monkeypatch.setattr(doctor, "is_set_user_id_root", lambda program: True)


# --- the command ------------------------------------------------------------------------------------------------


def test_every_check_comes_to_a_finding_on_this_machine() -> None:
    findings = doctor.checks()
    assert {"python", "kernel", "fuse", "ring switch", "io_uring", "permissions"} <= {f.name for f in findings}
    assert not [finding for finding in findings if "cannot be checked" in finding.detail]


def test_no_process_is_left() -> None:
    before = set(psutil.Process().children())
    doctor.checks()
    assert set(psutil.Process().children()) <= before


@pytest.mark.parametrize("options", [{}, {"as_json": True}])
def test_the_commands_exit_code_follows_from_its_findings(
    options: dict[str, bool], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for status, code in [
        (Status.OK, ExitCode.OK),
        (Status.WARN, ExitCode.OK),
        (Status.FAIL, ExitCode.UNAVAILABLE),
    ]:
        findings = [Check("one", Status.OK, "fine"), Check("two", status, "so so", "do this")]
        monkeypatch.setattr(doctor, "checks", lambda findings=findings: findings)
        assert doctor.main(**options) == code
    assert "do this" in capsys.readouterr().out


def test_a_program_gets_all_of_every_finding() -> None:
    findings = [Check("two words", Status.WARN, "a detail", "an advice")]
    assert json.loads(doctor.to_json(findings)) == {
        "checks": [{"name": "two words", "status": "warn", "detail": "a detail", "advice": "an advice"}]
    }


def test_people_get_a_line_each_the_advice_and_a_conclusion() -> None:
    table = doctor.to_table([Check("a", Status.OK, "fine"), Check("bcd", Status.FAIL, "broken", "mend it")])
    assert table.split("\n") == [
        "ok    a    fine",
        "fail  bcd  broken",
        "           -> mend it",
        "",
        "ringmount cannot serve mounts here yet: bcd",
        "",
    ]


def test_a_check_that_breaks_is_a_finding_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[Check]:
        raise RuntimeError("no such thing")

    def failing() -> Iterator[Check]:
        yield Check("never seen", Status.OK, "")
        raise Failure("not here", "go there")

    monkeypatch.setattr(doctor, "CHECKS", {"broken": broken, "failing": failing})
    assert doctor.checks() == [
        Check("broken", Status.FAIL, "cannot be checked: RuntimeError: no such thing"),
        Check("failing", Status.FAIL, "not here", "go there"),
    ]


@pytest.mark.root
def test_an_ordinary_user_gets_findings_too() -> None:
    code = "import sys; from ringmount.daemon import doctor; sys.exit(doctor.main(as_json=True))"
    done = subprocess.run(
        ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        check=False,
    )
    assert done.returncode in (ExitCode.OK, ExitCode.UNAVAILABLE), done.stderr
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert "root" not in found.get("permissions", {"detail": ""})["detail"]


# --- machines that lack something -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "status"),
    [
        ("6.18.44-fc", Status.OK),
        ("7.0.0", Status.OK),
        ("6.17.1", Status.WARN),
        ("6.14-rc3", Status.WARN),
        ("6.13.12", Status.WARN),
        ("5.4.0-42-generic", Status.WARN),
        ("5.3.18", Status.FAIL),
        ("nonsense", Status.FAIL),
    ],
)
def test_the_kernels_version_is_judged(release: str, status: Status) -> None:
    finding = only(doctor.kernel(release))
    assert finding.status is status
    assert bool(finding.advice) == (status is not Status.OK)


def test_a_machine_without_the_device_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_fuse() -> int:
        raise Failure("there is no /dev/fuse", "modprobe fuse")

    monkeypatch.setattr(mounting, "open_fuse", open_fuse)
    monkeypatch.setattr(doctor, "CHECKS", {"fuse": doctor.fuse_device})
    assert doctor.checks() == [Check("fuse", Status.FAIL, "there is no /dev/fuse", "modprobe fuse")]


@pytest.mark.parametrize(
    ("switch", "modules", "status", "advice"),
    [
        (True, "", Status.OK, ""),
        (False, "fuse 200 1 - Live\n", Status.WARN, "options fuse enable_uring=1"),
        (False, "ext4 1 1 - Live\n", Status.WARN, "command line"),
        (None, "", Status.WARN, "Linux 6.14"),
    ],
)
def test_the_ring_switch_is_told_with_what_turns_it_on(
    switch: bool | None,
    modules: str,
    status: Status,
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "modules").write_text(modules)
    monkeypatch.setattr(doctor, "MODULES", tmp_path / "modules")
    monkeypatch.setattr(machine, "ring_switch", lambda: switch)
    finding = only(doctor.ring_switch())
    assert finding.status is status
    assert advice in finding.advice


@pytest.mark.parametrize(
    ("disabled", "advice"),
    [("2\n", "sysctl -w kernel.io_uring_disabled=0"), ("1\n", "member of group 27"), ("0\n", "seccomp")],
)
def test_a_refused_ring_is_explained(
    disabled: str, advice: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "disabled").write_text(disabled)
    (tmp_path / "group").write_text("27\n")
    monkeypatch.setattr(doctor, "URING_DISABLED", tmp_path / "disabled")
    monkeypatch.setattr(doctor, "URING_GROUP", tmp_path / "group")
    monkeypatch.setattr(ring, "probe", lambda: "io_uring_setup: Operation not permitted")
    finding = only(doctor.io_uring())
    assert finding.status is Status.WARN
    assert "Operation not permitted" in finding.detail
    assert advice in finding.advice


def test_the_library_is_named_with_its_version() -> None:
    assert only(doctor.liburing()).detail.startswith("liburing.so.2")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "psutil":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    finding = only(doctor.python())
    assert finding.status is Status.FAIL
    assert finding.advice.endswith("-m pip install psutil")


@pytest.mark.usefixtures("ordinary_user")
def test_an_ordinary_user_mounts_through_fusermount3() -> None:
    finding = only(doctor.permissions())
    assert finding.status is Status.OK
    assert "/usr/bin/fusermount3" in finding.detail


@pytest.mark.usefixtures("ordinary_user")
@pytest.mark.parametrize(
    ("module", "name", "value", "message"),
    [
        (fusermount, "find_fusermount", None, "not installed"),
        (doctor, "is_set_user_id_root", False, "not set-user-id root"),
        (privileges, "has_no_new_privs", True, "no_new_privs"),
    ],
)
def test_what_keeps_an_ordinary_user_from_mounting_is_told(
    module: object, name: str, value: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, lambda *program: value)
    with pytest.raises(Failure, match=message) as caught:
        list(doctor.permissions())
    assert caught.value.hint


@pytest.mark.usefixtures("ordinary_user")
def test_a_machine_that_permits_no_sharing_is_told_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusermount, "is_allow_other_permitted", lambda: False)
    _, finding = doctor.permissions()
    assert (finding.name, finding.status) == ("allow_other", Status.WARN)
    assert "user_allow_other" in finding.advice


@pytest.mark.parametrize(
    ("hard", "status"),
    [(1024, Status.WARN), (doctor.ENOUGH_FILES, Status.OK), (resource.RLIM_INFINITY, Status.OK)],
)
def test_the_limit_of_open_files_is_judged(hard: int, status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, hard))
    files, _ = doctor.limits()
    assert files.status is status


def test_rings_that_would_take_too_much_are_told_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ring_memory_cap", lambda config: 4096)
    *_, finding = doctor.processors()
    assert (finding.name, finding.status) == ("ring memory", Status.WARN)
    assert "queue_depth" in finding.advice


def test_a_low_page_limit_is_told_with_the_sysctl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "limit").write_text("32\n")
    monkeypatch.setattr(machine, "MAX_PAGES_LIMIT", tmp_path / "limit")
    finding = only(doctor.pages_limit())
    assert finding.status is Status.WARN
    assert finding.advice.endswith("fs.fuse.max_pages_limit=256")


@pytest.mark.parametrize(("found", "status"), [(None, Status.WARN), ([], Status.OK), ([40], Status.OK)])
def test_a_missing_fusectl_is_told_about(
    found: list[int] | None, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusectl, "list_connections", lambda: found)
    assert only(doctor.connections()).status is status


# --- stale mounts -----------------------------------------------------------------------------------------------


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Mounts on a new folder of that name, without a server; returns the connection's descriptor."""
    with contextlib.ExitStack() as stack:

        def start(name: str) -> int:
            folder = tmp_path / name
            folder.mkdir()
            config = MountConfig(name=name, mountpoint=str(folder), filesystem="memory")
            fd = mounting.mount(config)
            stack.callback(mounting.unmount, str(folder))
            return fd

        yield start


@pytest.mark.mount
def test_dead_and_stuck_mounts_are_told(mount: Callable[[str], int], tmp_path: Path) -> None:
    os.close(mount("dead"))
    stuck = [mount(f"stuck{number}") for number in range(3)]
    try:
        findings = {finding.detail.split(" ")[0]: finding for finding in doctor.stale_mounts()}
    finally:
        for fd in stuck:
            os.close(fd)
    dead = findings[f"{tmp_path}/dead"]
    assert dead.detail.endswith("(fuse.ringmount dead): its server is dead")
    assert dead.advice.startswith("ringmount umount dead (or umount -l ")
    for number in range(3):
        finding = findings[f"{tmp_path}/stuck{number}"]
        assert finding.status is Status.WARN
        assert "has not answered for 1.5 s" in finding.detail
        assert "/abort" in finding.advice


def test_mounts_that_cannot_be_asked_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "40 27 0:40 / /mnt/x rw - fuse.sshfs host: rw,user_id=4242,group_id=4242\n"
    monkeypatch.setattr(mountinfo, "read", lambda: list(mountinfo.parse(line)))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert only(doctor.stale_mounts()).detail == "none among 1 FUSE mounts, 1 of others could not be asked"
