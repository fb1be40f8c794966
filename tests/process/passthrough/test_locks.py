"""Locks kept by the files beneath."""

import asyncio
import errno
import fcntl
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from process.passthrough.support import Tables, Worker, error, nothing_stays_open

from ringmount.workers import api
from ringmount.workers.api import ROOT, Handle, Lock, NodeId
from ringmount.workers.filesystems.passthrough import Passthrough, PassthroughLocks, locks

ONE, TWO = 0x1111, 0xFFFF_FFFF_FFFF_2222


class Locker(Worker):
    """A worker, and an open file to lock."""

    fs: PassthroughLocks

    def __init__(self, source: Path, tables: Tables, worker: int = 0) -> None:
        super().__init__(source, tables, worker, PassthroughLocks, locks="backing")

    def setlk(
        self,
        at: tuple[NodeId, Handle],
        owner: int,
        kind: int,
        start: int = 0,
        end: int = locks.TO_THE_END,
        wait: bool = False,
    ) -> None:
        asyncio.run(self.fs.setlk(self.root, *at, owner, Lock(kind, start, end, 77), False))

    def getlk(
        self, at: tuple[NodeId, Handle], owner: int, kind: int, start: int = 0, end: int = locks.TO_THE_END
    ) -> Lock:
        return self.fs.getlk(self.root, *at, owner, Lock(kind, start, end))

    def flock(self, at: tuple[NodeId, Handle], operation: int, wait: bool = False) -> None:
        asyncio.run(self.fs.flock(self.root, *at, ONE, operation, wait))


@pytest.fixture
def lockers(mode: str, source: Path, tables: Tables) -> Iterator[tuple[Locker, Locker]]:
    """Two workers of one mount."""
    mask = os.umask(0o022)
    with nothing_stays_open():
        first, second = Locker(source, tables), Locker(source, tables, 1)
        yield first, second
        first.forget_all(second)
        first.fs.stop()
        second.fs.stop()
    os.umask(mask)


@pytest.fixture
def file(lockers: tuple[Locker, Locker]) -> Iterator[tuple[NodeId, Handle]]:
    first = lockers[0]
    made, fh = first.create(b"file")
    yield made.node, fh
    for owner in (ONE, TWO):
        first.fs.flush(first.root, made.node, fh, owner)
    first.release(made.node, fh)
    assert dict(first.mount.nodes.iterate()).keys() <= {ROOT, made.node}


At = tuple[NodeId, Handle]


def test_locks_of_two_owners_exclude_each_other_in_any_worker(lockers: tuple[Locker, Locker], file: At) -> None:
    first, second = lockers
    first.setlk(file, ONE, fcntl.F_WRLCK, 10, 19)
    for worker in lockers:
        with error(errno.EAGAIN):
            worker.setlk(file, TWO, fcntl.F_RDLCK, 0, 10)
        worker.setlk(file, TWO, fcntl.F_RDLCK, 20, 29)
        worker.setlk(file, ONE, fcntl.F_WRLCK, 12, 13)
    second.setlk(file, ONE, fcntl.F_UNLCK, 10, 19)
    first.setlk(file, TWO, fcntl.F_WRLCK, 0, 15)


def test_a_lock_in_the_way_is_told(lockers: tuple[Locker, Locker], file: At) -> None:
    first, _second = lockers
    assert first.getlk(file, ONE, fcntl.F_WRLCK).type == fcntl.F_UNLCK
    first.setlk(file, ONE, fcntl.F_WRLCK, 10, 19)
    first.setlk(file, TWO, fcntl.F_RDLCK, 100)
    for worker in lockers:
        found = worker.getlk(file, TWO, fcntl.F_RDLCK, 0, 50)
        assert (found.type, found.start, found.end, found.pid) == (fcntl.F_WRLCK, 10, 19, 0)
        assert worker.getlk(file, ONE, fcntl.F_WRLCK, 0, 50).type == fcntl.F_UNLCK
        found = worker.getlk(file, ONE, fcntl.F_WRLCK, 200, 300)
        assert (found.type, found.start, found.end) == (fcntl.F_RDLCK, 100, locks.TO_THE_END)


def test_a_close_of_the_owner_drops_its_locks_and_no_others(lockers: tuple[Locker, Locker], file: At) -> None:
    first, second = lockers
    first.setlk(file, ONE, fcntl.F_WRLCK, 0, 9)
    first.setlk(file, TWO, fcntl.F_WRLCK, 10, 19)
    second.fs.flush(second.root, *file, ONE)
    second.fs.flush(second.root, *file, ONE)
    assert first.getlk(file, 0, fcntl.F_WRLCK, 0, 9).type == fcntl.F_UNLCK
    assert first.getlk(file, 0, fcntl.F_WRLCK, 10, 19).type == fcntl.F_WRLCK


