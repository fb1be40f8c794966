"""The targets, mounted from the first test that needs them to the last of this folder; a folder for each test."""

import contextlib
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from mount.posix.differences import INHERENT
from mount.posix.kinds import make_folder
from mount.posix.targets import PLACES, Place, Target, parameters

HERE = Path(__file__).parent


class Targets:
    """The targets that are mounted."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._mounted: dict[Place, Target] = {}
        self._failed: dict[Place, Exception] = {}
        self._folders = 0

    def get(self, place: Place) -> Target:
        """Mounts the target if it is not yet; if that failed once, it is not tried again."""
        if place in self._failed:
            raise self._failed[place]
        if place not in self._mounted:
            try:
                self._mounted[place] = self._mount(place)
            except Exception as error:
                self._failed[place] = error
                raise
        return self._mounted[place]

    def _mount(self, place: Place) -> Target:
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix=f"ringmount-{place}-")))
        folder.chmod(0o711)  # pytest's own are closed to other users
        return self._stack.enter_context(place.mounted(folder))

    def fresh_folder(self, target: Target) -> Path:
        """A new folder, in which everybody may make things."""
        self._folders += 1
        return make_folder(target.root / f"t{self._folders}", 0o777)

    def close(self) -> None:
        self._mounted.clear()
        self._stack.close()


TARGETS = Targets()


@pytest.fixture(params=parameters(PLACES))
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """Where the test runs."""
    target = TARGETS.get(request.param)
    with target.deadline():
        yield target


@pytest.fixture
def folder(target: Target) -> Iterator[Path]:
    """An empty folder of root's on the target, with mode 0777 (not sticky)."""
    path = TARGETS.fresh_folder(target)
    yield path
    shutil.rmtree(path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    yield
    if nextitem is None or HERE not in nextitem.path.parents:
        TARGETS.close()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks what differs by nature as an expected failure."""
    if not isinstance(item, pytest.Function) or "target" not in item.fixturenames:
        return
    place = item.callspec.params["target"]
    assert isinstance(place, Place)
    parameters = item.callspec.id.replace(str(place), "").strip("-")
    for difference in INHERENT:
        if difference.concerns(item.path.stem, item.originalname, place, parameters):
            item.add_marker(pytest.mark.xfail(reason=difference.reason, strict=True))
