"""The control socket, both ends: a supervisor's loop in a thread, clients that behave and clients that do not."""

import json
import os
import resource
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringmount.daemon import client, control
from ringmount.daemon.control import MAX_CLIENTS, ControlServer
from ringmount.daemon.exitcodes import ExitCode, Failure


class Loop:
    """A supervisor's loop around a control server, in a thread."""

    def __init__(self, path: Path, commands: dict[str, Callable[[], Any]]) -> None:
        self.selector = selectors.DefaultSelector()
        self.server = ControlServer(path, self.selector, commands)
        self.turns = 0
        self._stop, stopping = socket.socketpair()
        self._stopping = stopping
        self.selector.register(stopping, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            for key, mask in self.selector.select():
                self.turns += 1
                if key.data is None:
                    return
                key.data(mask)
            self.server.expire()

    def close(self) -> None:
        self._stop.close()
        self._thread.join(timeout=30)
        self.server.close()
        self._stopping.close()
        self.selector.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A socket's path, longer than a socket's address may be."""
    folder = tmp_path / ("long" * 20) / ("longer" * 10)
    folder.mkdir(parents=True)
    return folder / f"{'n' * 60}.sock"


@pytest.fixture
def loop(path: Path) -> Iterator[Loop]:
    def fail() -> None:
        raise ZeroDivisionError

    loop = Loop(path, {"status": lambda: {"pid": os.getpid()}, "big": lambda: "x" * 4_000_000, "fail": fail})
    yield loop
    loop.close()
    assert not path.exists()


def connected(path: Path) -> socket.socket:
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    raw.settimeout(30)
    folder = os.open(path.parent, os.O_PATH)
    raw.connect(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)
    return raw


def answer_to(path: Path, data: bytes) -> dict[str, Any] | None:
    """What the server says to these bytes; None if it hangs up."""
    with connected(path) as raw:
        raw.sendall(data)
        raw.shutdown(socket.SHUT_WR)
        said = b""
        try:
            while part := raw.recv(1 << 16):
                said += part
        except ConnectionResetError:
            return None
    return dict(json.loads(said)) if said else None


def test_a_question_is_answered(loop: Loop, path: Path) -> None:
    assert client.ask(path, "status") == {"pid": os.getpid()}
    assert control.ask(path, "big") == "x" * 4_000_000


def test_the_one_who_answers_is_known_by_the_kernel(loop: Loop, path: Path) -> None:
    with client.Connection(path, os.geteuid()) as connection:
        assert connection.pid == os.getpid()


def test_everybody_who_gets_there_may_ask(loop: Loop, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"{}", "missing required field"),
        (b"[]", "Expected `object`"),
        (b"\xff\xfe", "invalid"),
        (b'{"version": 1, "command": "status", "more": 1}', "unknown field"),
        (b'{"version": 2, "command": "status"}', "version 2 is not spoken here, version 1 is"),
        (b'{"version": 1, "command": "frobnicate"}', "there is no command 'frobnicate'"),
        (b'{"version": 1, "command": "fail"}', "the supervisor failed to answer; its log says why"),
        (b'{"version": ' + b"[" * 3000, ""),
    ],
)
def test_a_bad_question_gets_an_error_and_the_next_one_its_answer(
    loop: Loop, path: Path, line: bytes, error: str
) -> None:
    answer = answer_to(path, line + b"\n")
    assert answer is not None
    assert answer["version"] == 1
    assert error in answer["error"]
    assert client.ask(path, "status") == {"pid": os.getpid()}


@pytest.mark.parametrize("data", [b"", b"x" * 10_000, b'{"version": 1, "command": "status"}'])
def test_who_sends_no_line_is_hung_up_on(loop: Loop, path: Path, data: bytes) -> None:
    with connected(path) as raw:
        try:
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
            assert raw.recv(100) == b""
        except (ConnectionResetError, BrokenPipeError):
            pass
    assert client.ask(path, "status") == {"pid": os.getpid()}


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=6000))
def test_no_bytes_can_end_the_supervisor(loop: Loop, path: Path, data: bytes) -> None:
    answer = answer_to(path, data + b"\n")
    assert answer is None or "error" in answer
    assert client.ask(path, "status") == {"pid": os.getpid()}


def test_clients_beyond_a_few_are_turned_away_and_those_who_dawdle_are_dropped(
    loop: Loop, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dawdlers = [connected(path) for _ in range(MAX_CLIENTS)]
    with connected(path) as late:
        assert late.recv(100) == b""
    monkeypatch.setattr(control, "DEADLINE", 0.0)
    with connected(path):  # an event, upon which the loop looks at the clock
        for dawdler in dawdlers:
            assert dawdler.recv(100) == b""
            dawdler.close()
    monkeypatch.undo()
    assert client.ask(path, "status") == {"pid": os.getpid()}


def test_who_does_not_read_his_answer_holds_up_nobody(loop: Loop, path: Path) -> None:
    with connected(path) as greedy:
        greedy.sendall(b'{"version": 1, "command": "big"}\n')
        assert client.ask(path, "status") == {"pid": os.getpid()}


def fill_up() -> list[int]:
    """Opens files until no descriptor is left."""
    fillers = []
    try:
        while True:
            fillers.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        return fillers


def test_without_descriptors_the_loop_does_not_spin(loop: Loop, path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    raw.settimeout(30)
    folder = os.open(path.parent, os.O_PATH)
    full = max(int(fd) for fd in os.listdir("/proc/self/fd")) + 1
    fillers: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (full, hard))
        fillers = fill_up()
        before = loop.turns
        raw.connect(f"/proc/self/fd/{folder}/{path.name}")
        assert raw.recv(100) == b""  # refused at once
        assert loop.turns <= before + 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in (*fillers, folder):
            os.close(fd)
        raw.close()
    assert client.ask(path, "status") == {"pid": os.getpid()}


def test_a_name_that_is_served_cannot_be_taken(loop: Loop, path: Path) -> None:
    with pytest.raises(Failure, match="is running already") as caught:
        ControlServer(path, selectors.DefaultSelector(), {})
    assert caught.value.code is ExitCode.MOUNTPOINT
    assert client.ask(path, "status") == {"pid": os.getpid()}


def test_the_socket_of_a_dead_supervisor_is_replaced(path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    folder = os.open(path.parent, os.O_PATH)
    stale.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)
    stale.close()
    assert not client.is_answered(path)
    with pytest.raises(client.NotRunning):
        client.ask(path, "status")
    with selectors.DefaultSelector() as selector:
        server = ControlServer(path, selector, {})
        assert client.is_answered(path)
        control.remove_stale(path)
        assert path.exists()
        server.close()
    control.remove_stale(path)


def test_only_the_socket_of_a_dead_supervisor_is_removed(path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    folder = os.open(path.parent, os.O_PATH)
    stale.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)
    stale.close()
    control.remove_stale(path)
    assert not path.exists()


START = """
import selectors, sys
from pathlib import Path
from ringmount.daemon.control import ControlServer
from ringmount.daemon.exitcodes import Failure
sys.stdin.readline()
try:
    ControlServer(Path(sys.argv[1]), selectors.DefaultSelector(), {})
    print("serves", flush=True)
except Failure:
    print("refused", flush=True)
sys.stdin.readline()
"""


def test_of_two_that_start_at_once_one_serves(tmp_path: Path) -> None:
    starters = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", START, str(tmp_path / "x.sock")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.write("go\n")
        starter.stdin.flush()
    said = [starter.stdout.readline() for starter in starters if starter.stdout]
    for starter in starters:
        starter.communicate("end\n", timeout=30)
    assert sorted(said) == ["refused\n"] * 5 + ["serves\n"]


def test_a_folder_that_is_gone_is_a_failure_or_nobody(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="cannot make the control socket"):
        ControlServer(tmp_path / "none" / "x.sock", selectors.DefaultSelector(), {})
    with pytest.raises(client.NotRunning):
        client.ask(tmp_path / "none" / "x.sock", "status")
    assert not client.is_answered(tmp_path / "none" / "x.sock")
    control.remove_stale(tmp_path / "none" / "x.sock")


# --- servers that do not behave -----------------------------------------------------------------------------------


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[Callable[[bytes], Path]]:
    """Serves one client with fixed bytes, in a thread; returns the socket's path."""
    threads: list[threading.Thread] = []
    listening = socket.socket(socket.AF_UNIX)
    path = tmp_path / "impostor.sock"
    listening.bind(str(path))
    listening.listen()
    listening.settimeout(30)

    def start(answer: bytes) -> Path:
        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(100)
                try:
                    connection.sendall(answer)
                except OSError:
                    pass

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return path

    yield start
    for thread in threads:
        thread.join(timeout=30)
    listening.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "answered nonsense"),
        (b"\xff", "answered nonsense"),
        (b"[" * 100_000, "answered nonsense"),
        (b"[]", "speaks another version; restart it"),
        (b'{"version": 2, "result": 1}', "speaks another version"),
        (b'{"version": 1, "error": "no"}', "refused: no"),
        (b'{"version": 1}', "refused: None"),
    ],
)
def test_an_answer_that_is_none_is_a_failure(impostor: Callable[[bytes], Path], answer: bytes, said: str) -> None:
    with pytest.raises(Failure, match="the supervisor of impostor") as caught:
        client.ask(impostor(answer), "status")
    assert said in str(caught.value)


