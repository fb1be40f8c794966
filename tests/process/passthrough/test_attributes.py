"""Attributes, extended attributes, access control lists."""

import errno
import os
import stat
import subprocess
import time

import pytest
from process.passthrough.support import Caller, Worker, error

from ringmount.workers import system
from ringmount.workers.api import NOW, ROOT, NodeId, SetAttr

BEFORE_1970 = -1_500_000_000_123_456_789


def set_mode(worker: Worker, name: str, mode: int) -> None:
    (worker.source / name).chmod(mode)


def mode_of(worker: Worker, name: str) -> int:
    return stat.S_IMODE(os.lstat(worker.source / name).st_mode)


def test_mode_owner_size_and_times_change_together(worker: Worker) -> None:
    node = worker.create(b"x")[0].node
    changes = SetAttr(mode=0o751, size=7, atime_ns=1_000_000_001, mtime_ns=BEFORE_1970)
    attr = worker.fs.setattr(worker.root, node, changes, None)
    found = os.stat(worker.source / "x")
    assert stat.S_IMODE(attr.st_mode) == stat.S_IMODE(found.st_mode) == 0o751
    assert (attr.st_size, attr.st_atime_ns, attr.st_mtime_ns) == (7, 1_000_000_001, BEFORE_1970)
    assert (found.st_size, found.st_atime_ns, found.st_mtime_ns) == (7, 1_000_000_001, BEFORE_1970)


def test_times_that_are_left_out_stay(worker: Worker) -> None:
    node = worker.create(b"x")[0].node
    worker.fs.setattr(worker.root, node, SetAttr(atime_ns=1, mtime_ns=2), None)
    assert worker.fs.setattr(worker.root, node, SetAttr(atime_ns=5), None).st_mtime_ns == 2
    before = time.time_ns() - 50_000_000  # the kernel's clock for files ticks coarsely
    attr = worker.fs.setattr(worker.root, node, SetAttr(mtime_ns=NOW), None)
    assert attr.st_atime_ns == 5
    assert before <= attr.st_mtime_ns <= time.time_ns()


def test_an_open_file_can_be_truncated_whatever_its_mode(worker: Worker) -> None:
    made, fh = worker.create(b"x", 0)
    worker.write(made.node, fh, b"12345")
    assert worker.fs.setattr(worker.root, made.node, SetAttr(size=2), fh).st_size == 2
    assert worker.read(made.node, fh) == b"12"


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFLNK])
def test_times_of_everything_can_be_set(worker: Worker, kind: int) -> None:
    made = worker.symlink(b"x", b"nowhere") if kind == stat.S_IFLNK else worker.mknod(b"x", kind | 0o600)
    worker.fs.setattr(worker.root, made.node, SetAttr(atime_ns=3, mtime_ns=4), None)
    found = os.lstat(worker.source / "x")
    assert (found.st_atime_ns, found.st_mtime_ns) == (3, 4)


@pytest.mark.root
@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFDIR, stat.S_IFLNK])
def test_owners_of_everything_can_be_set(worker: Worker, kind: int) -> None:
    if kind == stat.S_IFLNK:
        made = worker.symlink(b"x", b"nowhere")
    elif kind == stat.S_IFDIR:
        made = worker.mkdir(b"x")
    else:
        made = worker.mknod(b"x", kind)
    attr = worker.fs.setattr(worker.root, made.node, SetAttr(uid=12, gid=34), None)
    assert (attr.st_uid, attr.st_gid) == (12, 34)
    assert worker.fs.setattr(worker.root, made.node, SetAttr(gid=35), None).st_uid == 12


def test_the_root_has_attributes_too(worker: Worker) -> None:
    assert worker.attr(ROOT).st_ino == os.stat(worker.source).st_ino
    worker.fs.setattr(worker.root, ROOT, SetAttr(mode=0o711), None)
    assert stat.S_IMODE(os.stat(worker.source).st_mode) == 0o711


