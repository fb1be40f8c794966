"""Attributes in the memory filesystem: modes, owners, times, extended attributes, lists, and who may change them."""

import errno
import os
import stat
import struct
from collections.abc import Callable
from functools import partial

import pytest
from fakes import FakeContext
from pure.memory_driver import ALICE, BOB, ROOT_USER, START, Driver, handle_of

from ringmount.workers.api import NOW, ROOT, NodeId, SetAttr

R, W, X = 4, 2, 1
ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
NO_ID = (1 << 32) - 1
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
ALICE_MAY_ALL = [(USER_OBJ, 6, NO_ID), (USER, 7, 1000), (GROUP_OBJ, 5, NO_ID), (MASK, 7, NO_ID), (OTHER, 0, NO_ID)]


def error_of(call: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as caught:
        call()
    return caught.value.errno


def acl(rules: list[tuple[int, int, int]]) -> bytes:
    """A list as setfacl(1) would write it."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *rule) for rule in rules)


def rules_of(mem: Driver, node: NodeId, name: bytes) -> dict[int, int]:
    """The permissions of each tag in an object's list."""
    value = mem.fs.getxattr(ROOT_USER, node, name)
    assert value[:4] == struct.pack("<I", 2)
    return {tag: permissions for tag, permissions, _ in struct.iter_unpack("<HHI", value[4:])}


# --- attributes ---------------------------------------------------------------------------------


def test_chmod_keeps_the_type_and_changes_ctime() -> None:
    mem = Driver()
    node = mem.make(b"file")
    now = mem.clock.tick()
    mem.setattr(node, SetAttr(mode=stat.S_IFREG | 0o7641))
    attr = mem.attr(node)
    assert (attr.st_mode, attr.st_ctime_ns, attr.st_mtime_ns) == (stat.S_IFREG | 0o7641, now, START)


def test_chown_changes_what_is_given() -> None:
    mem = Driver()
    node = mem.make(b"file")
    mem.setattr(node, SetAttr(uid=5))
    assert (mem.attr(node).st_uid, mem.attr(node).st_gid) == (5, 0)
    mem.setattr(node, SetAttr(gid=6))
    assert (mem.attr(node).st_uid, mem.attr(node).st_gid) == (5, 6)


def test_chown_takes_setuid_from_files_but_not_from_folders() -> None:
    mem = Driver()
    file = mem.make(b"file", mode=0o6755)
    folder = mem.mkdir(b"folder", mode=0o2755)
    for node in (file, folder):
        mem.setattr(node, SetAttr(uid=5, kill_suidgid=True))
    assert (mem.mode(file), mem.mode(folder)) == (0o755, 0o2755)


def test_chown_takes_setuid_also_if_it_names_nobody() -> None:
    mem = Driver()
    file = mem.make(b"file", mode=0o6755)
    folder = mem.mkdir(b"folder", mode=0o2755)
    for node in (file, folder):
        mem.setattr(node, SetAttr())
    assert (mem.mode(file), mem.mode(folder)) == (0o755, 0o2755)


def test_truncation_takes_setuid_and_capabilities() -> None:
    mem = Driver()
    node = mem.make(b"file", mode=0o4755)
    mem.setxattr(node, b"security.capability", b"caps")
    mem.setattr(node, SetAttr(size=0), ctx=ROOT_USER)
    assert (mem.mode(node), list(mem.fs.listxattr(ROOT_USER, node))) == (0o4755, [])
    mem.setattr(node, SetAttr(size=0, kill_suidgid=True), ctx=ALICE)
    assert mem.mode(node) == 0o755


def test_utimens_sets_times_and_ctime_tells_when() -> None:
    mem = Driver()
    node = mem.make(b"file")
    now = mem.clock.tick()
    mem.setattr(node, SetAttr(atime_ns=-5, mtime_ns=1 << 62))
    attr = mem.attr(node)
    assert (attr.st_atime_ns, attr.st_mtime_ns, attr.st_ctime_ns) == (-5, 1 << 62, now)
    now = mem.clock.tick()
    mem.setattr(node, SetAttr(mtime_ns=NOW))
    attr = mem.attr(node)
    assert (attr.st_atime_ns, attr.st_mtime_ns, attr.st_ctime_ns) == (-5, now, now)


def test_a_kernel_with_write_back_caching_tells_ctime_itself() -> None:
    mem = Driver()
    node = mem.make(b"file")
    mem.setattr(node, SetAttr(mtime_ns=7, ctime_ns=8))
    assert (mem.attr(node).st_mtime_ns, mem.attr(node).st_ctime_ns) == (7, 8)


def test_a_change_of_nothing_changes_ctime() -> None:
    mem = Driver()
    node = mem.make(b"file")
    now = mem.clock.tick()
    mem.setattr(node, SetAttr())
    assert mem.attr(node).st_ctime_ns == now


def test_statx_tells_the_birth_time() -> None:
    mem = Driver()
    mem.clock.tick()
    node = mem.make(b"file", data=b"four")
    born = mem.clock.ns
    mem.clock.tick()
    mem.setattr(node, SetAttr(mode=0o600, mtime_ns=0, atime_ns=0))
    answer = mem.fs.statx(ROOT_USER, node, None, 0, 0xFFF)
    assert (answer.btime_ns, answer.attr.st_size, answer.mask) == (born, 4, 0xFFF)


# --- extended attributes ------------------------------------------------------------------------


def test_extended_attributes_are_kept() -> None:
    mem = Driver()
    node = mem.make(b"file")
    now = mem.clock.tick()
    mem.setxattr(node, b"user.one", b"1")
    mem.setxattr(node, b"security.two", b"")
    mem.setxattr(node, b"trusted.three", b"\0" * 65_536)
    assert mem.attr(node).st_ctime_ns == now
    assert mem.fs.getxattr(ROOT_USER, node, b"user.one") == b"1"
    assert mem.fs.getxattr(ROOT_USER, node, b"security.two") == b""
    assert set(mem.fs.listxattr(ROOT_USER, node)) == {b"user.one", b"security.two", b"trusted.three"}
    now = mem.clock.tick()
    mem.fs.removexattr(ROOT_USER, node, b"user.one")
    assert mem.attr(node).st_ctime_ns == now
    assert error_of(lambda: mem.fs.getxattr(ROOT_USER, node, b"user.one")) == errno.ENODATA
    assert error_of(lambda: mem.fs.removexattr(ROOT_USER, node, b"user.one")) == errno.ENODATA


def test_setting_an_attribute_can_demand_that_it_is_new_or_not() -> None:
    mem = Driver()
    node = mem.make(b"file")
    assert error_of(lambda: mem.setxattr(node, b"user.key", b"1", os.XATTR_REPLACE)) == errno.ENODATA
    mem.setxattr(node, b"user.key", b"2", os.XATTR_CREATE)
    assert error_of(lambda: mem.setxattr(node, b"user.key", b"3", os.XATTR_CREATE)) == errno.EEXIST
    mem.setxattr(node, b"user.key", b"4", os.XATTR_REPLACE)
    assert mem.fs.getxattr(ROOT_USER, node, b"user.key") == b"4"


def test_a_value_is_the_filesystem_s_own_copy() -> None:
    mem = Driver()
    node = mem.make(b"file")
    buffer = bytearray(b"value")
    mem.fs.setxattr(ROOT_USER, node, b"user.key", memoryview(buffer), 0, kill_sgid=False)
    buffer[:] = b"other"
    assert mem.fs.getxattr(ROOT_USER, node, b"user.key") == b"value"


def test_a_value_of_more_than_64_kib_is_too_long() -> None:
    mem = Driver()
    node = mem.make(b"file")
    assert error_of(lambda: mem.setxattr(node, b"user.key", b"x" * 65_537)) == errno.E2BIG


@pytest.mark.parametrize("name", [b"user.", b"trusted.", b"security."])
def test_an_attribute_s_name_is_more_than_its_namespace(name: bytes) -> None:
    mem = Driver()
    node = mem.make(b"file")
    assert error_of(lambda: mem.setxattr(node, name, b"")) == errno.EINVAL
    assert error_of(lambda: mem.fs.getxattr(ROOT_USER, node, name)) == errno.EINVAL


@pytest.mark.parametrize("name", [b"system.nfs4_acl", b"plain", b"USER.key"])
def test_other_namespaces_are_not_supported(name: bytes) -> None:
    mem = Driver()
    node = mem.make(b"file")
    assert error_of(lambda: mem.setxattr(node, name, b"")) == errno.EOPNOTSUPP
    assert error_of(lambda: mem.fs.getxattr(ROOT_USER, node, name)) == errno.EOPNOTSUPP


def test_user_attributes_are_for_files_and_folders() -> None:
    mem = Driver()
    mem.setxattr(mem.mkdir(b"folder"), b"user.key", b"")
    for node in (mem.symlink(b"link", b"x"), mem.mknod(b"fifo", stat.S_IFIFO | 0o666)):
        assert error_of(partial(mem.setxattr, node, b"user.key", b"")) == errno.EPERM
        assert error_of(partial(mem.fs.getxattr, ROOT_USER, node, b"user.key")) == errno.ENODATA
        mem.setxattr(node, b"trusted.key", b"")


def test_only_root_sees_trusted_attributes_listed() -> None:
    mem = Driver()
    node = mem.make(b"file")
    mem.setxattr(node, b"trusted.key", b"")
    mem.setxattr(node, b"user.key", b"")
    assert list(mem.fs.listxattr(ALICE, node)) == [b"user.key"]


# --- access control lists -----------------------------------------------------------------------


def test_a_list_s_mask_becomes_the_mode_s_group_bits() -> None:
    mem = Driver()
    node = mem.make(b"file", mode=0o4644)
    mem.setxattr(node, ACCESS, acl(ALICE_MAY_ALL))
    assert mem.mode(node) == 0o4670
    assert rules_of(mem, node, ACCESS) == {USER_OBJ: 6, USER: 7, GROUP_OBJ: 5, MASK: 7, OTHER: 0}


def test_chmod_changes_the_list() -> None:
    mem = Driver()
    node = mem.make(b"file")
    mem.setxattr(node, ACCESS, acl(ALICE_MAY_ALL))
    mem.setattr(node, SetAttr(mode=0o741))
    assert rules_of(mem, node, ACCESS) == {USER_OBJ: 7, USER: 7, GROUP_OBJ: 5, MASK: 4, OTHER: 1}
    assert mem.mode(node) == 0o741


def test_a_list_that_says_no_more_than_a_mode_is_one() -> None:
    mem = Driver()
    node = mem.make(b"file")
    mem.setxattr(node, ACCESS, acl(ALICE_MAY_ALL))
    mem.setxattr(node, ACCESS, acl([(USER_OBJ, 7, NO_ID), (GROUP_OBJ, 4, NO_ID), (OTHER, 1, NO_ID)]))
    assert (mem.mode(node), list(mem.fs.listxattr(ROOT_USER, node))) == (0o741, [])


def test_a_list_can_be_removed_also_if_there_is_none() -> None:
    mem = Driver()
    node = mem.make(b"file")
    mem.setxattr(node, ACCESS, acl(ALICE_MAY_ALL))
    for _ in range(2):
        mem.fs.removexattr(ROOT_USER, node, ACCESS)
    assert error_of(lambda: mem.fs.getxattr(ROOT_USER, node, ACCESS)) == errno.ENODATA
    assert mem.fs.space.used == 0


def test_setting_a_list_takes_setgid_where_the_kernel_says_so() -> None:
    mem = Driver()
    node = mem.make(b"file", mode=0o2755)
    mem.fs.setxattr(ROOT_USER, node, ACCESS, memoryview(acl(ALICE_MAY_ALL)), 0, kill_sgid=True)
    assert mem.mode(node) == 0o670


def test_what_is_made_in_a_folder_inherits_its_default_list() -> None:
    mem = Driver()
    folder = mem.mkdir(b"folder")
    mem.setxattr(folder, DEFAULT, acl(ALICE_MAY_ALL))
    assert mem.mode(folder) == 0o755
    careful = FakeContext(umask=0o077)
    file = mem.make(b"file", folder, mode=0o664, ctx=careful)
    assert mem.mode(file) == 0o660, "the list decides, not the umask"
    assert rules_of(mem, file, ACCESS) == {USER_OBJ: 6, USER: 7, GROUP_OBJ: 5, MASK: 6, OTHER: 0}
    inner = mem.mkdir(b"inner", folder, mode=0o777, ctx=careful)
    assert mem.mode(inner) == 0o670
    assert rules_of(mem, inner, DEFAULT) == rules_of(mem, folder, DEFAULT)
    assert rules_of(mem, inner, ACCESS)[MASK] == 7
    link = mem.symlink(b"link", b"x", folder)
    assert list(mem.fs.listxattr(ROOT_USER, link)) == []


def test_a_minimal_default_list_works_like_a_umask() -> None:
    mem = Driver()
    folder = mem.mkdir(b"folder")
    mem.setxattr(folder, DEFAULT, acl([(USER_OBJ, 7, NO_ID), (GROUP_OBJ, 5, NO_ID), (OTHER, 0, NO_ID)]))
    file = mem.make(b"file", folder, mode=0o666)
    assert (mem.mode(file), list(mem.fs.listxattr(ROOT_USER, file))) == (0o640, [])


def test_inherited_lists_count_and_need_space() -> None:
    mem = Driver(size=4096)
    folder = mem.mkdir(b"folder")
    mem.setxattr(folder, DEFAULT, acl(ALICE_MAY_ALL))
    mem.setxattr(folder, b"user.fill", b"x" * (mem.fs.space.free - 9 - 10))
    assert error_of(lambda: mem.mkdir(b"inner", folder)) == errno.ENOSPC
    assert (mem.names(folder), mem.fs.space.free) == ([], 10)


def test_only_a_folder_has_a_default_list() -> None:
    mem = Driver()
    node = mem.make(b"file")
    assert error_of(lambda: mem.setxattr(node, DEFAULT, acl(ALICE_MAY_ALL))) == errno.EACCES
    assert error_of(lambda: mem.fs.getxattr(ROOT_USER, node, DEFAULT)) == errno.ENODATA


def test_a_symbolic_link_has_no_list() -> None:
    mem = Driver()
    link = mem.symlink(b"link", b"x")
    assert error_of(lambda: mem.setxattr(link, ACCESS, acl(ALICE_MAY_ALL))) == errno.EOPNOTSUPP


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\2\0\0",
        acl(ALICE_MAY_ALL)[:-1],
        struct.pack("<I", 1) + acl(ALICE_MAY_ALL)[4:],
        acl(ALICE_MAY_ALL[1:]),
        acl([*ALICE_MAY_ALL, (OTHER, 0, NO_ID)]),
        acl([(USER_OBJ, 8, NO_ID), (GROUP_OBJ, 5, NO_ID), (OTHER, 0, NO_ID)]),
    ],
)
def test_bytes_that_are_no_list_are_refused(value: bytes) -> None:
    mem = Driver()
    node = mem.make(b"file")
    assert error_of(lambda: mem.setxattr(node, ACCESS, value)) == errno.EINVAL


