"""Mounting and unmounting: /dev/fuse, mount(2) and umount2(2), or fusermount3 for ordinary users.

The rule a change must keep: once it is mounted, nothing here touches the mountpoint, apart from mount(2) and
umount2(2), which do not ask its server.

Set-user-id bits and device files: a mount made by mount(2) whose workers keep root's rights honours both, as
a bind mount does, so that a passthrough of a system tree behaves like the tree itself. With `user:` set, and
for all mounts of ordinary users, it is nosuid and nodev: what an unprivileged process serves must not confer
privileges.
"""

import errno
import os
from pathlib import Path
from pwd import struct_passwd
from typing import NamedTuple

from ringmount.config.model import MountConfig
from ringmount.daemon import fusermount, libc, mountinfo
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.fusectl import abort_connection, connection_id, list_connections
from ringmount.daemon.fusermount import effective_allow_other, mount_fusermount
from ringmount.daemon.libc import MountFlags, UmountFlags
from ringmount.daemon.mountinfo import RINGMOUNT_TYPE
from ringmount.daemon.mountpoint import check_mountpoint
from ringmount.daemon.privileges import may_mount

__all__ = [
    "RingmountMount",
    "abort_connection",
    "check_mountpoint",
    "connection_id",
    "effective_allow_other",
    "list_connections",
    "may_mount",
    "mount",
    "mount_direct",
    "mount_fusermount",
    "open_fuse",
    "ringmount_mounts",
    "unmount",
]

FUSE_DEVICE = Path("/dev/fuse")


def open_fuse(device: Path = FUSE_DEVICE) -> int:
    """A new descriptor of /dev/fuse, close-on-exec and non-blocking; the caller owns it. Raises Failure."""
    try:
        return os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _open_failure(device, error) from error


def _open_failure(device: Path, error: OSError) -> Failure:
    match error.errno:
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            return Failure(
                f"there is no {device}: the kernel's fuse module is not loaded",
                "load it as root with: modprobe fuse (in a container: hand it in with --device /dev/fuse)",
                code=ExitCode.UNAVAILABLE,
            )
        case errno.EACCES:
            return Failure(
                f"no permission to open {device}",
                f"run as root, or let everybody open it as udev does: chmod 666 {device}",
                code=ExitCode.PERMISSION,
            )
        case errno.EPERM:
            return Failure(
                f"a device policy forbids {device}",
                "allow it: DeviceAllow=/dev/fuse rw in a unit, --device /dev/fuse for a container",
                code=ExitCode.PERMISSION,
            )
        case errno.EMFILE | errno.ENFILE:
            return Failure(
                f"no descriptor is left to open {device}",
                "raise the limit with: ulimit -n",
                code=ExitCode.RESOURCES,
            )
        case _:
            return Failure(f"cannot open {device}: {error.strerror}", code=ExitCode.UNAVAILABLE)


def mount(config: MountConfig) -> int:
    """Mounts in the way that this process has; returns the connection's descriptor, which the caller owns.

    `config.mountpoint` has passed `check_mountpoint`, `config.allow_other` is what `effective_allow_other`
    says. The mount is of type fuse.ringmount and its source is the mount's name. Nobody gets an answer from
    it until INIT is answered. Raises Failure; then nothing is mounted.
    """
    if not may_mount():
        return mount_fusermount(config)
    fd = open_fuse()
    try:
        mount_direct(fd, config)
    except BaseException:
        os.close(fd)
        raise
    return fd


def mount_direct(fd: int, config: MountConfig, owner: struct_passwd | None = None) -> None:
    """Mounts by mount(2), which takes CAP_SYS_ADMIN, with `fd` (of `open_fuse`) as the connection's end.

    The mount belongs to `owner`, by default to this process's user and group. Raises Failure; then nothing is mounted.
    """
    try:
        libc.mount(
            config.name, config.mountpoint, RINGMOUNT_TYPE, mount_flags(config, owner), mount_data(fd, config, owner)
        )
    except OSError as error:
        raise _mount_failure(config, error) from error


def mount_flags(config: MountConfig, owner: struct_passwd | None = None) -> MountFlags:
    """Flags of a privileged mount."""
    flags = MountFlags(0)
    if config.read_only:
        flags |= MountFlags.RDONLY
    if config.user is not None or owner is not None:
        flags |= MountFlags.NOSUID | MountFlags.NODEV
    return flags


