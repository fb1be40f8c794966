"""`ringmount install-units`: the unit files and what goes with them, put where systemd and mount(8) look.

The files call /usr/bin/ringmount; where that is not the command that installs them, its own place is written instead.
Everything is said in one table, by which it is also removed.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from ringmount.daemon.exitcodes import ExitCode, Failure

PACKAGED = "/usr/bin/ringmount"
"""The command as the files have it."""

SYSTEM = {
    "ringmount@.service": "lib/systemd/system",
    "ringmount-sandboxed@.service": "lib/systemd/system",
    "ringmount.target": "lib/systemd/system",
    "ringmount.slice": "lib/systemd/system",
    "user/ringmount@.service": "lib/systemd/user",
    "ringmount.catalog": "lib/systemd/catalog",
    "ringmount-sysusers.conf": "lib/sysusers.d",
    "ringmount-tmpfiles.conf": "lib/tmpfiles.d",
    "ringmount.conf": "lib/modprobe.d",
    "mount.ringmount": "/usr/sbin",
}
"""What of `ringmount.systemd` goes into which folder below the prefix; mount(8) looks for its helpers in one place."""

BESIDES = {"ringmount-sysusers.conf": "ringmount.conf", "ringmount-tmpfiles.conf": "ringmount.conf"}
"""What is named otherwise there."""


class File(NamedTuple):
    """A file to put in place."""

    path: Path
    text: str
    mode: int = 0o644


def install(root: str, prefix: str, *, for_user: bool = False) -> str:
    """Puts the files in place, below `root`; tells a systemd that runs here of them. Returns lines that say what was
    done. Raises Failure."""
    done = []
    for file in files(root, prefix, for_user=for_user):
        try:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            partial = file.path.with_name(f".{file.path.name}.new")
            partial.write_text(file.text)
            partial.chmod(file.mode)
            partial.replace(file.path)
        except OSError as error:
            raise _failure(file.path, error) from error
        done.append(f"ringmount: wrote {file.path}")
    return "\n".join(done + _tell_systemd(root, prefix, for_user=for_user))


def uninstall(root: str, prefix: str, *, for_user: bool = False) -> str:
    """Removes the files. Mounts that run go on. Raises Failure."""
    done = []
    for file in files(root, prefix, for_user=for_user):
        try:
            file.path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _failure(file.path, error) from error
        done.append(f"ringmount: removed {file.path}")
    return (
        "\n".join(done + _tell_systemd(root, prefix, for_user=for_user, is_removed=True)) or "ringmount: none was there"
    )


def files(root: str, prefix: str, *, for_user: bool = False, command: str | None = None) -> Iterator[File]:
    """Each file, with the command that it calls."""
    command = command or own_command()
    source = resources.files("ringmount.systemd")
    if for_user:
        text = (source / "user" / "ringmount@.service").read_text()
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        yield File(folder / "systemd/user/ringmount@.service", text.replace(PACKAGED, command))
        return
    top = Path(root)
    for name, folder_name in SYSTEM.items():
        text = source.joinpath(*name.split("/")).read_text()
        folder = top / (Path(prefix) / folder_name).as_posix().lstrip("/")
        mode = 0o755 if text.startswith("#!") else 0o644
        yield File(folder / BESIDES.get(name, Path(name).name), text.replace(PACKAGED, command), mode)


def own_command() -> str:
    """What starts this command in a unit, quoted."""
    started = Path(sys.argv[0])
    if started.name == "ringmount" and started.is_absolute() and os.access(started, os.X_OK):
        return shlex.quote(str(started))
    return f"{shlex.quote(sys.executable)} -P -m ringmount.daemon"


def _tell_systemd(root: str, prefix: str, *, for_user: bool, is_removed: bool = False) -> list[str]:
    """Has a systemd that runs here read the files; returns what failed."""
    if root != "/" or not Path("/run/systemd/system").is_dir():
        return []
    commands = [["systemctl", *(["--user"] if for_user else []), "daemon-reload"]]
    if not for_user:
        commands.append(["journalctl", "--update-catalog"])
    if not for_user and not is_removed:
        snippets = Path("/") / prefix.lstrip("/") / "lib"
        commands.insert(0, ["systemd-sysusers", str(snippets / "sysusers.d/ringmount.conf")])
        commands.insert(1, ["systemd-tmpfiles", "--create", str(snippets / "tmpfiles.d/ringmount.conf")])
    failed = []
    for command in commands:
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            why = done.stderr.strip() if done.returncode else ""
        except OSError as error:
            why = str(error.strerror)
        if why:
            failed.append(f"ringmount: {shlex.join(command)}: {why}")
    return failed


def _failure(path: Path, error: OSError) -> Failure:
    code = ExitCode.PERMISSION if isinstance(error, PermissionError) else ExitCode.UNEXPECTED
    return Failure(f"{path}: {error.strerror}", "run as root, or with --user for units of your own", code=code)
