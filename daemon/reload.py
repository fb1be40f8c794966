"""Upgrade in place: on SIGHUP the supervisor becomes a new one, with new code and settings, and new workers follow.

First a trial in a fresh interpreter says whether that can work (trial.py); the old workers serve meanwhile, and go on
if it cannot. Then all workers die by exec, which loses no request, and the supervisor executes itself: same process,
same descriptors. What it finds is what a supervisor finds after a death, but that open files are still open.
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

import msgspec

from ringmount.daemon.errands import Errands
from ringmount.daemon.fdstore import ServiceManager
from ringmount.daemon.loop import Loop
from ringmount.daemon.mount import Mount
from ringmount.daemon.trial import Answer
from ringmount.workers import events
from ringmount.workers.events import about

log = logging.getLogger(__name__)

TRIAL_PATIENCE = 90.0
MAX_ANSWER = 1 << 20
HANDED_OVER = "RINGMOUNT_HANDED_OVER"
"""The environment variable with the pid, and the descriptors by name, that an execution leaves open."""


def interpreter() -> list[str]:
    """The command of another interpreter like this one, which hears of $PYTHONPATH no more than this one does."""
    return [sys.executable, "-I" if sys.flags.isolated else "-P"]


class Reload:
    """Attempts to reload, one at a time. `on_success` gets the settings to go on with."""

    def __init__(
        self,
        path: str,
        mount: Mount,
        loop: Loop,
        errands: Errands,
        manager: ServiceManager,
        on_success: Callable[[Answer], None],
    ) -> None:
        self._path = path
        self._mount = mount
        self._loop = loop
        self._errands = errands
        self._manager = manager
        self._on_success = on_success
        self._pipe = -1
        self._said = b""
        self.attempts = 0
        """Those that are over."""
        self.error = ""
        """Why the last one failed."""

    @property
    def is_under_way(self) -> bool:
        return self._pipe >= 0

    def begin(self) -> None:
        """Starts a trial, unless one is under way."""
        if self.is_under_way or not self._mount.is_ready:
            return
        self._manager.say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        log.info("reloading: %s is tried while the old workers serve", self._path)
        read_end, write_end = os.pipe()
        arena = self._mount.arena.fd
        command = [*interpreter(), "-m", "ringmount.daemon.trial", self._path, str(arena)]

        def attempt() -> int:
            os.dup2(write_end, 1)
            os.set_inheritable(arena, True)
            os.execv(sys.executable, command)

        try:
            self._errands.run(attempt, TRIAL_PATIENCE, keep={arena, write_end})
        finally:
            os.close(write_end)
        os.set_blocking(read_end, False)
        self._pipe, self._said = read_end, b""
        self._loop.watch(read_end, self._hear)

    def _hear(self) -> None:
        part = os.read(self._pipe, 1 << 16)
        self._said += part
        if part and len(self._said) <= MAX_ANSWER:
            return
        self._loop.unwatch(self._pipe)
        os.close(self._pipe)
        self._pipe = -1
        try:
            answer = msgspec.json.decode(self._said, type=Answer)
        except msgspec.DecodeError:
            answer = Answer("the trial of the new version ended without an answer: its log says why")
        self.attempts += 1
        self.error = answer.error
        if answer.error:
            log.error("not reloaded, the old workers go on: %s", answer.error, extra=about(events.RELOAD_REFUSED))
            self._manager.say("READY=1", f"STATUS=not reloaded: {answer.error}")
        else:
            self._on_success(answer)


def hand_over(manager: ServiceManager, descriptors: dict[str, int], files: list[int]) -> NoReturn:
    """Executes this program anew, with these descriptors left open under their names, and `files` under their numbers.

    Signals that stop it wait until the new program can hear them. Raises OSError; then it goes on.
    """
    for fd in (*descriptors.values(), *files):
        os.set_inheritable(fd, True)
    environment = {**os.environ, HANDED_OVER: json.dumps({"pid": os.getpid(), "descriptors": descriptors})}
    environment.update(manager.environment)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def handed_over() -> list[tuple[str, int]]:
    """What the program before this one left open for it; close-on-exec from here on."""
    try:
        said = json.loads(os.environ.pop(HANDED_OVER, "null"))
        if said is None or said["pid"] != os.getpid():
            return []
        found = [(str(name), int(fd)) for name, fd in said["descriptors"].items()]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    for _, fd in found:
        os.set_inheritable(fd, False)
    return found
