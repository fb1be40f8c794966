"""Which processes use a mount, also one that is out of the tree.

The rule a change must keep: nothing here asks the mount itself, which may hang: descriptors are known by the number of
their mount (proc(5), fdinfo), mappings by their device.
"""

import contextlib
import os
import re
from pathlib import Path
from typing import NamedTuple

from ringmount.daemon import mountinfo

MOUNT_ID = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)
FOLDERS = ("cwd", "root")


class Holder(NamedTuple):
    """A process, and how many open files, mappings and folders of it are on the mount."""

    pid: int
    command: str
    uses: int


def mount_ids(connection: int) -> set[int]:
    """The mounts of a FUSE connection that this process sees (mnt_id in mountinfo)."""
    return {entry.id for entry in mountinfo.read() if entry.is_fuse and entry.minor == connection}


def find(mounts: set[int], connection: int) -> list[Holder]:
    """Those that this process may see, the one with the most uses first."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            uses = _files(name, mounts) + _folders(name, mounts) + _mappings(name, connection)
            if uses:
                found.append(Holder(int(name), _read(f"/proc/{name}/comm").strip(), uses))
    return sorted(found, key=lambda holder: (-holder.uses, holder.pid))


def _files(pid: str, mounts: set[int]) -> int:
    with contextlib.suppress(OSError):
        return sum(_mount_of(f"/proc/{pid}/fdinfo/{fd}") in mounts for fd in os.listdir(f"/proc/{pid}/fdinfo"))
    return 0


def _folders(pid: str, mounts: set[int]) -> int:
    """Opening a link of /proc asks no filesystem: it leads to the object itself (nd_jump_link in the kernel)."""
    count = 0
    for which in FOLDERS:
        with contextlib.suppress(OSError):
            fd = os.open(f"/proc/{pid}/{which}", os.O_PATH | os.O_CLOEXEC)
            try:
                count += _mount_of(f"/proc/self/fdinfo/{fd}") in mounts
            finally:
                os.close(fd)
    return count


def _mappings(pid: str, connection: int) -> int:
    device = f" 00:{connection:02x} "
    return sum(device in line for line in _read(f"/proc/{pid}/maps").splitlines())


def _mount_of(fdinfo: str) -> int:
    found = MOUNT_ID.search(_read(fdinfo))
    return int(found[1]) if found else -1


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(errors="backslashreplace")
    return ""
