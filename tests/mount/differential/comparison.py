"""Whether two worlds agree. Inode numbers count only by who has the same, times only by what is sure of them."""

import stat
from typing import NamedTuple

from mount.differential.worlds import Attributes

LONG_AGO_ENDS = 1_500_000_000 * 10**9
"""Times before were set by a test, and are compared to the nanosecond; later ones came from the clock."""


class Rules(NamedTuple):
    """What is comparable between two filesystems."""

    holes: bool
    """Where a file has holes, and so what space it takes."""
    changes: bool
    """Whether ctime moved between two looks: both need timestamps finer than the timer tick (Linux 6.13)."""


class View:
    """One world as seen so far: objects are numbered in the order in which they are met."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._numbers: dict[int, int] = {}
        self._ctimes: dict[int, int] = {}
        self.mapped: set[int] = set()
        """Numbers of files that were mapped: when their pages are written and allocated is each filesystem's affair."""

    def number(self, ino: int) -> int:
        return self._numbers.setdefault(ino, len(self._numbers))

    def comparable(self, found: Attributes) -> dict[str, object]:
        """What must be the same in the other world."""
        number = self.number(found.ino)
        told: dict[str, object] = {
            "object": number,
            "mode": oct(found.mode),
            "nlink": found.nlink,
            "uid": found.uid,
            "gid": found.gid,
            "rdev": found.rdev,
            "size": found.size,
        }
        is_file = stat.S_ISREG(found.mode)
        if not (is_file or stat.S_ISLNK(found.mode)):  # their contents are cached, and reads from there not told
            told["atime"] = _moment(found.atime)
        if number not in self.mapped:
            told["mtime"] = _moment(found.mtime)
            if is_file and self._rules.holes:
                told["blocks"] = found.blocks
        return told

    def moved(self, tree: dict[bytes, Attributes]) -> dict[bytes, bool]:
        """Of which objects ctime changed since the last look."""
        if not self._rules.changes:
            return {}
        found = {}
        for path, its in tree.items():
            number = self.number(its.ino)
            if number not in self.mapped:
                found[path] = self._ctimes.get(number) != its.ctime
        self._ctimes = {self.number(its.ino): its.ctime for its in tree.values()}
        return found


def _moment(time: int) -> object:
    return time if time < LONG_AGO_ENDS else "by the clock"
