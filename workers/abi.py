"""The kernel's FUSE interface (uapi linux/fuse.h, version 7.45) as tables: structs, opcodes, flags, codes.

Everything here is a declaration. A struct is a `Layout`, an opcode is one row of `OPERATIONS`, flags and
codes are enums with the kernel's names less their prefix (the class says which). Decoders, size checks, test
cases and debug output are derived from these tables elsewhere.

The rule a change must keep: this module does no I/O, and nothing about the kernel's bytes is written down a
second time in another module. tests/pure/test_abi.py compares it with the type information of the running
kernel.

All layouts are little endian, and are the forms that the kernel uses once minor 23 or newer was negotiated
(`OLDEST_MINOR`): before that some structs were shorter.
"""

from collections.abc import Iterable, Mapping
from enum import Enum, IntEnum, IntFlag
from struct import Struct, calcsize
from types import MappingProxyType
from typing import NamedTuple

FUSE_KERNEL_VERSION = 7
FUSE_KERNEL_MINOR_VERSION = 45

OLDEST_MINOR = 23
"""The first minor version in which all layouts here are valid (but see SETXATTR and INIT, which say so)."""

FUSE_ROOT_ID = 1
FUSE_MIN_READ_BUFFER = 8192
FUSE_UNIQUE_RESEND = 1 << 63
"""Bit of `unique` in a request that the kernel sends again after NOTIFY_RESEND. [7.40]"""
FUSE_INT_REQ_BIT = 1
"""Bit of `unique` in an INTERRUPT; not uapi, but visible: fs/fuse/fuse_i.h."""
FUSE_INVALID_UIDGID = 0xFFFF_FFFF
"""uid and gid in the header of a request without a caller's identity, on idmapped mounts. [7.41]"""
FUSE_IOCTL_MAX_IOV = 256
CUSE_INIT_INFO_MAX = 4096
XATTR_NAME_MAX = 255
"""Bytes of an extended attribute's name, without its NUL (linux/limits.h)."""


# ------------------------------------------------------------------------------------------------------------
# Structs


class Layout:
    """One kernel struct: its name, its fields in order and where they are.

    Declared like `Layout("fuse_getattr_in", "getattr_flags:I dummy:I fh:Q")`, each field as NAME:FORMAT with
    a format of the struct module. `spare:24x` is a field that has an offset but no value. A struct inside a
    struct is given by name, `attr` with the keyword `attr=FUSE_ATTR`; its fields are then called `attr.ino`
    and so on. The kernel pads its structs by named fields; where the compiler would pad, the declaration says
    so with `x`.

    - `name`: the kernel's name, `fields`: names of the values, in the order of `struct`.
    - `struct`: the compiled form, `size`: its bytes.
    - `offsets`: field -> byte, also for fields without a value and for structs inside.
    """

    __slots__ = ("fields", "name", "offsets", "size", "struct")
    name: str
    fields: tuple[str, ...]
    struct: Struct
    size: int
    offsets: Mapping[str, int]

    def __init__(self, name: str, declaration: str, **inner: "Layout") -> None:
        fields: list[str] = []
        offsets: dict[str, int] = {}
        formats: list[str] = []
        position = 0
        for item in declaration.split():
            field, _, code = item.partition(":")
            offsets[field] = position
            if code:
                formats.append(code)
                position += calcsize("<" + code)
                if not code.endswith("x"):
                    fields.append(field)
            else:
                nested = inner[field]
                formats.append(nested.struct.format.removeprefix("<"))
                offsets.update({f"{field}.{key}": position + at for key, at in nested.offsets.items()})
                fields.extend(f"{field}.{key}" for key in nested.fields)
                position += nested.size
        self.name = name
        self.fields = tuple(fields)
        self.struct = Struct("<" + "".join(formats))
        self.size = self.struct.size
        self.offsets = MappingProxyType(offsets)

    def __repr__(self) -> str:
        return f"<Layout {self.name} of {self.size} bytes>"


# Every message.

FUSE_IN_HEADER = Layout(
    "fuse_in_header",
    "len:I opcode:I unique:Q nodeid:Q uid:I gid:I pid:I total_extlen:H padding:H",
)
FUSE_OUT_HEADER = Layout("fuse_out_header", "len:I error:i unique:Q")

# Attributes. Times are uint64_t in the kernel's header but are assigned to the signed time64_t, so that 1969
# is a negative number of seconds; they are declared as what they mean.

