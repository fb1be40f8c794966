"""The stacks that workers write, as the supervisor reads them."""

import random

from ringmount.daemon.insight import stacks_in


def test_the_last_whole_stack_of_each_thread_is_taken() -> None:
    text = (
        '@7\nStack (most recent call first):\n  File "a", line 1 in f\n  File "b", line 2 in g\n!7\n'
        '@8\n!8\n@7\nStack (most recent call first):\n  File "c", line 3 in h\n!7\n@9\n  File "d"'
    )
    assert stacks_in(text) == {7: ['File "c", line 3 in h'], 8: []}
    assert stacks_in("") == {}


def test_whatever_a_worker_writes_is_read_at_once() -> None:
    stacks_in("@1\n" * 100_000)
    stacks_in("!" + "9" * 250_000 + "\n")
    stacks_in("!\u00b2\n!\u0663\n")
    words = ["@1\n", "!1\n", "  File\n", "!", "@", "\n", "!99999999999999\n", "x"]
    for seed in range(100):
        stacks_in("".join(random.Random(seed).choices(words, k=200)))
