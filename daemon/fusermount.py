"""Mounting and unmounting for ordinary users, through the set-user-id program fusermount3.

It opens /dev/fuse and mounts with root's rights after checks of its own (/etc/fuse.conf, whose folder it is),
and passes the descriptor back over the socket that _FUSE_COMMFD names. It makes every mount nosuid and nodev.

The rule a change must keep: what it prints is for people. It is turned into a Failure by `EXPLANATIONS`
alone.
"""

import array
import logging
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

from ringmount.config.model import MountConfig
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.privileges import may_mount

log = logging.getLogger(__name__)

FUSERMOUNT = "fusermount3"
FUSE_CONF = Path("/etc/fuse.conf")
PATIENCE = 20.0
"""Seconds that fusermount3 may take."""


class Explanation(NamedTuple):
    """What a message of fusermount3 means: `part` of it, what to do, and the exit code."""

    part: str
    hint: str
    code: ExitCode


# In this order: the first that fits. The texts are fusermount.c's of libfuse 3.10 to 3.17.
EXPLANATIONS = (
    Explanation(
        "user_allow_other",
        f"set allow_other: false, or add the line user_allow_other to {FUSE_CONF} as root",
        ExitCode.PERMISSION,
    ),
    Explanation(
        "too many FUSE filesystems mounted",
        f"unmount one, or raise mount_max in {FUSE_CONF} as root",
        ExitCode.RESOURCES,
    ),
    Explanation("not owned by user", "choose a folder that you own", ExitCode.PERMISSION),
    Explanation("no write access to mountpoint", "choose a folder that you own", ExitCode.PERMISSION),
    Explanation("is forbidden", "choose a folder on another filesystem", ExitCode.MOUNTPOINT),
    Explanation("fuse device not found", "load the module as root: modprobe fuse", ExitCode.UNAVAILABLE),
    Explanation(
        "failed to open /dev/fuse",
        "let everybody open it, as udev does: chmod 666 /dev/fuse as root",
        ExitCode.PERMISSION,
    ),
    Explanation("bad mount point", "check that the folder exists", ExitCode.MOUNTPOINT),
    Explanation("failed to access mountpoint", "check that the folder exists", ExitCode.MOUNTPOINT),
    Explanation(
        "Operation not permitted",
        f"{FUSERMOUNT} must be set-user-id root, and no_new_privs must be off for this process",
        ExitCode.PERMISSION,
    ),
    Explanation("not found in /etc/mtab", "only the user who mounted it, or root, can do that", ExitCode.PERMISSION),
)


def common_options(config: MountConfig) -> list[str]:
    """Those options of a mount that mount(2) and fusermount3 take alike."""
    options = [f"max_read={config.max_write}"]
    if config.default_permissions:
        options.append("default_permissions")
    if config.allow_other:
        options.append("allow_other")
    return options


def mount_fusermount(config: MountConfig) -> int:
    """Mounts through fusermount3 and returns the connection's descriptor, close-on-exec and non-blocking.

    The mount is of type fuse.ringmount, its source is the mount's name, and it belongs to this process's
    user. The caller owns the descriptor. Raises Failure; then nothing is mounted.
    """
    if config.allow_other and not is_allow_other_permitted():
        raise _allow_other_failure()
    options = ["ro" if config.read_only else "rw", f"fsname={config.name}", "subtype=ringmount"]
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            arguments = ["-o", ",".join([*options, *common_options(config)]), "--", config.mountpoint]
            _run(arguments, theirs.fileno())
        return _received(ours)


def unmount(path: str, lazy: bool) -> None:
    """Unmounts a mount of this process's user. Raises Failure, also if there is none."""
    _run(["-u", *(["-z"] if lazy else []), "--", path])


def effective_allow_other(config: MountConfig, *, is_explicit: bool) -> bool:
    """Whether other users shall be let in, as far as this process may decide that.

    `allow_other` is true by default, so an ordinary user on a machine that does not permit it gets a mount
    for himself and a line in the log; only one who wrote `allow_other: true` (`is_explicit`) gets a Failure.
    """
    if not config.allow_other or may_mount() or is_allow_other_permitted():
        return config.allow_other
    if is_explicit:
        raise _allow_other_failure()
    log.info("only you can use this mount: %s has no line user_allow_other", FUSE_CONF)
    return False


def is_allow_other_permitted(path: Path = FUSE_CONF) -> bool:
    """True if fuse.conf lets ordinary users mount for others. A file that cannot be read permits nothing."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return False
    return any(line.partition("#")[0].strip() == "user_allow_other" for line in text.split("\n"))


def find_fusermount() -> str | None:
    """The program's path, or None if it is not installed."""
    return shutil.which(FUSERMOUNT) or shutil.which(FUSERMOUNT, path="/usr/local/bin:/usr/bin:/bin")


def _run(arguments: list[str], comm_fd: int | None = None) -> None:
    program = find_fusermount()
    if program is None:
        raise Failure(
            f"{FUSERMOUNT} is not installed, and without it only root can mount",
            "install the package fuse3 (apt install fuse3), or run as root",
            code=ExitCode.UNAVAILABLE,
        )
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    if comm_fd is not None:
        environment["_FUSE_COMMFD"] = str(comm_fd)
    try:
        done = subprocess.run(
            [FUSERMOUNT, *arguments],  # it starts its messages with argv[0]
            executable=program,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=() if comm_fd is None else (comm_fd,),
            env=environment,
            cwd="/",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failure(
            f"{FUSERMOUNT} has not come back for {PATIENCE:g} s",
            "find the mount that hangs with: ringmount doctor",
            code=ExitCode.MOUNTPOINT,
        ) from None
    except OSError as error:
        raise Failure(f"cannot run {program}: {error.strerror}", code=ExitCode.UNAVAILABLE) from error
    if done.returncode != 0:
        raise explain(done.stderr.decode(errors="replace"))


def explain(stderr: str) -> Failure:
    """The Failure that a message of fusermount3 stands for."""
    lines = [line.removeprefix(f"{FUSERMOUNT}: ") for line in stderr.split("\n") if line.strip()]
    message = "; ".join(lines) or "it ended without a word"
    for explanation in EXPLANATIONS:
        if explanation.part in message:
            return Failure(f"{FUSERMOUNT}: {message}", explanation.hint, code=explanation.code)
    return Failure(f"{FUSERMOUNT}: {message}", code=ExitCode.UNAVAILABLE)


def _received(channel: socket.socket) -> int:
    """The descriptor that fusermount3 sent before it ended."""
    fds = array.array("i")
    # Not socket.recv_fds(): that of Python 3.11 ignores its flags. This cannot wait: the other end is closed.
    _, messages, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(fds.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in messages:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if not fds:
        raise Failure(f"{FUSERMOUNT} ended well but passed no descriptor", code=ExitCode.UNAVAILABLE)
    os.set_blocking(fds[0], False)
    return fds[0]


def _allow_other_failure() -> Failure:
    return Failure(
        "allow_other is not permitted to ordinary users on this machine",
        f"set allow_other: false, or add the line user_allow_other to {FUSE_CONF} as root",
        code=ExitCode.PERMISSION,
    )
