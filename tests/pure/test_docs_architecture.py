"""docs/architecture.md says a sentence about each file, and about none that is not there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUFFIXES = {".py", ".pyi", ".c", ".h", ".cdef", ".yaml", ".json"}


def sections() -> dict[str, str]:
    """The text about each folder, which begins with its path: as a heading, or in backquotes."""
    text = (ROOT / "docs/architecture.md").read_text().partition("\n## Files\n")[2]
    parts = re.split(r"^(?:### |`)((?:config|daemon|workers)/[a-z/]*)(?=[:`])", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize(
    "folder",
    [
        "config/",
        "daemon/",
        "workers/",
        "workers/native/",
        "workers/filesystems/memory/",
        "workers/filesystems/passthrough/",
    ],
)
def test_every_file_has_its_sentence(folder: str) -> None:
    rows = re.findall(r"^\| (`.*`) \| (.+) \|$", sections()[folder], re.MULTILINE)
    told = [name for names, _ in rows for name in re.findall("`(.*?)`", names)]
    there = [path.name for path in (ROOT / folder).iterdir() if path.suffix in SUFFIXES]
    if folder == "config/":
        there += [f"mounts/{path.name}" for path in (ROOT / "config/mounts").iterdir()]
    assert sorted(told) == sorted(there)


def test_links_lead_somewhere() -> None:
    for page in ("README.md", "docs/architecture.md", "CONTRIBUTING.md", "docs/configuration.md", "docs/operations.md"):
        text = (ROOT / page).read_text()
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert ((ROOT / page).parent / target).exists(), (page, target)
