"""A listing made in C and one made in Python are the same, byte by byte."""

import os
import socket
import stat
from pathlib import Path

import pytest
from process.passthrough.served import PLAN, REPLIES, Served
from process.passthrough.support import Caller
from process.test_engine import alone

from ringmount.workers import abi
from ringmount.workers.api import ROOT, Handle, NodeId
from ringmount.workers.arena import Arena
from ringmount.workers.dispatch import Listing, ListingPlus
from ringmount.workers.effects import Effect


def fill(source: Path) -> None:
    source.mkdir()
    inner = source / "inner"
    inner.mkdir(mode=0o2750)
    for folder in (source, inner):
        for number in range(150):
            (folder / ("n" * (number + 1))).touch()
        os.close(os.open(os.fsencode(folder) + b"/\xff\xfe", os.O_CREAT))
        os.symlink("nowhere", folder / "symlink")
        os.mkfifo(folder / "fifo", 0o640)
        os.mknod(folder / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.link(folder / "n", folder / "link")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(folder / "socket"))


def in_c(served: Served, node: int, fh: int, plus: bool, size: int) -> bytes:
    whole, offset = b"", 0
    while part := served.list(fh, plus, node, offset, size):
        assert len(part) <= size
        whole += part
        offset = served.offset_after(part, plus)
    return whole


def in_python(served: Served, node: int, fh: int, plus: bool) -> bytes:
    buffer = memoryview(bytearray(1 << 20))
    caller, handle = Caller(), Handle(fh)
    if plus:
        out = ListingPlus(REPLIES, buffer, len(buffer), Effect(served.arena, 0))
        served.filesystem.readdirplus(caller, NodeId(node), handle, 0, out)
        return bytes(buffer[: out.size])
    listing = Listing(buffer, len(buffer))
    served.filesystem.readdir(caller, NodeId(node), handle, 0, listing)
    return bytes(buffer[: listing.size])


def without_dots(listing: bytes, plus: bool) -> list[bytes]:
    """The entries; of `.` and `..` without attributes, which the kernel does not look at (fuse_direntplus_link)."""
    skip = abi.FUSE_ENTRY_OUT.size if plus else 0
    found, at = [], 0
    while at < len(listing):
        (_, _, size, _) = abi.FUSE_DIRENT.struct.unpack_from(listing, at + skip)
        name = at + skip + abi.FUSE_DIRENT.size
        end = name + size + 7 & ~7
        dots = listing[name : name + size] in (b".", b"..")
        found.append(listing[at + skip if dots else at : end])
        at = end
    return found


@pytest.mark.root
@pytest.mark.parametrize("plus", [False, True])
def test_both_list_the_same(tmp_path: Path, plus: bool) -> None:
    def run() -> None:
        source = tmp_path / "source"
        fill(source)
        served = Served(Arena.create(PLAN, "test"), source)
        inner = served.filesystem.lookup(Caller(), ROOT, b"inner").node
        for node in (ROOT, inner):
            fh = served.opendir(node)
            expected = without_dots(in_python(served, node, fh, plus), plus)
            assert len(expected) > 150
            for size in (4096, 5000, 1 << 15, 1 << 17):
                again = served.opendir(node)
                served.filesystem.mount.nodes.verify()  # type: ignore[attr-defined]
                assert without_dots(in_c(served, node, again, plus, size), plus) == expected
                if plus:
                    break  # what was given whole is given by names alone

    alone(run)()
