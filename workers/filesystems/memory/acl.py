"""Access control lists (acl(5)): the bytes of the system.posix_acl_* attributes, and what they do to modes.

The kernel grants and refuses by them; keeping them and the mode in step is the filesystem's work. The bytes
are those of linux/posix_acl_xattr.h: a version (u32), then entries of tag (u16), permissions (u16), id (u32).
"""

import errno
import struct
from collections.abc import Callable
from typing import NamedTuple

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"
NAMES = (ACCESS, DEFAULT)

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
"""Tags: the owner, a user, the owning group, a group, the most that users and groups get, the others."""

_VERSION = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_SHIFTS = {USER_OBJ: 6, GROUP_OBJ: 3, MASK: 3, OTHER: 0}
"""Where the permissions of a tag stand in a mode. With a MASK entry, the mode's group bits are its."""


class Rule(NamedTuple):
    """An entry: the `permissions` (4, 2, 1) of what the tag and, for a user or group, its `id` name."""

    tag: int
    permissions: int
    id: int


Acl = tuple[Rule, ...]


def decode(value: bytes) -> Acl:
    """Raises OSError EINVAL for what is no list."""
    if len(value) < _VERSION.size or (len(value) - _VERSION.size) % _ENTRY.size:
        raise OSError(errno.EINVAL, "not an access control list")
    rules = tuple(Rule(*fields) for fields in _ENTRY.iter_unpack(value[_VERSION.size :]))
    tags = [rule.tag for rule in rules]
    once = all(tags.count(tag) == 1 for tag in (USER_OBJ, GROUP_OBJ, OTHER))
    if _VERSION.unpack_from(value)[0] != 2 or (rules and not once) or any(r.permissions > 7 for r in rules):
        raise OSError(errno.EINVAL, "not an access control list")
    return rules


def encode(acl: Acl) -> bytes:
    """The attribute's bytes."""
    return _VERSION.pack(2) + b"".join(_ENTRY.pack(*rule) for rule in acl)


def is_minimal(acl: Acl) -> bool:
    """Whether the list says no more than a mode does."""
    return all(rule.tag in (USER_OBJ, GROUP_OBJ, OTHER) for rule in acl)


def to_mode(acl: Acl, mode: int) -> int:
    """`mode` with the permissions of the list."""
    bits = 0
    for rule in acl:
        if rule.tag in _mode_tags(acl):
            bits |= rule.permissions << _SHIFTS[rule.tag]
    return mode & ~0o777 | bits


def with_mode(acl: Acl, mode: int) -> Acl:
    """The list after chmod(2)."""
    return _mapped(acl, lambda rule, shift: mode >> shift & 7)


def inherited(acl: Acl, mode: int) -> Acl:
    """The list of an object made with `mode` in a folder that has this default list."""
    return _mapped(acl, lambda rule, shift: rule.permissions & mode >> shift)


def _mode_tags(acl: Acl) -> tuple[int, int, int]:
    has_mask = any(rule.tag == MASK for rule in acl)
    return USER_OBJ, MASK if has_mask else GROUP_OBJ, OTHER


def _mapped(acl: Acl, permissions: Callable[[Rule, int], int]) -> Acl:
    tags = _mode_tags(acl)
    return tuple(
        rule._replace(permissions=permissions(rule, _SHIFTS[rule.tag])) if rule.tag in tags else rule for rule in acl
    )
