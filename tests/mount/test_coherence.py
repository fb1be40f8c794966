"""Changes beneath a passthrough mount become visible: within the timeouts, or (`cache: coherent`) though all is cached.

Every look goes through a process that may hang without hanging the test; every wait polls until a deadline.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from mount.clients import Caller, Client, caller, client, cpus, serve_class, status, wait_for
from mount.private import HOME, private
from mount.private import serve as serve_there
from mount.support import TRANSPORTS, ServedMount, ringmount, serve, write_config

SHORT = {"attr": 0.05, "entry": 0.05, "negative": 0.05}
NEVER = {"attr": 0, "entry": 0, "negative": 0}
"""With `cache: coherent` only for what is not watched: whatever a test sees there, it sees because it is watched."""
SECONDS = 20.0
ALL_TESTS = 600.0
"""Seconds after which a mount of many tests is killed."""


class Beneath:
    """A source folder, its mount, and a client of the mount."""

    def __init__(self, mount: ServedMount, source: Path, client: Caller) -> None:
        self.mount = mount
        self.source = source
        self.client = client

    def see(self, expression: str, name: str = "") -> Any:
        """The value of an expression about `p`, the path of `name` on the mount; the name of an OSError it ends in."""
        path = str(self.mount.path / name) if name else str(self.mount.path)
        try:
            return self.client.ask(f"(lambda p: {expression})({path!r})")
        except OSError as error:
            return type(error).__name__

    def shows(self, expression: str, name: str, value: Any) -> None:
        """Waits until the mount shows the value."""
        wait_for(lambda: self.see(expression, name) == value, f"{expression} of {name!r} to be {value!r}", SECONDS)


TEXT = "Path(p).read_text()"
SIZE = "os.stat(p).st_size"
MODE = "oct(os.stat(p).st_mode)"
LINKS = "os.stat(p).st_nlink"
EXISTS = "os.path.lexists(p)"
NAMES = "sorted(os.listdir(p))"
TARGET = "os.readlink(p)"
NOTE = "os.getxattr(p, 'user.note').decode()"


def rewrite(source: Path) -> None:
    (source / "file").write_text("other")


def overwrite_in_place(source: Path) -> None:
    """The size stays, and with it goes one way to tell that something has changed."""
    with (source / "file").open("r+") as file:
        file.write("FIRST")


def append(source: Path) -> None:
    with (source / "file").open("a") as file:
        file.write(" and more")


def truncate(source: Path) -> None:
    os.truncate(source / "file", 2)


def chmod(source: Path) -> None:
    (source / "file").chmod(0o604)


def make(source: Path) -> None:
    (source / "missing").write_text("made")


def remove(source: Path) -> None:
    (source / "file").unlink()


def rename(source: Path) -> None:
    (source / "file").rename(source / "missing")


def replace(source: Path) -> None:
    (source / "new").write_text("replaced")
    (source / "new").rename(source / "file")


def link(source: Path) -> None:
    os.link(source / "file", source / "missing")


def set_note(source: Path) -> None:
    os.setxattr(source / "file", "user.note", b"written")


def relink(source: Path) -> None:
    (source / "link").unlink()
    (source / "link").symlink_to("elsewhere")


def grow_folder(source: Path) -> None:
    (source / "folder" / "young").mkdir()


def move_folder(source: Path) -> None:
    (source / "folder").rename(source / "missing")


def swap_folder(source: Path) -> None:
    (source / "folder").rename(source / "was")
    (source / "folder").mkdir()
    (source / "folder" / "young").touch()


def write_deep(source: Path) -> None:
    (source / "folder" / "old").write_text("deep")


Look = tuple[str, str, Any, Any]
"""An expression, the name it is about, its value before and after."""

CHANGES: list[tuple[Callable[[Path], None], list[Look]]] = [
    (rewrite, [(TEXT, "file", "first", "other")]),
    (overwrite_in_place, [(TEXT, "file", "first", "FIRST")]),
    (append, [(SIZE, "file", 5, 14), (TEXT, "file", "first", "first and more")]),
    (truncate, [(SIZE, "file", 5, 2), (TEXT, "file", "first", "fi")]),
    (chmod, [(MODE, "file", "0o100644", "0o100604")]),
    (make, [(EXISTS, "missing", False, True), (NAMES, "", ["file", "folder", "link"], None)]),
    (remove, [(EXISTS, "file", True, False), (NAMES, "", ["file", "folder", "link"], ["folder", "link"])]),
    (rename, [(EXISTS, "file", True, False), (TEXT, "missing", "FileNotFoundError", "first")]),
    (replace, [(TEXT, "file", "first", "replaced"), (SIZE, "file", 5, 8)]),
    (link, [(LINKS, "file", 1, 2), (TEXT, "missing", "FileNotFoundError", "first")]),
    (set_note, [(NOTE, "file", "OSError", "written")]),
    (relink, [(TARGET, "link", "target", "elsewhere")]),
    (grow_folder, [(NAMES, "folder", ["old"], ["old", "young"]), (LINKS, "folder", 2, 3)]),
    (move_folder, [(EXISTS, "folder", True, False), (NAMES, "missing", "FileNotFoundError", ["old"])]),
    (swap_folder, [(NAMES, "folder", ["old"], ["young"])]),
    (write_deep, [(TEXT, "folder/old", "", "deep"), (SIZE, "folder/old", 0, 4)]),
]


def furnish(source: Path) -> None:
    source.mkdir()
    (source / "file").write_text("first")
    (source / "file").chmod(0o644)
    (source / "link").symlink_to("target")
    (source / "folder").mkdir()
    (source / "folder" / "old").touch()


def serve_source(folder: Path, transport: str, **settings: Any) -> Any:
    furnish(folder / "source")
    options = {"source": str(folder / "source")}
    return serve(folder, filesystem="passthrough", options=options, transport=transport, patience=ALL_TESTS, **settings)


@pytest.fixture(scope="module", params=TRANSPORTS)
def timed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beneath]:
    folder = tmp_path_factory.mktemp("timed")
    with serve_source(folder, request.param, timeouts=SHORT) as mount, caller() as client:
        yield Beneath(mount, folder / "source", client)


@pytest.fixture(scope="module", params=TRANSPORTS)
def coherent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beneath]:
    folder = tmp_path_factory.mktemp("coherent")
    with serve_source(folder, request.param, timeouts=NEVER, cache="coherent") as mount, caller() as client:
        yield Beneath(mount, folder / "source", client)


_rooms = iter(range(1 << 30))


def change_is_seen(beneath: Beneath, change: Callable[[Path], None], looks: list[Look]) -> None:
    """In a folder of its own: the state before is seen twice, so that it is cached; then the state after."""
    room = f"room-{next(_rooms)}"
    furnish(beneath.source / room)
    for expression, name, before, _ in looks:
        beneath.shows(expression, f"{room}/{name}", before)
        assert beneath.see(expression, f"{room}/{name}") == before
    change(beneath.source / room)
    for expression, name, _, after in looks:
        if after is None:
            after = sorted(os.listdir(beneath.source / room / name))
        beneath.shows(expression, f"{room}/{name}", after)


@pytest.mark.parametrize(("change", "looks"), CHANGES)
def test_a_change_beneath_is_seen_when_the_timeouts_are_over(
    timed: Beneath, change: Callable[[Path], None], looks: list[Look]
) -> None:
    change_is_seen(timed, change, looks)


@pytest.mark.parametrize(("change", "looks"), CHANGES)
def test_a_change_beneath_is_seen_though_everything_is_cached(
    coherent: Beneath, change: Callable[[Path], None], looks: list[Look]
) -> None:
    change_is_seen(coherent, change, looks)


def test_what_is_cached_takes_no_request(coherent: Beneath) -> None:
    furnish(coherent.source / "still")
    looks = [f"os.stat(p + '/{name}').st_mode" for name in ("file", "folder", "folder/old")]
    looks += ["os.path.exists(p + '/missing')", "os.readlink(p + '/link')"]
    everything = f"[[{', '.join(looks)}] for _ in range(100)][0]"

    def requests() -> int:
        return sum(int(worker["requests"]) for worker in status(coherent.mount)["workers"])

    def takes_none() -> bool:
        before = requests()
        coherent.see(everything, "still")
        return requests() == before

    wait_for(takes_none, "a hundred looks without a request", SECONDS)


def test_what_was_written_through_a_mapping_beneath_is_seen_once_it_is_closed(coherent: Beneath) -> None:
    code = (
        "import mmap, sys\nwith open(sys.argv[1], 'r+b') as f, mmap.mmap(f.fileno(), 0) as m:\n m[:5] = b'MAPPED'[:5]"
    )
    (coherent.source / "mapped").write_text("first")
    coherent.shows(TEXT, "mapped", "first")
    subprocess.run(["python3", "-c", code, str(coherent.source / "mapped")], check=True, timeout=30)
    coherent.shows(TEXT, "mapped", "MAPPE")


def test_ones_own_working_directory_keeps_its_path(coherent: Beneath) -> None:
    """Whoever makes a folder and goes there must find it there, whatever the watcher makes of the events."""
    furnish(coherent.source / "home")
    made = coherent.see(
        "[(os.mkdir(p + f'/{i}'), os.rename(p + f'/{i}', p + f'/m{i}'), os.chdir(p + f'/m{i}'), os.getcwd())[3]"
        " for i in range(200)]",
        "home",
    )
    assert made == [str(coherent.mount.path / "home" / f"m{i}") for i in range(200)]
    assert coherent.see("(os.getcwd(), os.chdir('/'))[0]", "home").endswith("/m199")


def test_a_change_through_another_mount_of_the_source_is_seen(coherent: Beneath, tmp_path: Path) -> None:
    options = {"source": str(coherent.source)}
    (coherent.source / "both").write_text("first")
    with serve(tmp_path, filesystem="passthrough", options=options, cache="coherent") as other, caller() as client:
        coherent.shows(TEXT, "both", "first")
        client.ask(f"Path({str(other.path / 'both')!r}).write_text('other')")
        coherent.shows(TEXT, "both", "other")
        client.ask(f"os.unlink({str(other.path / 'both')!r})")
        coherent.shows(EXISTS, "both", False)


def test_what_is_mounted_beneath_later_is_seen(coherent: Beneath) -> None:
    spot = coherent.source / "spot"
    spot.mkdir()
    (spot / "covered").touch()
    coherent.shows(NAMES, "spot", ["covered"])
    subprocess.run(["mount", "-t", "tmpfs", "none", str(spot)], check=True, timeout=30)
    try:
        coherent.shows(NAMES, "spot", [])
        (spot / "inside").touch()  # not watched: the mount's own timeouts count, which are none
        coherent.shows(NAMES, "spot", ["inside"])
    finally:
        subprocess.run(["umount", "-l", str(spot)], check=True, timeout=30)
    coherent.shows(NAMES, "spot", ["covered"])


def test_a_watcher_that_died_is_replaced_and_nothing_stays_stale(coherent: Beneath) -> None:
    furnish(coherent.source / "watched")
    for turn in range(3):
        coherent.shows(EXISTS, f"watched/new{turn}", False)
        before = status(coherent.mount)["watcher"]
        os.kill(before["pid"], signal.SIGKILL)
        (coherent.source / "watched" / "file").write_text(f"turn {turn}")
        (coherent.source / "watched" / f"new{turn}").touch()
        coherent.shows(TEXT, "watched/file", f"turn {turn}")
        coherent.shows(EXISTS, f"watched/new{turn}", True)
        wait_for(lambda: status(coherent.mount)["watcher"]["deaths"] == before["deaths"] + 1, seconds=SECONDS)  # noqa: B023


def test_more_changes_than_are_kept_are_seen_all_the_same(coherent: Beneath) -> None:
    """The watcher is stopped until the kernel's queue of events has overflowed."""
    room = coherent.source / "flood"
    furnish(room)
    for expression, name, before in ((TEXT, "file", "first"), (EXISTS, "last", False), (NAMES, "folder", ["old"])):
        coherent.shows(expression, f"flood/{name}", before)
    coherent.shows(EXISTS, "flood/3", False)
    watcher = status(coherent.mount)["watcher"]
    os.kill(watcher["pid"], signal.SIGSTOP)
    try:
        limit = int(Path("/proc/sys/fs/fanotify/max_queued_events").read_text())
        for i in range(limit + 1000):
            os.mknod(room / str(i))
        (room / "file").write_text("other")
        (room / "folder" / "young").touch()
        (room / "last").touch()
    finally:
        os.kill(watcher["pid"], signal.SIGCONT)
    coherent.shows(TEXT, "flood/file", "other")
    coherent.shows(EXISTS, "flood/last", True)
    coherent.shows(EXISTS, "flood/3", True)
    coherent.shows(NAMES, "flood/folder", ["old", "young"])
    wait_for(lambda: status(coherent.mount)["watcher"]["overflows"] > watcher["overflows"], seconds=SECONDS)


