"""The keys that say how contents and listings are asked for: what each of them saves, and that all stays right."""

import os
import signal
from pathlib import Path

import pytest
from mount.clients import caller, client, cpus, requests, said, serve_class, wait_for, worker_pids
from mount.support import TRANSPORTS, ServedMount
from mount.test_data import by_workers, callers, open_in, shown, write_in

CPUS = cpus()
both = pytest.mark.parametrize("transport", TRANSPORTS)
LONG = {"attr": 60, "entry": 60}


def cost(mount: ServedMount, before: list[int]) -> int:
    """Requests answered since."""
    return sum(requests(mount)) - sum(before)


# --- writeback ------------------------------------------------------------------------------------------------------


@both
def test_small_writes_are_gathered(tmp_path: Path, transport: str) -> None:
    with shown(tmp_path, transport=transport, writeback=True, timeouts=LONG) as mount, caller() as user:
        fd = open_in(user, mount.path / "file", os.O_WRONLY | os.O_CREAT)
        before = requests(mount)
        assert user.ask(f"sum(os.write({fd}, b'%08d' % number) for number in range(1000))") == 8000
        user.ask(f"os.close({fd})")
        assert cost(mount, before) < 20
        assert (tmp_path / "source" / "file").read_bytes() == b"".join(b"%08d" % number for number in range(1000))
        assert by_workers(mount)[1] == 8000


@both
def test_parts_of_pages_are_written_through_files_open_for_writing_only(tmp_path: Path, transport: str) -> None:
    """The kernel reads the rest of such a page by the same handle."""
    source = tmp_path / "source"
    source.mkdir()
    contents = bytearray(os.urandom(20_000))
    (source / "file").write_bytes(contents)
    with shown(tmp_path, transport=transport, writeback=True) as mount, callers(*CPUS) as users:
        for number, user in enumerate(users):
            fd = open_in(user, mount.path / "file", os.O_WRONLY)
            write_in(user, fd, b"12345", 5000 * number + 10)
            contents[5000 * number + 10 : 5000 * number + 15] = b"12345"
            user.ask(f"os.fsync({fd})")
            assert (source / "file").read_bytes() == contents
            user.ask(f"os.close({fd})")


def test_appending_from_several_processes_loses_nothing(tmp_path: Path) -> None:
    with shown(tmp_path, writeback=True) as mount, callers(*CPUS, *CPUS) as users:
        fds = [open_in(user, mount.path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND) for user in users]
        for _ in range(8):
            for number, (user, fd) in enumerate(zip(users, fds, strict=True)):
                assert user.ask(f"os.write({fd}, b'{number}' * 300)") == 300
        for user, fd in zip(users, fds, strict=True):
            user.ask(f"os.close({fd})")
        wanted = b"".join(b"%d" % number * 300 for number in range(len(users))) * 8
        assert (tmp_path / "source" / "log").read_bytes() == wanted


def test_the_kernels_times_arrive_beneath(tmp_path: Path) -> None:
    with shown(tmp_path, writeback=True, timeouts=LONG) as mount, caller() as user:
        fd = open_in(user, mount.path / "file", os.O_RDWR | os.O_CREAT)
        user.ask(f"os.utime({fd}, (1, 2))")  # two times within a tick of the clock would be one
        write_in(user, fd, b"12345")
        told = user.ask(f"os.fstat({fd}).st_mtime_ns")
        user.ask(f"os.fsync({fd})")
        assert (tmp_path / "source" / "file").stat().st_mtime_ns == told
        user.ask(f"os.utime({fd}, (1, 2))")
        user.ask(f"os.close({fd})")
        assert (tmp_path / "source" / "file").stat().st_mtime == 2


@both
def test_what_waits_in_the_kernel_outlives_all_workers(tmp_path: Path, transport: str) -> None:
    contents = os.urandom(3 << 20)
    (tmp_path / "wanted").write_bytes(contents)
    with shown(tmp_path, transport=transport, writeback=True) as mount, caller() as user:
        fd = open_in(user, mount.path / "file", os.O_WRONLY | os.O_CREAT)
        user.ask(f"os.write({fd}, Path({str(tmp_path / 'wanted')!r}).read_bytes())")
        before = worker_pids(mount)
        for pid in before:
            os.kill(pid, signal.SIGSEGV)
        wait_for(lambda: not set(before) & set(worker_pids(mount)) and None not in worker_pids(mount))
        user.ask(f"os.fsync({fd})")
        assert (tmp_path / "source" / "file").read_bytes() == contents


