"""A complete filesystem in memory: what is written is gone when its worker ends.

`filesystem: memory` is `Memory`, whose locks the kernel keeps; with `locks: own` it is `LockingMemory`.

    space, chunks, inodes       what there is: limits, sparse contents, files and folders; no requests here
    acl, permission, locks      the rules of access control lists, of modes, of locks; no requests here
    base -> names -> files      the requests, by their subject; `Memory` puts them together
                     -> renames
            listings, attributes
"""

from ringmount.workers.filesystems.memory.locking import LockingMemory
from ringmount.workers.filesystems.memory.memory import Memory
from ringmount.workers.filesystems.memory.options import MemoryOptions

__all__ = ["LockingMemory", "Memory", "MemoryOptions"]