def test_status_tells_of_the_watcher(coherent: Beneath) -> None:
    done = ringmount("status", coherent.mount.name)
    assert "fanotify of the whole filesystem, pid " in done.stdout


def test_a_filesystem_that_hears_of_no_changes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    file = write_config(tmp_path, "deaf", mountpoint=str(tmp_path / "mnt"), filesystem="memory", cache="coherent")
    done = ringmount("run", str(file))
    assert "deaf.yaml:1:8: cache: " in done.stderr
    assert "memory neither reports any nor can be watched" in done.stderr
    assert done.returncode != 0


LOOKER = """
import os, sys
root, names = sys.argv[1], sys.argv[2].split(",")
def look(path):
    try:
        found = os.lstat(path)
        return [found.st_ino, found.st_mode, found.st_size, found.st_nlink, found.st_mtime_ns, found.st_ctime_ns]
    except OSError as error:
        return error.errno
def content(path):
    try:
        with open(path, "rb") as file:
            return file.read().decode()
    except OSError as error:
        return error.errno
def names_in(path):
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        return error.errno
def everything():
    paths = [root] + [f"{root}/{name}" for name in names] + [f"{root}/{a}/{b}" for a in names[:4] for b in names[:4]]
    return [(path[len(root):], look(path), content(path), names_in(path)) for path in paths]
for line in sys.stdin:
    print(repr(everything()), flush=True)
"""

