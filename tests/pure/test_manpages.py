"""The manual pages say what the program knows, and the programs that show them have nothing to complain about."""

import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from ringmount.config.model import MountConfig, Timeouts
from ringmount.daemon import cli, manpages, roff
from ringmount.daemon.manpages import pages
from ringmount.workers.filesystems.memory.options import MemoryOptions
from ringmount.workers.filesystems.passthrough.options import Options

PAGES = pages("2026-01-02")
CHECKERS = {
    "groff": ("groff", "-ww", "-k", "-Tutf8", "-man", "-z"),
    "mandoc": ("mandoc", "-Tlint", "-Wwarning"),
    "man": ("man", "--warnings", "-E", "UTF-8", "-l"),
}


def shown(name: str) -> str:
    """The page as a terminal without attributes shows it, in one very long line a paragraph."""
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed (Debian: groff-base)")
    command = ("groff", "-k", "-Tascii", "-P-cbou", "-rLL=500n", "-man")
    return subprocess.run(command, input=PAGES[name], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_shown_without_a_warning(name: str, checker: str, tmp_path: Path) -> None:
    if shutil.which(checker) is None:
        pytest.skip(f"{checker} is not installed")
    file = tmp_path / name
    file.write_text(PAGES[name])
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "100"}
    done = subprocess.run([*CHECKERS[checker], str(file)], capture_output=True, text=True, env=environment, check=False)
    said = done.stderr + (done.stdout if checker == "mandoc" else "")
    assert (done.returncode, said) == (0, "")


def test_every_command_is_told_with_its_options_and_its_examples() -> None:
    text = shown("ringmount.1")
    commands = list(manpages._commands(cli.parser(), "ringmount"))
    assert {command.split()[1] for command, _, _ in commands} >= {"run", "check", "doctor", "status", "ps", "umount"}
    for command, _, parser in commands:
        assert f"\n   {command.removeprefix('ringmount ')}\n" in text, command
        for action in parser._actions:
            for option in action.option_strings:
                assert option in text or option in {"-h", "--help"}, (command, option)
        for line in (parser.description or "").splitlines():
            if line.startswith("  "):
                assert line.strip() in text, line


def test_every_key_is_told_with_its_default() -> None:
    text = shown("ringmount.yaml.5")
    keys = [field.name for field in msgspec.structs.fields(MountConfig) if field.name != "name"]
    for key in (*keys, *(f"timeouts.{field.name}" for field in msgspec.structs.fields(Timeouts))):
        assert f"\n       {key}" in text, key
    assert "Takes size from 4KiB to 1MiB in steps of 4KiB; default 1MiB." in text


@pytest.mark.parametrize(("kind", "title"), [(Options, "PASSTHROUGH"), (MemoryOptions, "MEMORY")])
def test_every_option_of_a_filesystem_is_told(kind: type[msgspec.Struct], title: str) -> None:
    part = shown("ringmount.yaml.5").partition(f"\nOPTIONS OF {title}\n")[2].partition("\nOPTIONS OF")[0]
    for field in msgspec.structs.fields(kind):
        assert f"\n       {field.encode_name}" in f"\n{part}"
    assert set(manpages.option_texts(kind)) == {field.name for field in msgspec.structs.fields(kind)}


@pytest.mark.parametrize("name", ["ringmount.1", "ringmount@.service.8"])
def test_every_exit_code_is_told(name: str) -> None:
    text = shown(name)
    for code, meaning in cli.MEANINGS.items():
        assert f"\n       {int(code):<2}     {meaning}\n" in text


def test_what_is_typed_comes_out_as_it_went_in() -> None:
    typed = ".checks[] '-' \\n ~/x `y` ^ \"$z\"\n'quoted' --json"
    source = roff.page(
        "x", 1, "2026-01-02", "1", "x", roff.section("x", roff.prose("\n".join(f"  {t}" for t in typed.split("\n"))))
    )
    done = subprocess.run(
        ("groff", "-ww", "-k", "-Tascii", "-P-cbou", "-man"), input=source, capture_output=True, text=True, check=True
    )
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert [line for line in lines if line in typed.split("\n")] == typed.split("\n"), done.stdout


def test_the_pages_are_written_into_the_folders_of_their_sections(tmp_path: Path) -> None:
    manpages.main([str(tmp_path)])
    written = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert written == {"man1/ringmount.1", "man5/ringmount.yaml.5", "man8/ringmount@.service.8"}
