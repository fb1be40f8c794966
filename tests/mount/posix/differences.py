"""What differs from a kernel filesystem by nature: the tests that show it must fail there, and this table says why."""

from typing import NamedTuple

from mount.posix.targets import Place


class Difference(NamedTuple):
    """Where an expected failure is expected.

    `test` is "module::function", both without "test_"; `kind` the target's; `only` the id of a test's other parameters.
    """

    test: str
    kind: str
    reason: str
    only: str | None = None

    def concerns(self, module: str, function: str, place: Place, parameters: str) -> bool:
        return (
            f"test_{self.test.replace('::', '::test_')}" == f"{module}::{function}"
            and place.kind == self.kind
            and self.only in (None, parameters)
        )


NOT_TOLD_OF_READS = "the kernel keeps this filesystem's pages, and reads that it answers from there change no atime"
SOURCE_STAYS_CACHED = (
    "after a copy the kernel forgets the attributes of the target only: the source's new atime shows when they expire"
)
NO_SHIFTS = "fuse_file_fallocate() in the kernel passes on no modes but KEEP_SIZE, PUNCH_HOLE and ZERO_RANGE"
TRUNCATED_BY_OPEN = (
    "with FUSE_ATOMIC_O_TRUNC the kernel asks for truncation before it looks whether the file is executed"
)
SETUID_IS_CLEARED = (
    "fuse_setattr() in the kernel says not which bits are to go: it may be a write of a stranger that is announced"
)

INHERENT: tuple[Difference, ...] = (
    Difference("timestamps::reading_changes_atime", "memory", NOT_TOLD_OF_READS, "read"),
    Difference("timestamps::reading_changes_atime", "memory", NOT_TOLD_OF_READS, "preadv"),
    Difference("timestamps::a_copy_reads_one_file_and_writes_the_other", "memory", SOURCE_STAYS_CACHED),
    Difference("timestamps::a_copy_reads_one_file_and_writes_the_other", "passthrough", SOURCE_STAYS_CACHED),
    Difference("allocation::a_range_is_taken_out_and_put_in", "passthrough", NO_SHIFTS),
    Difference("open::a_running_program_is_not_emptied_by_who_opens_it_for_reading", "memory", TRUNCATED_BY_OPEN),
    Difference("open::a_running_program_is_not_emptied_by_who_opens_it_for_reading", "passthrough", TRUNCATED_BY_OPEN),
    Difference("chown::a_stranger_who_changes_nothing_may_not_clear_setuid", "memory", SETUID_IS_CLEARED),
    Difference("chown::a_stranger_who_changes_nothing_may_not_clear_setuid", "passthrough", SETUID_IS_CLEARED),
)