HAMMER = (
    LOOKER[: LOOKER.index("for line")]
    + """
import select
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    everything()
"""
)

NAMES_USED = [f"n{i}" for i in range(6)]


def one_change(source: Path, random: Random) -> None:
    """Anything that a program may do to a folder, with few names, so that they meet."""
    path = source / random.choice(NAMES_USED)
    other = source / random.choice(NAMES_USED)
    if random.random() < 0.3:
        path = other / random.choice(NAMES_USED[:4])
    what = random.randrange(9)
    with contextlib.suppress(OSError):
        if what == 0:
            path.write_text(str(random.random()))
        elif what == 1:
            with path.open("a") as file:
                file.write("more")
        elif what == 2:
            path.unlink()
        elif what == 3:
            path.rename(other)
        elif what == 4:
            os.link(path, other)
        elif what == 5:
            path.chmod(random.choice([0o600, 0o644, 0o755]))
        elif what == 6:
            path.mkdir()
        elif what == 7:
            shutil.rmtree(path) if random.random() < 0.5 else path.rmdir()
        else:
            os.symlink("n0", path)


def test_whatever_was_changed_and_looked_at_meanwhile_is_the_same_in_the_end(coherent: Beneath) -> None:
    """Answers that were on their way when a change came must not be kept: they would be stale for ever."""
    churn(coherent, "churn", rounds=4, changes=400, seed=1)


