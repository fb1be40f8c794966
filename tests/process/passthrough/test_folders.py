"""Folders: opened, listed."""

import errno
import os
import stat

import pytest
from process.passthrough.support import Listing, ListingPlus, Worker, error

from ringmount.workers.api import ROOT, SyncOf


def test_a_listing_has_all_names_with_numbers_and_kinds(worker: Worker) -> None:
    worker.mkdir(b"folder")
    worker.symlink(b"link", b"x")
    worker.mknod(b"fifo", stat.S_IFIFO)
    worker.create(b"\xff" * 255)
    listed = worker.listing().entries
    source = os.fsencode(worker.source)
    assert set(listed) == {b".", b"..", *os.listdir(source)}
    for name in os.listdir(source):
        found = os.lstat(source + b"/" + name)
        assert listed[name][:2] == (found.st_ino, stat.S_IFMT(found.st_mode))


def test_nothing_above_the_root_is_shown(worker: Worker) -> None:
    node = worker.mkdir(b"folder").node
    number = os.stat(worker.source).st_ino
    assert worker.listing().entries[b".."][0] == worker.listing().entries[b"."][0] == number
    assert worker.listing(node).entries[b".."][0] == number


@pytest.mark.parametrize("room", [1, 7, 1000])
def test_a_listing_goes_on_where_it_stopped(worker: Worker, room: int) -> None:
    names = {b"file-%d" % n for n in range(500)}
    for name in names:
        (worker.source / os.fsdecode(name)).touch()
    fh, offset, listed = worker.opendir(), 0, []
    while True:
        out = Listing(room)
        worker.fs.readdir(worker.root, ROOT, fh, offset, out)
        if not out.entries:
            break
        listed += list(out.entries)
        offset = list(out.entries.values())[-1][2]
    assert len(listed) == 502
    assert set(listed) == names | {b".", b".."}
    worker.fs.releasedir(worker.root, ROOT, fh)


def test_a_listing_can_start_anywhere_and_again(worker: Worker) -> None:
    for n in range(10):
        (worker.source / f"{n}").touch()
    whole = worker.listing().entries
    for name, (_, _, after) in whole.items():
        rest = list(whole)[list(whole).index(name) + 1 :]
        assert list(worker.listing(offset=after).entries) == rest


def test_a_folder_that_was_removed_while_it_was_open_is_a_folder_still(worker: Worker) -> None:
    node = worker.mkdir(b"folder").node
    fh = worker.opendir(node)
    worker.rmdir(b"folder")
    assert stat.S_ISDIR(worker.attr(node, fh).st_mode)
    with error(errno.ENOENT):  # getdents(2): no such directory
        worker.fs.readdir(worker.root, node, fh, 0, Listing())


def test_only_folders_are_opened_as_such(worker: Worker) -> None:
    with error(errno.ENOTDIR):
        worker.opendir(worker.create(b"x")[0].node)
    with error(errno.EISDIR):
        worker.open(worker.mkdir(b"folder").node, os.O_RDWR)


def test_a_folder_can_be_synced(worker: Worker) -> None:
    fh = worker.opendir()
    assert worker.fs.fsyncdir(worker.root, ROOT, fh, True) == SyncOf(worker.mount.handles.fd(fh), True)


def test_statfs_is_that_of_the_source(worker: Worker) -> None:
    found = worker.fs.statfs(worker.root, worker.mkdir(b"folder").node)
    expected = os.statvfs(worker.source)
    assert (found.f_bsize, found.f_blocks, found.f_namemax) == (expected.f_bsize, expected.f_blocks, 255)


def test_syncfs_syncs_the_source(worker: Worker) -> None:
    worker.fs.syncfs(worker.root, ROOT)


# --- with attributes --------------------------------------------------------------------------------------------------


def plus(worker: Worker, out: ListingPlus, offset: int = 0) -> ListingPlus:
    fh = worker.opendir()
    worker.fs.readdirplus(worker.root, ROOT, fh, offset, out)
    worker.fs.releasedir(worker.root, ROOT, fh)
    return out


def references(worker: Worker) -> dict[int, int]:
    return {node: count for node, count in worker.mount.nodes.iterate() if node != ROOT}


def test_a_listing_with_attributes_answers_the_lookups(worker: Worker) -> None:
    for n in range(300):
        (worker.source / f"file-{n}").write_bytes(bytes(n))
    (worker.source / "folder").mkdir()
    listed = plus(worker, ListingPlus()).entries
    assert len(listed) == 303
    assert references(worker) == {entry.node: 1 for entry, _ in listed.values() if entry.node}
    for name, (entry, _) in listed.items():
        assert entry.attr is not None
        if name in (b".", b".."):
            assert entry.node == 0
            assert entry.attr.st_ino == os.stat(worker.source).st_ino
            assert stat.S_ISDIR(entry.attr.st_mode)
        else:
            assert entry.attr == os.lstat(worker.source / os.fsdecode(name))
            assert entry.node == worker.node(name)


def test_what_does_not_fit_is_not_referred_to(worker: Worker) -> None:
    for n in range(20):
        (worker.source / f"{n}").touch()
    for out in (ListingPlus(10), ListingPlus(10, lies=True)):
        assert len(plus(worker, out).entries) == 10
        assert len(references(worker)) <= 10
        rest = plus(worker, ListingPlus(), offset=list(out.entries.values())[-1][1])
        assert len(rest.entries) == 12
        worker.forget_all()


def test_a_name_that_vanishes_is_left_out(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stays", "goes"):
        (worker.source / name).touch()

    class Removing(ListingPlus):
        def fits(self, name: bytes) -> bool:
            (worker.source / "goes").unlink(missing_ok=True)
            return True

    assert set(plus(worker, Removing()).entries) == {b".", b"..", b"stays"}


def test_a_name_that_cannot_be_looked_up_is_listed_without_attributes(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (worker.source / "file").touch()

    def entry(*arguments: object, **keywords: object) -> None:
        raise OSError(errno.EIO, "bad sector")

    monkeypatch.setattr(worker.fs.objects, "entry", entry)
    listed, _ = plus(worker, ListingPlus()).entries[b"file"]
    assert listed.node == 0
    assert listed.attr is not None
    assert stat.S_ISREG(listed.attr.st_mode)