FUSE_ATTR = Layout(
    "fuse_attr",
    "ino:Q size:Q blocks:Q atime:q mtime:q ctime:q atimensec:I mtimensec:I ctimensec:I"
    " mode:I nlink:I uid:I gid:I rdev:I blksize:I flags:I",
)
FUSE_ENTRY_OUT = Layout(
    "fuse_entry_out",
    "nodeid:Q generation:Q entry_valid:Q attr_valid:Q entry_valid_nsec:I attr_valid_nsec:I attr",
    attr=FUSE_ATTR,
)
FUSE_GETATTR_IN = Layout("fuse_getattr_in", "getattr_flags:I dummy:I fh:Q")
FUSE_ATTR_OUT = Layout("fuse_attr_out", "attr_valid:Q attr_valid_nsec:I dummy:I attr", attr=FUSE_ATTR)
FUSE_SETATTR_IN = Layout(
    "fuse_setattr_in",
    "valid:I padding:I fh:Q size:Q lock_owner:Q atime:q mtime:q ctime:q atimensec:I mtimensec:I ctimensec:I"
    " mode:I unused4:I uid:I gid:I unused5:I",
)
FUSE_SX_TIME = Layout("fuse_sx_time", "tv_sec:q tv_nsec:I __reserved:i")
FUSE_STATX = Layout(
    "fuse_statx",
    "mask:I blksize:I attributes:Q nlink:I uid:I gid:I mode:H __spare0:2x ino:Q size:Q blocks:Q"
    " attributes_mask:Q atime btime ctime mtime rdev_major:I rdev_minor:I"
    " dev_major:I dev_minor:I __spare2:112x",
    atime=FUSE_SX_TIME,
    btime=FUSE_SX_TIME,
    ctime=FUSE_SX_TIME,
    mtime=FUSE_SX_TIME,
)
FUSE_STATX_IN = Layout("fuse_statx_in", "getattr_flags:I reserved:I fh:Q sx_flags:I sx_mask:I")
FUSE_STATX_OUT = Layout("fuse_statx_out", "attr_valid:Q attr_valid_nsec:I flags:I spare:16x stat", stat=FUSE_STATX)
FUSE_ACCESS_IN = Layout("fuse_access_in", "mask:I padding:I")
FUSE_KSTATFS = Layout(
    "fuse_kstatfs",
    "blocks:Q bfree:Q bavail:Q files:Q ffree:Q bsize:I namelen:I frsize:I padding:I spare:24x",
)
FUSE_STATFS_OUT = Layout("fuse_statfs_out", "st", st=FUSE_KSTATFS)

# Names.

FUSE_MKNOD_IN = Layout("fuse_mknod_in", "mode:I rdev:I umask:I padding:I")
FUSE_MKDIR_IN = Layout("fuse_mkdir_in", "mode:I umask:I")
FUSE_RENAME_IN = Layout("fuse_rename_in", "newdir:Q")
FUSE_RENAME2_IN = Layout("fuse_rename2_in", "newdir:Q flags:I padding:I")
FUSE_LINK_IN = Layout("fuse_link_in", "oldnodeid:Q")
FUSE_FORGET_IN = Layout("fuse_forget_in", "nlookup:Q")
FUSE_FORGET_ONE = Layout("fuse_forget_one", "nodeid:Q nlookup:Q")
FUSE_BATCH_FORGET_IN = Layout("fuse_batch_forget_in", "count:I dummy:I")

# Files.

