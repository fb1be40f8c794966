"""Locks that the memory filesystem keeps itself: who gets them, who waits, and what ends the waiting."""

import asyncio
import errno
from collections.abc import Awaitable, Callable, Coroutine
from fcntl import F_RDLCK, F_UNLCK, F_WRLCK, LOCK_EX, LOCK_SH, LOCK_UN

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pure.memory_driver import ROOT_USER, Driver, handle_of

from ringmount.workers.abi import OpenReply
from ringmount.workers.api import Lock, NodeId
from ringmount.workers.filesystems.memory import LockingMemory
from ringmount.workers.filesystems.memory.locks import RangeLocks

ONE, TWO, THREE = 0x1111, 0x2222, 0x3333
END = (1 << 63) - 1


class LockDriver(Driver):
    """A file to lock, by owners."""

    fs: LockingMemory

    def __init__(self) -> None:
        super().__init__(LockingMemory)
        self.node = self.make(b"file")
        self.fh = handle_of(self.node)

    def getlk(self, owner: int, kind: int, start: int = 0, end: int = END) -> Lock:
        return self.fs.getlk(ROOT_USER, self.node, self.fh, owner, Lock(kind, start, end))

    async def setlk(
        self, owner: int, kind: int, start: int = 0, end: int = END, *, wait: bool = False, node: NodeId | None = None
    ) -> None:
        lock = Lock(kind, start, end, pid=owner + 1)
        await self.fs.setlk(ROOT_USER, node or self.node, self.fh, owner, lock, wait)

    async def flock(self, owner: int, operation: int, *, wait: bool = False) -> None:
        await self.fs.flock(ROOT_USER, self.node, self.fh, owner, operation, wait)


async def error_of(awaitable: Awaitable[None]) -> int | None:
    with pytest.raises(OSError) as caught:
        await awaitable
    return caught.value.errno


async def is_waiting(coroutine: Coroutine[object, object, None]) -> "asyncio.Task[None]":
    """Starts it, and makes sure that it does not end by itself."""
    task = asyncio.ensure_future(coroutine)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    return task


def run(test: Callable[[LockDriver], Coroutine[object, object, None]]) -> None:
    """Runs the test, and checks that nothing is left once all owners have closed the file."""
    mem = LockDriver()
    asyncio.run(test(mem))
    for owner in (ONE, TWO, THREE):
        mem.fs.flush(ROOT_USER, mem.node, mem.fh, owner)
        mem.fs.release(ROOT_USER, mem.node, mem.fh, 0, owner)
    assert mem.fs._locks == {}
    assert mem.fs._waits == []


def test_files_are_flushed_because_that_drops_locks() -> None:
    mem = LockDriver()
    assert mem.fs.open(ROOT_USER, mem.node, 0).flags == OpenReply.KEEP_CACHE


# --- POSIX locks --------------------------------------------------------------------------------


def test_readers_share_and_a_writer_is_alone() -> None:
    async def test(mem: LockDriver) -> None:
        await mem.setlk(ONE, F_RDLCK)
        await mem.setlk(TWO, F_RDLCK)
        assert await error_of(mem.setlk(THREE, F_WRLCK)) == errno.EAGAIN
        await mem.setlk(ONE, F_UNLCK)
        await mem.setlk(TWO, F_WRLCK)
        assert await error_of(mem.setlk(ONE, F_RDLCK)) == errno.EAGAIN

    run(test)


def test_locks_that_do_not_overlap_do_not_meet() -> None:
    async def test(mem: LockDriver) -> None:
        await mem.setlk(ONE, F_WRLCK, 0, 9)
        await mem.setlk(TWO, F_WRLCK, 10, END)
        assert await error_of(mem.setlk(TWO, F_WRLCK, 9, 9)) == errno.EAGAIN

    run(test)


def test_getlk_tells_what_is_in_the_way() -> None:
    async def test(mem: LockDriver) -> None:
        await mem.setlk(ONE, F_WRLCK, 10, 19)
        assert mem.getlk(TWO, F_RDLCK, 15, 30) == Lock(F_WRLCK, 10, 19, ONE + 1)
        assert mem.getlk(TWO, F_RDLCK, 20, 30).type == F_UNLCK
        assert mem.getlk(ONE, F_WRLCK, 15, 30).type == F_UNLCK

    run(test)


def test_neighbouring_ranges_of_one_owner_become_one() -> None:
    async def test(mem: LockDriver) -> None:
        await mem.setlk(ONE, F_WRLCK, 0, 9)
        await mem.setlk(ONE, F_WRLCK, 20, 29)
        await mem.setlk(ONE, F_WRLCK, 10, 19)
        assert mem.getlk(TWO, F_RDLCK, 5, 5) == Lock(F_WRLCK, 0, 29, ONE + 1)
        await mem.setlk(ONE, F_UNLCK, 10, 10)
        assert mem.getlk(TWO, F_RDLCK, 5, 5) == Lock(F_WRLCK, 0, 9, ONE + 1)
        assert mem.getlk(TWO, F_RDLCK, 10, 99) == Lock(F_WRLCK, 11, 29, ONE + 1)

    run(test)


def test_a_waiter_gets_the_lock_when_it_is_free() -> None:
    async def test(mem: LockDriver) -> None:
        await mem.setlk(ONE, F_WRLCK, 0, 9)
        await mem.setlk(THREE, F_RDLCK, 10, 19)
        task = await is_waiting(mem.setlk(TWO, F_WRLCK, 0, 19, wait=True))
        await mem.setlk(ONE, F_UNLCK, 0, 9)
        await asyncio.sleep(0)
        assert not task.done(), "THREE still holds a part"
        await mem.setlk(THREE, F_UNLCK, 10, 19)
        await task
        assert mem.getlk(ONE, F_RDLCK).pid == TWO + 1

    run(test)


