"""Namespaces of the bench's own, so that nothing it mounts or starts can outlive it.

`run` starts this program again as PID 1 of new PID and mount namespaces. When that process ends, however it ends,
the kernel kills all that it started, and with the last process the mounts go too: no crash, hang or Ctrl-C leaves
a server, a client or a mountpoint behind. Orderly teardown is still done inside; this is the net below it.
"""

import signal
import subprocess
import sys
from pathlib import Path

import prepare

GRACE = 30.0
"""Seconds for an orderly end after Ctrl-C."""


def run(arguments: list[str], deadline: float) -> int:
    """Runs `run.py --inside FOLDER ARGUMENTS` for at most `deadline` seconds; returns its exit code."""
    folder = prepare.BUILD / "work"  # only a place to mount on: what is mounted there, only the namespace sees
    folder.mkdir(parents=True, exist_ok=True)
    own_death_is_theirs = ["setpriv", "--pdeathsig", "KILL"]
    namespaces = ["unshare", "--fork", "--kill-child", "--pid", "--mount", "--mount-proc"]
    program = [sys.executable, str(Path(__file__).with_name("run.py")), "--inside", str(folder), *arguments]
    previous = signal.signal(signal.SIGTERM, _leave)
    process = subprocess.Popen([*own_death_is_theirs, *namespaces, *program])
    try:
        return process.wait(timeout=deadline)
    except subprocess.TimeoutExpired:
        print(f"bench: not done after {deadline:.0f} s, killed", file=sys.stderr)
        return 124
    except KeyboardInterrupt:  # the terminal sent it to the inner process too
        try:
            return process.wait(timeout=GRACE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            return 130
    finally:
        process.kill()
        process.wait()
        signal.signal(signal.SIGTERM, previous)


def _leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
