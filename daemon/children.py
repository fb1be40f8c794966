"""The supervisor's child processes: how they are started, watched and reaped.

The rule: the supervisor has one thread, so that fork is safe at any time; and a child that is no worker closes
every descriptor it inherited, because a stray copy of /dev/fuse would keep a dead mount alive.
"""

import contextlib
import fcntl
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

from ringmount.config.model import MountConfig
from ringmount.workers import messages
from ringmount.workers._native import lib
from ringmount.workers.arena import Arena
from ringmount.workers.events import Event, about
from ringmount.workers.worker import SPARE, Setup, child

CHANNEL_BUFFER = 1 << 20


IS_SERVING = 1
"""In the arena's record of a worker: its process serves; 0 while it does not."""


class State(Enum):
    """How far a worker is."""

    STARTING = "starting"
    PREPARED = "prepared"
    SERVING = "serving"
    DEAD = "dead"


class WorkerProcess:
    """One worker as the supervisor sees it: a place that one process after another fills."""

    def __init__(self, index: int, cpu: int | None) -> None:
        self.index = index
        self.cpu = cpu
        self.state = State.DEAD
        self.pid = 0
        self.pidfd = -1
        self.channel: socket.socket
        self.outbox: messages.Outbox
        self.early_deaths: list[float] = []
        """When its processes died that had not come to serve (time.monotonic)."""
        self.failure: messages.Failed | None = None
        self.trouble = ""
        """Why it does not serve, while it is started again."""
        self.asked_to_die: float | None = None
        """When it was asked to, because a request hangs in it (time.monotonic)."""
        self.asked_to_retire: float | None = None
        """When it was, because it takes too much memory (time.monotonic)."""
        self.began = 0.0
        """When this process became this worker, and then when it began to serve (time.monotonic)."""
        self.turns = 0
        """The loop turns that it had taken when it was last seen to take one."""
        self.pinged: float | None = None
        """When it was asked to take another, which it has not done yet (time.monotonic)."""
        self.fds: list[int] = []
        """What came with the last message that was received."""
        self._theirs: socket.socket | None = None
        self.stacks_fd = -1
        """A memory file that its threads write their stacks to (`ringmount.workers.explain`)."""

    def start(
        self,
        config: MountConfig,
        search: str | None,
        workers: int,
        arena: Arena,
        shared_files: bool,
        watch_group: int = -1,
    ) -> None:
        """Forks the worker. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CHANNEL_BUFFER)
        self._close_stacks()  # of a process that could not be started
        self.stacks_fd = os.memfd_create("ringmount-stacks", os.MFD_CLOEXEC)
        fcntl.fcntl(self.stacks_fd, fcntl.F_SETFL, os.O_APPEND)
        setup = Setup(
            config,
            search,
            self.index,
            workers,
            self.cpu,
            arena.fd,
            theirs,
            shared_files,
            watch_group,
            self.stacks_fd,
        )
        supervisor = os.getpid()
        pid = lib.rm_fork_sharing_files() if shared_files else os.fork()
        if pid == 0:
            child(setup, supervisor)
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        self.pid = pid
        try:
            self.pidfd = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        ours.setblocking(False)
        self.channel = ours
        self.outbox = messages.Outbox(ours)
        if shared_files:  # the one descriptor table has one copy of it: the worker's
            self._theirs = theirs
        else:
            theirs.close()
        self.state = State.STARTING
        self.failure = None
        if self.index != SPARE:
            self._enter(arena)

    def _enter(self, arena: Arena) -> None:
        """A new incarnation, in the arena's record of this worker."""
        record = arena.worker(self.index)
        record.pid = self.pid
        record.state = 0
        record.generation += 1
        self.asked_to_die = self.asked_to_retire = None
        self.began = time.monotonic()
        self.pinged = None

    def replace_by(self, spare: "WorkerProcess", arena: Arena) -> None:
        """Takes a spare's process for its own. The spare is left without one."""
        self.pid, self.pidfd, self.state = spare.pid, spare.pidfd, spare.state
        self.channel, self.outbox, self._theirs = spare.channel, spare.outbox, spare._theirs
        self.stacks_fd, spare.stacks_fd = spare.stacks_fd, -1
        self.failure = None
        spare.state, spare.pidfd, spare._theirs = State.DEAD, -1, None
        self._enter(arena)
        self.outbox.send(messages.Assign(self.index, self.cpu))

    @property
    def name(self) -> str:
        """In messages."""
        return "the spare worker" if self.index == SPARE else f"worker {self.index}"

    def about(self, event: Event | None = None, errno: int | None = None) -> dict[str, Any]:
        """For `extra=` of a message about this worker."""
        return about(event, worker=None if self.index == SPARE else self.index, cpu=self.cpu, errno=errno)

    def receive(self) -> messages.ToSupervisor | None:
        """The next message, None if there is none. What came with it is in `fds` until the one after it.

        Raises msgspec.DecodeError for what is no message.
        """
        while self.fds:
            os.close(self.fds.pop())
        try:
            flags = socket.MSG_CMSG_CLOEXEC
            packet, self.fds, _, _ = socket.recv_fds(self.channel, 1 << 17, messages.MAX_KEPT + 1, flags)
        except (BlockingIOError, ConnectionError):
            return None
        return messages.to_supervisor(packet) if packet else None

    def reap(self) -> int:
        """Takes the dead process's exit code (negative: the signal) and closes what belonged to it."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.channel.close()
        if self._theirs is not None:
            self._theirs.close()
            self._theirs = None
        self._close_stacks()
        self.state = State.DEAD
        self.pidfd = -1
        return os.waitstatus_to_exitcode(status)

    def _close_stacks(self) -> None:
        if self.stacks_fd >= 0:
            os.close(self.stacks_fd)
        self.stacks_fd = -1

    def silence(self, arena: Arena, now: float) -> float | None:
        """For how many seconds it has not answered a ping; None if it has, or was not asked before. Asks it again."""
        turns = arena.worker(self.index).turns
        if turns != self.turns:
            self.turns, self.pinged = turns, None
            return None
        if self.pinged is None:
            self.pinged = now
            self.outbox.send(messages.Ping())
        return now - self.pinged

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal, if there is a process."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)


def close_private_fds(arena: Arena, worker: int) -> int:
    """Closes what a dead worker kept for itself in the shared descriptor table; returns how many."""
    mark = worker + 1
    owners = arena.section("fd_owners").cast("H")
    needle, raw, at, closed = struct.pack("=H", mark), bytes(arena.section("fd_owners")), 0, 0
    while (at := raw.find(needle, at)) >= 0:
        if at % 2 == 0:
            owners[at // 2] = 0
            with contextlib.suppress(OSError):
                os.close(at // 2)
                closed += 1
            at += 2
        else:
            at += 1
    return closed


def close_all_but(keep: set[int]) -> None:
    """Closes every inherited descriptor that is not to be kept."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            with contextlib.suppress(OSError):
                os.close(int(name))


def become(name: str, supervisor: int, keep: set[int]) -> None:
    """In a forked child that lives as long as the supervisor: its name, signals and descriptors.

    A stop of the whole group is the supervisor's to carry out, which then ends this process.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    lib.rm_die_with_parent(signal.SIGKILL)
    with open("/proc/self/comm", "w") as comm:
        comm.write(name)
    close_all_but({0, 1, 2} | keep)
    if os.getppid() != supervisor:
        os._exit(1)


def throw_away(function: Callable[[], int], keep: set[int] | None = None) -> int:
    """Forks a child that runs `function`, exits with its result (1 for an exception) and keeps no descriptor but the
    standard ones and `keep`. Returns its pid; the caller reaps it."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        close_all_but({0, 1, 2} | (keep or set()))
        code = function()
    finally:
        os._exit(code)