FUSE_OPEN_IN = Layout("fuse_open_in", "flags:I open_flags:I")
FUSE_CREATE_IN = Layout("fuse_create_in", "flags:I mode:I umask:I open_flags:I")
FUSE_OPEN_OUT = Layout("fuse_open_out", "fh:Q open_flags:I backing_id:i")
FUSE_RELEASE_IN = Layout("fuse_release_in", "fh:Q flags:I release_flags:I lock_owner:Q")
FUSE_FLUSH_IN = Layout("fuse_flush_in", "fh:Q unused:I padding:I lock_owner:Q")
FUSE_READ_IN = Layout("fuse_read_in", "fh:Q offset:Q size:I read_flags:I lock_owner:Q flags:I padding:I")
FUSE_WRITE_IN = Layout("fuse_write_in", "fh:Q offset:Q size:I write_flags:I lock_owner:Q flags:I padding:I")
FUSE_WRITE_OUT = Layout("fuse_write_out", "size:I padding:I")
FUSE_FSYNC_IN = Layout("fuse_fsync_in", "fh:Q fsync_flags:I padding:I")
FUSE_SYNCFS_IN = Layout("fuse_syncfs_in", "padding:Q")
FUSE_FALLOCATE_IN = Layout("fuse_fallocate_in", "fh:Q offset:Q length:Q mode:I padding:I")
# offset is uint64_t in the header and a signed loff_t on both sides of it.
FUSE_LSEEK_IN = Layout("fuse_lseek_in", "fh:Q offset:q whence:I padding:I")
FUSE_LSEEK_OUT = Layout("fuse_lseek_out", "offset:Q")
FUSE_COPY_FILE_RANGE_IN = Layout(
    "fuse_copy_file_range_in", "fh_in:Q off_in:Q nodeid_out:Q fh_out:Q off_out:Q len:Q flags:Q"
)
FUSE_COPY_FILE_RANGE_OUT = Layout("fuse_copy_file_range_out", "bytes_copied:Q")
FUSE_BMAP_IN = Layout("fuse_bmap_in", "block:Q blocksize:I padding:I")
FUSE_BMAP_OUT = Layout("fuse_bmap_out", "block:Q")
FUSE_DIRENT = Layout("fuse_dirent", "ino:Q off:Q namelen:I type:I")
FUSE_DIRENTPLUS = Layout("fuse_direntplus", "entry_out dirent", entry_out=FUSE_ENTRY_OUT, dirent=FUSE_DIRENT)

# Extended attributes, locks, ioctl, poll.

FUSE_SETXATTR_IN = Layout("fuse_setxattr_in", "size:I flags:I setxattr_flags:I padding:I")
# What the kernel sends unless InitFlags.SETXATTR_EXT was negotiated (FUSE_COMPAT_SETXATTR_IN_SIZE).
FUSE_COMPAT_SETXATTR_IN = Layout("fuse_compat_setxattr_in", "size:I flags:I")
FUSE_GETXATTR_IN = Layout("fuse_getxattr_in", "size:I padding:I")
FUSE_GETXATTR_OUT = Layout("fuse_getxattr_out", "size:I padding:I")
FUSE_FILE_LOCK = Layout("fuse_file_lock", "start:Q end:Q type:I pid:I")
FUSE_LK_IN = Layout("fuse_lk_in", "fh:Q owner:Q lk lk_flags:I padding:I", lk=FUSE_FILE_LOCK)
FUSE_LK_OUT = Layout("fuse_lk_out", "lk", lk=FUSE_FILE_LOCK)
FUSE_IOCTL_IN = Layout("fuse_ioctl_in", "fh:Q flags:I cmd:I arg:Q in_size:I out_size:I")
FUSE_IOCTL_IOVEC = Layout("fuse_ioctl_iovec", "base:Q len:Q")
FUSE_IOCTL_OUT = Layout("fuse_ioctl_out", "result:i flags:I in_iovs:I out_iovs:I")
FUSE_POLL_IN = Layout("fuse_poll_in", "fh:Q kh:Q flags:I events:I")
FUSE_POLL_OUT = Layout("fuse_poll_out", "revents:I padding:I")

# The session.

FUSE_INIT_IN = Layout("fuse_init_in", "major:I minor:I max_readahead:I flags:I flags2:I unused:44x")
# What a kernel older than 7.36 sends: it ends before flags2.
FUSE_COMPAT_INIT_IN = Layout("fuse_compat_init_in", "major:I minor:I max_readahead:I flags:I")
FUSE_INIT_OUT = Layout(
    "fuse_init_out",
    "major:I minor:I max_readahead:I flags:I max_background:H congestion_threshold:H max_write:I time_gran:I"
    " max_pages:H map_alignment:H flags2:I max_stack_depth:I request_timeout:H unused:22x",
)
CUSE_INIT_IN = Layout("cuse_init_in", "major:I minor:I unused:I flags:I")
CUSE_INIT_OUT = Layout(
    "cuse_init_out",
    "major:I minor:I unused:I flags:I max_read:I max_write:I dev_major:I dev_minor:I spare:40x",
)
FUSE_INTERRUPT_IN = Layout("fuse_interrupt_in", "unique:Q")
FUSE_BACKING_MAP = Layout("fuse_backing_map", "fd:i flags:I padding:Q")

