"""The grammar of the command line, and how it ends."""

import argparse
from pathlib import Path

import pytest

from ringmount.config.errors import ConfigError
from ringmount.daemon import cli
from ringmount.daemon.exitcodes import ExitCode, Failure

COMMANDS = ("run", "check", "doctor", "status", "umount", "log-level", "schema", "completion")


def help_of(*arguments: str) -> str:
    """What `ringmount ARGUMENTS --help` prints."""
    parser: argparse.ArgumentParser = cli.parser()
    for argument in arguments:
        (commands,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        parser = commands.choices[argument]
    return parser.format_help()


def test_help_lists_every_command_and_every_exit_code() -> None:
    text = help_of()
    for command in COMMANDS:
        assert f"\n    {command} " in text or f"\n    {command}\n" in text
    for code in ExitCode:
        assert f"\n  {code:<3}  {cli.MEANINGS[code]}" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_examples_and_fits_a_page(command: str) -> None:
    text = help_of(command)
    assert f"examples:\n  {'sudo ' if command == 'run' else ''}ringmount {command}" in text
    assert max(len(line) for line in text.splitlines()) <= 120


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_in_help_are_right(command: str) -> None:
    lines = help_of(command).partition("examples:\n")[2].partition("\n\n")[0].splitlines()
    for line in lines:
        words = line.split("ringmount ", 1)[1].split("|")[0].split(">")[0].split("&")[0].split()
        assert cli.parser().parse_args(words).command == command


def test_the_version_is_the_packages() -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--vers"],
        ["status", "--js"],
        ["trace", "x", "--opcode", "LOOK"],
        ["trace", "x", "--slower-than", "soon"],
        ["trace", "x", "--count", "0"],
        ["drain", "x", "--timeout", "-1"],
    ],
)
def test_what_is_not_right_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == ExitCode.USAGE


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Call":
    return Call(monkeypatch, capsys)


class Call:
    """Ends a command with an exception; says its exit code and what was printed on stderr."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, error: BaseException) -> tuple[int, str]:
        def fail(options: argparse.Namespace) -> int:
            raise error

        self.monkeypatch.setattr(cli, "_call", fail)
        return cli.main(["status"]), self.capsys.readouterr().err


def test_a_failure_is_one_line_and_its_code(call: Call) -> None:
    failure = Failure("no\nway", "turn round", code=ExitCode.RESOURCES)
    assert call(failure) == (9, "ringmount: no\\nway; turn round\n")


def test_each_mistake_of_a_file_is_a_line(call: Call) -> None:
    first = ConfigError("one", file="a.yaml", line=1, column=2, path="x")
    first.others = (ConfigError("two", file="a.yaml", line=3, column=4, path="y", hint="do"),)
    assert call(first) == (3, "ringmount: a.yaml:1:2: x: one\nringmount: a.yaml:3:4: y: two; do\n")


def test_ctrl_c_is_no_traceback(call: Call) -> None:
    assert call(KeyboardInterrupt()) == (130, "")


def test_what_nobody_foresaw_has_its_traceback(call: Call) -> None:
    with pytest.raises(ZeroDivisionError):
        call(ZeroDivisionError())


def test_the_schema_is_the_one_in_the_repository(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    assert capsys.readouterr().out == (Path(__file__).parents[2] / "config/ringmount.schema.json").read_text()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(command in script for command in COMMANDS)
    assert "fuse[.]ringmount" in script


def test_without_shtab_completion_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == ExitCode.UNAVAILABLE
    assert "pip install 'ringmount[completion]'" in capsys.readouterr().err


def test_a_shell_that_shtab_does_not_know_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shtab = pytest.importorskip("shtab")
    monkeypatch.setattr(shtab, "SUPPORTED_SHELLS", ["bash"])
    assert cli.main(["completion", "fish"]) == ExitCode.UNAVAILABLE
    assert "knows no fish; pip install --upgrade shtab" in capsys.readouterr().err
