"""References that the kernel gives back: what nobody refers to is gone, what somebody refers to stays."""

import contextlib
import os
import signal
from pathlib import Path

import pytest
from mount.clients import caller, client, cpus, events, said, serve_class, status, wait_for, worker_pids
from mount.filesystems import Many
from mount.support import TRANSPORTS, ServedMount, serve

CPUS = cpus()
HOUR = {"attr": 3600, "entry": 3600}
both = pytest.mark.parametrize("transport", TRANSPORTS)


def stat_all(path: Path, step: int = 1) -> str:
    """An expression that stats every file, or one in `step`."""
    return f"[os.stat(f'{path}/f{{i}}').st_size for i in range(0, {Many.COUNT}, {step})][-1]"


def drop_caches() -> None:
    """Frees dentries and inodes that nobody uses, on the whole machine."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("2")


def nodes(mount: ServedMount) -> int:
    """Live nodes, the root among them."""
    return int(status(mount)["nodes"])


def wait_until_forgotten(mount: ServedMount, but: int = 1) -> None:
    """Drops caches until no more than so many nodes are left. Some objects survive a first round (shrink_slab)."""

    def is_forgotten() -> bool:
        drop_caches()
        return nodes(mount) <= but

    wait_for(is_forgotten, "forgotten nodes")


@both
def test_what_nobody_refers_to_is_forgotten(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "Many", transport=transport, timeouts=HOUR) as mount, caller() as user:
        user.ask(stat_all(mount.path), seconds=30)
        assert nodes(mount) == Many.COUNT + 1
        wait_until_forgotten(mount)
        assert status(mount)["counts"]["forgets"] >= Many.COUNT
        wait_for(lambda: len(said(tmp_path, "forget")) == 10)
        # And all of it is there again.
        user.ask(stat_all(mount.path, step=100))
        assert nodes(mount) == Many.COUNT // 100 + 1


@both
def test_what_is_in_use_is_not_forgotten(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "Many", transport=transport, timeouts=HOUR) as mount, caller() as user:
        fd = user.ask(f"os.open('{mount.path}/f7', os.O_RDONLY)")
        user.ask(stat_all(mount.path, step=50))
        wait_until_forgotten(mount, but=2)
        assert nodes(mount) == 2
        assert user.ask(f"os.pread({fd}, 8, 0).decode()")
        user.ask(f"os.close({fd})")
        wait_until_forgotten(mount)
        wait_for(lambda: said(tmp_path, "forget"))


@both
def test_names_looked_up_again_and_again_are_forgotten_with_all_their_references(
    tmp_path: Path, transport: str
) -> None:
    settings = {"transport": transport, "timeouts": {"attr": 0, "entry": 0}}
    with serve_class(tmp_path, "Many", **settings) as mount, contextlib.ExitStack() as stack:
        users = [stack.enter_context(caller(cpu)) for cpu in (*CPUS, *CPUS)]
        for user in users:
            user.begin(f"[os.stat(f'{mount.path}/f{{i % 10}}').st_size for i in range(1000)][-1]")
        for user in users:
            user.finish()
        assert nodes(mount) == 11
        wait_until_forgotten(mount)


@both
def test_a_single_worker_is_told_of_every_node(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "ManySingle", transport=transport, timeouts=HOUR) as mount, caller() as user:
        user.ask(stat_all(mount.path, step=3), seconds=30)

        def are_forgotten() -> bool:
            drop_caches()
            return len(said(tmp_path, "forget")) >= Many.COUNT // 3

        wait_for(are_forgotten)
        forgotten = [words[2] for words in events(tmp_path) if words[1] == "forget"]
        assert len(set(forgotten)) == len(forgotten)


@both
def test_files_in_memory_are_freed_when_they_are_forgotten(tmp_path: Path, transport: str) -> None:
    with serve(tmp_path, transport=transport, options={"inodes": 2000, "size": "32MiB"}) as mount, caller() as user:
        free = user.ask(f"os.statvfs('{mount.path}').f_ffree")
        user.ask(f"[Path(f'{mount.path}/f{{i}}').write_bytes(b'x' * 4096) for i in range(500)][-1]")
        fd = user.ask(f"os.open('{mount.path}/f0', os.O_RDONLY)")
        assert user.ask(f"os.statvfs('{mount.path}').f_ffree") == free - 500
        user.ask(f"[os.unlink(f'{mount.path}/f{{i}}') for i in range(500)][-1]")

        def is_freed(left: int) -> bool:
            drop_caches()
            return bool(user.ask(f"os.statvfs('{mount.path}').f_ffree") == free - left)

        wait_for(lambda: is_freed(1))
        assert user.ask(f"os.pread({fd}, 4, 0).decode()") == "xxxx"
        user.ask(f"os.close({fd})")
        wait_for(lambda: is_freed(0))


LOOK = """
import os, sys, time
root, end = sys.argv[1], time.monotonic() + float(sys.argv[2])
i = 0
while time.monotonic() < end:
    i += 1
    try:
        os.stat(f"{root}/f{i % 500}")
    except OSError:
        pass
"""


@both
def test_deaths_do_not_leave_references_behind(tmp_path: Path, transport: str) -> None:
    settings = {"transport": transport, "timeouts": {"attr": 0, "entry": 0}}
    with serve_class(tmp_path, "Many", **settings) as mount, contextlib.ExitStack() as stack:
        users = [stack.enter_context(client(LOOK, mount.path, 3, cpu=CPUS[i % len(CPUS)])) for i in range(6)]
        killed = 0
        while not users[0].is_done():
            pids = worker_pids(mount)
            victim = pids[killed % len(pids)]
            if victim:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                killed += 1
            wait_for(lambda: all(worker["state"] == "serving" for worker in status(mount)["workers"]))
        for user in users:
            user.result()
        assert killed > 3
        wait_until_forgotten(mount)
