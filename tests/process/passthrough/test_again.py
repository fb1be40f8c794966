"""A worker that dies right before a change's system call, or right after it and before the note of it: the second run
of the request succeeds, and the change was made once."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from process.passthrough.support import Caller, Tables, Worker

from ringmount.workers.api import ROOT, Handle, NodeId


class Death(BaseException):
    """The worker dies here."""


class Mortal(Caller):
    """A request whose worker dies `before` its change, or else after it."""

    def __init__(self, before: bool) -> None:
        super().__init__()
        self.before = before

    def begin(self, *before: int) -> None:
        super().begin(*before)
        if self.before:
            raise Death

    def done(self, result: int = 0) -> None:
        raise Death


def second_run(first: Caller) -> Caller:
    """What a successor's run of the request is given."""
    caller = Caller()
    caller.earlier = caller.noted = first.noted
    return caller


Change = Callable[[Worker, Caller], object]

CHANGES: dict[str, Change] = {
    "symlink": lambda w, c: w.fs.symlink(c, ROOT, b"new", b"target"),
    "mknod": lambda w, c: w.fs.mknod(c, ROOT, b"new", stat.S_IFIFO | 0o640, 0),
    "mkdir": lambda w, c: w.fs.mkdir(c, ROOT, b"new", 0o750),
    "link": lambda w, c: w.fs.link(c, w.node(b"file"), ROOT, b"new"),
    "unlink": lambda w, c: w.fs.unlink(c, ROOT, b"file"),
    "rmdir": lambda w, c: w.fs.rmdir(c, ROOT, b"folder"),
    "rename": lambda w, c: w.fs.rename(c, ROOT, b"file", ROOT, b"new", 0),
    "replace": lambda w, c: w.fs.rename(c, ROOT, b"file", ROOT, b"other", 0),
    "no_replace": lambda w, c: w.fs.rename(c, ROOT, b"file", ROOT, b"new", 1),
    "exchange": lambda w, c: w.fs.rename(c, ROOT, b"file", ROOT, b"other", 2),
    "whiteout": lambda w, c: w.fs.rename(c, ROOT, b"file", ROOT, b"new", 4),
    "setxattr": lambda w, c: w.fs.setxattr(c, w.node(b"file"), b"user.new", memoryview(b"1"), os.XATTR_CREATE, False),
    "removexattr": lambda w, c: w.fs.removexattr(c, w.node(b"file"), b"user.kept"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path)
    return tmp_path


def fill(folder: Path) -> None:
    (folder / "file").write_text("contents")
    os.setxattr(folder / "file", "user.kept", b"1")
    (folder / "other").write_text("of the other")
    (folder / "folder").mkdir()
    for path in folder.iterdir():
        path.chmod(0o755)  # making files as others changes the process's umask(2)


def state(folder: Path) -> dict[str, tuple[int, int, object, list[str]]]:
    found = {}
    for path in sorted(folder.iterdir()):
        known = path.lstat()
        content: object = path.read_text() if stat.S_ISREG(known.st_mode) else None
        if path.is_symlink():
            content = os.readlink(path)
        names = [] if path.is_symlink() or content is None else sorted(os.listxattr(path))
        found[path.name] = (known.st_mode, known.st_nlink, content, names)
    return found


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_in_which_a_worker_died_is_made_once(name: str, before: bool, folder: Path) -> None:
    change, tables = CHANGES[name], Tables()
    mortal = Mortal(before)
    was = state(folder)
    with pytest.raises(Death):
        change(Worker(folder, tables), mortal)
    assert (state(folder) == was) is before
    change(Worker(folder, tables, worker=1), second_run(mortal))
    made = state(folder)
    beside = folder / "beside"
    beside.mkdir()
    fill(beside)
    change(Worker(beside, Tables()), Caller())
    assert made == state(beside)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_file_in_whose_making_a_worker_died_is_open_once(before: bool, folder: Path) -> None:
    tables, mortal = Tables(), Mortal(before)
    with pytest.raises(Death):
        Worker(folder, tables).fs.create(mortal, ROOT, b"new", stat.S_IFREG | 0o400, os.O_RDWR | os.O_EXCL)
    worker = Worker(folder, tables, worker=1)
    entry, opened = worker.fs.create(second_run(mortal), ROOT, b"new", stat.S_IFREG | 0o400, os.O_RDWR | os.O_EXCL)
    node, fh = NodeId(entry.node), Handle(opened.fh)
    assert worker.write(node, fh, b"whatever its mode") == 17
    worker.release(node, fh)
    assert (folder / "new").read_text() == "whatever its mode"


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_what_was_appended_when_a_worker_died_is_there_once(before: bool, folder: Path) -> None:
    tables, mortal = Tables(), Mortal(before)
    worker = Worker(folder, tables)
    node = worker.node(b"file")
    fh = worker.open(node, os.O_WRONLY | os.O_APPEND)
    data = memoryview(b" and more")
    with pytest.raises(Death):
        worker.fs.write(mortal, node, fh, 8, data, os.O_APPEND)
    assert worker.fs.write(second_run(mortal), node, fh, 8, data, os.O_APPEND) == len(data)
    assert (folder / "file").read_text() == "contents and more"


def test_what_others_made_of_a_name_is_not_taken_for_the_first_runs_work(folder: Path) -> None:
    """Somebody was quicker, before the request began; or something else is there."""
    mortal = Mortal(before=True)
    worker = Worker(folder, Tables())
    with pytest.raises(Death):
        worker.fs.mkdir(mortal, ROOT, b"new", 0o750)
    (folder / "new").write_text("a file")
    with pytest.raises(FileExistsError):
        worker.fs.mkdir(second_run(mortal), ROOT, b"new", 0o750)
