"""The asking end of a control socket (control.py).

The rule a change must keep: another user's supervisor is not trusted. Who answers is what the kernel says
(SO_PEERCRED); an answer has a limit of size and of time, and its content is checked before it is used.
"""

import contextlib
import errno
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ringmount.daemon import asked, places
from ringmount.daemon.asked import VERSION, Asked
from ringmount.daemon.exitcodes import ExitCode, Failure

MAX_REQUEST = 16 << 10
MAX_ANSWER = 8 << 20
PATIENCE = 5.0
"""Seconds for a whole answer, or for the first line of one that goes on."""
MAX_FDS = 4
MAX_LINE = 1 << 20
"""Bytes of one line of an answer that goes on."""
UCRED = struct.Struct("=iII")  # pid, uid, gid of unix(7)


class NotRunning(Exception):
    """Nobody listens there."""


class Connection:
    """A connection to a running supervisor, good for one question. Use it with `with`.

    `pid` is that of the process that listens, and stays its until the answer has come.
    """

    def __init__(self, path: Path, owner: int | None = None, patience: float = PATIENCE) -> None:
        """Connects. `owner`: who must be listening there, unless it is root. Raises NotRunning, Failure."""
        self.name = path.stem
        self.pid = 0
        self._deadline = time.monotonic() + patience
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Not settimeout(): without blocking, connect() does not wait for room in the queue of connections.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(patience))
            try:
                with places.short_path(path) as short:
                    self._socket.connect(short)
            except BlockingIOError:
                raise self._no_answer() from None
            except PermissionError as error:
                raise Failure(f"no permission to ask {path}", code=ExitCode.PERMISSION) from error
            except OSError as error:
                raise NotRunning from error
            credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
            self.pid, uid, _ = UCRED.unpack(credentials)
            if owner is not None and uid not in (0, owner):
                raise Failure(f"{path} is answered by user {uid}, not by the mount's", code=ExitCode.PERMISSION)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def ask(self, question: Asked) -> Any:
        """The result, as JSON has it. Raises Failure."""
        with self._failures():
            self._say(question)
            return self._checked(json.loads(self._received()), "result")

    def follow(self, question: Asked) -> "Stream":
        """The answer to a question that goes on. Raises Failure."""
        with self._failures():
            self._say(question)
            return Stream(self)

    def _say(self, question: Asked) -> None:
        self._socket.settimeout(max(0.001, self._deadline - time.monotonic()))
        self._socket.sendall(asked.encode(question))

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Whatever a supervisor can do wrong, as Failure."""
        try:
            yield
        except TimeoutError:
            raise self._no_answer() from None
        except OSError as error:
            raise Failure(f"the supervisor of {self.name} hung up: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise Failure(f"the supervisor of {self.name} answered nonsense") from error

    def _checked(self, answer: Any, what: str) -> Any:
        if not isinstance(answer, dict) or answer.get("version") != VERSION:
            raise Failure(f"the supervisor of {self.name} speaks another version", "restart it, or use its version")
        if what not in answer:
            raise Failure(f"the supervisor of {self.name} refused: {answer.get('error')}")
        return answer[what]

    def _received(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while size <= MAX_ANSWER:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            part = self._socket.recv(1 << 16)
            if not part:
                return b"".join(parts)
            parts.append(part)
            size += len(part)
        raise ValueError("endless")

    def _no_answer(self) -> Failure:
        pid = f", or end it with: kill -9 {self.pid}" if self.pid else ""
        return Failure(f"the supervisor of {self.name} does not answer", f"see its log{pid}")


class Stream:
    """An answer that goes on: `result` is its first line's, `fd` the descriptor that came with it, or -1.

    Iterated, it gives the items that follow, until the supervisor hangs up. Whoever made it closes `fd`.
    """

    def __init__(self, connection: Connection) -> None:
        """Waits for the first line. Raises what `Connection.ask` does, before it is made a Failure."""
        self._connection = connection
        self._data = bytearray()
        self.fd = -1
        self.dropped = 0
        """Items that did not fit into the supervisor's buffer for us."""
        try:
            self.result = connection._checked(self._line(wait=False), "result")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the descriptor. The connection is its maker's."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def fileno(self) -> int:
        """Readable once there is another item, or none any more."""
        return self._connection._socket.fileno()

    def __iter__(self) -> Iterator[Any]:
        while True:
            with self._connection._failures():
                line = self._line(wait=True)
                if line is None:
                    return
                item = self._connection._checked(line, "item")
            if isinstance(count := line.get("dropped", 0), int):
                self.dropped += count
            yield item

    def _line(self, *, wait: bool) -> Any:
        """The next line, decoded; None at the end. `wait`: for ever. Raises ValueError, OSError."""
        connection = self._connection
        while (end := self._data.find(b"\n")) < 0:
            if len(self._data) > MAX_LINE:
                raise ValueError("endless")
            connection._socket.settimeout(None if wait else max(0.001, connection._deadline - time.monotonic()))
            part, fds, _, _ = socket.recv_fds(connection._socket, 1 << 16, MAX_FDS)
            self._take(fds)
            if not part:
                if self._data or not wait:
                    raise ValueError("cut short")
                return None
            self._data += part
        line = bytes(self._data[:end])
        del self._data[: end + 1]
        return json.loads(line)

    def _take(self, fds: list[int]) -> None:
        for fd in fds:
            if self.fd < 0:
                self.fd = fd
            else:
                os.close(fd)


def _timeval(seconds: float) -> bytes:
    """struct timeval, as socket(7) wants it: two C longs."""
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))


def ask(path: Path, question: Asked) -> Any:
    """The result of one question to the supervisor that listens there. Raises NotRunning, Failure."""
    with Connection(path) as connection:
        return connection.ask(question)


def is_answered(path: Path) -> bool:
    """Whether somebody listens there, be it too busy to answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            with places.short_path(path) as short:
                return probe.connect_ex(short) in (0, errno.EAGAIN)
        except OSError:  # there is no such folder, or it is closed to us
            return False
