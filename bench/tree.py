"""What lies beneath every mount: made natively, once, in a tmpfs of the bench's own."""

import io
import os
import random
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
LONG_AGO = 1_500_000_000
"""The files' mtime: older than git's index, or git would read contents to be sure."""


@dataclass(frozen=True)
class Sizes:
    """`listing`: entries of the listed folder; `archive`: files to untar; `repository`: files under git."""

    block_file: int = 64 * MIB
    sequential: int = 256 * MIB
    listing: int = 10_000
    archive: int = 2_000
    repository: int = 10_000


QUICK = Sizes(block_file=16 * MIB, sequential=64 * MIB, repository=2_000)


def make(source: Path, work: Path, sizes: Sizes, clients: int, servers: list[str]) -> None:
    """Fills `source`; the archive goes to `work`."""
    source.mkdir()
    _fill(source / "sequential", sizes.sequential)
    for index in range(clients):
        _fill(source / f"file{index}", sizes.block_file)
    (source / "listing").mkdir()
    for index in range(sizes.listing):
        (source / "listing" / f"entry-{index:05d}.dat").touch()
    for key in servers:
        (source / f"untar-{key}").mkdir()
    _make_archive(work / "archive.tar", sizes.archive)
    _make_repository(source / "repository", sizes.repository)


def _fill(path: Path, size: int) -> None:
    piece = os.urandom(MIB)
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(piece)


def _contents(count: int) -> list[tuple[str, bytes]]:
    """Sources of a program, so to speak: 20 files a folder, mostly small. The same in every run."""
    chance = random.Random(1)
    return [
        (f"part{index // 400}/module{index // 20}/file{index}.c", chance.randbytes(int(chance.lognormvariate(8, 1))))
        for index in range(count)
    ]


def _make_archive(path: Path, count: int) -> None:
    with tarfile.open(path, "w") as archive:
        made = set()
        for name, data in _contents(count):
            for parent in (name.split("/")[0], "/".join(name.split("/")[:2])):
                if parent not in made:
                    made.add(parent)
                    folder = tarfile.TarInfo(parent)
                    folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, LONG_AGO
                    archive.addfile(folder)
            file = tarfile.TarInfo(name)
            file.size, file.mtime = len(data), LONG_AGO
            archive.addfile(file, io.BytesIO(data))


def _make_repository(path: Path, count: int) -> None:
    """Inode numbers and ctimes differ between mounts of one folder, so git is told to look at sizes and mtimes only."""
    for name, data in _contents(count):
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        os.utime(file, (LONG_AGO, LONG_AGO))
    git = ["git", "-C", str(path), "-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    for command in (
        ["init", "-q"],
        ["config", "core.checkStat", "minimal"],
        ["config", "core.trustctime", "false"],
        ["add", "-A"],
        ["commit", "-q", "-m", "all"],
    ):
        subprocess.run([*git, *command], check=True, capture_output=True, timeout=300)
