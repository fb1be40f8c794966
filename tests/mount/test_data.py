"""Which way the contents of files take, and that they are the same whichever it is."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mount.clients import Caller, caller, client, cpus, said, serve_class, status, wait_for, worker_pids
from mount.support import TRANSPORTS, ServedMount, ringmount, serve, write_config

CPUS = cpus()
both = pytest.mark.parametrize("transport", TRANSPORTS)


@contextlib.contextmanager
def shown(folder: Path, **settings: Any) -> Iterator[ServedMount]:
    """The folder `source` of `folder`, passed through."""
    source = folder / "source"
    source.mkdir(exist_ok=True)
    with serve(folder, filesystem="passthrough", options={"source": str(source)}, **settings) as mount:
        yield mount


@contextlib.contextmanager
def callers(*places: int) -> Iterator[list[Caller]]:
    """A caller on each of these CPUs."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(caller(cpu)) for cpu in places]


def by_workers(mount: ServedMount) -> tuple[int, int]:
    """Bytes that workers have read and written."""
    workers = status(mount)["workers"]
    return sum(worker["bytes_read"] for worker in workers), sum(worker["bytes_written"] for worker in workers)


def open_in(one: Caller, path: Path, flags: int) -> int:
    return int(one.ask(f"os.open({str(path)!r}, {flags})"))


def read_in(one: Caller, fd: int, size: int, offset: int = 0) -> bytes:
    return bytes(one.ask(f"list(os.pread({fd}, {size}, {offset}))"))


def write_in(one: Caller, fd: int, data: bytes, offset: int = 0) -> None:
    assert one.ask(f"os.pwrite({fd}, {data!r}, {offset})") == len(data)


