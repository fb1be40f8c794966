"""Programs that others wrote, on a passthrough mount: what they leave behind agrees with what they were given."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.support import TRANSPORTS, ServedMount, serve

DOCUMENTS = Path("/usr/share/doc")


@pytest.fixture(params=TRANSPORTS)
def mount(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServedMount]:
    source = tmp_path / "source"
    source.mkdir()
    with serve(tmp_path, filesystem="passthrough", options={"source": str(source)}, transport=request.param) as mount:
        yield mount
        # Whatever was done, the mount and its source must agree to the last byte and attribute.
        assert run("diff", "-r", "--no-dereference", str(source), str(mount.path)) == ""


def run(*command: str, cwd: Path | None = None, timeout: float = 100) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=cwd, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def make_repository(path: Path) -> None:
    path.mkdir()
    run("git", "init", "-q", "-b", "main", cwd=path)
    for number in range(50):
        (path / f"file{number}").write_text(f"content {number}\n" * number)
    run("git", "add", ".", cwd=path)
    identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    run("git", *identity, "commit", "-q", "-m", "first", cwd=path)


def test_git_clones_checks_and_collects(mount: ServedMount, tmp_path: Path) -> None:
    make_repository(tmp_path / "origin")
    clone = mount.path / "clone"
    run("git", "clone", "-q", f"file://{tmp_path / 'origin'}", str(clone))
    assert run("git", "status", "--porcelain", cwd=clone) == ""
    run("git", "fsck", "--strict", cwd=clone)
    run("git", "gc", "-q", cwd=clone)
    run("git", "worktree", "add", "-q", "--detach", "../tree", cwd=clone)
    assert run("git", "status", "--porcelain", cwd=mount.path / "tree") == ""


def test_tar_unpacks_what_it_packed(mount: ServedMount, tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    run("tar", "-C", str(DOCUMENTS.parent), "--exclude=*.gz", "-cf", str(archive), DOCUMENTS.name)
    run("tar", "-C", str(mount.path), "-xpf", str(archive))
    run("tar", "-C", str(mount.path), "--compare", "-f", str(archive))


def test_copied_documents_equal_the_originals(mount: ServedMount) -> None:
    run("cp", "-a", str(DOCUMENTS), str(mount.path / "doc"))
    assert run("diff", "-r", "--no-dereference", str(DOCUMENTS), str(mount.path / "doc")) == ""
    listing = "%P %y %m %U %G %s %T@ %l\n"
    original = run("find", str(DOCUMENTS), "-mindepth", "1", "!", "-type", "d", "-printf", listing)
    copied = run("find", str(mount.path / "doc"), "-mindepth", "1", "!", "-type", "d", "-printf", listing)
    assert sorted(copied.splitlines()) == sorted(original.splitlines())


@pytest.mark.parametrize("journal", ["delete", "wal", "truncate"])
def test_a_database_keeps_its_integrity(mount: ServedMount, journal: str) -> None:
    path = mount.path / "base.sqlite"
    with sqlite3.connect(path, timeout=30) as base:
        base.execute(f"pragma journal_mode={journal}")
        base.execute("create table numbers (n integer primary key, square integer)")
    base.close()
    script = (
        "import sqlite3, sys\n"
        "base = sqlite3.connect(sys.argv[1], timeout=60, isolation_level='immediate')\n"
        "for n in range(int(sys.argv[2]), 200, 4):\n"
        "    with base: base.execute('insert into numbers values (?, ?)', (n, n * n))\n"
    )
    writers = [subprocess.Popen(["python3", "-c", script, str(path), str(start)]) for start in range(4)]
    assert [writer.wait(timeout=100) for writer in writers] == [0, 0, 0, 0]
    base = sqlite3.connect(path)
    try:
        assert base.execute("pragma integrity_check").fetchall() == [("ok",)]
        found = base.execute("select count(*), sum(square) from numbers").fetchone()
        assert found == (200, sum(n * n for n in range(200)))
    finally:
        base.close()


def test_removing_a_tree_leaves_nothing(mount: ServedMount) -> None:
    run("cp", "-a", str(DOCUMENTS), str(mount.path / "doc"))
    shutil.rmtree(mount.path / "doc")
    assert os.listdir(mount.path) == []
