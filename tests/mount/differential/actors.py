"""Processes that make the system calls: each a user's, pinned to a CPU, with open files and locks of its own.

Nothing else touches a mount, so that a call that does not return ends the test and does not hang it.
"""

import contextlib
import ctypes
import os
import signal
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe

from mount.differential.worlds import World
from mount.posix.users import User, fork

PATIENCE = 30.0
"""Seconds that a message's calls may take."""
FAREWELL = 2.0
"""Seconds that a killed process may take to die: one whose request a dead server has stays until the mount is gone."""

_PR_SET_PDEATHSIG = 1

Step = tuple[object, ...]
"""An operation of `World` by name, and its arguments; or one of the process itself: begin, umask, move."""


class Hung(Exception):
    """A call did not return."""


class Actor:
    """A process that does what it is told, in every world, and reports each world's results."""

    def __init__(self, user: User, cpu: int) -> None:
        self.user = user
        self.cpu = cpu
        self._connection, child = Pipe()
        self.pid = fork()
        if self.pid == 0:
            try:
                self._connection.close()  # else it would not see the test's end
                _act(child, user, cpu)
            except EOFError:
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        child.close()

    def tell(self, calls: Sequence[Step]) -> None:
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
        self._connection.close()
        os.kill(self.pid, signal.SIGKILL)
        deadline = time.monotonic() + FAREWELL
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.001)


def _act(connection: Connection, user: User, cpu: int) -> None:
    """What the process does until it is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.sched_setaffinity(0, [cpu])
    os.chdir("/")
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
    match operation, arguments:
        case "begin", (bytes(name), *tops):
            for world in worlds:
                with contextlib.suppress(OSError):
                    world.end()
            worlds[:] = [World(top, top + b"/" + name) for top in tops if isinstance(top, bytes)]
            return ()
        case "umask", (int(mask),):
            os.umask(mask)
            return ()
        case "move", ():
            os.sched_setaffinity(0, [another_cpu(*os.sched_getaffinity(0))])
            return ()
    return tuple(world.call(operation, *arguments) for world in worlds)
