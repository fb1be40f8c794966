"""Calls on names, and calls of several processes at once."""

from hypothesis import strategies as st
from hypothesis.stateful import rule
from mount.differential import values
from mount.differential.actors import Call
from mount.differential.machine import Handle, Machine, handles

actors = st.integers(0, 3)


class NameRules(Machine):
    """What makes, moves, removes and lists."""

    @rule(actor=actors, path=values.paths, mode=values.modes)
    def mkdir(self, actor: int, path: bytes, mode: int) -> None:
        self.same(actor, "mkdir", path, mode)

    @rule(actor=actors, path=values.paths, kind=values.node_modes, mode=values.modes, device=values.devices)
    def mknod(self, actor: int, path: bytes, kind: int, mode: int, device: int) -> None:
        self.same(actor, "mknod", path, kind | mode, device)

    @rule(actor=actors, text=values.texts, path=values.paths)
    def symlink(self, actor: int, text: bytes, path: bytes) -> None:
        self.same(actor, "symlink", text, path)

    @rule(actor=actors, old=values.paths, new=values.paths, follow=st.booleans())
    def link(self, actor: int, old: bytes, new: bytes, follow: bool) -> None:
        self.same(actor, "link", old, new, follow)

    @rule(handle=handles, new=values.paths, by_proc=st.booleans())
    def link_open(self, handle: Handle, new: bytes, by_proc: bool) -> None:
        self.same(handle.actor, "link_open", handle.slot, new, by_proc)

    @rule(actor=actors, path=values.paths)
    def unlink(self, actor: int, path: bytes) -> None:
        self.same(actor, "unlink", path)

    @rule(actor=actors, path=values.paths)
    def rmdir(self, actor: int, path: bytes) -> None:
        self.same(actor, "rmdir", path)

    @rule(actor=actors, old=values.paths, new=values.paths, flags=values.rename_flags)
    def rename(self, actor: int, old: bytes, new: bytes, flags: int) -> None:
        self.same(actor, "rename", old, new, flags)

    @rule(actor=actors, path=values.paths)
    def readlink(self, actor: int, path: bytes) -> None:
        self.same(actor, "readlink", path)

    @rule(actor=actors, path=values.paths)
    def listdir(self, actor: int, path: bytes) -> None:
        self.same(actor, "listdir", path)

    # --- processes ---------------------------------------------------------------------------------------------------

    @rule(actor=actors, umask=values.umasks)
    def umask(self, actor: int, umask: int) -> None:
        self.pair.actors[actor].ask("umask", umask)

    @rule(actor=actors)
    def move_to_another_cpu(self, actor: int) -> None:
        self.pair.actors[actor].ask("move")

    @rule(calls=st.tuples(*(values.own_calls(b"own%d" % actor) for actor in range(4))))
    def work_at_once(self, calls: tuple[list[Call], ...]) -> None:
        """Each in a folder of its own, so that the results do not depend on who is first."""
        for actor in range(len(calls)):
            self.same(0, "mkdir", b"own%d" % actor, 0o755)
            self.same(0, "chown", b"own%d" % actor, self.pair.actors[actor].user.uid, -1, False)
        self.same_at_once(dict(enumerate(calls)))