FLUSHES = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
for number in range(30):
    os.pwrite(fd, b'%08d' % number * 32768, number << 18)
    os.fsync(fd)
"""


@both
def test_workers_that_die_while_the_kernel_flushes_lose_nothing(tmp_path: Path, transport: str) -> None:
    with (
        shown(tmp_path, transport=transport, writeback=True) as mount,
        client(FLUSHES, mount.path / "file") as user,
    ):
        for number in range(4):
            pids = worker_pids(mount)
            os.kill(pids[number % len(pids)], signal.SIGSEGV)
            wait_for(lambda pids=pids: None not in worker_pids(mount) and worker_pids(mount) != pids)  # type: ignore[misc]
        user.result(30)
        found = (tmp_path / "source" / "file").read_bytes()
        assert found == b"".join(b"%08d" % number * 32768 for number in range(30))


@pytest.mark.ring
def test_what_was_not_handed_over_yet_is_no_hole(tmp_path: Path) -> None:
    """cp(1) leaves out what lseek(2) calls a hole."""
    with shown(tmp_path, writeback=True) as mount, caller() as user:
        fd = open_in(user, mount.path / "file", os.O_RDWR | os.O_CREAT)
        user.ask(f"os.ftruncate({fd}, 1 << 20)")
        write_in(user, fd, b"x" * 4096, 1 << 19)
        assert user.ask(f"os.lseek({fd}, 1 << 19, os.SEEK_DATA)") == 1 << 19


# --- the others ------------------------------------------------------------------------------------------------------


def test_contents_that_are_kept_are_not_read_again_until_they_change(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    settings = {"data": "userspace", "timeouts": {"attr": 0}}
    for keep in (True, False):
        (source / "file").write_bytes(b"x" * 10_000)
        with shown(tmp_path, **settings, keep_cache=keep) as mount:
            for _ in range(3):
                assert (mount.path / "file").read_bytes() == b"x" * 10_000
            assert by_workers(mount)[0] == (10_000 if keep else 30_000)
            (source / "file").write_bytes(b"y" * 10_000)
            os.utime(source / "file", (1, 1))
            assert (mount.path / "file").read_bytes() == b"y" * 10_000


def test_the_kernel_reads_as_far_ahead_as_it_is_told(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    contents = os.urandom(8 << 20)
    (source / "file").write_bytes(contents)
    with shown(tmp_path, data="userspace", readahead="1MiB", timeouts=LONG) as mount:
        before = requests(mount)
        assert (mount.path / "file").read_bytes() == contents
        assert cost(mount, before) < 32


@both
@pytest.mark.parametrize("cache", ["none", "normal"])
def test_direct_writes_to_one_file_go_on_at_the_same_time(tmp_path: Path, transport: str, cache: str) -> None:
    flags = os.O_WRONLY | (os.O_DIRECT if cache == "normal" else 0)
    with (
        serve_class(tmp_path, "WriteGate", transport=transport, cache=cache, parallel_direct_writes=True) as mount,
        callers(CPUS[0], CPUS[-1]) as users,
    ):
        for number, user in enumerate(users):
            fd = open_in(user, mount.path / "f0", flags)
            user.ask(f"globals().update(buffer=__import__('mmap').mmap(-1, 4096)) or {fd}")
            user.begin(f"os.pwrite({fd}, buffer, {4096 * number})")
        wait_for(lambda: said(tmp_path, "write", 0) and said(tmp_path, "write", 4096))
        (tmp_path / "go").touch()
        assert [user.finish() for user in users] == [4096, 4096]


@pytest.mark.parametrize(("when", "lowest", "highest"), [("always", 0, 20), ("auto", 0, 20), ("never", 50, 80)])
def test_listings_bring_attributes_or_not(tmp_path: Path, when: str, lowest: int, highest: int) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(50):
        (source / f"{number}").touch()
    with shown(tmp_path, readdirplus=when, timeouts=LONG) as mount, caller() as user:
        before = requests(mount)
        assert user.ask(f"len([one.stat() for one in os.scandir({str(mount.path)!r})])") == 50
        assert lowest <= cost(mount, before) <= highest