def test_closing_a_file_lets_waiters_in() -> None:
    async def test(mem: LockDriver) -> None:
        await mem.setlk(ONE, F_WRLCK)
        task = await is_waiting(mem.setlk(TWO, F_WRLCK, wait=True))
        mem.fs.flush(ROOT_USER, mem.node, mem.fh, ONE)
        await task

    run(test)


def test_an_interrupted_waiter_gets_nothing_and_leaves_no_trace() -> None:
    async def test(mem: LockDriver) -> None:
        await mem.setlk(ONE, F_WRLCK)
        task = await is_waiting(mem.setlk(TWO, F_WRLCK, wait=True))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await mem.setlk(ONE, F_UNLCK)
        assert mem.getlk(THREE, F_WRLCK).type == F_UNLCK

    run(test)


def test_two_who_would_wait_for_each_other_do_not() -> None:
    async def test(mem: LockDriver) -> None:
        await mem.setlk(ONE, F_WRLCK, 0, 0)
        await mem.setlk(TWO, F_WRLCK, 1, 1)
        await mem.setlk(THREE, F_WRLCK, 2, 2)
        first = await is_waiting(mem.setlk(ONE, F_WRLCK, 1, 1, wait=True))
        second = await is_waiting(mem.setlk(TWO, F_WRLCK, 2, 2, wait=True))
        assert await error_of(mem.setlk(THREE, F_WRLCK, 0, 0, wait=True)) == errno.EDEADLK
        await mem.setlk(THREE, F_UNLCK)
        await second
        await mem.setlk(TWO, F_UNLCK)
        await first

    run(test)


def test_a_deadlock_is_seen_across_files() -> None:
    async def test(mem: LockDriver) -> None:
        other = mem.make(b"other")
        await mem.setlk(ONE, F_WRLCK)
        await mem.setlk(TWO, F_WRLCK, node=other)
        task = await is_waiting(mem.setlk(ONE, F_WRLCK, wait=True, node=other))
        assert await error_of(mem.setlk(TWO, F_WRLCK, wait=True)) == errno.EDEADLK
        mem.fs.flush(ROOT_USER, other, mem.fh, TWO)
        await task
        mem.fs.flush(ROOT_USER, other, mem.fh, ONE)

    run(test)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([ONE, TWO]),
            st.sampled_from([F_RDLCK, F_WRLCK, F_UNLCK]),
            st.integers(0, 15),
            st.integers(0, 15),
        ),
        max_size=30,
    )
)
def test_ranges_are_what_a_byte_by_byte_table_says(wishes: list[tuple[int, int, int, int]]) -> None:
    locks = RangeLocks()
    table: dict[int, list[int]] = {ONE: [F_UNLCK] * 16, TWO: [F_UNLCK] * 16}
    for owner, kind, one, two in wishes:
        wish = Lock(kind, min(one, two), max(one, two))
        theirs = table[TWO if owner == ONE else ONE][wish.start : wish.end + 1]
        blocked = kind != F_UNLCK and any(F_WRLCK in (kind, held) for held in theirs if held != F_UNLCK)
        assert (locks.conflict(owner, wish) is not None) == blocked
        if not blocked:
            locks.set(owner, wish)
            table[owner][wish.start : wish.end + 1] = [kind] * (wish.end - wish.start + 1)
    for owner, row in table.items():
        shown = [F_UNLCK] * 16
        for held in locks.held:
            if held.owner == owner:
                assert shown[held.start : held.end + 1] == [F_UNLCK] * (held.end - held.start + 1), "no overlap"
                shown[held.start : held.end + 1] = [held.type] * (held.end - held.start + 1)
        assert shown == row


# --- flock --------------------------------------------------------------------------------------


def test_flock_is_shared_or_alone() -> None:
    async def test(mem: LockDriver) -> None:
        await mem.flock(ONE, LOCK_SH)
        await mem.flock(TWO, LOCK_SH)
        assert await error_of(mem.flock(THREE, LOCK_EX)) == errno.EAGAIN
        await mem.flock(TWO, LOCK_UN)
        await mem.flock(ONE, LOCK_EX)
        assert await error_of(mem.flock(TWO, LOCK_SH)) == errno.EAGAIN

    run(test)


def test_a_failed_conversion_of_flock_loses_the_lock_as_linux_does() -> None:
    async def test(mem: LockDriver) -> None:
        await mem.flock(ONE, LOCK_SH)
        await mem.flock(TWO, LOCK_SH)
        assert await error_of(mem.flock(ONE, LOCK_EX)) == errno.EAGAIN
        await mem.flock(TWO, LOCK_EX)

    run(test)


def test_releasing_a_file_lets_those_in_who_wait_for_flock() -> None:
    async def test(mem: LockDriver) -> None:
        await mem.flock(ONE, LOCK_EX)
        first = await is_waiting(mem.flock(TWO, LOCK_SH, wait=True))
        second = await is_waiting(mem.flock(THREE, LOCK_SH, wait=True))
        mem.fs.release(ROOT_USER, mem.node, mem.fh, 0, ONE)
        await first
        await second

    run(test)


def test_an_interrupted_flock_leaves_no_trace() -> None:
    async def test(mem: LockDriver) -> None:
        await mem.flock(ONE, LOCK_EX)
        task = await is_waiting(mem.flock(TWO, LOCK_EX, wait=True))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await mem.flock(ONE, LOCK_UN)
        await mem.flock(THREE, LOCK_EX)

    run(test)


def test_flock_and_posix_locks_do_not_meet() -> None:
    async def test(mem: LockDriver) -> None:
        await mem.flock(ONE, LOCK_EX)
        await mem.setlk(TWO, F_WRLCK)

    run(test)
