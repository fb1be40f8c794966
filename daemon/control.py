"""The control socket: what the supervisor tells about itself, and does when asked (asked.py says what there is).

The rule a change must keep: a slow or hostile client never blocks or ends the supervisor, nor keeps others out for
long. Each has a bounded buffer and a deadline, nobody but root and the owner has more than a few connections, and
nothing that a client can cause leaves this module as an exception.
"""

import array
import contextlib
import errno
import fcntl
import grp
import logging
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from ringmount.daemon import asked, client, places
from ringmount.daemon.asked import ALLOWED, VERSION, Asked, Unknown, Who
from ringmount.daemon.client import MAX_REQUEST, UCRED, ask
from ringmount.daemon.exitcodes import ExitCode, Failure

__all__ = ["LATER", "Client", "Command", "ControlServer", "ask"]

log = logging.getLogger(__name__)

BACKLOG = 128
MAX_CLIENTS = 32
MAX_OTHERS = 16
"""Clients that are neither root nor the owner."""
MAX_EACH = 4
"""Of those, clients of one user."""
DEADLINE = 5.0
"""Seconds for a question, and again for taking what was answered."""
ANSWER_DEADLINE = 60.0
"""Seconds for a command that answers later."""
MAX_WAITING = 1 << 20
"""Bytes of a stream that wait for a client that is slow to read."""
SO_PEERGROUPS = 59
MOST_GROUPS = 256
"""As many as socket.getsockopt has room for. Of a user of more groups, only the first one counts."""
DEFAULT_GROUP = "ringmount"

LATER = object()
"""What a command returns that answers later, by `Client.answer` or `Client.refuse`."""


