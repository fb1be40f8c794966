"""What the workers have counted of each operation, read from the arena: no worker is asked.

A request's latency is the time from when a worker took it, out of its ring or from /dev/fuse, until its reply was
handed in (native/ring.c, count_reply). What it waited in the kernel before that, while its queue had no free entry or
its worker was busy, is not in it; what it waited in the worker behind others that came with it is.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from ringmount.workers._native import ffi, lib
from ringmount.workers.abi import Opcode
from ringmount.workers.arena import WORKER_SIZE, Arena

BUCKETS: int = lib.RM_BUCKETS
CEILINGS: tuple[int, ...] = (*(lib.rm_bucket_floor(i + 1) for i in range(BUCKETS - 1)), 1 << 63)
"""By bucket, the nanoseconds below which its latencies are: at most an eighth above each of them."""

_FIRST = ffi.offsetof("struct rm_worker", "ops") // 8
_STRIDE = ffi.sizeof("struct rm_opstats") // 8
_HEAD = _STRIDE - BUCKETS


class Operation(msgspec.Struct, frozen=True):
    """One opcode, of all workers together, since the mount was made. Times in nanoseconds; `buckets`: by number, those
    that have any."""

    opcode: str
    count: int
    errors: int
    total_ns: int
    max_ns: int
    buckets: dict[int, int]


def read(arena: Arena) -> list[Operation]:
    """The operations that were ever answered, in the order of their opcodes."""
    return list(_read(arena))


def _read(arena: Arena) -> Iterator[Operation]:
    words = arena.section("workers").cast("Q")
    records = [WORKER_SIZE // 8 * index for index in range(arena.workers)]
    for number in range(lib.RM_OPCODES):
        at = _FIRST + _STRIDE * number
        parts = [words[record + at : record + at + _STRIDE].tolist() for record in records if words[record + at]]
        if parts:
            sums = [sum(column) for column in zip(*parts, strict=True)] if len(parts) > 1 else parts[0]
            count, errors, total_ns, _ = sums[:_HEAD]
            buckets = {bucket: n for bucket, n in enumerate(sums[_HEAD:]) if n}
            yield Operation(name_of(number), count, errors, total_ns, max(part[3] for part in parts), buckets)


def name_of(opcode: int) -> str:
    """The kernel's name for it; its number for one of a later kernel."""
    try:
        return Opcode(opcode).name
    except ValueError:
        return str(opcode)


def difference(before: Operation, after: Operation) -> Operation:
    """What was added to an operation meanwhile. Its longest is not known: it is that of `after`."""
    grown = {bucket: n - before.buckets.get(bucket, 0) for bucket, n in after.buckets.items()}
    return Operation(
        after.opcode,
        max(0, after.count - before.count),
        max(0, after.errors - before.errors),
        max(0, after.total_ns - before.total_ns),
        after.max_ns,
        {bucket: n for bucket, n in grown.items() if n > 0},
    )


def quantile(operation: Operation, share: float) -> float | None:
    """The seconds that this share of the requests took at most, an eighth too many at worst; None without any."""
    total = sum(operation.buckets.values())
    reached = 0
    for bucket, n in sorted(operation.buckets.items()):
        reached += n
        if reached >= share * total:
            return min(CEILINGS[min(max(bucket, 0), BUCKETS - 1)], operation.max_ns) / 1e9
    return None


def summary(operation: Operation) -> dict[str, Any]:
    """An operation in a few numbers, times in seconds."""
    return {
        "opcode": operation.opcode,
        "count": operation.count,
        "errors": operation.errors,
        "mean": operation.total_ns / 1e9 / operation.count if operation.count else None,
        "p50": quantile(operation, 0.5),
        "p99": quantile(operation, 0.99),
        "max": operation.max_ns / 1e9,
    }
