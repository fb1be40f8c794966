"""Nodes and the objects beneath: how one is found again, what keeps it alive, what is given up."""

import errno
import os
import resource
import socket
import stat
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from process.passthrough.support import Tables, Worker, error, open_descriptors

from ringmount.workers import system
from ringmount.workers.api import ROOT, NodeId
from ringmount.workers.filesystems.passthrough import descriptors, objects


@pytest.fixture
def other(worker: Worker, tables: Tables) -> Iterator[Worker]:
    """A second worker of the same mount."""
    other = Worker(worker.source, tables, 1)
    yield other
    worker.forget_all(other)
    other.fs.stop()
    assert other.mount.owned == set()


# --- finding ----------------------------------------------------------------------------------------------------------


def test_what_one_worker_has_looked_up_another_finds(worker: Worker, other: Worker) -> None:
    worker.mkdir(b"a")
    worker.mkdir(b"a/b")
    made, fh = worker.create(b"a/b/file")
    worker.write(made.node, fh, b"hello")
    assert other.attr(made.node).st_size == 5
    assert other.read(made.node, fh) == b"hello"
    assert other.node(b"a/b/file") == made.node
    other.rename(b"a", b"c")
    worker.evict()
    assert worker.attr(made.node).st_size == 5


def test_what_one_worker_renames_another_finds_at_every_moment(worker: Worker, other: Worker) -> None:
    """In threads rather than processes: what counts is that they interleave and share descriptors."""
    for name in (b"a", b"b"):
        worker.mkdir(name)
    folder = worker.mkdir(b"a/folder").node
    node = worker.mknod(b"a/folder/file", stat.S_IFREG).node
    homes = {name: other.node(name) for name in (b"a", b"b")}

    def rename() -> int:
        for _ in range(300):
            other.fs.rename(other.root, homes[b"a"], b"folder", homes[b"b"], b"folder", 0)
            other.fs.rename(other.root, folder, b"file", folder, b"other", 0)
            other.fs.rename(other.root, folder, b"other", folder, b"file", 0)
            other.fs.rename(other.root, homes[b"b"], b"folder", homes[b"a"], b"folder", 0)
        return 1

    with ThreadPoolExecutor(1) as pool:
        done, found = pool.submit(rename), 0
        while not done.done():
            worker.evict()
            assert worker.attr(node).st_nlink == 1
            found += 1
        assert done.result()
    assert found


def test_what_one_worker_has_removed_another_finds(worker: Worker, other: Worker) -> None:
    made, _fh = worker.create(b"file")
    folder = worker.mkdir(b"folder").node
    worker.unlink(b"file")
    worker.rmdir(b"folder")
    assert other.attr(made.node).st_nlink == 0
    assert other.attr(folder).st_nlink == 0
    with error(errno.ENOENT):
        other.fs.mkdir(other.root, folder, b"inner", 0o700)


def test_a_tree_deeper_than_any_path_works(worker: Worker) -> None:
    depth, name = 1200, b"folder"  # deeper than Python's recursion limit, too
    nodes = [ROOT]
    for _ in range(depth):
        nodes.append(NodeId(worker.fs.mkdir(worker.root, nodes[-1], name, 0o755).node))
    entry, opened = worker.fs.create(worker.root, nodes[-1], b"file", 0o644, os.O_RDWR)
    node = NodeId(entry.node)
    worker.write(node, opened.fh, b"deep")  # type: ignore[arg-type]
    worker.evict()
    assert worker.attr(node).st_size == 4
    assert worker.read(node, worker.open(node, os.O_RDONLY)) == b"deep"
    worker.evict()
    worker.fs.unlink(worker.root, nodes[-1], b"file")
    while len(nodes) > 1:
        nodes.pop()
        worker.fs.rmdir(worker.root, nodes[-1], name)
    assert os.listdir(worker.source) == []


def test_a_change_beneath_is_found_by_handle_and_else_by_the_next_lookup(worker: Worker, mode: str) -> None:
    made, _ = worker.create(b"old")
    os.rename(worker.source / "old", worker.source / "new")
    worker.evict()
    if mode == "by_name":
        with error(errno.ESTALE):
            worker.attr(made.node)
        with error(errno.ENOENT):
            worker.entry(b"old")
    else:
        assert worker.attr(made.node).st_nlink == 1
    assert worker.node(b"new") == made.node
    worker.evict()
    assert worker.attr(made.node).st_nlink == 1


