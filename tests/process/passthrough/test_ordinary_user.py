"""An ordinary user's mount: the tests here once more, by a user without capabilities."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NOBODY = 65534


@pytest.fixture
def home() -> Iterator[str]:
    """A folder of that user's. Not pytest's own, which every run makes private anew."""
    with tempfile.TemporaryDirectory(prefix="ringmount-") as home:
        os.chown(home, NOBODY, NOBODY)
        yield home


@pytest.mark.root
def test_without_privileges_all_but_roots_own_works(home: str) -> None:
    tests = [HERE, HERE.parent / "test_system.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={home}/tests"]
    environment = {name: value for name, value in os.environ.items() if name != "RINGMOUNT_REQUIRE_RING"}
    done = subprocess.run(
        [*command, "-k", "not deeper", *map(str, tests)],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        env=environment | {"HOME": home},
        cwd=HERE.parents[2],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
