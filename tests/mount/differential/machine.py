"""Two folders, several processes, and the demand that both folders always look the same.

`Machine` compares; the rules, which are the calls, are in file_rules, name_rules and attribute_rules.
"""

import itertools
import os
import shutil
import stat
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple
from mount.differential.actors import Actor, Call
from mount.differential.comparison import Rules, View
from mount.differential.values import Nth
from mount.differential.worlds import Attributes, Failed, World
from mount.posix.users import alice

LOOK_EVERY = 3
"""Steps between two looks at everything."""


class Pair:
    """What is compared: folders on a native filesystem and on a mount, and the processes that work in them.

    `source` is where the mount keeps what it shows, if that can be seen.
    """

    def __init__(self, native: Path, mount: Path, source: Path | None, actors: list[Actor], rules: Rules) -> None:
        self.native = native
        self.mount = mount
        self.source = source
        self.actors = actors
        self.rules = rules
        self._numbers = itertools.count()

    def begin(self) -> str:
        """Makes a new folder in both worlds and sends all processes there; returns its name."""
        name = f"example{next(self._numbers)}"
        for top in (self.native, self.mount):
            (top / name).mkdir()
            (top / name).chmod(0o777)
        for actor in self.actors:
            actor.ask("umask", 0o022)
            actor.ask("begin", bytes(self.native / name), bytes(self.mount / name))
        return name

    def end(self, name: str) -> None:
        """Removes the folder."""
        for top in (self.native, self.mount):
            shutil.rmtree(top / name)


class Handle(NamedTuple):
    """An open file: of which process, and under which number."""

    actor: int
    slot: int


class Mapped(NamedTuple):
    """A mapped file."""

    actor: int
    number: int
    length: int


def or_nothing(found: Handle | Mapped | None) -> Any:
    """For a rule with a target: what was opened, if it was."""
    return multiple() if found is None else found


handles: Bundle[Handle] = Bundle("handles")
mappings: Bundle[Mapped] = Bundle("mappings")


