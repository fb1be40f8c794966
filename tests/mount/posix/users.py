"""Other users, and other processes.

    alice(os.mkdir, path)                      returns what the call returns, raises what it raises
    alice.process(fcntl.lockf, fd, LOCK_EX)    the same, in a process of its own
    waiting = alice.start(fcntl.lockf, fd, LOCK_EX); ...; waiting.result()

Plain calls are made in a thread that is the user's: for the kernel credentials are a thread's (credentials(7)), and a
thread costs a hundredth of a process. A process is needed where locks, limits, signals or mappings are concerned; it is
a fork, so that descriptors and closures go along. Each call has a time limit.
"""

import ctypes
import os
import pickle
import platform
import select
import signal
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Generic, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 20.0
"""Seconds that a call may take."""


_CLONE_FS = 0x200
_SYS_UNSHARE, _SYS_SETGROUPS, _SYS_SETRESUID, _SYS_SETRESGID = {
    "x86_64": (272, 116, 117, 119),
    "aarch64": (97, 159, 147, 149),
}[platform.machine()]


class Killed(Exception):
    """The child was ended by a signal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal = signal_number


class Task(Generic[T]):
    """A call that a child process makes."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid = pid
        self._pipe = pipe

    def result(self) -> T:
        """Waits for the call's end. Raises what it raised, Killed, or TimeoutError."""
        raw = self._receive()
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            raise Killed(os.WTERMSIG(status))
        value, error = pickle.loads(raw)
        if error is not None:
            raise error
        result: T = value
        return result

    def _receive(self) -> bytes:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        deadline = time.monotonic() + PATIENCE
        raw = b""
        try:
            while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                part = os.read(self._pipe, 1 << 16)
                if not part:
                    return raw
                raw += part
        finally:
            os.close(self._pipe)
        os.kill(self.pid, signal.SIGKILL)
        raise TimeoutError(f"a call took more than {PATIENCE} seconds")

    def wait_until_it_sleeps(self) -> None:
        """Returns when the child waits for something, in the kernel."""
        deadline = time.monotonic() + PATIENCE
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] not in "SD":
            if time.monotonic() > deadline:
                raise TimeoutError("the child did not come to wait")


class User(NamedTuple):
    """Somebody. The superuser keeps all capabilities, the others have none."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def __call__(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Makes the call as this user, in the user's thread."""

        def from_the_start() -> T:
            os.umask(0o022)
            os.chdir("/")
            return call(*args, **kwargs)

        return _thread_of(self).submit(from_the_start).result(PATIENCE)

    def process(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Makes the call as this user, in a child process."""
        return self.start(call, *args, **kwargs).result()

    def start(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Task[T]:
        """Begins the call as this user, in a child process."""
        reader, writer = os.pipe()
        pid = fork()
        if pid:
            os.close(writer)
            return Task(pid, reader)
        try:
            self.become()
            os.write(writer, pickle.dumps(_outcome(lambda: call(*args, **kwargs))))
        finally:
            os._exit(0)

    def become(self) -> None:
        """Turns this process into the user's, for good."""
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)


@cache
def _thread_of(user: User) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, initializer=_become_in_thread, initargs=(user,))


def _become_in_thread(user: User) -> None:
    """Turns this thread into the user's, by the system calls themselves: glibc's functions change all threads."""
    libc = ctypes.CDLL(None, use_errno=True)
    groups = (ctypes.c_uint32 * len(user.groups))(*user.groups)
    for number, *arguments in (
        (_SYS_UNSHARE, _CLONE_FS),  # a umask and a current folder of its own
        (_SYS_SETGROUPS, len(user.groups), groups),
        (_SYS_SETRESGID, user.gid, user.gid, user.gid),
        (_SYS_SETRESUID, user.uid, user.uid, user.uid),
    ):
        if libc.syscall(ctypes.c_long(number), *arguments) != 0:
            raise OSError(ctypes.get_errno(), "a thread cannot become another user's")


def fork() -> int:
    """os.fork(), for children that make a few calls and end: other threads' locks do not matter to them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _outcome(call: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return call(), None
    except BaseException as error:
        return None, error


root = User(0, 0)
alice = User(21001, 31001)
bob = User(21002, 31002)
carol = User(21003, 31003, (31001,))
"""She is in alice's group."""
