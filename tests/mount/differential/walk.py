"""Calls, one after another, made in every world; the worlds must always look the same.

A `Walk` notes the calls as they were made, so that a failure shows them as a case for test_cases.py.
"""

import contextlib
import itertools
import os
import random
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mount.differential.actors import CPUS, Actor
from mount.differential.calls import OWN_FILES, ROWS, USERS, Call, Row, own_calls, shown
from mount.differential.comparison import Rules, View, differing
from mount.differential.values import New, Nth, NthFile, NthMapping
from mount.differential.worlds import Attributes, Failed
from mount.posix.users import User, alice, bob, carol, root

LOOK_EVERY = 3
"""Calls between two looks at everything."""
SET_IDS = stat.S_ISUID | stat.S_ISGID
PATIENCE = 30.0
"""Seconds until space that nobody uses must be free."""
REFUSALS = (Failed("EACCES"), Failed("EPERM"))
OPENS = {"open", "open_in", "open_again", "open_by_handle", "dup"}
WHO: dict[str, User] = {"root": root, "alice": alice, "bob": bob, "carol": carol}

BEGINNING = (
    *(Call("root", "mkdir", (path, 0o755)) for path in (b"a", b"b", b"c")),
    Call("root", "chmod", (b"a", 0o777)),
    Call("root", "chmod", (b"b", 0o1777)),
    Call("root", "chown", (b"c", alice.uid, alice.gid, False)),
    Call("root", "chmod", (b"c", 0o2775)),
    *(
        Call(user, operation, arguments)
        for user, path in zip(USERS, (b"x", b"a/x", b"b/x", b"b/y"), strict=True)
        for operation, arguments in (
            ("open", (0, path, os.O_RDWR | os.O_CREAT, 0o666)),
            ("write", (0, 1, 10_000)),
            ("close", (0,)),
        )
    ),
)
"""The folders and files that every walk begins with."""


class Place(NamedTuple):
    """A world's folder. `source`: where a mount keeps what it shows, if that can be seen."""

    name: str
    top: Path
    source: Path | None
    rules: Rules


class Differs(AssertionError):
    """Two worlds do not agree."""


class Open(NamedTuple):
    """An open or mapped file: whose, and its number; what it is in each world; a mapping's length in bytes."""

    user: str
    number: int
    found: tuple[Attributes, ...]
    length: int = 0

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.found[0].mode)


class Worlds:
    """What is compared: folders on a native filesystem, the first, and on mounts; and the processes that work there."""

    def __init__(
        self, places: Sequence[Place], leaves_out: Callable[[Call], bool], users: Sequence[str] = USERS
    ) -> None:
        """`leaves_out`: calls that are not tried at random, because they differ by nature. `users`: whose are tried."""
        self.places = places
        self.users = users
        self.leaves_out = leaves_out
        self.actors = {user: Actor(WHO[user], CPUS[number % len(CPUS)]) for number, user in enumerate(USERS)}
        self._numbers = itertools.count()

    def fresh(self) -> bytes:
        return b"walk%d" % next(self._numbers)

    def renew(self, user: str) -> None:
        """Kills the user's process, with all that it has open; another takes its place."""
        old = self.actors[user]
        old.end()
        self.actors[user] = Actor(old.user, old.cpu)

    def end(self) -> None:
        for actor in self.actors.values():
            actor.end()


def sets_ids(call: Call) -> bool:
    """Whether it sets S_ISUID or S_ISGID."""
    return call.operation in ("chmod", "lchmod", "fchmod") and bool(call.arguments[1] & SET_IDS)


