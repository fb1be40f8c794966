"""What a filesystem tells the kernel (`mount.notify`): it shows at once, never blocks, and survives the notifier."""

import contextlib
import errno
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mount.clients import Caller, caller, client, cpus, events, said, serve_class, status, wait_for
from mount.support import TRANSPORTS, ServedMount, processes_of

HOUR = {"attr": 3600, "entry": 3600, "negative": 3600}
ROOT, F0 = 1, 2
CPUS = cpus()

both = pytest.mark.parametrize("transport", TRANSPORTS)


class Watched:
    """A mount of `Changing`, two clients of it, and the file on which one of them keeps an eye."""

    def __init__(self, mount: ServedMount, folder: Path, seen: Caller, asked: Caller) -> None:
        self.mount = mount
        self.folder = folder
        self.seen = seen
        self._asked = asked
        self._number = -1

    def take_a_file(self) -> None:
        """The next file is the one that is looked at; no test sees another one's."""
        self._number += 1
        self.name = f"f{self._number}"
        self.node = self._number + 2
        self.file = self.mount.path / self.name
        self.change("first")

    def change(self, data: str) -> None:
        """Behind the kernel's back."""
        (self.folder / f"data-{self.node}").write_text(data)

    def notify(self, method: str, *arguments: Any) -> None:
        """Has a worker call the method of `mount.notify`."""
        value = json.dumps([method, *arguments]).encode()
        self._asked.ask(f"os.setxattr({str(self.mount.path)!r}, 'user.notify', {value!r})")

    def text(self) -> str:
        return str(self.seen.ask(f"Path({str(self.file)!r}).read_text()"))

    def size(self) -> int:
        return int(self.seen.ask(f"os.stat({str(self.file)!r}).st_size"))

    def exists(self) -> bool:
        return bool(self.seen.ask(f"Path({str(self.file)!r}).exists()"))


@pytest.fixture(scope="module", params=TRANSPORTS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("changing")
    with (
        serve_class(folder, "Changing", transport=request.param, timeouts=HOUR) as mount,
        caller() as seen,
        caller() as asked,
    ):
        yield Watched(mount, folder, seen, asked)


@pytest.fixture
def it(served: Watched) -> Watched:
    served.take_a_file()
    return served


def test_new_data_shows_at_once(it: Watched) -> None:
    assert it.text() == "first"
    it.change("other")
    assert it.text() == "first"  # cached, for an hour
    it.notify("inval_inode", it.node)
    wait_for(lambda: it.text() == "other", seconds=2)


def test_new_attributes_show_at_once(it: Watched) -> None:
    assert it.size() == 5
    it.change("longer")
    assert it.size() == 5
    it.notify("inval_inode", it.node, -1)
    wait_for(lambda: it.size() == 6, seconds=2)


@pytest.mark.parametrize("how", ["inval_entry", "expire", "delete"])
def test_a_name_that_went_is_gone_at_once(it: Watched, how: str) -> None:
    assert it.exists()
    (it.folder / f"gone-{it.name}").touch()
    assert it.exists()
    if how == "delete":
        it.notify("delete", ROOT, it.node, it.name)
    else:
        it.notify("inval_entry", ROOT, it.name, how == "expire")
    wait_for(lambda: not it.exists(), seconds=2)


def test_a_name_that_came_is_there_at_once(it: Watched) -> None:
    (it.folder / f"gone-{it.name}").touch()
    assert not it.exists()
    (it.folder / f"gone-{it.name}").unlink()
    assert not it.exists()
    it.notify("inval_entry", ROOT, it.name)
    wait_for(it.exists, seconds=2)


def test_stored_data_is_read_without_a_request(it: Watched) -> None:
    assert it.text() == "first"
    reads = len(said(it.folder, "read", it.node))
    it.notify("store", it.node, 0, "STORE")
    wait_for(lambda: it.text() == "STORE", seconds=2)
    assert len(said(it.folder, "read", it.node)) == reads


def test_stored_data_of_many_pages_arrives_whole(it: Watched) -> None:
    data = "".join(f"{i:07d}," for i in range(6000))  # 48 kB: more than one STORE, less than an attribute's value
    it.change("x" * len(data))
    assert it.text() == "x" * len(data)
    it.notify("store", it.node, 0, data)
    wait_for(lambda: it.text() == data, seconds=2)


def test_a_poll_is_woken(it: Watched) -> None:
    code = """
import select, sys
poll = select.poll()
file = open(sys.argv[1])
poll.register(file, select.POLLIN)
print(poll.poll(8000) == [(file.fileno(), select.POLLIN)])
"""
    it.change("")
    with client(code, it.file) as waiting:
        (kh,) = wait_for(lambda: [int(rest[1]) for rest in words_after(it.folder, "poll") if rest[0] == str(it.node)])
        it.change("ready")
        it.notify("poll", kh)
        assert waiting.result() == "True\n"


def test_a_notification_about_nothing_is_harmless(it: Watched) -> None:
    it.notify("inval_inode", 12345)
    it.notify("inval_entry", 12345, "nothing")
    it.notify("delete", ROOT, 12345, "nothing")
    it.notify("store", 12345, 0, "nothing")
    it.notify("poll", 12345)
    with pytest.raises(OSError) as caught:
        it.notify("inval_entry", ROOT, "")
    assert caught.value.errno == errno.EIO
    assert it.text() == "first"


def test_a_notifier_that_died_is_replaced(it: Watched) -> None:
    assert it.text() == "first"
    for data in ("other", "third"):
        killed = notifier(it.mount)
        os.kill(killed, signal.SIGKILL)
        it.change(data)
        it.notify("inval_inode", it.node)
        wait_for(lambda: it.text() == data, seconds=2)  # noqa: B023 (called before the next turn)
        assert notifier(it.mount) != killed


def test_what_a_stopped_notifier_had_in_hand_is_written_by_the_next(it: Watched) -> None:
    assert it.text() == "first"
    before = status(it.mount)["counts"]["notifications"]
    os.kill(killed := notifier(it.mount), signal.SIGSTOP)
    it.change("other")
    it.notify("inval_inode", it.node)
    wait_for(lambda: status(it.mount)["counts"]["notifications"] > before)
    assert it.text() == "first"
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: it.text() == "other", seconds=2)


