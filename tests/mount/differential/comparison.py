"""Whether worlds agree. Inode numbers count only by who has the same, times only by what is sure of them."""

import stat
from typing import NamedTuple

from mount.differential.worlds import Attributes

LONG_AGO_ENDS = 1_500_000_000 * 10**9
"""Times before were set by a test, and are compared to the nanosecond; later ones came from the clock."""


class Rules(NamedTuple):
    """What of a world is comparable with the native one."""

    blocks: bool = True
    """The space that a file takes."""
    holes: bool = True
    """Where a file has holes."""
    changes: bool = True
    """Whether ctime and mtime moved between two looks: needs timestamps finer than the timer tick (Linux 6.13)."""
    numbers: bool = True
    """Who has which inode number: not if numbers are used again, since an unlinked file goes a moment later."""
    moments: bool = True
    """What a listing says of names that came or went since it began, and statfs(2)."""
    refusals: bool = True
    """Which of several reasons a caller is refused for: the kernel finds those of the arguments first."""
    ignored: frozenset[str] = frozenset()
    """Operations whose results differ by nature."""


class View:
    """One world as seen so far: objects are numbered in the order in which they are met."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._numbers: dict[int, int] = {}
        self._times: dict[int, tuple[int, int]] = {}
        self._mapped: set[int] = set()
        """Inode numbers of files that were mapped: when pages are written and allocated is each filesystem's affair."""

    def map(self, ino: int) -> None:
        self._mapped.add(ino)

    def is_mapped(self, ino: int) -> bool:
        return ino in self._mapped or (bool(self._mapped) and not self.rules.numbers)

    def comparable(self, found: Attributes) -> dict[str, object]:
        """What may be the same in another world."""
        told: dict[str, object] = {
            "mode": oct(found.mode),
            "nlink": found.nlink,
            "uid": found.uid,
            "gid": found.gid,
            "rdev": found.rdev,
        }
        if self.rules.numbers:
            told["object"] = self._numbers.setdefault(found.ino, len(self._numbers))
        is_file = stat.S_ISREG(found.mode)
        if not stat.S_ISDIR(found.mode) or self.rules.blocks:
            told["size"] = found.size
        if not (is_file or stat.S_ISLNK(found.mode)):  # their contents are cached, and reads from there not told
            told["atime"] = _moment(found.atime)
        if not self.is_mapped(found.ino):
            told["mtime"] = _moment(found.mtime)
            if is_file and self.rules.blocks:
                told["blocks"] = found.blocks
        return told

    def moved(self, tree: dict[bytes, Attributes]) -> dict[bytes, str]:
        """Of each object the times, of "cm", that changed since the last look."""
        if not self.rules.changes:
            return {}
        found = {}
        for path, its in tree.items():
            if not self.is_mapped(its.ino):
                before = self._times.get(its.ino, (0, 0))
                found[path] = "".join(
                    name for name, old, new in zip("cm", before, (its.ctime, its.mtime), strict=True) if old != new
                )
        self._times = {its.ino: (its.ctime, its.mtime) for its in tree.values()}
        return found


def _moment(time: int) -> object:
    return time if time < LONG_AGO_ENDS else "by the clock"


def differing(expected: dict[str, object], got: dict[str, object]) -> str:
    """Of what both tell, what differs; empty if nothing does."""
    return ", ".join(
        f"{key} {got[key]} instead of {expected[key]}"
        for key in expected.keys() & got.keys()
        if got[key] != expected[key]
    )