# DAX (virtiofs only; a kernel never sends these to a server on /dev/fuse).

FUSE_SETUPMAPPING_IN = Layout("fuse_setupmapping_in", "fh:Q foffset:Q len:Q flags:Q moffset:Q")
FUSE_REMOVEMAPPING_IN = Layout("fuse_removemapping_in", "count:I")
FUSE_REMOVEMAPPING_ONE = Layout("fuse_removemapping_one", "moffset:Q len:Q")

# Extensions after the last name of a request that creates something.

FUSE_EXT_HEADER = Layout("fuse_ext_header", "size:I type:I")
FUSE_SECCTX_HEADER = Layout("fuse_secctx_header", "size:I nr_secctx:I")
FUSE_SECCTX = Layout("fuse_secctx", "size:I padding:I")
FUSE_SUPP_GROUPS = Layout("fuse_supp_groups", "nr_groups:I")

# Notifications: server to kernel, and the reply to RETRIEVE.

FUSE_NOTIFY_POLL_WAKEUP_OUT = Layout("fuse_notify_poll_wakeup_out", "kh:Q")
FUSE_NOTIFY_INVAL_INODE_OUT = Layout("fuse_notify_inval_inode_out", "ino:Q off:q len:q")
FUSE_NOTIFY_INVAL_ENTRY_OUT = Layout("fuse_notify_inval_entry_out", "parent:Q namelen:I flags:I")
FUSE_NOTIFY_DELETE_OUT = Layout("fuse_notify_delete_out", "parent:Q child:Q namelen:I padding:I")
FUSE_NOTIFY_STORE_OUT = Layout("fuse_notify_store_out", "nodeid:Q offset:Q size:I padding:I")
FUSE_NOTIFY_RETRIEVE_OUT = Layout("fuse_notify_retrieve_out", "notify_unique:Q nodeid:Q offset:Q size:I padding:I")
FUSE_NOTIFY_RETRIEVE_IN = Layout("fuse_notify_retrieve_in", "dummy1:Q offset:Q size:I dummy2:I dummy3:Q dummy4:Q")
FUSE_NOTIFY_PRUNE_OUT = Layout("fuse_notify_prune_out", "count:I padding:I spare:Q")

# The ring.

FUSE_URING_ENT_IN_OUT = Layout("fuse_uring_ent_in_out", "flags:Q commit_id:Q payload_sz:I padding:I reserved:Q")
FUSE_URING_REQ_HEADER = Layout(
    "fuse_uring_req_header", "in_out:128s op_in:128s ring_ent_in_out", ring_ent_in_out=FUSE_URING_ENT_IN_OUT
)
FUSE_URING_CMD_REQ = Layout("fuse_uring_cmd_req", "flags:Q commit_id:Q qid:H padding:6x")

FUSE_URING_IN_OUT_HEADER_SZ = 128
FUSE_URING_OP_IN_OUT_SZ = 128
FUSE_URING_HEADER_SZ = FUSE_URING_REQ_HEADER.size
"""The least size of iov[0] at REGISTER: 288."""

LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {value.name: value for value in list(globals().values()) if isinstance(value, Layout)}
)
"""Every struct by its kernel name."""


# ------------------------------------------------------------------------------------------------------------
# Codes


