"""Access control lists as the extended attributes system.posix_acl_access and system.posix_acl_default hold them."""

import struct
from collections.abc import Mapping
from enum import IntEnum

ACCESS = "system.posix_acl_access"
DEFAULT = "system.posix_acl_default"

_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")
_NOBODY = 0xFFFF_FFFF


class Tag(IntEnum):
    """Whom an entry is about; `USER` and `GROUP` name somebody."""

    USER_OBJ = 0x01
    USER = 0x02
    GROUP_OBJ = 0x04
    GROUP = 0x08
    MASK = 0x10
    OTHER = 0x20


Acl = Mapping[tuple[Tag, int | None], int]
"""Permission bits, by tag and id."""


def acl(
    user: int,
    group: int,
    other: int,
    *,
    mask: int | None = None,
    users: Mapping[int, int] = {},
    groups: Mapping[int, int] = {},
) -> Acl:
    """A list of the three classes, and what is named."""
    entries: dict[tuple[Tag, int | None], int] = {(Tag.USER_OBJ, None): user}
    entries |= {(Tag.USER, uid): bits for uid, bits in sorted(users.items())}
    entries[Tag.GROUP_OBJ, None] = group
    entries |= {(Tag.GROUP, gid): bits for gid, bits in sorted(groups.items())}
    if mask is not None:
        entries[Tag.MASK, None] = mask
    entries[Tag.OTHER, None] = other
    return entries


def encode(entries: Acl) -> bytes:
    packed = (_ENTRY.pack(tag, bits, _NOBODY if who is None else who) for (tag, who), bits in entries.items())
    return _VERSION + b"".join(packed)


def decode(value: bytes) -> Acl:
    assert value[:4] == _VERSION
    return {
        (Tag(tag), who if tag in (Tag.USER, Tag.GROUP) else None): bits
        for tag, bits, who in _ENTRY.iter_unpack(value[4:])
    }
