"""Objects that cannot be opened by their handles are found by their names.

This is how it goes for an ordinary user, on filesystems without handles, and on other mounts beneath the
source. A node's value says where its name was last seen; what is found there counts only if it is the same
object. Where a change made beneath the mount has outdated the value, the answer is ESTALE, and the kernel looks
the name up again.

An object whose name changes is *pinned* meanwhile: a descriptor in the shared table of handles stands for
it, so that other workers find it at any moment. One that loses a name stays pinned until the kernel forgets it.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ringmount.workers import system
from ringmount.workers.api import Handle, Mount, NodeId
from ringmount.workers.filesystems.passthrough.descriptors import Descriptors
from ringmount.workers.filesystems.passthrough.identity import Identities, Named, Pinned, location

DEEPEST = 1 << 16
ATTEMPTS = 5
"""With the same values; and with others each time:"""
MOST_ATTEMPTS = 1000


class ByName:
    """Where the nodes are that are found by name. `at_hand`: a folder's descriptor, if there is one without a walk."""

    def __init__(
        self,
        mount: Mount,
        identities: Identities,
        descriptors: Descriptors,
        at_hand: Callable[[NodeId], int | None],
    ) -> None:
        self._mount = mount
        self._nodes = mount.nodes
        self._handles = mount.handles
        self._identities = identities
        self._descriptors = descriptors
        self._at_hand = at_hand
        self._pins: dict[NodeId, list[Handle]] = {}

    def take(self, key: bytes, where: Named) -> NodeId:
        """The node of an object that was just seen at `where`, with one more reference."""
        value = where.encode()
        node = self._nodes.take(key, value)
        known = self._nodes.value(node)
        if known != value and not isinstance(location(known), Pinned):
            self._nodes.replace(node, value)
        return node

    # --- finding --------------------------------------------------------------------------------------------------

    def find(self, node: NodeId) -> int:
        """A new O_PATH descriptor of the node. ESTALE: it is not where it was.

        Another worker may be renaming what lies on the way. Where the values on it have changed since, the way is tried
        again; where they have not, too, a few times, because they may have changed and changed back.
        """
        unchanged = 0
        for _ in range(MOST_ATTEMPTS):
            seen: list[tuple[NodeId, bytes]] = []
            try:
                return self._walk(node, seen)
            except OSError as error:
                if error.errno not in (errno.ESTALE, errno.EBADF):
                    raise
            if all(self._nodes.value(passed) == value for passed, value in seen):
                unchanged += 1
                if unchanged == ATTEMPTS:
                    break
            os.sched_yield()
        raise OSError(errno.ESTALE, "not found where it was")

    def _walk(self, node: NodeId, seen: list[tuple[NodeId, bytes]]) -> int:
        """Climbs to a folder that is at hand, and goes down from there, name by name. `seen`: the values on the way."""
        way: list[tuple[NodeId, bytes]] = []
        above = node
        folder: int | None = None
        while folder is None:
            value = self._nodes.value(above)
            seen.append((above, value))
            where = location(value)
            if isinstance(where, Pinned):
                folder = self._handles.fd(where.fh)
            elif len(way) == DEEPEST:
                raise OSError(errno.ESTALE, "too deep")
            else:
                way.append((above, where.name))
                above = where.parent
                folder = self._at_hand(above)
        for child, name in reversed(way):
            fd = self._step(folder, name, child)
            if child == node:
                return fd
            folder = self._descriptors.keep(child, fd)
        fd = self._descriptors.with_room(os.dup, folder)  # of a pin, which another worker may just have given up
        return self._verified(fd, *system.file_handle(fd), node)

    def _step(self, folder: int, name: bytes, child: NodeId) -> int:
        try:
            fd, handle, number = self._descriptors.with_room(system.lookup, folder, name)
        except (FileNotFoundError, NotADirectoryError):
            raise OSError(errno.ESTALE, "its name is gone") from None
        return self._verified(fd, handle, number, child)

    def _verified(self, fd: int, handle: bytes, number: int, node: NodeId) -> int:
        """The descriptor, if it is the node's; otherwise it is closed."""
        try:
            if self._identities.key(fd, os.fstat(fd), handle, number) != self._nodes.key(node):
                raise OSError(errno.ESTALE, "another object is there")
        except BaseException:
            os.close(fd)
            raise
        return fd

    # --- pinning --------------------------------------------------------------------------------------------

    @contextmanager
    def leaving(self, node: NodeId, fd: int) -> Iterator[None]:
        """For the time in which the node loses a name. `fd`, an O_PATH descriptor that is taken over, stands for it
        until the kernel forgets it, unless an exception says that it kept the name."""
        before, fh = self._pin(node, fd)
        try:
            yield
        except BaseException:
            self._unpin(node, fh, before)
            raise
        self._keep(node, fh)

    @contextmanager
    def moving(self, node: NodeId, fd: int, where: Named) -> Iterator[None]:
        """For the time in which the node's name becomes `where`. `fd` as above, stands for it meanwhile."""
        before, fh = self._pin(node, fd)
        try:
            yield
        except BaseException:
            self._unpin(node, fh, before)
            raise
        self._unpin(node, fh, where.encode())

    def keep(self, node: NodeId, fd: int) -> None:
        """`fd`, as above, stands for a node that has no name, until the kernel forgets it."""
        self._keep(node, self._pin(node, fd)[1])

    def _pin(self, node: NodeId, fd: int) -> tuple[bytes, Handle]:
        """Returns the node's value so far, and the pin."""
        try:
            before = self._nodes.value(node)
            fh = self._handles.add(node, os.O_PATH, fd)
        except BaseException:
            os.close(fd)
            raise
        self._nodes.replace(node, Pinned(fh).encode())
        return before, fh

    def _unpin(self, node: NodeId, fh: Handle, value: bytes) -> None:
        self._nodes.replace(node, value)
        self._close(fh)

    def _keep(self, node: NodeId, fh: Handle) -> None:
        self._pins.setdefault(node, []).append(fh)
        self._nodes.watch(node)

    def _close(self, fh: Handle) -> None:
        fd = self._handles.remove(fh)
        if fd >= 0:
            os.close(fd)

    def forget(self, node: NodeId) -> None:
        """Drops what was pinned here for the node."""
        for fh in self._pins.pop(node, ()):
            self._close(fh)
