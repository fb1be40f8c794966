"""The package that is built and installed is the one that lies in the folders."""

import importlib.metadata
import importlib.resources
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP = ("config", "workers", "daemon")
DISTRIBUTION = importlib.metadata.distribution("ringmount")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# A module of each part, and data that is found at run time; read by the interpreter that sees only the wheel.
USE_WHEEL = """
import importlib.resources, sys
import ringmount.workers._native, ringmount.workers.filesystems, ringmount.config, ringmount.daemon
assert ringmount.workers.__file__.startswith(sys.argv[1]), ringmount.workers.__file__
assert (importlib.resources.files("ringmount.systemd") / "ringmount.conf").is_file()
assert (importlib.resources.files("ringmount.config") / "mounts/demo.yaml").is_file()
"""


def folders_with_init() -> set[str]:
    return {".".join(init.parent.relative_to(ROOT).parts) for top in TOP for init in (ROOT / top).rglob("__init__.py")}


def run(*command: str, cwd: Path, **environment: str) -> None:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a source archive, built from a copy of the checkout: both must be complete."""
    checkout = tmp_path_factory.mktemp("build") / "a checkout"
    made = (".*_cache", ".git", ".hypothesis", ".links", ".venv", "__pycache__", "build", "dist", "*.so")
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(*made))
    run(sys.executable, "-P", "-m", "build", "--no-isolation", cwd=checkout)
    assert len(list(checkout.glob("dist/ringmount-*.tar.gz"))) == 1
    (built,) = checkout.glob("dist/*.whl")
    return built


def test_the_installed_version_is_the_projects() -> None:
    assert DISTRIBUTION.version == PROJECT["version"]


def test_the_changelog_knows_the_version() -> None:
    assert re.search(rf"^## .*{re.escape(PROJECT['version'])}", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("top", TOP)
def test_each_package_says_that_it_is_typed(top: str) -> None:
    assert (importlib.resources.files(f"ringmount.{top}") / "py.typed").is_file()


@pytest.mark.parametrize("top", TOP)
def test_the_type_checkers_links_lead_to_the_folders(top: str) -> None:
    assert (ROOT / ".links" / "ringmount" / top).resolve() == ROOT / top


def test_the_console_script_can_be_loaded() -> None:
    (script,) = DISTRIBUTION.entry_points.select(group="console_scripts", name="ringmount")
    assert callable(script.load())


def test_the_units_and_snippets_are_found_as_package_data() -> None:
    assert "enable_uring=1" in (importlib.resources.files("ringmount.systemd") / "ringmount.conf").read_text()


def test_the_wheel_is_one_for_all_later_pythons(wheel: Path) -> None:
    assert "-cp311-abi3-" in wheel.name


def test_the_wheel_holds_every_package_and_its_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = {name.removesuffix("/__init__.py") for name in names if name.endswith("/__init__.py")}
    assert packages - {"ringmount/systemd"} == {"ringmount/" + name.replace(".", "/") for name in folders_with_init()}
    wanted = {
        f"ringmount/{file.relative_to(ROOT)}"
        for pattern in (
            "*/py.typed",
            "config/mounts/*.yaml",
            "config/*.schema.json",
            "workers/**/*.pyi",
            "systemd/**/*.service",
            "systemd/*",
        )
        for file in ROOT.glob(pattern)
        if file.is_file()
    }
    assert wanted - names == set()
    assert not [name for name in names if name.endswith((".c", ".cdef"))]


def test_the_wheel_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    run(sys.executable, "-P", "-c", USE_WHEEL, str(tmp_path), cwd=tmp_path, PYTHONPATH=str(tmp_path))