class Client:
    """A client, as commands see it."""

    def __init__(self, connection: socket.socket, uid: int, who: Who, changed: Callable[["Client"], None]) -> None:
        self.uid = uid
        self.who = who
        self.on_gone: Callable[[], None] = lambda: None
        """Called once when the client has left or was dropped."""
        self.connection = connection
        self.has_asked = False
        self._changed = changed
        self._asked = b""
        self._waiting = bytearray()
        self._fds: list[int] = []
        self._dropped = 0
        self._ends = False
        self._streams = False
        self._since = time.monotonic()

    # --- for commands -----------------------------------------------------------------------------------------------

    def answer(self, result: Any) -> None:
        """The whole answer."""
        self._end({"version": VERSION, "result": result})

    def refuse(self, why: str) -> None:
        """The whole answer: no."""
        self._end({"version": VERSION, "error": why})

    def stream(self, result: Any, fd: int = -1) -> None:
        """The first line of an answer that lasts until the client leaves. `fd`, which it takes over, goes along."""
        if fd >= 0:
            self._fds.append(fd)
        self._streams = True
        self._put(msgspec.json.encode({"version": VERSION, "result": result}))

    def send(self, item: Any) -> None:
        """One more line of a stream. What does not fit is dropped, and counted to the client."""
        line = {"version": VERSION, "item": item} | ({"dropped": self._dropped} if self._dropped else {})
        encoded = msgspec.json.encode(line)
        if len(self._waiting) + len(encoded) >= MAX_WAITING:
            self._dropped += 1
            return
        self._dropped = 0
        self._put(encoded)

    def _end(self, line: dict[str, Any]) -> None:
        self._ends = True
        self._put(msgspec.json.encode(line))

    def _put(self, encoded: bytes) -> None:
        if not self._waiting:  # it had taken all until here
            self._since = time.monotonic()
        self._waiting += encoded + b"\n"
        self._changed(self)

    # --- for the server ---------------------------------------------------------------------------------------------

    @property
    def events(self) -> int:
        """What to watch its connection for. Its hanging up is of interest only while it is yet to get its answer."""
        waits = selectors.EVENT_WRITE if self._waiting else 0
        return waits if self._ends else selectors.EVENT_READ | waits

    @property
    def is_done(self) -> bool:
        """It has taken all there is."""
        return self._ends and not self._waiting

    def is_late(self, now: float) -> bool:
        """It takes too long. A stream that has nothing to say is never late."""
        if self._streams and not self._waiting:
            return False
        patience = DEADLINE if self._waiting or not self.has_asked else ANSWER_DEADLINE
        return now - self._since > patience

    def hear(self) -> bytes | None:
        """Its question, once that is complete; what it says afterwards is not listened to.

        Raises OSError; EOFError for one that has left, or says too much.
        """
        data = self.connection.recv(MAX_REQUEST)
        if self.has_asked:
            if not data:
                raise EOFError
            return None
        self._asked += data
        line, end, _ = self._asked.partition(b"\n")
        if not end:
            if not data or len(self._asked) > MAX_REQUEST:
                raise EOFError
            return None
        self.has_asked = True
        self._asked = b""
        return line

    def flush(self) -> None:
        """Sends what it takes. Raises OSError, BlockingIOError too."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", self._fds))] if self._fds else []
        sent = self.connection.sendmsg([self._waiting], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        self._close_fds()
        del self._waiting[:sent]
        self._since = time.monotonic()

    def close(self) -> None:
        """Hangs up."""
        self._close_fds()
        self.connection.close()
        self.on_gone()

    def _close_fds(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()


Command: TypeAlias = Callable[[Any, Client], Any]
"""Called with the question and the client; returns the result, or LATER. An exception is logged, and refused."""


class ControlServer:
    """The supervisor's end. `commands`: by question, what answers it. Its length is the number of its clients."""

    def __init__(
        self,
        path: Path,
        selector: selectors.BaseSelector,
        commands: Mapping[type[Asked], Command],
        group: int | None = None,
    ) -> None:
        """Binds the socket; `path`'s folder is there. `group`: the gid whose members may ask what is for GROUP.

        Raises Failure when a supervisor of this name runs already.
        """
        self.path = path
        self._selector = selector
        self._commands = commands
        self._group = group
        self._owner = os.geteuid()
        self._clients: dict[Client, int] = {}
        """With the events that each is watched for."""
        self._socket = _bound(path)
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        selector.register(self._socket, selectors.EVENT_READ, lambda mask: self._accept())

    def close(self) -> None:
        """Removes the socket."""
        for asking in list(self._clients):
            self._drop(asking)
        self._selector.unregister(self._socket)
        with contextlib.suppress(OSError):
            self.path.unlink()
        self._socket.close()
        os.close(self._spare)

    def expire(self) -> None:
        """Drops clients that take too long."""
        now = time.monotonic()
        for asking in list(self._clients):
            if asking.is_late(now):
                self._drop(asking)

    def __len__(self) -> int:
        return len(self._clients)

    # --- connections ------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._refuse_one()
            return
        try:
            connection.setblocking(False)
            uid, who = self._who(connection)
        except OSError:
            connection.close()
            return
        if not self._has_room(uid, who):
            connection.close()
            return
        asking = Client(connection, uid, who, self._look_after)
        self._clients[asking] = asking.events
        self._selector.register(connection, asking.events, lambda mask: self._go_on(asking, mask))

    def _refuse_one(self) -> None:
        """Takes a connection off the queue though no descriptor is left: untaken, it would wake the loop for ever."""
        os.close(self._spare)
        with contextlib.suppress(OSError):
            self._socket.accept()[0].close()
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _who(self, connection: socket.socket) -> tuple[int, Who]:
        """The uid at the other end, and what it may. Raises OSError."""
        _, uid, gid = UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
        if uid in (0, self._owner):
            return uid, Who.OWNER
        if self._group is not None and self._group in (gid, *_groups(connection)):
            return uid, Who.GROUP
        return uid, Who.EVERYBODY

    def _has_room(self, uid: int, who: Who) -> bool:
        if len(self._clients) >= MAX_CLIENTS:
            return False
        others = [asking.uid for asking in self._clients if asking.who is not Who.OWNER]
        return who is Who.OWNER or (len(others) < MAX_OTHERS and others.count(uid) < MAX_EACH)

    def _go_on(self, asking: Client, mask: int) -> None:
        try:
            if mask & selectors.EVENT_READ and (line := asking.hear()) is not None:
                self._reply(asking, line)
            elif mask & selectors.EVENT_WRITE and asking.events & selectors.EVENT_WRITE:
                asking.flush()
        except BlockingIOError:
            pass
        except (OSError, EOFError):
            self._drop(asking)
        self._look_after(asking)

    def _look_after(self, asking: Client) -> None:
        """Watches the client for what it is to do next; hangs up once all is said."""
        events = self._clients.get(asking)
        if events is None:
            return
        if asking.is_done:
            self._drop(asking)
        elif events != asking.events:
            self._clients[asking] = asking.events
            go_on = self._selector.get_key(asking.connection).data
            self._selector.modify(asking.connection, asking.events, go_on)

    def _drop(self, asking: Client) -> None:
        if self._clients.pop(asking, None) is not None:
            self._selector.unregister(asking.connection)
            asking.close()

    def _reply(self, asking: Client, line: bytes) -> None:
        try:
            question = asked.decode(line)
            command = self._commands.get(type(question))
            if command is None:
                asking.refuse("this mount does not answer that")
            elif asking.who < ALLOWED.get(type(question), Who.OWNER):
                asking.refuse(self._refusal(type(question)))
            elif (result := command(question, asking)) is not LATER:
                asking.answer(result)
        except Unknown as unknown:
            asking.refuse(str(unknown))
        except Exception:
            log.exception("a client's request failed")
            asking.refuse("the supervisor failed to answer; its log says why")

    def _refusal(self, question: type[Asked]) -> str:
        whose = "root and the mount's user"
        if ALLOWED.get(question, Who.OWNER) is Who.GROUP:
            whose += " and members of control_group" + ("" if self._group is not None else " (there is none)")
        return f"this is for {whose}"


def group_of(name: str | None) -> int | None:
    """The gid of `control_group`. Without a name that of the group `ringmount`, if there is one.

    Raises Failure for a name that is no group's.
    """
    try:
        return grp.getgrnam(DEFAULT_GROUP if name is None else name).gr_gid
    except KeyError:
        if name is None:
            return None
        raise Failure(
            f"control_group: there is no group {name}", f"make it: groupadd -r {name}", code=ExitCode.CONFIG
        ) from None


def _groups(connection: socket.socket) -> tuple[int, ...]:
    """The supplementary groups at the other end; () if they are too many. Raises OSError."""
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * MOST_GROUPS)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        return ()
    return struct.unpack(f"={len(packed) // 4}I", packed)


def remove_stale(path: Path) -> None:
    """Removes the socket of a supervisor that has died; one that is answered stays."""
    with contextlib.suppress(OSError), _one_at_a_time(path.parent):
        if not client.is_answered(path):
            path.unlink()


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
            path.chmod(0o666)  # whoever gets into the folder may ask; what he is told, his credentials decide
            listening.listen(BACKLOG)
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
