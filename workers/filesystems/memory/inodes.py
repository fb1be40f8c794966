"""The objects of the tree. An inode is its own attributes: it has the members of the API's `AttrLike`.

The rules that a change must keep: an object's `st_nlink` counts the names it has (a folder's: its own name,
its `.`, and the `..` of each folder in it); numbers are never reused.
"""

from bisect import bisect_left
from collections.abc import Iterator

from ringmount.workers.filesystems.memory.chunks import Chunks
from ringmount.workers.filesystems.memory.space import PAGE, Space

MAX_LINKS = (1 << 31) - 1
"""Names of one object; more would not fit where 32-bit programs look for st_nlink."""

FIRST_PLACE = 3
"""Where a folder's names start: `.` has place 1 and `..` place 2."""

_DAY_NS = 86_400 * 10**9


class Inode:
    """A fifo, socket or device, and what all objects have. Times are nanoseconds since the epoch."""

    __slots__ = (
        "btime_ns",
        "is_known",
        "is_linkable",
        "opens",
        "st_atime_ns",
        "st_ctime_ns",
        "st_gid",
        "st_ino",
        "st_mode",
        "st_mtime_ns",
        "st_nlink",
        "st_rdev",
        "st_uid",
        "xattrs",
    )

    def __init__(self, number: int, mode: int, uid: int, gid: int, now: int, rdev: int = 0) -> None:
        self.st_ino = number
        self.st_mode = mode
        self.st_nlink = 1
        self.st_uid = uid
        self.st_gid = gid
        self.st_rdev = rdev
        self.st_atime_ns = self.st_mtime_ns = self.st_ctime_ns = self.btime_ns = now
        self.xattrs: dict[bytes, bytes] = {}
        self.is_known = False
        """Whether the kernel holds references: an Entry was returned, and `forget` has not come."""
        self.is_linkable = False
        """Whether an object without a name may be given one (O_TMPFILE without O_EXCL)."""
        self.opens = 0
        """Handles that were opened and not released."""

    @property
    def st_size(self) -> int:
        return 0

    @property
    def st_blksize(self) -> int:
        return PAGE

    @property
    def st_blocks(self) -> int:
        return 0

    @property
    def is_unused(self) -> bool:
        """Whether nobody can reach it any more: no name, no reference, no handle."""
        return not (self.st_nlink or self.is_known or self.opens)

    def modified(self, now: int) -> None:
        """The contents were changed."""
        self.st_mtime_ns = self.st_ctime_ns = now

    def accessed(self, now: int) -> None:
        """The contents were read: as mount(2)'s MS_RELATIME, which spares a change at each of many reads."""
        before = self.st_atime_ns
        if before <= self.st_mtime_ns or before <= self.st_ctime_ns or now - before >= _DAY_NS:
            self.st_atime_ns = now

    def clear(self) -> None:
        """Gives back what the object's contents take."""


class File(Inode):
    """A regular file."""

    __slots__ = ("chunks",)

    def __init__(self, number: int, mode: int, uid: int, gid: int, now: int, space: Space) -> None:
        super().__init__(number, mode, uid, gid, now)
        self.chunks = Chunks(space)

    @property
    def st_size(self) -> int:
        return self.chunks.size

    @property
    def st_blocks(self) -> int:
        return self.chunks.allocated // 512

    def clear(self) -> None:
        self.chunks.clear()


class Symlink(Inode):
    """A symbolic link."""

    __slots__ = ("target",)

    def __init__(self, number: int, mode: int, uid: int, gid: int, now: int, target: bytes) -> None:
        super().__init__(number, mode, uid, gid, now)
        self.target = target

    @property
    def st_size(self) -> int:
        return len(self.target)


class Folder(Inode):
    """A folder. A name has a place as long as it exists, and listings show the highest place first.

    New names get higher places. So a listing that goes on after changes shows each name that stayed exactly once,
    and names that come meanwhile do not keep it from ending.
    """

    __slots__ = ("_listing", "_names", "_next_place", "_places", "parent")

    def __init__(self, number: int, mode: int, uid: int, gid: int, now: int) -> None:
        super().__init__(number, mode, uid, gid, now)
        self.st_nlink = 2
        self.parent = self
        self._names: dict[bytes, tuple[int, Inode]] = {}
        self._next_place = FIRST_PLACE
        # The places in order, and the names there: None for those removed since the last clean-up.
        self._places: list[int] = []
        self._listing: list[bytes | None] = []

    def __len__(self) -> int:
        return len(self._names)

    @property
    def st_size(self) -> int:
        """As tmpfs shows it: 20 bytes a name, `.` and `..` included."""
        return 20 * (len(self._names) + 2)

    def get(self, name: bytes) -> Inode | None:
        """The object of this name."""
        found = self._names.get(name)
        return None if found is None else found[1]

    def add(self, name: bytes, inode: Inode) -> None:
        """Adds a name that is free."""
        place = self._next_place
        self._next_place += 1
        self._names[name] = place, inode
        self._places.append(place)
        self._listing.append(name)
        self._adopt(inode)

    def replace(self, name: bytes, inode: Inode) -> None:
        """Lets a name that exists mean another object; it keeps its place."""
        place, old = self._names[name]
        self._names[name] = place, inode
        self._dismiss(old)
        self._adopt(inode)

    def remove(self, name: bytes) -> None:
        """Removes a name that exists."""
        place, old = self._names.pop(name)
        self._dismiss(old)
        self._listing[bisect_left(self._places, place)] = None
        if len(self._listing) > 2 * len(self._names) + 32:
            # A dict keeps the order in which names were added, and `replace` leaves it as it is: it is the places'.
            self._places = [place for place, _ in self._names.values()]
            self._listing = list(self._names)

    def after(self, offset: int) -> Iterator[tuple[int, bytes, Inode]]:
        """What a listing shows after `offset`, which is that of a name or, below FIRST_PLACE, of the start.

        Each with its own offset. Valid until the folder is changed.
        """
        end = len(self._places) if offset < FIRST_PLACE else bisect_left(self._places, offset)
        for at in range(end - 1, -1, -1):
            name = self._listing[at]
            if name is not None:
                yield self._places[at], name, self._names[name][1]

    def is_within(self, other: Inode) -> bool:
        """Whether this folder is `other` or lies in it, at any depth."""
        folder = self
        while folder is not other:
            if folder.parent is folder:
                return False
            folder = folder.parent
        return True

    def _adopt(self, inode: Inode) -> None:
        if isinstance(inode, Folder):
            self.st_nlink += 1
            inode.parent = self

    def _dismiss(self, inode: Inode) -> None:
        if isinstance(inode, Folder):
            self.st_nlink -= 1