def test_another_object_in_the_old_place_is_not_mistaken_for_it(worker: Worker) -> None:
    made = worker.mkdir(b"place")
    os.rename(worker.source / "place", worker.source / "elsewhere")
    os.mkdir(worker.source / "place")
    worker.evict()
    try:
        assert worker.attr(made.node).st_ino == made.attr.st_ino
    except OSError as raised:
        assert raised.errno == errno.ESTALE  # noqa: PT017


def test_what_was_removed_beneath_is_stale(worker: Worker) -> None:
    node = worker.mknod(b"x", stat.S_IFREG).node
    os.unlink(worker.source / "x")
    worker.evict()
    with error(errno.ESTALE):
        worker.attr(node)


def test_a_filesystem_without_handles_is_shown_too(
    source: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookup = system.lookup

    def no_handle(folder: int, name: bytes) -> tuple[int, bytes, int]:
        return lookup(folder, name)[0], b"", -1

    monkeypatch.setattr(system, "lookup", no_handle)
    monkeypatch.setattr(system, "file_handle", lambda fd: (b"", -1))
    worker = Worker(source, tables)
    (worker.source / "x").touch()
    node = worker.node(b"x")
    assert worker.node(b"x") == node
    worker.evict()
    assert worker.attr(node).st_nlink == 1
    worker.rename(b"x", b"y")
    worker.evict()
    assert worker.node(b"y") == node
    worker.unlink(b"y")
    assert worker.attr(node).st_nlink == 0
    worker.forget_all()
    worker.fs.stop()


# --- what keeps an object alive ---------------------------------------------------------------------------------------


def test_a_working_directory_that_was_removed_has_attributes(worker: Worker) -> None:
    node = worker.mkdir(b"cwd").node
    worker.rmdir(b"cwd")
    worker.evict()
    attr = worker.attr(node)
    assert stat.S_ISDIR(attr.st_mode)
    assert attr.st_nlink == 0


def test_a_folder_that_was_replaced_has_attributes(worker: Worker) -> None:
    node = worker.mkdir(b"old").node
    worker.mkdir(b"new")
    worker.rename(b"new", b"old")
    worker.evict()
    assert worker.attr(node).st_nlink == 0


def test_an_open_fifo_that_was_unlinked_has_attributes(worker: Worker) -> None:
    node = worker.mknod(b"fifo", stat.S_IFIFO | 0o600).node
    worker.unlink(b"fifo")
    worker.evict()
    assert stat.S_ISFIFO(worker.attr(node).st_mode)
    worker.fs.statx(worker.root, node, None, 0, 0)


def test_a_socket_is_shown(worker: Worker) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{worker.fs.objects.top}/socket")  # the name of a socket has room for 107 bytes
        assert stat.S_ISSOCK(worker.entry(b"socket").attr.st_mode)


def blocks_free(worker: Worker) -> int:
    found = os.statvfs(worker.source)
    return found.f_bfree * found.f_bsize


@pytest.mark.root
def test_a_file_that_is_deleted_gives_its_space_back_at_once(worker: Worker, mode: str) -> None:
    path = worker.source / "big"
    path.write_bytes(b"x")
    identity = os.stat(path)
    worker.node(b"big")
    worker.unlink(b"big")
    if mode == "by_handle":
        held = [os.stat(f"/proc/self/fd/{fd}") for fd in worker.mount.owned]
        assert not any(os.path.samestat(found, identity) for found in held)


def test_removing_what_cannot_be_removed_keeps_no_descriptor(worker: Worker) -> None:
    worker.mkdir(b"full")
    worker.mkdir(b"full/x")
    before = open_descriptors()
    for _ in range(3):
        with error(errno.ENOTEMPTY):
            worker.rmdir(b"full")
    assert open_descriptors() == before
    worker.evict()
    assert worker.attr(worker.node(b"full")).st_nlink == 3


# --- what is given up -------------------------------------------------------------------------------------------------


def test_what_the_kernel_forgets_is_closed(worker: Worker, other: Worker) -> None:
    before = open_descriptors()
    for n in range(50):
        name = b"%d" % n
        worker.mkdir(name)
        other.fs.statfs(other.root, other.node(name))
        other.fs.statfs(other.root, other.node(name))
        if n % 2:
            worker.rmdir(name)
    assert len(open_descriptors()) > len(before)
    worker.forget_all(other)
    assert open_descriptors() == before


def test_a_file_that_is_used_once_keeps_no_descriptor_and_one_used_twice_does(worker: Worker) -> None:
    node = worker.mknod(b"x", stat.S_IFREG).node
    before = len(worker.fs.objects.descriptors)
    worker.attr(node)
    assert len(worker.fs.objects.descriptors) == before
    worker.attr(node)
    assert len(worker.fs.objects.descriptors) == before + 1


def test_only_the_descriptors_used_last_are_kept(source: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "share", lambda workers: 20)
    worker = Worker(source, tables)
    kept = worker.fs.objects.descriptors
    nodes = [worker.mkdir(b"%d" % n).node for n in range(50)]
    assert len(kept) == 20
    assert [node for node in nodes if kept.get(node) is None] == nodes[:30]
    kept.get(nodes[30])
    worker.mkdir(b"more")
    assert kept.get(nodes[30]) is not None
    assert kept.get(nodes[31]) is None
    worker.fs.stop()


def test_when_descriptors_run_out_the_kept_ones_make_room(worker: Worker) -> None:
    nodes = [worker.mkdir(b"%d" % n).node for n in range(200)]
    for node in nodes:
        worker.fs.objects.folder(node)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_descriptors()) + 1, hard))
    try:
        fhs = [worker.create(b"file-%d" % n)[1] for n in range(60)]
        assert len({worker.mount.handles.fd(fh) for fh in fhs}) == 60
        out = worker.listing()
        assert len(out.entries) == 262
        worker.fs.flush(worker.root, nodes[0], fhs[0], 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_worker_keeps_its_share_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, workers, expected in ((1024, 2, 128), (1024, 100, 16), (1 << 20, 1, 65536), (524288, 4, 32768)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert descriptors.share(workers) == expected


def test_a_full_table_of_handles_leaves_nothing_open(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(node: NodeId, flags: int, fd: int = -1) -> int:
        raise OSError(errno.ENFILE, "full")

    node = worker.create(b"x")[0].node
    before = open_descriptors()
    counts = dict(worker.mount.nodes.iterate())
    monkeypatch.setattr(worker.mount.handles, "add", full)
    with error(errno.ENFILE):
        worker.open(node)
    with error(errno.ENFILE):
        worker.create(b"y")
    with error(errno.ENFILE):
        worker.opendir()
    assert open_descriptors() == before
    assert dict(worker.mount.nodes.iterate()) == counts


# --- the source -------------------------------------------------------------------------------------------------------


def test_a_worker_that_starts_later_shows_the_same_folder(worker: Worker, tables: Tables, mode: str) -> None:
    (worker.source / "mark").touch()
    moved = worker.source.with_name("moved")
    worker.source.rename(moved)
    worker.source.mkdir()
    if mode == "by_name":
        with pytest.raises(ValueError, match="mount anew"):
            Worker(worker.source, tables, 1)
        return
    successor = Worker(worker.source, tables, 1)
    assert b"mark" in successor.listing().entries
    successor.fs.stop()


@pytest.fixture
def foreign(source: Path) -> Iterator[Path]:
    """A folder of the source on which another filesystem is mounted."""
    folder = source / "foreign"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True, timeout=10)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True, timeout=10)


@pytest.mark.root
def test_another_filesystem_beneath_is_shown_with_numbers_of_its_own(foreign: Path, worker: Worker) -> None:
    made, fh = worker.create(b"foreign/file")
    worker.write(made.node, fh, b"abc")
    found = os.stat(foreign / "file")
    assert made.attr.st_ino != found.st_ino
    assert (made.attr.st_size, made.attr.st_mode) == (0, found.st_mode)
    assert worker.attr(made.node).st_ino == worker.attr(made.node, fh).st_ino == made.attr.st_ino
    listed = worker.listing(worker.node(b"foreign")).entries
    assert listed[b"file"][0] == made.attr.st_ino
    worker.evict()
    assert worker.attr(made.node).st_size == 3
    assert worker.content(b"foreign/file") == b"abc"
    worker.rename(b"foreign/file", b"foreign/new")
    worker.evict()
    assert worker.attr(made.node).st_size == 3
    worker.unlink(b"foreign/new")
    worker.evict()
    assert worker.attr(made.node).st_nlink == 0


@pytest.mark.root
def test_no_link_or_rename_leads_to_another_filesystem(foreign: Path, worker: Worker) -> None:
    node = worker.create(b"file")[0].node
    with error(errno.EXDEV):
        worker.link(node, b"foreign/file")
    with error(errno.EXDEV):
        worker.rename(b"file", b"foreign/file")
    worker.evict()
    assert worker.attr(node).st_nlink == 1
    with error(errno.EBUSY):
        worker.rmdir(b"foreign")
    assert worker.fs.statfs(worker.root, worker.node(b"foreign")).f_blocks == os.statvfs(foreign).f_blocks


def test_asking_once_is_forgotten_in_the_end(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "RECENT", 4)
    for n in range(20):
        worker.attr(worker.mknod(b"%d" % n, stat.S_IFREG).node)
        assert len(worker.fs.objects._once) <= 4
