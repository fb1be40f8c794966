"""Programs that know what they want back, for a mount whose workers die meanwhile: each fails if it does not get it."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PATIENCE = 600.0


def run(folder: Path, *command: str) -> None:
    """Runs it in `folder`. Raises AssertionError with what it said."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def fio(folder: Path, *more: str) -> None:
    common = ("--name=t", "--size=4m", "--bs=4k", "--verify=crc32c", "--verify_fatal=1", "--numjobs=2", "--loops=3")
    run(folder, "fio", "--rw=randrw", "--directory=.", "--minimal", *common, *more)


def fio_psync(folder: Path) -> None:
    fio(folder, "--ioengine=psync")


def fio_mmap(folder: Path) -> None:
    fio(folder, "--ioengine=mmap")


WRITER = """
import sqlite3, sys
db = sqlite3.connect("db", timeout=120, isolation_level=None)
for i in range(60):
    db.execute("begin immediate")
    db.execute("insert into t values (?, ?)", (int(sys.argv[1]), i))
    db.execute("commit")
"""


def sqlite(folder: Path) -> None:
    """Four writers to one database."""
    with sqlite3.connect(folder / "db") as db:
        db.execute("create table t (writer int, number int)")
    db.close()
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(i)], cwd=folder) for i in range(4)]
    assert [writer.wait(timeout=PATIENCE) for writer in writers] == [0] * 4
    with sqlite3.connect(folder / "db") as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        assert db.execute("select count(*) from t").fetchone() == (240,)
    db.close()


def git(folder: Path) -> None:
    """Many commits, packed, and checked."""
    run(folder, "git", "init", "-q", ".")
    for i in range(12):
        for j in range(8):
            (folder / f"f{j}").write_text(f"{i * j}\n" * 400)
        run(folder, "git", "add", "-A")
        run(folder, "git", "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", f"{i}")
    run(folder, "git", "gc", "-q", "--aggressive", "--prune=now")
    run(folder, "git", "fsck", "--full", "--strict")


MAKEFILE = """
OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))
all: $(OBJECTS)
	gcc -o all $(OBJECTS)
%.o: %.c
	gcc -c $<
"""


def make(folder: Path) -> None:
    """A program of many files, compiled in parallel, that says that it is whole."""
    (folder / "Makefile").write_text(MAKEFILE)
    for i in range(40):
        (folder / f"part{i}.c").write_text(f"int part{i}(void) {{ return {i}; }}\n")
    parts = range(40)
    declared = "".join(f"int part{i}(void);\n" for i in parts)
    (folder / "main.c").write_text(
        f"{declared}int main(void) {{ return {'+'.join(f'part{i}()' for i in parts)} != 780; }}\n"
    )
    run(folder, "make", "-j4")
    run(folder, "./all")


PROGRAMS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "fio, crc32c": ("fio", fio_psync),
    "fio, mmap": ("fio", fio_mmap),
    "sqlite, 4 writers": ("true", sqlite),
    "git gc": ("git", git),
    "make -j4": ("gcc", make),
}
"""What each needs, and how it is run."""


def present() -> dict[str, Callable[[Path], None]]:
    """Those that this machine can run."""
    return {name: program for name, (needs, program) in PROGRAMS.items() if shutil.which(needs)}
