"""docs/filesystems.md: its code runs, its mounts' files are valid, and its table of operations is that of the API.

Run as a program, it writes the table anew.
"""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from ringmount.config.load import loads_mount
from ringmount.workers import api
from ringmount.workers.api import Filesystem, is_implemented

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "filesystems.md"
MARK = "<!-- This table is made by `python tests/pure/test_docs_filesystems.py`. -->\n"

NOT_IN_DOCSTRING = {
    "setlk": "as `getlk`",
    "syncfs": "succeeds, and is not sent again",
}
"""What their docstrings do not say about ENOSYS."""


def operations() -> list[str]:
    return [name for name in vars(Filesystem) if not is_implemented(Filesystem, name)]


def sentences(name: str) -> list[str]:
    text = " ".join((inspect.getdoc(getattr(Filesystem, name)) or "").split())
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", text)


def without_method(name: str) -> str:
    """What its docstring says about a class that does not have it."""
    for sentence in sentences(name):
        if found := re.search(r"(?:^ENOSYS:|^Not overridden:|otherwise|^(?=ENOSYS)) ?(.*)\.$", sentence):
            return found[1]
    return NOT_IN_DOCSTRING[name]


def row(name: str) -> str:
    arguments = list(inspect.signature(getattr(Filesystem, name)).parameters)[2:]
    cells = [f"`{name}({', '.join(arguments)})`", sentences(name)[0].removesuffix("."), without_method(name)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table() -> str:
    rows = [row(name) for name in operations()]
    return "\n".join(["| method | does | without it |", "| --- | --- | --- |", *rows]) + "\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_table_is_the_one_that_the_docstrings_make() -> None:
    shown = PAGE.read_text().partition(MARK)[2]
    assert shown.strip() == table().strip(), f"run {Path(__file__).relative_to(PROJECT)} as a program"


def test_every_operation_says_what_happens_without_it() -> None:
    assert {name: without_method(name) for name in operations()}
    assert set(NOT_IN_DOCSTRING) <= set(operations())


def test_the_code_of_the_page_runs() -> None:
    namespace: dict[str, Any] = {"__name__": "filesystems_md"}
    for number, code in enumerate(blocks("python"), 1):
        exec(compile(code, f"{PAGE.name}, block {number}", "exec"), namespace)
    assert issubclass(namespace["Notes"], api.Filesystem)


def test_the_first_block_is_the_example() -> None:
    example = (PROJECT / "examples" / "hello.py").read_text()
    namespace: dict[str, Any] = {}
    exec(blocks("python")[0], namespace)
    for name in ("lookup", "getattr", "readdir", "read"):
        assert inspect.isfunction(getattr(namespace["Hello"], name))
    methods = blocks("python")[0].partition("    def lookup")[2]
    assert methods.strip() in example


@pytest.mark.parametrize("text", [*blocks("yaml"), (PROJECT / "examples" / "hello.yaml").read_text()])
def test_the_mounts_files_of_the_page_are_valid(text: str) -> None:
    assert loads_mount(text, "page.yaml", "page").mountpoint.startswith("/mnt/")


def test_files_that_the_page_names_exist() -> None:
    for path in re.findall(r"`((?:examples|tests|workers)/[^`]*)`", PAGE.read_text()):
        assert (PROJECT / path).exists(), path


def test_links_within_the_page_lead_somewhere() -> None:
    text = PAGE.read_text()
    headings = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^## (.*)$", text, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= headings


if __name__ == "__main__":
    before = PAGE.read_text().partition(MARK)[0]
    PAGE.write_text(f"{before}{MARK}\n{table()}")
    sys.exit(0)
