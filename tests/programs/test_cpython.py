"""CPython's own tests of what touches files: each has the same outcome as natively."""

from xml.etree import ElementTree

import pytest
from programs.places import BesideNative, Place

MODULES = """
os posix shutil mmap tempfile pathlib glob zipfile tarfile dbm dbm_dumb dbm_ndbm largefile fcntl filecmp fileio io
posixpath genericpath stat shelve mailbox file
"""


def outcomes(place: Place) -> dict[str, str]:
    """What came of each test: ok, skipped, failure or error."""
    report = place.root / "report.xml"
    python = ["/usr/bin/python3", "-m", "test", "--tempdir", str(place.root), "--junit-xml", str(report)]
    modules = [f"test_{module}" for module in MODULES.split()]
    code, said = place.attempt(*python, "--use", "largefile", *modules, timeout=1500)
    assert report.exists(), f"exit code {code}\n{said[-4000:]}"
    found = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        details = [child.tag for child in case if child.tag in ("skipped", "failure", "error")]
        found[case.attrib["name"]] = details[0] if details else case.attrib["result"]
    return found


@pytest.mark.everybody
def test_cpython(place: Place, beside_native: BesideNative) -> None:
    found, expected = beside_native(outcomes, place)
    assert len(found) > 1000
    assert {name: what for name, what in found.items() if expected.get(name) != what} == {}
    assert set(found) == set(expected)