class Machine(RuleBasedStateMachine):
    """`pair` is set by a subclass."""

    pair: ClassVar[Pair]

    handles = handles
    mappings = mappings

    def __init__(self) -> None:
        super().__init__()
        self.name = self.pair.begin()
        self.views = (View(self.pair.rules), View(self.pair.rules))
        self.objects: dict[Handle, int] = {}
        self.paths: list[bytes] = [b""]
        self.folders: list[bytes] = [b""]
        self._steps = 0
        self._numbers = itertools.count(1)

    @initialize(target=handles, flags=st.sampled_from([os.O_RDWR, os.O_RDWR | os.O_APPEND]))
    def populate(self, flags: int) -> Any:
        """Some files and folders; one file is open from the beginning, whatever rules are chosen."""
        for path, mode in ((b"a", 0o777), (b"b", 0o1777), (b"c", 0o755)):
            self.same(0, "mkdir", path, 0o755)
            self.same(0, "chmod", path, mode)
        self.same(0, "chown", b"c", alice.uid, alice.gid, False)
        self.same(0, "chmod", b"c", 0o2775)
        for actor, path in enumerate((b"x", b"a/x", b"b/x", b"b/y")):
            self.same(actor, "open", 0, path, os.O_RDWR | os.O_CREAT, 0o666)
            self.same(actor, "write", 0, 1, 10_000)
            self.same(actor, "close", 0)
        self.look()
        return or_nothing(self.same_open(0, "open", b"a/x", flags, 0))

    def next_number(self) -> int:
        """For an open or mapped file."""
        return next(self._numbers)

    # --- calls -------------------------------------------------------------------------------------------------------

    def same(self, actor: int, operation: str, *arguments: object) -> bool:
        """Makes a call in both worlds; the results must agree. True if it succeeded."""
        call = self._resolved(operation, *arguments)
        return self._agree(actor, call, self.pair.actors[actor].ask(*call))

    def _resolved(self, *call: object) -> Call:
        return tuple(it.among(self.paths, self.folders) if isinstance(it, Nth) else it for it in call)

    def same_at_once(self, calls: dict[int, list[Call]]) -> None:
        """Several processes make calls at the same time, each in a folder of its own."""
        for actor, its in calls.items():
            self.pair.actors[actor].tell(its)
        heard = {actor: self.pair.actors[actor].hear() for actor in calls}
        for actor, its in calls.items():
            for call, results in zip(its, heard[actor], strict=True):
                self._agree(actor, call, results)

    def same_open(self, actor: int, operation: str, *arguments: object) -> Handle | None:
        """A call that opens something, under a new number; that number is its first argument."""
        handle = Handle(actor, self.next_number())
        call = self._resolved(operation, handle.slot, *arguments)
        results = self.pair.actors[actor].ask(*call)
        if not self._agree(actor, call, results):
            return None
        self.objects[handle] = self._object(results)
        return handle

    def _object(self, results: tuple[object, ...]) -> int:
        found = results[0]
        assert isinstance(found, Attributes)
        return self.views[0].number(found.ino)

    def is_mapped(self, handle: Handle) -> bool:
        return self.objects[handle] in self.views[0].mapped

    def _agree(self, actor: int, call: Call, results: tuple[object, ...]) -> bool:
        native, mount = (self._comparable(view, result) for view, result in zip(self.views, results, strict=True))
        note(f"    {_short(call)} as {self.pair.actors[actor].user.uid}: {_short(native)}")
        if native != mount:
            who = self.pair.actors[actor].user
            raise AssertionError(f"{_short(call)} as {who.uid}: native {_short(native)}, mount {_short(mount)}")
        return not isinstance(native, Failed)

    def _comparable(self, view: View, result: object) -> object:
        return view.comparable(result) if isinstance(result, Attributes) else result

    # --- looks -------------------------------------------------------------------------------------------------------

    @invariant()
    def look_now_and_then(self) -> None:
        """Often enough to tell which call it was, and to leave time for calls."""
        self._steps += 1
        if self._steps % LOOK_EVERY == 0:
            self.look()

    def look(self) -> None:
        """All objects must agree."""
        native, mount = self.pair.actors[0].ask("tree")
        assert isinstance(native, dict), f"the native world cannot be listed: {native}"
        assert isinstance(mount, dict), f"the mount cannot be listed: {mount}"
        assert list(mount) == list(native), f"other names: {sorted(mount.keys() ^ native.keys())}"
        self.paths = [path for path in native if path]
        self.folders = [path for path, found in native.items() if stat.S_ISDIR(found.mode)]
        one, two = self.views
        for path in native:
            expected, got = one.comparable(native[path]), two.comparable(mount[path])
            assert got == expected, f"{path!r}: {_differing(expected, got)}"
        expected_moves, moves = one.moved(native), two.moved(mount)
        different = {path: expected_moves[path] for path in moves if moves[path] != expected_moves[path]}
        assert not different, f"ctime changed natively, not on the mount (False: the reverse): {different}"

    def all_contents_agree(self) -> None:
        """Run at the end, when nothing is open; as the superuser."""
        native = World(bytes(self.pair.native / self.name)).contents()
        tops = [self.pair.mount, *([self.pair.source] if self.pair.source else [])]
        for top in tops:
            found = World(bytes(top / self.name)).contents()
            assert list(found) == list(native), f"other names in {top}"
            for path, expected in native.items():
                assert found[path] == expected, f"{path!r} in {top}: {_short(expected)}, got {_short(found[path])}"

    def teardown(self) -> None:
        self.look()
        for actor in self.pair.actors:
            actor.ask("end")
        self.all_contents_agree()
        self.pair.end(self.name)


def _differing(expected: dict[str, object], got: dict[str, object]) -> str:
    return ", ".join(f"{key} {got[key]} instead of {expected[key]}" for key in expected if got[key] != expected[key])


def _short(value: object) -> str:
    """Long bytes by their length and a hash, so that two that differ look different."""
    if isinstance(value, bytes) and len(value) > 40:
        return f"<{len(value)} bytes {value[:16]!r} {hash(value) & 0xFFFF:04x}>"
    if isinstance(value, tuple) and type(value) is tuple:
        return f"({', '.join(map(_short, value))})"
    return repr(value)
