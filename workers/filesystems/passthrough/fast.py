"""Which requests native/fast*.c answer without the interpreter.

The methods of this package are the reference. C answers what is common and simple, for a source whose objects are
opened by their handles and for callers whose permissions the kernel checks, or root; everything else, and nearly
every error, comes to the methods.
"""

from collections.abc import Collection
from typing import Any

from ringmount.workers._native import ffi, lib
from ringmount.workers.abi import Opcode
from ringmount.workers.accelerate import Tables
from ringmount.workers.dispatch import ROUTES, Replies
from ringmount.workers.filesystems.passthrough.base import CHECKED
from ringmount.workers.filesystems.passthrough.files import Files
from ringmount.workers.filesystems.passthrough.openflags import KNOWS_NOAPPEND

ANSWERED = (
    Opcode.LOOKUP,
    Opcode.GETATTR,
    Opcode.SETATTR,
    Opcode.READLINK,
    Opcode.SYMLINK,
    Opcode.MKNOD,
    Opcode.MKDIR,
    Opcode.UNLINK,
    Opcode.RMDIR,
    Opcode.RENAME,
    Opcode.LINK,
    Opcode.OPEN,
    Opcode.READ,
    Opcode.WRITE,
    Opcode.STATFS,
    Opcode.RELEASE,
    Opcode.GETXATTR,
    Opcode.LISTXATTR,
    Opcode.FLUSH,
    Opcode.OPENDIR,
    Opcode.READDIR,
    Opcode.RELEASEDIR,
    Opcode.ACCESS,
    Opcode.CREATE,
    Opcode.READDIRPLUS,
    Opcode.RENAME2,
)
"""What C can answer."""


def set_up(files: Files, tables: Tables, replies: Replies, opcodes: Collection[int]) -> Any:
    """The `struct rm_fast *` that answers these opcodes for `files`, or None where C must not answer."""
    objects = files.objects
    options, credentials = files.options, files.credentials
    if not options.fast or not options.xattr or not objects.identities.opens_by_handle:
        return None
    if credentials.checks and (credentials.uid, credentials.gid) != (0, 0):
        return None
    if files.mount.watches_folders:  # each before it is looked at, which C does not do
        return None
    setup = ffi.new("struct rm_fast_setup *")
    setup.nodes = ffi.cast("void *", tables.nodes)
    setup.given = ffi.cast("void *", tables.given)
    setup.handles = ffi.cast("void *", tables.handles)
    setup.fd_owners = ffi.cast("uint16_t *", tables.fd_owners)
    setup.fd_owners_size = tables.fd_owners_size
    setup.worker = files.mount.worker
    setup.top, setup.root = objects.top, objects.root
    setup.mount, setup.device = objects.identities.mount_number, objects.identities.device
    setup.entry_valid, setup.entry_valid_nsec = replies.entry_valid
    setup.attr_valid, setup.attr_valid_nsec = replies.attr_valid
    setup.missing_valid, setup.missing_valid_nsec = replies.negative_valid
    setup.open_reply, setup.folder_reply = replies.open_flags, replies.folder_flags
    setup.read_reply, setup.written_reply = files.silent_reply, files.written_reply
    setup.no_trace = objects.no_trace
    setup.opens = tables.opens
    setup.files_top = objects.files_top
    setup.offers = files.offers
    setup.read_flags = files.read_flags
    setup.umask = credentials.umask
    setup.checks, setup.switches = credentials.checks, credentials.switches
    setup.uid, setup.gid, setup.capabilities = credentials.uid, credentials.gid, credentials.own
    setup.fd_limit = files.fd_limit
    setup.writeback = files.mount.writeback
    setup.knows_noappend = KNOWS_NOAPPEND != 0
    setup.coherent = files.mount.unwatched is not None
    setup.opcodes = sum(1 << opcode for opcode in opcodes)
    unchecked = [code for code in opcodes if code == Opcode.LOOKUP or ROUTES[code].method not in CHECKED]
    setup.unchecked = sum(1 << opcode for opcode in unchecked)
    lib.rm_fast_set_up(objects.descriptors.fast, setup)
    return objects.descriptors.fast
