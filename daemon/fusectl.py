"""The kernel's list of FUSE connections, /sys/fs/fuse/connections (fusectl).

A connection's number is the minor part of st_dev of its mount (`MountEntry.minor`). It stays in the list as
long as the connection lives, also after a lazy unmount. The rule a change must keep: fusectl is never mounted
from here; where it is missing the answer is None.
"""

from pathlib import Path

from ringmount.daemon import mountinfo
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.mountinfo import MountEntry

FUSECTL = Path("/sys/fs/fuse/connections")


def connection_id(entry: MountEntry) -> int:
    """The number of a FUSE mount's connection."""
    return entry.minor


def list_connections() -> list[int] | None:
    """The numbers of all FUSE connections of the machine, sorted; None where fusectl is not mounted."""
    if not _is_mounted():
        return None
    return sorted(int(folder.name) for folder in FUSECTL.iterdir())


def waiting_requests(connection: int) -> int | None:
    """How many requests wait for an answer; None if there is no such connection, or no fusectl.

    Raises OSError EACCES for another user's connection.
    """
    try:
        return int((FUSECTL / str(connection) / "waiting").read_text()) if _is_mounted() else None
    except FileNotFoundError:
        return None


def abort_connection(connection: int) -> bool | None:
    """Ends a connection: all its requests fail with ECONNABORTED, and its mount is then a dead one.

    True if it was there, False if not, None where fusectl is not mounted. Failure for another user's
    connection.
    """
    if not _is_mounted():
        return None
    try:
        (FUSECTL / str(connection) / "abort").write_text("1")
    except FileNotFoundError:
        return False
    except PermissionError:
        raise Failure(
            f"FUSE connection {connection} belongs to another user",
            "run this as root or as that user",
            code=ExitCode.PERMISSION,
        ) from None
    return True


def _is_mounted() -> bool:
    entry = mountinfo.find(str(FUSECTL))
    return entry is not None and entry.fstype == "fusectl"
