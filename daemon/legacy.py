"""The legacy path: what the kernel says by read() on /dev/fuse although requests go over the rings.

FORGET and BATCH_FORGET give node references back, INTERRUPT says that a request's caller got a signal. Somebody must
read them for as long as the mount lives: forgets pile up in kernel memory. Bytes to values, no I/O.
"""

from dataclasses import dataclass
from typing import TypeAlias

from ringmount.workers import codec
from ringmount.workers.abi import Opcode


@dataclass(frozen=True)
class Forgets:
    """References given back: (nodeid, how many)."""

    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Interrupted:
    """The caller of the request with this unique got a signal."""

    unique: int


@dataclass(frozen=True)
class Unexpected:
    """Something else: a request that came before the rings were ready, or a kernel newer than us."""

    header: codec.Header


Legacy: TypeAlias = Forgets | Interrupted | Unexpected


def parse(message: memoryview) -> Legacy:
    """One message read from /dev/fuse. Raises codec.DecodeError."""
    header_bytes, op_in, payload = codec.split_legacy(message)
    header = codec.decode_header(header_bytes)
    if header.opcode == Opcode.FORGET:
        (count,) = codec.decode(header.opcode, header.total_extlen, op_in, payload)
        assert isinstance(count, int)
        return Forgets(((header.nodeid, count),))
    if header.opcode == Opcode.BATCH_FORGET:
        fields = codec.decode(header.opcode, header.total_extlen, op_in, payload)
        pairs = fields[-1]
        assert isinstance(pairs, tuple)
        return Forgets(pairs)
    if header.opcode == Opcode.INTERRUPT:
        (unique,) = codec.decode(header.opcode, header.total_extlen, op_in, payload)
        assert isinstance(unique, int)
        return Interrupted(unique)
    return Unexpected(header)
