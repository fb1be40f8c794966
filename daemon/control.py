"""The control socket: what the supervisor tells about itself. One JSON line asked, one JSON line answered.

Asked: {"version": 1, "command": "status"}. Answered: {"version": 1, "result": ...} or {"version": 1, "error": "why"}.

The rule a change must keep: a slow or hostile client never blocks or ends the supervisor. Each has a small buffer and
a deadline, there are never more than a few, and nothing a client can cause leaves this module as an exception.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ringmount.daemon import client, places
from ringmount.daemon.client import MAX_REQUEST, VERSION, ask
from ringmount.daemon.exitcodes import ExitCode, Failure

__all__ = ["Ask", "ControlServer", "ask"]

log = logging.getLogger(__name__)

MAX_CLIENTS = 16
DEADLINE = 5.0
"""Seconds that a client may take."""


class Ask(msgspec.Struct, forbid_unknown_fields=True):
    """A client's request."""

    version: int
    command: str


class _Client:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.since = time.monotonic()
        self.asked = b""
        self.answer: memoryview | None = None


class ControlServer:
    """The supervisor's end. `commands`: by name, what makes the result. Its length is the number of its clients."""

    def __init__(self, path: Path, selector: selectors.BaseSelector, commands: Mapping[str, Callable[[], Any]]) -> None:
        """Binds the socket; `path`'s folder is there. Raises Failure when a supervisor of this name runs already."""
        self.path = path
        self._selector = selector
        self._commands = commands
        self._clients: dict[int, _Client] = {}
        self._socket = _bound(path)
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        selector.register(self._socket, selectors.EVENT_READ, lambda mask: self._accept())

    def close(self) -> None:
        """Removes the socket."""
        for asking in list(self._clients.values()):
            self._drop(asking)
        self._selector.unregister(self._socket)
        with contextlib.suppress(OSError):
            self.path.unlink()
        self._socket.close()
        os.close(self._spare)

    def expire(self) -> None:
        """Drops clients that take too long."""
        now = time.monotonic()
        for asking in list(self._clients.values()):
            if now - asking.since > DEADLINE:
                self._drop(asking)

    def __len__(self) -> int:
        return len(self._clients)

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._refuse_one()
            return
        if len(self._clients) >= MAX_CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        asking = _Client(connection)
        self._clients[connection.fileno()] = asking
        self._selector.register(connection, selectors.EVENT_READ, lambda mask: self._go_on(asking))

    def _refuse_one(self) -> None:
        """Takes a connection off the queue though no descriptor is left: untaken, it would wake the loop for ever."""
        os.close(self._spare)
        with contextlib.suppress(OSError):
            self._socket.accept()[0].close()
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _go_on(self, asking: _Client) -> None:
        try:
            if asking.answer is None and not self._listen(asking):
                return
            assert asking.answer is not None
            asking.answer = asking.answer[asking.connection.send(asking.answer) :]
            if not asking.answer:
                self._drop(asking)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(asking)

    def _listen(self, asking: _Client) -> bool:
        """True once the client has asked and has its answer waiting."""
        data = asking.connection.recv(MAX_REQUEST)
        asking.asked += data
        line, end, _ = asking.asked.partition(b"\n")
        if not end:
            if not data or len(asking.asked) > MAX_REQUEST:
                self._drop(asking)
            return False
        asking.answer = memoryview(self._reply(line) + b"\n")
        go_on = self._selector.get_key(asking.connection).data
        self._selector.modify(asking.connection, selectors.EVENT_WRITE, go_on)
        return True

    def _reply(self, line: bytes) -> bytes:
        try:
            asked = msgspec.json.decode(line, type=Ask)
            if asked.version != VERSION:
                return _error(f"version {asked.version} is not spoken here, version {VERSION} is")
            if asked.command not in self._commands:
                return _error(f"there is no command {asked.command!r}")
            return msgspec.json.encode({"version": VERSION, "result": self._commands[asked.command]()})
        except msgspec.DecodeError as error:
            return _error(str(error))
        except Exception:
            log.exception("a client's request failed")
            return _error("the supervisor failed to answer; its log says why")

    def _drop(self, asking: _Client) -> None:
        self._clients.pop(asking.connection.fileno(), None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(asking.connection)
        asking.connection.close()


def remove_stale(path: Path) -> None:
    """Removes the socket of a supervisor that has died; one that is answered stays."""
    with contextlib.suppress(OSError), _one_at_a_time(path.parent):
        if not client.is_answered(path):
            path.unlink()


def _error(text: str) -> bytes:
    return json.dumps({"version": VERSION, "error": text}).encode()


def _bound(path: Path) -> socket.socket:
    """A listening socket there, in the place of one that nobody answers. Raises Failure."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with places.short_path(path) as short, _one_at_a_time(path.parent):
            if client.is_answered(path):
                raise Failure(
                    f"a mount named {path.stem} is running already",
                    f"stop it with: ringmount umount {path.stem}; or give this file another name, which is the mount's",
                    code=ExitCode.MOUNTPOINT,
                )
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            listening.bind(short)
            path.chmod(0o666)  # whoever gets into the folder may ask for the status
            listening.listen(MAX_CLIENTS)
    except Failure:
        listening.close()
        raise
    except OSError as error:
        listening.close()
        raise Failure(f"cannot make the control socket {path}: {error.strerror}") from error
    return listening


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Two that start at once with one name: the second waits, and sees the first's socket."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
