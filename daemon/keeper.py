"""The holder of `ringmount run --keep`: keeps a mount's descriptors, and starts its supervisor again when that died.

To the supervisor it is what systemd is to a service: the other end of $NOTIFY_SOCKET (sd_notify(3), with FDSTORE=1),
and who passes the descriptors back at the next start (sd_listen_fds(3)). Run as a script:

    keeper.py NAME COMMAND... -- ARGUMENT...    keeps `COMMAND run ARGUMENT...`; gives up by `COMMAND umount NAME`

A supervisor that ends without a word died: another is started, after a delay that grows with the deaths of the last
minute. One that said STOPPING=1, or that had stored nothing yet, ended: the holder ends with its exit code. After
TRIES starts in a row that never got as far as READY=1 it gives up: what is kept is closed, so that the kernel answers
every request with ENOTCONN or ECONNABORTED, and the mount is taken away.

The rule a change must keep: it runs with `python -I -S` and imports a little of the standard library only, because it
lives as long as the mount does, and must not die of anything that the supervisor dies of.
"""

import array
import contextlib
import os
import resource
import select
import signal
import socket
import struct
import sys
import time

WINDOW = 60.0
FREE = 3
"""Deaths in the window that cost no delay."""
FIRST_DELAY = 0.1
MAX_DELAY = 5.0
TRIES = 5
MAX_FDS = 253
"""In one message (SCM_MAX_FD)."""
MOST_KEPT = 4096
GAVE_UP = 1
PASSED_ON = ("READY=", "STATUS=", "STOPPING=", "RELOADING=", "MONOTONIC_USEC=", "WATCHDOG=", "EXTEND_TIMEOUT_USEC=")
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LISTEN_FDS_START = 3


