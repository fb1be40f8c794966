"""A mount namespace of its own, where a test may change what belongs to the machine: /dev, /etc/fuse.conf, /sys.

It lives as long as a process of it (`Private.pid`); with it goes whatever was mounted in it. Commands run in it as root
or as an ordinary user, who is `nobody`, with a home of his own and /dev/fuse open to everybody, as udev has it.
"""

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from mount.support import START_PATIENCE, WATCHDOG, processes_of

import ringmount.daemon

HOME = "/mnt/home"
"""The ordinary user's home: writable for nobody but him."""
AS_USER = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
USERS_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": HOME, "XDG_RUNTIME_DIR": f"{HOME}/run"}

SETUP = f"""
set -e
# A copy of somebody's mount would keep it alive after he unmounted it.
awk '/ - fuse/ {{print $5}}' /proc/self/mountinfo | while read -r path; do umount -l "$(printf "$path")"; done
mount -t tmpfs -o mode=755 none /mnt
mknod -m 666 /mnt/fuse c 10 229
mount --bind /mnt/fuse /dev/fuse
mkdir -m 755 /mnt/empty {HOME}
mkdir -m 700 {HOME}/run
mkdir -m 755 {HOME}/mnt
chown -R 65534:65534 {HOME}
touch /mnt/fuse.conf
mount --bind /mnt/fuse.conf /etc/fuse.conf
cd /
"""


class Private:
    """A mount namespace. `pid` is a process in it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.root = Path(f"/proc/{pid}/root")
        """Its file system tree, as root sees it from here. Paths of mounts must not be touched by this process."""

    def launcher(self, *, user: bool = False) -> list[str]:
        """What stands in front of a command."""
        enter = ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "--wd=/", "--"]
        return [*enter, *AS_USER] if user else enter

    def run(self, *command: str, user: bool = False) -> "subprocess.CompletedProcess[str]":
        """Runs a command to its end."""
        return subprocess.run(
            [*self.launcher(user=user), *command],
            env=environment(user),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ringmount(self, *arguments: str, user: bool = False) -> "subprocess.CompletedProcess[str]":
        """Runs the command of that name to its end."""
        return self.run(sys.executable, "-P", "-m", "ringmount.daemon", *arguments, user=user)

    def write(self, path: str, text: str) -> str:
        """Writes a file that everybody may read; returns its path there."""
        file = self.root / path.lstrip("/")
        file.write_text(text)
        file.chmod(0o644)
        return path

    def write_config(self, name: str, folder: str = "/mnt", **settings: Any) -> str:
        """Writes a mount's file; returns its path there."""
        return self.write(f"{folder}/{name}.yaml", yaml.safe_dump(settings))

    def mounts(self) -> list[str]:
        """The FUSE mounts there, as lines of mountinfo."""
        table = Path(f"/proc/{self.pid}/mountinfo").read_text()
        return [line for line in table.splitlines() if " - fuse" in line]


def environment(user: bool) -> dict[str, str]:
    return USERS_ENVIRONMENT if user else {**os.environ}


@contextlib.contextmanager
def private(setup: str = "") -> Iterator[Private]:
    """A namespace in which SETUP and then `setup`, shell commands, were run by root."""
    script = f"{SETUP}\n{opened_up()}\n{setup}\necho ready\nexec sleep 1000"
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation=private", "sh", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert holder.stdout is not None
    with holder, holder.stdout:
        try:
            assert holder.stdout.readline() == "ready\n", "the namespace could not be set up"
            yield Private(holder.pid)
        finally:
            holder.kill()


def opened_up() -> str:
    """Shell commands by which the package and the interpreter can be reached by everybody.

    A checkout below a folder that is closed to others (/root, say) is bound to its own path on a file system that
    takes the closed folder's place.
    """
    package = Path(ringmount.daemon.__path__[0]).parent
    needed = {package, Path(sys.prefix), Path(sys.base_prefix), Path(sysconfig.get_path("stdlib"))}
    by_folder: dict[Path, list[Path]] = {}
    for path in sorted(needed):
        for folder in reversed(path.parents):
            if not folder.stat().st_mode & 0o001:
                by_folder.setdefault(folder, []).append(path)
                break
    lines = []
    for folder, paths in by_folder.items():
        for number, path in enumerate(paths):
            lines += [f"mkdir -p /mnt/needed/{number}", f"mount --rbind '{path}' /mnt/needed/{number}"]
        lines += [f"mount -t tmpfs -o mode=755 none '{folder}'"]
        for number, path in enumerate(paths):
            lines += [f"mkdir -p '{path}'", f"mount --rbind /mnt/needed/{number} '{path}'"]
    return "\n".join(lines)


class Server:
    """`ringmount run` in a private namespace. `output` is what it said up to where it serves."""

    def __init__(self, process: "subprocess.Popen[str]", output: str) -> None:
        self.process = process
        self.output = output

    def kill(self) -> None:
        """Ends it as a crash does, and waits for the end of its workers, who do not outlive it."""
        self.process.kill()
        self.process.wait(timeout=30)
        deadline = time.monotonic() + 30
        while processes_of(self.process.pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def stop(self) -> str:
        """Ends it as Ctrl-C does; returns what it said at the end."""
        self.process.send_signal(signal.SIGINT)
        rest, _ = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, rest
        return rest


@contextlib.contextmanager
def serve(place: Private, file: str, *, user: bool = False, launcher: Sequence[str] = ()) -> Iterator[Server]:
    """A server for the time of the block; it fails if the mount does not come up, or anything is left."""
    owner = f"user_id={65534 if user else 0},"
    process = subprocess.Popen(
        [*place.launcher(user=user), *launcher, sys.executable, "-P", "-m", "ringmount.daemon", "run", file],
        env=environment(user),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    watchdog = threading.Timer(WATCHDOG, kill_session, [process.pid])
    watchdog.daemon = True
    watchdog.start()
    try:
        server = Server(process, read_until(process, "  stop "))
        yield server
        if process.poll() is None:
            server.stop()
        assert processes_of(process.pid) == []
        assert [
            line for line in place.mounts() if f" fuse.ringmount {Path(file).stem} " in line and owner in line
        ] == []
    finally:
        watchdog.cancel()
        kill_session(process.pid)
        process.wait(timeout=30)
        if process.stdout:
            process.stdout.close()


def read_until(process: "subprocess.Popen[str]", start: str) -> str:
    """What the process printed up to a line that starts so."""
    assert process.stdout is not None
    deadline = time.monotonic() + START_PATIENCE
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith(start):
            return said
        assert time.monotonic() < deadline, said
    raise AssertionError(f"the mount did not come up:\n{said}")


def kill_session(session: int) -> None:
    for pid in processes_of(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
