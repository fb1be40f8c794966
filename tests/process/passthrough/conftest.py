"""Each test runs twice: with files that are opened by their handles, and with files that are found by name."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from process.passthrough.support import Tables, Worker, nothing_stays_open

from ringmount.workers import system

MODES = [pytest.param("by_handle", marks=pytest.mark.root), "by_name"]


def refuse(mount: int, name: bytes, flags: int) -> int:
    """open_by_handle_at(2) for an ordinary user."""
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "by_name":
        monkeypatch.setattr(system, "open_by_handle", refuse)
    return str(request.param)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    source.chmod(0o755)
    return source


@pytest.fixture
def tables() -> Tables:
    return Tables()


@pytest.fixture
def worker(mode: str, source: Path, tables: Tables) -> Iterator[Worker]:
    """A worker. At the end the kernel forgets everything, and no descriptor may be left but those of open files."""
    mask, groups = os.umask(0o022), os.getgroups()
    with nothing_stays_open():
        worker = Worker(source, tables)
        assert worker.fs.objects.identities.opens_by_handle == (mode == "by_handle")
        yield worker
        worker.forget_all()
        for handle in list(worker.mount.handles.iterate()):
            os.close(worker.mount.handles.remove(handle.fh))
        assert len(worker.fs.objects.descriptors) == 0
        worker.fs.stop()
        assert worker.mount.owned == set()
    os.umask(mask)
    assert os.getgroups() == groups
    assert (os.geteuid(), os.getegid()) == (worker.fs.credentials.uid, worker.fs.credentials.gid)
