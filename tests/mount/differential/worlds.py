"""System calls on one of the filesystems that are compared.

An operation is a method of `World`, called by name with plain values; paths are relative to the world's folder, or to
the working directory if they begin with `@`. It returns a plain value, in which inode numbers and times are left for
`comparison` to judge.
"""

import fcntl
import mmap
import os
import shutil
import stat
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mount.posix import syscalls
from mount.posix.syscalls import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, Mapping, errno_name

RWF_APPEND = 0x10
_FLOCK = struct.Struct("@hhqqi4x")
LOCK_COMMANDS = {"process": (fcntl.F_SETLK, fcntl.F_GETLK), "file": (37, 36)}
"""F_OFD_SETLK and F_OFD_GETLK are 37 and 36."""


class Attributes(NamedTuple):
    """What stat(2) tells, times in nanoseconds."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int


class Failed(NamedTuple):
    """The result of an operation that did not succeed."""

    errno: str


def attributes(found: os.stat_result) -> Attributes:
    return Attributes(
        found.st_ino,
        found.st_mode,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        found.st_rdev,
        found.st_size,
        found.st_blocks,
        found.st_atime_ns,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def pattern(seed: int, length: int) -> bytes:
    """Bytes that tell where they belong."""
    return (bytes((seed + at * 7) & 0xFF for at in range(251)) * (length // 251 + 1))[:length]


class World:
    """A folder, and what this process has open in it, by numbers that the test chooses."""

    def __init__(self, top: bytes, root: bytes) -> None:
        """`top`: the folder that is served. `root`: the one of this walk."""
        self.top = top
        self.root = root
        self.here: int | None = None
        """A descriptor of the working directory, once one was entered. The process has it while a call needs it."""
        self.fds: dict[int, int] = {}
        self.mappings: dict[int, Mapping] = {}

    def call(self, operation: str, *arguments: object) -> object:
        """The operation's result, or `Failed`."""
        method: Callable[..., object] = getattr(self, operation)
        try:
            return method(*arguments)
        except OSError as error:
            return Failed(errno_name(error.errno))
        except KeyError:  # of `fds` or `mappings`
            return Failed("never opened")
        finally:
            if self.here is not None:
                os.chdir("/")

    def _path(self, path: bytes) -> bytes:
        if not path.startswith(b"@"):
            return self.root + b"/" + path
        if self.here is None:
            return self.root + path[1:]
        os.fchdir(self.here)
        return b"." + path[1:]

    # --- the working directory ---------------------------------------------------------------------------------------

    def enter(self, path: bytes) -> None:
        new = os.open(self._path(path), os.O_PATH | os.O_DIRECTORY)
        try:
            os.fchdir(new)
        except OSError:
            os.close(new)
            raise
        self._leave()
        self.here = new

    def _leave(self) -> None:
        os.chdir("/")
        if self.here is not None:
            os.close(self.here)
            self.here = None

    def getcwd(self) -> bytes:
        self._path(b"@")
        return os.getcwdb().removeprefix(self.root)

    # --- open files --------------------------------------------------------------------------------------------------

    def open(self, slot: int, path: bytes, flags: int, mode: int) -> Attributes:
        return self._opened(slot, os.open(self._path(path), flags | os.O_NONBLOCK, mode))

    def open_in(self, slot: int, folder: int, name: bytes, flags: int, mode: int) -> Attributes:
        return self._opened(slot, os.open(name, flags | os.O_NONBLOCK, mode, dir_fd=self.fds[folder]))

    def open_again(self, slot: int, other: int, flags: int) -> Attributes:
        return self._opened(slot, os.open(f"/proc/self/fd/{self.fds[other]}", flags | os.O_NONBLOCK))

    def open_by_handle(self, slot: int, path: bytes, flags: int) -> Attributes:
        """What an NFS server does: open_by_handle_at(2) of the object's own file handle."""
        handle = syscalls.name_to_handle(self._path(path))
        top = os.open(self.root, os.O_RDONLY)
        try:
            return self._opened(slot, syscalls.open_by_handle(top, handle, flags | os.O_NONBLOCK))
        finally:
            os.close(top)

    def dup(self, slot: int, other: int) -> Attributes:
        return self._opened(slot, os.dup(self.fds[other]))

    def _opened(self, slot: int, fd: int) -> Attributes:
        if slot in self.fds:
            self.close(slot)
        self.fds[slot] = fd
        return self.fstat(slot)

    def close(self, slot: int) -> None:
        os.close(self.fds.pop(slot))

    def fstat(self, slot: int) -> Attributes:
        return attributes(os.fstat(self.fds[slot]))

    def read(self, slot: int, length: int) -> bytes:
        return os.read(self.fds[slot], length)

    def pread(self, slot: int, length: int, offset: int) -> bytes:
        return os.pread(self.fds[slot], length, offset)

    def write(self, slot: int, seed: int, length: int) -> int:
        return os.write(self.fds[slot], pattern(seed, length))

    def pwrite(self, slot: int, seed: int, length: int, offset: int) -> int:
        return os.pwrite(self.fds[slot], pattern(seed, length), offset)

    def append(self, slot: int, seed: int, length: int) -> int:
        return os.pwritev(self.fds[slot], [pattern(seed, length)], 0, RWF_APPEND)

    def writev(self, slot: int, seed: int, lengths: list[int]) -> int:
        return os.writev(self.fds[slot], [pattern(seed, length) for length in lengths])

    def direct_read(self, slot: int, pages: int, page: int) -> bytes:
        """Into memory that begins at a page, as O_DIRECT may demand."""
        with mmap.mmap(-1, pages * 4096) as memory:
            return memory[: os.preadv(self.fds[slot], [memory], page * 4096)]

    def direct_write(self, slot: int, seed: int, pages: int, page: int) -> int:
        with mmap.mmap(-1, pages * 4096) as memory:
            memory[:] = pattern(seed, pages * 4096)
            return os.pwrite(self.fds[slot], memory, page * 4096)

    def direct(self, path: bytes, seed: int, pages: int, page: int) -> bytes:
        """Written and read back without the page cache, all of it aligned; what was read, and a part before."""
        fd = os.open(self._path(path), os.O_RDWR | os.O_DIRECT | os.O_NONBLOCK)
        try:
            with mmap.mmap(-1, pages * 4096) as memory:
                memory[:] = pattern(seed, pages * 4096)
                os.pwrite(fd, memory, page * 4096)
                return memory[: os.preadv(fd, [memory], page // 2 * 4096)]
        finally:
            os.close(fd)

    def lseek(self, slot: int, offset: int, whence: int) -> int:
        return os.lseek(self.fds[slot], offset, whence)

    def find(self, slot: int, offset: int, whence: int) -> int:
        """SEEK_DATA or SEEK_HOLE; the position stays, because the answer may be each filesystem's own."""
        before = os.lseek(self.fds[slot], 0, os.SEEK_CUR)
        try:
            return os.lseek(self.fds[slot], offset, whence)
        finally:
            os.lseek(self.fds[slot], before, os.SEEK_SET)

    def set_status(self, slot: int, flags: int) -> int:
        """fcntl(2), F_SETFL; the flags as they are then."""
        fcntl.fcntl(self.fds[slot], fcntl.F_SETFL, flags | os.O_NONBLOCK)
        return fcntl.fcntl(self.fds[slot], fcntl.F_GETFL)

    def ftruncate(self, slot: int, length: int) -> None:
        os.ftruncate(self.fds[slot], length)

    def fallocate(self, slot: int, mode: int, offset: int, length: int) -> None:
        syscalls.fallocate(self.fds[slot], mode, offset, length)

    def fsync(self, slot: int, data_only: bool) -> None:
        (os.fdatasync if data_only else os.fsync)(self.fds[slot])

    def copy(self, source: int, offset: int, target: int, at: int, length: int) -> int:
        return os.copy_file_range(self.fds[source], self.fds[target], length, offset, at)

    def send(self, source: int, offset: int, target: int, length: int) -> int:
        return os.sendfile(self.fds[target], self.fds[source], offset, length)

    def fchmod(self, slot: int, mode: int) -> None:
        os.fchmod(self.fds[slot], mode)

    def fchown(self, slot: int, uid: int, gid: int) -> None:
        os.fchown(self.fds[slot], uid, gid)

    def futimens(self, slot: int, atime: int, mtime: int) -> None:
        syscalls.utimensat(None, atime, mtime, folder=self.fds[slot])

    def link_open(self, slot: int, new: bytes, by_proc: bool) -> None:
        if by_proc:
            old = f"/proc/self/fd/{self.fds[slot]}"
            syscalls.linkat(AT_FDCWD, old, AT_FDCWD, self._path(new), AT_SYMLINK_FOLLOW)
        else:
            syscalls.linkat(self.fds[slot], "", AT_FDCWD, self._path(new), AT_EMPTY_PATH)

    def list_open(self, slot: int) -> list[bytes]:
        return sorted(os.fsencode(name) for name in os.listdir(self.fds[slot]))

    def list_some(self, slot: int) -> list[str]:
        """A few entries, from where the descriptor stands."""
        return sorted(entry.name for entry in syscalls.getdents(self.fds[slot], 120))

    def list_rest(self, slot: int, size: int) -> list[str]:
        """All that is left, `size` bytes at a time."""
        return sorted(entry.name for entry in iter_dirents(self.fds[slot], size))

    def lock(self, slot: int, owner: str, kind: int, start: int, length: int) -> None:
        command = LOCK_COMMANDS[owner][0]
        fcntl.fcntl(self.fds[slot], command, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))

    def lock_in_the_way(self, slot: int, owner: str, kind: int, start: int, length: int) -> tuple[int, ...]:
        command = LOCK_COMMANDS[owner][1]
        packed = fcntl.fcntl(self.fds[slot], command, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
        return _FLOCK.unpack(packed)

    def flock(self, slot: int, operation: int) -> None:
        fcntl.flock(self.fds[slot], operation | fcntl.LOCK_NB)

    # --- mapped files ------------------------------------------------------------------------------------------------

    def map(self, number: int, slot: int, pages: int, writable: bool, shared: bool) -> None:
        prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        flags = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
        self.mappings[number] = Mapping(self.fds[slot], pages * 4096, prot, flags)

    def map_read(self, number: int, offset: int, length: int) -> bytes:
        return self.mappings[number].read(offset, length)

    def map_write(self, number: int, offset: int, seed: int, length: int) -> int:
        return self.mappings[number].write(offset, pattern(seed, length))

    def msync(self, number: int) -> None:
        self.mappings[number].sync()

    def unmap(self, number: int) -> None:
        self.mappings.pop(number).close()

    # --- names -------------------------------------------------------------------------------------------------------

    def mkdir(self, path: bytes, mode: int) -> None:
        os.mkdir(self._path(path), mode)

    def mknod(self, path: bytes, mode: int, device: int) -> None:
        syscalls.mknodat(AT_FDCWD, self._path(path), mode, device)

    def symlink(self, text: bytes, path: bytes) -> None:
        os.symlink(text, self._path(path))

    def link(self, old: bytes, new: bytes, follow: bool) -> None:
        flags = AT_SYMLINK_FOLLOW if follow else 0
        syscalls.linkat(AT_FDCWD, self._path(old), AT_FDCWD, self._path(new), flags)

    def unlink(self, path: bytes) -> None:
        os.unlink(self._path(path))

    def rmdir(self, path: bytes) -> None:
        os.rmdir(self._path(path))

    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        syscalls.renameat2(self._path(old), self._path(new), flags)

    def readlink(self, path: bytes) -> bytes:
        return os.readlink(self._path(path))

    def listdir(self, path: bytes) -> list[tuple[bytes, int]]:
        """Names with their types."""
        with os.scandir(self._path(path)) as found:
            return sorted((entry.name, stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)) for entry in found)

    def list_and_seek(self, path: bytes, size: int, back: int) -> list[str]:
        """A listing in pieces of `size` bytes; then once more from the entry `back`, which must list the same rest."""
        fd = os.open(self._path(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            found = list(iter_dirents(fd, size))
            at = min(back, len(found) - 1)
            os.lseek(fd, found[at].position, os.SEEK_SET)
            again = [entry.name for entry in iter_dirents(fd, size)]
            assert again == [entry.name for entry in found[at + 1 :]], (found, at, again)
            return sorted(entry.name for entry in found)
        finally:
            os.close(fd)

    # --- attributes --------------------------------------------------------------------------------------------------

    def stat(self, path: bytes, follow: bool) -> Attributes:
        return attributes(os.stat(self._path(path), follow_symlinks=follow))

    def statx(self, path: bytes) -> tuple[int, int, int, int]:
        found = syscalls.statx(self._path(path), AT_SYMLINK_NOFOLLOW)
        return found.mask & 0xFFF, found.mode, found.nlink, found.size

    def statfs(self, path: bytes) -> tuple[int, ...]:
        found = os.statvfs(self._path(path))
        return found.f_bsize, found.f_frsize, found.f_blocks, found.f_files, found.f_namemax

    def access(self, path: bytes, mask: int) -> bool:
        return os.access(self._path(path), mask, effective_ids=True)

    def chmod(self, path: bytes, mode: int) -> None:
        os.chmod(self._path(path), mode)

    def lchmod(self, path: bytes, mode: int) -> None:
        syscalls.fchmodat2(self._path(path), mode, AT_SYMLINK_NOFOLLOW)

    def touch(self, path: bytes) -> None:
        syscalls.touch(self._path(path))

    def chown(self, path: bytes, uid: int, gid: int, follow: bool) -> None:
        os.chown(self._path(path), uid, gid, follow_symlinks=follow)

    def truncate(self, path: bytes, length: int) -> None:
        os.truncate(self._path(path), length)

    def utimensat(self, path: bytes, atime: int, mtime: int, follow: bool) -> None:
        syscalls.utimensat(self._path(path), atime, mtime, 0 if follow else AT_SYMLINK_NOFOLLOW)

    def setxattr(self, path: bytes, name: str, value: bytes, flags: int) -> None:
        os.setxattr(self._path(path), name, value, flags, follow_symlinks=False)

    def getxattr(self, path: bytes, name: str) -> bytes:
        return os.getxattr(self._path(path), name, follow_symlinks=False)

    def listxattr(self, path: bytes) -> list[str]:
        return sorted(os.listxattr(self._path(path), follow_symlinks=False))

    def removexattr(self, path: bytes, name: str) -> None:
        os.removexattr(self._path(path), name, follow_symlinks=False)

    def fsetxattr(self, slot: int, name: str, value: bytes, flags: int) -> None:
        os.setxattr(self.fds[slot], name, value, flags)

    def flistxattr(self, slot: int) -> list[str]:
        return sorted(os.listxattr(self.fds[slot]))

    # --- the whole ---------------------------------------------------------------------------------------------------

    def tree(self) -> dict[bytes, Attributes]:
        """Every object by its path."""
        return dict(self._walk(b""))

    def _walk(self, path: bytes) -> Iterator[tuple[bytes, Attributes]]:
        found = os.lstat(self._path(path))
        yield path, attributes(found)
        if stat.S_ISDIR(found.st_mode):
            for name in sorted(os.listdir(self._path(path))):
                yield from self._walk(path + b"/" + name if path else name)

    def make_top(self) -> None:
        os.makedirs(self.root)
        os.chmod(self.root, 0o777)

    def remove_top(self, name: bytes) -> None:
        """With what is around it: names such as `../x` lead there."""
        shutil.rmtree(self.root[: self.root.index(name) + len(name)])

    def free(self) -> tuple[int, int]:
        """Blocks and inodes that are free."""
        found = os.statvfs(self.top)
        return found.f_bfree, found.f_ffree

    def contents(self) -> dict[bytes, tuple[object, ...]]:
        """What every object holds, by its path: extended attributes, and bytes or a link's text."""
        return {path: self._content(path, stat.S_IFMT(found.mode)) for path, found in self.tree().items()}

    def _content(self, path: bytes, kind: int) -> tuple[object, ...]:
        held: bytes | None = None
        if kind == stat.S_IFREG:
            with open(self._path(path), "rb") as file:
                held = file.read()
        elif kind == stat.S_IFLNK:
            held = self.readlink(path)
        return held, [(name, self.call("getxattr", path, name)) for name in self.listxattr(path)]

    def end(self) -> None:
        """Closes all."""
        self._leave()
        for number in list(self.mappings):
            self.unmap(number)
        for slot in list(self.fds):
            self.close(slot)


def iter_dirents(fd: int, size: int) -> Iterator[syscalls.Dirent]:
    """The rest of an open folder's listing."""
    while part := syscalls.getdents(fd, size):
        yield from part