class Opcode(IntEnum):
    """enum fuse_opcode (FUSE_...; CUSE_INIT carries its own name)."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53
    CUSE_INIT = 4096


class Notify(IntEnum):
    """enum fuse_notify_code (FUSE_NOTIFY_...): `error` of a fuse_out_header whose `unique` is 0."""

    POLL = 1  # 7.11
    INVAL_INODE = 2  # 7.12
    INVAL_ENTRY = 3  # 7.12
    STORE = 4  # 7.15
    RETRIEVE = 5  # 7.15
    DELETE = 6  # 7.18
    RESEND = 7  # 7.40
    INC_EPOCH = 8  # 7.44
    PRUNE = 9  # 7.45


class UringCommand(IntEnum):
    """enum fuse_uring_cmd (FUSE_IO_URING_CMD_...): cmd_op of the submission queue entry. [7.42]"""

    INVALID = 0
    REGISTER = 1
    COMMIT_AND_FETCH = 2


class ExtType(IntEnum):
    """enum fuse_ext_type (FUSE_...): type of a fuse_ext_header. [7.38]

    Values up to MAX_NR_SECCTX are no types: the header is then a fuse_secctx_header, and the value its
    nr_secctx.
    """

    MAX_NR_SECCTX = 31
    EXT_GROUPS = 32


# Device ioctls: _IOR(229, 0, u32), _IOW(229, 1, struct fuse_backing_map), _IOW(229, 2, u32), _IO(229, 3).
FUSE_DEV_IOC_CLONE = 0x8004_E500
FUSE_DEV_IOC_BACKING_OPEN = 0x4010_E501  # 7.40; the id is the ioctl's return value
FUSE_DEV_IOC_BACKING_CLOSE = 0x4004_E502  # 7.40
FUSE_DEV_IOC_SYNC_INIT = 0xE503  # Linux 6.18


# ------------------------------------------------------------------------------------------------------------
# Flags. Members keep unknown bits (the boundary of IntFlag), so that a newer kernel's flags survive a round
# trip. Operations on IntFlag cost some microseconds: on the way of a request take plain ints.


class InitFlags(IntFlag):
    """FUSE_...: what kernel and server can do, `flags | flags2 << 32` of fuse_init_in and fuse_init_out.

    The upper half counts only if INIT_EXT is set as well.
    """

    ASYNC_READ = 1 << 0  # 7.6
    POSIX_LOCKS = 1 << 1  # 7.7
    FILE_OPS = 1 << 2
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4  # 7.10
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6  # 7.12
    SPLICE_WRITE = 1 << 7  # 7.14
    SPLICE_MOVE = 1 << 8  # 7.14
    SPLICE_READ = 1 << 9  # 7.14
    FLOCK_LOCKS = 1 << 10  # 7.17
    HAS_IOCTL_DIR = 1 << 11  # 7.18
    AUTO_INVAL_DATA = 1 << 12  # 7.20
    DO_READDIRPLUS = 1 << 13  # 7.21
    READDIRPLUS_AUTO = 1 << 14  # 7.21
    ASYNC_DIO = 1 << 15  # 7.22
    WRITEBACK_CACHE = 1 << 16  # 7.23
    NO_OPEN_SUPPORT = 1 << 17  # 7.23
    PARALLEL_DIROPS = 1 << 18  # 7.25
    HANDLE_KILLPRIV = 1 << 19  # 7.26
    POSIX_ACL = 1 << 20  # 7.26
    ABORT_ERROR = 1 << 21  # 7.27
    MAX_PAGES = 1 << 22  # 7.28
    CACHE_SYMLINKS = 1 << 23  # 7.28
    NO_OPENDIR_SUPPORT = 1 << 24  # 7.29
    EXPLICIT_INVAL_DATA = 1 << 25  # 7.30
    MAP_ALIGNMENT = 1 << 26  # 7.31
    SUBMOUNTS = 1 << 27  # 7.32
    HANDLE_KILLPRIV_V2 = 1 << 28  # 7.33
    SETXATTR_EXT = 1 << 29  # 7.33
    INIT_EXT = 1 << 30  # 7.36
    INIT_RESERVED = 1 << 31
    SECURITY_CTX = 1 << 32  # 7.36
    HAS_INODE_DAX = 1 << 33  # 7.36
    CREATE_SUPP_GROUP = 1 << 34  # 7.38
    HAS_EXPIRE_ONLY = 1 << 35  # 7.38
    DIRECT_IO_ALLOW_MMAP = 1 << 36  # 7.39
    PASSTHROUGH = 1 << 37  # 7.40
    NO_EXPORT_SUPPORT = 1 << 38  # 7.40
    HAS_RESEND = 1 << 39  # 7.40
    ALLOW_IDMAP = 1 << 40  # 7.41
    OVER_IO_URING = 1 << 41  # 7.42
    REQUEST_TIMEOUT = 1 << 42  # 7.43


class CuseInitFlags(IntFlag):
    """CUSE_...: flags of cuse_init_in and cuse_init_out."""

    UNRESTRICTED_IOCTL = 1 << 0


class SetattrValid(IntFlag):
    """FATTR_...: which fields of fuse_setattr_in mean something."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7  # 7.9
    MTIME_NOW = 1 << 8  # 7.9
    LOCKOWNER = 1 << 9  # 7.9
    CTIME = 1 << 10  # 7.23
    KILL_SUIDGID = 1 << 11  # 7.33


