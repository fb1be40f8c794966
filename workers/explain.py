"""What a worker says about itself when it is asked why it hangs.

In two ways. A signal has each thread write its Python stack, from the signal's handler in C: also one that runs a loop,
waits in a system call or holds the interpreter's lock in C (native/stacks.c, faulthandler). And a message has the
worker's loop say which coroutine waits where, and what nodes' paths are; this takes a loop that turns.
"""

import asyncio
import contextlib
import faulthandler
import os
import signal
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Any

from ringmount.workers import api, messages
from ringmount.workers._native import lib

SIGNAL = signal.SIGRTMIN
"""From the supervisor, to one thread: write your stack. Not to a process: faulthandler may walk only its own frames."""
MOST_FRAMES = 40
MOST_BYTES = messages.MAX_PACKET // 3
"""Of stacks, and of paths, in one message."""


def tell_stacks(fd: int) -> None:
    """From now on threads write their stacks there when they get SIGNAL. Raises OSError."""
    faulthandler.register(SIGNAL, fd, all_threads=False, chain=False)
    error = lib.rm_tell_stacks(int(SIGNAL), fd)
    if error:
        raise OSError(-error, os.strerror(-error))


def explain(
    asked: messages.Explain, filesystem: api.Filesystem, waiting: Mapping[int, "asyncio.Task[Any] | str"]
) -> messages.Explained:
    """The answer. `waiting`: `Engine.waiting`."""
    paths: dict[int, bytes] = {}
    room = MOST_BYTES
    for node in asked.nodes:
        with contextlib.suppress(Exception):
            path = filesystem.path_of(api.NodeId(node))
            if path is not None and (room := room - len(path) - 16) > 0:
                paths[node] = path
    stacks: dict[int, list[str]] = {}
    room = MOST_BYTES
    for unique, what in waiting.items():
        stack = [what] if isinstance(what, str) else stack_of(what)
        if (room := room - sum(len(line.encode()) + 8 for line in stack)) > 0:
            stacks[unique] = stack
    return messages.Explained(asked.token, paths, stacks)


def stack_of(task: "asyncio.Task[Any]") -> list[str]:
    """Where a task waits, the innermost call first, as faulthandler writes it."""
    lines = [_line(code, line) for code, line in _awaited(task.get_coro())]
    return lines[::-1][:MOST_FRAMES]


def _awaited(coroutine: Any) -> Iterator[tuple[CodeType, int]]:
    """The frames from a coroutine to what it waits for: an async function awaits others, or generators, in a chain."""
    while coroutine is not None:
        for kind, awaits in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            frame = getattr(coroutine, f"{kind}_frame", None)
            if frame is not None:
                yield frame.f_code, frame.f_lineno
                coroutine = getattr(coroutine, awaits)
                break
        else:
            return


def _line(code: CodeType, line: int) -> str:
    text = f'File "{code.co_filename}", line {line} in {code.co_name}'
    return text.encode("ascii", "backslashreplace").decode()[:500]
