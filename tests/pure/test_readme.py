"""What the README says is so: its settings, its exit codes, its filesystem."""

import re
from pathlib import Path

import msgspec
import pytest

from ringmount.config.load import loads_mount
from ringmount.config.longform import default, written
from ringmount.config.model import MountConfig
from ringmount.daemon.cli import MEANINGS
from ringmount.daemon.exitcodes import ExitCode
from ringmount.workers.load import find_class

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_every_exit_code_is_told_in_the_words_of_the_help() -> None:
    assert set(MEANINGS) == set(ExitCode)
    told = re.findall(r"^\| (\d+) \| (.+) \|$", README, re.MULTILINE)
    assert told == [(str(int(code)), meaning) for code, meaning in MEANINGS.items()]


def test_every_key_is_told_with_its_default() -> None:
    told = re.findall(r"^\| `(\w+)` \| (.*?) ?\| .+ \|$", README, re.MULTILINE)
    fields = [field for field in msgspec.structs.fields(MountConfig) if field.name != "name"]
    assert [key for key, _ in told] == [field.name for field in fields]
    for (_, said), field in zip(told, fields, strict=True):
        if field.required:
            assert said == ""
        elif field.name == "timeouts":
            assert said == "attr 1 s, entry 1 s, negative 0, request 60 s"
        else:
            assert said == f"`{written(field, default(field))}`"


def test_its_mounts_are_valid() -> None:
    for text in blocks("yaml"):
        loads_mount(text, "README.md", "readme")


def test_its_filesystem_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks("python")
    (tmp_path / "readme_hello.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    hello = find_class("readme_hello:Hello")(None, None)  # type: ignore[arg-type]
    buffer = memoryview(bytearray(100))
    size = hello.read(None, 2, 0, 0, buffer)  # type: ignore[arg-type]
    assert bytes(buffer[: int(str(size))]) == b"Hello, world!\n"


def test_it_names_every_command() -> None:
    for command in ("run", "check", "doctor", "status", "top", "ps", "umount", "log-level", "schema", "completion"):
        assert f"| `ringmount {command}" in README
