"""Changes on a filesystem as the kernel tells them: fanotify(7), with file handles instead of descriptors.

A *group* is a descriptor from which events are read; *marks* say what it hears of: a whole filesystem, which takes
CAP_SYS_ADMIN, or one folder and the names in it, which anybody may have who may read the folder. Events name objects by
their handles, in the bytes of `ringmount.workers.system.file_handle`, so that any process can make the marks and any
other can understand the events.

Nothing is heard of writes through a shared mapping, nor of libaio's, before the file is closed (CLOSE_WRITE).
"""

import struct
from collections.abc import Iterator
from enum import IntFlag
from typing import NamedTuple

from ringmount.workers._native import lib
from ringmount.workers.system import checked


class Mask(IntFlag):
    """FAN_*: kinds of events (linux/fanotify.h)."""

    MODIFY = 0x2
    ATTRIB = 0x4
    CLOSE_WRITE = 0x8
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    Q_OVERFLOW = 0x4000
    EVENT_ON_CHILD = 0x08000000
    ONDIR = 0x40000000


NAMES = Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO
CONTENTS = Mask.MODIFY | Mask.CLOSE_WRITE
CHANGES = NAMES | CONTENTS | Mask.ATTRIB | Mask.ONDIR

CLOEXEC, NONBLOCK = 0x1, 0x2
REPORT_FID, REPORT_DIR_FID, REPORT_NAME, REPORT_TARGET_FID = 0x200, 0x400, 0x800, 0x1000
MARK_ADD, MARK_FILESYSTEM = 0x1, 0x100

EVENT = struct.Struct("<IBBHQii")
"""struct fanotify_event_metadata: event_len, vers, reserved, metadata_len, mask, fd, pid."""
RECORD = struct.Struct("<BBH8xI")
"""struct fanotify_event_info_fid: info_type, pad, len, fsid (skipped), handle_bytes; then handle_type and the bytes."""
HANDLE_AT = RECORD.size
INFO_FID, INFO_DFID_NAME = 1, 2

BUFFER = 1 << 16
"""Bytes to read at a time: some 600 events."""


class Event(NamedTuple):
    """A change. Handles are b"" where the event has none."""

    mask: int
    """`Mask` bits; several where the kernel has merged events."""
    pid: int
    """The process that made it; 0 where that is not to be known."""
    folder: bytes
    """The handle of the folder that has `name`."""
    name: bytes
    """The name by which it happened; b"." for the folder itself."""
    object: bytes
    """The handle of what was changed, made, moved or removed."""


def open_group() -> int:
    """A group's descriptor, not blocking. OSError ENOSYS or EINVAL for a kernel before 5.17, EMFILE, EPERM."""
    flags = CLOEXEC | NONBLOCK | REPORT_FID | REPORT_DIR_FID | REPORT_NAME | REPORT_TARGET_FID
    return checked(lib.rm_fanotify_init(flags))


def watch_filesystem(group: int, folder: int) -> None:
    """Hears of all changes on the filesystem that the descriptor `folder` is in.

    OSError EPERM without CAP_SYS_ADMIN, ENODEV, EOPNOTSUPP or EXDEV for filesystems that do not allow it.
    """
    checked(lib.rm_fanotify_mark(group, MARK_ADD | MARK_FILESYSTEM, CHANGES, folder))


def watch_folder(group: int, folder: int) -> None:
    """Hears of changes of a folder, an O_PATH descriptor will do, of its names, and of what is changed by these names.

    Again and again is no more than once. OSError EACCES for a folder that this process may not read, ENOSPC for the
    limit fs.fanotify.max_user_marks, and as above.
    """
    checked(lib.rm_fanotify_mark(group, MARK_ADD, CHANGES | Mask.EVENT_ON_CHILD, folder))


def parse(data: bytes) -> Iterator[Event]:
    """The events of one read(2)."""
    at = 0
    while at < len(data):
        length, _, _, begin, mask, _, pid = EVENT.unpack_from(data, at)
        folder = name = found = b""
        record, end = at + begin, at + length
        while record < end:
            kind, _, size, handle_size = RECORD.unpack_from(data, record)
            handle_end = record + HANDLE_AT + 4 + handle_size
            handle = data[record + HANDLE_AT : handle_end]
            if kind == INFO_DFID_NAME:
                folder, name = handle, data[handle_end : data.index(0, handle_end)]
            elif kind == INFO_FID:
                found = handle
            record += size
        yield Event(mask, pid, folder, name, found)
        at = end
