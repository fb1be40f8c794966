"""Who started this process, be it systemd or the holder of `run --keep`, and the descriptors that it keeps for us.

sd_notify(3) with FDSTORE=1 gives a descriptor away under a name, FDSTOREREMOVE=1 takes it back; the next start finds
all of them by LISTEN_FDS and LISTEN_FDNAMES (sd_listen_fds(3)). What is sent is kept although the sender dies at once.

The rule a change must keep: without anybody there each call does nothing, and none fails.
"""

import array
import contextlib
import fcntl
import os
import socket

import sdnotify

LISTEN_FDS_START = 3
PATIENCE = 1.0
"""Seconds for it to take a message, where many wait (unix(7), max_dgram_qlen)."""
CAPACITY = 1024
"""What the unit says (systemd/ringmount@.service)."""


class ServiceManager:
    """Who started this process. `is_there`: whether anybody listens."""

    def __init__(self) -> None:
        """Takes $NOTIFY_SOCKET out of the environment: no child is to speak for the mount."""
        self._notifier = sdnotify.SystemdNotifier()
        self.environment = {key: os.environ[key] for key in ("NOTIFY_SOCKET",) if key in os.environ}
        """What another program in this process's place needs to find it."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.is_there = bool(address)
        most = os.environ.pop("FDSTORE", "")
        self.capacity = int(most) if most.isdigit() else CAPACITY
        """How many descriptors it keeps (FileDescriptorStoreMax=, which systemd tells from version 254 on)."""
        self.watchdog = _watchdog()
        """Seconds within which WATCHDOG=1 has to be said, again and again; 0 if nobody waits for it."""

    def say(self, *lines: str) -> None:
        """READY=1 and the like."""
        self._notifier.notify("\n".join(lines))

    def store(self, name: str, fd: int) -> None:
        """Gives a copy of the descriptor away. `name` has no colon."""
        # FDPOLL=0: systemd would drop the descriptor of a connection that has ended, which says more than none.
        self._send(f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}", [fd])

    def remove(self, name: str) -> None:
        """Has all descriptors of this name closed."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}", [])

    def _send(self, text: str, fds: list[int]) -> None:
        if not self.is_there:
            return
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(PATIENCE)
            out.sendmsg([text.encode()], rights, socket.MSG_NOSIGNAL, self._address)


def _watchdog() -> float:
    """As sd_watchdog_enabled(3) has it. The variables stay: another program in this process's place is watched, too."""
    microseconds, pid = (os.environ.get(key, "") for key in ("WATCHDOG_USEC", "WATCHDOG_PID"))
    return int(microseconds) / 1e6 if microseconds.isdigit() and pid in ("", str(os.getpid())) else 0.0


def received() -> list[tuple[str, int]]:
    """The descriptors that this process was started with, by name; they are its own, and close-on-exec, from here on.

    Takes the variables out of the environment. Nothing if they are for another process.
    """
    pid, count, names = (os.environ.pop(key, "") for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    fds = range(LISTEN_FDS_START, LISTEN_FDS_START + int(count))
    found = []
    for fd, name in zip(fds, [*names.split(":"), *[""] * len(fds)], strict=False):
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
            found.append((name, fd))
    return found