def test_an_empty_list_removes_the_list() -> None:
    mem = Driver()
    folder = mem.mkdir(b"folder")
    mem.setxattr(folder, DEFAULT, acl(ALICE_MAY_ALL))
    mem.setxattr(folder, DEFAULT, acl([]))
    assert list(mem.fs.listxattr(ROOT_USER, folder)) == []


def test_there_are_no_lists_where_the_kernel_does_not_apply_them() -> None:
    mem = Driver(default_permissions=False)
    node = mem.make(b"file")
    assert error_of(lambda: mem.setxattr(node, ACCESS, acl(ALICE_MAY_ALL))) == errno.EOPNOTSUPP
    assert error_of(lambda: mem.fs.getxattr(ROOT_USER, node, ACCESS)) == errno.EOPNOTSUPP


# --- permissions without the kernel's help ------------------------------------------------------


@pytest.fixture
def guarded() -> Driver:
    """A mount whose `default_permissions` is off: root's folder that nobody else may write to, and Alice's things."""
    mem = Driver(default_permissions=False, mode="0755")
    folder = mem.mkdir(b"alice", mode=0o750)
    mem.setattr(folder, SetAttr(uid=1000, gid=2000))
    file = mem.make(b"file", folder, mode=0o640, data=b"data")
    mem.setattr(file, SetAttr(uid=1000, gid=2000))
    return mem


