"""The filesystem that `filesystem: memory` names."""

from ringmount.workers.api import Filesystem
from ringmount.workers.filesystems.memory.attributes import Attributes
from ringmount.workers.filesystems.memory.files import Files
from ringmount.workers.filesystems.memory.listings import Listings
from ringmount.workers.filesystems.memory.options import MemoryOptions
from ringmount.workers.filesystems.memory.renames import Renames


class Memory(Files, Renames, Listings, Attributes):
    """All operations, but for `bmap`, `ioctl` and `poll`, whose ENOSYS says what is true of memory, and for
    locks, which the kernel keeps itself without a request."""

    @classmethod
    def variant(cls, options: MemoryOptions) -> type[Filesystem]:
        """The class for these options: which operations there are is told by the class."""
        from ringmount.workers.filesystems.memory.locking import LockingMemory

        return LockingMemory if options.locks == "own" else cls
