"""docs/operations.md: every command in it is typed, in its order, on a machine of its own."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from systemd.box import REPOSITORY, Box
from systemd.deb import bare_box
from systemd.guide import Command, blocks, fits

GUIDE = (REPOSITORY / "docs/operations.md").read_text()
BLOCKS = blocks(GUIDE)
pytestmark = pytest.mark.timeout(600)  # the first test builds the package

ENVIRONMENT = ["env", "--unset=PYTHONPATH", "--chdir=/root", "DEBIAN_FRONTEND=noninteractive"]


@pytest.fixture(scope="module")
def machine(packages: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box with the package in root's folder."""
    with bare_box(tmp_path_factory.mktemp("box")) as box:
        (box.path("/root") / packages[0].name).write_bytes(packages[0].read_bytes())
        yield box


@pytest.mark.parametrize("block", BLOCKS, ids=[f"{i}-{block[0].text.split()[0]}" for i, block in enumerate(BLOCKS)])
def test_what_is_typed_does_what_the_guide_shows(machine: Box, block: list[Command]) -> None:
    # One shell for a block, whose variables last as long; a line that no command prints ends what each has printed.
    end = "--- end of a command ---"
    script = "".join(f"{command.text}\necho '{end}' $?\n" for command in block)
    done = machine.run(*ENVIRONMENT, "bash", "-c", f"exec 2>&1\n{script}", timeout=180)
    printed = re.split(rf"^{end} (\d+)\n", done.stdout, flags=re.MULTILINE)
    for command, text, code in zip(block, printed[::2], printed[1::2], strict=False):
        assert (code != "0") == command.fails, f"# {command.text}\n{text}exit code {code}"
        assert fits(command.shown, text), f"# {command.text}\n{text}\ndoes not fit\n" + "\n".join(command.shown)
    assert len(printed) == 2 * len(block) + 1, done.stdout


def test_each_alert_has_its_section() -> None:
    (rules,) = yaml.safe_load((REPOSITORY / "docs/monitoring/ringmount.rules.yml").read_text())["groups"]
    section = GUIDE.partition("\n## What each alert means\n")[2].partition("\n## ")[0]
    assert re.findall("^### (.*)$", section, re.MULTILINE) == [rule["alert"] for rule in rules["rules"]]
