"""Where the suite runs: on a kernel filesystem, on a passthrough mount that shows one, and on a memory mount.

All have the same size, so that they can be filled. The filesystems beneath are made for the run: a tmpfs, and an ext4 in
a file where the machine has loop devices; the ring shows the one and /dev/fuse the other.
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
INODES = 80_000
HAS_EXT4 = Path("/dev/loop-control").exists() and shutil.which("mkfs.ext4") is not None
EXT4 = "ext4" if HAS_EXT4 else "tmpfs"

RUN_LIMIT = 1800.0
"""Seconds after which servers are killed; a test that hangs is ended by `Target.deadline` long before."""
TEST_LIMIT = 30.0


class Target(NamedTuple):
    """A filesystem that is tested: `kind` is native, passthrough or memory, `beneath` tmpfs, ext4 or none."""

    kind: str
    beneath: str
    root: Path
    source: Path | None
    """The same objects, without a mount between."""
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


class Place(NamedTuple):
    """A target before it is mounted."""

    kind: str
    beneath: str
    transport: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.kind, self.transport or self.beneath)))

    @contextlib.contextmanager
    def mounted(self, folder: Path) -> Iterator[Target]:
        """Mounts it below `folder`."""
        with contextlib.ExitStack() as stack:
            if self.kind == "memory":
                options = {"size": SIZE, "inodes": INODES, "mode": "0755"}
                served = stack.enter_context(serve(folder, filesystem="memory", options=options, transport=self.transport))
                yield Target(self.kind, self.beneath, served.path, None, served)
                return
            source = folder / "beneath"
            source.mkdir()
            stack.enter_context(FILESYSTEMS[self.beneath](source))
            if self.kind == "native":
                yield Target(self.kind, self.beneath, source, source, None)
                return
            options = {"source": str(source)}
            served = stack.enter_context(serve(folder, filesystem="passthrough", options=options, transport=self.transport))
            yield Target(self.kind, self.beneath, served.path, source, served)


@contextlib.contextmanager
def serve(folder: Path, **settings: object) -> Iterator[support.ServedMount]:
    """`support.serve` for a mount that many tests use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(support, "WATCHDOG", RUN_LIMIT)
        serving = support.serve(folder, **settings)  # type: ignore[arg-type]  # any setting
        served = serving.__enter__()
    with contextlib.ExitStack() as stack:
        stack.push(serving.__exit__)
        yield served


def system(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"


@contextlib.contextmanager
def tmpfs(folder: Path) -> Iterator[None]:
    system("mount", "-t", "tmpfs", "-o", f"size={SIZE},nr_inodes={INODES},mode=755", "tmpfs", str(folder))
    try:
        yield
    finally:
        system("umount", "-l", str(folder))


@contextlib.contextmanager
def ext4(folder: Path) -> Iterator[None]:
    image = folder.with_name(f"{folder.name}.ext4")
    with image.open("wb") as file:
        os.truncate(file.fileno(), SIZE + 16 * MIB)
    system("mkfs.ext4", "-q", "-F", "-I", "256", "-N", str(INODES // 4), "-O", "^has_journal", str(image))
    system("mount", "-o", "loop", str(image), str(folder))
    try:
        yield
    finally:
        system("umount", "-l", str(folder))


FILESYSTEMS: dict[str, Callable[[Path], contextlib.AbstractContextManager[None]]] = {"tmpfs": tmpfs, "ext4": ext4}

NATIVE = [Place("native", "tmpfs"), *([Place("native", "ext4")] if HAS_EXT4 else [])]
PASSTHROUGH = [Place("passthrough", EXT4, "io_uring"), Place("passthrough", "tmpfs", "dev_fuse")]
MEMORY = [Place("memory", "none", "io_uring"), Place("memory", "none", "dev_fuse")]
PLACES = [*NATIVE, *PASSTHROUGH, *MEMORY]


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
