"""What `ringmount run` says of itself."""

import sys
from pathlib import Path

import pytest

from ringmount.daemon.run import own_command


def test_a_command_on_the_path_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "ringmount"
    command.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(command.parent))
    assert own_command(str(command)) == "ringmount"
    (tmp_path / "link").symlink_to(command)
    assert own_command(str(tmp_path / "link")) == str(tmp_path / "link")


def test_a_command_that_is_elsewhere_is_called_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert own_command(".venv/bin/ringmount") == ".venv/bin/ringmount"
    assert own_command("/a folder/ringmount") == "'/a folder/ringmount'"


def test_a_module_is_called_by_its_interpreter() -> None:
    assert own_command("/x/daemon/__main__.py") == f"{sys.executable} -m ringmount.daemon"
