"""Filesystems are asked what they are by a child that may do as it likes."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ringmount.config.errors import ConfigError
from ringmount.config.model import MountConfig
from ringmount.daemon import check, probe
from ringmount.daemon.probe import Refusal
from ringmount.workers.messages import Description

MODULE = """\
import os, time
{0}
from ringmount.workers.api import Filesystem
class Fs(Filesystem):
    threads = 3
    def lookup(self, ctx, parent, name): ...
    def getattr(self, ctx, node, fh): ...
"""


def ask(folder: Path, first: str, patience: float = 60.0, **settings: Any) -> Description | Refusal:
    """What is said of a class in a module that begins with this line. Each module has a name of its own."""
    (folder / "probed.py").write_text(MODULE.format(first))
    return probe.describe(config("probed:Fs", **settings), str(folder), patience)


def config(filesystem: str, **settings: Any) -> MountConfig:
    return MountConfig(name="x", mountpoint="/mnt/x", filesystem=filesystem, **settings)


def test_a_class_is_described(tmp_path: Path) -> None:
    found = ask(tmp_path, "")
    assert isinstance(found, Description)
    assert found.methods == ["getattr", "lookup"]
    assert found.threads == 3


SECRETIVE = """
import msgspec
from typing import Annotated
from ringmount.workers.api import Filesystem, Secret
class Server(msgspec.Struct):
    token: Annotated[str, Secret]
    spare: "list[Server]" = []
class Options(msgspec.Struct):
    user: str
    password: Annotated[str, Secret, msgspec.Meta(min_length=4)]
    old: Annotated[str, Secret] | None = None
    servers: dict[str, Server] = {}
class Fs(Filesystem):
    Options = Options
    def lookup(self, ctx, parent, name): ...
    def getattr(self, ctx, node, fh): ...
"""


def write_secretive(folder: Path, password: object) -> Path:
    (folder / "secretive.py").write_text(SECRETIVE)
    (folder / "mnt").mkdir(exist_ok=True)
    options = {"user": "ada", "password": password, "servers": {"a": {"token": "MELLON"}}}
    settings = {"mountpoint": str(folder / "mnt"), "filesystem": "secretive:Fs", "options": options}
    (folder / "secret.yaml").write_text(json.dumps(settings))
    return folder / "secret.yaml"


def test_what_is_secret_is_not_shown(tmp_path: Path) -> None:
    shown = check.check(str(write_secretive(tmp_path, "MELLON")))
    assert "MELLON" not in shown
    assert 'user: "ada"' in shown or "user: ada" in shown
    assert 'password: "********"' in shown
    assert 'servers: "********"' in shown
    assert "options.password, options.servers, being secret" in shown


def test_a_mistake_in_what_is_secret_does_not_show_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check.check(str(write_secretive(tmp_path, {"MELLON": "MELLON"})))
    assert "options.password" in str(caught.value)
    assert "MELLON" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        check.check(str(write_secretive(tmp_path, "ME!")))
    assert "ME!" not in str(caught.value)


def test_the_built_in_filesystems_are_found() -> None:
    found = probe.describe(config("memory"), None)
    assert isinstance(found, Description)
    assert found.handle_policy == "single"


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("os._exit(5)", "the process that imported probed:Fs exited with code 5"),
        ("os.kill(os.getpid(), 11)", "the process that imported probed:Fs was killed by SIGSEGV"),
        ("raise SystemExit", "the process that imported probed:Fs exited with code "),
        ("os.closerange(3, 20000)", "the process that imported probed:Fs exited with code "),
        ("oops", "importing probed failed: NameError: name 'oops' is not defined"),
        ("os.write(1, b'noise'); os.write(2, b'noise')", ""),
    ],
)
def test_whatever_a_module_does_at_its_import_the_supervisor_lives(tmp_path: Path, first: str, said: str) -> None:
    found = ask(tmp_path, first)
    assert isinstance(found, Refusal) == bool(said)
    if isinstance(found, Refusal):
        assert (found.path, found.message[: len(said)]) == ("filesystem", said)


def test_a_module_that_hangs_is_given_up_and_ended(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    found = ask(tmp_path, f"open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(1000)", patience=2.0)
    assert found == Refusal("filesystem", "importing and checking probed:Fs took more than 2 s")
    assert not Path(f"/proc/{pid_file.read_text()}").exists()


def test_wrong_options_come_with_what_msgspec_said() -> None:
    found = probe.describe(config("memory", options={"colour": "red"}), None)
    assert isinstance(found, Refusal)
    assert found.validation == "Object contains unknown field `colour`"


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    ask(tmp_path, "")
    ask(tmp_path, "os._exit(5)")
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.root
def test_the_child_is_the_mounts_user(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o777)
    found = ask(tmp_path, "raise ValueError(os.getresuid(), os.getgroups())", user="nobody")
    assert isinstance(found, Refusal)
    assert found.message == "importing probed failed: ((65534, 65534, 65534), [65534])" or (
        "No module named" in found.message  # pytest's folders are closed to others
    )
