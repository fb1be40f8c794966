"""A worker's own O_PATH descriptors of nodes, kept between requests.

The rule: a kept descriptor pins its file, so it is closed when the kernel forgets the node (`Nodes.watch`), and
there are never so many that open files find no room.
"""

import errno
import os
import resource
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ringmount.workers._native import lib
from ringmount.workers.api import Mount, NodeId

P = ParamSpec("P")
T = TypeVar("T")

FEWEST = 16
MOST = 65536


class OwnDescriptors:
    """The descriptors that this worker keeps for itself in the table that all workers share.

    A note that outlived its descriptor would, at the worker's death, close whatever has the number by then: it is taken
    back before the descriptor is closed.
    """

    def __init__(self, mount: Mount) -> None:
        self.note = mount.own_fd
        self._disown = mount.disown_fd

    def close(self, fd: int) -> None:
        """Closes a descriptor that was noted."""
        self._disown(fd)
        os.close(fd)


def share(workers: int) -> int:
    """How many descriptors one worker may keep: together they take a quarter of the table that all share."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(FEWEST, min(MOST, soft // (4 * workers)))


class Descriptors:
    """At most `limit` descriptors by node; the one that was not used for longest goes first."""

    def __init__(self, mount: Mount, own: OwnDescriptors, limit: int) -> None:
        self._watch = mount.nodes.watch
        self._own = own
        self.fast = lib.rm_fast_new(limit)
        """The table itself, a `struct rm_fast *`: native/fast.c answers requests from it."""

    def __len__(self) -> int:
        return int(lib.rm_fast_count(self.fast))

    def get(self, node: NodeId) -> int | None:
        """The node's descriptor, good until the next `keep` but for the few used last."""
        fd: int = lib.rm_fast_get(self.fast, node)
        return None if fd < 0 else fd

    def keep(self, node: NodeId, fd: int) -> int:
        """Takes `fd` over. Returns the node's descriptor: this one, or the one that was there. OSError ESTALE."""
        known = self.get(node)
        if known is not None:
            os.close(fd)
            return known
        try:
            self._watch(node)
        except OSError:
            os.close(fd)
            raise
        oldest = lib.rm_fast_put(self.fast, node, self._own.note(fd))
        if oldest >= 0:
            self._own.close(oldest)
        return fd

    def drop(self, node: NodeId) -> None:
        """Closes the node's descriptor, if there is one."""
        fd = lib.rm_fast_drop(self.fast, node)
        if fd >= 0:
            self._own.close(fd)

    def with_room(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A call that opens something. Without a free descriptor, half of the kept ones go and it is tried again."""
        try:
            return call(*args, **kwargs)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._halve():
                raise
        return call(*args, **kwargs)

    def _halve(self) -> bool:
        """Leaves those alone that a method may hold at the moment."""
        if len(self) < FEWEST:
            return False
        for _ in range(len(self) // 2):
            self._own.close(lib.rm_fast_oldest(self.fast))
        return True

    def close(self) -> None:
        """Closes all."""
        lib.rm_fast_let_go(self.fast)
        while len(self):
            self._own.close(lib.rm_fast_oldest(self.fast))
