"""Listings that the kernel keeps, and names that it has: they cost no requests, and no change is missed."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mount.clients import wait_for
from mount.support import TRANSPORTS, ServedMount, serve

FILES = 300
LONG = {"attr": 3600, "entry": 3600}


@pytest.fixture(scope="module", params=TRANSPORTS)
def kept(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServedMount, Path]]:
    """A mount that may cache for an hour, and the folder beneath."""
    tmp_path = tmp_path_factory.mktemp("kept")
    source = tmp_path / "source"
    source.mkdir()
    for number in range(FILES):
        (source / f"file{number}").touch()
    options = {"source": str(source)}
    with serve(tmp_path, filesystem="passthrough", options=options, transport=request.param, timeouts=LONG) as mount:
        yield mount, source


def listed(mount: ServedMount) -> set[str]:
    """What is in the mount, each looked at."""
    with os.scandir(mount.path) as found:
        return {entry.name for entry in found if entry.stat(follow_symlinks=False).st_nlink}


def is_kept(mount: ServedMount) -> bool:
    """Whether a listing takes no requests but those that open and close the folder."""
    before = sum(mount.requests())
    listed(mount)
    return sum(mount.requests()) <= before + 2


def settle(mount: ServedMount) -> None:
    """Most likely the kernel keeps the listing then."""
    for _ in range(4):
        listed(mount)
        time.sleep(0.02)  # a folder that was changed a moment ago is not kept


def test_a_folder_that_is_listed_again_takes_no_requests(kept: tuple[ServedMount, Path]) -> None:
    mount, source = kept
    assert listed(mount) == set(os.listdir(source))
    wait_for(lambda: is_kept(mount), "the kernel to keep the listing", 60)
    assert listed(mount) == set(os.listdir(source))


def test_a_change_beneath_is_seen_at_the_next_opening(kept: tuple[ServedMount, Path]) -> None:
    mount, source = kept
    changes: list[Callable[[], object]] = [
        (source / "beneath").touch,
        lambda: os.rename(source / "beneath", source / "renamed"),
        (source / "renamed").unlink,
        (source / "folder").mkdir,
    ]
    for change in changes:
        settle(mount)
        change()
        assert set(os.listdir(mount.path)) == set(os.listdir(source))
        assert listed(mount) == set(os.listdir(source))


def test_a_change_through_the_mount_is_seen_within_one_opening(kept: tuple[ServedMount, Path]) -> None:
    mount, source = kept
    settle(mount)
    fd = os.open(mount.path, os.O_RDONLY)
    try:
        assert set(os.listdir(fd)) == set(os.listdir(source))
        (mount.path / "new").touch()
        (mount.path / "file7").unlink()
        assert set(os.listdir(fd)) == set(os.listdir(source))
    finally:
        os.close(fd)


def test_names_come_back_after_the_kernel_has_dropped_them(kept: tuple[ServedMount, Path]) -> None:
    mount, source = kept
    for _ in range(3):
        settle(mount)
        Path("/proc/sys/vm/drop_caches").write_text("2\n")
        assert listed(mount) == set(os.listdir(source))
