"""The Debian package under a real systemd: installed, upgraded while a mount is in use, removed, purged."""

import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from systemd.box import Box, wait_for
from systemd.deb import bare_box, dpkg, remade

BUSY = """
import os, sys
top, stop = sys.argv[1:]
with open(f"{top}/kept", "a+b", buffering=0) as kept:
    turns = 0
    while not os.path.exists(stop):
        kept.write(b"%8d" % turns)
        with open(f"{top}/new", "wb") as file:
            file.write(b"x" * 5000)
        os.rename(f"{top}/new", f"{top}/renamed")
        assert os.stat(f"{top}/renamed").st_size == 5000
        with open(f"{top}/renamed", "rb") as file:
            assert file.read() == b"x" * 5000
        assert sorted(os.listdir(top)) == ["kept", "renamed"]
        os.unlink(f"{top}/renamed")
        turns += 1
        if turns == 1:
            print("began", flush=True)
    assert os.pread(kept.fileno(), 8 * turns + 1, 0) == b"".join(b"%8d" % i for i in range(turns))
print(turns)
"""
"""Uses a mount without a pause, with one file open all the time; ends with an error at the first call that fails."""

pytestmark = pytest.mark.timeout(600)  # the first test builds the package

UNIT = "ringmount@data"
MOUNTPOINT = "/mnt/data"


