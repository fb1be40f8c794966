"""What the journal says of a change that cannot be made twice, and of the references in a listing.

The rule: the words are written in this order, each by one store (recovery.py says what a successor reads from them;
native/listing.c for listings).
"""

from ringmount.workers._native import ffi, lib
from ringmount.workers.api import Earlier
from ringmount.workers.arena import Arena
from ringmount.workers.nodes import INTENT

_EFFECT: int = ffi.offsetof("struct rm_journal", "effect") // 4
_RESULT: int = ffi.offsetof("struct rm_journal", "result") // 8
_BEFORE: int = ffi.offsetof("struct rm_journal", "before") // 8
_BEFORE_END: int = _BEFORE + 4
_UNDONE: int = lib.RM_UNDONE
_BEGUN: int = lib.RM_BEGUN
_DONE: int = lib.RM_DONE


class Effect:
    """One entry's part of the journal for this."""

    __slots__ = ("_journal", "_longs", "_payload", "_room", "_words")

    def __init__(self, arena: Arena, index: int) -> None:
        record = arena.journal(index)
        self._words = record.cast("I")
        self._longs = record.cast("Q")
        self._journal = arena.c.journal + index
        self._payload = arena.payload_at(index)
        self._room = arena.payload

    def begin(self, before: tuple[int, ...]) -> None:
        """The change comes next. `before`: up to four numbers of 64 bits."""
        at = _BEFORE
        for number in before:
            self._longs[at] = number
            at += 1
        self._words[_EFFECT] = _BEGUN

    def done(self, result: int) -> None:
        """The change was made."""
        self._longs[_RESULT] = result
        self._words[_EFFECT] = _DONE

    def earlier(self) -> Earlier | None:
        """What an earlier run noted, if it came that far."""
        effect = self._words[_EFFECT]
        if effect == _UNDONE:
            return None
        return Earlier(effect == _DONE, self._longs[_RESULT], tuple(self._longs[_BEFORE:_BEFORE_END]))

    def list(self) -> None:
        """A listing begins: the first reference that is taken in this context belongs to its first entry."""
        INTENT.set(lib.rm_listing_begin(self._journal, self._payload))

    def listed(self, size: int) -> None:
        """Its next entry, of `size` bytes, is there, and has the reference that was taken last."""
        INTENT.set(lib.rm_listing_add(self._journal, self._payload, self._room, size))
