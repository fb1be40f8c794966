"""`ringmount completion`: a script that teaches a shell the command line, made by shtab from the parser.

Mounts' names are completed from the kernel's mount table by the shell itself: no Python is started for a keystroke.
"""

import argparse

from ringmount.daemon.exitcodes import ExitCode, Failure

SHELLS = ("bash", "zsh", "fish")

NAMES = "awk '/ - fuse[.]ringmount / {print $(NF-1)}' /proc/self/mountinfo"
"""Prints the names of all mounts: the last field but one is a mount's source."""

COMPLETERS: dict[str, dict[str, object]] = {
    "name": {
        "bash": "_ringmount_names",
        "zsh": "_ringmount_names",
        "fish": f"({NAMES})",
        "preamble": {
            "bash": f'_ringmount_names() {{ compgen -W "$({NAMES})" -- "$1"; }}',
            "zsh": f'_ringmount_names() {{ local names; names=(${{(f)"$({NAMES})"}}); compadd -a names; }}',
        },
    },
    "file": {
        "bash": "_ringmount_files",
        "zsh": "_files -g '*.y(a|)ml'",
        "fish": "(__fish_complete_suffix .yaml)",
        "preamble": {"bash": '_ringmount_files() { compgen -f -X \'!*.y?(a)ml\' -- "$1"; compgen -d -S / -- "$1"; }'},
    },
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
    return shtab.complete(parser, shell=shell).rstrip("\n")


def _mark(parser: argparse.ArgumentParser) -> None:
    """Says of each argument what completes it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                _mark(each)
        elif action.dest in COMPLETERS:
            action.complete = COMPLETERS[action.dest]  # type: ignore[attr-defined]
