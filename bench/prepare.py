"""What the bench needs, got once: system packages, a virtual environment of its own, three compiled programs.

Nothing here is fatal but the client: what cannot be had makes its competitors *missing*, with the reason, and the
bench goes on without them. What is in place is left alone, so the second call takes a moment.
"""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
BUILD = ROOT / "build" / "bench"
VENV = BENCH / ".venv"
PYTHON = VENV / "bin" / "python"
EXAMPLES = Path("/usr/share/doc/libfuse3-dev/examples")

PACKAGES = {  # Debian's package: how to see that what it brings is there
    "gcc": lambda: shutil.which("gcc"),
    "libc6-dev": lambda: Path("/usr/include/stdio.h").exists(),
    "pkg-config": lambda: shutil.which("pkg-config"),
    "fio": lambda: shutil.which("fio"),
    "git": lambda: shutil.which("git"),
    "fuse3": lambda: shutil.which("fusermount3"),
    "bindfs": lambda: shutil.which("bindfs"),
    "libfuse3-dev": lambda: Path("/usr/include/fuse3/fuse.h").exists(),
    "liburing-dev": lambda: Path("/usr/include/liburing.h").exists(),
    "python3-dev": lambda: list(Path("/usr/include").glob("python3*/Python.h")),
    "python3-venv": lambda: _succeeds([sys.executable, "-c", "import ensurepip, venv"]),
}
PIP = (("mfusepy", "mfusepy"), ("pyfuse3", "pyfuse3"), ("matplotlib", "matplotlib"))


class PrepareError(Exception):
    """The bench cannot run at all; the text says why."""


@dataclass
class Tools:
    """`missing`: by tool (a package's, module's or program's name), the reason that it is not there."""

    client: Path = BUILD / "client"
    floor: Path = BUILD / "floor"
    passthrough_ll: Path = BUILD / "passthrough_ll"
    missing: dict[str, str] = field(default_factory=dict)


def prepare() -> Tools:
    """Installs and builds what is not there yet."""
    tools = Tools()
    BUILD.mkdir(parents=True, exist_ok=True)
    _install_packages(tools)
    _make_venv(tools)
    client = _compile("client", (BENCH / "client.c").read_bytes(), tools.client, ["-pthread"])
    if client:
        raise PrepareError(f"bench/client.c: {client}")
    floor = _compile("floor", (BENCH / "floor.c").read_bytes(), tools.floor, ["-luring", "-pthread"])
    if floor:
        tools.missing["floor"] = floor
    failed = _compile_passthrough_ll(tools)
    if failed:
        tools.missing["passthrough_ll"] = tools.missing.get("libfuse3-dev", failed)
    for name, _ in PIP:
        if name not in tools.missing and not _succeeds([str(PYTHON), "-c", f"import {name}"], FUSE_ENVIRONMENT):
            tools.missing[name] = f"`import {name}` fails in bench/.venv"
    return tools


FUSE_ENVIRONMENT = {"FUSE_LIBRARY_PATH": "libfuse3.so.3"}
"""mfusepy prefers libfuse2 where both are; with this all peers stand on libfuse3."""


def example(name: str) -> bytes | None:
    """A file of libfuse's examples as Debian ships it, compressed or not."""
    path = EXAMPLES / name
    if path.exists():
        return path.read_bytes()
    packed = EXAMPLES / f"{name}.gz"
    return gzip.decompress(packed.read_bytes()) if packed.exists() else None


def _succeeds(command: list[str], environment: dict[str, str] | None = None) -> bool:
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=60, check=False, env={**os.environ, **(environment or {})}
        )
    except OSError:
        return False
    return done.returncode == 0


def _install_packages(tools: Tools) -> None:
    wanted = [name for name, is_there in PACKAGES.items() if not is_there()]
    if not wanted:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        tools.missing.update(dict.fromkeys(wanted, "not installed, and only root with apt-get could"))
        return
    print(f"bench: installing {' '.join(wanted)}", file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"]
    subprocess.run(["apt-get", "update", "-qq"], check=False, capture_output=True, env=environment, timeout=300)
    done = subprocess.run(
        [*install, *wanted], check=False, capture_output=True, text=True, env=environment, timeout=900
    )
    for name in wanted:
        if done.returncode != 0:  # one that cannot be had must not keep the others out
            subprocess.run([*install, name], check=False, capture_output=True, env=environment, timeout=600)
        if not PACKAGES[name]():
            tools.missing[name] = f"apt-get install {name} failed"


def _make_venv(tools: Tools) -> None:
    stamp = VENV / "holds"
    wanted = " ".join(requirement for _, requirement in PIP)
    if stamp.exists() and stamp.read_text() == wanted and _succeeds([str(PYTHON), "-c", "pass"]):
        return
    ours = ROOT / ".venv" / "bin" / "python"
    base = str(ours) if ours.exists() else sys.executable
    print("bench: making bench/.venv", file=sys.stderr)
    subprocess.run([base, "-m", "venv", "--clear", str(VENV)], check=True, timeout=120)
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    for name, requirement in PIP:
        done = subprocess.run([*pip, requirement], capture_output=True, text=True, check=False, timeout=900)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["no output"]
            tools.missing[name] = f"pip install {requirement} failed: {lines[-1][:200]}"
    if not tools.missing:
        stamp.write_text(wanted)


def _compile_passthrough_ll(tools: Tools) -> str | None:
    source, header = example("passthrough_ll.c"), example("passthrough_helpers.h")
    if source is None or header is None:
        return f"there is no passthrough_ll.c in {EXAMPLES}"
    (BUILD / "passthrough_helpers.h").write_bytes(header)
    flags = [f"-I{BUILD}", "-I/usr/include/fuse3", "-lfuse3", "-pthread"]
    return _compile("passthrough_ll", source, tools.passthrough_ll, flags)


def _compile(name: str, source: bytes, target: Path, flags: list[str]) -> str | None:
    """Builds unless done already; returns the reason of a failure."""
    command = ["gcc", "-O2", "-Wall", "-x", "c", "-", "-o", str(target), "-D_GNU_SOURCE", *flags]
    digest = hashlib.sha256(source + "\0".join(command).encode()).hexdigest()
    stamp = BUILD / f"{name}.sha256"
    if target.exists() and stamp.exists() and stamp.read_text() == digest:
        return None
    try:
        done = subprocess.run(command, input=source, capture_output=True, timeout=120, check=False)
    except OSError as error:
        return f"gcc: {error}"
    if done.returncode != 0:
        errors = [line for line in done.stderr.decode(errors="replace").splitlines() if "error" in line]
        return f"does not compile: {(errors or ['no message'])[0][:200]}"
    stamp.write_text(digest)
    return None
