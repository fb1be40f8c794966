"""`cache: coherent`, as the supervisor sees it: the group of events, and the process that reads it.

The group (fanotify(7)) is made before any worker looks at anything, and is kept here: while there is no watcher, events
wait in it. A watcher that dies may have read some and not seen to them, so its successor drops all that the kernel has
cached. That is also why answers need no shorter timeouts meanwhile.

The rule a change must keep: no worker ever waits for the watcher, and the supervisor only for its end.
"""

import contextlib
import errno
import logging
import mmap
import os
import select
import signal
import time
from typing import Any

from ringmount.daemon import mounting, restart
from ringmount.daemon.children import become
from ringmount.daemon.connection import Connection
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.loop import Loop
from ringmount.daemon.mount import Mount, Phase
from ringmount.daemon.watcher import COUNT, COUNTS, Watcher
from ringmount.workers import fanotify, system
from ringmount.workers.api import Watched
from ringmount.workers.arena import Arena

log = logging.getLogger(__name__)

SHARED_ELSEWHERE = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFE534D42: "SMB",
    0xFF534D42: "SMB",
    0x01021997: "9p",
    0x00C36400: "Ceph",
    0x65735546: "FUSE",
    0x5346414F: "AFS",
    0x01161970: "GFS2",
    0x7461636F: "OCFS2",
    0x786F4256: "a shared folder of VirtualBox",
}
"""By statfs(2)'s f_type: filesystems that change where this kernel does not see it."""

END_PATIENCE = 1.0


class Coherence:
    """The watching of one mount, or (where there is nothing to watch) nothing."""

    def __init__(self, mount: Mount, loop: Loop, connection: Connection) -> None:
        self._mount = mount
        self._loop = loop
        self._connection = connection
        self._group = -1
        self._scope = ""
        self._pid = 0
        self._pidfd = -1
        self._deaths: list[float] = []
        self._due: float | None = None
        self._counts = mmap.mmap(-1, mmap.PAGESIZE)
        loop.duties.append(self._restart)

    @property
    def _watched(self) -> Watched | None:
        return self._mount.description.watched

    @property
    def group(self) -> int:
        """What workers add folders to; -1 where they need not."""
        return self._group if self._scope == "folders" else -1

    def prepare(self) -> None:
        """Changes are noted from here on. Raises Failure if they cannot be."""
        if self._watched is None:
            return
        folder = self._watched.folder
        try:
            fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._mark(fd)
            finally:
                os.close(fd)
        except OSError as error:
            what = f"cache: coherent cannot watch {folder}: {error.strerror}"
            hint = "cache: normal shows changes within the timeouts"
            if error.errno in (errno.ENOSYS, errno.EINVAL):
                hint = "it needs Linux 5.17 with CONFIG_FANOTIFY; " + hint
            raise Failure(what, hint, code=ExitCode.UNAVAILABLE) from error
        if self._scope == "folders":
            log.info("changes beneath are watched folder by folder: the whole filesystem may not be")

    def _mark(self, folder: int) -> None:
        elsewhere = SHARED_ELSEWHERE.get(system.filesystem_type(folder))
        if elsewhere is not None:
            raise OSError(
                errno.EOPNOTSUPP, f"it is on {elsewhere}, where others make changes that this machine does not see"
            )
        if not system.file_handle(folder)[0]:
            raise OSError(errno.EOPNOTSUPP, "its filesystem has no file handles")
        self._group = fanotify.open_group()
        try:
            fanotify.watch_filesystem(self._group, folder)
            self._scope = "filesystem"
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EXDEV):
                raise
            fanotify.watch_folder(self._group, folder)
            self._scope = "folders"

    # --- the process ------------------------------------------------------------------------------------------------

    def start(self, is_fresh: bool = True) -> None:
        """Starts the watcher, once there is a connection. Raises OSError."""
        if self._watched is None:
            return
        mount, fuse_fd, supervisor = self._mount, self._connection.fd, os.getpid()
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                become("rm-watcher", supervisor, {self._group, fuse_fd, mount.arena.fd})
                arena = Arena.attach(mount.arena.fd)
                prefixes, counts = self._watched.prefixes, memoryview(self._counts)
                watcher = Watcher(self._group, fuse_fd, arena, mount.nodes, prefixes, counts)
                watcher.run(os.path.realpath(self._watched.folder), is_fresh)
            os._exit(1)
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._loop.watch(self._pidfd, self._died)

    def _died(self) -> None:
        self._reap()
        if self._mount.phase is Phase.STOPPING:
            return
        now = time.monotonic()
        self._deaths = [*self._deaths[-31:], now]
        decision = restart.after_death(self._deaths, now)
        self._due = now + (decision.delay if isinstance(decision, restart.Restart) else restart.MAX_DELAY)
        log.error("the watcher of changes beneath died: another one will drop all that the kernel has cached")
        with contextlib.suppress(OSError):
            self._mount.nodes.recover(self._pid)

    def _restart(self, now: float) -> float | None:
        if self._due is None or now < self._due:
            return self._due
        self._due = None
        try:
            self.start(is_fresh=False)
        except OSError as error:
            log.error("cannot start a watcher: %s; trying again", error.strerror)
            self._due = now + restart.MAX_DELAY
        return self._due

    def _reap(self) -> None:
        self._loop.unwatch(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        os.waitpid(self._pid, 0)

    def end(self) -> None:
        """Ends the watcher, whose copy of the connection's descriptor would keep it alive.

        It may be waiting for an answer that no worker is left to give: then only the connection's end frees it.
        """
        self._due = None
        if self._pidfd < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        if not select.select([self._pidfd], [], [], END_PATIENCE)[0] and self._connection.number is not None:
            with contextlib.suppress(Failure):
                mounting.abort_connection(self._connection.number)
        self._reap()

    def status(self) -> dict[str, Any] | None:
        """For `ringmount status`; None without a watcher."""
        if self._watched is None:
            return None
        counts = {name: COUNT.unpack_from(self._counts, COUNT.size * i)[0] for i, name in enumerate(COUNTS)}
        pid = self._pid if self._pidfd >= 0 else None
        return {"kind": "fanotify", "scope": self._scope, "pid": pid, "deaths": len(self._deaths), **counts}