def churn(beneath: Beneath, room: str, rounds: int, changes: int, seed: int) -> None:
    source, shown, random = beneath.source / room, beneath.mount.path / room, Random(seed)
    source.mkdir()
    names = ",".join(NAMES_USED)
    with client(LOOKER, shown, names) as above, client(LOOKER, source, names) as below:
        for _ in range(rounds):
            with contextlib.ExitStack() as stack:
                hammers = [stack.enter_context(client(HAMMER, shown, names, cpu=cpu)) for cpu in cpus()[:2]]
                for hammer in hammers:
                    assert hammer.process.stdout is not None
                    assert hammer.process.stdout.readline() == "ready\n"
                for _ in range(changes):
                    one_change(source, random)
                    time.sleep(random.choice((0, 0, 0.0005)))  # so that some are looked at before the next
                for hammer in hammers:
                    assert hammer.process.stdin is not None
                    hammer.process.stdin.write("end\n")
                    hammer.process.stdin.flush()
                    hammer.result()
            wait_for(lambda: said_by(above) == said_by(below), "the mount to show what is beneath", SECONDS)


def said_by(looker: Client) -> str:
    assert looker.process.stdin is not None
    assert looker.process.stdout is not None
    looker.process.stdin.write("look\n")
    looker.process.stdin.flush()
    return looker.process.stdout.readline()


