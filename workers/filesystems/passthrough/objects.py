"""Nodes and the objects beneath that they mean.

Every access goes by descriptor: a name is looked up in the descriptor of its folder and never joined to a
path, so that neither PATH_MAX nor a rename on the way matters. A descriptor is had in one of three ways: it is
kept (`descriptors`), the object is opened by its file handle (open_by_handle_at(2), for the source's own
filesystem), or it is found by its name (`byname`).

What is removed while the kernel still refers to it: open files stay reachable by handle, because the open
descriptor keeps them. A folder that is only somebody's working directory, or a fifo, socket or device that is
open (the kernel serves those without us), has nobody beneath who keeps it, so one descriptor is held until the
kernel forgets the node. For a regular file or link that would serve only a caller who has it open with O_PATH,
and its space would be given back no sooner than the forget: a caller who deletes to make room must find room.

The rule: a descriptor that outlives its request is this worker's own (`Mount.own_fd`) and goes when the node goes.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from os import stat_result

from ringmount.workers import system
from ringmount.workers.api import ROOT, AttrLike, Entry, Mount, NodeId
from ringmount.workers.filesystems.passthrough.byname import ByName
from ringmount.workers.filesystems.passthrough.credentials import Credentials
from ringmount.workers.filesystems.passthrough.descriptors import Descriptors, OwnDescriptors, share
from ringmount.workers.filesystems.passthrough.freshness import Freshness
from ringmount.workers.filesystems.passthrough.identity import BY_HANDLE, HANDLE_AT, Identities, Named
from ringmount.workers.filesystems.passthrough.inodenumbers import shown_attr, spread

PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
RECENT = 256
"""How many nodes that were used once are remembered, to keep a descriptor at the second time."""

NO_SUCH_NAME = Entry(0, None)

NOTHING: AbstractContextManager[None] = nullcontext()


def proc_path(fd: int) -> bytes:
    """A path to the object at `fd` itself, be it a link, for what O_PATH descriptors do not allow (proc(5))."""
    return b"/proc/self/fd/%d" % fd


class Objects:
    """The objects beneath one source, for one worker."""

    def __init__(self, source: str, mount: Mount, credentials: Credentials) -> None:
        """Opens the source. Raises OSError, and ValueError if it is not the folder that was mounted."""
        self._mount = mount
        self.no_trace = os.O_NOATIME if mount.read_only and credentials.switches else 0
        """Of open(2): reading a read-only mount leaves no access times. Only an owner or root may ask for that."""
        self._nodes = mount.nodes
        self._credentials = credentials
        self._own = OwnDescriptors(mount)
        self.descriptors = Descriptors(mount, self._own, share(mount.workers))
        self._once: dict[NodeId, None] = {}
        self._held: dict[NodeId, int] = {}
        self._clone = -1
        self.top = self._own.note(os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        """The source, open for reading: what open_by_handle_at(2) and syncfs(2) want."""
        self.root = self._own.note(os.open(b".", PATH, dir_fd=self.top))
        self.files_top = self._top_for_files(source)
        """The same for files: of a read-only mount, through a mount of its own without access times."""
        try:
            self._identify_root()
        except BaseException:
            self.close()
            raise
        self.device = self.identities.device
        self._freshness = None if mount.unwatched is None else Freshness(mount, self.device, mount.unwatched)
        self._by_name = ByName(mount, self.identities, self.descriptors, self._at_hand)

    def _identify_root(self) -> None:
        """Gives the root its key; or, where the path leads to another folder by now, opens the one that has it."""
        handle, number = system.file_handle(self.root)
        found = os.fstat(self.root)
        self.identities = Identities(number, found.st_dev, self._may_open(handle))
        key = self.identities.key(self.root, found, handle, number)
        known = self._nodes.key(ROOT)
        if known is None:
            self._nodes.rekey(ROOT, key)
        elif known[1:] != key[1:]:
            if not known.startswith(BY_HANDLE):
                raise ValueError("the source is another folder than the one that was mounted: mount anew")
            self._mount.log.warning("the source was renamed or replaced: the folder that was mounted is shown on")
            self._own.close(self.root)
            self.root = self._own.note(self._by_handle(known, PATH))

    def _top_for_files(self, source: str) -> int:
        if not self.no_trace:
            return self.top
        try:
            top, clone = system.clone_without_atime(source)
        except OSError as error:
            self._mount.log.info("contents go through the workers, to leave no access times: %s", error.strerror)
            return self.top
        self._clone = self._own.note(clone)
        return self._own.note(top)

    @property
    def leaves_traces(self) -> bool:
        """Whether the kernel, were it to read a file by itself, would change access times that must stay."""
        return bool(self.no_trace) and self._clone < 0

    def _may_open(self, handle: bytes) -> bool:
        """Whether open_by_handle_at(2) works for the source and this process."""
        try:
            os.close(system.open_by_handle(self.top, handle, os.O_PATH))
        except OSError as error:
            self._mount.log.info("files are found by name: open_by_handle_at: %s", error.strerror)
            return False
        return True

    # --- node to descriptor ---------------------------------------------------------------------------------------

    def folder(self, node: NodeId) -> int:
        """The O_PATH descriptor of a folder, kept for the next name in it. ESTALE: it is gone."""
        fd = self.descriptors.get(node)
        if fd is not None:
            return fd
        if node == ROOT:
            return self.root
        return self.descriptors.keep(node, self._find(node))

    def borrow(self, node: NodeId) -> AbstractContextManager[int]:
        """An O_PATH descriptor for the time of a `with`; kept from the second time on: most files are used once."""
        fd = self.descriptors.get(node)
        if fd is not None:
            return nullcontext(fd)
        if node == ROOT:
            return nullcontext(self.root)
        fd = self._find(node)
        if node in self._once:
            del self._once[node]
            return nullcontext(self.descriptors.keep(node, fd))
        if len(self._once) == RECENT:
            self._once.clear()
        self._once[node] = None
        return Borrowed(fd)

    def attributes(self, node: NodeId) -> AttrLike:
        """The node's attributes, as shown."""
        fd = self.descriptors.get(node)
        if fd is not None:
            return self.attributes_of(fd)
        with self.borrow(node) as fd:
            return self.attributes_of(fd)

    def attributes_of(self, fd: int, is_open: bool = False) -> AttrLike:
        """The attributes, as shown, of a node's object. `is_open`: `fd` is an open file's."""
        if self._freshness is not None:
            return self._freshness.attributes(fd, is_open)
        return self.shown(os.fstat(fd))

    def open(self, node: NodeId, flags: int) -> int:
        """A new descriptor for input and output; `flags` of open(2), without those that create."""
        flags |= self.no_trace
        if not self._credentials.checks:
            key = self._key(node)
            if key.startswith(BY_HANDLE):
                return self.descriptors.with_room(self._file_by_handle, key, flags)
        with self.borrow(node) as fd:
            return self.descriptors.with_room(os.open, proc_path(fd), flags | os.O_CLOEXEC)

    def _find(self, node: NodeId) -> int:
        key = self._key(node)
        if key.startswith(BY_HANDLE):
            return self.descriptors.with_room(self._by_handle, key, PATH)
        with self._credentials.worker():  # the way to an open object is nobody's concern
            return self._by_name.find(node)

    def _key(self, node: NodeId) -> bytes:
        key = self._nodes.key(node)
        if key is None:
            raise OSError(errno.ESTALE, "a node without a key")
        return key

    def _by_handle(self, key: bytes, flags: int) -> int:
        with self._credentials.worker():
            return system.open_by_handle(self.top, key[HANDLE_AT:], flags)

    def _file_by_handle(self, key: bytes, flags: int) -> int:
        return system.open_by_handle(self.files_top, key[HANDLE_AT:], flags)

    def _at_hand(self, node: NodeId) -> int | None:
        """A folder's descriptor, unless it takes a walk to find it."""
        if node == ROOT or self._key(node).startswith(BY_HANDLE):
            return self.folder(node)
        return self.descriptors.get(node)

    # --- name or descriptor to node -------------------------------------------------------------------------------

    def entry(self, parent: NodeId, folder: int, name: bytes, keep: bool = True) -> Entry:
        """What `name` is in `parent`, whose descriptor is `folder`; takes a reference. ENOENT if there is none.

        `keep`: a folder's descriptor is kept, because names in it will be asked for next.
        """
        is_watched = self._freshness is not None and self._freshness.is_watched(folder)
        fd, handle, number = self.descriptors.with_room(system.lookup, folder, name)
        try:
            found = os.fstat(fd)
            node = self._take(fd, found, handle, number, Named(parent, name))
            entry = self._entry(node, fd, found, is_watched)
        except BaseException:
            os.close(fd)
            raise
        if keep and stat.S_ISDIR(found.st_mode):
            self.descriptors.keep(node, fd)
        else:
            os.close(fd)
        return entry

    def missing(self, folder: int) -> Entry | None:
        """The answer about a name that is not in a folder; None if the kernel is not to remember it."""
        if self._freshness is not None:
            return self._freshness.missing(self._freshness.is_watched(folder))
        return NO_SUCH_NAME if self._mount.timeouts.negative else None

    def entry_of(self, fd: int, parent: NodeId, name: bytes) -> Entry:
        """The object at `fd`, just made as `name` in `parent`, or without a name; takes a reference."""
        found = os.fstat(fd)
        handle, number = system.file_handle(fd)
        node = self._take(fd, found, handle, number, Named(parent, name))
        if not name and not self._key(node).startswith(BY_HANDLE):
            self._by_name.keep(node, os.open(proc_path(fd), os.O_PATH | os.O_CLOEXEC))
        return self._entry(
            node, fd, found, self._freshness is not None and self._freshness.is_watched(self.folder(parent))
        )

    def _entry(self, node: NodeId, fd: int, found: stat_result, is_watched: bool) -> Entry:
        if self._freshness is not None:
            return self._freshness.entry(node, fd, is_watched)
        return Entry(node, self.shown(found))

    def _take(self, fd: int, found: stat_result, handle: bytes, number: int, where: Named) -> NodeId:
        key = self.identities.key(fd, found, handle, number)
        if key.startswith(BY_HANDLE):
            return self._nodes.take(key, b"")
        return self._by_name.take(key, where)

    def shown(self, found: stat_result) -> AttrLike:
        """Attributes as the mount shows them."""
        return found if found.st_dev == self.device else shown_attr(found, self.device)

    def shown_number(self, number: int, device: int) -> int:
        """An inode number as the mount shows it."""
        return number if device == self.device else spread(number, device)

    # --- names that change ----------------------------------------------------------------------------------

    def leaving(
        self, parent: NodeId, folder: int, name: bytes, is_folder: bool = False
    ) -> AbstractContextManager[None]:
        """For the time in which `name` is removed or replaced: what it was stays reachable as said above."""
        by_handle = self._key(parent).startswith(BY_HANDLE)
        try:
            if not is_folder:
                known = os.stat(name, dir_fd=folder, follow_symlinks=False)
                self._mount.handles.losing_name(known)
                if by_handle and (stat.S_ISREG(known.st_mode) or stat.S_ISLNK(known.st_mode)):
                    return NOTHING
            found = self._live(folder, name)
        except OSError:
            return NOTHING  # the removal itself will say what is wrong
        if found is None:
            return NOTHING
        return self._holding(*found) if by_handle else self._by_name.leaving(*found)

    def moving(
        self, parent: NodeId, folder: int, name: bytes, new_parent: NodeId, new_name: bytes
    ) -> AbstractContextManager[None]:
        """For the time in which `name` becomes `new_name`."""
        if self._key(parent).startswith(BY_HANDLE):
            return NOTHING
        try:
            found = self._live(folder, name)
        except OSError:
            return NOTHING
        return NOTHING if found is None else self._by_name.moving(*found, Named(new_parent, new_name))

    def _live(self, folder: int, name: bytes) -> tuple[NodeId, int] | None:
        """The node that `name` is, and a new O_PATH descriptor of it; None if the kernel does not refer to it."""
        fd, handle, number = self.descriptors.with_room(system.lookup, folder, name)
        try:
            node = self._nodes.find(self.identities.key(fd, os.fstat(fd), handle, number))
        except BaseException:
            os.close(fd)
            raise
        if node is None:
            os.close(fd)
            return None
        return node, fd

    @contextmanager
    def _holding(self, node: NodeId, fd: int) -> Iterator[None]:
        """Keeps `fd`, which it takes over, until the kernel forgets the node, unless there is an exception."""
        try:
            yield
        except BaseException:
            os.close(fd)
            raise
        if node in self._held:
            os.close(fd)
            return
        try:
            self._nodes.watch(node)
        except OSError:  # forgotten meanwhile
            os.close(fd)
            return
        self._held[node] = self._own.note(fd)

    def path_of(self, node: NodeId) -> bytes:
        """The node's path beneath the source, as it is now. Raises OSError."""
        with self.borrow(node) as fd:
            path, top = os.readlink(proc_path(fd)), os.readlink(proc_path(self.root))
        return path.removeprefix(top) or b"/"

    def forget(self, node: NodeId) -> None:
        """Gives up what is kept for the node."""
        self.descriptors.drop(node)
        self._once.pop(node, None)
        self._by_name.forget(node)
        fd = self._held.pop(node, None)
        if fd is not None:
            self._own.close(fd)

    def close(self) -> None:
        """Closes what is kept."""
        self.descriptors.close()
        while self._held:
            self._own.close(self._held.popitem()[1])
        if self._clone >= 0:
            self._own.close(self.files_top)
            self._own.close(self._clone)
        self._own.close(self.root)
        self._own.close(self.top)


class Borrowed:
    """A descriptor that is closed after its `with`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *exception: object) -> None:
        os.close(self.fd)
