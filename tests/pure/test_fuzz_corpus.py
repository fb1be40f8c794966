"""What the fuzzer starts from, and what it once found, goes through its target without it."""

from pathlib import Path

import pytest
from fuzz.fuzz_codec import check

from ringmount.workers import abi, codec

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
SEEDS = sorted(CORPUS.iterdir())


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.name)
def test_a_seed_is_decoded_or_refused(seed: Path) -> None:
    check(seed.read_bytes())


def test_the_fuzzer_starts_from_every_opcode() -> None:
    opcodes = set()
    for seed in SEEDS:
        try:
            opcodes.add(codec.decode_header(seed.read_bytes()).opcode)
        except codec.ShortHeader:
            pass
    assert opcodes >= set(abi.OPERATIONS)
