"""What a mount's supervisors have counted since it was made: in the arena, so that it outlives each of them."""

from collections.abc import Iterator, MutableMapping

from ringmount.workers.arena import Arena

NAMES = (
    "forgets",
    "interrupts",
    "notifications",
    "nudges",
    "hangs",
    "unexpected",
    "strays",
    "memory",
    "faults",
    "unkept",
)
"""In the order of the arena, to which a name can only be added. `forgets`: references that the kernel gave back;
`interrupts`: calls that were interrupted; `notifications`: to the kernel; `nudges`: requests made to have others handed
out; `hangs`: workers replaced because a request hung; `unexpected`: messages on /dev/fuse that belong to no supervisor;
`strays`: descriptors of dead workers closed; `memory`: workers replaced because of their memory;
`faults`: errors in the supervisor's loop, which went on; `unkept`: times that there was no room to keep descriptors of
open files."""


class Counts(MutableMapping[str, int]):
    """The counters of an arena, by name."""

    def __init__(self, arena: Arena) -> None:
        self._words = arena.counts

    def __getitem__(self, name: str) -> int:
        return self._words[NAMES.index(name)]

    def __setitem__(self, name: str, count: int) -> None:
        self._words[NAMES.index(name)] = count

    def __delitem__(self, name: str) -> None:
        raise TypeError("a counter cannot be taken away")

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)
