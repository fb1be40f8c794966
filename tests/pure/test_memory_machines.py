"""Random operations on the memory filesystem, step by step against the simplest thing that could be right."""

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from fakes import FakeDirectoryPlusBuffer
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from pure.memory_driver import ROOT_USER, Driver, handle_of

from ringmount.workers.api import ROOT, Handle, NodeId, SetAttr
from ringmount.workers.filesystems.memory.chunks import CHUNK

PAGE = 4096
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16

offsets = st.builds(
    lambda chunk, page, byte: max(0, chunk * CHUNK + page * PAGE + byte),
    st.integers(0, 4),
    st.sampled_from([0, 0, 1, 2, 15]),
    st.integers(-2, 2),
)
lengths = st.builds(lambda length, more: max(1, length + more), offsets, st.integers(-3, 3))


@dataclass
class Contents:
    """A file as it should be: its bytes, and the numbers of the pages that are no holes."""

    node: NodeId
    data: bytearray = field(default_factory=bytearray)
    pages: set[int] = field(default_factory=set)

    def resize(self, size: int) -> None:
        if size < len(self.data):
            self.pages = {page for page in self.pages if page * PAGE < size}
        del self.data[size:]
        self.data += bytes(size - len(self.data))

    def put(self, offset: int, data: bytes) -> None:
        self.resize(max(len(self.data), offset + len(data)))
        self.data[offset : offset + len(data)] = data
        self.fill(offset, len(data))

    def fill(self, offset: int, length: int) -> None:
        self.pages.update(range(offset // PAGE, -(-(offset + length) // PAGE)))

    def blank(self, offset: int, length: int) -> None:
        part = self.data[offset : offset + length]
        self.data[offset : offset + length] = bytes(len(part))

    def punch(self, offset: int, length: int) -> None:
        self.blank(offset, length)
        self.pages -= set(range(-(-offset // PAGE), (offset + length) // PAGE))

    def runs(self, offset: int, length: int) -> list[tuple[bytes, bool]]:
        """The data and the holes in a range, in turns, and which is which."""
        found: list[tuple[bytes, bool]] = []
        end = min(offset + length, len(self.data))
        while offset < end:
            page = offset // PAGE
            stop = min((page + 1) * PAGE, end)
            part, is_hole = bytes(self.data[offset:stop]), page not in self.pages
            if found and found[-1][1] == is_hole:
                part = found.pop()[0] + part
            found.append((part, is_hole))
            offset = stop
        return found


class SparseFiles(RuleBasedStateMachine):
    """Two files that are written, cut, allocated, punched and copied; bytes and holes are always the model's."""

    def __init__(self) -> None:
        super().__init__()
        self.mem = Driver(size=1 << 30)
        self.files = [Contents(self.mem.make(b"0")), Contents(self.mem.make(b"1"))]
        self.letter = 0

    which = st.integers(0, 1)

    def ink(self, length: int) -> bytes:
        """Bytes that differ from what was written before, none of them zero."""
        self.letter = self.letter % 255 + 1
        return bytes([self.letter]) * length

    @rule(which=which, offset=offsets, length=lengths)
    def write(self, which: int, offset: int, length: int) -> None:
        file, data = self.files[which], self.ink(length)
        assert self.mem.write(file.node, offset, data) == length
        file.put(offset, data)

    @rule(which=which, size=offsets)
    def truncate(self, which: int, size: int) -> None:
        file = self.files[which]
        self.mem.setattr(file.node, SetAttr(size=size))
        file.resize(size)

    @rule(which=which, offset=offsets, length=lengths, mode=st.sampled_from([0, KEEP_SIZE]))
    def allocate(self, which: int, offset: int, length: int, mode: int) -> None:
        file = self.files[which]
        self.mem.fallocate(file.node, mode, offset, length)
        if not mode:
            file.resize(max(len(file.data), offset + length))
        file.fill(offset, length)

    @rule(which=which, offset=offsets, length=lengths, mode=st.sampled_from([ZERO_RANGE, ZERO_RANGE | KEEP_SIZE]))
    def zero(self, which: int, offset: int, length: int, mode: int) -> None:
        file = self.files[which]
        self.mem.fallocate(file.node, mode, offset, length)
        file.blank(offset, length)
        if mode == ZERO_RANGE:
            file.resize(max(len(file.data), offset + length))
        file.fill(offset, length)

    @rule(which=which, offset=offsets, length=lengths)
    def punch(self, which: int, offset: int, length: int) -> None:
        file = self.files[which]
        self.mem.fallocate(file.node, PUNCH_HOLE | KEEP_SIZE, offset, length)
        file.punch(offset, length)

    @rule(source=which, offset=offsets, offset_out=offsets, length=lengths)
    def copy(self, source: int, offset: int, offset_out: int, length: int) -> None:
        one, two = self.files[source], self.files[1 - source]
        count = self.mem.fs.copy_file_range(
            ROOT_USER, one.node, Handle(0), offset, two.node, Handle(0), offset_out, length, 0
        )
        for part, is_hole in one.runs(offset, length):
            if is_hole:
                two.punch(offset_out, len(part))
                two.resize(max(len(two.data), offset_out + len(part)))
            else:
                two.put(offset_out, part)
            offset_out += len(part)
            count -= len(part)
        assert count == 0

    @rule(which=which, offset=offsets, length=lengths)
    def read(self, which: int, offset: int, length: int) -> None:
        file = self.files[which]
        assert self.mem.read(file.node, offset, length) == file.data[offset : offset + length]

    @rule(which=which, offset=offsets)
    def seek(self, which: int, offset: int) -> None:
        file = self.files[which]
        size = len(file.data)
        places = [offset, *(page * PAGE for page in range(offset // PAGE + 1, size // PAGE + 1))]
        expected = {
            os.SEEK_DATA: next((at for at in places if at < size and at // PAGE in file.pages), None),
            os.SEEK_HOLE: next((at for at in places if at // PAGE not in file.pages), size) if offset < size else None,
        }
        for whence, place in expected.items():
            if place is None:
                with pytest.raises(OSError, match=f"Errno {errno.ENXIO}"):
                    self.mem.seek(file.node, offset, whence)
            else:
                assert self.mem.seek(file.node, offset, whence) == min(place, size)

    @invariant()
    def contents_are_the_model_s(self) -> None:
        for file in self.files:
            assert self.mem.attr(file.node).st_size == len(file.data)
            assert self.mem.read(file.node, 0, len(file.data) + 10) == file.data

    @invariant()
    def space_is_what_the_chunks_take(self) -> None:
        total = 0
        for file in self.files:
            assert self.mem.attr(file.node).st_blocks * 512 == len(file.pages) * PAGE
            for number, chunk in self.mem.fs._file(file.node).chunks._chunks.items():
                pages = [page - 16 * number for page in file.pages if page // 16 == number]
                assert len(chunk) == (max(pages) + 1) * PAGE, "it ends with a page that was written"
                total += len(chunk)
        assert self.mem.fs.space.used == total

    def teardown(self) -> None:
        for name in self.mem.names():
            self.mem.unlink(name)
        self.mem.kernel.forget_all()
        assert (self.mem.fs.space.used, self.mem.fs.space.inodes_used) == (0, 1)


SparseFiles.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestSparseFiles = SparseFiles.TestCase


@dataclass(eq=False)
class Thing:
    """An object of the model: a folder if it has `names`."""

    node: NodeId
    names: "dict[bytes, Thing] | None" = None
    parent: "Thing | None" = None
    links: int = 1


names = st.sampled_from([b"a", b"b", b"c"])
NOREPLACE, EXCHANGE = 1, 2


class Tree(RuleBasedStateMachine):
    """Names that are made, linked, moved and removed; every answer and every count is the model's."""

    things: Bundle[Thing] = Bundle("things")

    def __init__(self) -> None:
        super().__init__()
        self.mem = Driver()
        self.root = Thing(ROOT, {})
        self.root.parent = self.root

    @initialize(target=things)
    def start(self) -> Thing:
        return self.root

    def errno_of(self, call: Callable[[], object]) -> int:
        try:
            call()
        except OSError as error:
            return error.errno or -1
        return 0

    def is_within(self, thing: Thing, other: Thing) -> bool:
        while thing is not other and thing is not self.root:
            assert thing.parent
            thing = thing.parent
        return thing is other

    def expect_new(self, parent: Thing, name: bytes) -> int:
        if parent.names is None:
            return errno.ENOTDIR
        if not parent.links:
            return errno.ENOENT
        return errno.EEXIST if name in parent.names else 0

    def put(self, parent: Thing, name: bytes, thing: Thing) -> None:
        assert parent.names is not None
        parent.names[name] = thing
        if thing.names is not None:
            thing.parent = parent

    @rule(target=things, parent=things, name=names, folder=st.booleans())
    def make(self, parent: Thing, name: bytes, folder: bool) -> Thing:
        if expected := self.expect_new(parent, name):
            call = (lambda: self.mem.mkdir(name, parent.node)) if folder else (lambda: self.mem.make(name, parent.node))
            # create() of a name that exists opens it: mknod() is the one that insists.
            if expected == errno.EEXIST and not folder:
                call = lambda: self.mem.mknod(name, stat.S_IFREG, parent=parent.node)  # noqa: E731
            assert self.errno_of(call) == expected
            return self.root
        if folder:
            thing = Thing(self.mem.mkdir(name, parent.node), {})
        else:
            thing = Thing(self.mem.make(name, parent.node, data=b"x"))
        self.put(parent, name, thing)
        return thing

    @rule(thing=things, parent=things, name=names)
    def link(self, thing: Thing, parent: Thing, name: bytes) -> None:
        expected = self.expect_new(parent, name)
        if thing.names is not None:
            expected = errno.EPERM
        elif not expected and not thing.links:
            expected = errno.ENOENT
        assert self.errno_of(lambda: self.mem.link(thing.node, name, parent.node)) == expected
        if not expected:
            thing.links += 1
            self.put(parent, name, thing)

    @rule(parent=things, name=names)
    def unlink(self, parent: Thing, name: bytes) -> None:
        thing = (parent.names or {}).get(name)
        expected = 0
        if parent.names is None:
            expected = errno.ENOTDIR
        elif thing is None:
            expected = errno.ENOENT
        elif thing.names is not None:
            expected = errno.EISDIR
        assert self.errno_of(lambda: self.mem.unlink(name, parent.node)) == expected
        if not expected and thing and parent.names:
            thing.links -= 1
            del parent.names[name]

    @rule(parent=things, name=names)
    def rmdir(self, parent: Thing, name: bytes) -> None:
        thing = (parent.names or {}).get(name)
        expected = 0
        if parent.names is None or (thing is not None and thing.names is None):
            expected = errno.ENOTDIR
        elif thing is None:
            expected = errno.ENOENT
        elif thing.names:
            expected = errno.ENOTEMPTY
        assert self.errno_of(lambda: self.mem.rmdir(name, parent.node)) == expected
        if not expected and thing and parent.names:
            thing.links = 0
            del parent.names[name]

    def expect_rename(self, old: Thing, name: bytes, new: Thing, new_name: bytes, flags: int) -> int:
        """The error, if any. Where several are right the filesystem's choice is the kernel's."""
        if old.names is None:
            return errno.ENOTDIR
        thing = old.names.get(name)
        if thing is None:
            return errno.ENOENT
        if new.names is None:
            return errno.ENOTDIR
        target = new.names.get(new_name)
        if not new.links or (flags == EXCHANGE and target is None):
            return errno.ENOENT
        if flags == NOREPLACE and target is not None:
            return errno.EEXIST
        if target is thing:
            return 0
        if thing.names is not None and self.is_within(new, thing):
            return errno.EINVAL
        if flags == EXCHANGE:
            assert target
            return errno.EINVAL if target.names is not None and self.is_within(old, target) else 0
        if target is not None and target.names is not None:
            if thing.names is None:
                return errno.EISDIR
            return errno.ENOTEMPTY if target.names else 0
        return errno.ENOTDIR if target is not None and thing.names is not None else 0

    @rule(old=things, name=names, new=things, new_name=names, flags=st.sampled_from([0, 0, NOREPLACE, EXCHANGE]))
    def rename(self, old: Thing, name: bytes, new: Thing, new_name: bytes, flags: int) -> None:
        expected = self.expect_rename(old, name, new, new_name, flags)
        got = self.errno_of(lambda: self.mem.rename(name, new_name, parent=old.node, new_parent=new.node, flags=flags))
        assert got == expected
        if expected:
            return
        assert old.names is not None
        assert new.names is not None
        thing, target = old.names[name], new.names.get(new_name)
        if target is thing:
            return
        if flags == EXCHANGE and target:
            self.put(old, name, target)
        else:
            del old.names[name]
            if target is not None:
                target.links = 0 if target.names is not None else target.links - 1
        self.put(new, new_name, thing)

    @rule(thing=things)
    def forget(self, thing: Thing) -> None:
        """What has no name goes for good; what has one is found again."""
        if thing.links:
            self.mem.kernel.forget(thing.node)

    @invariant()
    def the_trees_are_one(self) -> None:
        self.compare(self.root)

    def compare(self, folder: Thing) -> None:
        assert folder.names is not None
        assert folder.parent is not None
        out = FakeDirectoryPlusBuffer(self.mem.kernel)
        self.mem.fs.readdirplus(ROOT_USER, folder.node, handle_of(folder.node), 0, out)
        shown = {name: entry for name, entry, _ in out.entries}
        assert shown.pop(b".").attr is self.mem.fs.getattr(ROOT_USER, folder.node, None)
        assert shown.pop(b"..").attr is self.mem.fs.getattr(ROOT_USER, folder.parent.node, None)
        assert {name: entry.node for name, entry in shown.items()} == {
            name: thing.node for name, thing in folder.names.items()
        }
        inner = [thing for thing in folder.names.values() if thing.names is not None]
        assert self.mem.attr(folder.node).st_nlink == 2 + len(inner)
        for thing in folder.names.values():
            if thing.names is None:
                assert self.mem.attr(thing.node).st_nlink == thing.links
            else:
                self.compare(thing)

    def teardown(self) -> None:
        self.remove_all(self.root)
        self.mem.kernel.forget_all()
        assert (self.mem.fs.space.used, self.mem.fs.space.inodes_used) == (0, 1)
        assert list(self.mem.fs._inodes) == [ROOT]
        assert self.mem.attr(ROOT).st_nlink == 2

    def remove_all(self, folder: Thing) -> None:
        assert folder.names is not None
        for name, thing in folder.names.items():
            if thing.names is None:
                self.mem.unlink(name, folder.node)
            else:
                self.remove_all(thing)
                self.mem.rmdir(name, folder.node)


Tree.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestTree = Tree.TestCase
