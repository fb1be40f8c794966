"""`ringmount umount`: stops a mount, or clears away what a dead server left.

The rule a change must keep: the process that gets a signal is the one that the kernel says listens on the mount's
socket, never a number that was read somewhere; and nothing here touches a mountpoint.
"""

import contextlib
import os
import select
import signal
from collections.abc import Iterator

from ringmount.daemon import asked, client, control, mounting, mountpoint, places
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.places import Identity, Known
from ringmount.daemon.status import checked

PATIENCE = 30.0
"""Seconds for a supervisor to unmount and end."""


def umount(wanted: str) -> str:
    """Stops the mount of this name or mountpoint; returns a line that says what was done. Raises Failure."""
    known = choose(wanted)
    identity = known.identity
    try:
        connection = client.Connection(identity.socket, identity.owner)
    except client.NotRunning:
        return _clear(known)
    with connection, process(connection) as pidfd:
        where = checked(identity.name, connection.ask(asked.Status())).mountpoint
        if known.mountpoints and where not in known.mountpoints:
            return _clear(known)  # a dead one of the same name as one that runs
        end(identity, connection, pidfd)
    return f"ringmount: {identity.name}: unmounted from {where}"


def choose(wanted: str) -> Known:
    """The mount of this name or mountpoint. Raises Failure."""
    all_known = [each for each in places.known() if each.mountpoints or client.is_answered(each.identity.socket)]
    path = mountpoint.resolved(os.path.abspath(wanted)) if "/" in wanted else None
    found = [each for each in all_known if path in each.mountpoints or each.identity.name == wanted]
    if not found:
        names = ", ".join(dict.fromkeys(each.identity.name for each in all_known))
        raise Failure(f"there is no mount {wanted}", f"mounted: {names or 'none'}", code=ExitCode.NO_SUCH_MOUNT)
    owners = {each.identity.owner for each in found}
    if len(owners) > 1 and found[0].identity.owner not in (0, os.geteuid()):
        where = ", ".join(each.mountpoints[0] for each in found)
        hint = f"name one by its mountpoint: {where}"
        raise Failure(f"several users have a mount {wanted}", hint, code=ExitCode.NO_SUCH_MOUNT)
    running = [each for each in found if client.is_answered(each.identity.socket)]
    return (running or found)[0] if path is None else found[-1]  # of those at one place, the topmost


@contextlib.contextmanager
def process(connection: client.Connection) -> Iterator[int]:
    """A pidfd of the process that listens. It is still that process if the connection answers afterwards."""
    if not connection.pid:
        raise Failure(f"the supervisor of {connection.name} runs in another PID namespace", "stop it there")
    try:
        pidfd = os.pidfd_open(connection.pid)
    except OSError as error:
        raise Failure(f"the supervisor of {connection.name} has ended meanwhile", "repeat this") from error
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def end(identity: Identity, connection: client.Connection, pidfd: int) -> None:
    """Unmounts and ends the supervisor. One in another mount namespace (handed.py) cannot unmount here: that is done
    for it, and first, so that what is dirty is written."""
    if not _is_elsewhere(connection.pid):
        _stop(connection, pidfd)
        return
    numbers, left = take_away(identity), mounting.list_connections()
    # While a file is open it would go on; else it ends by itself, and a signal would only hurry it.
    if left is None or numbers & set(left):
        _stop(connection, pidfd)
    else:
        _wait(connection, pidfd)


def take_away(identity: Identity) -> set[int]:
    """Takes the mount out of the tree, wherever it is seen; returns its connections' numbers. Raises Failure."""
    numbers = set()
    for entry in places.mounts_of(identity):
        number = mounting.connection_id(entry)
        numbers.add(number)
        mounting.unmount(entry.mountpoint, connection=number)
    return numbers


def _is_elsewhere(pid: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
    except OSError:  # another user's
        return False


def _stop(connection: client.Connection, pidfd: int) -> None:
    """Ends the supervisor as Ctrl-C would, and waits for its end."""
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise Failure(
            f"no permission to stop {connection.name}, which is another user's",
            "run this as that user, or as root",
            code=ExitCode.PERMISSION,
        ) from error
    _wait(connection, pidfd)


def _wait(connection: client.Connection, pidfd: int) -> None:
    """Waits for its end."""
    if not select.select([pidfd], [], [], PATIENCE)[0]:
        raise Failure(
            f"{connection.name} has not ended for {PATIENCE:g} s",
            f"see its log; or give it up: kill -9 {connection.pid}, then repeat this",
        )


def _clear(known: Known) -> str:
    """Unmounts what nobody serves."""
    for path in known.mountpoints:
        mounting.unmount(path)
    control.remove_stale(known.identity.socket)
    where = " and ".join(known.mountpoints)
    return f"ringmount: {known.identity.name}: cleared {where}; no server answered for it"
