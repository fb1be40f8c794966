"""System calls that Python does not offer, by their kernel names. They raise OSError and are not tried again."""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NamedTuple

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_SYMLINK_FOLLOW = 0x400
AT_EMPTY_PATH = 0x1000

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4

UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2

FALLOC_KEEP_SIZE = 0x01
FALLOC_PUNCH_HOLE = 0x02
FALLOC_COLLAPSE_RANGE = 0x08
FALLOC_ZERO_RANGE = 0x10
FALLOC_INSERT_RANGE = 0x20

STATX_BASIC_STATS = 0x7FF
STATX_BTIME = 0x800

SECOND = 10**9

_SYS_FCHMODAT2 = 452

AnyPath = str | bytes | os.PathLike[str]

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_int64), ("nsec", ctypes.c_int64))


def _checked(result: int) -> int:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _path(path: AnyPath) -> bytes:
    return os.fsencode(path)


def renameat2(old: AnyPath, new: AnyPath, flags: int, old_dir: int = AT_FDCWD, new_dir: int = AT_FDCWD) -> None:
    _checked(_libc.renameat2(old_dir, _path(old), new_dir, _path(new), flags))


def linkat(old_dir: int, old: AnyPath, new_dir: int, new: AnyPath, flags: int) -> None:
    _checked(_libc.linkat(old_dir, _path(old), new_dir, _path(new), flags))


def mknodat(folder: int, path: AnyPath, mode: int, device: int = 0) -> None:
    """mknod(2) with the mode as it is: os.mknod takes the type bits apart."""
    _checked(_libc.mknodat(folder, _path(path), mode, ctypes.c_uint64(device)))


def fchmodat2(path: AnyPath, mode: int, flags: int) -> None:
    """chmod(2) with AT_SYMLINK_NOFOLLOW, by number: glibc emulates the function of that name."""
    _checked(_libc.syscall(ctypes.c_long(_SYS_FCHMODAT2), AT_FDCWD, _path(path), mode, flags))


def utimensat(path: AnyPath | None, atime: int, mtime: int, flags: int = 0, folder: int = AT_FDCWD) -> None:
    """Times in nanoseconds since the epoch, `UTIME_NOW` or `UTIME_OMIT`. Without a path: futimens(3) of `folder`."""
    times = (_Timespec * 2)(_timespec(atime), _timespec(mtime))
    if path is None:
        _checked(_libc.futimens(folder, times))
    else:
        _checked(_libc.utimensat(folder, _path(path), times, flags))


def utimensat_raw(path: AnyPath, atime: tuple[int, int], mtime: tuple[int, int]) -> None:
    """Times as pairs of seconds and nanoseconds, valid or not."""
    times = (_Timespec * 2)(_Timespec(*atime), _Timespec(*mtime))
    _checked(_libc.utimensat(AT_FDCWD, _path(path), times, 0))


def name_to_handle(path: AnyPath) -> bytes:
    """struct file_handle of the object itself, be it a link."""
    buffer = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 8 + 128)
    mount_id = ctypes.c_int()
    _checked(_libc.name_to_handle_at(AT_FDCWD, _path(path), buffer, ctypes.byref(mount_id), 0))
    return buffer.raw[: 8 + struct.unpack_from("I", buffer)[0]]


def open_by_handle(mount: int, handle: bytes, flags: int) -> int:
    """`mount`: a descriptor of anything on the same mount."""
    return _checked(_libc.open_by_handle_at(mount, ctypes.create_string_buffer(handle, len(handle)), flags))


def touch(path: AnyPath) -> None:
    """utimensat(2) without times: both become the current time."""
    _checked(_libc.utimensat(AT_FDCWD, _path(path), None, 0))


