"""What the kernel was given of a folder is not given to it again while it may use it."""

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from process.passthrough.served import NONE_VALID, PLAN, Served
from process.test_engine import alone

from ringmount.workers import abi
from ringmount.workers.abi import Opcode, OpenReply
from ringmount.workers.api import ROOT
from ringmount.workers.arena import Arena
from ringmount.workers.dispatch import Replies

pytestmark = pytest.mark.root

FILES = 24
CACHE_DIR = int(OpenReply.CACHE_DIR)
KEPT = CACHE_DIR | int(OpenReply.KEEP_CACHE)
SHORT = Replies((0, 2_000_000), (3600, 0), (0, 0))
LONG = Replies((3600, 0), (3600, 0), (0, 0))


def served(tmp_path: Path, test: Callable[[Served], None], replies: Replies = LONG) -> None:
    """Runs `test` in a process of its own, over a folder of FILES files that was changed a while ago."""

    def run() -> None:
        source = tmp_path / "source"
        source.mkdir()
        for number in range(FILES):
            (source / f"file{number}").touch()
        settle(source)
        test(Served(Arena.create(PLAN, "test"), source, replies))

    alone(run)()


def settle(folder: Path) -> None:
    """Waits until a change would be dated otherwise than the last one (COARSEST in native/given.c)."""
    while time.time_ns() < folder.stat().st_ctime_ns + 60_000_000:
        time.sleep(0.01)


def entries(listing: bytes) -> dict[bytes, int]:
    """Nodes by name."""
    found, at = {}, 0
    while at < len(listing):
        (node,) = struct.unpack_from("<Q", listing, at)
        (size,) = struct.unpack_from("<I", listing, at + abi.FUSE_ENTRY_OUT.size + 16)
        name = at + abi.FUSE_DIRENTPLUS.size
        found[listing[name : name + size]] = node
        at = name + size + 7 & ~7
    return found


def walk(served: Served, size: int = 1 << 16) -> tuple[int, dict[bytes, int]]:
    """Opens the root, lists it to its end and closes it: FOPEN_* and what was listed."""
    fh, flags, _ = abi.FUSE_OPEN_OUT.struct.unpack(served.opening())
    found: dict[bytes, int] = {}
    offset = 0
    while part := served.list(fh, offset=offset, size=size):
        assert not found.keys() & entries(part).keys()
        found |= entries(part)
        offset = served.offset_after(part)
    served.ask(Opcode.RELEASEDIR, ROOT, abi.FUSE_RELEASE_IN.struct.pack(fh, 0, 0, 0))
    return flags, found


def nodes(found: dict[bytes, int]) -> int:
    return sum(1 for node in found.values() if node)


@pytest.mark.parametrize("size", [4096, 1 << 16])
def test_a_folder_that_was_given_whole_is_listed_by_names_alone(tmp_path: Path, size: int) -> None:
    def test(served: Served) -> None:
        assert nodes(walk(served, size)[1]) == FILES
        for _ in range(3):
            _, found = walk(served, size)
            assert nodes(found) == 0
            assert len(found) == FILES + 2

    served(tmp_path, test)


def test_half_a_listing_is_not_whole(tmp_path: Path) -> None:
    def test(served: Served) -> None:
        fh = served.opendir()
        served.list(fh, size=1024)
        assert nodes(walk(served)[1]) == FILES

    served(tmp_path, test)


def test_names_that_are_looked_up_again_have_been_dropped(tmp_path: Path) -> None:
    def test(served: Served) -> None:
        walk(served)
        for number in range(FILES // 8 + 1):
            assert nodes(walk(served)[1]) == 0
            assert isinstance(served.ask(Opcode.LOOKUP, ROOT, payload=b"file%d\0" % number), bytes)
            served.ask(Opcode.LOOKUP, ROOT, payload=b"missing\0")
        assert nodes(walk(served)[1]) == FILES

    served(tmp_path, test)


@pytest.mark.parametrize("replies", [SHORT, NONE_VALID])
def test_what_the_kernel_may_use_no_longer_is_given_again(tmp_path: Path, replies: Replies) -> None:
    def test(served: Served) -> None:
        walk(served)
        time.sleep(0.002)  # half of what is valid shorter
        flags, found = walk(served)
        assert (flags, nodes(found)) == (0, FILES)

    served(tmp_path, test, replies)


def test_the_kernel_keeps_the_listing_of_a_folder_that_is_opened_often(tmp_path: Path) -> None:
    def test(served: Served) -> None:
        assert [walk(served)[0] for _ in range(4)] == [0, CACHE_DIR, KEPT, KEPT]

    served(tmp_path, test)


def test_a_listing_is_not_kept_over_a_change(tmp_path: Path) -> None:
    def test(served: Served) -> None:
        source = served.source
        changes: list[Callable[[], object]] = [
            (source / "new").touch,
            (source / "new").unlink,
            (source / "folder").mkdir,
            lambda: os.rename(source / "folder", source / "renamed"),
            (source / "renamed").rmdir,
            lambda: os.link(source / "file0", source / "link"),
        ]
        for change in changes:
            while walk(served)[0] != KEPT:
                pass
            before = source.stat()
            change()
            os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
            flags, found = walk(served)
            assert not flags & KEPT
            assert {os.fsdecode(name) for name in found} == {".", "..", *os.listdir(source)}

    served(tmp_path, test)


def test_a_folder_that_was_changed_a_moment_ago_is_not_kept(tmp_path: Path) -> None:
    """Whatever comes in the same tick of the clock would not be seen."""

    def test(served: Served) -> None:
        for number in range(50):
            os.rename(served.source / f"file{number % 2}", served.source / "other")
            os.rename(served.source / "other", served.source / f"file{number % 2}")
            kept = walk(served)[0] | walk(served)[0] | walk(served)[0]
            moment = time.time_ns() - served.source.stat().st_ctime_ns
            assert not kept or moment > 50_000_000

    served(tmp_path, test)


def test_an_opening_that_is_not_answered_yet_counts_for_nothing(tmp_path: Path) -> None:
    """Another worker's answer may reach the kernel first, which then would keep what it should have dropped."""

    def test(served: Served) -> None:
        while walk(served)[0] != KEPT:
            pass
        (served.source / "new").touch()
        settle(served.source)
        first = abi.FUSE_OPEN_OUT.struct.unpack(served.opening())
        second = abi.FUSE_OPEN_OUT.struct.unpack(served.opening())
        assert (first[1], second[1]) == (0, 0)

    served(tmp_path, test)