@both
@pytest.mark.parametrize("data", ["auto", "passthrough"])
def test_the_kernel_reads_and_writes_by_itself(tmp_path: Path, transport: str, data: str) -> None:
    with shown(tmp_path, transport=transport, data=data) as mount, caller() as user:
        assert status(mount)["data"] == "passthrough"
        for flags in (os.O_RDWR | os.O_CREAT, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            fd = open_in(user, mount.path / "file", flags)
            write_in(user, fd, b"0123456789" * 1000)
            assert user.ask(f"os.fstat({fd}).st_size") == 10_000
            if flags & os.O_ACCMODE == os.O_RDWR:
                assert read_in(user, fd, 10, 9_990) == b"0123456789"
            user.ask(f"os.close({fd})")
        assert (tmp_path / "source" / "file").read_bytes() == b"0123456789" * 1000
        assert by_workers(mount) == (0, 0)


@both
def test_through_the_workers_if_the_file_says_so(tmp_path: Path, transport: str) -> None:
    with shown(tmp_path, transport=transport, data="userspace") as mount:
        found = status(mount)
        assert (found["data"], found["data_reason"]) == ("userspace", "data: userspace")
        (mount.path / "file").write_bytes(b"12345")
        assert by_workers(mount) == (0, 5)


@both
def test_all_ways_of_opening_go_together_whoever_comes_first(tmp_path: Path, transport: str) -> None:
    """The kernel answers EIO to who opens a file by another way than it is open, or by another backing id."""
    source = tmp_path / "source"
    source.mkdir()
    ways = [
        os.O_RDONLY,
        os.O_WRONLY,
        os.O_RDWR,
        os.O_RDWR | os.O_APPEND,
        os.O_RDWR | os.O_DIRECT,
        os.O_RDWR | os.O_SYNC,
    ]
    with shown(tmp_path, transport=transport) as mount, callers(*CPUS, *CPUS) as users:
        for first in ways:
            (source / "file").write_bytes(b"-" * 8192)
            held = []
            for user in users:
                held += [(user, open_in(user, mount.path / "file", flags), flags) for flags in [first, *ways]]
            for number, (user, fd, flags) in enumerate(held):
                if flags & (os.O_APPEND | os.O_DIRECT) == 0 and flags & os.O_ACCMODE != os.O_RDONLY:
                    write_in(user, fd, b"%08d" % number, 8 * number)
            for user, fd, flags in held:
                if flags & os.O_DIRECT == 0 and flags & os.O_ACCMODE != os.O_WRONLY:
                    assert read_in(user, fd, 8192) == (source / "file").read_bytes()
            for user, fd, _ in held[::2] + held[1::2]:
                user.ask(f"os.close({fd})")


@both
def test_what_was_opened_with_o_append_or_o_direct_can_be_changed(tmp_path: Path, transport: str) -> None:
    """dd(1) takes O_DIRECT back for its last odd block."""
    with shown(tmp_path, transport=transport) as mount, caller() as user:
        user.ask("__builtins__.__dict__.update(fcntl=__import__('fcntl')) or 1")
        path = mount.path / "file"
        fd = open_in(user, path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        other = open_in(user, path, os.O_RDWR)
        assert user.ask(f"os.write({fd}, b'12345')") == 5
        user.ask(f"fcntl.fcntl({fd}, fcntl.F_SETFL, 0)")
        assert user.ask(f"os.pwrite({fd}, b'X', 1)") == 1
        assert read_in(user, other, 10) == b"1X345"
        direct = open_in(user, path, os.O_RDWR | os.O_DIRECT)
        user.ask(f"fcntl.fcntl({direct}, fcntl.F_SETFL, 0)")
        assert user.ask(f"os.pwrite({direct}, b'YZ', 3)") == 2
        assert read_in(user, other, 10) == b"1X3YZ"


@both
def test_mappings_of_all_kinds_see_the_same(tmp_path: Path, transport: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"a" * 8192)
    with shown(tmp_path, transport=transport) as mount, callers(*CPUS) as users:
        for user in users:
            user.ask("__builtins__.__dict__.update(mmap=__import__('mmap'), M=[]) or 1")
        for flags in (os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_RDWR | os.O_DIRECT):
            for user in users:
                fd = open_in(user, mount.path / "file", flags)
                user.ask(f"M.append(mmap.mmap({fd}, 8192))")
                user.ask(f"M.append(mmap.mmap({fd}, 8192, flags=mmap.MAP_PRIVATE))")
                user.ask(f"os.close({fd})")
        users[0].ask("M[0].__setitem__(slice(4096, 4099), b'xyz')")
        for user in users:
            assert user.ask("[list(m[4096:4099]) for m in M]") == [list(b"xyz")] * 6
        users[-1].ask("M[1].__setitem__(slice(0, 3), b'own')")
        assert users[-1].ask("list(M[0][:3])") == list(b"aaa")
        assert (source / "file").read_bytes()[4096:4099] == b"xyz"


@both
def test_who_writes_to_a_set_user_id_program_takes_its_bits(tmp_path: Path, transport: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    source.chmod(0o755)
    (source / "program").write_bytes(b"#!")
    (source / "program").chmod(0o666)
    with shown(tmp_path, transport=transport) as mount, caller() as user:
        path = Path("program")
        user.ask(f"os.chdir({str(mount.path)!r})")  # the way to it is closed to other users
        user.ask("os.setresgid(65534, 65534, 65534)")
        user.ask("os.setresuid(65534, 65534, 65534)")
        early = open_in(user, path, os.O_WRONLY)
        (source / "program").chmod(0o6777)
        write_in(user, early, b"x")
        assert (source / "program").stat().st_mode & 0o7777 == 0o777
        (source / "program").chmod(0o6777)
        late = open_in(user, path, os.O_WRONLY)
        write_in(user, late, b"y")
        assert (source / "program").stat().st_mode & 0o7777 == 0o777


@both
def test_a_read_only_mount_leaves_no_access_times(tmp_path: Path, transport: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"12345")
    os.utime(source / "file", (1, 2))
    with shown(tmp_path, transport=transport, read_only=True) as mount, caller() as user:
        fd = open_in(user, mount.path / "file", os.O_RDONLY)
        assert read_in(user, fd, 5) == b"12345"
        assert by_workers(mount) == (0, 0)
        assert (source / "file").stat().st_atime == 1


@both
def test_a_file_that_was_closed_gives_its_space_back(tmp_path: Path, transport: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with shown(tmp_path, transport=transport, timeouts={"attr": 60, "entry": 60}) as mount, callers(*CPUS) as users:
        for user in users:
            fd = open_in(user, mount.path / "big", os.O_RDWR | os.O_CREAT)
            write_in(user, fd, b"x", 1 << 24)
            user.ask(f"os.close({fd})")
        inode = (source / "big").stat().st_ino
        beneath = os.open(source / "big", os.O_RDONLY)
        (source / "big").unlink()

        def is_held() -> bool:
            return any(
                os.stat(f"/proc/{pid}/fd/{fd}").st_ino == inode for pid in worker_pids(mount) for fd in open_fds(pid)
            )

        wait_for(lambda: not is_held())
        assert os.fstat(beneath).st_nlink == 0
        os.close(beneath)


def open_fds(pid: int) -> list[str]:
    return [fd for fd in os.listdir(f"/proc/{pid}/fd") if os.path.exists(f"/proc/{pid}/fd/{fd}")]


@both
def test_files_of_a_stacked_filesystem_go_through_the_workers(tmp_path: Path, transport: str) -> None:
    (tmp_path / "upper").mkdir()
    with shown(tmp_path, transport=transport) as lower:
        (lower.path / "file").write_bytes(b"beneath")
        options = {"source": str(lower.path)}
        with serve(tmp_path / "upper", filesystem="passthrough", options=options, transport=transport) as upper:
            with caller() as user:
                fd = open_in(user, upper.path / "file", os.O_RDWR)
                assert read_in(user, fd, 7) == b"beneath"
                write_in(user, fd, b"BE")
                user.ask(f"os.close({fd})")
            assert by_workers(upper)[1] == 2
            wait_for(lambda: "it lies on a filesystem that is stacked itself" in upper.output())
        assert (tmp_path / "source" / "file").read_bytes() == b"BEneath"


@both
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_open_files_outlive_workers_and_others_can_open_them(tmp_path: Path, transport: str, number: int) -> None:
    with shown(tmp_path, transport=transport) as mount, callers(*CPUS) as users:
        held = [open_in(user, mount.path / "file", os.O_RDWR | os.O_CREAT) for user in users]
        for round_ in range(2):
            before = worker_pids(mount)
            for pid in before:
                os.kill(pid, number)
            wait_for(lambda before=before: not set(before) & set(worker_pids(mount)) and None not in worker_pids(mount))  # type: ignore[misc]
            for place, (user, fd) in enumerate(zip(users, held, strict=True)):
                write_in(user, fd, b"%d" % round_, place)
                again = open_in(user, mount.path / "file", os.O_RDONLY)
                assert read_in(user, again, 1, place) == b"%d" % round_
                user.ask(f"os.close({again})")
        for user, fd in zip(users, held, strict=True):
            user.ask(f"os.close({fd})")
        assert by_workers(mount) == (0, 0)


STORM = """
import os, sys
for number in range(int(sys.argv[2])):
    fd = os.open(sys.argv[1], (os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND)[number % 3])
    os.close(fd)
"""


@both
def test_a_storm_of_opens_and_deaths_leaves_no_file_that_cannot_be_opened(tmp_path: Path, transport: str) -> None:
    """Workers die by a signal that they see: no request is lost (see death.py)."""
    with shown(tmp_path, transport=transport) as mount:
        (tmp_path / "source" / "file").touch()
        with contextlib.ExitStack() as stack:
            storm = [
                stack.enter_context(client(STORM, mount.path / "file", 1500, cpu=CPUS[i % len(CPUS)])) for i in range(4)
            ]
            for number in range(4):
                pids = worker_pids(mount)
                os.kill(pids[number % len(pids)], signal.SIGSEGV)
                wait_for(lambda pids=pids: None not in worker_pids(mount) and worker_pids(mount) != pids)  # type: ignore[misc]
            for one in storm:
                one.result(30)
        with caller() as user:
            fd = open_in(user, mount.path / "file", os.O_RDWR)
            write_in(user, fd, b"1")
        assert by_workers(mount) == (0, 0)


@both
def test_a_filesystem_of_ones_own_can_offer_its_files(tmp_path: Path, transport: str) -> None:
    (tmp_path / "backing").write_bytes(b"contents")
    with serve_class(tmp_path, "Offering", transport=transport) as mount, callers(CPUS[0], CPUS[-1]) as (one, other):
        fd = open_in(one, mount.path / "f0", os.O_RDWR)
        assert read_in(one, fd, 8) == b"contents"
        write_in(one, fd, b"C")
        assert said(tmp_path, "read") == said(tmp_path, "write") == []
        # While it is passed through, a file that is not offered reads and writes by the methods.
        second = open_in(other, mount.path / "f0", os.O_RDWR | os.O_DSYNC)
        assert read_in(other, second, 8) == b"Contents"
        assert len(said(tmp_path, "read")) == 1
        one.ask(f"os.close({fd})")
        other.ask(f"os.close({second})")
        # A node that is open otherwise takes no offer until it is closed.
        second = open_in(other, mount.path / "f1", os.O_RDWR | os.O_DSYNC)
        fd = open_in(one, mount.path / "f1", os.O_RDWR)
        assert read_in(one, fd, 8) == b"Contents"
        assert len(said(tmp_path, "read")) == 2


def test_what_cannot_be_passed_through_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    file = write_config(tmp_path, "m", mountpoint=str(tmp_path / "mnt"), filesystem="memory", data="passthrough")
    for command in ("check", "run"):
        refused = ringmount(command, str(file))
        assert refused.returncode == 3
        assert "data: passthrough is not to be had: memory has no files beneath to offer" in refused.stderr


@both
def test_a_slow_read_does_not_hold_up_its_worker_and_survives_it(tmp_path: Path, transport: str) -> None:
    """Beneath is another mount, whose reads wait until they may go."""
    (tmp_path / "upper").mkdir()
    with serve_class(tmp_path, "AsyncGate") as slow:
        options = {"source": str(slow.path)}
        with (
            serve(
                tmp_path / "upper",
                filesystem="passthrough",
                options=options,
                data="userspace",
                cpus=[CPUS[0]],
                transport=transport,
            ) as mount,
            caller(CPUS[0]) as reader,
            caller(CPUS[0]) as other,
        ):
            fd = open_in(reader, mount.path / "f0", os.O_RDONLY)
            reader.begin(f"list(os.pread({fd}, 8, 0))")
            wait_for(lambda: said(tmp_path, "begin"))
            for number in range(20):
                assert other.ask(f"os.stat({str(mount.path / f'f{number}')!r}).st_size")
            (pid,) = worker_pids(mount)
            os.kill(pid, signal.SIGSEGV)
            wait_for(lambda: worker_pids(mount) not in ([pid], [None]))
            assert other.ask(f"os.stat({str(mount.path / 'f30')!r}).st_size")
            (tmp_path / "go").touch()
            assert bytes(reader.finish()) == b"%08d" % 2
            assert status(mount)["workers"][0]["retried"] == 1


@both
def test_what_is_not_in_memory_is_read_all_the_same(tmp_path: Path, transport: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    contents = os.urandom(3 << 20)
    (source / "file").write_bytes(contents)
    with shown(tmp_path, transport=transport, data="userspace", cache="none") as mount, caller() as user:
        fd = open_in(user, mount.path / "file", os.O_RDONLY)
        beneath = os.open(source / "file", os.O_RDONLY)
        os.fsync(beneath)
        for offset in (0, 1 << 20, (3 << 20) - 100):
            os.posix_fadvise(beneath, 0, 0, os.POSIX_FADV_DONTNEED)
            assert read_in(user, fd, 5000, offset) == contents[offset : offset + 5000]
        os.close(beneath)
