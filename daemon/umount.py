"""`ringmount umount`: stops a mount, or clears away what a dead server left."""

import os
import signal
import time

from ringmount.daemon import control, mountinfo, mounting, places
from ringmount.daemon.exitcodes import ExitCode, Failure

PATIENCE = 30.0
"""Seconds for a supervisor to unmount and end."""


def umount(name: str) -> None:
    """Stops the mount of this name or mountpoint. Raises Failure."""
    found = [m for m in mounting.ringmount_mounts() if name in (m.name, m.mountpoint, os.path.abspath(name))]
    mount_name = found[-1].name if found else name
    pid = _supervisor(mount_name)
    if pid is not None:
        _stop(mount_name, pid)
        return
    if not found:
        running = ", ".join(sorted({m.name for m in mounting.ringmount_mounts()}))
        raise Failure(
            f"there is no mount {name}", f"mounted are: {running or 'none'}", code=ExitCode.NO_SUCH_MOUNT
        )
    mounting.unmount(found[-1].mountpoint)
    print(f"ringmount: {mount_name}: cleared {found[-1].mountpoint}; its server was gone")


def _supervisor(name: str) -> int | None:
    try:
        return int(control.ask(places.socket_path(name), "status")["pid"])
    except Failure as failure:
        if failure.code is ExitCode.NO_SUCH_MOUNT:
            return None
        raise


def _stop(name: str, pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        import select

        if not select.select([pidfd], [], [], deadline - time.monotonic())[0]:
            raise Failure(f"{name} does not end", f"see its log, or kill -9 {pid} and repeat this")
    except PermissionError as error:
        raise Failure(f"no permission to stop {name} (pid {pid})", code=ExitCode.PERMISSION) from error
    finally:
        os.close(pidfd)
    left = mountinfo.find(name)
    print(f"ringmount: {name}: unmounted" + ("" if left is None else f" ({left.mountpoint} is still there)"))
