"""The same random calls on a mount and on a native folder have the same results.

Bounded here; with RINGMOUNT_SOAK=N in the environment, N examples are tried of each target.
"""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from mount.differential.actors import CPUS, Actor
from mount.differential.attribute_rules import AttributeRules
from mount.differential.comparison import Rules
from mount.differential.file_rules import FileRules
from mount.differential.machine import Pair
from mount.differential.name_rules import NameRules
from mount.posix.targets import MEMORY, RUN_LIMIT, tmpfs
from mount.posix.users import alice, bob, carol, root
from mount.support import TRANSPORTS, serve

STEPS = 50
SOAK = int(os.environ.get("RINGMOUNT_SOAK", "0"))
EXAMPLES = {"passthrough": 60, "memory": 40}
HAS_FINE_TIMES = tuple(map(int, platform.release().split(".")[:2])) >= (6, 13)
"""Whether two changes within a timer tick can be told apart (multigrain timestamps)."""

PATIENCE = 1e6 if SOAK else RUN_LIMIT
"""Seconds after which the server is killed."""

PATIENT = settings(
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    stateful_step_count=STEPS,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    report_multiple_bugs=False,
)


@contextlib.contextmanager
def pair(folder: Path, filesystem: str, settings: dict[str, Any]) -> Iterator[Pair]:
    """A mount beside a tmpfs, with four processes of four users on all CPUs."""
    with contextlib.ExitStack() as stack:
        native, source = (stack.enter_context(tmpfs(make(folder / name))) for name in ("native", "shown"))
        options = MEMORY if filesystem == "memory" else {"source": str(source)}
        served = stack.enter_context(
            serve(folder, filesystem=filesystem, options=options, patience=PATIENCE, **settings)
        )
        actors = []
        for number, user in enumerate((root, alice, bob, carol)):
            actors.append(Actor(user, CPUS[number % len(CPUS)]))
            stack.callback(actors[-1].end)
        rules = Rules(holes=filesystem != "memory", changes=HAS_FINE_TIMES)  # a copied hole is one in memory
        yield Pair(native, served.path, None if filesystem == "memory" else source, actors, rules)


def make(path: Path) -> Path:
    path.mkdir()
    path.chmod(0o711)
    return path


@pytest.mark.timeout(0 if SOAK else 600)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("filesystem", ["passthrough", "memory"])
def test_a_mount_and_a_native_folder_agree(filesystem: str, transport: str) -> None:
    with TemporaryDirectory(prefix="ringmount-differential-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with pair(folder, filesystem, {"transport": transport}) as both:

            class Agreement(FileRules, NameRules, AttributeRules):
                pair = both

            examples = SOAK or EXAMPLES[filesystem]
            run_state_machine_as_test(Agreement, settings=settings(PATIENT, max_examples=examples))
