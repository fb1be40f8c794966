"""A worker that dies between taking a reference and answering: the kernel's counts and ours agree afterwards."""

import os
import time
from pathlib import Path

import pytest
from mount.support import TRANSPORTS, serve

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
'''


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
        deadline = time.monotonic() + 10
        while mount.status()["nodes"] > 1 and time.monotonic() < deadline:
            Path("/proc/sys/vm/drop_caches").write_text("2\n")
        assert mount.status()["nodes"] == 1
