"""Is a folder fit to be mounted on?

The rule a change must keep: nothing here blocks, whatever lies at the path or above it. What a mount is, is
read from mountinfo; everything that has to touch a path is done by a process that may hang (liveness.py). An
automount at the place is not touched at all: opening it would ask for the very mount that is being made.
"""

import errno
import os
import shlex
import stat

from ringmount.daemon import liveness, mountinfo
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.fusectl import FUSECTL, connection_id
from ringmount.daemon.liveness import Facts, Liveness
from ringmount.daemon.mountinfo import RINGMOUNT_TYPE, MountEntry

PATIENCE = 5.0
"""Seconds after which a path or a server counts as stuck."""


def check_mountpoint(path: str, *, nonempty: bool = False, patience: float = PATIENCE) -> str:
    """Returns the path without symbolic links, as mountinfo will show it, if one can mount there.

    It must be an existing folder, empty unless `nonempty` is set, and no mount but an automount (autofs).
    Raises Failure with what is wrong and how to put it right.
    """
    if not os.path.isabs(path):
        raise _failure(f"mountpoint {path} is a relative path", f"write it in full, {os.path.abspath(path)} say")
    entries = mountinfo.read()
    untouchable = [entry.mountpoint for entry in entries if entry.is_fuse or entry.fstype == "autofs"]
    (facts,) = liveness.ask([["examine", path, *untouchable]], patience)
    resolved = facts.get("path")
    if isinstance(resolved, str):
        _check_not_mounted(mountinfo.find(resolved, entries), patience)
    _check_folder(path, facts, nonempty)
    return str(resolved)


def resolved(path: str, patience: float = PATIENCE) -> str:
    """The path without symbolic links, as mountinfo shows it; mounts of FUSE and automounts are not touched."""
    untouchable = [entry.mountpoint for entry in mountinfo.read() if entry.is_fuse or entry.fstype == "autofs"]
    (facts,) = liveness.ask([["examine", path, *untouchable]], patience)
    return str(facts.get("path", path))


def _check_not_mounted(entry: MountEntry | None, patience: float) -> None:
    if entry is None or entry.fstype == "autofs":
        return
    path = entry.mountpoint
    if not entry.is_fuse:
        kind = f"{entry.fstype} ({entry.source})"
        raise _failure(
            f"mountpoint {path} is already a mount of {kind}",
            f"choose another folder, or unmount it with: umount {shlex.quote(path)}",
        )
    server = f"mount {entry.source}" if entry.fstype == RINGMOUNT_TYPE else f"{entry.fstype} ({entry.source})"
    match liveness.ask_servers([entry], patience)[0]:
        case Liveness.DEAD:
            raise _failure(
                f"mountpoint {path} is a stale mount: the server of {server} is dead",
                f"clear it with: {clearing_command(entry)}",
            )
        case Liveness.STUCK:
            abort = FUSECTL / str(connection_id(entry)) / "abort"
            raise _failure(
                f"mountpoint {path} is already mounted, and the server of {server} does not answer",
                f"stop that server; or give it up: echo 1 >{abort}, then {clearing_command(entry)}",
            )
        case _:
            raise _failure(
                f"mountpoint {path} is already mounted by {server}",
                f"choose another folder, or unmount it with: {clearing_command(entry)}",
            )


def clearing_command(entry: MountEntry) -> str:
    """What a user types to remove this FUSE mount."""
    path = shlex.quote(entry.mountpoint)
    detach = f"umount -l {path}" if entry.super_option("user_id") == "0" else f"fusermount3 -u -z {path}"
    if entry.fstype == RINGMOUNT_TYPE:
        return f"ringmount umount {shlex.quote(entry.source)} (or {detach})"
    return detach


def _check_folder(path: str, facts: Facts, nonempty: bool) -> None:
    """Judges what the bystander saw there."""
    if "errno" in facts:
        raise _errno_failure(path, facts)
    if "ready" not in facts:
        raise Failure(
            f"mountpoint {path} could not be looked at: no process started in time",
            "wait until the machine is less busy",
            code=ExitCode.RESOURCES,
        )
    if "done" not in facts:
        raise _failure(
            f"mountpoint {path} cannot be used: it, or a folder above it, does not answer",
            "find the mount that hangs with: ringmount doctor",
        )
    mode, first = facts.get("mode"), facts.get("first")
    if isinstance(mode, int) and not stat.S_ISDIR(mode):
        raise _failure(f"mountpoint {path} is not a folder", "choose an empty folder, or make one with: mkdir -p")
    if first is not None and not nonempty:
        raise _failure(
            f"mountpoint {path} is not empty: {first} is in it and would be hidden",
            "choose an empty folder, or move away what is in this one",
        )


def _errno_failure(path: str, facts: Facts) -> Failure:
    number, at = facts["errno"], str(facts.get("at") or path)
    match number:
        case errno.ENOENT:
            return _failure(f"mountpoint {path} does not exist", f"make it with: mkdir -p {shlex.quote(path)}")
        case errno.ENOTDIR:
            return _failure(f"mountpoint {path} does not exist: a part of it is not a folder", "choose another path")
        case errno.EACCES:
            place = "it" if "mode" in facts else "a folder above it"
            return Failure(
                f"mountpoint {path} cannot be looked at: no permission on {place}",
                "choose a folder of your own, or have that one opened to you (chmod +rx)",
                code=ExitCode.PERMISSION,
            )
        case errno.ENOTCONN | errno.ECONNABORTED | errno.ECONNREFUSED:
            return _failure(
                f"mountpoint {path} lies in a stale mount: the server behind {at} is dead",
                "clear that mount first; to find it: ringmount doctor",
            )
        case _:
            return _failure(f"mountpoint {path} cannot be used: {at}: {os.strerror(int(str(number)))}")


def _failure(message: str, hint: str = "") -> Failure:
    return Failure(message, hint, code=ExitCode.MOUNTPOINT)
