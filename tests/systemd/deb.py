"""The Debian package for tests: built once a run, and made into packages of later versions."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from systemd.box import REPOSITORY, Box, booted, lack_of_box

RECIPE = REPOSITORY / ".deb/build.py"
SITE = "usr/lib/ringmount/site/lib/python3.*/site-packages"


def lack_of_deb() -> str | None:
    """Why no package can be built here, or None."""
    if lacking := [tool for tool in ("dpkg", "dpkg-deb", "dpkg-shlibdeps", "strip") if shutil.which(tool) is None]:
        return f"needs {', '.join(lacking)} (Debian: dpkg-dev, binutils)"
    if os.path.realpath(sys.executable) != os.path.realpath("/usr/bin/python3"):
        return "needs a .venv of /usr/bin/python3, which a package is for"
    return None


def start_build(folder: Path, umask: int, **environment: str) -> "subprocess.Popen[str]":
    """Begins to build the package in this folder."""
    return subprocess.Popen(
        [sys.executable, "-P", RECIPE, folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        umask=umask,
        env={**os.environ, **environment},
    )


def finish_build(building: "subprocess.Popen[str]") -> Path:
    """The package."""
    said, _ = building.communicate(timeout=300)
    assert building.returncode == 0, said
    return Path(said.splitlines()[-1])


def remade(package: Path, version: str, change: Callable[[Path], None] = lambda packages: None) -> Path:
    """A package of another version beside this one; `change` is called with the folder of its Python packages."""
    made = package.with_name(f"ringmount_{version}.deb")
    with tempfile.TemporaryDirectory(dir=package.parent) as name:
        tree = Path(name) / "tree"
        subprocess.run(["dpkg-deb", "-R", package, tree], check=True, timeout=60)
        (packages,) = tree.glob(SITE)
        (metadata,) = packages.glob("ringmount-*.dist-info/METADATA")
        for file in (tree / "DEBIAN/control", metadata):
            file.write_text(re.sub(r"^Version: .*$", f"Version: {version}", file.read_text(), flags=re.MULTILINE))
        change(packages)
        subprocess.run(["dpkg-deb", "-Znone", "-b", tree, made], check=True, capture_output=True, timeout=60)
    return made


@contextlib.contextmanager
def bare_box(folder: Path) -> Iterator[Box]:
    """A box that has never seen ringmount. Skips where there can be none."""
    if reason := lack_of_box():
        pytest.skip(reason)
    with booted(folder) as box:
        own_database(box)
        yield box


def own_database(box: Box) -> None:
    """Gives the box a database of packages that only dpkg and apt in the box change: a file that the machine's change
    would be stale in the box. It knows what is installed, and no package's files: reading all of them takes seconds."""
    script = """
        cd /var/lib/dpkg
        mkdir /run/dpkg /run/dpkg/info /run/dpkg/updates /run/dpkg/triggers
        cp status /run/dpkg/
        echo 1 >/run/dpkg/info/format
        (cd info && ls *.list) | (cd /run/dpkg/info && xargs touch)
        mount --bind /run/dpkg /var/lib/dpkg
        for folder in /var/lib/apt /var/cache/apt; do mount -t tmpfs -o mode=755 apt $folder; done
    """
    box.do("sh", "-ec", script)


def dpkg(box: Box, *arguments: str) -> str:
    """Runs dpkg in the box; returns what it said."""
    done = box.run("dpkg", "--force-unsafe-io", *arguments, timeout=180)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said
