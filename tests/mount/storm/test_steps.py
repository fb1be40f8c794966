"""A worker that dies at any step of a request: the call succeeds as if nothing had happened, with one effect.

Each call is made on a mount and on a folder beside it, and both must be alike afterwards. RINGMOUNT_SOAK=1: at every
step, else at some.
"""

import contextlib
import os
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mount.clients import Caller, caller, cpus, status, wait_for
from mount.support import TRANSPORTS, ServedMount, serve

from ringmount.workers.abi import Opcode

HERE = Path(__file__).parent
EVERY = bool(os.environ.get("RINGMOUNT_SOAK"))
CPU = cpus()[0]
MOST_STEPS = 2000

PAIR = "[os.open(top + n, 2) for n in ('/file', '/other')]"
COPY = f"[[os.copy_file_range(*f, 6, 1, 2), *map(os.close, f)] for f in [{PAIR}]]"
CALLS: dict[str, tuple[Opcode, str]] = {
    "stat": (Opcode.LOOKUP, "os.stat(top + '/file').st_size"),
    "fstat": (Opcode.GETATTR, "os.stat(top).st_nlink"),
    "read": (Opcode.READ, "Path(top + '/file').read_text()"),
    "open": (Opcode.OPEN, "os.close(os.open(top + '/file', os.O_RDWR))"),
    "write": (Opcode.WRITE, "[[os.pwrite(f, b'xyz', 2), os.close(f)] for f in [os.open(top + '/file', os.O_RDWR)]]"),
    "append": (
        Opcode.WRITE,
        "[[os.write(f, b'xyz'), os.close(f)] for f in [os.open(top + '/file', os.O_WRONLY | os.O_APPEND)]]",
    ),
    "create": (
        Opcode.CREATE,
        "[[os.write(f, b'new'), os.close(f)] for f in [os.open(top + '/new', 0o301, 0o640)]]",
    ),
    "mkdir": (Opcode.MKDIR, "os.mkdir(top + '/new', 0o750)"),
    "mknod": (Opcode.MKNOD, "os.mknod(top + '/new', 0o010600)"),
    "symlink": (Opcode.SYMLINK, "os.symlink('where', top + '/new')"),
    "link": (Opcode.LINK, "os.link(top + '/file', top + '/new')"),
    "unlink": (Opcode.UNLINK, "os.unlink(top + '/file')"),
    "rmdir": (Opcode.RMDIR, "os.rmdir(top + '/folder')"),
    "rename": (Opcode.RENAME, "os.rename(top + '/file', top + '/new')"),
    "rename_over": (Opcode.RENAME, "os.rename(top + '/file', top + '/other')"),
    "chmod": (Opcode.SETATTR, "os.chmod(top + '/file', 0o604)"),
    "truncate": (Opcode.SETATTR, "os.truncate(top + '/file', 3)"),
    "setxattr": (Opcode.SETXATTR, "os.setxattr(top + '/file', 'user.a', b'1', os.XATTR_CREATE)"),
    "removexattr": (Opcode.REMOVEXATTR, "os.removexattr(top + '/file', 'user.kept')"),
    "listdir": (Opcode.READDIRPLUS, "sorted(os.listdir(top))"),
    "readlink": (Opcode.READLINK, "os.readlink(top + '/link')"),
    "fallocate": (
        Opcode.FALLOCATE,
        "[[os.posix_fallocate(f, 0, 99), os.close(f)] for f in [os.open(top + '/file', 2)]]",
    ),
    "copy": (Opcode.COPY_FILE_RANGE_64, COPY),
    "tmpfile": (Opcode.TMPFILE, "os.close(os.open(top, os.O_TMPFILE | os.O_RDWR))"),
    "missing": (Opcode.LOOKUP, "os.path.exists(top + '/missing')"),
    "taken": (Opcode.LOOKUP, "os.mkdir(top + '/folder')"),
}


