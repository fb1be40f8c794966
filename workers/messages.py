"""What supervisor and workers say to each other over a worker's channel (a SOCK_SEQPACKET pair, one message a packet).

Every message is a msgspec struct, tagged with its name. The rule: no side ever blocks on a channel; what does
not fit waits with the sender (`Outbox`).
"""

import array
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Annotated, TypeAlias

import msgspec

from ringmount.workers.api import Watched

MAX_PACKET = 1 << 16
"""Larger packets are not sent: the reader's buffer has this size."""
MAX_FORGETS = 2048
"""Nodes in one `Forget`: about 40 kB."""


class Message(msgspec.Struct, tag=True, array_like=True, gc=False):
    """Base of all messages."""


# --- to a worker ----------------------------------------------------------------------------------------------


class Assign(Message):
    """To a spare: become this worker, pinned to this CPU."""

    index: int
    cpu: int | None


class Serve(Message):
    """Start serving. The mount's /dev/fuse descriptor, or for `dev_fuse` a clone of it, comes with the message
    (SCM_RIGHTS)."""

    transport: str
    setxattr_ext: bool
    passthrough: bool = False
    """The kernel takes backing files (FUSE_PASSTHROUGH)."""
    log_level: str = "info"


class Interrupt(Message):
    """The caller of the request in this entry got a signal (FUSE_INTERRUPT)."""

    index: int
    unique: int


class Forget(Message):
    """These nodes are gone (policy `single`: these many references of them were given back)."""

    nodes: list[tuple[int, int]]


class Released(Message):
    """This handle was released (policy `reopen`): said by the worker that did so, passed on to the others."""

    fh: int


class Ping(Message):
    """Take a turn: a worker that does not is stopped, or hangs."""


class Retire(Message):
    """Answer what is in flight, then die: a successor is there."""


class Stop(Message):
    """Answer what is in flight and exit."""


class Explain(Message):
    """Say what is known of these nodes' paths, and where the coroutines of requests in flight wait."""

    token: int
    nodes: list[int]


class LogLevel(Message):
    """Log from this level on."""

    level: str


# --- to the supervisor ------------------------------------------------------------------------------------------


class Prepared(Message):
    """The filesystem is imported; a worker (not a spare) has made it too."""


class Serving(Message):
    """The transport is up."""

    transport: str


class Failed(Message):
    """This worker cannot serve. `what`: `filesystem` or `transport`; `is_hopeless`: another try would fail as well,
    because it is not a shortage, or something else outside, that may pass."""

    what: str
    message: str
    is_hopeless: bool


class Legacy(Message):
    """A FORGET, BATCH_FORGET or INTERRUPT that came to a worker's clone: the supervisor sees to them all."""

    data: bytes


class Departed(Message):
    """Nodes that went away in this worker though others watch them: (nodeid, bit n % 64 for each such worker n)."""

    nodes: list[tuple[int, int]]


class Explained(Message):
    """The answer to `Explain`: paths by node, as far as they are known; stacks by request (its unique), the innermost
    call first."""

    token: int
    paths: dict[int, bytes]
    stacks: dict[int, list[str]]


class Notification(Message):
    """A notification for the kernel."""

    data: bytes


class Description(Message):
    """What the supervisor has to know of a filesystem, which it never imports."""

    methods: list[str]
    handle_policy: str
    threads: int
    is_async: bool
    interrupt_sync: bool
    needs_root: bool
    posix_acl: bool
    handle_killpriv: bool
    export: bool
    watched: Watched | None = None
    owns_descriptors: bool = False
    backing_files: bool = False
    secret_options: list[str] = msgspec.field(default_factory=list)


class Keep(Message):
    """Copies of these handles' descriptors shall outlive all processes. With it come an eventfd(2), to which the
    supervisor writes when that is done, and the descriptors, MAX_KEPT at most."""

    handles: list[int]


MAX_KEPT = 250
"""SCM_MAX_FD is 253."""


ToWorker: TypeAlias = Assign | Serve | Interrupt | Forget | Released | Ping | Retire | Stop | Explain | LogLevel
ToSupervisor: TypeAlias = (
    Prepared | Serving | Failed | Legacy | Departed | Released | Explained | Notification | Description | Keep
)

_encode = msgspec.msgpack.Encoder().encode
_decode_to_worker: Callable[[bytes], ToWorker] = msgspec.msgpack.Decoder(ToWorker).decode
_decode_to_supervisor: Callable[[bytes], ToSupervisor] = msgspec.msgpack.Decoder(ToSupervisor).decode
Packet: TypeAlias = Annotated[bytes, "one message"]


def encode(message: Message) -> Packet:
    """A message as a packet."""
    return _encode(message)


def to_worker(packet: Packet) -> ToWorker:
    """A packet that a worker received. Raises msgspec.DecodeError."""
    return _decode_to_worker(packet)


def to_supervisor(packet: Packet) -> ToSupervisor:
    """A packet that the supervisor received. Raises msgspec.DecodeError."""
    return _decode_to_supervisor(packet)


class Outbox:
    """The sending side of a channel: never blocks, keeps the order, keeps what does not fit. Threads may share it."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._waiting: deque[tuple[Packet, list[int]]] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, message: Message, fds: list[int] | None = None) -> None:
        """Sends, or queues behind what waits already. The descriptors must stay open until it was sent.

        Raises ValueError for a message above MAX_PACKET.
        """
        packet = encode(message)
        if len(packet) > MAX_PACKET:
            raise ValueError(f"a {type(message).__name__} of {len(packet)} bytes does not fit into a packet")
        with self._lock:
            self._waiting.append((packet, fds or []))
            self._flush()

    def flush(self) -> bool:
        """Sends what fits; True when nothing is left. A peer that is gone takes everything."""
        with self._lock:
            return self._flush()

    def _flush(self) -> bool:
        while self._waiting:
            packet, fds = self._waiting[0]
            try:
                # Not socket.send_fds(): in Python 3.11 it leaves the flags out, and would wait.
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
                self._channel.sendmsg([packet], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:
                self._waiting.clear()
                return True
            self._waiting.popleft()
        return True
