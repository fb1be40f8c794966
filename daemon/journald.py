"""journald's native protocol: an entry of several fields as one datagram (systemd.io/JOURNAL_NATIVE_PROTOCOL).

The rule a change must keep: sending never waits for more than a moment, and keeps no descriptor, so that it works in
every process of a mount, whatever it has closed or shares with others.
"""

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
from collections.abc import Iterable, Iterator

ADDRESS = "/run/systemd/journal/socket"
SEND_BUFFER = 8 << 20
PATIENCE = 50
"""Milliseconds for a queue that is full: the kernel keeps but a few datagrams (net.unix.max_dgram_qlen)."""
SIZE = struct.Struct("<Q")
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
"""journald maps what it is passed only if nobody can change it any more."""


def encode(fields: Iterable[tuple[str, object]]) -> bytes:
    """An entry. Names are of capitals, digits and `_`; a value of several lines goes with its length in front.

    What is no UTF-8 in a text is escaped: journalctl shows no text that is not.
    """
    parts = []
    for name, value in fields:
        data = value if isinstance(value, bytes) else str(value).encode("utf-8", "backslashreplace")
        key = name.encode("ascii")
        parts.append(key + b"\n" + SIZE.pack(len(data)) + data if b"\n" in data else key + b"=" + data)
    return b"".join(part + b"\n" for part in parts)


class Sender:
    """Sends entries. One that was kept waiting in vain waits no more until a send succeeds."""

    def __init__(self) -> None:
        self.address = ADDRESS
        self._is_patient = True

    def is_there(self) -> bool:
        """Whether there is a journal to be reached from here."""
        return os.path.exists(self.address)

    def send(self, entry: bytes) -> None:
        """Raises OSError if the journal is not there or does not take it now."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as out:
            out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            out.connect(self.address)  # of a connected socket, poll(2) says whether its peer's queue is full
            try:
                self._send(out, entry)
            except BlockingIOError:
                if not self._is_patient:
                    raise
                self._is_patient = False
                poll = select.poll()
                poll.register(out, select.POLLOUT)
                poll.poll(PATIENCE)
                self._send(out, entry)
        self._is_patient = True

    @staticmethod
    def _send(out: socket.socket, entry: bytes) -> None:
        try:
            out.send(entry, socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            with _memory(entry) as fd:
                socket.send_fds(out, [b""], [fd], socket.MSG_NOSIGNAL)


@contextlib.contextmanager
def _memory(entry: bytes) -> Iterator[int]:
    """What no datagram can hold goes as a sealed memfd."""
    fd = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(entry)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
        yield fd
    finally:
        os.close(fd)
