"""Whose rights a system call uses."""

import errno
import os
import signal
import stat
from pathlib import Path

import pytest
from process.passthrough.support import Caller, Tables, Worker, error

from ringmount.workers import system
from ringmount.workers._native import lib
from ringmount.workers.api import ROOT, NodeId, SetAttr
from ringmount.workers.filesystems.passthrough import Passthrough
from ringmount.workers.filesystems.passthrough.credentials import ActingAs, Credentials

pytestmark = pytest.mark.root


@pytest.fixture
def checking(mode: str, source, tables: Tables):  # type: ignore[no-untyped-def]
    """A worker of a mount without `default_permissions`."""
    worker = Worker(source, tables, default_permissions=False)
    yield worker
    worker.forget_all()
    worker.fs.stop()
    for handle in list(worker.mount.handles.iterate()):
        os.close(worker.mount.handles.remove(handle.fh))
    assert system.capabilities() == worker.fs.credentials.own
    os.umask(0o022)


USER = Caller(1234, 5678)
MEMBER = Caller(1234, 5678, groups=(4321,))


def test_without_default_permissions_the_callers_rights_decide(checking: Worker) -> None:
    checking.source.chmod(0o777)
    secret, public = checking.mkdir(b"secret", 0o700).node, checking.mkdir(b"public", 0o755).node
    checking.create(b"secret/file")
    file = checking.create(b"public/file", 0o600)[0].node
    fs = checking.fs
    for number, call in (
        (errno.EACCES, lambda: fs.lookup(USER, secret, b"file")),
        (errno.EACCES, lambda: fs.mkdir(USER, public, b"x", 0o755)),
        (errno.EACCES, lambda: fs.mknod(USER, public, b"x", stat.S_IFREG, 0)),
        (errno.EACCES, lambda: fs.symlink(USER, public, b"x", b"y")),
        (errno.EACCES, lambda: fs.create(USER, public, b"x", 0o644, os.O_WRONLY)),
        (errno.EACCES, lambda: fs.tmpfile(USER, public, 0o644, os.O_WRONLY)),
        (errno.EACCES, lambda: fs.unlink(USER, public, b"file")),
        (errno.EACCES, lambda: fs.rmdir(USER, public, b"file")),
        (errno.EACCES, lambda: fs.rename(USER, public, b"file", ROOT, b"mine", 0)),
        (errno.EACCES, lambda: fs.open(USER, file, os.O_RDONLY)),
        (errno.EACCES, lambda: fs.open(USER, file, os.O_WRONLY | os.O_TRUNC)),
        (errno.EACCES, lambda: fs.opendir(USER, secret, 0)),
        (errno.EPERM, lambda: fs.setattr(USER, file, SetAttr(mode=0o777), None)),
        (errno.EPERM, lambda: fs.setattr(USER, file, SetAttr(uid=1234), None)),
        (errno.EACCES, lambda: fs.setattr(USER, file, SetAttr(size=0), None)),
        (errno.EACCES, lambda: fs.access(USER, file, os.R_OK)),
        (errno.EACCES, lambda: fs.getxattr(USER, file, b"user.x")),
        (errno.EACCES, lambda: fs.setxattr(USER, file, b"user.x", memoryview(b""), 0, False)),
    ):
        with error(number):
            call()
        checking.evict()
    assert fs.getattr(USER, file, None).st_mode == stat.S_IFREG | 0o600
    fs.access(checking.root, file, os.R_OK)
    made = fs.mkdir(USER, ROOT, b"mine", 0o755)
    assert made.attr is not None
    assert (made.attr.st_uid, made.attr.st_gid) == (1234, 5678)
    fs.setattr(USER, NodeId(made.node), SetAttr(mode=0o700), None)


def test_without_default_permissions_groups_count(checking: Worker) -> None:
    os.chown(checking.source, 0, 4321)
    checking.source.chmod(0o770)
    with error(errno.EACCES):
        checking.fs.mkdir(USER, ROOT, b"x", 0o755)
    checking.fs.mkdir(MEMBER, ROOT, b"x", 0o755)
    with error(errno.EACCES):
        checking.fs.mkdir(USER, ROOT, b"y", 0o755)


def test_what_is_open_stays_usable_without_rights_on_the_way(checking: Worker) -> None:
    checking.mkdir(b"folder", 0o700)
    node = checking.create(b"folder/file", 0o666, ctx=Caller(umask=0))[0].node
    checking.evict()
    checking.fs.open(USER, node, os.O_RDWR)  # the kernel has walked the path as the caller before


def test_the_worker_keeps_its_rights_while_another_owns_what_is_made(worker: Worker) -> None:
    own = system.capabilities()
    with worker.fs.credentials.owner(USER):
        assert system.capabilities() == own
        os.close(os.open(worker.source / "x", os.O_CREAT | os.O_WRONLY, 0o600))
    found = os.stat(worker.source / "x")
    assert (found.st_uid, found.st_gid) == (1234, 5678)
    assert system.capabilities() == own


def test_nothing_is_switched_for_who_the_worker_is_already(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(ActingAs, "__enter__")
    worker.mkdir(b"x")


def test_an_id_that_cannot_be_taken_is_refused_and_nothing_is_left_of_it(worker: Worker) -> None:
    with error(errno.EPERM):
        worker.mkdir(b"x", ctx=Caller(1234, 0xFFFFFFFF))
    assert os.listdir(worker.source) == []
    assert worker.mkdir(b"x").attr.st_uid == 0


def test_quotas_bind_the_worker(worker: Worker) -> None:
    assert not system.capabilities().effective & system.CAP_SYS_RESOURCE


def test_the_parents_death_is_still_heard_of_after_a_switch(worker: Worker, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.touch()
    assert lib.rm_die_with_parent(signal.SIGURG) == 0
    try:
        worker.mkdir(b"x", ctx=USER)
        for mode in (0o4755, 0o2705):
            program.chmod(mode)
            with program.open() as file, worker.fs.credentials.privilege_free(USER, file.fileno()):
                pass
        assert death_signal() == signal.SIGURG
    finally:
        lib.rm_die_with_parent(0)


def death_signal() -> int:
    import ctypes

    number = ctypes.c_int()
    assert ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0) == 0  # PR_GET_PDEATHSIG
    return number.value


def test_an_ordinary_users_worker_switches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    none = system.Capabilities(0, 0, 0)
    monkeypatch.setattr(system, "capabilities", lambda: none)
    credentials = Credentials(checks=True)
    os.umask(0o022)
    assert not credentials.checks
    for rights in (credentials.owner(USER), credentials.caller(USER), credentials.privilege_free(USER, 0)):
        with rights:
            assert os.geteuid() == 0
    os.umask(0o022)
    assert Passthrough.needs_root
