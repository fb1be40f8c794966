"""Reads structs and enums from BTF, the type information that a kernel carries about itself.

Format: Documentation/bpf/btf.rst of the kernel. A blob is a header, a section of types and a section of
strings; types are numbered from 1 in the order in which they come. The blob of a module goes on where vmlinux
ends, in both numberings. Only what a comparison of layouts needs is understood: sizes, members, enumerators.
"""

import struct
from typing import NamedTuple

MAGIC = 0xEB9F
HEADER = struct.Struct("<HBBIIIII")  # magic, version, flags, hdr_len, type_off, type_len, str_off, str_len
TYPE = struct.Struct("<III")  # name_off; info: vlen 0..15, kind 24..28, kind_flag 31; size or type

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF = range(1, 9)
VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC = range(9, 16)
FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(16, 20)

TAIL = {INT: 4, ARRAY: 12, VAR: 4, DECL_TAG: 4}
"""Bytes that follow a type."""
TAIL_EACH = {STRUCT: 12, UNION: 12, ENUM: 8, FUNC_PROTO: 8, DATASEC: 12, ENUM64: 12}
"""Bytes that follow a type, times vlen."""


class Member(NamedTuple):
    offset: int
    size: int
    """Of the type. 0 for an array without a length."""


class Struct(NamedTuple):
    size: int
    members: dict[str, Member]


class _Type(NamedTuple):
    kind: int
    name: int
    vlen: int
    kind_flag: bool
    size_or_type: int
    tail: int
    """Where its further bytes are in the blob."""


class Btf:
    """One blob: /sys/kernel/btf/vmlinux, or a module's over `base`, which is vmlinux's."""

    def __init__(self, blob: bytes, base: "Btf | None" = None) -> None:
        magic, _version, _flags, header_size, types_at, types_size, strings_at, strings_size = HEADER.unpack_from(blob)
        if magic != MAGIC:
            raise ValueError(f"not BTF: magic {magic:#x}")
        self._blob = blob
        self._base = base
        self._first_type: int = base.type_end if base else 1
        self._first_string: int = base.string_end if base else 0
        self._strings_at = header_size + strings_at
        self.string_end: int = self._first_string + strings_size
        self._types: list[_Type] = []
        at = header_size + types_at
        end = at + types_size
        while at < end:
            name, info, size_or_type = TYPE.unpack_from(blob, at)
            kind, vlen = info >> 24 & 0x1F, info & 0xFFFF
            at += TYPE.size
            self._types.append(_Type(kind, name, vlen, bool(info >> 31), size_or_type, at))
            at += TAIL.get(kind, 0) + TAIL_EACH.get(kind, 0) * vlen
        self.type_end: int = self._first_type + len(self._types)

    def structs(self, *prefixes: str) -> dict[str, Struct]:
        """All structs whose names begin with one of the prefixes."""
        return {
            name: Struct(kind.size_or_type, self._members(kind))
            for kind in self._types
            if kind.kind == STRUCT and (name := self._string(kind.name)).startswith(prefixes)
        }

    def enums(self, *prefixes: str) -> dict[str, dict[str, int]]:
        """All enums of 32 bits whose names begin with one of the prefixes: their enumerators."""
        return {
            name: self._enumerators(kind)
            for kind in self._types
            if kind.kind == ENUM and (name := self._string(kind.name)).startswith(prefixes)
        }

    def _members(self, kind: _Type) -> dict[str, Member]:
        members = {}
        for index in range(kind.vlen):
            name, type_id, offset = struct.unpack_from("<III", self._blob, kind.tail + 12 * index)
            bits = offset & 0xFF_FFFF if kind.kind_flag else offset  # kind_flag: bits 24..31 size a bitfield
            members[self._string(name)] = Member(bits // 8, self._size(type_id))
        return members

    def _enumerators(self, kind: _Type) -> dict[str, int]:
        pairs = struct.iter_unpack("<Ii", self._blob[kind.tail : kind.tail + 8 * kind.vlen])
        return {self._string(name): value for name, value in pairs}

    def _size(self, type_id: int) -> int:
        owner = self
        while type_id < owner._first_type and owner._base:
            owner = owner._base
        kind = owner._types[type_id - owner._first_type]
        if kind.kind in (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG):
            return owner._size(kind.size_or_type)
        if kind.kind == ARRAY:
            element, _index_type, count = struct.unpack_from("<III", owner._blob, kind.tail)
            return owner._size(element) * int(count)
        if kind.kind == PTR:
            return 8
        return kind.size_or_type

    def _string(self, offset: int) -> str:
        owner = self
        while offset < owner._first_string and owner._base:
            owner = owner._base
        start = owner._strings_at + offset - owner._first_string
        return owner._blob[start : owner._blob.index(b"\0", start)].decode()
