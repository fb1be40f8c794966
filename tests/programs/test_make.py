"""GNU hello from the distribution's source package: unpacked, configured, made, checked, installed."""

import subprocess
from pathlib import Path

import pytest
from programs.places import Place

BUILD = Path(__file__).parents[2] / "build" / "programs"


def source_package(name: str) -> Path:
    """The .dsc file of a source package, fetched once with package lists of its own."""
    folder = BUILD / name
    lists, cache = BUILD / "apt" / "lists", BUILD / "apt" / "cache"
    for needed in (folder, lists / "partial", cache / "archives" / "partial"):
        needed.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("*.dsc")):
        own = BUILD / "apt" / "sources.list"
        known = ["apt-get", "indextargets", "--format", "deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)"]
        lines = subprocess.run([*known, "Identifier: Packages"], capture_output=True, text=True, timeout=60, check=True)
        own.write_text("".join(f"{line}\n" for line in {*lines.stdout.splitlines()} if line.endswith(" main")))
        places = {"Etc::SourceList": own, "Etc::SourceParts": "/dev/null", "State::Lists": lists, "Cache": cache}
        apt = ["apt-get", "-qq", *(f"-oDir::{key}={place}" for key, place in places.items())]
        subprocess.run([*apt, "update"], timeout=300, check=False)
        subprocess.run([*apt, "source", "--download-only", name], cwd=folder, timeout=300, check=True)
    (found,) = folder.glob("*.dsc")
    return found


@pytest.fixture(scope="session")
def hello() -> Path:
    return source_package("hello")


@pytest.mark.everybody
def test_make(place: Place, hello: Path) -> None:
    place.run("tar", "-xf", next(hello.parent.glob("*.orig.tar.gz")))
    (folder,) = place.root.iterdir()
    place.run("./configure", "--quiet", f"--prefix={place.root}/installed", cwd=folder)
    place.run("make", "-j4", "--silent", cwd=folder)
    place.run("make", "-j4", "--silent", "check", cwd=folder)
    place.run("make", "--silent", "install", cwd=folder)
    assert place.run("installed/bin/hello") == "Hello, world!\n"
    place.run("make", "--silent", "distclean", cwd=folder)