@pytest.mark.parametrize(
    ("mode", "ctx", "granted"),
    [
        (0o741, ALICE, R | W | X),
        (0o741, FakeContext(uid=5, gid=2000), R),
        (0o741, FakeContext(uid=5, gid=5, groups=(1, 2000)), R),
        (0o741, BOB, X),
        (0o077, ALICE, 0),
        (0o707, FakeContext(uid=5, gid=2000), 0),
        (0o000, ROOT_USER, R | W),
        (0o001, ROOT_USER, R | W | X),
    ],
)
def test_access_goes_by_owner_group_and_others(mode: int, ctx: FakeContext, granted: int) -> None:
    mem = Driver()
    node = mem.make(b"file", mode=mode)
    mem.setattr(node, SetAttr(uid=1000, gid=2000))
    for mask in range(8):
        if mask & ~granted:
            assert error_of(partial(mem.fs.access, ctx, node, mask)) == errno.EACCES
        else:
            mem.fs.access(ctx, node, mask)


def test_root_may_search_any_folder() -> None:
    mem = Driver()
    mem.fs.access(ROOT_USER, mem.mkdir(b"folder", mode=0), R | W | X)


def test_who_may_not_search_a_folder_finds_nothing(guarded: Driver) -> None:
    assert error_of(lambda: guarded.find(b"alice", b"file", ctx=BOB)) == errno.EACCES
    guarded.find(b"alice", b"file", ctx=FakeContext(uid=5, gid=2000))
    for name in (b"alice", b"missing"):
        timeout = guarded.fs.lookup(ROOT_USER, ROOT, name).entry_timeout
        assert timeout == 0, "or the kernel would show the name to others without asking"


