"""Whether a mount could go on with what its file says now and the code that is installed now.

Run in a fresh interpreter while the old workers serve, by `ringmount reload`: it imports everything anew, reads the
arena as the new version understands it, and makes the filesystem as a worker would. Only its answer is kept.

    python -m ringmount.daemon.trial FILE.yaml ARENA_FD      prints an Answer as JSON
"""

import socket
import sys
from pathlib import Path

import msgspec

from ringmount.config.errors import ConfigError
from ringmount.config.model import MountConfig
from ringmount.daemon import kept, log
from ringmount.daemon.exitcodes import Failure
from ringmount.daemon.kept import Kept
from ringmount.daemon.prepared import Prepared, prepare
from ringmount.workers import load
from ringmount.workers.arena import ArenaError, Layout
from ringmount.workers.worker import Setup, Worker, drop_privileges

LASTING = (
    "mountpoint",
    "filesystem",
    "transport",
    "workers",
    "cpus",
    "queue_depth",
    "max_write",
    "readahead",
    "cache",
    "data",
    "writeback",
    "readdirplus",
    "allow_other",
    "default_permissions",
    "user",
    "read_only",
)
"""Keys that the kernel was told, or that the arena was made for: they last until the mount is made anew."""

AGREED = ("handle_policy", "posix_acl", "handle_killpriv", "export")
"""The same of a filesystem's description."""


class Answer(msgspec.Struct):
    """`error`: why it cannot, else the settings from now on: as the file has them, and as they take effect."""

    error: str = ""
    asked: MountConfig | None = None
    config: MountConfig | None = None


def differences(old: MountConfig, new: MountConfig) -> list[str]:
    """The keys that cannot change while the mount is there, and do."""
    return [key for key in LASTING if getattr(old, key) != getattr(new, key)]


def attempt(path: str, arena_fd: int) -> Answer:
    """The answer. Raises nothing that the file, the filesystem or the arena can cause."""
    try:
        known = kept.decode(Layout.read(arena_fd).session(arena_fd))
        prepared = prepare(path, is_mounted=True)
        _check(known, prepared)
        _make(known, prepared, arena_fd)
    except ConfigError as error:
        return Answer("; ".join(str(each) for each in error.all()))
    except (Failure, ArenaError) as error:
        return Answer(str(error))
    except msgspec.MsgspecError as error:
        return Answer(f"this version cannot read what the old one knows of the mount: {error}")
    effective = {"mountpoint": known.config.mountpoint, "allow_other": known.config.allow_other}
    return Answer(asked=prepared.config, config=msgspec.structs.replace(prepared.config, **effective))


def _check(known: Kept, prepared: Prepared) -> None:
    changed = differences(known.asked, prepared.config)
    if changed:
        keys = ", ".join(changed)
        raise Failure(f"{keys} cannot change while the mount is there", "undo the change, or mount anew")
    old, new = known.description, prepared.description
    changed = [name for name in AGREED if getattr(old, name) != getattr(new, name)]
    if changed:
        raise Failure(f"the filesystem's {', '.join(changed)} cannot change while the mount is there", "mount anew")


def _make(known: Kept, prepared: Prepared, arena_fd: int) -> None:
    """Makes the filesystem as one more worker would, which has no queue and keeps no descriptor."""
    config = msgspec.structs.replace(prepared.config, mountpoint=known.config.mountpoint)
    ours, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    workers = len(prepared.worker_cpus)
    setup = Setup(config, prepared.search, workers, workers, None, arena_fd, ours, False)
    try:
        if config.user is not None:
            drop_privileges(config.user)
        cls, options = load.load(config, prepared.search)
        Worker(setup, cls, options)
    except Exception as error:
        raise Failure(f"the filesystem cannot be made: {type(error).__name__}: {error}") from error


def main(arguments: list[str]) -> None:
    path, arena_fd = arguments
    log.set_up("warning", mount=Path(path).stem)
    sys.stdout.write(msgspec.json.encode(attempt(path, int(arena_fd))).decode())
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
