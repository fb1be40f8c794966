"""Builds dist/ringmount_VERSION_ARCH.deb, with everything Python in it, by the interpreter of the system.

`make deb` runs it. The same sources give the same bytes: time stamps are SOURCE_DATE_EPOCH or the last commit's, and
what is brought along has the versions of requirements.txt. PLACES and the functions below say what is installed where.
"""

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from email.utils import formatdate
from pathlib import Path

from ringmount.daemon import install

RECIPE = Path(__file__).resolve().parent
ROOT = RECIPE.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAINTAINER = "The ringmount authors <ringmount@maintainers.invalid>"
SYSTEM_PYTHON = "/usr/bin/python3"
NOT_COPIED = (
    ".*_cache",
    ".git",
    ".hypothesis",
    ".links",
    ".venv",
    "__pycache__",
    "build",
    "dist",
    "*.so",
    "*.egg-info",
)
SCRIPTS = ("postinst", "prerm", "postrm")

PLACES = {
    ".deb/ringmount": "usr/bin/ringmount",
    ".deb/lintian-overrides": "usr/share/lintian/overrides/ringmount",
    "README.md": "usr/share/doc/ringmount/README.md",
    "docs/*.md": "usr/share/doc/ringmount/docs/",
    "docs/monitoring/*": "usr/share/doc/ringmount/docs/monitoring/",
    "config/mounts/*.yaml": "usr/share/doc/ringmount/examples/",
    "examples/*": "usr/share/doc/ringmount/examples/",
}
"""File in the checkout -> where it is installed; files that are not there are left out."""

EXECUTABLE = ("usr/bin/", "usr/sbin/")


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """The output of a command; ends the build with what it printed when it fails."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def source_date() -> int:
    """The time that everything in the package bears."""
    if said := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(said)
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else int((ROOT / "pyproject.toml").stat().st_mtime)


def debian_version(version: str) -> str:
    """Python's version as Debian sorts it: a pre-release comes before its release."""
    return re.sub(r"\.?(a|b|rc|dev)(?=\d)", r"~\1", version)


def place(source: Path, target: Path) -> None:
    """Copies a file, and makes its folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def install_python(tree: Path, work: Path, epoch: int) -> Path:
    """The package and what it needs, as a virtual environment over the system's interpreter; returns site-packages."""
    site = tree / "usr/lib/ringmount/site"
    packages = site / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    packages.mkdir(parents=True)
    (site / "bin").mkdir()
    (site / "bin/python3").symlink_to(SYSTEM_PYTHON)
    # Filesystems that users write may import what Debian packages.
    (site / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n")

    checkout = work / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(*NOT_COPIED))
    pip = (sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "-qq")
    same = {"SOURCE_DATE_EPOCH": str(epoch), "CFLAGS": f"-ffile-prefix-map={checkout}=. -g0"}
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", work, checkout, **same)
    (wheel,) = work.glob("ringmount-*.whl")
    run(*pip, "install", "--no-deps", "--no-compile", "--target", packages, "-r", RECIPE / "requirements.txt", wheel)

    shutil.rmtree(packages / "bin", ignore_errors=True)
    for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):  # pip's own, with the paths of this machine
        for file in packages.glob(f"*.dist-info/{name}"):
            file.unlink()
    place(RECIPE / "ringmount.pth", packages / "ringmount.pth")
    for native in packages.rglob("*.so"):
        run("strip", "--strip-unneeded", native)
    return packages


def install_copyright(tree: Path, packages: Path) -> None:
    """Under which terms each part may be used: from the licence files, which move into one."""
    parts = [f"ringmount\n\n{(ROOT / 'LICENSE').read_text()}"]
    for info in sorted(packages.glob("*.dist-info")):
        files = sorted(
            file for file in info.rglob("*") if re.match("(LICEN[CS]E|NOTICE)", file.name) and file.is_file()
        )
        texts = [file.read_text() for file in files]
        for file in files:
            file.unlink()
        shutil.rmtree(info / "licenses", ignore_errors=True)
        if info.name.startswith("ringmount-"):
            continue
        apache = "Apache License, Version 2.0: on Debian systems see /usr/share/common-licenses/Apache-2.0.\n"
        texts = [apache if "Apache License" in text and len(text) > 5000 else text for text in texts]
        name = info.name.removesuffix(".dist-info").replace("-", " ")
        parts.append(
            f"{name}, in /usr/lib/ringmount, from https://pypi.org/project/{name.split()[0]}\n\n" + "\n".join(texts)
        )
    write(tree / "usr/share/doc/ringmount/copyright", f"\n\n{'-' * 72}\n\n".join(parts))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def install_files(tree: Path) -> None:
    """What is copied from the checkout as it is, and what `ringmount install-units` would put in place."""
    for pattern, where in PLACES.items():
        for source in sorted(ROOT.glob(pattern)):
            if source.is_file():
                place(source, tree / where / source.name if where.endswith("/") else tree / where)
    for file in install.files(str(tree), "/usr", command=install.PACKAGED):
        write(file.path, file.text)
    (tree / "etc/ringmount").mkdir(parents=True)


