"""git: a repository is cloned, changed, checked, collected, and checked out several times."""

import pytest
from programs.places import Place

IDENTITY = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
CHANGE = """\
mkdir -p folder{0..9}
for ((file = $1; file < 200; file += $1 + 1)); do seq $1 $((file * 7)) >folder$((file % 10))/file$file; done
"""


def commit(place: Place, repository: str, number: int) -> None:
    place.run("bash", "-c", CHANGE, "bash", str(number), cwd=place.root / repository)
    place.run("git", "-C", repository, "add", "--all")
    place.run("git", "-C", repository, *IDENTITY, "commit", "-q", "-m", f"commit {number}")


@pytest.mark.everybody
def test_git(place: Place) -> None:
    place.run("git", "init", "-q", "-b", "main", "origin")
    for number in range(6):
        commit(place, "origin", number)
    place.run("git", "clone", "-q", "origin", "local")
    place.run("git", "clone", "-q", f"file://{place.root}/origin", "sent")
    for clone in ("local", "sent"):
        place.run("git", "-C", clone, "worktree", "add", "-q", f"../tree-of-{clone}", "HEAD~2", "-b", "older")
        place.run("git", "-C", f"tree-of-{clone}", *IDENTITY, "rebase", "-q", "main")
        place.run("git", "-C", clone, "repack", "-a", "-d", "-q")
        place.run("git", "-C", clone, "gc", "-q", "--aggressive", "--prune=now")
        place.run("git", "-C", clone, "fsck", "--strict", "--full")
        place.run("git", "-C", clone, "checkout", "-q", "HEAD~3")
        place.run("git", "-C", clone, "checkout", "-q", "main")
        for tree in (clone, f"tree-of-{clone}"):
            assert place.run("git", "-C", tree, "status", "--porcelain") == ""
        place.run("diff", "-r", "--exclude=.git", "origin", clone)
    place.run("git", "-C", "sent", "worktree", "remove", "../tree-of-sent")
    commit(place, "sent", 7)
    place.run("git", "-C", "local", "pull", "-q", "--ff-only", "../sent", "main")
    assert place.run("git", "-C", "local", "rev-parse", "main") == place.run("git", "-C", "sent", "rev-parse", "main")
