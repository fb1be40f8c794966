"""Asks a mount's filesystem what it is, before anything is mounted.

A throw-away child asks, as the user that the workers will run as: the supervisor imports no filesystem, and root's
rights are not lent to code that is to run without them.
"""

import os
import select
import signal
import time

import msgspec

from ringmount.config.model import MountConfig
from ringmount.daemon.children import throw_away
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.workers import load
from ringmount.workers.messages import Description, Message
from ringmount.workers.worker import drop_privileges

PATIENCE = 60.0
"""Seconds that importing and checking a filesystem may take."""
END_PATIENCE = 1.0
"""Seconds to exit after the answer."""
MAX_ANSWER = 1 << 20


class Refusal(Message):
    """The filesystem cannot be had or cannot work. `path`: the key that is to blame."""

    path: str
    message: str
    validation: str = ""
    """What msgspec said of `options`, where that is the matter."""


def describe(
    config: MountConfig, search: str | None, patience: float = PATIENCE, *, is_mounted: bool = False
) -> Description | Refusal:
    """The filesystem's description, or why there is none. `search`: a folder to look for its module in as well.
    `is_mounted`: the mount is there already, and nobody serves it, so that options are not checked against it.

    Raises Failure when there is no time or no process for the check.
    """
    read_end, write_end = os.pipe()
    pid, answer = -1, None
    try:
        try:
            pid = throw_away(lambda: _check(config, search, write_end, is_mounted), keep={write_end})
        finally:
            os.close(write_end)
        answer = _read_all(read_end, patience)
    except OSError as error:
        raise Failure(f"cannot start a process: {error.strerror}", code=ExitCode.RESOURCES) from error
    finally:
        os.close(read_end)
        how = _end(pid, 0.0 if answer is None else END_PATIENCE)
    if answer is None:
        return Refusal("filesystem", f"importing and checking {config.filesystem} took more than {patience:g} s")
    try:
        return msgspec.msgpack.decode(answer, type=Description | Refusal)
    except msgspec.DecodeError:
        return Refusal("filesystem", f"the process that imported {config.filesystem} {how}")


def _read_all(fd: int, patience: float) -> bytes | None:
    """Everything up to the end; None if that did not come in time."""
    deadline = time.monotonic() + patience
    data = b""
    while len(data) <= MAX_ANSWER and select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(fd, 1 << 16)
        if not part:
            return data
        data += part
    return None


def _end(pid: int, patience: float) -> str:
    """Waits for the child's end, or brings it about; says how it ended."""
    if pid < 0:
        return "did not start"
    pidfd = os.pidfd_open(pid)
    if not select.select([pidfd], [], [], patience)[0]:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"


def _check(config: MountConfig, search: str | None, fd: int, is_mounted: bool) -> int:
    answer: Description | Refusal
    try:
        if config.user is not None and os.geteuid() == 0:
            drop_privileges(config.user)
        answer = load.check(config, search, is_mounted=is_mounted)
    except load.FilesystemError as error:
        cause = error.__cause__
        answer = Refusal(error.path, error.message, str(cause) if isinstance(cause, msgspec.ValidationError) else "")
    os.write(fd, msgspec.msgpack.encode(answer))
    return 0
