"""One box for the tests of a file: it boots in half a second, and what a test leaves in it is another's to meet."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from systemd.box import Box, booted, lack_of_box
from systemd.deb import finish_build, lack_of_deb, start_build

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


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The Debian package twice, by different umasks, in different folders and time zones."""
    if reason := lack_of_deb():
        pytest.skip(reason)
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    builds = [start_build(one, 0o022), start_build(other, 0o077, TZ="Asia/Tokyo", TMPDIR=str(other), LANG="C")]
    first, second = (finish_build(building) for building in builds)
    return first, second