@pytest.fixture(scope="module", params=TRANSPORTS)
def holding(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beneath]:
    """The source of a mount that holds answers back."""
    folder = tmp_path_factory.mktemp("holding")
    furnish(folder / "source")
    (folder / "held").mkdir()
    options = {"source": str(folder / "source")}
    with (
        serve_class(
            folder,
            "Held",
            data="userspace",  # so that there are READs to hold back
            options=options,
            transport=request.param,
            timeouts=NEVER,
            cache="coherent",
            patience=ALL_TESTS,
        ) as mount,
        caller() as client,
    ):
        yield Beneath(mount, folder / "source", client)


HELD: list[tuple[str, str, Callable[[Path], None], list[Look]]] = [
    ("lookup-file", "os.stat(p + '/file')", append, [(SIZE, "file", None, 14), (TEXT, "file", None, "first and more")]),
    ("lookup-file", "os.stat(p + '/file')", remove, [(EXISTS, "file", None, False)]),
    ("lookup-file", "os.stat(p + '/file')", replace, [(TEXT, "file", None, "replaced")]),
    (
        "lookup-file",
        "os.open(p + '/file', os.O_CREAT | os.O_EXCL)",
        remove,
        [(EXISTS, "file", None, False)],
    ),
    ("lookup-missing", "os.path.exists(p + '/missing')", make, [(TEXT, "missing", None, "made")]),
    (
        "lookup-folder",
        "os.listdir(p + '/folder')",
        grow_folder,
        [(NAMES, "folder", None, ["old", "young"]), (LINKS, "folder", None, 3)],
    ),
    ("getattr", "[os.chmod(p + '/file', 0o600), os.stat(p + '/file')]", append, [(SIZE, "file", None, 14)]),
    ("setattr", "os.chmod(p + '/file', 0o600)", append, [(SIZE, "file", None, 14), (MODE, "file", None, "0o100600")]),
    ("link", "os.link(p + '/file', p + '/missing')", append, [(SIZE, "missing", None, 14), (SIZE, "file", None, 14)]),
    (
        "mkdir",
        "os.mkdir(p + '/missing')",
        lambda source: (source / "missing").chmod(0o700),
        [(MODE, "missing", None, "0o40700")],
    ),
    ("readdir", "os.listdir(p + '/folder')", grow_folder, [(NAMES, "folder", None, ["old", "young"])]),
    ("readdir", "list(os.scandir(p + '/folder'))", write_deep, [(SIZE, "folder/old", None, 4)]),
    ("read", "Path(p + '/file').read_text()", overwrite_in_place, [(TEXT, "file", None, "FIRST")]),
]


