"""`ringmount drain`: has a mount end when those who use it are done, and says who they are meanwhile."""

import itertools
import select
import time

import msgspec

from ringmount.config.errors import one_line
from ringmount.daemon import asked, client, holders, mountinfo, places, text, umount
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.holders import Holder
from ringmount.daemon.status import checked

INTERVAL = 1.0
"""Seconds between two looks at who is left."""
OUT_PATIENCE = 30.0
"""Seconds for the mount to be out of the tree."""
MOST_SHOWN = 5


class Draining(msgspec.Struct):
    """The supervisor's answer. `mounts`: as it saw them (mnt_id)."""

    since: float
    mounts: list[int]
    connection: int | None


def drain(wanted: str, timeout: float | None, force: bool) -> str:
    """Drains the mount of this name or mountpoint; returns a line that says what was done.

    Raises Failure, with ExitCode.BUSY when it is still in use after `timeout` seconds (None: waits for ever); with
    `force` it is ended then.
    """
    known = umount.choose(wanted)
    identity = known.identity
    end = float("inf") if timeout is None else time.monotonic() + timeout
    seen = {entry.id for entry in mountinfo.read() if entry.mountpoint in known.mountpoints and entry.is_fuse}
    try:
        with client.Connection(identity.socket, identity.owner) as connection:
            mountpoint = checked(identity.name, connection.ask(asked.Status())).mountpoint
        connection = client.Connection(identity.socket, identity.owner, OUT_PATIENCE)
    except client.NotRunning as error:
        raise Failure(
            f"nobody serves {identity.name}", f"clear it: ringmount umount {identity.name}", code=ExitCode.NO_SUCH_MOUNT
        ) from error
    with connection, umount.process(connection) as pidfd:
        try:
            draining = msgspec.convert(connection.ask(asked.Drain()), Draining)
        except msgspec.ValidationError as error:
            raise Failure(f"the supervisor of {identity.name} answered nonsense: {error}") from error
        if places.mounts_of(identity):  # its supervisor is in another mount namespace
            umount.take_away(identity)
        left = _wait(pidfd, end, {*seen, *draining.mounts}, draining.connection)
        if left is None:
            return f"ringmount: {identity.name}: drained, and unmounted from {mountpoint}"
        if not force:
            raise Failure(
                f"{identity.name} is still in use: {users(left)}",
                "it is out of the tree, and ends when they are done; --force ends it",
                code=ExitCode.BUSY,
            )
        umount.end(identity, connection, pidfd)
    return f"ringmount: {identity.name}: ended while it was in use: {users(left)}"


def _wait(pidfd: int, end: float, mounts: set[int], connection: int | None) -> list[Holder] | None:
    """None once the supervisor has ended; else who is left in the end. Says who is left whenever that changes."""
    said = None
    for look in itertools.count():
        patience = min(INTERVAL, max(0.0, end - time.monotonic()))
        if select.select([pidfd], [], [], 0.1 if said is None and patience else patience)[0]:
            return None
        left = holders.find(mounts, -1 if connection is None else connection)
        if users(left) != said and (left or look > 1):
            said = users(left)
            text.remark(f"waiting for {said}")
        if time.monotonic() >= end:
            return left
    raise AssertionError


def users(left: list[Holder]) -> str:
    """Who uses the mount."""
    if not left:
        return "users that cannot be seen from here, or the last answers"
    shown = ", ".join(f"{one_line(one.command) or '-'} (pid {one.pid}, {_uses(one.uses)})" for one in left[:MOST_SHOWN])
    return shown + (f" and {len(left) - MOST_SHOWN} more" if len(left) > MOST_SHOWN else "")


def _uses(count: int) -> str:
    return "1 use" if count == 1 else f"{count} uses"