def test_who_may_not_write_to_a_folder_makes_and_removes_nothing(guarded: Driver) -> None:
    folder, mem = guarded.find(b"alice"), guarded
    file = mem.find(b"alice", b"file")
    calls: list[Callable[[], object]] = [
        lambda: mem.make(b"new", folder, ctx=BOB),
        lambda: mem.mkdir(b"new", folder, ctx=BOB),
        lambda: mem.mknod(b"new", stat.S_IFIFO, parent=folder, ctx=BOB),
        lambda: mem.symlink(b"new", b"x", folder, ctx=BOB),
        lambda: mem.link(file, b"new", ctx=BOB),
        lambda: mem.fs.tmpfile(BOB, folder, 0o600, os.O_RDWR),
        lambda: mem.unlink(b"file", folder, ctx=BOB),
        lambda: mem.rmdir(b"alice", ctx=BOB),
        lambda: mem.rename(b"file", b"new", parent=folder, new_parent=folder, ctx=BOB),
        lambda: mem.rename(b"file", b"new", parent=folder, ctx=ALICE),
        lambda: mem.fs.opendir(BOB, folder, os.O_RDONLY),
    ]
    assert [error_of(call) for call in calls] == [errno.EACCES] * len(calls)
    mem.make(b"new", folder, ctx=ALICE)
    mem.unlink(b"new", folder, ctx=ALICE)


