"""Taking over a mount whose supervisor died: from the descriptors that were stored to all that is known of it.

What is stored is believed only as far as it can be checked: the arena has our magic, layout and bounds, /dev/fuse is
that device, and the mount is still in the mount table with the connection's number. Nothing here touches the
mountpoint, which nobody serves.

The rule a change must keep: nothing of the old tree runs any more when its entries and tables are touched.
"""

import contextlib
import errno
import logging
import os
import select
import signal
import stat
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ringmount.daemon import keeping, kept, mountinfo, mounting
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.kept import Kept
from ringmount.daemon.mountinfo import RINGMOUNT_TYPE
from ringmount.workers import arena as arenas
from ringmount.workers.api import Handle
from ringmount.workers.arena import Arena, ArenaError, Layout

log = logging.getLogger(__name__)

FUSE = "fuse"
ARENA = "arena"
CLONE = "clone-"
"""Names in the store; a clone's ends with its worker's number."""

FUSE_DEVICE = os.makedev(10, 229)
DEATH_PATIENCE = 2.0
"""Seconds for workers to die of their parent's death, without losing a request; then they are killed."""
KILL_PATIENCE = 5.0


class Refused(Exception):
    """What is stored cannot be adopted; the text says why."""


class Gone(Exception):
    """The mount was taken away while nobody served it. `kept`: what was known of it."""

    def __init__(self, known: Kept) -> None:
        super().__init__()
        self.kept = known


@dataclass
class Inherited:
    """A mount that can be adopted. Whoever has it owns the descriptors."""

    kept: Kept
    arena: Arena
    fuse_fd: int
    clones: dict[int, int]
    files: dict[Handle, int]
    """By handle, the descriptor that was kept of it."""
    is_reload: bool
    """The same process had it until now, and what it had open for files is open."""


def inherit(name: str, stored: list[tuple[str, int]], *, is_reload: bool = False) -> Inherited | None:
    """What was stored, checked; None if nothing was. Raises Refused or Gone; then the descriptors are closed."""
    try:
        fuse, memory = _only(FUSE, stored), _only(ARENA, stored)
        if fuse is None and memory is None:
            _close(stored, set())
            return None
        if fuse is None or memory is None:
            raise Refused("of the connection and the arena only one was stored")
        if not is_fuse(fuse):
            raise Refused("what was stored as the connection is not /dev/fuse")
        known = _read(name, memory)
        _check_mounted(known)
        arena = Arena.attach(memory)
    except BaseException:
        _close(stored, set())
        raise
    clones = {int(n.removeprefix(CLONE)): fd for n, fd in stored if n.startswith(CLONE) and n[len(CLONE) :].isdigit()}
    files = {fh: fd for n, fd in stored if (fh := keeping.handle_of(n)) is not None}
    _close(stored, {fuse, memory, *clones.values(), *files.values()})
    return Inherited(known, arena, fuse, clones, files, is_reload)


def is_fuse(fd: int) -> bool:
    """Whether the descriptor is one of /dev/fuse."""
    found = os.fstat(fd)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == FUSE_DEVICE


def _only(name: str, stored: list[tuple[str, int]]) -> int | None:
    """The newest of that name."""
    return next((fd for other, fd in reversed(stored) if other == name), None)


def _close(stored: list[tuple[str, int]], keep: set[int]) -> None:
    for _, fd in stored:
        if fd not in keep:
            with contextlib.suppress(OSError):
                os.close(fd)


def _read(name: str, memory: int) -> Kept:
    try:
        known = kept.decode(Layout.read(memory).session(memory))
    except (ArenaError, OSError) as error:
        raise Refused(str(error)) from error
    except msgspec.MsgspecError as error:
        raise Refused(f"another version stored it: {error}") from error
    if known.config.name != name:
        raise Refused(f"it is the mount {known.config.name}")
    return known


def _check_mounted(known: Kept) -> None:
    """The connection's own mount is at its place. A mount that was never seen from here cannot be looked for."""
    if known.connection is None:
        return
    entries = mountinfo.read()
    if not any(
        entry.fstype == RINGMOUNT_TYPE
        and entry.mountpoint == known.config.mountpoint
        and mounting.connection_id(entry) == known.connection
        for entry in entries
    ):
        raise Gone(known)


# --- the old tree -----------------------------------------------------------------------------------------------------


def await_old_workers(arena: Arena) -> None:
    """Returns when no worker of a dead supervisor runs: they die of its death, or are killed. Raises Failure.

    A worker is told from another process that has its number by now by the arena, which it has mapped.
    """
    inode = os.fstat(arena.fd).st_ino
    left = {}
    for index in range(arena.workers):
        pid = arena.worker(index).pid
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            if _has_mapped(pid, inode):
                left[pidfd] = pid
            else:
                os.close(pidfd)
    try:
        for patience, is_last in ((DEATH_PATIENCE, False), (KILL_PATIENCE, True)):
            _await(left, patience)
            for pidfd, pid in left.items():
                if is_last:
                    raise Failure(f"the old worker {pid} does not die", code=ExitCode.RESOURCES)
                log.warning("the dead supervisor's worker (pid %d) does not die: killing it", pid)
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        for pidfd in left:
            os.close(pidfd)


def _has_mapped(pid: int, inode: int) -> bool:
    """Whether the process sees this arena; False once it has died by exec."""
    start = f"{arenas.ADDRESS:x}-"
    try:
        for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
            if line.startswith(start):
                return int(line.split()[4]) == inode
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EPERM)  # as another user, without privileges to look
    return False


def _await(left: dict[int, int], patience: float) -> None:
    """Takes out those that end."""
    poll = select.poll()
    for pidfd in left:
        poll.register(pidfd, select.POLLIN)
    while left and (ended := poll.poll(patience * 1000)):
        for pidfd, _ in ended:
            poll.unregister(pidfd)
            os.close(pidfd)
            del left[pidfd]
