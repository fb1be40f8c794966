"""Notifications for the kernel, as filesystems send them: to the supervisor, whose notifier writes them.

A process that answers requests must never write a notification itself: INVAL_INODE waits for a page that an unanswered
READ holds, INVAL_ENTRY for the folder's lock that an unanswered LOOKUP holds. So a worker only hands them over.
"""

from collections.abc import Callable

from ringmount.workers import codec
from ringmount.workers.abi import InvalEntryFlags
from ringmount.workers.api import NodeId

MAX_STORE = 32 << 10
"""Data bytes in one STORE: it has to fit into one packet of a channel."""


class Notifier:
    """`ringmount.workers.api.Notify` over a function that hands a notification's bytes to the supervisor."""

    def __init__(self, hand_over: Callable[[bytes], None]) -> None:
        self._hand_over = hand_over

    def inval_inode(self, node: NodeId, offset: int = 0, length: int = 0) -> None:
        self._hand_over(codec.notify_inval_inode(node, offset, length))

    def inval_entry(self, parent: NodeId, name: bytes, expire_only: bool = False) -> None:
        flags = int(InvalEntryFlags.EXPIRE_ONLY) if expire_only else 0
        self._hand_over(codec.notify_inval_entry(parent, name, flags))

    def delete(self, parent: NodeId, child: NodeId, name: bytes) -> None:
        self._hand_over(codec.notify_delete(parent, child, name))

    def store(self, node: NodeId, offset: int, data: bytes) -> None:
        for at in range(0, len(data), MAX_STORE):
            self._hand_over(codec.notify_store(node, offset + at, data[at : at + MAX_STORE]))

    def poll(self, kh: int) -> None:
        self._hand_over(codec.notify_poll(kh))
