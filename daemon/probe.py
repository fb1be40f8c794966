"""Asks a mount's filesystem what it is, before anything is mounted: in a child, for the supervisor imports no filesystem."""

import contextlib
import os
import select

import msgspec

from ringmount.config.model import MountConfig
from ringmount.daemon.children import throw_away
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.workers import load
from ringmount.workers.messages import Description, Message

PATIENCE = 60.0
"""Seconds that importing and checking a filesystem may take."""


class Refusal(Message):
    """The filesystem cannot be had or cannot work: the key it is about, and why."""

    path: str
    message: str


def describe(config: MountConfig, search: str | None) -> Description | Refusal:
    """The filesystem's description, or why there is none. Raises Failure when the check itself fails."""
    read_end, write_end = os.pipe()
    pid = throw_away(lambda: _check(config, search, write_end), keep={write_end})
    os.close(write_end)
    try:
        answer = _read_all(read_end)
    finally:
        os.close(read_end)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
        os.waitpid(pid, 0)
    if not answer:
        raise Failure(
            f"filesystem: checking {config.filesystem} ended without an answer",
            f"try: python3 -c 'import {config.filesystem.partition(':')[0]}'",
            code=ExitCode.FILESYSTEM,
        )
    return msgspec.msgpack.decode(answer, type=Description | Refusal)


def _read_all(fd: int) -> bytes:
    parts = []
    while select.select([fd], [], [], PATIENCE)[0]:
        part = os.read(fd, 1 << 16)
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def _check(config: MountConfig, search: str | None, fd: int) -> int:
    answer: Description | Refusal
    try:
        answer = load.check(config, search)
    except load.FilesystemError as error:
        answer = Refusal(error.path, error.message)
    os.write(fd, msgspec.msgpack.encode(answer))
    return 0
