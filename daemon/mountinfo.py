"""What is mounted where, from /proc/self/mountinfo.

The rule a change must keep: nothing here touches a path. A stat of a mountpoint whose server is dead or stuck
fails or waits for ever; the kernel's table answers at once whatever the servers do.

Paths are taken as they are written: absolute and without symbolic links, as the kernel prints them
(`mountpoint.examine` resolves a user's path).
"""

import os.path
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

MOUNTINFO = Path("/proc/self/mountinfo")

RINGMOUNT_TYPE = "fuse.ringmount"
"""The type of all mounts of ours: `fuse` with the subtype `ringmount`."""


class MountEntry(NamedTuple):
    """One line of mountinfo, named as in proc_pid_mountinfo(5)."""

    id: int
    parent: int
    """The id of the mount beneath, or this one's own at the top of the tree."""
    major: int
    minor: int
    """st_dev of the files on it. For FUSE `minor` is also the connection's number in fusectl."""
    root: str
    """The part of the filesystem that is mounted; other than `/` for a bind mount."""
    mountpoint: str
    options: tuple[str, ...]
    """Of this mount: ro, nosuid, ..."""
    fstype: str
    """With the subtype: `fuse.ringmount`."""
    source: str
    super_options: tuple[str, ...]
    """Of the filesystem: ro, user_id=0, allow_other, ..."""

    @property
    def is_fuse(self) -> bool:
        """True if a user-space server answers for it."""
        return self.fstype.split(".")[0] in {"fuse", "fuseblk"}

    def super_option(self, key: str) -> str | None:
        """The value of `key=value` among the filesystem's options; None if it is not there."""
        prefix = f"{key}="
        return next((o.removeprefix(prefix) for o in self.super_options if o.startswith(prefix)), None)


def read(path: Path = MOUNTINFO) -> list[MountEntry]:
    """All mounts that this process sees, in the kernel's order: a later one covers an earlier one at its
    place.
    """
    # Names are bytes to the kernel: surrogateescape keeps those that are not UTF-8 usable as paths. Not
    # read_text(), which turns a carriage return in a name into the end of a line.
    return list(parse(path.read_bytes().decode(errors="surrogateescape")))


def parse(text: str) -> Iterator[MountEntry]:
    """The entries of a mountinfo text. Raises ValueError for a line that is none."""
    # Not splitlines(): a name may hold U+2028 and the like, which the kernel does not escape.
    return (_entry(line) for line in text.split("\n") if line)


def find(mountpoint: str, entries: Iterable[MountEntry] | None = None) -> MountEntry | None:
    """The mount whose top folder this path is, or None.

    Where several lie on one another (an automount and what it mounted, say) it is the topmost; one that is
    hidden by a mount over a folder above it does not count.
    """
    entry = containing(mountpoint, entries)
    return entry if entry and entry.mountpoint == _normal(mountpoint) else None


def containing(path: str, entries: Iterable[MountEntry] | None = None) -> MountEntry | None:
    """The mount that a file of this path is on; None only where the root's own mount is not shown (a
    chroot).
    """
    entries = _given(entries)
    ids = {entry.id for entry in entries}
    # The root's parent is not shown, or it is itself.
    child = {
        (entry.parent if entry.parent in ids and entry.parent != entry.id else None, entry.mountpoint): entry
        for entry in entries
    }
    current: MountEntry | None = None
    for folder in _prefixes(_normal(path)):
        while entry := child.get((current.id if current else None, folder)):
            current = entry
    return current


def under(path: str, entries: Iterable[MountEntry] | None = None) -> list[MountEntry]:
    """The mounts at this path and below it, hidden ones too, in the kernel's order."""
    top = _normal(path)
    below = top.rstrip("/") + "/"
    return [e for e in _given(entries) if e.mountpoint == top or e.mountpoint.startswith(below)]


def _given(entries: Iterable[MountEntry] | None) -> list[MountEntry]:
    return read() if entries is None else list(entries)


def _prefixes(path: str) -> Iterator[str]:
    """`/`, `/a`, `/a/b` of `/a/b`."""
    yield "/"
    end = 0
    while path != "/" and end != -1:
        end = path.find("/", end + 1)
        yield path[:end] if end != -1 else path


def _normal(path: str) -> str:
    """An absolute path without `.`, `//` or a slash at its end. `..` is taken by its letters."""
    # POSIX lets normpath keep two leading slashes.
    return "/" + os.path.normpath(path).lstrip("/")


def _entry(line: str) -> MountEntry:
    # "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue"
    # Any number of optional fields stands before the hyphen; what the kernel adds one day goes there as well.
    fields = line.split(" ")
    hyphen = fields.index("-", 6)
    major, _, minor = fields[2].partition(":")
    fstype, source, super_options, *_ = fields[hyphen + 1 :]
    return MountEntry(
        id=int(fields[0]),
        parent=int(fields[1]),
        major=int(major),
        minor=int(minor),
        root=_unescape(fields[3]),
        mountpoint=_unescape(fields[4]),
        options=tuple(fields[5].split(",")),
        fstype=_unescape(fstype),
        source=_unescape(source),
        super_options=tuple(_unescape(option) for option in super_options.split(",")),
    )


def _unescape(text: str) -> str:
    """Undoes the kernel's `\\040` for space, tab, newline, backslash and, in places, `#`."""
    # seq_file's mangle_path() and string_escape_mem() print nothing but three octal digits here.
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
