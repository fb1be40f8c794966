"""Requests answered in C, without a kernel: an arena, the passthrough filesystem over a folder, and one entry."""

import struct
from pathlib import Path

from process.passthrough.support import HANDLES, NODES, Mount

from ringmount.workers import abi
from ringmount.workers._native import ffi, lib
from ringmount.workers.abi import Opcode
from ringmount.workers.accelerate import Tables
from ringmount.workers.api import ROOT
from ringmount.workers.arena import Arena, Plan
from ringmount.workers.dispatch import Replies
from ringmount.workers.filesystems.passthrough import Options, Passthrough
from ringmount.workers.handles import HandleTable
from ringmount.workers.nodes import NodeTable
from ringmount.workers.recovery import COMMIT_ID_AT

PLAN = Plan(depths=(1,), owners=(0,), workers=1, payload=1 << 20, nodes=NODES, handles=HANDLES)
REPLIES = Replies((1, 0), (1, 0), (0, 0))
NONE_VALID = Replies((0, 0), (0, 0), (0, 0))


class ArenaTables:
    """An arena's tables, as `process.passthrough.support.Mount` asks for them."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena

    def nodes(self, worker: int) -> NodeTable:
        return NodeTable(self.arena.address("nodes"), self.arena.section_size("nodes"), worker)

    def handles(self, worker: int) -> HandleTable:
        return HandleTable(self.arena.address("handles"), self.arena.section_size("handles"), worker)


class Served:
    """One worker's C part."""

    def __init__(self, arena: Arena, source: Path, replies: Replies = REPLIES) -> None:
        self.arena = arena
        self.source = source
        mount = Mount(ArenaTables(arena))  # type: ignore[arg-type]
        self.filesystem = Passthrough(Options(str(source)), mount)
        nodes, handles, given, owners = map(arena.address, ("nodes", "handles", "given", "fd_owners"))
        tables = Tables(nodes, handles, given, ffi.NULL, owners, 0)
        self.fast = self.filesystem.accelerate(tables, replies)

    def ask(self, opcode: int, node: int, op_in: bytes = b"", payload: bytes = b"") -> bytes | int | None:
        """The reply's bytes; an errno; None if it is left to Python."""
        page = self.arena.page(0)
        length = abi.FUSE_IN_HEADER.size + len(op_in) + len(payload)
        page[:40] = abi.FUSE_IN_HEADER.struct.pack(length, opcode, 2, node, 0, 0, 1, 0, 0)
        page[128 : 128 + len(op_in)] = op_in
        self.arena.payload_view(0)[: len(payload)] = payload
        struct.pack_into("<QI", page, COMMIT_ID_AT, 2, len(payload))
        lib.rm_journal_delivery(self.arena.c, 0)
        journal = self.arena.c.journal[0]
        if not lib.rm_fast_serve(self.fast, self.arena.c, 0):
            assert journal.state == lib.RM_DELIVERED
            return None
        assert journal.state == lib.RM_ANSWERED
        return -journal.error if journal.error else bytes(self.arena.payload_view(0)[: journal.size])

    def opening(self, node: int = ROOT) -> bytes:
        """The fuse_open_out of an OPENDIR."""
        opened = self.ask(Opcode.OPENDIR, node, abi.FUSE_OPEN_IN.struct.pack(0, 0))
        assert isinstance(opened, bytes)
        return opened

    def opendir(self, node: int = ROOT) -> int:
        return int(abi.FUSE_OPEN_OUT.struct.unpack_from(self.opening(node))[0])

    @staticmethod
    def offset_after(listing: bytes, plus: bool = True) -> int:
        """Where the kernel goes on after a part of a listing."""
        at = offset = 0
        skip = abi.FUSE_ENTRY_OUT.size if plus else 0
        while at < len(listing):
            _, offset, size, _ = abi.FUSE_DIRENT.struct.unpack_from(listing, at + skip)
            at += skip + abi.FUSE_DIRENT.size + size + 7 & ~7
        return offset

    def list(self, fh: int, plus: bool = True, node: int = ROOT, offset: int = 0, size: int = 4096) -> bytes:
        asked = abi.FUSE_READ_IN.struct.pack(fh, offset, size, 0, 0, 0, 0)
        listed = self.ask(Opcode.READDIRPLUS if plus else Opcode.READDIR, node, asked)
        assert isinstance(listed, bytes)
        return listed