def test_unlocking_what_is_not_locked_opens_nothing(lockers: tuple[Locker, Locker], file: At) -> None:
    first = lockers[0]
    with nothing_stays_open():
        first.setlk(file, ONE, fcntl.F_UNLCK)
        assert first.getlk(file, ONE, fcntl.F_RDLCK).type == fcntl.F_UNLCK


def test_processes_that_use_the_source_see_the_locks(lockers: tuple[Locker, Locker], file: At) -> None:
    first = lockers[0]
    first.setlk(file, ONE, fcntl.F_WRLCK, 5, 9)
    first.flock(file, fcntl.LOCK_EX)
    with (first.source / "file").open("r+") as direct:
        with error(errno.EAGAIN):
            fcntl.lockf(direct, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7)
        with error(errno.EAGAIN):
            fcntl.flock(direct, fcntl.LOCK_SH | fcntl.LOCK_NB)
        first.flock(file, fcntl.LOCK_UN)
        fcntl.flock(direct, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with error(errno.EAGAIN):
            first.flock(file, fcntl.LOCK_SH)


def test_a_file_that_may_not_be_written_can_be_locked_for_reading(lockers: tuple[Locker, Locker], file: At) -> None:
    first = lockers[0]
    objects_open = first.fs.objects.open

    def read_only(node: NodeId, flags: int) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EROFS, "read-only")
        return objects_open(node, flags)

    first.fs.objects.open = read_only  # type: ignore[method-assign]
    first.setlk(file, ONE, fcntl.F_RDLCK)
    with error(errno.EBADF):
        first.setlk(file, ONE, fcntl.F_WRLCK)


def test_two_threads_of_a_caller_share_its_locks(lockers: tuple[Locker, Locker], file: At) -> None:
    """Another worker makes the owner's file between this one's look and its own."""
    first, second = lockers
    owners = first.fs._owners
    find = owners.find

    def too_late(node: NodeId, owner: int) -> int | None:
        found = find(node, owner)
        if found is None:
            fcntl.fcntl(second.fs._owners.open(node, owner), fcntl.F_OFD_SETLK, locks.encode(Lock(fcntl.F_WRLCK, 0, 9)))
        return found

    owners.find = too_late  # type: ignore[method-assign]
    first.setlk(file, ONE, fcntl.F_WRLCK, 10, 19)
    owners.find = find  # type: ignore[method-assign]
    assert first.getlk(file, TWO, fcntl.F_WRLCK, 0, 9).type == fcntl.F_WRLCK
    second.setlk(file, ONE, fcntl.F_UNLCK)
    assert first.getlk(file, TWO, fcntl.F_WRLCK).type == fcntl.F_UNLCK


async def is_waiting(coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    task = asyncio.ensure_future(coroutine)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    return task


@pytest.mark.parametrize("kind", ["fcntl", "flock"])
def test_who_waits_gets_the_lock_when_it_is_free(lockers: tuple[Locker, Locker], file: At, kind: str) -> None:
    first, second = lockers
    other = first.open(file[0])

    def lock(worker: Locker, owner: int, how: int) -> Coroutine[Any, Any, None]:
        if kind == "flock":
            operation = {fcntl.F_WRLCK: fcntl.LOCK_EX, fcntl.F_UNLCK: fcntl.LOCK_UN}[how]
            fh = file[1] if owner == ONE else other
            return worker.fs.flock(worker.root, file[0], fh, owner, operation, True)
        return worker.fs.setlk(worker.root, *file, owner, Lock(how), True)

    async def run() -> None:
        await lock(first, ONE, fcntl.F_WRLCK)
        waiting = await is_waiting(lock(second, TWO, fcntl.F_WRLCK))
        await lock(second, ONE, fcntl.F_UNLCK)
        await asyncio.wait_for(waiting, 10)
        cancelled = await is_waiting(lock(first, ONE, fcntl.F_WRLCK))
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        first.root.interrupted = True
        with error(errno.EINTR):
            await lock(first, ONE, fcntl.F_WRLCK)

    asyncio.run(run())
    first.release(file[0], other)


def test_the_kernel_keeps_locks_unless_told_otherwise() -> None:
    for method in ("getlk", "setlk", "flock"):
        assert not api.is_implemented(Passthrough, method)
        assert api.is_implemented(PassthroughLocks, method)


def test_every_close_is_heard_of(lockers: tuple[Locker, Locker], file: At) -> None:
    first = lockers[0]
    opened = first.opened(file[0], os.O_RDONLY)
    assert opened.flags == 0
    first.release(file[0], Handle(opened.fh))
