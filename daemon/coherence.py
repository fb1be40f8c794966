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
from typing import Any

from ringmount.daemon import mounting
from ringmount.daemon.attendant import Attendant
from ringmount.daemon.connection import Connection
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.loop import Loop
from ringmount.daemon.mount import Mount
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
        self._connection = connection
        self._group = -1
        self._scope = ""
        self._counts = mmap.mmap(-1, mmap.PAGESIZE)
        self._attendant = Attendant(
            mount, loop, "rm-watcher", self._watch, lambda: {self._group, connection.fd, mount.arena.fd}, self._died
        )

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
        if self._watched is not None:
            self._attendant.start(is_fresh)

    def _watch(self, is_fresh: bool) -> None:
        assert self._watched is not None
        arena = Arena.attach(self._mount.arena.fd)
        prefixes, counts = self._watched.prefixes, memoryview(self._counts)
        watcher = Watcher(self._group, self._connection.fd, arena, self._mount.nodes, prefixes, counts)
        watcher.run(os.path.realpath(self._watched.folder), is_fresh)

    def _died(self, pid: int, code: int) -> None:
        log.error("the process that watches for changes beneath died: another will drop all that the kernel has cached")
        with contextlib.suppress(OSError):
            self._mount.nodes.recover(pid)

    def end(self) -> None:
        """Ends the watcher, whose copy of the connection's descriptor would keep it alive.

        It may be waiting for an answer that no worker is left to give: then only the connection's end frees it.
        """
        if not self._attendant.kill(END_PATIENCE) and self._connection.number is not None:
            with contextlib.suppress(Failure):
                mounting.abort_connection(self._connection.number)
        self._attendant.reap()

    def status(self) -> dict[str, Any] | None:
        """For `ringmount status`; None without a watcher."""
        if self._watched is None:
            return None
        counts = {name: COUNT.unpack_from(self._counts, COUNT.size * i)[0] for i, name in enumerate(COUNTS)}
        who = self._attendant
        return {"kind": "fanotify", "scope": self._scope, "pid": who.pid, "deaths": who.deaths, **counts}
