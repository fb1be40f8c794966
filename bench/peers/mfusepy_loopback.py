"""A loopback filesystem on mfusepy, as a competitor in the bench: paths in, system calls out, no more than needed.

usage: mfusepy_loopback.py SOURCE MOUNTPOINT [-s] [-o key=value,key,...]     (-s: nothreads)
"""

import argparse
import os

import mfusepy


class Loopback(mfusepy.Operations):
    """Each path is looked up below `source`; an open file's requests go to its descriptor, which is its handle."""

    use_ns = True

    def __init__(self, source):
        self.source = source

    def getattr(self, path, fh=None):
        st = os.fstat(fh) if fh is not None else os.lstat(self.source + path)
        return {
            "st_mode": st.st_mode,
            "st_nlink": st.st_nlink,
            "st_uid": st.st_uid,
            "st_gid": st.st_gid,
            "st_size": st.st_size,
            "st_ino": st.st_ino,
            "st_rdev": st.st_rdev,
            "st_blksize": st.st_blksize,
            "st_blocks": st.st_blocks,
            "st_atime": st.st_atime_ns,
            "st_mtime": st.st_mtime_ns,
            "st_ctime": st.st_ctime_ns,
        }

    def readdir(self, path, fh):
        yield "."
        yield ".."
        with os.scandir(self.source + path) as entries:
            for entry in entries:
                mode = 0o040000 if entry.is_dir(follow_symlinks=False) else 0o120000 if entry.is_symlink() else 0o100000
                yield entry.name, {"st_mode": mode, "st_ino": entry.inode()}, 0

    def open(self, path, flags):
        return os.open(self.source + path, flags & ~os.O_DIRECT)

    def create(self, path, mode, flags):
        return os.open(self.source + path, (flags | os.O_CREAT) & ~os.O_DIRECT, mode)

    def read(self, path, size, offset, fh):
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        return os.pwrite(fh, data, offset)

    def flush(self, path, fh):
        os.close(os.dup(fh))
        return 0

    def release(self, path, fh):
        os.close(fh)
        return 0

    def fsync(self, path, datasync, fh):
        (os.fdatasync if datasync else os.fsync)(fh)
        return 0

    def truncate(self, path, length, fh=None):
        os.truncate(fh if fh is not None else self.source + path, length)
        return 0

    def unlink(self, path):
        os.unlink(self.source + path)
        return 0

    def mkdir(self, path, mode):
        os.mkdir(self.source + path, mode)
        return 0

    def rmdir(self, path):
        os.rmdir(self.source + path)
        return 0

    def rename(self, old, new):
        os.rename(self.source + old, self.source + new)
        return 0

    def symlink(self, target, source):
        os.symlink(source, self.source + target)
        return 0

    def link(self, target, source):
        os.link(self.source + source, self.source + target)
        return 0

    def readlink(self, path):
        return os.readlink(self.source + path)

    def mknod(self, path, mode, dev):
        os.mknod(self.source + path, mode, dev)
        return 0

    def chmod(self, path, mode):
        os.chmod(self.source + path, mode)
        return 0

    def chown(self, path, uid, gid):
        os.chown(self.source + path, uid, gid, follow_symlinks=False)
        return 0

    def utimens(self, path, times=None):
        os.utime(self.source + path, ns=times, follow_symlinks=False)
        return 0

    def statfs(self, path):
        found = os.statvfs(self.source + path)
        return {key: getattr(found, key) for key in dir(found) if key.startswith("f_") and key != "f_fsid"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("mountpoint")
    parser.add_argument("-s", dest="nothreads", action="store_true")
    parser.add_argument("-o", dest="options", default="")
    arguments = parser.parse_args()
    options = {}
    for option in filter(None, arguments.options.split(",")):
        key, equals, value = option.partition("=")
        options[key] = value if equals else True
    os.umask(0)
    mfusepy.FUSE(
        Loopback(os.path.realpath(arguments.source)),
        arguments.mountpoint,
        foreground=True,
        nothreads=arguments.nothreads,
        use_ino=True,
        **options,
    )


if __name__ == "__main__":
    main()
