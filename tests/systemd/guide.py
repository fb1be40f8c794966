"""Commands in documents: what a reader is to type and will see, from fenced blocks of `console`.

A line `# COMMAND` of a block is typed as root, `> MORE` goes on with it, and what follows is what it prints. `...`
stands for anything, on a line of its own for any lines; numbers and the width of gaps may differ. With `console fails`
the last command of the block fails.
"""

import re
import textwrap
from typing import NamedTuple

BLOCK = re.compile(r"^( *)```console( fails)?\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
ANY_LINES = "..."


class Command(NamedTuple):
    """One command."""

    text: str
    shown: list[str]
    fails: bool


def blocks(document: str) -> list[list[Command]]:
    """The commands of each block."""
    return [_block(textwrap.dedent(found[3]), bool(found[2])) for found in BLOCK.finditer(document)]


def _block(text: str, fails: bool) -> list[Command]:
    commands: list[Command] = []
    for line in text.rstrip("\n").split("\n"):
        if line.startswith("# ") and not _is_output(line):
            commands.append(Command(line[2:], [], fails=False))
        elif line.startswith("> ") and not commands[-1].shown:
            last = commands[-1]
            commands[-1] = last._replace(text=f"{last.text}\n{line[2:]}")
        else:
            commands[-1].shown.append(line)
    if fails:
        commands[-1] = commands[-1]._replace(fails=True)
    return commands


def _is_output(line: str) -> bool:
    """What `ringmount check` prints are comments, with two spaces after their first word."""
    return re.match(r"# \w+  ", line) is not None


def fits(shown: list[str], printed: str) -> bool:
    """Whether a command printed what is shown; where nothing is shown, whether it printed nothing."""
    pattern = ""
    for line in shown:
        pattern += r"(?:.*\n)*?" if line == ANY_LINES else f"{_pattern(line)}\n"
    return re.fullmatch(pattern, "".join(f"{_same(line)}\n" for line in printed.splitlines())) is not None


def _same(line: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\d+", "0", line)).strip()


def _pattern(line: str) -> str:
    parts = [re.escape(_same(part)) for part in line.split(ANY_LINES)]
    return r"\s?.*\s?".join(parts)
