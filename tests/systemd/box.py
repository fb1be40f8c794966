"""A box: a real systemd as PID 1 of its own namespaces, over an overlay of this machine's files, up in half a second.

What happens in it is gone with it: files (the upper layer is in memory), mounts, processes, sockets. It dies with the
test run, however that dies: its outer process has PR_SET_PDEATHSIG, and PID 1's end is that of its PID namespace. It is
ended by its cgroup, never by a number that was read somewhere.

The checkout is at CHECKOUT in the box, read-only, and runs with the machine's Python; `path` makes the box's files
reachable from outside. What a box cannot show: cgroup controllers (limits of memory and CPUs have no effect), limits
above this machine's hard ones.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from ringmount.daemon import install

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
BOOT = HERE / "boot"
SYSTEMD = Path("/lib/systemd/systemd")
CHECKOUT = Path("/opt/ringmount")
PYTHON = f"{CHECKOUT}/.venv/bin/python"
ENVIRONMENT = {"PYTHONPATH": f"{CHECKOUT}/.links", "PYTHONDONTWRITEBYTECODE": "1"}
"""With which Python finds the product there: an editable install names the place that the checkout has outside."""

UNITS = ("ringmount@.service", "ringmount-sandboxed@.service")
COMMAND = [PYTHON, "-P", "-m", "ringmount.daemon"]
SPACES = ["--mount", "--pid", "--cgroup", "--ipc", "--uts", "--net"]
UNSHARE = ["unshare", *SPACES, "--propagation", "private", "--fork", "--kill-child"]
BOOT_PATIENCE = 60.0
PATIENCE = 60.0
"""Seconds for a command in a box, on a machine that is busy."""
PREFIX = "ringmount-box-"


def lack_of_box() -> str | None:
    """Why no box can be had here, or None."""
    if os.geteuid() != 0:
        return "needs root"
    if not SYSTEMD.exists():
        return "needs systemd (apt-get install systemd)"
    if not all(map(shutil.which, ("unshare", "nsenter", "setpriv", "pivot_root"))):
        return "needs util-linux"
    place = cgroup_root()
    if place is None:
        return "needs cgroup2 (a mount of it, also beside version 1)"
    if not os.access(place, os.W_OK):
        return f"needs a writable {place}"
    interpreter = (REPOSITORY / ".venv/bin/python").resolve()
    if not str(interpreter).startswith(("/usr/", "/bin/", "/opt/")):
        return f"needs an interpreter that ProtectHome= does not hide; {interpreter} is in a home"
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, timeout=30, check=False)
    return f"needs namespaces: {tried.stderr.strip()}" if tried.returncode else None


def cgroup_root() -> Path | None:
    """Where cgroup2 is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    return None


