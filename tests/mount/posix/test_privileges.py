"""When a file loses S_ISUID, S_ISGID and its capabilities."""

import errno
import mmap
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from mount.posix import kinds
from mount.posix.each import each
from mount.posix.expect import mode_of, opened, refused
from mount.posix.kinds import Kind, make, make_file
from mount.posix.syscalls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, fallocate
from mount.posix.users import User, alice, bob, carol, root

CAPABILITIES = bytes.fromhex("0100000200200000000000000000000000000000")
"""Version 2, effective, CAP_NET_RAW permitted (struct vfs_cap_data)."""

Change = Callable[[Path], object]


def with_descriptor(call: Callable[[int], object], flags: int = os.O_RDWR) -> Change:
    def change(path: Path) -> None:
        with opened(path, flags) as fd:
            call(fd)

    return change


def write_direct(fd: int) -> None:
    page = mmap.mmap(-1, 4096)
    os.pwrite(fd, page, 0)


CHANGES: dict[str, Change] = {
    "write": with_descriptor(lambda fd: os.write(fd, b"x")),
    "append": with_descriptor(lambda fd: os.write(fd, b"x"), os.O_WRONLY | os.O_APPEND),
    "pwrite beyond the end": with_descriptor(lambda fd: os.pwrite(fd, b"x", 100_000)),
    "writev": with_descriptor(lambda fd: os.writev(fd, [b"x", b"y"])),
    "direct write": with_descriptor(write_direct, os.O_RDWR | os.O_DIRECT),
    "truncate": lambda path: os.truncate(path, 100),
    "truncate to the same size": lambda path: os.truncate(path, 8192),
    "ftruncate": with_descriptor(lambda fd: os.ftruncate(fd, 100)),
    "ftruncate to a larger size": with_descriptor(lambda fd: os.ftruncate(fd, 100_000)),
    "open O_TRUNC": with_descriptor(lambda fd: None, os.O_WRONLY | os.O_TRUNC),
    "creat": with_descriptor(lambda fd: None, os.O_WRONLY | os.O_TRUNC | os.O_CREAT),
    "fallocate": with_descriptor(lambda fd: fallocate(fd, 0, 0, 100_000)),
    "punch": with_descriptor(lambda fd: fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 0, 4096)),
    "copy_file_range": with_descriptor(lambda fd: os.copy_file_range(fd, fd, 100, 0, 4096)),
}


def program(folder: Path, mode: int, owner: tuple[int, int] = (0, 0), name: str = "x") -> Path:
    path = make_file(folder / name, b"x" * 8192)
    os.chown(path, *owner)
    os.chmod(path, mode)
    return path


def modes_after_changes(folder: Path, user: User, mode: int, owner: tuple[int, int] = (0, 0)) -> dict[str, str]:
    """What is left of the mode after each of `CHANGES`, made by this user to a program of this owner."""
    programs = {name: program(folder, mode, owner, name.replace(" ", "-")) for name in CHANGES}

    def change_all() -> None:
        for name, change in CHANGES.items():
            change(programs[name])

    user(change_all)
    return {name: oct(mode_of(path)) for name, path in programs.items()}


def test_a_users_change_of_the_contents_takes_privileges_away(folder: Path) -> None:
    assert modes_after_changes(folder, alice, 0o6777, alice[:2]) == dict.fromkeys(CHANGES, "0o777")


def test_somebody_elses_change_does_too(folder: Path) -> None:
    assert modes_after_changes(folder, bob, 0o6777) == dict.fromkeys(CHANGES, "0o777")


def test_the_superusers_change_does_not(folder: Path) -> None:
    assert modes_after_changes(folder, root, 0o6777, alice[:2]) == dict.fromkeys(CHANGES, "0o6777")


@each(
    ("user", "mode", "left"),
    {"owner": (alice, 0o6767, "0o2767"), "member": (carol, 0o6766, "0o2766"), "stranger": (bob, 0o6766, "0o766")},
)
def test_without_execution_for_the_group_setgid_stays_for_its_members(
    folder: Path, user: User, mode: int, left: str
) -> None:
    """Such a mode once meant mandatory locking."""
    assert modes_after_changes(folder, user, mode, alice[:2]) == dict.fromkeys(CHANGES, left)


