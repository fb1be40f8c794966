"""What a filesystem gets that has some of its requests answered in C (native/fast.c): the shared tables' addresses."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ringmount.workers.dispatch import Replies


@dataclass(frozen=True)
class Tables:
    """Addresses in the arena."""

    nodes: int
    handles: int
    given: int
    opens: Any
    """A `struct rm_opens *`; NULL where no file is passed through."""
    fd_owners: int
    fd_owners_size: int
    """Its length in entries of 16 bits; 0: descriptors are not shared, and nothing is noted."""


@runtime_checkable
class Accelerated(Protocol):
    """A filesystem some of whose methods have a twin in C."""

    def accelerate(self, tables: Tables, replies: Replies) -> Any:
        """A `struct rm_fast *` that answers with these tables and timeouts, or None."""
