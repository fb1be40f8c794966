"""The asking end of a control socket (control.py).

The rule a change must keep: another user's supervisor is not trusted. Who answers is what the kernel says
(SO_PEERCRED); an answer has a limit of size and of time, and its content is checked before it is used.
"""

import errno
import json
import socket
import struct
import time
from pathlib import Path
from typing import Any

from ringmount.daemon import places
from ringmount.daemon.exitcodes import ExitCode, Failure

VERSION = 1
MAX_REQUEST = 4096
MAX_ANSWER = 8 << 20
PATIENCE = 5.0
"""Seconds for a whole answer."""
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

    def ask(self, command: str) -> Any:
        """The result, as JSON has it. Raises Failure."""
        try:
            self._socket.settimeout(max(0.001, self._deadline - time.monotonic()))
            self._socket.sendall(json.dumps({"version": VERSION, "command": command}).encode() + b"\n")
            answer = json.loads(self._received())
        except TimeoutError:
            raise self._no_answer() from None
        except OSError as error:
            raise Failure(f"the supervisor of {self.name} hung up: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise Failure(f"the supervisor of {self.name} answered nonsense") from error
        if not isinstance(answer, dict) or answer.get("version") != VERSION:
            raise Failure(f"the supervisor of {self.name} speaks another version", "restart it, or use its version")
        if "result" not in answer:
            raise Failure(f"the supervisor of {self.name} refused: {answer.get('error')}")
        return answer["result"]

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


def _timeval(seconds: float) -> bytes:
    """struct timeval, as socket(7) wants it: two C longs."""
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))


def ask(path: Path, command: str) -> Any:
    """The result of one question to the supervisor that listens there. Raises NotRunning, Failure."""
    with Connection(path) as connection:
        return connection.ask(command)


def is_answered(path: Path) -> bool:
    """Whether somebody listens there, be it too busy to answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            with places.short_path(path) as short:
                return probe.connect_ex(short) in (0, errno.EAGAIN)
        except OSError:  # there is no such folder, or it is closed to us
            return False