@each("user", {"bob": bob, "root": root})
def test_capabilities_are_taken_away_by_anybody(folder: Path, user: User) -> None:
    programs = {name: program(folder, 0o777, name=name.replace(" ", "-")) for name in CHANGES}
    for path in programs.values():
        os.setxattr(path, "security.capability", CAPABILITIES)
    user(lambda: [change(programs[name]) for name, change in CHANGES.items()])
    assert {name: os.listxattr(path) for name, path in programs.items()} == {name: [] for name in CHANGES}


def test_writing_nothing_takes_nothing(folder: Path) -> None:
    path = program(folder, 0o6777)
    bob(with_descriptor(lambda fd: os.write(fd, b"")), path)
    assert mode_of(path) == 0o6777


@each("mode", [0o6777, 0o4755, 0o2755, 0o4711])
def test_another_owner_takes_privileges_away_even_from_the_superuser(folder: Path, mode: int) -> None:
    path = program(folder, mode)
    os.chown(path, alice.uid, alice.gid)
    assert oct(mode_of(path)) == oct(mode & 0o777)


@each("owner", [(alice.uid, -1), (-1, alice.gid), (-1, -1), (0, 0)])
def test_naming_either_suffices(folder: Path, owner: tuple[int, int]) -> None:
    path = program(folder, 0o6755)
    os.chown(path, *owner)
    assert oct(mode_of(path)) == "0o755"


def test_another_group_by_the_owner_takes_privileges_away(folder: Path) -> None:
    path = program(folder, 0o6755, (carol.uid, carol.gid))
    carol(os.chown, path, -1, alice.gid)
    assert oct(mode_of(path)) == "0o755"


def test_another_owner_takes_capabilities_away(folder: Path) -> None:
    path = program(folder, 0o755)
    os.setxattr(path, "security.capability", CAPABILITIES)
    os.chown(path, alice.uid, -1)
    assert os.listxattr(path) == []


def test_another_owner_leaves_setgid_without_execution_for_the_group(folder: Path) -> None:
    path = program(folder, 0o6745)
    os.chown(path, alice.uid, alice.gid)
    assert oct(mode_of(path)) == "0o2745"


@each("kind", [Kind.FOLDER, Kind.FIFO])
def test_a_folder_keeps_its_bits_when_it_gets_another_owner(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x", 0o6755)
    os.chown(path, alice.uid, alice.gid)
    assert oct(mode_of(path)) == ("0o6755" if kind is Kind.FOLDER else "0o755")


def test_other_changes_leave_them(folder: Path) -> None:
    path = program(folder, 0o6755, (alice.uid, alice.gid))

    def change_much() -> None:
        os.utime(path, ns=(1, 1))
        os.link(path, folder / "y")
        os.rename(path, folder / "z")
        os.setxattr(folder / "z", "user.x", b"value")
        with opened(folder / "z") as fd:
            os.read(fd, 10)
            os.fsync(fd)

    alice(change_much)
    assert oct(mode_of(folder / "y")) == "0o6755"


def test_a_mapping_may_be_written_without_loss(folder: Path) -> None:
    """The kernel asks for no privileges at a page fault."""
    path = program(folder, 0o6777)

    def write_mapped() -> None:
        with opened(path) as fd, mmap.mmap(fd, 8192) as mapping:
            mapping[:5] = b"mmap!"
            mapping.flush()

    bob(write_mapped)
    assert path.read_bytes()[:5] == b"mmap!"


def test_a_program_runs_as_its_owner(folder: Path) -> None:
    program = Path(shutil.copy("/usr/bin/id", folder / "id"))
    os.chown(program, alice.uid, alice.gid)
    os.chmod(program, 0o6755)

    def run(option: str) -> int:
        return int(subprocess.run([program, option], capture_output=True, timeout=20, check=True).stdout)

    assert (bob(run, "-u"), bob(run, "-g")) == (alice.uid, alice.gid)
    os.chmod(program, 0o755)
    assert (bob(run, "-u"), bob(run, "-g")) == (bob.uid, bob.gid)


@each("kind", kinds.NOT_LINKS)
def test_only_the_superuser_gives_capabilities(folder: Path, kind: Kind) -> None:
    path = make(kind, folder / "x", 0o777)
    os.chown(path, alice.uid, alice.gid)
    with refused(errno.EPERM):
        alice(os.setxattr, path, "security.capability", CAPABILITIES)
    os.setxattr(path, "security.capability", CAPABILITIES)
    with refused(errno.EPERM):
        alice(os.removexattr, path, "security.capability")
    os.removexattr(path, "security.capability")
