"""A worker that dies between taking a reference and answering: the kernel's counts and ours agree afterwards."""

import os
import time
from pathlib import Path

import pytest
from mount.support import TRANSPORTS, ServedMount, serve

MORTAL = '''
import os, signal, stat
from pathlib import Path
from ringmount.workers.api import ROOT, Attr, Entry, Filesystem

class Mortal(Filesystem):
    """Dies at the first lookup of each name, right after it took the reference."""

    def find(self, name):
        node = self.mount.nodes.take(b"key of " + name, b"")
        died = Path(__file__).with_name(os.fsdecode(name) + ".died")
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Entry(node, Attr(st_ino=node, st_mode=stat.S_IFREG | 0o644))

    def getattr(self, ctx, node, fh):
        return Attr(st_ino=node, st_mode=stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFREG | 0o644)

class Plain(Mortal):
    def lookup(self, ctx, parent, name):
        return self.find(name)

class Coroutines(Mortal):
    async def lookup(self, ctx, parent, name):
        return self.find(name)

class Threads(Plain):
    threads = 2

class Lister(Mortal):
    """Dies in the middle of the first listing."""

    def lookup(self, ctx, parent, name):
        return self.make(name)

    def readdir(self, ctx, node, fh, offset, out):
        for number in range(offset, 20):
            if not out.add(b"%d" % number, 1, stat.S_IFREG, number + 1):
                return

    def readdirplus(self, ctx, node, fh, offset, out):
        for number in range(offset, 20):
            name = b"%d" % number
            if not out.add(name, self.find(name) if number == 15 else self.make(name), number + 1):
                return

    def make(self, name):
        node = self.mount.nodes.take(b"key of " + name, b"")
        return Entry(node, Attr(st_ino=node, st_mode=stat.S_IFREG | 0o644))

class ListerInThreads(Lister):
    threads = 2

class AsyncLister(Lister):
    async def readdirplus(self, ctx, node, fh, offset, out):
        super().readdirplus(ctx, node, fh, offset, out)
'''

MORTAL_PASSTHROUGH = '''
import signal
from pathlib import Path
from ringmount.workers._native import lib
from ringmount.workers.filesystems.passthrough import Passthrough

class MortalPassthrough(Passthrough):
    """Dies at a step of what C does after a folder was opened: `step` says at which."""

    def opendir(self, ctx, node, flags):
        opened = super().opendir(ctx, node, flags)
        step = Path(__file__).with_name("step")
        if step.exists():
            number = int(step.read_text())
            step.unlink()
            lib.rm_die_at(number, signal.SIGKILL)
        return opened
'''


def forget_everything(mount: ServedMount) -> None:
    """Waits until the kernel has given all references back but the root's."""
    deadline = time.monotonic() + 10
    while mount.status()["nodes"] > 1 and time.monotonic() < deadline:
        Path("/proc/sys/vm/drop_caches").write_text("2\n")
    assert mount.status()["nodes"] == 1


@pytest.mark.parametrize("name", ["Plain", "Coroutines", "Threads"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_reference_that_was_not_passed_on_is_given_back(tmp_path: Path, transport: str, name: str) -> None:
    (tmp_path / "mortal.py").write_text(MORTAL)
    with serve(tmp_path, filesystem=f"mortal:{name}", transport=transport) as mount:
        for file in ("one", "two"):
            assert os.lstat(mount.path / file).st_size == 0
            assert (tmp_path / f"{file}.died").exists()
        assert sum(worker["deaths"] for worker in mount.status()["workers"]) == 2
        assert mount.status()["nodes"] == 3
        forget_everything(mount)


@pytest.mark.parametrize(
    ("transport", "name"),
    [
        pytest.param("io_uring", "Lister", marks=pytest.mark.ring),
        pytest.param("io_uring", "ListerInThreads", marks=pytest.mark.ring),
        ("dev_fuse", "AsyncLister"),
    ],
)
def test_a_listing_that_was_not_answered_gives_all_its_references_back(
    tmp_path: Path, transport: str, name: str
) -> None:
    (tmp_path / "mortal.py").write_text(MORTAL)
    with serve(tmp_path, filesystem=f"mortal:{name}", transport=transport) as mount:
        with os.scandir(mount.path) as found:
            assert sum(entry.stat(follow_symlinks=False).st_size == 0 for entry in found) == 20
        assert (tmp_path / "15.died").exists()
        assert sum(worker["deaths"] for worker in mount.status()["workers"]) == 1
        assert mount.status()["nodes"] == 21
        forget_everything(mount)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_listing_in_c_that_was_not_answered_gives_all_its_references_back(tmp_path: Path, transport: str) -> None:
    (tmp_path / "mortal.py").write_text(MORTAL_PASSTHROUGH)
    source = tmp_path / "source"
    steps = (3, 30, 75)  # no more: further deaths would be answered with a delay
    for step in steps:
        (source / f"{step}").mkdir(parents=True)
        for number in range(5):
            (source / f"{step}" / f"{number}").touch()
    options = {"source": str(source)}
    with serve(
        tmp_path, filesystem="mortal:MortalPassthrough", options=options, transport=transport, workers=1
    ) as mount:
        for step in steps:
            (tmp_path / "step").write_text(str(step))
            assert sorted(os.listdir(mount.path / f"{step}")) == ["0", "1", "2", "3", "4"]
            assert not (tmp_path / "step").exists()
        assert [worker["deaths"] for worker in mount.status()["workers"]] == [len(steps)]
        assert mount.status()["nodes"] == 1 + len(steps) * 6
        forget_everything(mount)
