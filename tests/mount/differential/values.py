"""What the calls are made with: few names, so that they meet, and the sizes at which something happens."""

import fcntl
import os
import stat
from collections.abc import Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st
from mount.posix.acl import acl, encode
from mount.posix.syscalls import (
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    UTIME_NOW,
    UTIME_OMIT,
)
from mount.posix.users import alice, bob, carol

Strategy = st.SearchStrategy[Any]

LONG = b"n" * 255
PATHS = [
    *(b"x", b"y", b"a", b"b", b"c", b"d", b"a/x", b"a/y", b"a/d", b"a/d/x", b"b/x", b"b/y", b"b/d", b"b/d/x"),
    *(
        b"c/x",
        b"c/d",
        b"c/d/x",
        b"d/x",
        b"d/d",
        b"\xff\xfe",
        b"a/" + LONG,
        b"a/" + LONG + b"n",
        b".",
        b"a/..",
        b"x/",
        b"d/",
    ),
]
"""The folders a, b (sticky) and c (setgid, of alice) are there at the beginning."""
TEXTS = [b"x", b"../a/x", b"a", b"../b", b"d/x", b"nowhere", b".", b"..", b"x" * 300]


class Nth(NamedTuple):
    """The path of the n-th object that is there at the time, or of the n-th folder; in that, with a name, something."""

    n: int
    folder: bool = False
    name: bytes = b""

    def among(self, objects: Sequence[bytes], folders: Sequence[bytes]) -> bytes:
        """The path, given all of objects and folders."""
        choice = folders if self.folder else objects
        path = choice[self.n % len(choice)]
        return b"/".join(filter(None, (path, self.name)))


_indices = st.sampled_from(range(20))
paths: Strategy = st.one_of(
    _indices.map(Nth),
    _indices.map(Nth),
    st.builds(Nth, _indices, st.just(True), st.sampled_from([b"x", b"y", b"z", b"d", b""])),
    st.sampled_from(PATHS),
)
"""Most are of something that is there; `Machine.same` finds out of what."""
names: Strategy = st.sampled_from([b"x", b"y", b"d", b".", b"..", b"d/x"])
texts: Strategy = st.sampled_from(TEXTS)
modes: Strategy = st.sampled_from(
    [0o644, 0o666, 0o600, 0o755, 0o777, 0o000, 0o1777, 0o2775, 0o4755, 0o6777, 0o2666, 0o070]
)
umasks: Strategy = st.sampled_from([0o022, 0, 0o077, 0o027])
access_masks: Strategy = st.integers(0, 7)
uids: Strategy = st.sampled_from([-1, 0, alice.uid, bob.uid, carol.uid])
gids: Strategy = st.sampled_from([-1, 0, alice.gid, bob.gid, carol.gid])
seeds: Strategy = st.integers(0, 255)
lengths: Strategy = st.sampled_from([10, 1, 100, 4096, 5000, 0, 10_000, 40_000])
offsets: Strategy = st.sampled_from([0, 1, 100, 4095, 4096, 5000, 8192, 20_000, 65_536, 70_000])
pages: Strategy = st.integers(1, 4)
whences: Strategy = st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, os.SEEK_DATA, os.SEEK_HOLE])

node_modes: Strategy = st.sampled_from([stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])
devices: Strategy = st.sampled_from([0, os.makedev(240, 17)])
rename_flags: Strategy = st.sampled_from([0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT])
fallocate_modes: Strategy = st.sampled_from([0, FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE])
times: Strategy = st.sampled_from(
    [UTIME_NOW, UTIME_OMIT, 0, 1, 999_999_999, 1_234_567_890_123_456_789, -1, -2_000_000_000_000_000_001]
)

ACCESS: Strategy = st.sampled_from([os.O_RDWR, os.O_RDWR, os.O_WRONLY, os.O_RDONLY])
OPTIONS = [
    *(os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_APPEND),
    *(os.O_DIRECT, os.O_NOFOLLOW, os.O_DSYNC, os.O_DIRECTORY, os.O_PATH),
]
open_flags: Strategy = st.builds(
    lambda access, options: access | sum({bit for option in options for bit in bits_of(option)}),
    ACCESS,
    st.lists(st.sampled_from(OPTIONS), max_size=3),
)
again_flags: Strategy = st.sampled_from(
    [os.O_RDWR, os.O_RDONLY, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_APPEND, os.O_PATH]
)
tmpfile_flags: Strategy = st.sampled_from([os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_EXCL])

xattr_names: Strategy = st.sampled_from(["user.x", "user.x", "user.y", "trusted.x", "security.x", "system.nonsense"])
xattr_values: Strategy = st.sampled_from([b"", b"value", b"v" * 1000, bytes(range(256))])
xattr_flags: Strategy = st.sampled_from([0, 0, os.XATTR_CREATE, os.XATTR_REPLACE])
acl_names: Strategy = st.sampled_from(["system.posix_acl_access", "system.posix_acl_default"])
acls: Strategy = st.sampled_from(
    [
        encode(acl(7, 5, 0, mask=7, users={bob.uid: 7})),
        encode(acl(6, 6, 6, mask=4, users={alice.uid: 7, carol.uid: 0}, groups={bob.gid: 6})),
        encode(acl(7, 7, 7)),
        encode(acl(6, 0, 4)),
        encode({}),
        b"nonsense",
    ]
)

lock_owners: Strategy = st.sampled_from(["process", "file"])
lock_kinds: Strategy = st.sampled_from([fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK])
lock_starts: Strategy = st.sampled_from([0, 5, 10, 100])
lock_lengths: Strategy = st.sampled_from([0, 1, 5, 50])
flocks: Strategy = st.sampled_from([fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN])


def bits_of(flags: int) -> list[int]:
    """The powers of two that make up `flags`."""
    return [1 << bit for bit in range(flags.bit_length()) if flags >> bit & 1]


def own_calls(folder: bytes) -> Strategy:
    """Calls that stay in a folder and use a few open files of their own."""
    own = st.sampled_from([folder + b"/x", folder + b"/y", folder + b"/d", folder + b"/d/x"])
    slots = st.integers(-2, -1)
    first = [("open", slot, folder + b"/x", os.O_RDWR | os.O_CREAT, 0o644) for slot in (-1, -2)]
    return st.lists(
        st.one_of(
            st.tuples(st.just("open"), slots, own, open_flags, modes),
            st.tuples(st.just("pwrite"), slots, seeds, lengths, offsets),
            st.tuples(st.just("pread"), slots, lengths, offsets),
            st.tuples(st.just("ftruncate"), slots, lengths),
            st.tuples(st.just("fstat"), slots),
            st.tuples(st.just("mkdir"), own, modes),
            st.tuples(st.just("symlink"), texts, own),
            st.tuples(st.just("link"), own, own, st.just(False)),
            st.tuples(st.just("rename"), own, own, rename_flags),
            st.tuples(st.just("unlink"), own),
            st.tuples(st.just("listdir"), st.just(folder)),
            st.tuples(st.just("chmod"), own, modes),
        ),
        max_size=8,
    ).map(lambda calls: [*first, *calls])