class OpenReply(IntFlag):
    """FOPEN_...: fuse_open_out.open_flags."""

    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    NONSEEKABLE = 1 << 2  # 7.10
    CACHE_DIR = 1 << 3  # 7.28
    STREAM = 1 << 4  # 7.30
    NOFLUSH = 1 << 5  # 7.35
    PARALLEL_DIRECT_WRITES = 1 << 6  # 7.38; the kernel drops it without DIRECT_IO
    PASSTHROUGH = 1 << 7  # 7.40; backing_id says to which file


class OpenIn(IntFlag):
    """FUSE_OPEN_...: open_flags of fuse_open_in and fuse_create_in."""

    KILL_SUIDGID = 1 << 0  # 7.33


class ReleaseFlags(IntFlag):
    """FUSE_RELEASE_...: fuse_release_in.release_flags."""

    FLUSH = 1 << 0
    FLOCK_UNLOCK = 1 << 1  # 7.17


class GetattrFlags(IntFlag):
    """FUSE_GETATTR_...: getattr_flags of fuse_getattr_in and fuse_statx_in."""

    FH = 1 << 0  # 7.9


class LockFlags(IntFlag):
    """FUSE_LK_...: fuse_lk_in.lk_flags."""

    FLOCK = 1 << 0  # 7.17


class WriteFlags(IntFlag):
    """FUSE_WRITE_...: fuse_write_in.write_flags."""

    CACHE = 1 << 0  # from the page cache: fh is a guess, and the caller is not the writer
    LOCKOWNER = 1 << 1
    KILL_SUIDGID = 1 << 2  # 7.31 as KILL_PRIV


class ReadFlags(IntFlag):
    """FUSE_READ_...: fuse_read_in.read_flags."""

    LOCKOWNER = 1 << 1


class IoctlFlags(IntFlag):
    """FUSE_IOCTL_...: flags of fuse_ioctl_in and fuse_ioctl_out."""

    COMPAT = 1 << 0
    UNRESTRICTED = 1 << 1
    RETRY = 1 << 2
    _32BIT = 1 << 3  # 7.16
    DIR = 1 << 4  # 7.18
    COMPAT_X32 = 1 << 5  # 7.30


class PollFlags(IntFlag):
    """FUSE_POLL_...: fuse_poll_in.flags."""

    SCHEDULE_NOTIFY = 1 << 0


class FsyncFlags(IntFlag):
    """FUSE_FSYNC_...: fuse_fsync_in.fsync_flags."""

    FDATASYNC = 1 << 0


class AttrFlags(IntFlag):
    """FUSE_ATTR_...: fuse_attr.flags."""

    SUBMOUNT = 1 << 0  # 7.32
    DAX = 1 << 1  # 7.36


class SetxattrFlags(IntFlag):
    """FUSE_SETXATTR_...: fuse_setxattr_in.setxattr_flags."""

    ACL_KILL_SGID = 1 << 0  # 7.33


class InvalEntryFlags(IntFlag):
    """FUSE_...: fuse_notify_inval_entry_out.flags."""

    EXPIRE_ONLY = 1 << 0  # 7.38


class SetupmappingFlags(IntFlag):
    """FUSE_SETUPMAPPING_FLAG_...: fuse_setupmapping_in.flags."""

    WRITE = 1 << 0
    READ = 1 << 1


# ------------------------------------------------------------------------------------------------------------
# Operations


class Name(Enum):
    """What a NUL-terminated argument may be; anything else did not come from the kernel."""

    ENTRY = "a directory entry: not empty, no slash, neither . nor .."
    LOOKUP = "a directory entry, or . or .. (InitFlags.EXPORT_SUPPORT)"
    TARGET = "any bytes (the target of a symbolic link)"
    LABEL = "any bytes, but not empty (an attribute's name)"


class Reply(Enum):
    """Bodies of replies that are no struct."""

    NONE = "no body"
    BYTES = "bytes, as many as the server likes up to what was asked for"


