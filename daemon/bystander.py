"""The throw-away process that touches what may never answer. Run as a script, by liveness.py.

The rule a change must keep: it runs with `python -I -S`, so it imports nothing but a little of the standard
library, and before `ready` is out it touches no path. Each line that it prints is one JSON object, flushed at
once: what it managed to say before it got stuck counts.

    bystander.py statvfs PATH [UID GID]   asks the server of a mount, as that user
    bystander.py examine PATH [MOUNT...]  looks at a future mountpoint; not if it is a MOUNT
"""

import json
import os
import stat
import sys


def main(arguments: list[str]) -> None:
    say(ready=True)
    try:
        match arguments:
            case ["statvfs", path, *owner]:
                statvfs(path, [int(number) for number in owner])
            case ["examine", path, *mounts]:
                examine(path, frozenset(mounts))
        say(done=True)
    except OSError as error:
        say(errno=error.errno, at=error.filename)


def say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def statvfs(path: str, owner: list[int]) -> None:
    """Returns, or raises what the server answered. It becomes `owner`, [uid, gid], before if one is given.

    Users whom a mount does not admit, be it root, are answered by the kernel itself (fuse_statfs()).
    """
    if owner:
        uid, gid = owner
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    os.statvfs(path)


def examine(path: str, mounts: frozenset[str]) -> None:
    """Says the resolved `path`, and unless it is one of `mounts` its `mode` and a folder's `first` entry."""
    path = resolve(path, mounts)
    say(path=path)
    if path in mounts:
        return
    mode = os.lstat(path).st_mode
    say(mode=mode)
    if stat.S_ISDIR(mode):
        with os.scandir(path) as entries:
            entry = next(entries, None)
            say(first=entry and entry.name)


def resolve(path: str, mounts: frozenset[str]) -> str:
    """The path without symbolic links; unlike os.path.realpath() it does not look at the last part if that
    is one of `mounts`, for looking at it asks its server.
    """
    for _ in range(40):  # MAXSYMLINKS
        folder, name = os.path.split(path)
        if name in {"", ".", ".."}:
            folder, name = os.path.split(os.path.realpath(path, strict=True))
        folder = os.path.realpath(folder, strict=True)
        path = os.path.join(folder, name)
        if path in mounts or not stat.S_ISLNK(os.lstat(path).st_mode):
            return path
        path = os.path.join(folder, os.readlink(path))
    raise OSError(40, "too many symbolic links", path)  # ELOOP


if __name__ == "__main__":
    main(sys.argv[1:])
