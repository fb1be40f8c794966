"""The worlds that are compared: mounts beside a native folder on the same kind of filesystem."""

import contextlib
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from mount.differential.calls import USERS, Call
from mount.differential.comparison import Rules
from mount.differential.walk import Place, Worlds
from mount.posix.syscalls import FALLOC_ZERO_RANGE
from mount.posix.targets import FILESYSTEMS, HAS_EXT4, MEMORY
from mount.support import serve

CHANGES = tuple(map(int, platform.release().split(".")[:2])) >= (6, 13)
"""Whether two changes within a timer tick can be told apart (multigrain timestamps)."""
SAME = Rules(changes=CHANGES)
ON_DISK = SAME._replace(blocks=False, numbers=False)
IN_MEMORY = SAME._replace(blocks=False, holes=False, moments=False)
LOCKS = frozenset({"lock", "lock_in_the_way", "flock"})
"""With `locks: backing` those of an open file end with its RELEASE, a moment after close(2)."""

ASKED = {"timeouts": {"attr": 0, "entry": 0, "negative": 0}, "cache": "none"}
"""The kernel keeps nothing, and asks each time."""

MOUNTS: dict[str, dict[str, Any]] = {
    "ring": {"transport": "io_uring"},
    "ring-asked": {"transport": "io_uring", **ASKED},
    "ring-python": {"transport": "io_uring", "options": {"fast": False}, **ASKED},
    "ring-unchecked": {"transport": "io_uring", "default_permissions": False, **ASKED},
    "ring-coherent": {"transport": "io_uring", "cache": "coherent"},
    "ring-passed": {"transport": "io_uring", "data": "passthrough"},
    "ring-unpassed": {"transport": "io_uring", "data": "userspace"},
    "ring-writeback": {"transport": "io_uring", "writeback": True},
    "dev_fuse": {"transport": "dev_fuse", "timeouts": {"negative": 1}},
    "dev_fuse-python": {"transport": "dev_fuse", "options": {"fast": False, "locks": "backing"}, "data": "userspace"},
    "memory": {"transport": "io_uring", "filesystem": "memory"},
    "memory-asked": {"transport": "dev_fuse", "filesystem": "memory", **ASKED},
}


class Group(NamedTuple):
    """What is compared at a time: a native folder, and mounts of `MOUNTS`, each of which shows a filesystem of its own.

    `users`: whose calls are made at random.
    """

    beneath: str
    mounts: Sequence[str]
    users: Sequence[str] = USERS


GROUPS = {
    "tmpfs": Group(
        "tmpfs",
        [
            "ring",
            "ring-asked",
            "ring-coherent",
            "ring-passed",
            "ring-writeback",
            "dev_fuse",
            "dev_fuse-python",
            "memory",
        ],
    ),
    # Without default_permissions the kernel asks about access in access(2) and chdir(2) alone, and opens a fifo without
    # asking at all: others than root are in cases, of what the filesystem has a say in.
    "unchecked": Group("tmpfs", ["ring-unchecked"], USERS[:1]),
} | ({"ext4": Group("ext4", ["ring", "ring-asked"])} if HAS_EXT4 else {})
MORE = {
    "tmpfs": ["ring-python", "ring-unpassed", "memory-asked"],
    "ext4": ["ring-coherent", "ring-passed", "ring-writeback"],
}
SOAKED = {name: group._replace(mounts=[*group.mounts, *MORE.get(name, ())]) for name, group in GROUPS.items()}


def chosen(groups: Mapping[str, Group]) -> list[str]:
    """Those to run: all, or what RINGMOUNT_WORLDS=tmpfs,ext4 says."""
    return [name for name in groups if name in os.environ.get("RINGMOUNT_WORLDS", name).split(",")]


def differs_by_nature(call: Call, beneath: str) -> bool:
    """Whether a call must not be made at random.

    - FALLOC_FL_ZERO_RANGE: tmpfs has it not, the memory filesystem has.
    - O_DIRECT: ext4 wants alignment, a passthrough mount does not; the aligned ones of `direct` are compared.
    - A chown(-1, -1) of a file with S_ISUID by a stranger: natively EPERM, but its SETATTR is the same as the one that
      precedes a stranger's write, which must succeed.
    """
    match call.operation, call.arguments:
        case "fallocate", (_, mode, _, _):
            return beneath == "tmpfs" and bool(mode & FALLOC_ZERO_RANGE)
        case (("chown" | "fchown"), (_, -1, -1, *_)):
            return call.user != "root"
        case (("open" | "open_again" | "open_by_handle"), (_, _, flags, *_)) | (
            ("open_in", (_, _, _, flags, _)) | ("set_status", (_, flags))
        ):
            return beneath == "ext4" and bool(flags & os.O_DIRECT)
    return False


@contextlib.contextmanager
def worlds(group: Group, patience: float) -> Iterator[Worlds]:
    """The native folder and the mounts, with a process of each user. `patience`: seconds that servers live."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="ringmount-differential-")))
        folder.chmod(0o711)

        def source(name: str) -> Path:
            return stack.enter_context(FILESYSTEMS[group.beneath](make(folder / name)))

        native = Place("native", source("native"), None, ON_DISK if group.beneath == "ext4" else SAME)
        places = [native]
        for name in group.mounts:
            mount: dict[str, Any] = {"filesystem": "passthrough", "options": {}, "patience": patience} | MOUNTS[name]
            rules, shown = native.rules, None
            if mount["filesystem"] == "memory":
                rules, mount["options"] = IN_MEMORY, MEMORY
            else:
                shown = source(name)
                mount["options"] = mount["options"] | {"source": str(shown)}
            if mount.get(
                "writeback"
            ):  # what is written takes space later, times are the kernel's, and holes are not told
                rules = rules._replace(blocks=False, changes=False, holes=False)
            if mount["options"].get("locks") == "backing":
                rules = rules._replace(ignored=LOCKS)
            if not mount.get("default_permissions", True):
                rules = rules._replace(refusals=False)
            served = stack.enter_context(serve(make(folder / f"at-{name}"), **mount))
            places.append(Place(name, served.path, shown, rules))
        compared = Worlds(places, lambda call: differs_by_nature(call, group.beneath), group.users)
        stack.callback(compared.end)
        yield compared


def make(path: Path) -> Path:
    path.mkdir()
    path.chmod(0o711)
    return path
