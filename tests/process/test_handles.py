"""The handle table: alone, under many processes, and with processes that die inside it."""

import contextlib
import errno
import os
import random
import signal
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from process.dying import Region, deaths, end_of, kill_at, start, start_until

from ringmount.workers.api import Handle, NodeId
from ringmount.workers.handles import HandleInfo, HandleTable, size

NODE = NodeId(2**63 + 7)


class Table(HandleTable):
    """A handle table in a region of its own."""

    def __init__(self, capacity: int = 1000, worker: int = 0) -> None:
        self.region = Region(size(capacity))
        super().__init__(self.region.address, self.region.size, worker, create=True)

    def also(self, worker: int) -> HandleTable:
        """The same table as another worker sees it."""
        return HandleTable(self.region.address, self.region.size, worker)


@pytest.fixture
def table() -> Table:
    return Table()


def errno_of(call: Callable[[], object]) -> str:
    with pytest.raises(OSError) as caught:
        call()
    return errno.errorcode[caught.value.errno or 0]


def test_an_open_file_is_known_to_all_workers(table: Table) -> None:
    fh = table.add(NODE, os.O_RDWR | os.O_APPEND, 5)
    other = table.also(worker=1)
    assert other.fd(fh) == 5
    assert other.info(fh) == (NODE, os.O_RDWR | os.O_APPEND)
    assert other.get(fh).worker == 0


@pytest.mark.parametrize("fd", [0, 1, 2**31 - 3])
def test_any_descriptor_can_be_kept(table: Table, fd: int) -> None:
    fh = table.add(NODE, 0, fd)
    assert (table.fd(fh), table.get(fh).fd) == (fd, fd)
    assert table.remove(fh) == fd


def test_descriptors_that_died_are_opened_again_when_they_are_needed(table: Table) -> None:
    opened, unopened = table.add(NODE, os.O_RDWR, 5), table.add(NODE, 0)
    assert table.lose_descriptors() == 1
    assert errno_of(lambda: table.fd(opened)) == "EBADF"
    asked: list[tuple[NodeId, int]] = []

    def reopen(node: NodeId, flags: int) -> int:
        asked.append((node, flags))
        return os.open("/dev/null", os.O_RDWR)

    table.reopen_descriptor = reopen
    fd = table.fd(opened)
    assert (table.fd(opened), table.also(1).fd(opened)) == (fd, fd)
    assert asked == [(NODE, os.O_RDWR)]
    assert table.remove(opened) == fd
    os.close(fd)
    assert table.remove(unopened) == -1
    assert errno_of(lambda: table.fd(opened)) == "EBADF"


def test_of_two_workers_that_open_a_file_again_one_is_believed(table: Table) -> None:
    fh, other = table.add(NODE, os.O_RDWR, 5), table.also(1)
    table.lose_descriptors()
    first: list[int] = []

    def reopen_late(node: NodeId, flags: int) -> int:
        other.reopen_descriptor = lambda node, flags: os.open("/dev/null", os.O_RDWR)
        first.append(other.fd(fh))
        return os.open("/dev/null", os.O_RDWR)

    table.reopen_descriptor = reopen_late
    assert table.fd(fh) == first[0] == other.fd(fh)
    os.close(table.remove(fh))


def test_a_handle_without_a_descriptor_is_known_and_has_none(table: Table) -> None:
    fh = table.add(NODE, os.O_RDONLY)
    assert table.info(fh) == (NODE, os.O_RDONLY)
    assert errno_of(lambda: table.fd(fh)) == "EBADF"
    assert table.remove(fh) == -1


def test_the_descriptor_is_given_to_one_caller_only(table: Table) -> None:
    fh = table.add(NODE, 0, 9)
    assert table.also(worker=1).remove(fh) == 9
    assert errno_of(lambda: table.remove(fh)) == "EBADF"
    assert errno_of(lambda: table.fd(fh)) == "EBADF"


def test_an_unknown_handle_is_ebadf_for_every_call(table: Table) -> None:
    ended = table.add(NODE, 0, 9)
    table.remove(ended)
    table.add(NODE, 0, 9)
    for fh in map(Handle, (0, ended, 999, 1000, 2**32 - 1, 2**32, 2**63, 2**64 - 1)):
        calls: list[Callable[[], object]] = [
            partial(table.fd, fh),
            partial(table.info, fh),
            partial(table.set_kept, fh),
            partial(table.get, fh),
            partial(table.remove, fh),
        ]
        assert {errno_of(call) for call in calls} == {"EBADF"}


def test_handles_are_never_zero_and_not_soon_used_again(table: Table) -> None:
    seen = set()
    for _ in range(3000):
        fh = table.add(NODE, 0)
        seen.add(fh)
        table.remove(fh)
    assert len(seen) == 3000
    assert 0 not in seen


