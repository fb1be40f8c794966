"""The locks on one file: who holds what, and what stands in the way of a wish. Nothing waits here."""

from fcntl import F_UNLCK, F_WRLCK, LOCK_EX, LOCK_UN
from typing import NamedTuple

from ringmount.workers.api import Lock


class Range(NamedTuple):
    """A byte range that an owner holds; `end` is inclusive."""

    owner: int
    type: int
    start: int
    end: int
    pid: int


class RangeLocks:
    """POSIX locks (fcntl(2)). The ranges of one owner do not overlap."""

    def __init__(self) -> None:
        self.held: list[Range] = []

    def conflict(self, owner: int, wish: Lock) -> Range | None:
        """What another holds that stands in the way."""
        if wish.type == F_UNLCK:
            return None
        for held in self.held:
            overlaps = held.start <= wish.end and wish.start <= held.end
            if held.owner != owner and overlaps and F_WRLCK in (held.type, wish.type):
                return held
        return None

    def set(self, owner: int, wish: Lock) -> None:
        """Gives the owner what nothing stands in the way of, in place of what it held there."""
        start, end = wish.start, wish.end
        kept = []
        for held in self.held:
            if held.owner != owner:
                kept.append(held)
            elif held.type == wish.type and held.start <= end + 1 and start <= held.end + 1:
                start, end = min(start, held.start), max(end, held.end)
            else:
                kept += outside(held, wish)
        if wish.type != F_UNLCK:
            kept.append(Range(owner, wish.type, start, end, wish.pid))
        self.held = kept

    def drop(self, owner: int) -> None:
        """Takes everything from the owner."""
        self.held = [held for held in self.held if held.owner != owner]


def outside(held: Range, wish: Lock) -> list[Range]:
    """What is left of a range once the wish is cut out of it."""
    if held.end < wish.start or wish.end < held.start:
        return [held]
    left = []
    if held.start < wish.start:
        left.append(held._replace(end=wish.start - 1))
    if wish.end < held.end:
        left.append(held._replace(start=wish.end + 1))
    return left


class FileLocks:
    """flock(2): each owner, an open file, holds the whole file shared or alone."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}

    def conflict(self, owner: int, operation: int) -> bool:
        """Whether another holds what stands in the way."""
        if operation == LOCK_UN:
            return False
        return any(LOCK_EX in (operation, held) for other, held in self.held.items() if other != owner)

    def set(self, owner: int, operation: int) -> None:
        """Gives the owner what nothing stands in the way of, in place of what it held."""
        if operation == LOCK_UN:
            self.drop(owner)
        else:
            self.held[owner] = operation

    def drop(self, owner: int) -> None:
        """Takes the owner's lock away, if there is one."""
        self.held.pop(owner, None)
