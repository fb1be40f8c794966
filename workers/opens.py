"""Which way the contents of open files take: through the workers, or by the kernel straight to a file beneath.

`native/opens.c` keeps the count of open files that this rests on, in a table of `native/nodes.c`, and says why. This
module is its shape for the engine.

The rule: whatever answers OPEN, CREATE or TMPFILE with success goes through `add`, and every RELEASE through `release`.
"""

import os

from ringmount.workers._native import ffi, lib
from ringmount.workers.api import Opened
from ringmount.workers.arena import Arena
from ringmount.workers.nodes import NodeTable
from ringmount.workers.system import checked


def table(arena: Arena, worker: int) -> NodeTable:
    """The table of nodes that have open files."""
    return NodeTable(arena.address("opens"), arena.section_size("opens"), worker)


class Opens:
    """One worker's view. Until `start` nothing is counted, and every file goes through the workers."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._journal = arena.c.journal
        self._reply = ffi.new("struct rm_reply *")
        self._refused = 0
        self.c = ffi.new("struct rm_opens *")
        """For C: a `struct rm_opens *`, in use when `active`."""
        self.active = False

    def start(self, fuse_fd: int, insists: bool) -> None:
        """The kernel has agreed to FUSE_PASSTHROUGH; `fuse_fd` is the connection. Raises OSError.

        `insists`: the mount's file says `data: passthrough`. A file that is open with O_DIRECT is then passed through
        as well, and stays so when its user takes the flag back (fcntl(2), F_SETFL).
        """
        table = ffi.cast("void *", self._arena.address("opens"))
        checked(lib.rm_opens_set_up(self.c, table, fuse_fd, os.O_APPEND if insists else os.O_APPEND | os.O_DIRECT))
        self.active = True

    def add(self, index: int, node: int, open_flags: int, opened: Opened, common: int) -> tuple[int, int]:
        """Counts a file that is opened in answer to the request in entry `index`, with `open_flags` of open(2).

        `common`: FOPEN_* of files whose contents come from the workers. Returns the reply's FOPEN_* and backing id.
        Raises OSError ENFILE.
        """
        if not self.active:
            return opened.flags | common, 0
        journal, reply = self._journal + index, self._reply
        fd, flags = opened.backing_fd, opened.flags
        checked(lib.rm_opens_add(self.c, journal, node, open_flags, fd, flags, common, reply))
        return reply.flags, reply.backing_id

    def release(self, index: int, node: int) -> None:
        """One open file less, once for this request."""
        if self.active:
            lib.rm_opens_release(self.c, self._journal + index, node)

    def settle(self, index: int) -> None:
        """Undoes or finishes what a dead predecessor was about to count for the request in entry `index`."""
        if self.active:
            lib.rm_opens_settle(self.c, self._journal + index)

    def take_refusal(self) -> int:
        """The errno of the first file that the kernel would not pass through, once; else 0."""
        if not self.c.refused or self._refused:
            return 0
        self._refused = int(self.c.refused)
        return self._refused