@pytest.mark.root
def test_a_change_of_owner_clears_setuid_as_chown_does(worker: Worker) -> None:
    node = worker.create(b"x")[0].node
    # The last ones are chown(-1, -1), without and with `writeback`.
    for changes in (SetAttr(uid=5), SetAttr(gid=5), SetAttr(), SetAttr(ctime_ns=1)):
        set_mode(worker, "x", 0o6755)
        worker.fs.setattr(worker.root, node, changes, None)
        assert mode_of(worker, "x") == 0o755
    set_mode(worker, "x", 0o6755)
    worker.fs.setattr(Caller(1234), node, SetAttr(), None)  # chown(-1, -1) is permitted to everybody
    assert mode_of(worker, "x") == 0o755


def capability_of(worker: Worker, name: str) -> bytes | None:
    try:
        return os.getxattr(worker.source / name, "security.capability")
    except OSError:
        return None


CAP_NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")


@pytest.mark.root
def test_an_unprivileged_truncate_clears_setuid_and_roots_does_not(worker: Worker) -> None:
    made, fh = worker.create(b"x")
    os.truncate(worker.source / "x", 9)
    set_mode(worker, "x", 0o6755)
    worker.fs.setattr(worker.root, made.node, SetAttr(size=8), None)
    assert mode_of(worker, "x") == 0o6755
    for handle in (None, fh):
        set_mode(worker, "x", 0o6755)
        os.setxattr(worker.source / "x", "security.capability", CAP_NET_RAW)
        worker.fs.setattr(worker.root, made.node, SetAttr(size=7, kill_suidgid=True), handle)
        assert mode_of(worker, "x") == 0o755
        assert capability_of(worker, "x") is None
    set_mode(worker, "x", 0o6745)  # S_ISGID without group execution has meant mandatory locking
    worker.fs.setattr(worker.root, made.node, SetAttr(size=6, kill_suidgid=True), None)
    assert mode_of(worker, "x") == 0o2745


def test_statx_knows_the_time_of_birth(worker: Worker) -> None:
    before = time.time_ns() - 50_000_000
    made, fh = worker.create(b"x")
    for handle in (None, fh):
        found = worker.fs.statx(worker.root, made.node, handle, 0, system.STATX_BASIC_STATS)
        assert found.mask & system.STATX_BTIME
        assert before <= found.btime_ns <= time.time_ns()
        assert found.attr.st_ino == made.attr.st_ino


def test_access_is_that_of_the_object(worker: Worker) -> None:
    made = worker.mkdir(b"x", 0o755)
    worker.fs.access(worker.root, made.node, os.R_OK | os.X_OK)
    with error(errno.EACCES):
        worker.fs.access(worker.root, worker.mknod(b"file", stat.S_IFREG | 0o600).node, os.X_OK)


# --- extended attributes ----------------------------------------------------------------------------------------------


def test_extended_attributes_are_kept(worker: Worker) -> None:
    node, ctx, fs = worker.create(b"x")[0].node, worker.root, worker.fs
    value = bytes(range(256)) * 8
    fs.setxattr(ctx, node, b"user.a", memoryview(value), 0, False)
    fs.setxattr(ctx, node, b"user.\xff\xfe", memoryview(b""), os.XATTR_CREATE, False)
    assert fs.getxattr(ctx, node, b"user.a") == value
    assert fs.getxattr(ctx, node, b"user.\xff\xfe") == b""
    assert {b"user.a", b"user.\xff\xfe"} <= set(fs.listxattr(ctx, node))
    fs.removexattr(ctx, node, b"user.a")
    for number, call in (
        (errno.ENODATA, lambda: fs.getxattr(ctx, node, b"user.a")),
        (errno.ENODATA, lambda: fs.removexattr(ctx, node, b"user.a")),
        (errno.ENODATA, lambda: fs.setxattr(ctx, node, b"user.a", memoryview(b"1"), os.XATTR_REPLACE, False)),
        (errno.EEXIST, lambda: fs.setxattr(ctx, node, b"user.\xff\xfe", memoryview(b"1"), os.XATTR_CREATE, False)),
        (errno.EOPNOTSUPP, lambda: fs.getxattr(ctx, node, b"nonsense")),
    ):
        with error(number):
            call()


