"""`ringmount completion`: a script that teaches a shell the command line, made by shtab from the parser.

Mounts' names are completed from the kernel's mount table by the shell itself: no Python is started for a keystroke.
"""

import argparse

from ringmount.daemon.exitcodes import ExitCode, Failure

SHELLS = ("bash", "zsh", "fish")

NAMES = r"sed -En 's/.* - fuse[.]ringmount ([^ ]+) .*/\1/p' /proc/self/mountinfo"
"""Prints the names of all mounts. It holds no $, which fish would expand."""

FUNCTIONS = {
    "bash": f"""\
_ringmount_names() {{ compgen -W "$({NAMES})" -- "$1"; }}
_ringmount_files() {{ compgen -f -X '!*.yaml' -- "$1"; compgen -f -X '!*.yml' -- "$1"; compgen -d -S / -- "$1"; }}""",
    "zsh": f"""\
_ringmount_names() {{ local names; names=(${{(f)"$({NAMES})"}}); compadd -a names; }}
_ringmount_files() {{ _files -g '*.(yaml|yml)' }}""",
}
"""What a script brings along; fish needs no functions."""

COMPLETERS = {
    "name": {"bash": "_ringmount_names", "zsh": "_ringmount_names", "fish": f"({NAMES})"},
    "file": {"bash": "_ringmount_files", "zsh": "_ringmount_files", "fish": "(__fish_complete_suffix .yaml)"},
}
"""What completes an argument, by its name in the parser (shtab's `.complete`)."""


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for this shell. Raises Failure where shtab is missing or too old."""
    try:
        import shtab
    except ModuleNotFoundError:
        raise Failure(
            "completion scripts are made by the package shtab, which is not installed",
            "pip install 'ringmount[completion]'",
            code=ExitCode.UNAVAILABLE,
        ) from None
    if shell not in shtab.SUPPORTED_SHELLS:
        raise Failure(
            f"this version of shtab knows no {shell}", "pip install --upgrade shtab", code=ExitCode.UNAVAILABLE
        )
    _mark(parser)
    return shtab.complete(parser, shell=shell, preamble=FUNCTIONS.get(shell, "")).rstrip("\n")


def _mark(parser: argparse.ArgumentParser) -> None:
    """Says of each argument what completes it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                _mark(each)
        elif action.dest in COMPLETERS:
            action.complete = COMPLETERS[action.dest]  # type: ignore[attr-defined]
