"""A loopback filesystem on pyfuse3, as a competitor in the bench: a table from inode to path, system calls out.

usage: pyfuse3_loopback.py SOURCE MOUNTPOINT [-t SECONDS] [-o key=value,key,...]     (-t: attribute and entry timeout)

Single-threaded under trio, as pyfuse3 is. Hard links share an inode; renamed folders move the paths beneath them.
"""

import argparse
import errno
import os
import signal

import pyfuse3
import trio


class Loopback(pyfuse3.Operations):
    """Inodes are those beneath; an open file's requests go to its descriptor, which is its handle."""

    enable_writeback_cache = False

    def __init__(self, source, timeout):
        super().__init__()
        self.root_inode = os.lstat(source).st_ino
        self.timeout = timeout
        self.paths = {pyfuse3.ROOT_INODE: [os.fsencode(source)]}
        self.lookups = {}
        self.listings = {}
        self.opened_folders = 0

    # -- inodes -----------------------------------------------------------------------------------------------------

    def path_of(self, inode):
        try:
            return self.paths[inode][-1]
        except (KeyError, IndexError):
            raise pyfuse3.FUSEError(errno.ENOENT) from None

    def attributes(self, st):
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.ROOT_INODE if st.st_ino == self.root_inode else st.st_ino
        entry.st_mode = st.st_mode
        entry.st_nlink = st.st_nlink
        entry.st_uid = st.st_uid
        entry.st_gid = st.st_gid
        entry.st_rdev = st.st_rdev
        entry.st_size = st.st_size
        entry.st_blksize = st.st_blksize
        entry.st_blocks = st.st_blocks
        entry.st_atime_ns = st.st_atime_ns
        entry.st_mtime_ns = st.st_mtime_ns
        entry.st_ctime_ns = st.st_ctime_ns
        entry.generation = 0
        entry.entry_timeout = self.timeout
        entry.attr_timeout = self.timeout
        return entry

    def remember(self, path, st):
        inode = st.st_ino
        known = self.paths.setdefault(inode, [])
        if path not in known:
            known.append(path)
        self.lookups[inode] = self.lookups.get(inode, 0) + 1

    def enter(self, path):
        try:
            st = os.lstat(path)
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno) from None
        self.remember(path, st)
        return self.attributes(st)

    def strike(self, path):
        names = self.paths.get(os.lstat(path).st_ino, [])
        if path in names and len(names) > 1:
            names.remove(path)

    async def forget(self, inode_list):
        for inode, count in inode_list:
            left = self.lookups.get(inode, 0) - count
            if left > 0:
                self.lookups[inode] = left
            else:
                self.lookups.pop(inode, None)
                if inode != pyfuse3.ROOT_INODE:
                    self.paths.pop(inode, None)

    async def lookup(self, parent_inode, name, ctx):
        return self.enter(self.path_of(parent_inode) + b"/" + name)

    async def getattr(self, inode, ctx):
        try:
            return self.attributes(os.lstat(self.path_of(inode)))
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno) from None

    async def setattr(self, inode, attr, fields, fh, ctx):
        path = self.path_of(inode)
        try:
            if fields.update_size:
                os.truncate(path if fh is None else fh, attr.st_size)
            if fields.update_mode:
                os.chmod(path, attr.st_mode & 0o7777)
            if fields.update_uid or fields.update_gid:
                uid = attr.st_uid if fields.update_uid else -1
                os.chown(path, uid, attr.st_gid if fields.update_gid else -1, follow_symlinks=False)
            if fields.update_atime or fields.update_mtime:
                old = os.lstat(path)
                atime = attr.st_atime_ns if fields.update_atime else old.st_atime_ns
                mtime = attr.st_mtime_ns if fields.update_mtime else old.st_mtime_ns
                os.utime(path, ns=(atime, mtime), follow_symlinks=False)
            return self.attributes(os.lstat(path))
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno) from None

    async def readlink(self, inode, ctx):
        return os.readlink(self.path_of(inode))

    # -- names ------------------------------------------------------------------------------------------------------

    async def make(self, parent, name, call, *arguments):
        path = self.path_of(parent) + b"/" + name
        try:
            call(path, *arguments)
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno) from None
        return self.enter(path)

    async def mknod(self, parent_inode, name, mode, rdev, ctx):
        return await self.make(parent_inode, name, os.mknod, mode & ~ctx.umask, rdev)

    async def mkdir(self, parent_inode, name, mode, ctx):
        return await self.make(parent_inode, name, os.mkdir, mode & ~ctx.umask)

    async def symlink(self, parent_inode, name, target, ctx):
        return await self.make(parent_inode, name, lambda path: os.symlink(target, path))

    async def link(self, inode, new_parent_inode, new_name, ctx):
        return await self.make(new_parent_inode, new_name, lambda path: os.link(self.path_of(inode), path))

    async def unlink(self, parent_inode, name, ctx):
        path = self.path_of(parent_inode) + b"/" + name
        try:
            self.strike(path)
            os.unlink(path)
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno) from None

    async def rmdir(self, parent_inode, name, ctx):
        try:
            os.rmdir(self.path_of(parent_inode) + b"/" + name)
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno) from None

    async def rename(self, parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx):
        if flags:
            raise pyfuse3.FUSEError(errno.EINVAL)
        old = self.path_of(parent_inode_old) + b"/" + name_old
        new = self.path_of(parent_inode_new) + b"/" + name_new
        try:
            os.rename(old, new)
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno) from None
        for names in self.paths.values():
            for at, path in enumerate(names):
                if path == old or path.startswith(old + b"/"):
                    names[at] = new + path[len(old) :]

    # -- files ------------------------------------------------------------------------------------------------------

    async def open(self, inode, flags, ctx):
        try:
            return pyfuse3.FileInfo(fh=os.open(self.path_of(inode), flags & ~(os.O_CREAT | os.O_DIRECT)))
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno) from None

    async def create(self, parent_inode, name, mode, flags, ctx):
        path = self.path_of(parent_inode) + b"/" + name
        try:
            fd = os.open(path, (flags | os.O_CREAT) & ~os.O_DIRECT, mode & ~ctx.umask)
            st = os.fstat(fd)
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno) from None
        self.remember(path, st)
        return pyfuse3.FileInfo(fh=fd), self.attributes(st)

    async def read(self, fh, off, size):
        return os.pread(fh, size, off)

    async def write(self, fh, off, buf):
        return os.pwrite(fh, buf, off)

    async def flush(self, fh):
        os.close(os.dup(fh))

    async def release(self, fh):
        os.close(fh)

    async def fsync(self, fh, datasync):
        (os.fdatasync if datasync else os.fsync)(fh)

    # -- folders ----------------------------------------------------------------------------------------------------

    async def opendir(self, inode, ctx):
        self.opened_folders += 1
        self.listings[self.opened_folders] = (self.path_of(inode), [])
        return self.opened_folders

    async def readdir(self, fh, start_id, token):
        folder, names = self.listings[fh]
        if start_id == 0:
            names[:] = os.listdir(folder)
        for number, name in enumerate(names[start_id:], start_id + 1):
            path = folder + b"/" + name
            try:
                st = os.lstat(path)
            except FileNotFoundError:
                continue
            if not pyfuse3.readdir_reply(token, name, self.attributes(st), number):
                break
            self.remember(path, st)

    async def releasedir(self, fh):
        del self.listings[fh]

    async def statfs(self, ctx):
        found = os.statvfs(self.path_of(pyfuse3.ROOT_INODE))
        answer = pyfuse3.StatvfsData()
        for key in [
            "f_bsize",
            "f_frsize",
            "f_blocks",
            "f_bfree",
            "f_bavail",
            "f_files",
            "f_ffree",
            "f_favail",
            "f_namemax",
        ]:
            setattr(answer, key, getattr(found, key))
        return answer


async def serve():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_on_signal)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()


async def end_on_signal():
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            pyfuse3.terminate()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("mountpoint")
    parser.add_argument("-t", dest="timeout", type=float, default=0)
    parser.add_argument("-o", dest="options", default="")
    arguments = parser.parse_args()
    os.umask(0)
    options = {option for option in arguments.options.split(",") if option}
    pyfuse3.init(Loopback(os.path.realpath(arguments.source), arguments.timeout), arguments.mountpoint, options)
    try:
        trio.run(serve)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