class Operation(NamedTuple):
    """One opcode: what arrives and what goes back.

    - `since`: the minor version that brought it (0: there from the start).
    - `request`: the struct that comes first, in op_in of the ring; None: the first argument has size 0, op_in
      is untouched and holds bytes of an earlier request.
    - `kinds`: the NUL-terminated names that follow, in the payload.
    - `data`: name of the request's field that counts the bytes that follow the names; "" if none do.
    - `items`: struct of the array that follows; its length is the request's field `count`.
    - `ext`: an extension block may end the payload (fuse_in_header.total_extlen).
    - `inline`: the request struct is the second argument and therefore begins the payload; op_in is empty.
    - `reply`: what a successful reply carries.
    - `replies`: whether there is a reply at all.
    """

    opcode: Opcode
    since: int
    request: Layout | None = None
    kinds: tuple[Name, ...] = ()
    data: str = ""
    items: Layout | None = None
    ext: bool = False
    inline: bool = False
    reply: Layout | Reply | tuple[Layout | Reply, ...] = Reply.NONE
    replies: bool = True

    @property
    def names(self) -> int:
        """How many NUL-terminated names follow."""
        return len(self.kinds)

    @property
    def op_in_size(self) -> int:
        """Bytes of op_in that belong to the request."""
        return 0 if self.request is None or self.inline else self.request.size


def _by_opcode(rows: Iterable[Operation]) -> Mapping[int, Operation]:
    return MappingProxyType({int(row.opcode): row for row in rows})


_ENTRY = (Name.ENTRY,)

