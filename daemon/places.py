"""Where running mounts can be found: their control sockets, and their entries in the mount table.

A mount is known by its name and the user it belongs to. root's sockets are in /run/ringmount; another user's are in
$XDG_RUNTIME_DIR/ringmount, or without a runtime folder (no login session) in /tmp/ringmount-UID.

The rule a change must keep: nothing here touches a mountpoint; and what another user's folder holds is believed only
as far as the socket's peer credentials bear it out (client.py).
"""

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ringmount.daemon import mountinfo
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.mountinfo import RINGMOUNT_TYPE, MountEntry

ROOTS_FOLDER = Path("/run/ringmount")
SANDBOXED_FOLDER = Path("/run/ringmount-sandboxed")
"""Those of the user that sandboxed units run as (ringmount-sandboxed@.service makes it)."""
SETTINGS = Path("/etc/ringmount")
"""Files of root's mounts; another user's are in $XDG_CONFIG_HOME/ringmount, by default ~/.config/ringmount."""


def settings_file(wanted: str) -> str:
    """The file of a mount that is named by its file or, without a slash or a suffix, by its name alone."""
    if "/" in wanted or wanted.endswith((".yaml", ".yml")) or Path(wanted).exists():
        return wanted
    folder = SETTINGS
    if os.geteuid() != 0:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "ringmount"
    return str(folder / f"{wanted}.yaml")


class Identity(NamedTuple):
    """What tells mounts apart."""

    name: str
    owner: int
    """The uid of the user that it belongs to."""

    @property
    def user(self) -> str:
        """The owner's name, or number if it has none."""
        with contextlib.suppress(KeyError):
            return pwd.getpwuid(self.owner).pw_name
        return str(self.owner)

    @property
    def socket(self) -> Path:
        """The control socket, be it there or not."""
        return runtime_folder(self.owner) / f"{self.name}.sock"


def runtime_folder(owner: int) -> Path:
    """The folder of a user's control sockets, be it there or not."""
    if owner == 0:
        return ROOTS_FOLDER
    if _is_folder_of(SANDBOXED_FOLDER, owner):
        return SANDBOXED_FOLDER
    ours = os.environ.get("XDG_RUNTIME_DIR", "") if owner == os.geteuid() else ""
    for runtime in filter(None, (ours, f"/run/user/{owner}")):
        # sudo and su may leave the variable of another user behind.
        if _is_folder_of(Path(runtime), owner):
            return Path(runtime) / "ringmount"
    return Path(f"/tmp/ringmount-{owner}")


def make_runtime_folder() -> Path:
    """This user's folder, made if it is missing. Raises Failure if it cannot be made, or is not this user's alone."""
    owner = os.geteuid()
    folder = runtime_folder(owner)
    try:
        folder.mkdir(mode=0o700)
        folder.chmod(0o755 if owner == 0 else 0o700)  # status is for everybody, whatever the umask
    except FileExistsError:
        pass
    except OSError as error:
        raise Failure(f"cannot make {folder}: {error.strerror}", code=ExitCode.PERMISSION) from error
    if not _is_folder_of(folder, owner):
        raise Failure(
            f"{folder} is not yours alone: others could speak for your mounts",
            "remove it, or have it removed",
            code=ExitCode.PERMISSION,
        )
    return folder


def socket_path(name: str) -> Path:
    """The control socket of this user's mount of that name."""
    return Identity(name, os.geteuid()).socket


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name of the same file that is short enough for a socket's address, which holds 107 bytes (unix(7)).

    Raises OSError if the folder cannot be opened.
    """
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class Known(NamedTuple):
    """A mount that runs, or that a dead server left behind."""

    identity: Identity
    mountpoints: tuple[str, ...]
    """Where this process sees it: more than one place with bind mounts, none if it is in another mount namespace."""


def known() -> list[Known]:
    """All mounts of ours: those in this process's mount table, whoever's they are, dead ones too; and those of this
    user and of root that only have a control socket. By name, and then the user's own, root's, and others'.
    """
    by_connection: dict[tuple[Identity, int], list[str]] = {}
    for entry in mountinfo.read():
        if entry.fstype == RINGMOUNT_TYPE:
            identity = Identity(entry.source, int(entry.super_option("user_id") or 0))
            by_connection.setdefault((identity, entry.minor), []).append(entry.mountpoint)
    found = [Known(identity, tuple(mountpoints)) for (identity, _), mountpoints in by_connection.items()]
    seen = {each.identity for each in found}
    for owner in {0, os.geteuid()}:
        sockets = (Identity(path.stem, owner) for path in runtime_folder(owner).glob("*.sock"))
        found += [Known(identity, ()) for identity in sockets if identity not in seen]
    ranks = {0: 1, os.geteuid(): 0}
    return sorted(found, key=lambda each: (each.identity.name, ranks.get(each.identity.owner, 2), each.identity.owner))


def mounts_of(identity: Identity) -> list[MountEntry]:
    """Where this process sees the mount, in the kernel's order."""
    named = [entry for entry in mountinfo.read() if entry.fstype == RINGMOUNT_TYPE and entry.source == identity.name]
    return [entry for entry in named if entry.super_option("user_id") == str(identity.owner)]


def _is_folder_of(path: Path, owner: int) -> bool:
    """True for a folder, no link, that is the user's and that nobody else may write to."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == owner and not found.st_mode & 0o022