def test_a_folder_that_one_may_not_write_to_does_not_change_parents() -> None:
    mem = Driver(default_permissions=False)
    mem.mkdir(b"locked", mode=0o555, ctx=ALICE)
    new = mem.mkdir(b"new", ctx=ALICE)
    assert error_of(lambda: mem.rename(b"locked", b"in", new_parent=new, ctx=ALICE)) == errno.EACCES
    mem.rename(b"locked", b"renamed", ctx=ALICE)


def test_in_a_sticky_folder_one_removes_only_one_s_own() -> None:
    mem = Driver(default_permissions=False, mode="1777")
    mem.make(b"alice", ctx=ALICE)
    mem.make(b"bob", ctx=BOB)
    assert error_of(lambda: mem.unlink(b"alice", ctx=BOB)) == errno.EPERM
    assert error_of(lambda: mem.rename(b"bob", b"alice", ctx=BOB)) == errno.EPERM
    mem.unlink(b"alice", ctx=ALICE)
    mem.unlink(b"bob", ctx=ROOT_USER)


@pytest.mark.parametrize(
    ("flags", "allowed"),
    [
        (os.O_RDONLY, True),
        (os.O_WRONLY, False),
        (os.O_RDWR, False),
        (os.O_RDONLY | os.O_TRUNC, False),
        (os.O_RDONLY | 0x20, False),
    ],
)
def test_open_goes_by_what_it_is_for(guarded: Driver, flags: int, allowed: bool) -> None:
    file = guarded.find(b"alice", b"file")
    member = FakeContext(uid=5, gid=2000)
    if allowed:
        guarded.fs.open(member, file, flags)
    else:
        assert error_of(lambda: guarded.fs.open(member, file, flags)) == errno.EACCES
    assert guarded.read(file) == b"data"