OPERATIONS: Mapping[int, Operation] = _by_opcode(
    (
        Operation(Opcode.LOOKUP, 0, None, (Name.LOOKUP,), reply=FUSE_ENTRY_OUT),
        Operation(Opcode.FORGET, 0, FUSE_FORGET_IN, replies=False),  # /dev/fuse only
        Operation(Opcode.GETATTR, 0, FUSE_GETATTR_IN, reply=FUSE_ATTR_OUT),
        Operation(Opcode.SETATTR, 1, FUSE_SETATTR_IN, reply=FUSE_ATTR_OUT),
        Operation(Opcode.READLINK, 0, reply=Reply.BYTES),
        Operation(Opcode.SYMLINK, 1, None, (Name.ENTRY, Name.TARGET), ext=True, reply=FUSE_ENTRY_OUT),
        Operation(Opcode.MKNOD, 1, FUSE_MKNOD_IN, _ENTRY, ext=True, reply=FUSE_ENTRY_OUT),
        Operation(Opcode.MKDIR, 1, FUSE_MKDIR_IN, _ENTRY, ext=True, reply=FUSE_ENTRY_OUT),
        Operation(Opcode.UNLINK, 1, None, _ENTRY),
        Operation(Opcode.RMDIR, 1, None, _ENTRY),
        Operation(Opcode.RENAME, 1, FUSE_RENAME_IN, (Name.ENTRY, Name.ENTRY)),
        Operation(Opcode.LINK, 1, FUSE_LINK_IN, _ENTRY, reply=FUSE_ENTRY_OUT),
        Operation(Opcode.OPEN, 1, FUSE_OPEN_IN, reply=FUSE_OPEN_OUT),
        Operation(Opcode.READ, 1, FUSE_READ_IN, reply=Reply.BYTES),
        Operation(Opcode.WRITE, 1, FUSE_WRITE_IN, data="size", reply=FUSE_WRITE_OUT),
        Operation(Opcode.STATFS, 0, reply=FUSE_STATFS_OUT),
        Operation(Opcode.RELEASE, 1, FUSE_RELEASE_IN),
        Operation(Opcode.FSYNC, 1, FUSE_FSYNC_IN),
        # The struct is FUSE_COMPAT_SETXATTR_IN unless InitFlags.SETXATTR_EXT was negotiated.
        Operation(Opcode.SETXATTR, 1, FUSE_SETXATTR_IN, (Name.LABEL,), data="size"),
        # GETXATTR and LISTXATTR: size 0 in the request asks for the size, answered by fuse_getxattr_out.
        Operation(Opcode.GETXATTR, 1, FUSE_GETXATTR_IN, (Name.LABEL,), reply=Reply.BYTES),
        Operation(Opcode.LISTXATTR, 1, FUSE_GETXATTR_IN, reply=Reply.BYTES),
        Operation(Opcode.REMOVEXATTR, 1, None, (Name.LABEL,)),
        Operation(Opcode.FLUSH, 1, FUSE_FLUSH_IN),
        # /dev/fuse only. A kernel before 7.36 sends FUSE_COMPAT_INIT_IN.
        Operation(Opcode.INIT, 0, FUSE_INIT_IN, reply=FUSE_INIT_OUT),
        Operation(Opcode.OPENDIR, 1, FUSE_OPEN_IN, reply=FUSE_OPEN_OUT),
        Operation(Opcode.READDIR, 1, FUSE_READ_IN, reply=Reply.BYTES),
        Operation(Opcode.RELEASEDIR, 1, FUSE_RELEASE_IN),
        Operation(Opcode.FSYNCDIR, 2, FUSE_FSYNC_IN),
        Operation(Opcode.GETLK, 7, FUSE_LK_IN, reply=FUSE_LK_OUT),
        Operation(Opcode.SETLK, 7, FUSE_LK_IN),
        Operation(Opcode.SETLKW, 7, FUSE_LK_IN),
        Operation(Opcode.ACCESS, 3, FUSE_ACCESS_IN),
        Operation(Opcode.CREATE, 3, FUSE_CREATE_IN, _ENTRY, ext=True, reply=(FUSE_ENTRY_OUT, FUSE_OPEN_OUT)),
        # /dev/fuse only. A reply is allowed only to say EAGAIN or ENOSYS, and is refused for ring requests.
        Operation(Opcode.INTERRUPT, 7, FUSE_INTERRUPT_IN, replies=False),
        # BMAP, DESTROY, SYNCFS: mounts of a block device (fuseblk) and virtiofs send them, others do not (6.18).
        Operation(Opcode.BMAP, 8, FUSE_BMAP_IN, reply=FUSE_BMAP_OUT),
        Operation(Opcode.DESTROY, 8),
        Operation(Opcode.IOCTL, 11, FUSE_IOCTL_IN, data="in_size", reply=(FUSE_IOCTL_OUT, Reply.BYTES)),
        Operation(Opcode.POLL, 11, FUSE_POLL_IN, reply=FUSE_POLL_OUT),
        # Answers Notify.RETRIEVE. By the ring it must be committed with an empty reply, on /dev/fuse not
        # answered.
        Operation(Opcode.NOTIFY_REPLY, 15, FUSE_NOTIFY_RETRIEVE_IN, data="size", inline=True, replies=False),
        Operation(
            Opcode.BATCH_FORGET, 16, FUSE_BATCH_FORGET_IN, items=FUSE_FORGET_ONE, replies=False
        ),  # /dev/fuse only
        Operation(Opcode.FALLOCATE, 19, FUSE_FALLOCATE_IN),
        Operation(Opcode.READDIRPLUS, 21, FUSE_READ_IN, reply=Reply.BYTES),
        Operation(Opcode.RENAME2, 23, FUSE_RENAME2_IN, (Name.ENTRY, Name.ENTRY)),
        Operation(Opcode.LSEEK, 24, FUSE_LSEEK_IN, reply=FUSE_LSEEK_OUT),
        Operation(Opcode.COPY_FILE_RANGE, 28, FUSE_COPY_FILE_RANGE_IN, reply=FUSE_WRITE_OUT),
        Operation(Opcode.SETUPMAPPING, 31, FUSE_SETUPMAPPING_IN),
        Operation(Opcode.REMOVEMAPPING, 31, FUSE_REMOVEMAPPING_IN, items=FUSE_REMOVEMAPPING_ONE),
        Operation(Opcode.SYNCFS, 34, FUSE_SYNCFS_IN),
        # The name is "/": it stands for none.
        Operation(Opcode.TMPFILE, 37, FUSE_CREATE_IN, (Name.LABEL,), ext=True, reply=(FUSE_ENTRY_OUT, FUSE_OPEN_OUT)),
        Operation(Opcode.STATX, 39, FUSE_STATX_IN, reply=FUSE_STATX_OUT),
        # Sent in place of COPY_FILE_RANGE, whose reply counts no more than 4 GiB; ENOSYS makes the kernel
        # fall back.
        Operation(Opcode.COPY_FILE_RANGE_64, 45, FUSE_COPY_FILE_RANGE_IN, reply=FUSE_COPY_FILE_RANGE_OUT),
        # Not part of a filesystem's protocol: /dev/cuse. The reply is followed by "NAME=VALUE\0" strings.
        Operation(Opcode.CUSE_INIT, 12, CUSE_INIT_IN, reply=(CUSE_INIT_OUT, Reply.BYTES)),
    )
)
"""One row per opcode."""
