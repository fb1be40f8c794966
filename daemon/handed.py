"""A mount that is made for a supervisor: by a privileged command of its unit, in the machine's mount namespace.

A unit whose files are hidden or read-only has a mount namespace of its own, in which a mount would be seen by nobody
else; and one without capabilities cannot mount. So ExecStartPre= mounts, and gives the connection's descriptor to
systemd's fd store, which hands it to the supervisor; ExecStop= and ExecStopPost= take the mount away. INIT is the
supervisor's to answer: mount(2) does not wait for it.

The rule a change must keep: nothing here touches the mountpoint, which nobody may serve, nor runs code of a filesystem.
"""

import contextlib
import logging
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ringmount.config.errors import ConfigError
from ringmount.config.load import read_document
from ringmount.config.model import MountConfig
from ringmount.daemon import adoption, client, liveness, log, mountinfo, mounting, mountpoint, places, umount
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.fdstore import ServiceManager
from ringmount.daemon.liveness import Liveness
from ringmount.daemon.mountinfo import MountEntry
from ringmount.daemon.places import Identity

logger = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds for a server that should be dead to say so."""


def mount(identity: Identity) -> None:
    """Mounts what the mount's file says, in the place of what a dead supervisor left. Raises Failure.

    Mistakes in the file are the supervisor's to tell: its exit code, unlike that of ExecStartPre=, keeps systemd from
    trying again (RestartPreventExitStatus=).
    """
    manager = ServiceManager()
    try:
        config = read_document(str(places.SETTINGS / f"{identity.name}.yaml")).config()
    except ConfigError:
        return
    log.set_up(config.log_level)
    try:
        manager.store(adoption.FUSE, _mounted(identity, config))
    except Failure as failure:
        manager.say(f"STATUS={failure}")
        raise


def _mounted(identity: Identity, config: MountConfig) -> int:
    """Mounts; returns the connection's descriptor."""
    where = mountpoint.resolved(config.mountpoint)
    entry = mountinfo.find(where)
    if entry is not None and entry in places.mounts_of(identity):
        clear_dead(entry)
    where = mounting.check_mountpoint(config.mountpoint)
    config = msgspec.structs.replace(config, mountpoint=_offered(identity.name, where) or where)
    fd = mounting.open_fuse()
    mounting.mount_direct(fd, config, pwd.getpwuid(identity.owner) if identity.owner else None)
    return fd


@contextlib.contextmanager
def offer(name: str, where: str) -> Iterator[None]:
    """Within a `with`, offers this process's way to the mountpoint to `mount`.

    While an automount waits for a mount, any other process waits with it that comes by, but for the process group of
    systemd (autofs_d_manage), to which this one belongs as a child of mount(8), and a command of a unit does not.
    """
    link = _offer_of(name)
    places.make_runtime_folder()
    link.unlink(missing_ok=True)
    fd = os.open(where, os.O_PATH | os.O_NOFOLLOW)  # with O_DIRECTORY it would ask for the mount
    try:
        link.symlink_to(f"/proc/{os.getpid()}/fd/{fd}")
        yield
    finally:
        link.unlink(missing_ok=True)
        os.close(fd)


def _offered(name: str, where: str) -> str | None:
    """A path to this mountpoint that waits for nobody; None if nobody offers one."""
    try:
        path = os.readlink(_offer_of(name))
        return path if os.readlink(path) == where else None
    except OSError:
        return None


def _offer_of(name: str) -> Path:
    return places.ROOTS_FOLDER / f".{name}.mountpoint"


def stop(identity: Identity) -> None:
    """Takes the mount out of the tree and ends its supervisor. Raises Failure."""
    try:
        connection = client.Connection(identity.socket, identity.owner)
    except client.NotRunning:
        umount.take_away(identity)
        return
    with connection, umount.process(connection) as pidfd:
        umount.end(identity, connection, pidfd)


def clear_dead(entry: MountEntry) -> None:
    """Takes away the mount of a server that is dead. One that is alive, or may be, stays where it is."""
    if liveness.ask_servers([entry], PATIENCE)[0] is Liveness.DEAD:
        logger.warning("clearing away the mount on %s, whose server is dead", entry.mountpoint)
        mounting.unmount(entry.mountpoint, connection=mounting.connection_id(entry))


def step(what: str, name: str, owner: str | None) -> None:
    """A step of a unit's life, as the command line has it; `owner`: the user that the supervisor runs as, if it is not
    root. Raises Failure."""
    try:
        identity = Identity(name, 0 if owner is None else pwd.getpwnam(owner).pw_uid)
    except KeyError:
        raise Failure(f"there is no user {owner}", "systemd-sysusers makes it", code=ExitCode.USAGE) from None
    match what:
        case "mount":
            mount(identity)
        case "stop":
            stop(identity)
        case "clean":
            umount.take_away(identity)


def given(stored: list[tuple[str, int]]) -> int | None:
    """The connection of a mount that was made for this process, and that nobody has served; None if there is none."""
    names = [name for name, _ in stored]
    if names != [adoption.FUSE] or not adoption.is_fuse(stored[0][1]):
        return None
    os.set_blocking(stored[0][1], False)
    return stored[0][1]


def settled(config: MountConfig) -> MountConfig:
    """The settings of such a mount, with its mountpoint as the mount table has it."""
    return msgspec.structs.replace(config, mountpoint=mountpoint.resolved(config.mountpoint))
