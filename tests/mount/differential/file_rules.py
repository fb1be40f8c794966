"""Calls on open and mapped files."""

import os
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import consumes, rule
from mount.differential import values
from mount.differential.machine import Handle, Machine, Mapped, handles, mappings, or_nothing

actors = st.integers(0, 3)


class FileRules(Machine):
    """What is done with a descriptor."""

    @rule(target=handles, actor=actors, path=values.paths, flags=values.open_flags, mode=values.modes)
    def open(self, actor: int, path: bytes, flags: int, mode: int) -> Any:
        return or_nothing(self.same_open(actor, "open", path, flags, mode))

    @rule(target=handles, actor=actors, path=values.paths, access=values.ACCESS, mode=values.modes)
    def create(self, actor: int, path: bytes, access: int, mode: int) -> Any:
        return or_nothing(self.same_open(actor, "open", path, access | os.O_CREAT, mode))

    @rule(target=handles, actor=actors, path=values.paths, flags=values.tmpfile_flags, mode=values.modes)
    def open_without_name(self, actor: int, path: bytes, flags: int, mode: int) -> Any:
        return or_nothing(self.same_open(actor, "open", path, flags | os.O_TMPFILE, mode))

    @rule(target=handles, folder=handles, name=values.names, flags=values.open_flags, mode=values.modes)
    def open_in(self, folder: Handle, name: bytes, flags: int, mode: int) -> Any:
        return or_nothing(self.same_open(folder.actor, "open_in", folder.slot, name, flags, mode))

    @rule(target=handles, handle=handles, flags=values.again_flags)
    def open_again(self, handle: Handle, flags: int) -> Any:
        return or_nothing(self.same_open(handle.actor, "open_again", handle.slot, flags))

    @rule(target=handles, handle=handles)
    def dup(self, handle: Handle) -> Any:
        return or_nothing(self.same_open(handle.actor, "dup", handle.slot))

    @rule(handle=consumes(handles))
    def close(self, handle: Handle) -> None:
        self.same(handle.actor, "close", handle.slot)

    @rule(handle=handles)
    def fstat(self, handle: Handle) -> None:
        self.same(handle.actor, "fstat", handle.slot)

    @rule(handle=handles, length=values.lengths)
    def read(self, handle: Handle, length: int) -> None:
        self.same(handle.actor, "read", handle.slot, length)

    @rule(handle=handles, length=values.lengths, offset=values.offsets)
    def pread(self, handle: Handle, length: int, offset: int) -> None:
        self.same(handle.actor, "pread", handle.slot, length, offset)

    @rule(handle=handles, seed=values.seeds, length=values.lengths)
    def write(self, handle: Handle, seed: int, length: int) -> None:
        self.same(handle.actor, "write", handle.slot, seed, length)

    @rule(handle=handles, seed=values.seeds, length=values.lengths, offset=values.offsets)
    def pwrite(self, handle: Handle, seed: int, length: int, offset: int) -> None:
        self.same(handle.actor, "pwrite", handle.slot, seed, length, offset)

    @rule(handle=handles, seed=values.seeds, lengths=st.lists(values.lengths, min_size=1, max_size=3))
    def writev(self, handle: Handle, seed: int, lengths: list[int]) -> None:
        self.same(handle.actor, "writev", handle.slot, seed, lengths)

    @rule(handle=handles, pages=values.pages, page=values.pages)
    def direct_read(self, handle: Handle, pages: int, page: int) -> None:
        self.same(handle.actor, "direct_read", handle.slot, pages, page - 1)

    @rule(handle=handles, seed=values.seeds, pages=values.pages, page=values.pages)
    def direct_write(self, handle: Handle, seed: int, pages: int, page: int) -> None:
        self.same(handle.actor, "direct_write", handle.slot, seed, pages, page - 1)

    @rule(handle=handles, offset=values.offsets, whence=values.whences)
    def lseek(self, handle: Handle, offset: int, whence: int) -> None:
        assume(whence <= os.SEEK_END or (self.pair.rules.holes and not self.is_mapped(handle)))
        self.same(handle.actor, "lseek", handle.slot, offset, whence)

    @rule(handle=handles, length=values.offsets)
    def ftruncate(self, handle: Handle, length: int) -> None:
        self.same(handle.actor, "ftruncate", handle.slot, length)

    @rule(handle=handles, mode=values.fallocate_modes, offset=values.offsets, length=values.lengths)
    def fallocate(self, handle: Handle, mode: int, offset: int, length: int) -> None:
        self.same(handle.actor, "fallocate", handle.slot, mode, offset, length)

    @rule(handle=handles, data_only=st.booleans())
    def fsync(self, handle: Handle, data_only: bool) -> None:
        self.same(handle.actor, "fsync", handle.slot, data_only)

    @rule(source=handles, target_=handles, offset=values.offsets, at=values.offsets, length=values.lengths)
    def copy(self, source: Handle, target_: Handle, offset: int, at: int, length: int) -> None:
        assume(source.actor == target_.actor)
        self.same(source.actor, "copy", source.slot, offset, target_.slot, at, length)

    @rule(source=handles, target_=handles, offset=values.offsets, length=values.lengths)
    def send(self, source: Handle, target_: Handle, offset: int, length: int) -> None:
        assume(source.actor == target_.actor)
        self.same(source.actor, "send", source.slot, offset, target_.slot, length)

    @rule(handle=handles)
    def list_open(self, handle: Handle) -> None:
        self.same(handle.actor, "list_open", handle.slot)

    # --- locks -------------------------------------------------------------------------------------------------------

    @rule(
        handle=handles,
        owner=values.lock_owners,
        kind=values.lock_kinds,
        start=values.lock_starts,
        length=values.lock_lengths,
    )
    def lock(self, handle: Handle, owner: str, kind: int, start: int, length: int) -> None:
        self.same(handle.actor, "lock", handle.slot, owner, kind, start, length)
        self.same(handle.actor, "lock_in_the_way", handle.slot, owner, kind, start, length)

    @rule(handle=handles, operation=values.flocks)
    def flock(self, handle: Handle, operation: int) -> None:
        self.same(handle.actor, "flock", handle.slot, operation)

    # --- mapped files ------------------------------------------------------------------------------------------------

    @rule(target=mappings, handle=handles, pages=values.pages, writable=st.booleans(), shared=st.booleans())
    def map(self, handle: Handle, pages: int, writable: bool, shared: bool) -> Any:
        mapped = Mapped(handle.actor, self.next_number(), pages * 4096)
        if not self.same(handle.actor, "map", mapped.number, handle.slot, pages, writable, shared):
            return or_nothing(None)
        for view in self.views:
            view.mapped.add(self.objects[handle])
        return mapped

    @rule(mapped=mappings, offset=values.offsets, length=values.lengths)
    def map_read(self, mapped: Mapped, offset: int, length: int) -> None:
        offset %= mapped.length
        self.same(mapped.actor, "map_read", mapped.number, offset, min(length, mapped.length - offset))

    @rule(mapped=mappings, offset=values.offsets, seed=values.seeds, length=values.lengths)
    def map_write(self, mapped: Mapped, offset: int, seed: int, length: int) -> None:
        offset %= mapped.length
        self.same(mapped.actor, "map_write", mapped.number, offset, seed, min(length, mapped.length - offset))

    @rule(mapped=mappings)
    def msync(self, mapped: Mapped) -> None:
        self.same(mapped.actor, "msync", mapped.number)

    @rule(mapped=consumes(mappings))
    def unmap(self, mapped: Mapped) -> None:
        self.same(mapped.actor, "unmap", mapped.number)
