"""Calls on attributes, extended attributes and access control lists."""

from hypothesis import strategies as st
from hypothesis.stateful import rule
from mount.differential import values
from mount.differential.machine import Handle, Machine, handles

actors = st.integers(0, 3)


class AttributeRules(Machine):
    """What is asked and set, by name and by descriptor."""

    @rule(actor=actors, path=values.paths, follow=st.booleans())
    def stat(self, actor: int, path: bytes, follow: bool) -> None:
        self.same(actor, "stat", path, follow)

    @rule(actor=actors, path=values.paths)
    def statx(self, actor: int, path: bytes) -> None:
        self.same(actor, "statx", path)

    @rule(actor=actors, path=values.paths, mask=values.access_masks)
    def access(self, actor: int, path: bytes, mask: int) -> None:
        self.same(actor, "access", path, mask)

    @rule(actor=actors, path=values.paths, mode=values.modes)
    def chmod(self, actor: int, path: bytes, mode: int) -> None:
        self.same(actor, "chmod", path, mode)

    @rule(handle=handles, mode=values.modes)
    def fchmod(self, handle: Handle, mode: int) -> None:
        self.same(handle.actor, "fchmod", handle.slot, mode)

    @rule(actor=actors, path=values.paths, uid=values.uids, gid=values.gids, follow=st.booleans())
    def chown(self, actor: int, path: bytes, uid: int, gid: int, follow: bool) -> None:
        self.same(actor, "chown", path, uid, gid, follow)

    @rule(handle=handles, uid=values.uids, gid=values.gids)
    def fchown(self, handle: Handle, uid: int, gid: int) -> None:
        self.same(handle.actor, "fchown", handle.slot, uid, gid)

    @rule(actor=actors, path=values.paths, length=values.offsets)
    def truncate(self, actor: int, path: bytes, length: int) -> None:
        self.same(actor, "truncate", path, length)

    @rule(actor=actors, path=values.paths, atime=values.times, mtime=values.times, follow=st.booleans())
    def utimensat(self, actor: int, path: bytes, atime: int, mtime: int, follow: bool) -> None:
        self.same(actor, "utimensat", path, atime, mtime, follow)

    @rule(handle=handles, atime=values.times, mtime=values.times)
    def futimens(self, handle: Handle, atime: int, mtime: int) -> None:
        self.same(handle.actor, "futimens", handle.slot, atime, mtime)

    @rule(
        actor=actors,
        path=values.paths,
        name=values.xattr_names,
        value=values.xattr_values,
        flags=values.xattr_flags,
    )
    def setxattr(self, actor: int, path: bytes, name: str, value: bytes, flags: int) -> None:
        self.same(actor, "setxattr", path, name, value, flags)

    @rule(actor=actors, path=values.paths, name=values.acl_names, value=values.acls)
    def set_acl(self, actor: int, path: bytes, name: str, value: bytes) -> None:
        self.same(actor, "setxattr", path, name, value, 0)

    @rule(actor=actors, path=values.paths, name=st.one_of(values.xattr_names, values.acl_names))
    def getxattr(self, actor: int, path: bytes, name: str) -> None:
        self.same(actor, "getxattr", path, name)

    @rule(actor=actors, path=values.paths)
    def listxattr(self, actor: int, path: bytes) -> None:
        self.same(actor, "listxattr", path)

    @rule(actor=actors, path=values.paths, name=st.one_of(values.xattr_names, values.acl_names))
    def removexattr(self, actor: int, path: bytes, name: str) -> None:
        self.same(actor, "removexattr", path, name)
