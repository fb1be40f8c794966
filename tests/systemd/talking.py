"""A filesystem without files, for test_journal.py: looking up a name has the worker log, fail or die."""

import errno
import os
import signal
import stat
from typing import Any

from ringmount.workers.api import Attr, Context, Entry, Filesystem, Handle, NodeId


class Talking(Filesystem):
    """`lethal` kills the worker, `wrong` raises what no filesystem should; each name is told at level debug."""

    def lookup(self, ctx: Context, parent: NodeId, name: bytes) -> Entry:
        self.mount.log.debug("asked for %s", os.fsdecode(name))
        if name == b"lethal":
            os.kill(os.getpid(), signal.SIGSEGV)
        if name == b"wrong":
            raise RuntimeError("first line\nsecond line")
        raise OSError(errno.ENOENT, "no such file")

    def getattr(self, ctx: Context, node: NodeId, fh: Handle | None) -> Any:
        return Attr(st_ino=1, st_mode=stat.S_IFDIR | 0o755, st_nlink=2)
