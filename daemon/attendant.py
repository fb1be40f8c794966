"""A process beside the workers that lives as long as the supervisor, and is started again when it dies."""

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Callable

from ringmount.daemon import restart
from ringmount.daemon.children import become
from ringmount.daemon.loop import Loop
from ringmount.daemon.mount import Mount, Phase

log = logging.getLogger(__name__)


class Attendant:
    """`comm`: its name (proc(5)); `run`: what it does, which is not to return, told whether it is the first one.

    `keep`: the descriptors that it inherits; `on_death`: told of its pid and exit code (negative: the signal), here.
    """

    def __init__(
        self,
        mount: Mount,
        loop: Loop,
        comm: str,
        run: Callable[[bool], object],
        keep: Callable[[], set[int]],
        on_death: Callable[[int, int], None],
    ) -> None:
        self._mount = mount
        self._loop = loop
        self._comm = comm
        self._run = run
        self._keep = keep
        self._on_death = on_death
        self._pid = 0
        self._pidfd = -1
        self._deaths: list[float] = []
        self._due: float | None = None
        loop.duties.append(self._restart)

    @property
    def pid(self) -> int | None:
        """None while there is no process."""
        return self._pid if self._pidfd >= 0 else None

    @property
    def deaths(self) -> int:
        """Of the last ones."""
        return len(self._deaths)

    def start(self, is_first: bool = True) -> None:
        """Raises OSError."""
        supervisor = os.getpid()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                become(self._comm, supervisor, self._keep())
                self._run(is_first)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            except BaseException:
                log.exception("%s ends", self._comm)
            finally:
                os._exit(code)
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._loop.watch(self._pidfd, self._died)

    def _died(self) -> None:
        pid, code = self._pid, self.reap()
        if self._mount.phase is Phase.STOPPING:
            return
        now = time.monotonic()
        self._deaths = [*self._deaths[-31:], now]
        decision = restart.after_death(self._deaths, now)
        self._due = now + (decision.delay if isinstance(decision, restart.Restart) else restart.MAX_DELAY)
        self._on_death(pid, code)

    def _restart(self, now: float) -> float | None:
        if self._due is None or now < self._due:
            return self._due
        self._due = None
        try:
            self.start(is_first=False)
        except OSError as error:
            log.error("cannot start another %s: %s; trying again", self._comm, error.strerror)
            self._due = now + restart.MAX_DELAY
        return self._due

    def kill(self, patience: float) -> bool:
        """Has it die, and followed by no other. True once it has; then it wants to be reaped."""
        self._due = None
        if self._pidfd < 0:
            return True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        return bool(select.select([self._pidfd], [], [], patience)[0])

    def reap(self) -> int:
        """Its exit code, when it has died; waits for that. 0 without a process."""
        if self._pidfd < 0:
            return 0
        self._loop.unwatch(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