class Box:
    """A box that has booted."""

    def __init__(self, folder: Path, outer: "subprocess.Popen[bytes]", cgroup: Path) -> None:
        self.folder = folder
        """Seen at the same place inside, writable."""
        self.outer = outer
        self.cgroup = cgroup
        self.pid1 = 0

    # --- processes --------------------------------------------------------------------------------------------------

    def command(self, *arguments: str) -> list[str]:
        """What runs a command in the box."""
        set_up = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root"]
        environment = [f"{key}={value}" for key, value in ENVIRONMENT.items()]
        return ["nsenter", "--target", str(self.pid1), *SPACES, *set_up, *environment, *arguments]

    def run(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Runs a command in the box to its end, whatever its exit code."""
        options = {"timeout": PATIENCE, "stdin": subprocess.DEVNULL, **options}
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False, **options)

    def do(self, *arguments: str, **options: Any) -> str:
        """Runs a command that must succeed; its output."""
        done = self.run(*arguments, **options)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def ringmount(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """The command `ringmount`, in the box."""
        return self.run(*COMMAND, *arguments, **options)

    def start(self, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
        """Starts a command in the box. What is still there ends with the box."""
        return subprocess.Popen(self.command(*arguments), text=True, **options)

    # --- units ------------------------------------------------------------------------------------------------------

    def systemctl(self, *arguments: str) -> str:
        """systemctl(1), which must succeed; on failure the journal's end is told."""
        done = self.run("systemctl", *arguments)
        assert done.returncode == 0, f"systemctl {' '.join(arguments)}: {done.stderr}\n{self.journal()}"
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.do("systemctl", "show", "--value", "--property", name, unit).strip()

    def main_pid(self, unit: str) -> int:
        """The main process's number as the machine, not the box, counts; 0 without one."""
        inside = int(self.show(unit, "MainPID"))
        return next((pid for pid in self.processes(unit) if inside and _inside(pid) == inside), 0)

    def processes(self, unit: str) -> list[int]:
        """A unit's processes, as the machine counts."""
        group = self.show(unit, "ControlGroup").lstrip("/")
        if not group:
            return []
        try:
            return [int(pid) for pid in (self.cgroup / "inside" / group / "cgroup.procs").read_text().split()]
        except OSError:
            return []

    def journal(self, unit: str = "", lines: int = 60) -> str:
        """The journal's end."""
        of_unit = ["--unit", unit] if unit else []
        return self.run("journalctl", "--no-pager", "--output", "short-precise", "--lines", str(lines), *of_unit).stdout

    # --- files ------------------------------------------------------------------------------------------------------

    def path(self, inside: str) -> Path:
        """The file of this absolute path in the box, for this process. Its mounts are followed, links are not."""
        return Path(f"/proc/{self.pid1}/root") / inside.lstrip("/")

    def mounts(self) -> str:
        """The box's mountinfo, which no mount can keep from being read."""
        return Path(f"/proc/{self.pid1}/mountinfo").read_text()

    def is_mounted(self, mountpoint: str) -> bool:
        """Whether a mount of ours is at this place."""
        return bool(re.search(rf" {re.escape(mountpoint)} .* - fuse\.ringmount ", self.mounts()))

    def configure(self, name: str, **settings: Any) -> str:
        """Writes /etc/ringmount/NAME.yaml and makes its mountpoint, by default /mnt/NAME; returns that."""
        mountpoint = str(settings.setdefault("mountpoint", f"/mnt/{name}"))
        settings.setdefault("filesystem", "memory")
        self.do("mkdir", "-p", "/etc/ringmount", mountpoint)
        self.path(f"/etc/ringmount/{name}.yaml").write_text(yaml.safe_dump(settings))
        return mountpoint

    def drop_in(self, unit: str, section: str, name: str = "test", **settings: str) -> None:
        """Changes a unit as `systemctl edit` does; a daemon-reload makes it count."""
        folder = self.path(f"/etc/systemd/system/{unit}.d")
        folder.mkdir(exist_ok=True)
        lines = [f"[{section}]", *(f"{key}={value}" for key, value in settings.items()), ""]
        (folder / f"{name}.conf").write_text("\n".join(lines))

    def install_units(self) -> None:
        """`ringmount install-units`, as an administrator does it; the units find the checkout."""
        for unit in UNITS:
            self.drop_in(
                unit,
                "Service",
                "checkout",
                Environment=" ".join(f"{key}={value}" for key, value in ENVIRONMENT.items()),
            )
        done = self.ringmount("install-units")
        assert done.returncode == 0, done.stderr
        self.systemctl("daemon-reload")


def prepare(folder: Path) -> None:
    """Has the units in place when a box of this folder boots, as a package would."""
    for file in install.files(str(folder / "rootfs"), "/usr/local", command=" ".join(COMMAND)):
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.path.write_text(file.text)
        file.path.chmod(file.mode)
    for unit in UNITS:
        drop_in = folder / f"units/{unit}.d/checkout.conf"
        drop_in.parent.mkdir(parents=True)
        drop_in.write_text(
            "[Service]\n" + "".join(f"Environment={key}={value}\n" for key, value in ENVIRONMENT.items())
        )


def _inside(pid: int) -> int:
    """A process's number in the innermost PID namespace, 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return 0


def wait_for(condition: Callable[[], Any], what: str, patience: float = PATIENCE, box: Box | None = None) -> Any:
    """Polls until the condition holds, and returns its value."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain: {what}\n{box.journal() if box else ''}"
        time.sleep(0.02)
    return value


@contextlib.contextmanager
def booted(folder: Path) -> Iterator[Box]:
    """Boots a box with FOLDER/units as its own units and FOLDER/rootfs over its files, and ends it after the `with`."""
    cgroups = cgroup_root()
    assert cgroups is not None
    remove_leftovers(cgroups)
    (folder / "units").mkdir(parents=True, exist_ok=True)
    cgroup = cgroups / f"{PREFIX}{os.getpid()}-{time.monotonic_ns()}"
    inside = cgroup / "inside"
    inside.mkdir(parents=True)
    console = folder / "console.log"
    enter = f'echo $$ >"{inside}/cgroup.procs" && exec "$@"'
    with console.open("wb") as log:
        outer = subprocess.Popen(
            ["sh", "-c", enter, "sh", "setpriv", "--pdeathsig", "KILL", *UNSHARE, BOOT, folder, REPOSITORY],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    box = Box(folder, outer, cgroup)
    try:
        _await_boot(box)
        yield box
    except BaseException as error:
        with contextlib.suppress(Exception):
            error.add_note(f"the box's console:\n{console.read_text(errors='replace')[-3000:]}")
            error.add_note(f"its journal ends:\n{box.journal()[-12000:]}")
        raise
    finally:
        _end(box)


def _await_boot(box: Box) -> None:
    deadline = time.monotonic() + BOOT_PATIENCE
    while True:
        assert box.outer.poll() is None, "the box died while it booted"
        assert time.monotonic() < deadline, "the box did not boot"
        with contextlib.suppress(OSError, ValueError):
            child = int(Path(f"/proc/{box.outer.pid}/task/{box.outer.pid}/children").read_text())
            if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                box.pid1 = child
                state = box.run("systemctl", "is-system-running").stdout.strip()
                if state == "running":
                    return
                assert state != "degraded", box.run("systemctl", "--failed", "--no-pager").stdout
        time.sleep(0.02)


def _end(box: Box) -> None:
    """Kills all that is in the box. A process that waits for an answer of a dead mount dies of the connection's end,
    which the death of the rest brings."""
    (box.cgroup / "cgroup.kill").write_text("1")
    box.outer.wait(timeout=30)
    deadline = time.monotonic() + 30
    while not _remove(box.cgroup):
        assert time.monotonic() < deadline, f"{box.cgroup} does not empty"
        time.sleep(0.02)
    with contextlib.suppress(OSError):
        (box.folder / "memory").rmdir()


def _remove(cgroup: Path) -> bool:
    """Removes a cgroup that is empty, with those below it."""
    with contextlib.suppress(OSError):
        for folder, _, _ in os.walk(cgroup, topdown=False):
            os.rmdir(folder)
    return not cgroup.exists()


def remove_leftovers(cgroups: Path) -> None:
    """Empty cgroups of test runs that were killed, whose boxes died with them."""
    for cgroup in cgroups.glob(f"{PREFIX}*"):
        if not Path(f"/proc/{cgroup.name.removeprefix(PREFIX).split('-')[0]}").exists():
            _remove(cgroup)


if __name__ == "__main__":  # `python tests/systemd/box.py`: a shell in a box, to look around
    import tempfile

    with tempfile.TemporaryDirectory() as temporary, booted(Path(temporary)) as own:
        sys.exit(subprocess.run(own.command("bash"), check=False).returncode)
