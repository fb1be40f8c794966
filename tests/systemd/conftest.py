"""One box for the tests of a file: it boots in half a second, and what a test leaves in it is another's to meet."""

from collections.abc import Iterator

import pytest
from systemd.box import Box, booted, lack_of_box

WHY = "needs a systemd that can be PID 1 of a namespace, and a writable cgroup2"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "systemd" in item.path.parts:
            item.add_marker(pytest.mark.may_skip(WHY))


@pytest.fixture(scope="module")
def empty_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box without anything of ours in it."""
    if reason := lack_of_box():
        pytest.skip(reason)
    with booted(tmp_path_factory.mktemp("box")) as box:
        yield box


@pytest.fixture(scope="module")
def box(empty_box: Box) -> Box:
    """A box with the units installed."""
    empty_box.install_units()
    return empty_box
