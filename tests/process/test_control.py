"""The control socket, both ends: a supervisor's loop in a thread, clients that behave and clients that do not."""

import json
import os
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringmount.daemon import asked, client, control
from ringmount.daemon.asked import Asked, Requests, Status
from ringmount.daemon.control import LATER, MAX_CLIENTS, MAX_EACH, Client, Command, ControlServer
from ringmount.daemon.exitcodes import ExitCode, Failure


class Loop:
    """A supervisor's loop around a control server, in a thread. `answer` is what it does about REQUESTS."""

    def __init__(self, path: Path, commands: dict[type[Asked], Command], group: int | None = None) -> None:
        self.selector = selectors.DefaultSelector()
        own: dict[type[Asked], Command] = {
            Status: lambda *_: {"pid": os.getpid()},
            Requests: lambda question, asking: self.answer(question, asking),
        }
        self.server = ControlServer(path, self.selector, commands or own, group)
        self.answer: Callable[[Asked, Client], Any] = lambda *_: None
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


def wait_for(what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A socket's path, longer than a socket's address may be."""
    folder = tmp_path / ("long" * 20) / ("longer" * 10)
    folder.mkdir(parents=True)
    return folder / f"{'n' * 60}.sock"


@pytest.fixture
def loop(path: Path) -> Iterator[Loop]:
    server = Loop(path, {})
    yield server
    server.close()
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
    assert client.ask(path, Status()) == {"pid": os.getpid()}
    loop.answer = lambda *_: "x" * 4_000_000
    assert control.ask(path, Requests()) == "x" * 4_000_000


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
        (b'{"version": 2, "command": "status", "of": "later"}', "version 2 is not spoken here, version 1 is"),
        (b'{"version": "1", "command": "status"}', "Expected `int`"),
        (b'{"version": 1, "command": 1}', "Expected `str`"),
        (b'{"version": 1, "command": "frobnicate"}', "Invalid value 'frobnicate'"),
        (b'{"version": ' + b"[" * 3000, ""),
        (b'{"version": 1, "command": "status", "deep": ' + b'{"a":' * 3000, ""),
    ],
)
def test_a_bad_question_gets_an_error_and_the_next_one_its_answer(
    loop: Loop, path: Path, line: bytes, error: str
) -> None:
    answer = answer_to(path, line + b"\n")
    assert answer is not None
    assert answer["version"] == 1
    assert error in answer["error"]
    assert client.ask(path, Status()) == {"pid": os.getpid()}


@pytest.mark.parametrize("data", [b"", b"x" * 100_000, b'{"version": 1, "command": "status"}'])
def test_who_sends_no_line_is_hung_up_on(loop: Loop, path: Path, data: bytes) -> None:
    with connected(path) as raw:
        try:
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
            assert raw.recv(100) == b""
        except (ConnectionResetError, BrokenPipeError):
            pass
    assert client.ask(path, Status()) == {"pid": os.getpid()}


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=6000))
def test_no_bytes_can_end_the_supervisor(loop: Loop, path: Path, data: bytes) -> None:
    answer = answer_to(path, data + b"\n")
    assert answer is None or "error" in answer
    assert client.ask(path, Status()) == {"pid": os.getpid()}


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
    assert client.ask(path, Status()) == {"pid": os.getpid()}


def test_who_does_not_read_his_answer_holds_up_nobody(loop: Loop, path: Path) -> None:
    with connected(path) as greedy:
        loop.answer = lambda *_: "x" * 4_000_000
        greedy.sendall(asked.encode(Requests()))
        assert client.ask(path, Status()) == {"pid": os.getpid()}


def test_a_command_that_fails_is_answered_and_so_is_the_next_one(loop: Loop, path: Path) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    loop.answer = fail
    with pytest.raises(Failure, match="the supervisor failed to answer; its log says why"):
        client.ask(path, Requests())
    assert client.ask(path, Status()) == {"pid": os.getpid()}


def test_what_is_answered_later_holds_up_nobody(loop: Loop, path: Path) -> None:
    patient: list[Client] = []

    def later(question: Asked, asking: Client) -> Any:
        patient.append(asking)
        return LATER

    loop.answer = later
    with connected(path) as one, connected(path) as other:
        for raw in (one, other):
            raw.sendall(asked.encode(Requests()))
            wait_for(lambda: patient)
        assert client.ask(path, Status()) == {"pid": os.getpid()}

        def answer(question: Asked, asking: Client) -> str:
            patient[0].answer("first")
            patient[1].refuse("second")
            return "third"

        wait_for(lambda: len(patient) == 2)
        loop.answer = answer
        assert client.ask(path, Requests()) == "third"
        assert json.loads(one.recv(1000)) == {"version": 1, "result": "first"}
        assert json.loads(other.recv(1000)) == {"version": 1, "error": "second"}


def test_who_leaves_before_his_answer_is_heard_of(loop: Loop, path: Path) -> None:
    gone = threading.Event()

    def later(question: Asked, asking: Client) -> Any:
        asking.on_gone = gone.set
        return LATER

    loop.answer = later
    with connected(path) as raw:
        raw.sendall(asked.encode(Requests()))
    assert gone.wait(30)


def streamed(items: list[Any]) -> Callable[[Asked, Client], Any]:
    """A command whose answer goes on with these items, and comes with an open file."""

    def stream(question: Asked, asking: Client) -> Any:
        asking.stream("begins", os.open("/dev/zero", os.O_RDONLY))
        for item in items:
            asking.send(item)
        return LATER

    return stream


def test_an_answer_that_goes_on_comes_line_by_line_with_its_descriptor(loop: Loop, path: Path) -> None:
    loop.answer = streamed([1, {"two": 2}])
    with client.Connection(path) as connection:
        stream = connection.follow(Requests())
        assert stream.result == "begins"
        assert os.read(stream.fd, 2) == b"\0\0"
        items = iter(stream)
        assert [next(items), next(items)] == [1, {"two": 2}]
        assert stream.dropped == 0
        stream.close()


def test_what_does_not_fit_is_dropped_and_counted(loop: Loop, path: Path) -> None:
    clients: list[Client] = []
    total = 3 * control.MAX_WAITING // 1000

    def flood(question: Asked, asking: Client) -> Any:
        asking.stream("begins")
        for _ in range(total):
            asking.send("x" * 1000)
        clients.append(asking)
        return LATER

    def go_on(question: Asked, asking: Client) -> None:
        clients[0].send("last")

    loop.answer = flood
    with client.Connection(path) as connection:
        stream = connection.follow(Requests())
        items = iter(stream)
        kept = control.MAX_WAITING // (1000 + len('{"version":1,"item":""}') + 1) - 1
        assert {next(items) for _ in range(kept)} == {"x" * 1000}
        loop.answer = go_on
        client.ask(path, Requests())
        rest = next(items)
        while rest != "last":
            kept += 1
            rest = next(items)
        assert stream.dropped == total - kept


def test_who_does_not_read_a_stream_is_dropped_and_who_waits_for_it_is_not(
    loop: Loop, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, gone = threading.Event(), threading.Event()

    def stream(question: Asked, asking: Client) -> Any:
        asking.on_gone = gone.set
        asking.stream("x" * (1 << 20))
        began.set()
        return LATER

    quiet_gone = threading.Event()

    def quiet(question: Asked, asking: Client) -> Any:
        asking.on_gone = quiet_gone.set
        asking.stream("waits")
        return LATER

    with client.Connection(path) as patient, connected(path) as greedy:
        loop.answer = quiet
        assert patient.follow(Requests()).result == "waits"
        loop.answer = stream
        greedy.sendall(asked.encode(Requests()))
        assert began.wait(30)
        monkeypatch.setattr(control, "DEADLINE", 0.0)

        def is_gone() -> bool:
            connected(path).close()  # an event, upon which the loop looks at the clock
            return gone.is_set()

        wait_for(is_gone)
        assert not quiet_gone.is_set()
    assert quiet_gone.wait(30)


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
    assert client.ask(path, Status()) == {"pid": os.getpid()}


def test_a_name_that_is_served_cannot_be_taken(loop: Loop, path: Path) -> None:
    with pytest.raises(Failure, match="is running already") as caught:
        ControlServer(path, selectors.DefaultSelector(), {})
    assert caught.value.code is ExitCode.MOUNTPOINT
    assert client.ask(path, Status()) == {"pid": os.getpid()}


def test_the_socket_of_a_dead_supervisor_is_replaced(path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    folder = os.open(path.parent, os.O_PATH)
    stale.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)
    stale.close()
    assert not client.is_answered(path)
    with pytest.raises(client.NotRunning):
        client.ask(path, Status())
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
        client.ask(tmp_path / "none" / "x.sock", Status())
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
        client.ask(impostor(answer), Status())
    assert said in str(caught.value)


def test_an_endless_answer_is_a_failure(impostor: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER", 1 << 16)
    with pytest.raises(Failure, match="answered nonsense"):
        client.ask(impostor(b"x" * (1 << 22)), Status())


def test_a_supervisor_that_does_not_answer_is_a_failure_that_names_its_process(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "mute.sock"))
        listening.listen()
        with (
            client.Connection(tmp_path / "mute.sock", patience=0.05) as connection,
            pytest.raises(Failure, match=rf"mute does not answer; .* kill -9 {os.getpid()}"),
        ):
            connection.ask(Status())


def test_a_supervisor_whose_queue_is_full_does_not_answer(tmp_path: Path) -> None:
    path = tmp_path / "full.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(0)
        with client.Connection(path), pytest.raises(Failure, match="full does not answer"):
            client.Connection(path, patience=0.05)
        assert client.is_answered(path)


# --- who may ask what -------------------------------------------------------------------------------------------------

NOBODY = 65534
PYTHON = os.path.realpath(sys.executable)
"""The system's, which everybody may run, wherever this is checked out."""

ASK = """
import json, socket, sys
for line in sys.argv[2:]:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(sys.argv[1])
        raw.sendall(line.encode() + b"\\n")
        answer = json.loads(b"".join(iter(lambda: raw.recv(1 << 16), b"")))
    print(answer.get("result") or answer["error"])
"""
HOARD = """
import socket, sys
held = []
for _ in range(100):
    held.append(socket.socket(socket.AF_UNIX))
    held[-1].connect(sys.argv[1])
print("holds", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody gets into; pytest's own are for one user."""
    with tempfile.TemporaryDirectory(prefix="ringmount-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def as_another(script: str, *arguments: str | Path, groups: str = "") -> list[str | Path]:
    """The command that runs this as another user."""
    into = ["--groups", groups] if groups else ["--clear-groups"]
    who = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), *into]
    return [*who, PYTHON, "-I", "-S", "-c", script, *arguments]


