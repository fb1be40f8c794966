"""What can be set for a passthrough mount, and whether it can work."""

import os
from collections.abc import Iterator
from pathlib import PurePath
from typing import Literal

import msgspec

from ringmount.workers.api import OptionError


class Options(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The `options:` of a passthrough mount.

    `source`: the folder to show, as an absolute path.

    `locks`: who keeps fcntl(2) and flock(2) locks. `kernel`: the kernel, for this mount alone. That is exact (it
    finds deadlocks, tells the holder's pid, wakes who waits at once), costs no request, and outlives the daemon; but
    a process that locks a file directly in the source does not meet it. `backing`: the source's own files, for a
    source that other processes, mounts or machines lock as well; the other way round in each of these points.

    `xattr`: whether extended attributes and access control lists are shown and can be set.

    `fast`: whether the commonest requests are answered in C. Off, all go through the methods in Python: slower, and
    useful only to tell the two apart.
    """

    source: str
    locks: Literal["kernel", "backing"] = "kernel"
    xattr: bool = True
    fast: bool = True


def check(options: Options, mountpoint: str) -> None:
    """Raises ValueError, with a text for the administrator, if the source cannot be shown at the mountpoint.

    A mountpoint within its own source is refused: some lookup would lead from the mount into itself, and the worker
    that serves it would wait for its own answer.
    """
    source = options.source
    if not os.path.isabs(source):
        raise OptionError("source", f"source {source!r} is not an absolute path: write it with a leading /")
    try:
        found = os.stat(source)
    except FileNotFoundError:
        raise OptionError("source", f"source {source} does not exist: make the folder, or correct the path") from None
    except OSError as error:
        raise OptionError("source", f"source {source} cannot be reached: {error.strerror}") from None
    if not os.path.isdir(source):
        raise OptionError("source", f"source {source} is not a folder: name the folder that is to be shown")
    if not os.access(source, os.R_OK | os.X_OK, effective_ids=True):
        raise OptionError(
            "source", f"source {source} may not be read by uid {os.geteuid()}: change its mode, or mount as root"
        )
    if not os.path.exists("/proc/self/fd"):
        raise ValueError("/proc is not mounted: passthrough needs /proc/self/fd")
    real_source, real_mountpoint = os.path.realpath(source), os.path.realpath(mountpoint)
    if _is(real_mountpoint, found):
        raise OptionError("source", f"source and mountpoint are the same folder, {source}: mount on another one")
    if any(_is(folder, found) for folder in _above(real_mountpoint)):
        raise OptionError(
            "source",
            f"mountpoint {mountpoint} is inside the source {source}, so that the mount would contain itself:"
            " mount on a folder outside",
        )
    if any(folder == real_mountpoint for folder in _above(real_source)):
        raise OptionError(
            "source",
            f"source {source} is inside the mountpoint {mountpoint}, which would hide it: mount on a folder elsewhere",
        )


def _above(path: str) -> Iterator[str]:
    return map(str, PurePath(path).parents)


def _is(path: str, found: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), found)
    except OSError:
        return False
