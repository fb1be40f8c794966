"""How a worker dies without a request being lost: by exec, its traceback printed first.

A process that is killed takes requests with it that the kernel had handed to its ring (ECANCELED to their callers).
One that execs does not: see native/death.cdef. So every signal that means "this worker is done for" leads there: the
fatal ones, SIGTERM, the parent's death, and the supervisor's wish to replace it. What is left is SIGKILL.
"""

import faulthandler
import os
import signal
import sys
from typing import Any

from ringmount.workers._native import ffi, lib

FATAL = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)
REPLACE = signal.SIGUSR2
"""From the supervisor: print the stack of every thread, then die."""
PARENT_DIED = signal.SIGTERM


def arm(record: Any) -> None:
    """Arms this process, a freshly forked worker with one thread; `record`: its `struct rm_worker *`. Raises
    OSError."""
    numbers = [*FATAL, signal.SIGTERM, REPLACE]
    error = lib.rm_die_by_exec(record, ffi.new("int[]", [int(number) for number in numbers]), len(numbers))
    if error:
        raise OSError(-error, "arming the worker's death")
    # faulthandler prints and then goes on to the handler that was there before: ours.
    faulthandler.enable(sys.stderr, all_threads=True)
    error = lib.rm_note_origin(ffi.new("int[]", [int(number) for number in FATAL]), len(FATAL))
    if error:
        raise OSError(-error, "arming the worker's death")
    faulthandler.register(REPLACE, sys.stderr, all_threads=True, chain=True)


def die_with_parent() -> None:
    """Has the kernel send PARENT_DIED when the supervisor dies. Raises OSError."""
    error = lib.rm_die_with_parent(int(PARENT_DIED))
    if error:
        raise OSError(-error, "PR_SET_PDEATHSIG")


def follow_parent() -> None:
    """Dies as the parent's death would have it: the end of its channel is heard a moment before the signal comes."""
    os.kill(os.getpid(), PARENT_DIED)
