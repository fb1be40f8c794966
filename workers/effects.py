"""What the journal says of a change that cannot be made twice, and of the references in a listing.

The rule: the words are written in this order, each by one store (recovery.py says what a successor reads from them).
"""

from ringmount.workers._native import ffi, lib
from ringmount.workers.api import Earlier

_EFFECT: int = ffi.offsetof("struct rm_journal", "effect") // 4
_LISTED: int = ffi.offsetof("struct rm_journal", "listed") // 4
_SIZE: int = ffi.offsetof("struct rm_journal", "size") // 4
_INTENT: int = ffi.offsetof("struct rm_journal", "intent") // 8
_RESULT: int = ffi.offsetof("struct rm_journal", "result") // 8
_BEFORE: int = ffi.offsetof("struct rm_journal", "before") // 8
_BEFORE_END: int = _BEFORE + 4
_UNDONE: int = lib.RM_UNDONE
_BEGUN: int = lib.RM_BEGUN
_DONE: int = lib.RM_DONE


class Effect:
    """One entry's part of the journal for this (`record`: a struct rm_journal)."""

    __slots__ = ("_longs", "_words")

    def __init__(self, record: memoryview) -> None:
        self._words = record.cast("I")
        self._longs = record.cast("Q")

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

    def listed(self, size: int) -> None:
        """A listing has `size` bytes: the reference that was taken last belongs to what is in it."""
        self._words[_SIZE] = size
        self._longs[_INTENT] = 0
        self._words[_LISTED] = size
