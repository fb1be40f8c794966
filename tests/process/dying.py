"""For tests of shared memory: a region, and children that die in the middle of a call."""

import mmap
import os
import signal
import traceback
from collections.abc import Callable, Iterator

from ringmount.workers._native import ffi, lib


class Region:
    """Zeroed shared memory of `size` bytes, at the same address in this process and its children."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.fd = os.memfd_create("ringmount-test", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        self.map = mmap.mmap(self.fd, size)
        self.address = int(ffi.cast("uintptr_t", ffi.from_buffer(self.map)))

    def __del__(self) -> None:
        os.close(self.fd)

    def bytes_in_use(self) -> int:
        """Memory that the region takes."""
        return os.fstat(self.fd).st_blocks * 512


def start(action: Callable[[], object]) -> int:
    """Starts a child that does `action` and ends; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        action()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def end_of(pid: int) -> int:
    """Waits for a child: its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def start_until(step: int, action: Callable[[], object], signal_number: int = signal.SIGKILL) -> int:
    """Starts a child that gets the signal at the step-th STEP() of `action`; returns its pid."""

    def act() -> None:
        lib.rm_die_at(step, signal_number)
        action()
        lib.rm_die_at(0, 0)

    return start(act)


def kill_at(step: int, action: Callable[[], object]) -> int:
    """Does `action` in a child that dies at its step-th STEP(). Returns the child's pid, 0 if it got through."""
    pid = start_until(step, action)
    end = end_of(pid)
    assert end in (0, -signal.SIGKILL), f"the child ended with {end}"
    return pid if end else 0


def deaths(prepare: Callable[[], Callable[[], object]]) -> Iterator[int]:
    """Kills an action at its first step, its second, ... until it gets through, each time `prepare`d afresh.

    Yields the dead child's pid, and at last 0.
    """
    step, pid = 1, -1
    while pid:
        pid = kill_at(step, prepare())
        yield pid
        step += 1