def notifier(mount: ServedMount) -> int:
    """The process that writes notifications."""
    (found,) = [
        pid for pid in processes_of(mount.process.pid) if Path(f"/proc/{pid}/comm").read_text() == "rm-notifier\n"
    ]
    return found


def words_after(folder: Path, word: str) -> list[list[str]]:
    """What workers said after this word."""
    return [rest for _, first, *rest in events(folder) if first == word]


HAMMER = """
import os, sys, time
root, end = sys.argv[1], time.monotonic() + float(sys.argv[2])
calls = 0
while time.monotonic() < end:
    for i in range(4):
        name = f"{root}/f{i}"
        os.stat(name)
        with open(name, "rb") as file:
            data = file.read()
        assert data in (b"first", b"store"), data
    assert len(os.listdir(root)) == 64
    calls += 13
print(calls)
"""


@both
@pytest.mark.parametrize("name", ["Chatty", "ChattyThreads"])
def test_notifications_about_what_is_being_asked_deadlock_nothing(tmp_path: Path, transport: str, name: str) -> None:
    with (
        serve_class(tmp_path, name, transport=transport, timeouts=HOUR) as mount,
        contextlib.ExitStack() as clients,
    ):
        hammers = [clients.enter_context(client(HAMMER, mount.path, 1.5, cpu=CPUS[i % len(CPUS)])) for i in range(6)]
        assert all(int(hammer.result()) > 0 for hammer in hammers)
        with caller() as seen:
            for i in range(20):
                seen.ask(f"os.stat('{mount.path}/f{i}')")
                seen.ask(f"os.unlink('{mount.path}/f{i}')")
        assert status(mount)["counts"]["notifications"] > 50
        assert "error" not in mount.output()


@both
def test_a_flood_of_notifications_neither_blocks_nor_loses_the_last(tmp_path: Path, transport: str) -> None:
    (tmp_path / "data-2").write_text("first")
    count = 20_000
    with serve_class(tmp_path, "Flood", transport=transport, timeouts=HOUR) as mount, caller() as seen:
        file = str(mount.path / "f0")
        assert seen.ask(f"Path({file!r}).read_text()") == "first"
        (tmp_path / "data-2").write_text("other")
        seen.ask(f"os.setxattr({file!r}, 'user.flood', b'{count}')")
        # Nobody asks this worker anything any more: what did not fit into its channel must find its way by itself.
        wait_for(lambda: status(mount)["counts"]["notifications"] == count + 1)
        wait_for(lambda: seen.ask(f"Path({file!r}).read_text()") == "other", seconds=5)