def test_a_full_table_says_enfile_and_works_on() -> None:
    table = Table(capacity=10)
    handles = [table.add(NODE, 0, fd) for fd in range(9)]
    assert errno_of(lambda: table.add(NODE, 0, 9)) == "ENFILE"
    assert table.remove(handles[4]) == 4
    assert table.fd(table.also(worker=70).add(NODE, 0, 11)) == 11
    assert errno_of(lambda: table.add(NODE, 0, 9)) == "ENFILE"


@pytest.fixture
def lasting(table: Table) -> tuple[Table, list[int]]:
    """A table whose descriptors somebody keeps, and the handles of which that was asked."""
    asked: list[int] = []

    def keep(files: list[HandleInfo]) -> None:
        for file in files:
            table.set_kept(file.fh)
            asked.append(file.fh)

    table.is_lasting = True
    table.keeper = keep
    return table, asked


def test_an_open_file_that_loses_its_last_name_is_kept(lasting: tuple[Table, list[int]], tmp_path: Path) -> None:
    table, asked = lasting
    (tmp_path / "file").touch()
    os.link(tmp_path / "file", tmp_path / "other")
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context((tmp_path / name).open()) for name in ("file", "other")]
        handles = [table.add(NODE, 0, file.fileno()) for file in files]
        table.losing_name((tmp_path / "file").stat())
        assert not asked  # it has another one
        (tmp_path / "other").unlink()
        (tmp_path / "new").touch()
        table.losing_name((tmp_path / "new").stat())
        assert not asked  # nobody has it open
        for _ in range(2):
            table.losing_name((tmp_path / "file").stat())
            assert asked == handles
        assert table.also(worker=1).get(handles[1]).is_kept
        assert table.remove(handles[0]) == files[0].fileno()
        table.also(worker=1).remove(handles[1])
        table.losing_name((tmp_path / "file").stat())
        assert asked == handles
        assert not table.get(table.add(NODE, 0, files[0].fileno())).is_kept


def test_a_file_without_a_name_is_kept_from_the_start(lasting: tuple[Table, list[int]], tmp_path: Path) -> None:
    table, asked = lasting
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        assert [table.add(NODE, 0, file.fileno())] == asked


def test_nobody_keeps_anything_unless_told_so(table: Table, tmp_path: Path) -> None:
    table.keeper = lambda files: pytest.fail("it was asked")
    with (tmp_path / "file").open("w") as file:
        fh = table.add(NODE, 0, file.fileno())
        table.losing_name((tmp_path / "file").stat())
        table.keep(fh)


def test_iterate_gives_every_handle(table: Table) -> None:
    other = table.also(worker=1)
    expected = {table.add(NODE, i, i): (i, 0) for i in range(300)}
    expected |= {other.add(NODE, i, -1): (-1, 1) for i in range(300)}
    for fh in list(expected)[::3]:
        table.remove(fh)
        del expected[fh]
    assert {handle.fh: (handle.fd, handle.worker) for handle in table.iterate()} == expected


def test_objects_of_ended_handles_are_swept_in_every_worker(table: Table) -> None:
    other = table.also(worker=1)
    kept, ended = table.add(NODE, 0), table.add(NODE, 0)
    for fh in (kept, ended):
        assert other.local(fh) is None
        other.set_local(fh, f"opened {fh}")
    table.remove(ended)
    assert other.sweep_local() == [f"opened {ended}"]
    assert other.sweep_local() == []
    assert (other.local(ended), other.local(kept)) == (None, f"opened {kept}")
    assert table.local(kept) is None
    assert other.pop_local(kept) == f"opened {kept}"
    assert other.pop_local(kept) is None


def test_an_empty_table_of_a_million_handles_takes_a_few_pages() -> None:
    table = Table(capacity=1 << 20)
    table.add(NODE, 0, 3)
    assert table.region.bytes_in_use() < 1 << 16


def test_what_is_not_a_table_is_refused() -> None:
    region = Region(1 << 16)
    for bad in (0, 4096, 4096 + 40):
        assert errno_of(partial(HandleTable, region.address, bad, 0, create=True)) == "EINVAL"
    assert errno_of(lambda: HandleTable(region.address, region.size, 0)) == "EINVAL"
    HandleTable(region.address, region.size, 0, create=True)
    HandleTable(region.address, region.size, 0)
    assert errno_of(lambda: HandleTable(region.address, region.size - 40, 0)) == "EINVAL"
    region.map[8] += 1
    assert errno_of(lambda: HandleTable(region.address, region.size, 0)) == "EPROTONOSUPPORT"


# --- many threads and processes -------------------------------------------------------------------


