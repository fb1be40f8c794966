"""What the shared table of nodes holds for this filesystem: keys say which object, values say where it is.

A *key* is `kind device identity`, and no two objects have the same:

- `h`: the object's file handle. The filesystem beneath opens it by that, whatever happens to its names; the value
  is empty.
- `n`: the same, but it cannot be opened so (no capability, or it lies on another mount beneath the source).
- `i`: a filesystem without handles: inode number, time of birth and file type, which tell a reused number apart.

The value of an `n` or `i` is a *location*: a folder's node and a name in it, or the handle (in `Mount.handles`) of
a descriptor that stands for an object whose name is gone or changing.

The rule: these bytes outlive their worker, and may be read by a newer version of this module.
"""

import stat
import struct
from os import stat_result
from typing import NamedTuple

from ringmount.workers import system
from ringmount.workers.api import Handle, NodeId

BY_HANDLE = b"h"
BY_NAME = b"n"
BY_INODE = b"i"

DEVICE = struct.Struct("<Q")
INODE = struct.Struct("<QqI")
NUMBER = struct.Struct("<cQ")

HANDLE_AT = 1 + DEVICE.size
"""Where in a key the identity begins."""

_NAMED = b"N"
_PINNED = b"P"


def key(kind: bytes, device: int, handle: bytes) -> bytes:
    """The key of an object with a file handle."""
    return kind + DEVICE.pack(device) + handle


def inode_key(fd: int, found: stat_result) -> bytes:
    """The key of an object on a filesystem that has no handles."""
    birth = system.statx(fd, 0, system.STATX_BTIME).btime_ns
    number = INODE.pack(found.st_ino, birth, stat.S_IFMT(found.st_mode))
    return BY_INODE + DEVICE.pack(found.st_dev) + number


class Named(NamedTuple):
    """A location: `name` in the folder `parent`."""

    parent: NodeId
    name: bytes

    def encode(self) -> bytes:
        """The node's value."""
        return NUMBER.pack(_NAMED, self.parent) + self.name


class Pinned(NamedTuple):
    """A location: the descriptor of this handle."""

    fh: Handle

    def encode(self) -> bytes:
        """The node's value."""
        return NUMBER.pack(_PINNED, self.fh)


def location(value: bytes) -> Named | Pinned:
    """The location that is a node's value."""
    mark, number = NUMBER.unpack_from(value)
    return Pinned(Handle(number)) if mark == _PINNED else Named(NodeId(number), value[NUMBER.size :])


class Identities:
    """Makes keys, for one source. `opens_by_handle`: this process may open the source's objects by their handles.

    `mount_number` and `device` are the source's own. An object on another mount has another number; it gets no key of
    kind `h`, because the source's descriptor does not lead to its mount.
    """

    def __init__(self, mount_number: int, device: int, opens_by_handle: bool) -> None:
        self.mount_number = mount_number
        self.device = device
        self.opens_by_handle = opens_by_handle
        self._own = BY_HANDLE + DEVICE.pack(device)

    def key(self, fd: int, found: stat_result, handle: bytes, mount_number: int) -> bytes:
        """The key of the object at `fd`, from its attributes and its handle's bytes and mount."""
        if not handle:
            return inode_key(fd, found)
        if not self.opens_by_handle or mount_number != self.mount_number:
            return key(BY_NAME, found.st_dev, handle)
        if found.st_dev == self.device:
            return self._own + handle
        return key(BY_HANDLE, found.st_dev, handle)  # a btrfs subvolume: the same mount, another st_dev
