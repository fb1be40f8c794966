"""The passthrough filesystem: the parts together."""

from typing import Any

from ringmount.workers.accelerate import Tables
from ringmount.workers.dispatch import ROUTES, Replies
from ringmount.workers.filesystems.passthrough import fast
from ringmount.workers.filesystems.passthrough.attributes import Attributes
from ringmount.workers.filesystems.passthrough.folders import Folders
from ringmount.workers.filesystems.passthrough.locks import Locks
from ringmount.workers.filesystems.passthrough.names import Names
from ringmount.workers.filesystems.passthrough.options import Options


class Passthrough(Names, Attributes, Folders):
    """Shows a folder, with all that the filesystem beneath can do. Every caller acts with its own rights.

    What differs from the folder itself:

    - Where files are found by their names (an ordinary user's mount, a filesystem without handles, another mount
      beneath the source), a file that is renamed beneath is found again only by the next lookup.
    - A regular file that was unlinked while nobody had it open is gone at once, for a descriptor made with O_PATH too.
    - Reads and writes through an O_DIRECT descriptor need no alignment.
    - Descriptors share the source's st_dev: files of other filesystems beneath have other inode numbers than there.
    """

    @classmethod
    def variant(cls, options: Options) -> type["Passthrough"]:
        """The class that serves these options."""
        return PassthroughLocks if options.locks == "backing" else cls

    def accelerate(self, tables: Tables, replies: Replies) -> Any:
        """See `ringmount.workers.accelerate.Accelerated`. What a subclass does differently is left to it."""
        opcodes = [
            opcode
            for opcode in fast.ANSWERED
            if getattr(type(self), ROUTES[opcode].method) is getattr(Passthrough, ROUTES[opcode].method)
        ]
        return fast.set_up(self, tables, replies, opcodes)


class PassthroughLocks(Locks, Passthrough):
    """Passthrough whose locks are those of the files beneath."""