def test_an_endless_answer_is_a_failure(impostor: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER", 1 << 16)
    with pytest.raises(Failure, match="answered nonsense"):
        client.ask(impostor(b"x" * (1 << 22)), "status")


def test_a_supervisor_that_does_not_answer_is_a_failure_that_names_its_process(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "mute.sock"))
        listening.listen()
        with (
            client.Connection(tmp_path / "mute.sock", patience=0.05) as connection,
            pytest.raises(Failure, match=rf"mute does not answer; .* kill -9 {os.getpid()}"),
        ):
            connection.ask("status")


def test_a_supervisor_whose_queue_is_full_does_not_answer(tmp_path: Path) -> None:
    path = tmp_path / "full.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(0)
        with client.Connection(path), pytest.raises(Failure, match="full does not answer"):
            client.Connection(path, patience=0.05)
        assert client.is_answered(path)


@pytest.mark.root
def test_who_listens_in_anothers_place_is_not_believed(loop: Loop, path: Path) -> None:
    with client.Connection(path, 65534):  # root may speak for everybody
        pass
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen();"
        "print('listens', flush=True); sys.stdin.read()"
    )
    folder = path.parent / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with subprocess.Popen(
        ["setpriv", "--reuid", "65534", "--clear-groups", sys.executable, "-c", script, "x.sock"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as impostor:
        assert impostor.stdout is not None
        assert impostor.stdout.readline() == "listens\n"
        with pytest.raises(Failure, match="is answered by user 65534, not by the mount's") as caught:
            client.Connection(folder / "x.sock", 1000)
        assert caught.value.code is ExitCode.PERMISSION
        client.Connection(folder / "x.sock", 65534).__exit__()
        impostor.communicate("")