class Steps:
    """A mount, a folder that is served by it, and one like it."""

    def __init__(self, folder: Path, mount: ServedMount, source: Path, asker: Caller, number: int) -> None:
        self.mount = mount
        self.served = source / "top"
        self.plain = source.parent / f"{source.name}-plain"
        self._arm = folder / "arm"
        self._asker = asker
        self._number = number

    def arm(self, words: str) -> None:
        """The worker of CPU dies as `words` say."""
        self._arm.with_suffix(".new").write_text(f"{int(self._number)} {words}")
        self._arm.with_suffix(".new").rename(self._arm)
        self._asker.ask(f"os.statvfs('{self.mount.path}').f_namemax")

    def deaths(self) -> int:
        return sum(worker["deaths"] for worker in status(self.mount)["workers"])

    def try_at(self, words: str, call: str) -> bool:
        """Makes the call, its worker dying there; whether it did."""
        before = self.deaths()
        for top in (self.served, self.plain):
            make(top)
        self.arm(words)
        outcome = self.outcome(call, self.mount.path / "top")
        self.arm("c 0")  # answered by a successor, if there is one
        wait_for(self.all_serve)
        died = self.deaths() > before
        assert outcome == native(call, self.plain), f"{call} at {words}"
        assert tree(self.served) == tree(self.plain), f"{call} at {words}"
        return died

    def outcome(self, call: str, top: Path) -> Any:
        try:
            return self._asker.ask(call.replace("top", f"'{top}'"))
        except OSError as error:
            return f"errno {error.errno}"

    def all_serve(self) -> bool:
        return all(worker["state"] == "serving" for worker in status(self.mount)["workers"])

    def sweep(self, kind: str, call: str, start: int, stride: int) -> int:
        """Dies at step `start`, `start + stride`, ... until a call gets through; returns how often it died."""
        for count, step in enumerate(range(start, MOST_STEPS, stride)):
            if not self.try_at(kind.format(step), call):
                return count
        raise AssertionError("it dies for ever")

    def open_files(self) -> list[str]:
        """Regular files that the mount's processes have open beneath."""
        found = []
        folder = f"/proc/{self.mount.process.pid}/fd"
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                if stat.S_ISREG(os.stat(f"{folder}/{name}").st_mode):
                    target = os.readlink(f"{folder}/{name}")
                    if target.startswith(str(self.served)):
                        found.append(target)
        return found


def make(top: Path) -> None:
    """What there is before a call."""
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir(parents=True)
    (top / "file").write_text("contents")
    os.setxattr(top / "file", "user.kept", b"1")
    (top / "other").write_text("of the other")
    (top / "folder").mkdir()
    (top / "link").symlink_to("target")


def native(call: str, top: Path) -> Any:
    try:
        return eval(call.replace("top", f"'{top}'"))
    except OSError as error:
        return f"errno {error.errno}"


def tree(top: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in sorted(os.listdir(top)):
        path = top / name
        entry = path.lstat()
        contents: Any = None
        if path.is_symlink():
            contents = os.readlink(path)
        elif path.is_file():
            contents = (path.read_bytes(), sorted(os.listxattr(path)))
        found[name] = (oct(entry.st_mode), entry.st_nlink, contents)
    return found


@contextlib.contextmanager
def steps(folder: Path, transport: str, fast: bool) -> Iterator[Steps]:
    source = Path("/dev/shm") / f"ringmount-steps-{os.getpid()}"
    make(source / "top")
    shutil.copy(HERE / "stepfs.py", folder / "stepfs.py")
    settings: dict[str, Any] = {
        "timeouts": {"attr": 0, "entry": 0},
        "cache": "none",
        "workers": 1,
        "patience": 3600,
    }
    options = {"source": str(source), "fast": fast}
    # A ring that is simply killed may have a request cancelled by the kernel that was on its way to it.
    number = signal.SIGTERM if transport == "io_uring" else signal.SIGKILL
    try:
        with (
            serve(folder, filesystem="stepfs:Stepping", options=options, transport=transport, **settings) as mount,
            caller(CPU) as asker,
        ):
            at_first = status(mount)["nodes"]
            trial = Steps(folder, mount, source, asker, number)
            yield trial
            shutil.rmtree(trial.served)
            asker.ask(f"os.path.exists('{mount.path}/top')")
            wait_for(lambda: status(mount)["nodes"] <= at_first, "the kernel's references to be given back")
            log = mount.output()
            assert "answered EIO" not in log, log
    finally:
        shutil.rmtree(source, ignore_errors=True)
        shutil.rmtree(f"{source}-plain", ignore_errors=True)


@pytest.mark.timeout(3600 if EVERY else 300)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_death_at_any_step_in_c_is_not_noticed(tmp_path: Path, transport: str) -> None:
    with steps(tmp_path, transport, fast=True) as trial:
        died = 0
        for place, (_, call) in enumerate(CALLS.values()):
            died += trial.sweep("c {}", call, *((1, 1) if EVERY else (9 + place * 5 % 48, 59)))
        assert died > 10


@pytest.mark.timeout(3600 if EVERY else 300)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_death_at_any_line_of_python_is_not_noticed(tmp_path: Path, transport: str) -> None:
    with steps(tmp_path, transport, fast=False) as trial:
        died = 0
        for place, (opcode, call) in enumerate(CALLS.values()):
            died += trial.sweep(f"python {{}} {int(opcode)}", call, *((1, 1) if EVERY else (5 + place * 7 % 60, 97)))
        assert died > 10
