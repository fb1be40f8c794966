"""The control socket: what the supervisor tells about itself, one JSON line asked, one JSON line answered.

The rule: a slow or hostile client never blocks the supervisor. Each has a small buffer and a deadline.
"""

import contextlib
import errno
import json
import os
import selectors
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ringmount.daemon.exitcodes import ExitCode, Failure

VERSION = 1
MAX_REQUEST = 4096
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
    """The supervisor's end. `commands`: by name, what makes the answer."""

    def __init__(self, path: Path, selector: selectors.BaseSelector, commands: dict[str, Callable[[], Any]]) -> None:
        """Binds the socket. Raises Failure when a supervisor of this name runs already."""
        self.path = path
        self._selector = selector
        self._commands = commands
        self._clients: dict[int, _Client] = {}
        if _is_answered(path):
            raise Failure(
                f"a mount named {path.stem} is running already",
                f"see ringmount status {path.stem}; the name is the file's, without .yaml",
                code=ExitCode.MOUNTPOINT,
            )
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        os.chmod(path, 0o666)  # status is for everybody; the peer's credentials decide about the rest
        self._socket.listen(MAX_CLIENTS)
        selector.register(self._socket, selectors.EVENT_READ, lambda mask: self._accept())

    def close(self) -> None:
        """Removes the socket."""
        for client in list(self._clients.values()):
            self._drop(client)
        self._selector.unregister(self._socket)
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def expire(self) -> None:
        """Drops clients that take too long."""
        now = time.monotonic()
        for client in list(self._clients.values()):
            if now - client.since > DEADLINE:
                self._drop(client)

    def __len__(self) -> int:
        return len(self._clients)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = self._socket.accept()
            if len(self._clients) >= MAX_CLIENTS:
                connection.close()
                return
            connection.setblocking(False)
            client = _Client(connection)
            self._clients[connection.fileno()] = client
            self._selector.register(connection, selectors.EVENT_READ, lambda mask: self._go_on(client))

    def _go_on(self, client: _Client) -> None:
        try:
            if client.answer is None:
                data = client.connection.recv(MAX_REQUEST)
                client.asked += data
                if b"\n" not in client.asked:
                    if not data or len(client.asked) > MAX_REQUEST:
                        self._drop(client)
                    return
                client.answer = memoryview(self._reply(client.asked.partition(b"\n")[0]) + b"\n")
                go_on = self._selector.get_key(client.connection).data
                self._selector.modify(client.connection, selectors.EVENT_WRITE, go_on)
            client.answer = client.answer[client.connection.send(client.answer) :]
            if not client.answer:
                self._drop(client)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)

    def _reply(self, line: bytes) -> bytes:
        try:
            ask = msgspec.json.decode(line, type=Ask)
        except msgspec.DecodeError as error:
            return json.dumps({"version": VERSION, "error": str(error)}).encode()
        if ask.version != VERSION:
            return json.dumps({"version": VERSION, "error": f"version {ask.version} is not spoken here"}).encode()
        command = self._commands.get(ask.command)
        if command is None:
            return json.dumps({"version": VERSION, "error": f"no command {ask.command!r}"}).encode()
        return msgspec.json.encode({"version": VERSION, "result": command()})

    def _drop(self, client: _Client) -> None:
        self._clients.pop(client.connection.fileno(), None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(client.connection)
        client.connection.close()


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            return error.errno == errno.EAGAIN or isinstance(error, TimeoutError)
        return True


def ask(path: Path, command: str, timeout: float = DEADLINE) -> Any:
    """Asks a running supervisor. Raises Failure."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
            connection.sendall(json.dumps({"version": VERSION, "command": command}).encode() + b"\n")
            parts = []
            while part := connection.recv(1 << 16):
                parts.append(part)
        except TimeoutError as error:
            raise Failure(f"the supervisor of {path.stem} does not answer") from error
        except PermissionError as error:
            raise Failure(f"no permission to ask {path}", code=ExitCode.PERMISSION) from error
        except OSError as error:
            raise Failure(
                f"no mount named {path.stem} is running", "see ringmount status", code=ExitCode.NO_SUCH_MOUNT
            ) from error
    try:
        answer = json.loads(b"".join(parts))
    except ValueError as error:
        raise Failure(f"the supervisor of {path.stem} answered nonsense") from error
    if "error" in answer:
        raise Failure(f"the supervisor of {path.stem} refused: {answer['error']}")
    return answer["result"]
