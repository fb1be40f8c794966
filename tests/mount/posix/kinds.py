"""One object of each type."""

import os
import stat
from enum import Enum
from pathlib import Path

from mount.posix.syscalls import AT_FDCWD, mknodat


class Kind(Enum):
    """The value is the type's bits in st_mode."""

    FILE = stat.S_IFREG
    FOLDER = stat.S_IFDIR
    SYMLINK = stat.S_IFLNK
    FIFO = stat.S_IFIFO
    CHARACTER = stat.S_IFCHR
    BLOCK = stat.S_IFBLK
    SOCKET = stat.S_IFSOCK

    def __str__(self) -> str:
        return self.name.lower()


DEVICE = os.makedev(240, 17)
"""A number for local use (the kernel's devices.txt): nothing answers to it."""

ALL = list(Kind)
NOT_FOLDERS = [kind for kind in Kind if kind is not Kind.FOLDER]
NOT_LINKS = [kind for kind in Kind if kind is not Kind.SYMLINK]
NODES = [Kind.FIFO, Kind.CHARACTER, Kind.BLOCK, Kind.SOCKET]


def make(kind: Kind, path: Path, mode: int = 0o644) -> Path:
    """Makes the object, with this mode whatever the umask; a symbolic link leads nowhere."""
    match kind:
        case Kind.FOLDER:
            os.mkdir(path)
        case Kind.SYMLINK:
            os.symlink("nowhere", path)
            return path
        case _:
            mknodat(AT_FDCWD, path, kind.value | 0o600, DEVICE if kind in (Kind.CHARACTER, Kind.BLOCK) else 0)
    os.chmod(path, mode)
    return path


def make_file(path: Path, content: bytes = b"", mode: int = 0o644) -> Path:
    path.write_bytes(content)
    os.chmod(path, mode)
    return path


def make_folder(path: Path, mode: int = 0o755) -> Path:
    os.mkdir(path)
    os.chmod(path, mode)
    return path