@pytest.fixture(scope="module")
def bare(packages: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box that has never seen ringmount, with packages in its folder."""
    with bare_box(tmp_path_factory.mktemp("box")) as box:
        package = box.folder / "ringmount.deb"
        package.write_bytes(packages[0].read_bytes())
        yield box


@pytest.fixture(scope="module")
def installed(bare: Box) -> Box:
    """The same, with the package installed and a mount of the disk in use by nobody yet."""
    dpkg(bare, "-i", str(bare.folder / "ringmount.deb"))
    bare.do("mkdir", "-p", "/srv/data")
    bare.configure("data", filesystem="passthrough", options={"source": "/srv/data"})
    bare.systemctl("enable", "--now", UNIT)
    return bare


def command(box: Box, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The installed command, with an environment that would have Python import the checkout."""
    return box.run("/usr/bin/ringmount", *arguments)


def versions(box: Box) -> list[str]:
    """The versions whose code is there."""
    return sorted(name.rpartition(".")[0] for name in os.listdir(box.path("/usr/lib/ringmount/versions")))


def code_of(box: Box) -> set[str]:
    """The versions that the unit's processes run."""
    found = set()
    for pid in box.processes(f"{UNIT}.service"):
        maps = Path(f"/proc/{pid}/maps").read_text().split()
        found |= {path.split("/versions/")[1].split("/")[0].rpartition(".")[0] for path in maps if "/versions/" in path}
    return found


def workers(box: Box) -> list[int]:
    """The workers that serve, as the box counts processes."""
    status = json.loads(command(box, "status", "data", "--json").stdout)
    return [worker["pid"] for worker in status["workers"] if worker["state"] == "serving"]


def kill_workers(box: Box) -> None:
    """Kills all workers at once, and waits for others."""
    old = set(workers(box))
    box.do("kill", "-KILL", *map(str, old))
    wait_for(lambda: len(set(workers(box)) - old) == len(old), "other workers", box=box)


def is_known(box: Box, unit: str) -> bool:
    return "LoadState=loaded" in box.run("systemctl", "show", "--property", "LoadState", unit).stdout


def test_the_same_sources_give_the_same_bytes(packages: tuple[Path, Path]) -> None:
    one, other = (hashlib.sha256(package.read_bytes()).hexdigest() for package in packages)
    assert one == other


def test_the_package_depends_on_the_interpreter_that_built_it(packages: tuple[Path, Path]) -> None:
    said = subprocess.run(["dpkg-deb", "-f", packages[0], "Depends"], capture_output=True, text=True, check=True).stdout
    assert "python3 (>= 3." in said
    assert "python3 (<< 3." in said
    assert "liburing2 (>= 2.3)" in said
    assert "fuse3" in said


def test_what_is_installed_serves_a_mount_with_nothing_from_elsewhere(installed: Box) -> None:
    assert installed.is_mounted(MOUNTPOINT)
    assert installed.show(UNIT, "UnitFileState") == "enabled"
    assert "/opt/ringmount" not in Path(f"/proc/{installed.main_pid(UNIT)}/maps").read_text()
    assert command(installed, "--version").stdout.startswith("ringmount ")
    assert command(installed, "status", "data").returncode == 0
    assert installed.run("man", "-w", "ringmount", "ringmount.yaml", "ringmount@.service").returncode == 0
    assert installed.run("getent", "passwd", "ringmount").returncode == 0


def test_an_upgrade_is_not_noticed_by_who_uses_the_mount(installed: Box) -> None:
    box = installed
    mount = next(line for line in box.mounts().splitlines() if f" {MOUNTPOINT} " in line)
    supervisor = box.main_pid(UNIT)
    package = remade(box.folder / "ringmount.deb", "7.1")
    stop = box.folder / "stop"
    busy = box.start(
        "/usr/bin/python3", "-c", BUSY, MOUNTPOINT, str(stop), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert busy.stdout is not None
    assert busy.stdout.readline() == "began\n"
    said = dpkg(box, "-i", str(package))
    assert "goes on with the version before" not in said
    assert busy.poll() is None, busy.communicate(timeout=30)[0]
    stop.touch()
    output, _ = busy.communicate(timeout=60)
    assert busy.returncode == 0, output
    assert command(box, "--version").stdout == "ringmount 7.1\n"
    assert versions(box) == ["7.1"]
    assert code_of(box) == {"7.1"}
    assert box.main_pid(UNIT) == supervisor
    assert mount in box.mounts().splitlines()


def test_an_upgrade_that_cannot_work_leaves_the_version_before_serving_with_its_code(installed: Box) -> None:
    box = installed

    def spoil(packages: Path) -> None:
        with (packages / "ringmount/workers/engine.py").open("a") as module:
            module.write("\nraise RuntimeError('spoilt')\n")

    (before,) = code_of(box)
    said = dpkg(box, "-i", str(remade(box.folder / "ringmount.deb", "7.2", spoil)))
    assert f"{UNIT}.service goes on with the version before" in said
    assert code_of(box) == {before}
    assert versions(box) == [before, "7.2"]
    # Workers that are started from now on find the modules of their supervisor. The first to follow is the spare, which
    # has imported them already.
    for _ in range(2):
        kill_workers(box)
    assert code_of(box) == {before}
    assert os.listdir(box.path(MOUNTPOINT)) == os.listdir(box.path("/srv/data"))

    dpkg(box, "-i", str(remade(box.folder / "ringmount.deb", "7.3")))
    wait_for(lambda: code_of(box) == {"7.3"}, "the repaired version", box=box)
    assert versions(box) == ["7.3"]


def test_a_removal_ends_the_mounts_and_leaves_what_the_administrator_wrote(installed: Box) -> None:
    box = installed
    processes = box.processes(UNIT)
    assert processes
    fd = os.open(box.path(MOUNTPOINT) / "open", os.O_CREAT | os.O_WRONLY)
    dpkg(box, "-r", "ringmount")
    with contextlib.suppress(OSError):  # nobody is there to be told of it
        os.close(fd)
    assert not box.is_mounted(MOUNTPOINT)
    assert box.processes(UNIT) == []
    assert not is_known(box, UNIT)
    assert not box.path("/usr/lib/ringmount").exists()
    assert box.path("/etc/ringmount/data.yaml").exists()


def test_a_purge_removes_the_rest(installed: Box) -> None:
    dpkg(installed, "-P", "ringmount")
    assert not installed.path("/etc/ringmount").exists()
    assert installed.do("find", "/etc/systemd/system", "-name", "ringmount*") == ""