class Walk:
    """One walk, in a new folder."""

    def __init__(self, worlds: Worlds) -> None:
        self.worlds = worlds
        self.views = [View(place.rules) for place in worlds.places]
        self.made: list[Call] = []
        self.files: list[Open] = []
        self.mappings: list[Open] = []
        self.paths: list[bytes] = []
        self.folders: list[bytes] = [b""]
        self._numbers = itertools.count(1)
        self._name = worlds.fresh()
        self._folder = self._name + b"/a/b/c"  # deep enough for `..`
        self._tops = [bytes(place.top) for place in worlds.places]
        self._free: tuple[object, ...] = ()

    def begin(self) -> None:
        """Makes the folder, and what every walk begins with."""
        for user in USERS:
            self._begin(user)
        self._free = self._ask("root", "free")
        self._ask("root", "make_top")
        for call in BEGINNING:
            self.do(*call)
        self.look()

    def _begin(self, user: str) -> None:
        self._ask(user, "umask", 0o022)
        self._ask(user, "begin", self._folder, *self._tops)

    def _ask(self, user: str, *call: object) -> tuple[object, ...]:
        return self.worlds.actors[user].ask(*call)

    # --- calls -------------------------------------------------------------------------------------------------------

    def step(self, user: str, row: Row, drawn: Sequence[object]) -> None:
        """A call whose arguments are yet to be found among what is there; none if there is nothing of the kind."""
        chosen = next((value for value in drawn if isinstance(value, NthFile | NthMapping)), None)
        if chosen is not None:
            choice = self.files if isinstance(chosen, NthFile) else self.mappings
            if not choice:
                return
            user = choice[chosen.n % len(choice)].user
        call = Call(user, row.operation, tuple(self._found(user, value) for value in drawn))
        if not (self.worlds.leaves_out(call) or self._seeks_in_folder(call) or self._is_privilege_of_open(call)):
            self.do_and_look(*call)

    def _seeks_in_folder(self, call: Call) -> bool:
        """tmpfs refuses what fs/fuse/dir.c leaves to generic_file_llseek(); `list_and_seek` seeks in folders."""
        file = self._file(call.user, call.arguments[0]) if call.operation in ("lseek", "find") else None
        return file is not None and file.is_folder

    def _is_privilege_of_open(self, call: Call) -> bool:
        """Set-id bits that an open file gets: what the kernel writes by itself takes them, even if root writes."""
        if not sets_ids(call):
            return False
        if call.operation == "fchmod":
            file = self._file(call.user, call.arguments[0])
            return file is not None and not file.is_folder
        path = call.arguments[0]
        if path.startswith(b"@"):  # wherever that is
            return True
        try:
            number = os.stat(self._tops[0] + b"/" + self._folder + b"/" + path).st_ino
        except OSError:
            return False
        return number in {one.found[0].ino for one in (*self.files, *self.mappings) if not one.is_folder}

    def _found(self, user: str, value: object) -> object:
        match value:
            case Nth():
                return value.among(self.paths, self.folders)
            case NthFile(n):
                own = [file.number for file in self.files if file.user == user]
                return own[n % len(own)]
            case NthMapping(n):
                own = [mapping.number for mapping in self.mappings if mapping.user == user]
                return own[n % len(own)]
            case New():
                return next(self._numbers)
        return value

    def do(self, user: str, operation: str, arguments: tuple[Any, ...]) -> bool:
        """Makes a call in all worlds; the results must agree. True if it succeeded."""
        call = Call(user, operation, arguments)
        self.made.append(call)
        match operation, arguments:
            case "die", ():
                self.worlds.renew(user)
                self._begin(user)
                self.files = [file for file in self.files if file.user != user]
                self.mappings = [mapping for mapping in self.mappings if mapping.user != user]
                return True
            case "all_at_once", (int(seed),):
                self._at_once(seed)
                return True
            case (("map_read" | "map_write"), _):
                arguments = self._within(user, operation, *arguments)
        return self._make(call._replace(arguments=arguments))

    def do_and_look(self, user: str, operation: str, arguments: tuple[Any, ...]) -> None:
        self.do(user, operation, arguments)
        if len(self.made) % LOOK_EVERY == 0:
            self.look()

    def _make(self, call: Call) -> bool:
        results = self._ask(call.user, call.operation, *call.arguments)
        return not results or self._agree(call, results)

    def _within(self, user: str, operation: str, number: int, offset: int, *others: Any) -> tuple[Any, ...]:
        """The range, as far as it is mapped; a read's ends with a length, a write's, too."""
        length = next((one.length for one in self.mappings if (one.user, one.number) == (user, number)), 4096)
        offset %= length
        return number, offset, *others[:-1], min(others[-1], length - offset)

    def _at_once(self, seed: int) -> None:
        """Each process works in a folder of its own, so that the results do not depend on who is first."""
        calls = {
            user: [call for call in own_calls(seed, user) if not (self.worlds.leaves_out(call) or sets_ids(call))]
            for user in USERS
        }
        for user in USERS:
            own = b"own-" + user.encode()
            self._make(Call("root", "mkdir", (own, 0o755)))
            self._make(Call("root", "chown", (own, WHO[user].uid, -1, False)))
        for user, its in calls.items():
            closing = [("close", number) for number in OWN_FILES]
            self.worlds.actors[user].tell([*((name, *values) for _, name, values in its), *closing])
        heard = {user: self.worlds.actors[user].hear() for user in calls}
        for user, its in calls.items():
            for call, results in zip(its, heard[user], strict=False):
                self._agree(call, results)

    def _agree(self, call: Call, results: tuple[object, ...]) -> bool:
        """Compares the results and notes what was opened."""
        wanted = self._comparable(0, results[0])
        for number, place in enumerate(self.worlds.places[1:], 1):
            got = self._comparable(number, results[number])
            if not self._is_ignored(call, results, number) and (what := _difference(wanted, got)):
                raise Differs(f"{place.name}: {call.operation}: {what}\n{shown([call])}")
        if isinstance(results[0], Failed):
            return False
        self._note(call, results)
        return True

    def _comparable(self, number: int, result: object) -> object:
        return self.views[number].comparable(result) if isinstance(result, Attributes) else result

    def _is_ignored(self, call: Call, results: tuple[object, ...], number: int) -> bool:
        """Whether the world may tell something else."""
        rules = self.views[number].rules
        if not rules.refusals and results[0] in REFUSALS and isinstance(results[number], Failed):
            return True
        match call.operation:
            case "find":
                return not rules.holes or self._is_mapped(call)
            case "list_some" | "list_rest" | "statfs":
                return not rules.moments
            case operation:
                return operation in rules.ignored

    def _is_mapped(self, call: Call) -> bool:
        file = self._file(call.user, call.arguments[0])
        return file is None or self.views[0].is_mapped(file.found[0].ino)

    def _file(self, user: str, number: object) -> Open | None:
        return next((file for file in self.files if (file.user, file.number) == (user, number)), None)

    def _note(self, call: Call, results: tuple[object, ...]) -> None:
        match call.operation, call.arguments:
            case "close", (int(number),):
                self.files = [file for file in self.files if (file.user, file.number) != (call.user, number)]
            case "unmap", (int(number),):
                self.mappings = [one for one in self.mappings if (one.user, one.number) != (call.user, number)]
            case "map", (int(number), int(slot), int(pages), _, _):
                if file := self._file(call.user, slot):
                    for view, its in zip(self.views, file.found, strict=True):
                        view.map(its.ino)
                    self.mappings.append(Open(call.user, number, file.found, pages * 4096))
            case operation, (int(number), *_) if operation in OPENS and number > 0:
                self.files = [file for file in self.files if (file.user, file.number) != (call.user, number)]
                found = tuple(result for result in results if isinstance(result, Attributes))
                self.files.append(Open(call.user, number, found))

    # --- looks -------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """All objects must agree."""
        native, *trees = self._ask("root", "tree")
        if not isinstance(native, dict):
            raise Differs(f"the native world cannot be listed: {native}")
        self.paths = [path for path in native if path]
        self.folders = [path for path, found in native.items() if stat.S_ISDIR(found.mode)]
        wanted = {path: self.views[0].comparable(found) for path, found in native.items()}
        wanted_moves = self.views[0].moved(native)
        for place, view, tree in zip(self.worlds.places[1:], self.views[1:], trees, strict=True):
            if not isinstance(tree, dict):
                raise Differs(f"{place.name} cannot be listed: {tree}")
            if list(tree) != list(native):
                raise Differs(f"{place.name}: other names: {sorted(tree.keys() ^ native.keys())}")
            for path, found in tree.items():
                if what := differing(wanted[path], view.comparable(found)):
                    raise Differs(f"{place.name}: {path!r}: {what}")
            for path, moved in view.moved(tree).items():
                if moved != wanted_moves.get(path, moved):
                    raise Differs(
                        f"{place.name}: {path!r}: times that changed: {moved!r}, natively {wanted_moves[path]!r}"
                    )

    def end(self) -> None:
        """The last comparison, when nothing is open, of contents too; and all space is free again."""
        self.look()
        for user in USERS:
            self._ask(user, "begin", self._folder, *self._tops)
        self._compare_contents()
        self._ask("root", "remove_top", self._name)
        deadline = time.monotonic() + PATIENCE
        while (free := self._ask("root", "free")) != self._free:
            if time.monotonic() > deadline:
                raise Differs(f"free blocks and inodes: before {self._free}, after {free}")
            time.sleep(0.01)

    def _compare_contents(self) -> None:
        """Of all worlds, and of what lies beneath them."""
        sources = [(place.name, place.source) for place in self.worlds.places if place.source is not None]
        beneath = [bytes(source) for _, source in sources]
        self._ask("root", "begin", self._folder, *self._tops, *beneath)
        names = [place.name for place in self.worlds.places] + [f"beneath {name}" for name, _ in sources]
        native, *others = self._ask("root", "contents")
        self._ask("root", "begin", self._folder, *self._tops)
        assert isinstance(native, dict)
        for name, found in zip(names[1:], others, strict=True):
            if not isinstance(found, dict) or list(found) != list(native):
                raise Differs(f"{name}: other names: {found}")
            for path, expected in native.items():
                if found[path] != expected:
                    raise Differs(f"{name}: contents of {path!r}: {short(found[path])} instead of {short(expected)}")

    def abandon(self) -> None:
        """After a failure: lets go of what is open, as far as that works."""
        for user in USERS:
            self.worlds.renew(user)

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Adds what was done to an exception that the block raises."""
        try:
            yield
        except BaseException as error:
            error.add_note(case(self))
            self.abandon()
            raise


def take(worlds: Worlds, calls: Sequence[Call]) -> None:
    """A walk of calls that are known. Raises Differs."""
    walk = Walk(worlds)
    with walk.noted():
        walk.begin()
        for call in calls:
            walk.do_and_look(*call)
        walk.end()


def wander(worlds: Worlds, seed: int, length: int) -> None:
    """A walk whose calls follow from the seed: the same ones each time, of a part of all calls."""
    chance = random.Random(seed)
    rows = chance.sample(ROWS, len(ROWS) * 2 // 3)
    walk = Walk(worlds)
    with walk.noted():
        walk.begin()
        for row in chance.choices(rows, [row.weight for row in rows], k=length):
            walk.step(chance.choice(worlds.users), row, row.draw(chance))
        walk.end()


def case(walk: Walk) -> str:
    """What was done, for test_cases.py."""
    return f"as a case for test_cases.py:\n{shown(walk.made[len(BEGINNING) :])}"


def _difference(wanted: object, got: object) -> str:
    if isinstance(wanted, dict) and isinstance(got, dict):
        return differing(wanted, got)
    return "" if wanted == got else f"{short(got)} instead of {short(wanted)}"


def short(value: object) -> str:
    """Long bytes by their length and a hash, so that two that differ look different."""
    if isinstance(value, bytes) and len(value) > 40:
        return f"<{len(value)} bytes {value[:16]!r} {hash(value) & 0xFFFF:04x}>"
    if isinstance(value, tuple) and type(value) is tuple:
        return f"({', '.join(map(short, value))})"
    return repr(value)
