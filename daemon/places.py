"""Where a running mount can be found: its control socket."""

import os
import stat
import tempfile
from pathlib import Path

from ringmount.daemon.exitcodes import ExitCode, Failure


def runtime_folder() -> Path:
    """The folder of control sockets: /run/ringmount for root, the user's own otherwise."""
    if os.geteuid() == 0:
        return Path("/run/ringmount")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "ringmount"
    return Path(tempfile.gettempdir()) / f"ringmount-{os.getuid()}"


def make_runtime_folder() -> Path:
    """The folder, made if it is missing. Raises Failure when it is not ours alone (somebody else's in /tmp)."""
    folder = runtime_folder()
    mode = 0o755 if os.geteuid() == 0 else 0o700
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise Failure(f"cannot make {folder}: {error.strerror}", code=ExitCode.PERMISSION) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise Failure(f"{folder} is not a folder of yours alone", "remove it", code=ExitCode.PERMISSION)
    return folder


def socket_path(name: str) -> Path:
    """A mount's control socket."""
    return runtime_folder() / f"{name}.sock"
