"""The process that watches what lies beneath a mount with `cache: coherent`, and tells the kernel what is stale.

It has a process of its own because telling may block until a worker answers (`invalidations.py`), so neither a worker
nor the supervisor may wait for it. When more events wait in the kernel than it keeps (Q_OVERFLOW), all that the kernel
has cached for the mount is dropped.

Whose change it is
    A change that a worker makes for a caller of the mount is one that the kernel made, and it has put its caches right
    itself, but for one gap: a GETATTR in flight meanwhile may bring attributes from before the change, because
    fuse_dir_changed and fuse_update_ctime do not count attr_version up. So of our own changes the attributes are
    dropped, and names and contents stay.

What happened to a name
    One that was removed or moved is dropped for good: EXPIRE_ONLY would be undone by a revalidation in flight, which
    takes no lock (fuse_dentry_revalidate). One that was made was missing before, and a missing name is never
    revalidated but looked up anew, with the folder's lock: EXPIRE_ONLY suffices, and does not make a file "(deleted)"
    that is open already.
"""

import errno
import os
import select
import struct
import threading
import time
from collections.abc import Callable, Iterable

from ringmount.daemon.invalidations import ATTRIBUTES, EVERYTHING, Invalidations
from ringmount.workers import codec, fanotify
from ringmount.workers.api import NodeId
from ringmount.workers.arena import Arena
from ringmount.workers.fanotify import CONTENTS, NAMES, Event, Mask
from ringmount.workers.nodes import NodeTable

REST = 0.005
"""Seconds before the next look after changes that were all our own: the kernel merges those that wait."""
BARRIER = b"\1"
"""A name that hardly exists. Its INVAL_ENTRY waits until all that reads the folder now is done."""

COUNTS = ("events", "own", "overflows", "sweeps")
"""Numbers that the supervisor shows: 64 bits each, in memory that it shares with its watcher."""
COUNT = struct.Struct("<Q")

Put = Callable[[NodeId, int, bytes | None, bool], None]


def consequences(event: Event, find: Callable[[bytes], Iterable[NodeId]], is_own: bool, put: Put) -> None:
    """Puts what an event makes stale: node, offset (EVERYTHING, ATTRIBUTES), and name with `expire_only`.

    `find`: the nodes that an object's handle means.
    """
    mask = event.mask
    if kinds := mask & NAMES:
        # Whose folder it is that was moved here is not known without a pid: should it be ours, it may be a working
        # directory, whose path is gone for as long as the name is.
        expire_only = kinds == Mask.CREATE or (kinds == Mask.MOVED_TO and not event.pid and bool(mask & Mask.ONDIR))
        for folder in find(event.folder):
            if is_own:
                put(folder, ATTRIBUTES, None, False)
            else:
                put(folder, EVERYTHING, event.name, expire_only)
    changed = event.folder if event.name == b"." else event.object
    if not changed:
        return
    # What was moved has another "..", which is in a folder's listing.
    offset = EVERYTHING if mask & (CONTENTS | Mask.MOVED_TO) and not is_own else ATTRIBUTES
    for node in find(changed):
        put(node, offset, None, False)


class Watcher:
    """The process's whole state. `prefixes`: what is in front of the handle in a node's key."""

    def __init__(
        self, group: int, fuse_fd: int, arena: Arena, nodes: NodeTable, prefixes: list[bytes], counts: memoryview
    ) -> None:
        self._group = group
        self._fuse_fd = fuse_fd
        self._arena = arena
        self._nodes = nodes
        self._prefixes = prefixes
        self._counts = counts
        self._stale = Invalidations(self._write, self._is_live)
        self._sweep = threading.Event()

    def run(self, top: str, is_fresh: bool) -> None:
        """Watches for ever. `top`: the folder that the mount shows. Not `is_fresh`: what a predecessor left undone is
        not known, so all is dropped first."""
        threading.Thread(target=self._sweep_when_asked, daemon=True).start()
        if not is_fresh:
            self._sweep.set()
        poll = select.poll()
        poll.register(self._group, select.POLLIN)
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            poll.register(mounts, select.POLLPRI)  # proc(5): a change of the table
            beneath = _mounts_beneath(mounts.read(), top)
            while True:
                for fd, _ in poll.poll():
                    if fd == self._group:
                        self._read_events()
                        continue
                    mounts.seek(0)
                    found = _mounts_beneath(mounts.read(), top)
                    if found != beneath:  # a cached folder may be covered now, or no more
                        beneath = found
                        self._sweep.set()

    def _read_events(self) -> None:
        try:
            data = os.read(self._group, fanotify.BUFFER)
        except BlockingIOError:
            return
        workers = {self._arena.worker(index).pid for index in range(self._arena.workers)}
        events = own = 0
        changed: set[NodeId] = set()
        """Nodes of which attributes alone are stale, for which nothing has to be waited for."""

        def put(node: NodeId, offset: int, name: bytes | None, expire_only: bool) -> None:
            if offset == ATTRIBUTES and name is None:
                changed.add(node)
            else:
                self._stale.put(node, offset, name, expire_only)

        for event in fanotify.parse(data):
            events += 1
            if event.mask & Mask.Q_OVERFLOW:
                self._count("overflows")
                self._sweep.set()
                continue
            is_own = event.pid in workers
            own += is_own
            consequences(event, self._find, is_own, put)
        for node in changed:
            if self._write(codec.notify_inval_inode(node, ATTRIBUTES, 0)) == errno.ENOENT:
                self._stale.put(node, ATTRIBUTES)
        self._count("events", events)
        self._count("own", own)
        if own == events:
            time.sleep(REST)

    def _find(self, handle: bytes) -> list[NodeId]:
        found = (self._nodes.find(prefix + handle) for prefix in self._prefixes)
        return [node for node in found if node is not None]

    def _is_live(self, node: int) -> bool:
        try:
            self._nodes.key(NodeId(node))
        except OSError:
            return False
        return True

    def _sweep_when_asked(self) -> None:
        try:
            while True:
                self._sweep.wait()
                self._sweep.clear()
                self._drop_everything()
        finally:
            os._exit(1)  # the supervisor starts another watcher, which drops everything

    def _drop_everything(self) -> None:
        """Drops all that the kernel has cached.

        Lookups that begin from now on are of the new epoch. Of what is under way only READDIRPLUS takes the epoch
        that it is when the answer has come (fuse_direntplus_link), so the epoch is counted up again once each folder
        has been waited for.
        """
        self._count("sweeps")
        self._write(codec.notify_inc_epoch())
        for node, _ in self._nodes.iterate():
            self._write(codec.notify_inval_entry(node, BARRIER))
            if self._write(codec.notify_inval_inode(node, EVERYTHING, 0)) == errno.ENOENT:
                self._stale.put(node, EVERYTHING)
        self._write(codec.notify_inc_epoch())

    def _write(self, data: bytes) -> int:
        try:
            os.write(self._fuse_fd, data)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def _count(self, name: str, by: int = 1) -> None:
        at = COUNT.size * COUNTS.index(name)
        COUNT.pack_into(self._counts, at, COUNT.unpack_from(self._counts, at)[0] + by)


def _mounts_beneath(table: str, top: str) -> list[str]:
    """The lines of /proc/self/mountinfo about mounts below a folder."""
    top = top.rstrip("/") + "/"
    return [line for line in table.splitlines() if (line.split() + [""] * 5)[4].startswith(top)]
