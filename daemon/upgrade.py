"""`ringmount reload`: has a running mount go on with new code and settings, and says how that went.

The rule a change must keep, as for `umount`: the process that gets the signal is the one that the kernel says listens
on the mount's socket.
"""

import signal
import time

import msgspec

from ringmount.daemon import asked, client, umount
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.places import Known

PATIENCE = 150.0
"""Seconds for a trial, and for new workers."""
INTERVAL = 0.1


class Attempt(msgspec.Struct):
    """The last attempt, as `status` has it."""

    attempts: int
    under_way: bool
    error: str


class Progress(msgspec.Struct):
    """What of `status` is of interest here."""

    ready: bool
    reloads: int
    adoptions: int
    reload: Attempt


def reload(wanted: str) -> str:
    """Reloads the mount of this name or mountpoint; returns a line that says so. Raises Failure with the reason if the
    old workers go on."""
    known = umount.choose(wanted)
    identity = known.identity
    try:
        connection = client.Connection(identity.socket, identity.owner)
    except client.NotRunning as error:
        raise Failure(f"nobody serves {identity.name}", "start it anew", code=ExitCode.NO_SUCH_MOUNT) from error
    with connection, umount.process(connection) as pidfd:
        before = _read(connection)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGHUP)
        except PermissionError as error:
            raise Failure(f"{identity.name} is another user's", code=ExitCode.PERMISSION) from error
    _wait(known, before)
    return f"ringmount: {identity.name}: reloaded"


def _read(connection: client.Connection) -> Progress:
    try:
        return msgspec.convert(connection.ask(asked.Status()), Progress)
    except msgspec.ValidationError as error:
        raise Failure("this mount's version cannot be reloaded", "stop it and start it again") from error


def _wait(known: Known, before: Progress) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(INTERVAL)
        try:
            with client.Connection(known.identity.socket, known.identity.owner) as connection:
                now = _read(connection)
        except (client.NotRunning, Failure):  # between two programs
            continue
        if now.reloads > before.reloads or now.adoptions > before.adoptions:
            if now.ready:
                return
        elif now.reload.attempts > before.reload.attempts and now.reload.error:
            raise Failure(f"not reloaded, the old workers go on: {now.reload.error}", code=ExitCode.CONFIG)
    raise Failure(f"{known.identity.name} has not reloaded for {PATIENCE:g} s", "see its log")
