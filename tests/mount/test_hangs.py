"""Workers that hang, for real: nobody waits for ever, and the log says where they were."""

import errno
import os
import signal
import time
from pathlib import Path

import pytest
from mount.support import TRANSPORTS, serve

ONE_LINK = """
import stat, time
from ringmount.workers.api import ROOT, Attr, Entry, Filesystem, NodeId

class OneLink(Filesystem):
    def lookup(self, ctx, parent, name):
        if name != b"link":
            raise FileNotFoundError(2, "none")
        return Entry(2, self.getattr(ctx, NodeId(2), None))

    def getattr(self, ctx, node, fh):
        kind = stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFLNK | 0o777
        return Attr(st_ino=node, st_mode=kind)
"""

SLEEPER = f"""{ONE_LINK}
class Sleeper(OneLink):
    def readlink(self, ctx, node):
        where_it_sleeps()

    def mkdir(self, ctx, parent, name, mode):
        where_it_sleeps()

def where_it_sleeps():
    time.sleep(1000)
"""


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_handler_that_hangs_is_reported_with_its_stack_and_its_caller_gets_eio(
    tmp_path: Path, transport: str
) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    with serve(tmp_path, filesystem="sleeper:Sleeper", transport=transport, timeouts={"request": 0.5}) as mount:
        pids = mount.worker_pids()
        for call in (lambda: os.readlink(mount.path / "link"), lambda: os.mkdir(mount.path / "folder")):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == errno.EIO
        assert os.lstat(mount.path / "link").st_ino == 2
        assert mount.worker_pids() != pids
        assert mount.status()["counts"]["hangs"] >= 2
        log = mount.output()
        assert "READLINK" in log
        assert "in where_it_sleeps" in log


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_stopped_worker_is_replaced(tmp_path: Path, transport: str) -> None:
    with serve(tmp_path, transport=transport, timeouts={"request": 0.5}) as mount:
        (pid,) = mount.worker_pids()
        os.kill(pid, signal.SIGSTOP)
        try:
            # What a stopped worker was just handed is lost with it; what comes later finds its successor.
            for _ in range(100):
                try:
                    os.statvfs(mount.path)
                    break
                except OSError:
                    time.sleep(0.05)
            assert mount.worker_pids() != [pid]
        finally:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


GREEDY = f"""{ONE_LINK}
class Greedy(OneLink):
    def readlink(self, ctx, node):
        self.hoard = b"x" * (256 << 20)
        return b"taken"
"""


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_worker_that_takes_too_much_memory_is_replaced_and_no_call_fails(tmp_path: Path, transport: str) -> None:
    (tmp_path / "greedy.py").write_text(GREEDY)
    with serve(tmp_path, filesystem="greedy:Greedy", transport=transport, workers=1, memory_limit="200MiB") as mount:
        pids = mount.worker_pids()
        assert os.readlink(mount.path / "link") == "taken"
        deadline = time.monotonic() + 60
        while mount.worker_pids() in (pids, [None]) and time.monotonic() < deadline:
            assert os.lstat(mount.path / "link").st_ino == 2
        status = mount.status()
        assert status["counts"]["memory"] == 1
        assert [worker["lost"] for worker in status["workers"]] == [0]
        assert "memory_limit is 200 MiB" in mount.output()