@pytest.mark.root
def test_others_may_ask_what_is_for_them(public: Path) -> None:
    path = public / "x.sock"

    def answers(groups: str = "") -> list[str]:
        questions = [asked.encode(question).decode().strip() for question in (Status(), Requests())]
        command = as_another(ASK, path, *questions, groups=groups)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd="/")
        return done.stdout.splitlines()

    commands: dict[type[Asked], Command] = {Status: lambda *_: "how it is", Requests: lambda *_: "what it does"}
    loop = Loop(path, commands, group=54321)
    try:
        refused = "this is for root and the mount's user and members of control_group"
        assert answers() == ["how it is", refused]
        assert answers(groups="54320,54321") == ["how it is", "what it does"]
        assert answers(groups=",".join(map(str, range(50000, 51000)))) == ["how it is", refused]
        assert [client.ask(path, question) for question in (Status(), Requests())] == ["how it is", "what it does"]
    finally:
        loop.close()


@pytest.mark.root
def test_others_cannot_take_all_the_room(public: Path) -> None:
    path = public / "x.sock"
    loop = Loop(path, {Status: lambda *_: "how it is"})
    try:
        with subprocess.Popen(
            as_another(HOARD, path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
        ) as hoarder:
            assert hoarder.stdout is not None
            assert hoarder.stdout.readline() == "holds\n"
            assert client.ask(path, Status()) == "how it is"
            assert len(loop.server) <= MAX_EACH + 1
            hoarder.communicate("")
    finally:
        loop.close()


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
