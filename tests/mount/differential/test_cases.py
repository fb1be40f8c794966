"""Differences that the random calls have found, each as the few calls that show it. A soak prints them in this form."""

import os
from typing import Any

import pytest
from mount.differential.calls import Call
from mount.differential.walk import Worlds, take
from mount.posix.users import bob, carol

CASES: dict[str, list[tuple[Any, ...]]] = {
    "a chown that changes nothing is made by anybody, and changes ctime": [
        ("alice", "chown", b"a", -1, -1, False),
        ("carol", "chown", b"a/x", -1, -1, False),
        ("root", "chown", b"a/x", -1, carol.gid, False),
        ("root", "chmod", b"a/x", 0o6766),
        ("alice", "chown", b"a/x", -1, -1, False),
    ],
    "a file whose O_APPEND was taken off can be copied to": [
        ("bob", "open", 1, b"a/z", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644),
        ("bob", "set_status", 1, 0),
        ("bob", "open", 2, b"b/x", os.O_RDWR, 0),
        ("bob", "copy", 2, 0, 1, 5000, 100),
    ],
    "an open file's locks end with it": [
        ("bob", "open", 1, b"b/x", os.O_RDWR, 0),
        ("bob", "lock", 1, "file", 1, 0, 50),
        ("bob", "lock", 1, "process", 1, 100, 50),
        ("bob", "close", 1),
    ],
    "truncating to the same size": [
        ("root", "truncate", b"y", 10_000),
        ("root", "open", 1, b"y", os.O_RDWR | os.O_CREAT, 0o644),
        ("root", "truncate", b"y", 10_000),
        ("root", "truncate", b"y", 10_000),
        ("root", "ftruncate", 1, 10_000),
        ("root", "truncate", b"x", 10_000),
        ("root", "open", 2, b"x", os.O_RDWR, 0),
        ("root", "ftruncate", 2, 10_000),
        ("root", "chmod", b"x", 0o6777),
        ("bob", "truncate", b"x", 10_000),
    ],
    "capabilities of no length are none to lose": [
        ("alice", "setxattr", b"a/x", "security.capability", b"", 0),
        ("alice", "open", 1, b"a/x", os.O_RDWR, 0),
        ("alice", "write", 1, 1, 10),
    ],
    "a file cannot be given away": [
        ("carol", "open", 1, b"y", os.O_CREAT, 0o6777),
        ("carol", "chown", b"y", bob.uid, bob.gid, True),
        ("bob", "fchown", 1, bob.uid, -1),
    ],
    "emptying a file with S_ISUID takes permission": [
        ("carol", "open", 1, b"a/y", os.O_RDWR | os.O_CREAT, 0o4755),
        ("bob", "open", 1, b"a/y", os.O_RDWR | os.O_TRUNC, 0),
        ("bob", "truncate", b"a/y", 0),
    ],
}


@pytest.mark.ring
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_these_calls_have_the_same_results(worlds: Worlds, case: list[tuple[Any, ...]]) -> None:
    take(worlds, [Call(user, operation, tuple(arguments)) for user, operation, *arguments in case])
