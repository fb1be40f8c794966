"""The supervisor's loop: waits for descriptors and times, and calls whoever asked for them.

Two kinds of callers: `watch` is about a descriptor, `duties` are functions that do what is due and say when they want
to be asked again. The rule a change must keep: nothing that is called from here may block, and what raises an exception
does not end a mount that serves.
"""

import contextlib
import logging
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Protocol, TypeAlias

from ringmount.daemon import restart

log = logging.getLogger(__name__)

Duty: TypeAlias = Callable[[float], float | None]
"""Does what is due at this time (time.monotonic); returns when it has to be asked again at the latest, if at all."""


class HasFileno(Protocol):
    """What `watch` takes besides a number."""

    def fileno(self) -> int: ...


class Loop:
    """One thread's loop."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.duties: list[Duty] = []
        self.is_tolerant = False
        """Whether an exception of what is called is logged, and the loop goes on: as restart.py says of workers."""
        self.on_fault: Callable[[], None] = lambda: None
        """Called at each of them."""
        self._recent: list[float] = []

    def watch(self, file: int | HasFileno, call: Callable[[], object]) -> None:
        """Calls when the descriptor can be read."""
        self.selector.register(file, selectors.EVENT_READ, lambda mask: call())

    def unwatch(self, file: int | HasFileno) -> None:
        """To be called before the descriptor is closed. Raises KeyError if it is not watched."""
        self.selector.unregister(file)

    def turn(self, patience: float | None = None) -> None:
        """Does what is due, then waits for what happens next, at most `patience` seconds, and sees to it.

        Raises what is called raises, unless `is_tolerant`; and then, if it goes on and on.
        """
        now = time.monotonic()
        times = [at for duty in self.duties if (at := self._do(duty, now)) is not None]
        if patience is not None:
            times.append(now + patience)
        timeout = max(0.0, min(times) - time.monotonic()) if times else None
        for key, mask in self.selector.select(timeout):
            try:
                if self.selector.get_key(key.fileobj) is not key:
                    continue
            except (KeyError, ValueError):  # an earlier event of this turn has closed it
                continue
            try:
                key.data(mask)
            except Exception as error:
                self._failed(error)

    def _do(self, duty: Duty, now: float) -> float | None:
        try:
            return duty(now)
        except Exception as error:
            self._failed(error)
            return now + restart.FIRST_DELAY

    def _failed(self, error: Exception) -> None:
        if not self.is_tolerant:
            raise error
        now = time.monotonic()
        self._recent = [*self._recent[-restart.MOST :], now]
        decision = restart.after_death(self._recent, now)
        if isinstance(decision, restart.GiveUp):
            raise error
        self.on_fault()
        log.error("the supervisor failed, and goes on: %s", error, exc_info=error)
        time.sleep(decision.delay)  # workers answer by themselves

    @contextlib.contextmanager
    def signals(self, call: Callable[[int], None], *numbers: int) -> Iterator[None]:
        """These signals call, with their number, and wake the loop."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)

        def handle(number: int, frame: FrameType | None) -> None:
            call(number)

        previous = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, handle) for number in numbers}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)  # the program before this one blocked them: see reload.py
        self.watch(ours, lambda: ours.recv(64))
        try:
            yield
        finally:
            self.unwatch(ours)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(previous)
            ours.close()
            theirs.close()
