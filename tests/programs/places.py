"""Where programs run: a native folder, and passthrough mounts of such a folder; for root and for an ordinary user.

The rule: a program's outcome on a mount is compared with the one it has natively on this machine, by the same user.
"""

import contextlib
import os
import pwd
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mount.support import serve

BesideNative = Callable[[Callable[["Place"], Any], "Place"], tuple[Any, Any]]
"""The type of the fixture `beside_native`."""

USER = "nobody"
HOUR = 3600.0

SETTINGS: dict[str, dict[str, Any] | None] = {
    "native": None,
    "io_uring": {"transport": "io_uring"},
    "dev_fuse": {"transport": "dev_fuse"},
    "python": {"transport": "io_uring", "options": {"fast": False}},
    "userspace": {"transport": "io_uring", "data": "userspace"},
    "passthrough": {"transport": "io_uring", "data": "passthrough"},
    "writeback": {"transport": "io_uring", "writeback": True},
    "coherent": {"transport": "io_uring", "cache": "coherent"},
    "uncached": {"transport": "io_uring", "cache": "none"},
}
"""Settings of each kind of place's mount; "python" answers every request in Python, none in C."""


ALL = "%P|%y|%m|%n|%U|%G|%i|%l|%T@|%C@\\0"
TIMELESS = "%P|%y|%m|%n|%U|%G|%i|%l\\0"
"""What find(1) shows of an object."""


class Place(NamedTuple):
    """A folder to work in, and who works there."""

    name: str
    user: str
    root: Path

    def folder(self, name: str) -> "Place":
        """A new folder in this one, which belongs to the user."""
        path = self.root / name
        path.mkdir()
        entry = pwd.getpwnam(self.user)
        os.chown(path, entry.pw_uid, entry.pw_gid)
        return self._replace(root=path)

    def start(self, *command: str | Path, cwd: Path | None = None) -> "subprocess.Popen[str]":
        """Starts a command as the user, in this folder."""
        here = str(self.root)
        path = f"{os.defpath}:/usr/sbin:/sbin"
        entry = pwd.getpwnam(self.user)
        return subprocess.Popen(
            ["nice", *command],
            cwd=cwd or self.root,
            env={"PATH": path, "HOME": here, "TMPDIR": here, "LC_ALL": "C.UTF-8"},
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="surrogateescape",
            start_new_session=True,
        )

    def attempt(self, *command: str | Path, cwd: Path | None = None, timeout: float = 600) -> tuple[int, str]:
        """The command's exit code and what it said."""
        with self.start(*command, cwd=cwd) as process:
            try:
                said, _ = process.communicate(timeout=timeout)
            except BaseException:  # an interrupt, too: nothing may go on in a place that is taken down
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return process.returncode, said

    def run(self, *command: str | Path, cwd: Path | None = None, timeout: float = 600) -> str:
        """What the command said, which has to succeed."""
        code, said = self.attempt(*command, cwd=cwd, timeout=timeout)
        assert code == 0, f"{' '.join(map(str, command))}: exit code {code}\n{said[-4000:]}"
        return said


@contextlib.contextmanager
def made(name: str, user: str) -> Iterator[Place]:
    """The place of this name. At the end a mount agrees with what is beneath, and its server has been well."""
    settings = SETTINGS[name]
    with tempfile.TemporaryDirectory(prefix="ringmount-programs-", dir="/var/tmp") as temporary:
        os.chmod(temporary, 0o755)
        source = Path(temporary, "source")
        source.mkdir()
        if settings is None:
            yield Place(name, user, source)
            return
        options = {"source": str(source), **settings.get("options", {})}
        settings = {**settings, "filesystem": "passthrough", "options": options, "patience": HOUR}
        with serve(Path(temporary), **settings) as served:
            yield Place(name, user, served.path)
            shown = TIMELESS if settings.get("writeback") else ALL  # times are the kernel's, until it forgets the file
            assert listing(served.path, shown) == listing(source, shown)
            assert differences(served.path, source) == ""
            assert [worker for worker in served.status()["workers"] if worker["deaths"] or worker["lost"]] == []
        complaints = ("ringmount: warning", "ringmount: error", "ringmount: critical")
        assert [line for line in served.output().splitlines() if line.startswith(complaints)] == []


def listing(folder: Path, shown: str) -> list[bytes]:
    """Every object below the folder with its attributes."""
    find = ["find", str(folder), "-mindepth", "1", "-printf", shown]
    return sorted(subprocess.run(find, capture_output=True, timeout=600, check=True).stdout.split(b"\0"))


def differences(one: Path, other: Path) -> str:
    """What rsync would change to make the other folder like the one: contents, attributes, links, ACLs, xattrs."""
    look = ["rsync", "-aHAX", "--numeric-ids", "--dry-run", "--checksum", "--itemize-changes", "--delete"]
    done = subprocess.run([*look, f"{one}/", f"{other}/"], capture_output=True, timeout=600, check=True)
    return done.stdout.decode(errors="replace")
