"""Processes that make the system calls: each a user's, pinned to a CPU, with open files and locks of its own."""

import ctypes
import os
import signal
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe

from mount.differential.worlds import World
from mount.posix.users import User, fork

PATIENCE = 30.0
"""Seconds that a message's calls may take."""

_PR_SET_PDEATHSIG = 1

Call = tuple[object, ...]
"""An operation of `World` by name, and its arguments; or one of the process itself: umask, move, begin."""


class Hung(Exception):
    """A call did not return."""


class Actor:
    """A process that does what it is told, in every world, and reports each world's results."""

    def __init__(self, user: User, cpu: int) -> None:
        self.user = user
        self._connection, child = Pipe()
        self.pid = fork()
        if self.pid == 0:
            try:
                _act(child, user, cpu)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        child.close()

    def tell(self, calls: Sequence[Call]) -> None:
        """Lets it begin; `hear` waits."""
        self._connection.send(list(calls))

    def hear(self) -> list[tuple[object, ...]]:
        """For each call the results, one a world."""
        if not self._connection.poll(PATIENCE):
            raise Hung(f"a call of process {self.pid} did not return within {PATIENCE} seconds")
        results: list[tuple[object, ...]] = self._connection.recv()
        return results

    def ask(self, *call: object) -> tuple[object, ...]:
        """One call's results."""
        self.tell([call])
        return self.hear()[0]

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._connection.close()


def _act(connection: Connection, user: User, cpu: int) -> None:
    """What the process does until it is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.sched_setaffinity(0, [cpu])
    user.become()
    os.umask(0o022)
    worlds: list[World] = []
    while True:
        connection.send([_do(worlds, *call) for call in connection.recv()])


CPUS = sorted(os.sched_getaffinity(0))


def another_cpu(cpu: int) -> int:
    """The next one, of those that there are."""
    return CPUS[(CPUS.index(cpu) + 1) % len(CPUS)]


def _do(worlds: list[World], operation: str, *arguments: object) -> tuple[object, ...]:
    if operation == "begin":
        worlds[:] = [World(root) for root in arguments if isinstance(root, bytes)]
        return ()
    if operation == "umask":
        (mask,) = arguments
        assert isinstance(mask, int)
        os.umask(mask)
        return ()
    if operation == "move":
        os.sched_setaffinity(0, [another_cpu(*os.sched_getaffinity(0))])
        return ()
    return tuple(world.call(operation, *arguments) for world in worlds)