class Keeper:
    """One mount's holder."""

    def __init__(self, name: str, command: list[str], arguments: list[str]) -> None:
        self.name = name
        self.command = command
        self.arguments = arguments
        self.kept: list[tuple[str, int]] = []
        self.child = 0
        self.has_kept = False
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        self.most = MOST_KEPT if limit == resource.RLIM_INFINITY else min(MOST_KEPT, limit // 3)
        """Descriptors; a start has each of them three times for a moment."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        self.is_ready = self.is_stopping = False
        self.stop_asked = False
        self.deaths: list[float] = []
        self.failures = 0
        """Starts in a row that never got ready."""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(b"")  # an abstract name of the kernel's choice (unix(7))
        self.upstream = os.environ.pop("NOTIFY_SOCKET", "")
        self.wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in FORWARDED:
            signal.signal(number, lambda number, frame: None)

    def run(self) -> int:
        """Keeps the mount; returns the exit code."""
        while True:
            self.start()
            code = self.watch()
            if self.is_stopping or self.stop_asked or not self.kept:
                break
            now = time.monotonic()
            self.deaths = [at for at in self.deaths if now - at < WINDOW] + [now]
            self.failures = 0 if self.is_ready else self.failures + 1
            if self.failures >= TRIES:
                say(f"{self.name}: the supervisor did not get ready in {TRIES} starts: the mount is given up")
                code = GAVE_UP
                break
            delay = backoff(len(self.deaths))
            say(f"{self.name}: the supervisor (pid {self.child}) died: {describe(code)}; another takes over")
            self.notify("STATUS=the supervisor died; another takes over")
            self.wait(delay)
            if self.stop_asked:
                break
        self.close()
        if self.has_kept and (code < 0 or not self.is_stopping):
            self.clear_away()
        return 128 - code if code < 0 else code

    def start(self) -> None:
        """Starts the supervisor, with all that is kept."""
        self.is_ready = self.is_stopping = False
        environment = dict(
            os.environ, NOTIFY_SOCKET="@" + self.socket.getsockname()[1:].decode(), FDSTORE=str(self.most)
        )
        self.child = os.fork()
        if self.child:
            return
        try:
            # A Ctrl-C is for the holder, which passes it on: not for both.
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in FORWARDED:
                signal.signal(number, signal.SIG_DFL)
            first = LISTEN_FDS_START
            above = first + len(self.kept)
            high = [fcntl_dup(fd, above) for _, fd in self.kept]
            for i, fd in enumerate(high):
                os.dup2(fd, first + i)
            os.closerange(above, max([above, *high]) + 1)
            if self.kept:
                environment["LISTEN_PID"] = str(os.getpid())
                environment["LISTEN_FDS"] = str(len(self.kept))
                environment["LISTEN_FDNAMES"] = ":".join(name for name, _ in self.kept)
            os.execve(self.command[0], [*self.command, "run", *self.arguments], environment)
        except BaseException as error:
            say(f"{self.name}: cannot start {self.command[0]}: {error}")
        finally:
            os._exit(127)

    def watch(self) -> int:
        """Hears the supervisor until it ends; returns its exit code (negative: the signal)."""
        pidfd = os.pidfd_open(self.child)
        poll = select.poll()
        for fd in (pidfd, self.socket.fileno(), self.wake_read):
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            self.take_signals(pidfd)
            self.hear()
            if pidfd in ready:
                break
        os.close(pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])
        self.hear()  # its last words
        return code

    def wait(self, delay: float) -> None:
        """Waits before another start. A signal ends it."""
        until = time.monotonic() + delay
        while not self.stop_asked and (left := until - time.monotonic()) > 0:
            select.select([self.wake_read], [], [], left)
            self.take_signals(-1)

    def take_signals(self, pidfd: int) -> None:
        """Passes on what has come."""
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self.wake_read, 64):
                if number in (signal.SIGTERM, signal.SIGINT):
                    self.stop_asked = True
                if pidfd >= 0 and number in FORWARDED:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(pidfd, number)

    def hear(self) -> None:
        """Takes what was said, by the supervisor itself: nobody else may store descriptors."""
        space = socket.CMSG_SPACE(MAX_FDS * 4) + socket.CMSG_SPACE(12)
        while True:
            try:
                data, ancillary, _, _ = self.socket.recvmsg(1 << 16, space, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            sender, fds = 0, array.array("i")
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(payload[: len(payload) // 4 * 4])
                elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                    sender = struct.unpack("iII", payload)[0]
            if sender == self.child:
                fds = self.obey(data.decode(errors="replace").split("\n"), fds)
            for fd in fds:
                os.close(fd)

    def obey(self, lines: list[str], fds: "array.array[int]") -> "array.array[int]":
        """Does as it is told; returns the descriptors that are not kept."""
        said = dict(line.partition("=")[::2] for line in lines)
        name = said.get("FDNAME", "stored")
        if said.get("FDSTORE") == "1" and len(self.kept) + len(fds) <= self.most:
            self.kept += [(name, fd) for fd in fds]
            self.has_kept = True
            fds = array.array("i")
        if said.get("FDSTOREREMOVE") == "1":
            for fd in [fd for other, fd in self.kept if other == name]:
                os.close(fd)
            self.kept = [(other, fd) for other, fd in self.kept if other != name]
        self.is_ready = self.is_ready or said.get("READY") == "1"
        self.is_stopping = self.is_stopping or said.get("STOPPING") == "1"
        self.notify("\n".join(line for line in lines if line.startswith(PASSED_ON)))
        return fds

    def notify(self, text: str) -> None:
        """Tells the service manager of the holder itself, if there is one."""
        if text and self.upstream:
            address = "\0" + self.upstream[1:] if self.upstream.startswith("@") else self.upstream
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.sendto(text.encode(), address)

    def close(self) -> None:
        """Ends the connection: the last copies of its descriptors are here, once the workers are gone."""
        for _, fd in self.kept:
            os.close(fd)
        self.kept = []

    def clear_away(self) -> None:
        """Takes away what may still be mounted."""
        pid = os.posix_spawn(self.command[0], [*self.command, "umount", self.name], os.environ)
        os.waitpid(pid, 0)


def fcntl_dup(fd: int, above: int) -> int:
    """A copy whose number is at least `above`."""
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD, above)


def backoff(deaths: int) -> float:
    """Seconds before the next start, after so many deaths in the last minute."""
    return 0.0 if deaths <= FREE else min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(deaths - FREE - 1, 16))


def describe(code: int) -> str:
    """How a process ended."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def say(text: str) -> None:
    """A line for the log, in the journal an error. It knows the journal as log.py does."""
    with contextlib.suppress(OSError):
        status = os.fstat(2)
        is_journal = os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
        os.write(2, f"{'<3>' if is_journal else 'ringmount: '}{text}\n".encode())


def main(arguments: list[str]) -> int:
    name, *rest = arguments
    at = rest.index("--")
    return Keeper(name, rest[:at], rest[at + 1 :]).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