def _timespec(time: int) -> _Timespec:
    if time in (UTIME_NOW, UTIME_OMIT):
        return _Timespec(0, time)
    return _Timespec(*divmod(time, SECOND))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    _checked(_libc.fallocate64(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


def getxattr_into(path: AnyPath, name: str, size: int) -> bytes:
    """getxattr(2) with a buffer of `size` bytes; os.getxattr tries again with a larger one."""
    buffer = ctypes.create_string_buffer(max(size, 1))
    length = _checked(_libc.getxattr(_path(path), name.encode(), buffer, ctypes.c_size_t(size)))
    return buffer.raw[:length]


def listxattr_into(path: AnyPath, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(max(size, 1))
    length = _checked(_libc.listxattr(_path(path), buffer, ctypes.c_size_t(size)))
    return buffer.raw[:length]


class Statx(NamedTuple):
    """What statx(2) tells beyond stat(2). `btime_ns` counts only if STATX_BTIME is in `mask`."""

    mask: int
    attributes: int
    nlink: int
    mode: int
    size: int
    btime_ns: int


_STATX = struct.Struct("<IIQIIIHxxQQQQ qIxxxx qIxxxx")


def statx(path: AnyPath, flags: int = 0, mask: int = STATX_BASIC_STATS | STATX_BTIME, folder: int = AT_FDCWD) -> Statx:
    buffer = ctypes.create_string_buffer(256)
    _checked(_libc.statx(folder, _path(path), flags, mask, buffer))
    got, _, attributes, nlink, _, _, mode, _, size, *_, seconds, nanoseconds = _STATX.unpack_from(buffer)
    return Statx(got, attributes, nlink, mode, size, seconds * SECOND + nanoseconds)


# --- folders ---------------------------------------------------------------------------------------------------------


class Dirent(NamedTuple):
    """An entry of a folder. `position` is where a listing goes on after it."""

    ino: int
    position: int
    type: int
    name: str


DT_UNKNOWN = 0
_DIRENT = struct.Struct("<QqHB")


def getdents(fd: int, size: int) -> list[Dirent]:
    """One getdents64(2) with a buffer of `size` bytes; nothing at the folder's end."""
    buffer = ctypes.create_string_buffer(size)
    length = _checked(_libc.getdents64(fd, buffer, ctypes.c_size_t(size)))
    return list(_dirents(buffer.raw[:length]))


def _dirents(raw: bytes) -> Iterator[Dirent]:
    at = 0
    while at < len(raw):
        ino, position, length, kind = _DIRENT.unpack_from(raw, at)
        name = raw[at + _DIRENT.size : at + length].split(b"\0", 1)[0]
        yield Dirent(ino, position, kind, os.fsdecode(name))
        at += length


class DirectoryStream:
    """opendir(3), readdir(3), telldir(3), seekdir(3), rewinddir(3); closed by its `with` block."""

    def __init__(self, path: AnyPath) -> None:
        _libc.opendir.restype = _libc.readdir64.restype = ctypes.c_void_p
        _libc.telldir.restype = ctypes.c_long
        stream = _libc.opendir(_path(path))
        if stream is None:
            _checked(-1)
        self._stream = ctypes.c_void_p(stream)

    def __enter__(self) -> "DirectoryStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _libc.closedir(self._stream)

    def read(self) -> str | None:
        """The next name, None at the end."""
        ctypes.set_errno(0)
        entry: int | None = _libc.readdir64(self._stream)
        if entry is None:
            if ctypes.get_errno():
                _checked(-1)
            return None
        return os.fsdecode(ctypes.string_at(entry + _DIRENT.size))

    def rest(self) -> list[str]:
        """All names from here to the end."""
        return list(iter(self.read, None))

    def tell(self) -> int:
        return int(_libc.telldir(self._stream))

    def seek(self, position: int) -> None:
        _libc.seekdir(self._stream, ctypes.c_long(position))

    def rewind(self) -> None:
        _libc.rewinddir(self._stream)


# --- memory ----------------------------------------------------------------------------------------------------------

MAP_FAILED = ctypes.c_void_p(-1).value


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Mapping:
    """A mapped file whose accesses raise OSError EFAULT where a pointer would raise SIGBUS."""

    def __init__(self, fd: int, length: int, prot: int, flags: int, offset: int = 0) -> None:
        _libc.mmap64.restype = ctypes.c_void_p
        arguments = (None, ctypes.c_size_t(length), prot, flags, fd, ctypes.c_int64(offset))
        address = _libc.mmap64(*arguments)
        if address == MAP_FAILED:
            _checked(-1)
        self._address: int = address
        self.length = length

    def read(self, offset: int, length: int) -> bytes:
        buffer = ctypes.create_string_buffer(length)
        count = self._transfer(_libc.process_vm_readv, buffer, offset, length)
        return buffer.raw[:count]

    def write(self, offset: int, data: bytes) -> int:
        return self._transfer(_libc.process_vm_writev, ctypes.create_string_buffer(data, len(data)), offset, len(data))

    def _transfer(self, call: Any, buffer: "ctypes.Array[ctypes.c_char]", offset: int, length: int) -> int:
        local = _Iovec(ctypes.addressof(buffer), length)
        remote = _Iovec(self._address + offset, length)
        count = ctypes.c_ulong(1)
        return _checked(call(os.getpid(), ctypes.byref(local), count, ctypes.byref(remote), count, ctypes.c_ulong(0)))

    def sync(self) -> None:
        """msync(2) with MS_SYNC."""
        _checked(_libc.msync(ctypes.c_void_p(self._address), ctypes.c_size_t(self.length), 4))

    def close(self) -> None:
        _checked(_libc.munmap(ctypes.c_void_p(self._address), ctypes.c_size_t(self.length)))


def errno_name(code: int | None) -> str:
    """The number's name in POSIX, where the kernel has one number for two names."""
    return "EOPNOTSUPP" if code == errno.EOPNOTSUPP else errno.errorcode.get(code or 0, str(code))