def test_of_many_threads_that_remove_a_handle_one_gets_the_descriptor(table: Table) -> None:
    handles = [table.add(NODE, 0, fd) for fd in range(500)]
    got: list[int] = []

    def remove_all() -> None:
        for fh in handles:
            with contextlib.suppress(OSError):
                got.append(table.remove(fh))

    threads = [threading.Thread(target=remove_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(500))


def churn(table: HandleTable, seed: int, rounds: int) -> None:
    """Opens and closes at random; every handle must be what it was made as."""
    chance = random.Random(seed)
    held: dict[Handle, tuple[NodeId, int]] = {}
    for number in range(rounds):
        if chance.random() < 0.5 or not held:
            node, fd = NodeId(seed * 10**9 + number), seed * 10**6 + number % 10**6
            held[table.add(node, number % 2**32, fd)] = node, fd
        else:
            fh = chance.choice(list(held))
            node, fd = held.pop(fh)
            assert table.info(fh)[0] == node
            assert table.fd(fh) == fd
            assert table.remove(fh) == fd
    for fh in held:
        table.remove(fh)


def test_processes_share_a_nearly_full_table_without_mixing_handles_up() -> None:
    table = Table(capacity=400)
    tables = [table.also(worker) for worker in range(4)]
    pids = [start(partial(churn, tables[n], n + 1, 5000)) for n in range(4)]
    assert [end_of(pid) for pid in pids] == [0] * 4
    assert list(table.iterate()) == []


# --- death ----------------------------------------------------------------------------------------


def usable(table: Table) -> None:
    """Every slot but the used ones can be taken and given back, again and again."""
    used = len(list(table.iterate()))
    for _ in range(2):
        handles = [table.add(NODE, 0, 1) for _ in range(19 - used)]
        assert errno_of(lambda: table.add(NODE, 0, 1)) == "ENFILE"
        for fh in handles:
            table.remove(fh)


@pytest.mark.parametrize("fd", [-1, 6])
def test_a_death_while_a_handle_is_added_leaves_it_known_or_not_begun(fd: int) -> None:
    table = Table(capacity=20)

    def prepare() -> Callable[[], object]:
        nonlocal table
        table = Table(capacity=20, worker=3)
        return lambda: table.add(NODE, 4, fd)

    found = []
    for _ in deaths(prepare):
        table.sweep(3)
        found.append([(handle.node, handle.flags, handle.fd) for handle in table.iterate()])
        usable(table)
    known = [(NODE, 4, fd)]
    assert all(handles in ([], known) for handles in found)
    assert found == sorted(found)
    assert found[-1] == known


def test_a_death_while_a_handle_is_removed_leaves_it_known_or_gone() -> None:
    table, fh = Table(), Handle(0)

    def prepare() -> Callable[[], object]:
        nonlocal table, fh
        table = Table(capacity=20)
        fh = table.add(NODE, 0, 6)
        return lambda: table.remove(fh)

    for _ in deaths(prepare):
        table.sweep(0)
        left = [handle.fd for handle in table.iterate()]
        assert left in ([], [6])
        if left:
            assert table.remove(fh) == 6
        assert errno_of(lambda: table.remove(fh)) == "EBADF"
        usable(table)


def test_a_death_during_the_sweep_leaves_the_rest_to_the_next_sweep() -> None:
    table = Table(capacity=20, worker=2)
    half_made = [pid for step in range(1, 6) if (pid := kill_at(step, lambda: table.add(NODE, 0, 6)))]
    assert half_made
    assert kill_at(1, lambda: table.sweep(2))
    assert table.sweep(2) > 0
    assert table.sweep(2) == 0
    for handle in list(table.iterate()):
        table.remove(handle.fh)
    usable(table)


def test_a_sweep_leaves_alone_what_other_workers_are_adding(table: Table) -> None:
    other = table.also(worker=1)
    pid = start_until(3, lambda: other.add(NODE, 0, 6), signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)
    assert table.sweep(0) == 0
    assert list(table.iterate()) == []
    os.kill(pid, signal.SIGCONT)
    assert end_of(pid) == 0
    assert [handle.fd for handle in table.iterate()] == [6]


def test_workers_killed_at_random_leave_a_table_that_works() -> None:
    table = Table(capacity=400)
    chance = random.Random(3)
    for _ in range(20):
        tables = [table.also(worker) for worker in range(3)]
        pids = [start(partial(churn, tables[n], n + 1, 10**9)) for n in range(3)]
        while not list(table.iterate()):
            os.sched_yield()
        for fd in range(chance.randrange(2000)):
            table.remove(table.add(NODE, 0, fd))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert [end_of(pid) for pid in pids] == [-signal.SIGKILL] * 3
        for worker in range(3):
            table.sweep(worker)
        for handle in list(table.iterate()):
            assert table.remove(handle.fh) == handle.fd
    handles = [table.add(NODE, 0) for _ in range(399)]
    assert len(set(handles)) == 399