def install_made(tree: Path, epoch: int) -> None:
    """What the program itself prints: completions and manual pages. And the changelogs."""
    command = (sys.executable, "-P", "-m", "ringmount.daemon", "completion")
    share = tree / "usr/share"
    write(share / "bash-completion/completions/ringmount", run(*command, "bash"))
    write(share / "zsh/vendor-completions/_ringmount", run(*command, "zsh"))
    run(sys.executable, "-P", "-m", "ringmount.daemon.manpages", share / "man", SOURCE_DATE_EPOCH=str(epoch))
    for page in sorted((share / "man").rglob("*.[1-8]")):
        compress(page)
    doc = share / "doc/ringmount"
    place(ROOT / "CHANGELOG.md", doc / "CHANGELOG.md")
    version, date = debian_version(PROJECT["version"]), formatdate(epoch)
    said = "  * CHANGELOG.md says what is new."
    write(doc / "changelog", f"ringmount ({version}) unstable; urgency=medium\n\n{said}\n\n -- {MAINTAINER}  {date}\n")
    compress(doc / "changelog")


def compress(file: Path) -> None:
    """gzip -9n: without name and time."""
    file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes(), 9, mtime=0))
    file.unlink()


def dependencies(tree: Path, work: Path) -> str:
    """What the package depends on: of the interpreter by its version, of libraries by what the modules link."""
    major, minor = sys.version_info[:2]
    write(work / "debian/control", "Source: ringmount\n\nPackage: ringmount\nArchitecture: any\n")
    modules = [f"-e{module}" for module in sorted(tree.rglob("*.so"))]
    found = run("dpkg-shlibdeps", "-O", "--warnings=0", *modules, cwd=work).removeprefix("shlibs:Depends=").strip()
    return f"python3 (>= {major}.{minor}), python3 (<< {major}.{minor + 1}), fuse3, {found}"


def write_control(tree: Path, work: Path, architecture: str) -> None:
    """The package's description, its scripts and the sums of its files."""
    files = sorted(file for file in tree.rglob("*") if file.is_file() and not file.is_symlink())
    text = (RECIPE / "control").read_text()
    made = text.format(
        version=debian_version(PROJECT["version"]),
        architecture=architecture,
        maintainer=MAINTAINER,
        depends=dependencies(tree, work),
        size=sum(-(-file.stat().st_size // 1024) for file in files),
    )
    control = tree / "DEBIAN"
    write(control / "control", made)
    sums = (f"{hashlib.md5(f.read_bytes()).hexdigest()}  {f.relative_to(tree)}\n" for f in files)
    write(control / "md5sums", "".join(sums))
    for script in SCRIPTS:
        place(RECIPE / script, control / script)


def settle(tree: Path, epoch: int) -> None:
    """Modes and times, whatever umask and clock the build had."""
    for path in [tree, *sorted(tree.rglob("*"))]:
        if not path.is_symlink():
            name = str(path.relative_to(tree))
            is_program = name.startswith(EXECUTABLE) or name in {f"DEBIAN/{script}" for script in SCRIPTS}
            path.chmod(0o755 if path.is_dir() or is_program else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def build(folder: Path) -> Path:
    """Makes the .deb in this folder; returns its path."""
    if os.path.realpath(sys._base_executable) != os.path.realpath(SYSTEM_PYTHON):
        sys.exit(f"a .deb is for {SYSTEM_PYTHON}, and .venv has another Python: make clean, then make deb")
    epoch = source_date()
    architecture = run("dpkg", "--print-architecture").strip()
    with tempfile.TemporaryDirectory(prefix="ringmount-deb-") as name:
        work = Path(name)
        tree = work / "tree"
        packages = install_python(tree, work, epoch)
        install_copyright(tree, packages)
        install_files(tree)
        install_made(tree, epoch)
        write_control(tree, work, architecture)
        settle(tree, epoch)
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"ringmount_{debian_version(PROJECT['version'])}_{architecture}.deb"
        run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", tree, target, SOURCE_DATE_EPOCH=str(epoch))
    return target


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("folder", nargs="?", default="dist", type=Path, help="where the .deb is put; default: dist")
    sys.stdout.write(f"{build(arguments.parse_args().folder)}\n")
