"""The `options:` of a memory filesystem."""

import os
import stat
from typing import Annotated, Literal

import msgspec

from ringmount.config.units import parse_size
from ringmount.workers.filesystems.memory.space import PAGE

Id = Annotated[int, msgspec.Meta(ge=0, lt=(1 << 32) - 1)]


class MemoryOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Raises ValueError, with a text for the administrator, for values that cannot work."""

    size: int | str | None = None
    """What all files may take together, as "64MiB" or in bytes; null: half of the memory, as tmpfs."""
    inodes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """How many files and folders there may be; null: one for every two pages of memory, as tmpfs."""
    locks: Literal["kernel", "own"] = "kernel"
    """Who keeps POSIX and flock locks: the kernel, which is fastest, or the filesystem, by a request for each."""
    mode: str | int = "0755"
    """The root folder's permissions, as octal text: "0755", "1777"."""
    uid: Id | None = None
    """The root folder's owner; null: the user that the worker runs as."""
    gid: Id | None = None
    """The root folder's group; null: the group that the worker runs as."""

    def __post_init__(self) -> None:
        if self.size_limit() < PAGE:
            raise ValueError(f"size is {self.size}: a memory filesystem takes at least {PAGE} bytes")
        self.root_mode()

    def size_limit(self) -> int:
        """Bytes that contents and extended attributes may take."""
        if self.size is None:
            return _physical_pages() // 2 * PAGE
        return parse_size(self.size) if isinstance(self.size, str) else self.size

    def inode_limit(self) -> int:
        """Objects that may exist, the root folder among them."""
        return _physical_pages() // 2 if self.inodes is None else self.inodes

    def root_mode(self) -> int:
        """Permission bits of the root folder."""
        try:
            mode = int(self.mode, 8) if isinstance(self.mode, str) else self.mode
        except ValueError:
            mode = -1
        # A root that shuts its owner out helps nobody, and decimal 755 or 1777 (01363, 03361) is such a one.
        if not 0 <= mode <= 0o7777 or mode & stat.S_IRWXU != stat.S_IRWXU:
            raise ValueError(
                f"mode is {self.mode!r}: write permissions as octal text that gives the owner all, "
                'such as "0755" or "1777"'
            )
        return mode


def _physical_pages() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // PAGE