def mount_data(fd: int, config: MountConfig, owner: struct_passwd | None = None) -> str:
    """The options that fuse_fill_super() demands, and those that the settings ask for."""
    uid, gid = (os.getuid(), os.getgid()) if owner is None else (owner.pw_uid, owner.pw_gid)
    options = [f"fd={fd}", "rootmode=40000", f"user_id={uid}", f"group_id={gid}"]
    return ",".join([*options, *fusermount.common_options(config)])


def _mount_failure(config: MountConfig, error: OSError) -> Failure:
    where = config.mountpoint
    match error.errno:
        case errno.EPERM | errno.EACCES:
            return Failure(
                f"mount(2) on {where} is not permitted",
                "run as root or with CAP_SYS_ADMIN; a unit's SystemCallFilter= must allow mount",
                code=ExitCode.PERMISSION,
            )
        case errno.EBUSY:
            return Failure(f"{where} is busy: another mount is in the way", code=ExitCode.MOUNTPOINT)
        case errno.ENOENT | errno.ENOTDIR | errno.ELOOP:
            return Failure(f"cannot mount on {where}: {error.strerror}", "was it removed?", code=ExitCode.MOUNTPOINT)
        case errno.ENODEV:
            return Failure(
                "the kernel has no fuse filesystem",
                "load it as root with: modprobe fuse",
                code=ExitCode.UNAVAILABLE,
            )
        case errno.EINVAL:
            return Failure(
                f"the kernel refused to mount on {where} (EINVAL)",
                "its log may say why: dmesg | tail",
                code=ExitCode.UNAVAILABLE,
            )
        case errno.ENOMEM | errno.ENOSPC | errno.EMFILE:
            return Failure(
                f"cannot mount on {where}: {error.strerror}",
                "free memory, or raise the sysctl fs.mount-max",
                code=ExitCode.RESOURCES,
            )
        case _:
            return Failure(f"cannot mount on {where}: {error.strerror}")


class RingmountMount(NamedTuple):
    """A mount of ours that this process sees."""

    name: str
    mountpoint: str
    connection: int
    """Its number in fusectl."""


def ringmount_mounts() -> list[RingmountMount]:
    """All mounts of type fuse.ringmount, dead ones and hidden ones too, in the kernel's order."""
    return [
        RingmountMount(entry.source, entry.mountpoint, connection_id(entry))
        for entry in mountinfo.read()
        if entry.fstype == RINGMOUNT_TYPE
    ]


def unmount(path: str, *, lazy: bool = True, connection: int | None = None) -> bool:
    """Removes the mount of ours that is topmost at `path` (as mountinfo shows it); True if there was one.

    Something else at the path, an automount say, is left alone, and with `connection` a mount of any other
    connection too. `lazy` takes it out of the tree at once, and what still uses it goes on until it is done;
    otherwise a mount in use is a Failure. Ordinary users unmount through fusermount3. Raises Failure.
    """
    entry = mountinfo.find(path)
    if not entry or entry.fstype != RINGMOUNT_TYPE or connection not in (None, connection_id(entry)):
        return False
    try:
        if may_mount():
            _umount2(entry.mountpoint, lazy)
        else:
            fusermount.unmount(entry.mountpoint, lazy)
    except Failure:
        if entry not in mountinfo.read():  # somebody else was faster
            return False
        raise
    return True


def _umount2(path: str, lazy: bool) -> None:
    try:
        libc.umount2(path, UmountFlags.NOFOLLOW | (UmountFlags.DETACH if lazy else 0))
    except OSError as error:
        raise _unmount_failure(path, error) from error


def _unmount_failure(path: str, error: OSError) -> Failure:
    match error.errno:
        case errno.EBUSY:
            return Failure(
                f"{path} is in use",
                f"stop what uses it (fuser -vm {path}), or unmount it lazily",
                code=ExitCode.MOUNTPOINT,
            )
        case errno.EPERM | errno.EACCES:
            return Failure(f"no permission to unmount {path}", "run as root", code=ExitCode.PERMISSION)
        case _:
            return Failure(f"cannot unmount {path}: {error.strerror}", code=ExitCode.MOUNTPOINT)
