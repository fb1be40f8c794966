"""What a filesystem may take, and what it has taken. Everything taken is given back by who took it."""

import errno

PAGE = 4096
"""Contents are counted in pages of this many bytes."""


class Space:
    """Bytes (contents in whole pages, extended attributes as they are) and objects of one filesystem."""

    __slots__ = ("inodes", "inodes_used", "size", "used")

    def __init__(self, size: int, inodes: int) -> None:
        self.size = size
        self.used = 0
        self.inodes = inodes
        self.inodes_used = 0

    @property
    def free(self) -> int:
        """Bytes that can still be taken."""
        return self.size - self.used

    def take(self, count: int) -> None:
        """Takes `count` bytes; gives back if negative. Raises OSError ENOSPC, with nothing taken."""
        if count > self.size - self.used:
            raise OSError(errno.ENOSPC, "the filesystem's size is used up")
        self.used += count

    def take_inode(self) -> None:
        """Raises OSError ENOSPC, with nothing taken."""
        if self.inodes_used >= self.inodes:
            raise OSError(errno.ENOSPC, "the filesystem's number of inodes is used up")
        self.inodes_used += 1

    def give_inode(self) -> None:
        self.inodes_used -= 1
