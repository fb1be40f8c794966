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
EXAMPLES = 30
SOAK = int(os.environ.get("RINGMOUNT_SOAK", "0"))
PATIENCE = 1e6 if SOAK else RUN_LIMIT
"""Seconds after which the server is killed."""

HAS_FINE_TIMES = tuple(map(int, platform.release().split(".")[:2])) >= (6, 13)
"""Whether two changes within a timer tick can be told apart (multigrain timestamps)."""

MOUNTS: dict[str, dict[str, Any]] = {
    "passthrough": {"filesystem": "passthrough"},
    "passthrough that is asked each time": {
        "filesystem": "passthrough",
        "timeouts": {"attr": 0, "entry": 0, "negative": 0},
        "cache": "none",
    },
    "memory": {"filesystem": "memory", "options": MEMORY},
}

RANDOM = settings(
    max_examples=SOAK or EXAMPLES,
    stateful_step_count=STEPS,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    print_blob=True,
)


@contextlib.contextmanager
def pair(folder: Path, mount: dict[str, Any]) -> Iterator[Pair]:
    """A mount beside a tmpfs, with four processes of four users on all CPUs."""
    is_memory = mount["filesystem"] == "memory"
    with contextlib.ExitStack() as stack:
        native, source = (stack.enter_context(tmpfs(make(folder / name))) for name in ("native", "shown"))
        served = stack.enter_context(serve(folder, patience=PATIENCE, **({"options": {"source": str(source)}} | mount)))
        actors = []
        for number, user in enumerate((root, alice, bob, carol)):
            actors.append(Actor(user, CPUS[number % len(CPUS)]))
            stack.callback(actors[-1].end)
        rules = Rules(holes=not is_memory, changes=HAS_FINE_TIMES)  # a copied hole is one in memory
        yield Pair(native, served.path, None if is_memory else source, actors, rules)


def make(path: Path) -> Path:
    path.mkdir()
    path.chmod(0o711)
    return path


@pytest.mark.timeout(0 if SOAK else 600)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("mount", MOUNTS.values(), ids=MOUNTS)
def test_a_mount_and_a_native_folder_agree(mount: dict[str, Any], transport: str) -> None:
    with TemporaryDirectory(prefix="ringmount-differential-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with pair(folder, mount | {"transport": transport}) as both:

            class Agreement(FileRules, NameRules, AttributeRules):
                pair = both

            run_state_machine_as_test(Agreement, settings=RANDOM)