@pytest.mark.parametrize(("held", "call", "change", "looks"), HELD)
def test_an_answer_from_before_a_change_is_not_kept(
    holding: Beneath, held: str, call: str, change: Callable[[Path], None], looks: list[Look]
) -> None:
    """It is made, held back while the watcher sees the change, and only then given: it would be stale for ever."""
    room, gates = f"room-{next(_rooms)}", holding.source.parent / "held"
    furnish(holding.source / room)
    canary = holding.source / "canary"
    canary.write_text("")
    holding.shows(SIZE, "canary", 0)
    holding.shows(EXISTS, room, True)
    if "O_EXCL" in call:  # a name that is known is looked up without the folder's lock (fuse_dentry_revalidate)
        holding.shows(EXISTS, f"{room}/file", True)
    for left in gates.iterdir():  # by a test that failed
        left.unlink()
    (gates / held).touch()
    with caller() as other:
        other.begin(f"bool((lambda p: {call})({str(holding.mount.path / room)!r}))")
        wait_for((gates / f"{held}.waits").exists, f"{held} to wait", SECONDS)
        change(holding.source / room)
        canary.write_text("sings")
        holding.shows(SIZE, "canary", 5)  # so the watcher has heard of the change, too
        (gates / f"{held}.waits").unlink()
        with contextlib.suppress(OSError):
            other.finish()
    for expression, name, _, after in looks:
        holding.shows(expression, f"{room}/{name}", after)
        assert holding.see(expression, f"{room}/{name}") == after


MODEST = """
import os, sys, time
from pathlib import Path
source, shown = Path(sys.argv[1]), Path(sys.argv[2])
def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, condition.__code__.co_firstlineno
        time.sleep(0.005)
def text(path):
    try:
        return path.read_text()
    except OSError as error:
        return type(error).__name__
(source / "folder").mkdir()
(source / "folder" / "file").write_text("first")
until(lambda: text(shown / "folder" / "file") == "first")
assert text(shown / "missing") == "FileNotFoundError" and os.listdir(shown / "folder") == ["file"]
(source / "folder" / "file").write_text("other")
(source / "missing").write_text("made")
(source / "folder" / "young").touch()
until(lambda: text(shown / "folder" / "file") == "other")
until(lambda: text(shown / "missing") == "made")
until(lambda: sorted(os.listdir(shown / "folder")) == ["file", "young"])
(source / "folder" / "file").chmod(0o604)
until(lambda: (shown / "folder" / "file").stat().st_mode & 0o777 == 0o604)
(source / "folder").rename(source / "moved")
until(lambda: text(shown / "folder" / "file") == "FileNotFoundError")
until(lambda: text(shown / "moved" / "file") == "other")
(source / "moved" / "file").write_text("after")
until(lambda: text(shown / "moved" / "file") == "after")
os.link(source / "moved" / "file", source / "link")
until(lambda: (shown / "moved" / "file").stat().st_nlink == 2)
(source / "link").write_text("linked")  # in a folder that is watched, but not by the name that was looked up
until(lambda: text(shown / "moved" / "file") == "linked")
(source / "moved" / "file").unlink()
until(lambda: text(shown / "moved" / "file") == "FileNotFoundError")
os.mkdir(shown / "own")
os.rename(shown / "own", shown / "mine")
os.chdir(shown / "mine")
for _ in range(50):
    time.sleep(0.002)
    assert os.getcwd() == str(shown / "mine")
"""


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_user_who_may_not_watch_a_filesystem_watches_folders(transport: str) -> None:
    with private() as place:
        assert place.run("mkdir", f"{HOME}/source", user=True).returncode == 0
        file = place.write_config(
            "modest",
            mountpoint=f"{HOME}/mnt",
            filesystem="passthrough",
            options={"source": f"{HOME}/source"},
            transport=transport,
            cache="coherent",
            timeouts=NEVER,
        )
        with serve_there(place, file, user=True):
            done = place.run("python3", "-c", MODEST, f"{HOME}/source", f"{HOME}/mnt", user=True)
            assert (done.returncode, done.stderr) == (0, "")
            watcher = json.loads(place.ringmount("status", "modest", "--json", user=True).stdout)["watcher"]
            assert (watcher["scope"], watcher["deaths"]) == ("folders", 0)