@pytest.mark.root
def test_links_and_fifos_have_extended_attributes(worker: Worker) -> None:
    for made in (worker.symlink(b"link", b"nowhere"), worker.mknod(b"fifo", stat.S_IFIFO)):
        worker.fs.setxattr(worker.root, made.node, b"trusted.x", memoryview(b"1"), 0, False)
        worker.evict()
        assert worker.fs.getxattr(worker.root, made.node, b"trusted.x") == b"1"
    assert os.getxattr(worker.source / "link", "trusted.x", follow_symlinks=False) == b"1"


ACL_ACCESS, ACL_DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"


def setfacl(worker: Worker, *arguments: str) -> None:
    subprocess.run(["setfacl", *arguments, "."], cwd=worker.source, check=True, timeout=10)


def test_access_control_lists_are_passed_on(worker: Worker) -> None:
    setfacl(worker, "-m", "u:4242:rwx")
    acl = worker.fs.getxattr(worker.root, ROOT, ACL_ACCESS)
    assert acl == os.getxattr(worker.source, ACL_ACCESS)
    node = worker.mkdir(b"folder", 0o700).node
    with error(errno.ENODATA):
        worker.fs.getxattr(worker.root, node, ACL_ACCESS)
    worker.fs.setxattr(worker.root, node, ACL_ACCESS, memoryview(acl), 0, False)
    assert mode_of(worker, "folder") == stat.S_IMODE(os.stat(worker.source).st_mode)


def test_setting_a_list_can_clear_setgid(worker: Worker) -> None:
    setfacl(worker, "-m", "u:4242:rwx")
    acl = worker.fs.getxattr(worker.root, ROOT, ACL_ACCESS)
    made = worker.mkdir(b"folder")
    for kill, left in ((False, stat.S_ISGID), (True, 0)):
        set_mode(worker, "folder", 0o2755)
        worker.fs.setxattr(worker.root, made.node, ACL_ACCESS, memoryview(acl), 0, kill)
        assert mode_of(worker, "folder") & stat.S_ISGID == left


def test_a_default_list_takes_the_umasks_place(worker: Worker) -> None:
    setfacl(worker, "-d", "-m", "u::rwx,g::rwx,o::r-x,u:4242:rw")
    caller = Caller(umask=0o077)
    assert stat.S_IMODE(worker.create(b"file", 0o666, ctx=caller)[0].attr.st_mode) == 0o664
    folder = worker.mkdir(b"folder", 0o777, ctx=caller)
    assert stat.S_IMODE(folder.attr.st_mode) == 0o775
    assert worker.fs.getxattr(worker.root, folder.node, ACL_DEFAULT) == os.getxattr(worker.source, ACL_DEFAULT)


def test_a_filesystem_without_lists_has_none_rather_than_refusing(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(path: bytes, name: bytes) -> bytes:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "getxattr", unsupported)
    with error(errno.ENODATA):
        worker.fs.getxattr(worker.root, ROOT, ACL_ACCESS)
    with error(errno.EOPNOTSUPP):
        worker.fs.getxattr(worker.root, ROOT, b"user.x")


def test_extended_attributes_can_be_switched_off(worker: Worker) -> None:
    (worker.source / "x").touch()
    os.setxattr(worker.source / "x", "user.a", b"1")
    node = worker.node(b"x")
    worker.fs.options = type(worker.fs.options)(str(worker.source), xattr=False)
    assert worker.fs.listxattr(worker.root, node) == []
    for number, call in (
        (errno.EOPNOTSUPP, lambda: worker.fs.getxattr(worker.root, node, b"user.a")),
        (errno.ENODATA, lambda: worker.fs.getxattr(worker.root, node, ACL_ACCESS)),
        (errno.EOPNOTSUPP, lambda: worker.fs.setxattr(worker.root, node, b"user.a", memoryview(b""), 0, False)),
        (errno.EOPNOTSUPP, lambda: worker.fs.removexattr(worker.root, node, b"user.a")),
    ):
        with error(number):
            call()


def test_an_unknown_node_is_stale(worker: Worker) -> None:
    for call in (worker.attr, worker.open, worker.fs.objects.folder):
        with error(errno.ESTALE):
            call(NodeId(4321))
