"""Where the suite runs: on a kernel filesystem, on a passthrough mount that shows one, and on a memory mount.

All have the same size, so that they can be filled. The filesystems beneath are made for the run: a tmpfs, and an ext4
in a file where the machine has loop devices. The passthrough over the ring shows ext4, that over /dev/fuse tmpfs.
"""

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from mount import support

MIB = 1 << 20
SIZE = 64 * MIB
INODES = 3_000
EXT4_LINK_MAX = 65_000
MANY_LINKS = "many-links"
"""A file at the top of an ext4 target that has room for one more name."""
HAS_EXT4 = Path("/dev/loop-control").exists() and shutil.which("mkfs.ext4") is not None

RUN_LIMIT = 1800.0
"""Seconds after which servers are killed; a test that hangs is ended by `Target.deadline` long before."""
TEST_LIMIT = 30.0


class Place(NamedTuple):
    """Where the suite may run: `kind` is native, passthrough or memory, `beneath` tmpfs, ext4 or none."""

    kind: str
    beneath: str
    transport: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.kind, self.transport or self.beneath)))

    @contextlib.contextmanager
    def mounted(self, folder: Path) -> Iterator["Target"]:
        """Mounts it below `folder`."""
        with FILESYSTEMS[self.beneath](folder) as source:
            if self.kind == "native":
                yield Target(self, source, source, None)
                return
            options = MEMORY if self.kind == "memory" else {"source": str(source)}
            with support.serve(
                folder, filesystem=self.kind, options=options, transport=self.transport, patience=RUN_LIMIT
            ) as served:
                yield Target(self, served.path, source, served)


class Target(NamedTuple):
    """A place that is mounted."""

    place: Place
    root: Path
    source: Path
    """The same objects, without a mount between. Memory has none, and here an empty folder."""
    served: support.ServedMount | None

    @contextlib.contextmanager
    def deadline(self) -> Iterator[None]:
        """Kills the server if the block takes too long: what hangs in the mount then ends with an error."""
        if self.served is None:
            yield
            return
        timer = threading.Timer(TEST_LIMIT, support._kill_session, [self.served.process.pid])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def system(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"


@contextlib.contextmanager
def nothing(folder: Path) -> Iterator[Path]:
    """An empty folder in `folder`."""
    path = folder / "beneath"
    path.mkdir()
    yield path


@contextlib.contextmanager
def tmpfs(folder: Path) -> Iterator[Path]:
    """A tmpfs in `folder`."""
    with nothing(folder) as path:
        system("mount", "-t", "tmpfs", "-o", f"size={SIZE},nr_inodes={INODES},mode=755", "tmpfs", str(path))
        try:
            yield path
        finally:
            system("umount", "-l", str(path))


@contextlib.contextmanager
def ext4(folder: Path) -> Iterator[Path]:
    """An ext4 in `folder`, with a file `MANY_LINKS`."""
    image = folder / "image"
    with image.open("wb") as file:
        os.truncate(file.fileno(), SIZE + 16 * MIB)
    features = "^has_journal,^metadata_csum"
    system("mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256", "-N", str(INODES), "-O", features, str(image))
    system("debugfs", "-w", "-R", f"write /dev/null {MANY_LINKS}", str(image))
    system("debugfs", "-w", "-R", f"set_inode_field /{MANY_LINKS} links_count {EXT4_LINK_MAX - 1}", str(image))
    with nothing(folder) as path:
        system("mount", "-o", "loop", str(image), str(path))
        try:
            yield path
        finally:
            system("umount", "-l", str(path))


FILESYSTEMS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Path]]] = {
    "none": nothing,
    "tmpfs": tmpfs,
    "ext4": ext4,
}
MEMORY = {"size": SIZE, "inodes": INODES, "mode": "0755"}

PLACES = [
    Place("native", "tmpfs"),
    *([Place("native", "ext4")] if HAS_EXT4 else []),
    Place("passthrough", "ext4" if HAS_EXT4 else "tmpfs", "io_uring"),
    Place("passthrough", "tmpfs", "dev_fuse"),
    Place("memory", "none", "io_uring"),
    Place("memory", "none", "dev_fuse"),
]


def parameters(places: list[Place]) -> list[object]:
    """For `pytest.mark.parametrize("target", ..., indirect=True)`."""
    return [
        pytest.param(place, id=str(place), marks=[pytest.mark.ring] if place.transport == "io_uring" else [])
        for place in places
    ]


on_ext4 = pytest.mark.parametrize(
    "target", parameters([place for place in PLACES if place.beneath == "ext4"]), indirect=True
)
"""For what only ext4 has. Where it cannot be mounted, such a test has no targets."""
