"""Has the workers record what they answer while somebody looks on (native/trace.c).

The reader is the one who asked: he gets a descriptor of the arena, read-only, and the supervisor has no part in what
follows. The rule a change must keep: workers record as long as a reader is connected, and no longer.
"""

import os
from typing import Any

from ringmount.daemon.asked import Trace
from ringmount.daemon.control import LATER, Client
from ringmount.daemon.mount import Mount
from ringmount.workers._native import lib

OPCODES: int = lib.RM_OPCODES
ALL = (1 << OPCODES) - 1


class Tracing:
    """Those who look on."""

    def __init__(self, mount: Mount) -> None:
        self._mount = mount
        self._readers: dict[Client, Trace] = {}

    def trace(self, question: Trace, client: Client) -> Any:
        """The command."""
        arena = self._mount.arena
        fd = os.open(f"/proc/self/fd/{arena.fd}", os.O_RDONLY | os.O_CLOEXEC)
        client.on_gone = lambda: self._leave(client)
        self._readers[client] = question
        client.stream({"next": [arena.c.traces[index].next for index in range(arena.workers)]}, fd)
        self._apply()
        return LATER

    def _leave(self, client: Client) -> None:
        del self._readers[client]
        self._apply()

    def _apply(self) -> None:
        """Records what any of them wants."""
        readers = self._readers.values()
        self._mount.tracers = len(readers)
        opcodes = 0
        for reader in readers:
            opcodes |= sum(1 << opcode for opcode in set(reader.opcodes) if 0 <= opcode < OPCODES) or ALL
        from_ns = min((int(reader.slower_than * 1e9) for reader in readers), default=0)
        only_errors = bool(readers) and all(reader.errors for reader in readers)
        for index in range(self._mount.arena.workers):
            record = self._mount.arena.worker(index)
            record.traced_from_ns, record.traced_errors = from_ns, only_errors
            record.traced = opcodes