def test_who_makes_a_file_may_write_to_it_whatever_its_mode() -> None:
    mem = Driver(default_permissions=False)
    entry, _ = mem.fs.create(ALICE, ROOT, b"file", 0o444, os.O_WRONLY)
    assert mem.mode(mem.kernel.took(entry)) == 0o444


@pytest.mark.parametrize(
    ("changes", "ctx", "expected"),
    [
        (SetAttr(mode=0o600), BOB, errno.EPERM),
        (SetAttr(mode=0o600), ALICE, None),
        (SetAttr(uid=1001), ALICE, errno.EPERM),
        (SetAttr(uid=1000), ALICE, None),
        (SetAttr(uid=1000), BOB, errno.EPERM),
        (SetAttr(uid=1001, gid=5), ROOT_USER, None),
        (SetAttr(gid=1000), ALICE, None),
        (SetAttr(gid=2000), ALICE, None),
        (SetAttr(gid=3000), ALICE, errno.EPERM),
        (SetAttr(gid=1001), BOB, errno.EPERM),
        (SetAttr(uid=1000, gid=2000), FakeContext(uid=1000, gid=1000), None),
        (SetAttr(atime_ns=1), BOB, errno.EPERM),
        (SetAttr(atime_ns=NOW, mtime_ns=1), BOB, errno.EPERM),
        (SetAttr(atime_ns=NOW, mtime_ns=NOW), BOB, errno.EACCES),
        (SetAttr(atime_ns=NOW, mtime_ns=NOW), FakeContext(uid=5, gid=2000), None),
        (SetAttr(atime_ns=1, mtime_ns=1), ALICE, None),
        (SetAttr(size=0), BOB, errno.EACCES),
        (SetAttr(size=0, mtime_ns=NOW), FakeContext(uid=5, gid=2000), None),
    ],
)
def test_setattr_goes_by_owner_or_the_permission_to_write(
    changes: SetAttr, ctx: FakeContext, expected: int | None
) -> None:
    mem = Driver(default_permissions=False)
    file = mem.make(b"file", mode=0o660)
    mem.setattr(file, SetAttr(uid=1000, gid=2000))
    if expected is None:
        mem.setattr(file, changes, ctx=ctx)
    else:
        assert error_of(lambda: mem.setattr(file, changes, ctx=ctx)) == expected


def test_who_opened_a_file_for_writing_may_truncate_it(guarded: Driver) -> None:
    file = guarded.find(b"alice", b"file")
    guarded.setattr(file, SetAttr(size=0), ctx=BOB, fh=handle_of(file))
    assert guarded.read(file) == b""


def test_chmod_by_an_owner_outside_the_group_drops_setgid() -> None:
    mem = Driver(default_permissions=False)
    file = mem.make(b"file")
    mem.setattr(file, SetAttr(uid=1001, gid=2000))
    mem.setattr(file, SetAttr(mode=0o2755), ctx=BOB)
    assert mem.mode(file) == 0o755
    mem.setattr(file, SetAttr(mode=0o2755))
    assert mem.mode(file) == 0o2755


def test_user_attributes_go_by_read_and_write_permission(guarded: Driver) -> None:
    file = guarded.find(b"alice", b"file")
    guarded.setxattr(file, b"user.key", b"value", ctx=ALICE)
    member = FakeContext(uid=5, gid=2000)
    assert guarded.fs.getxattr(member, file, b"user.key") == b"value"
    assert error_of(lambda: guarded.setxattr(file, b"user.key", b"", ctx=member)) == errno.EACCES
    assert error_of(lambda: guarded.fs.removexattr(member, file, b"user.key")) == errno.EACCES
    assert error_of(lambda: guarded.fs.getxattr(BOB, file, b"user.key")) == errno.EACCES


def test_where_the_kernel_checks_nothing_is_checked_twice() -> None:
    mem = Driver(mode="0700")
    mem.make(b"file", mode=0o000, ctx=BOB)
    mem.fs.open(BOB, mem.find(b"file", ctx=BOB), os.O_RDWR)
