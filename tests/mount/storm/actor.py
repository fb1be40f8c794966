"""One client of a storm, run as a program: actor.py FOLDER SEED CPU.

Calls one system call after the other on its own FOLDER until a line comes on stdin, knows after each what must be
there, and prints what it saw as JSON: calls, failures, the slowest call, and every difference from what must be there.
"""

import errno
import json
import os
import random
import select
import sys
import time
from collections.abc import Callable
from typing import Any

NAMES = 24


class Actor:
    """`files`: what each name holds, `bytes` or, for a folder, None."""

    def __init__(self, folder: str, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.files: dict[str, bytes | None] = {}
        self.calls = 0
        self.failures: list[tuple[str, str]] = []
        self.wrong: list[str] = []
        self.slowest = (0.0, "")
        self.unsure: set[str] = set()

    def call(self, what: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        """A system call, timed. Raises OSError."""
        began = time.perf_counter()
        try:
            return what(*arguments, **more)
        finally:
            took = time.perf_counter() - began
            self.calls += 1
            if took > self.slowest[0]:
                self.slowest = (took, what.__name__)

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def a_file(self) -> str | None:
        names = [name for name, content in self.files.items() if content is not None]
        return self.random.choice(names) if names else None

    def a_new_name(self) -> str:
        return f"n{self.random.randrange(10**9)}"

    # Each action makes one change and then writes down what it means; what fails in between leaves names unsure.

    def create(self) -> None:
        if len(self.files) > NAMES:
            self.unlink()
            return
        name = self.a_new_name()
        self.unsure = {name}
        data = self.random.randbytes(self.random.randrange(1, 3000))
        fd = self.call(os.open, self.path(name), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        try:
            self.files[name] = b""
            self.expect(self.call(os.write, fd, data), len(data), f"write {name}")
            self.files[name] = data
            self.expect(self.call(os.pread, fd, 4096, 0), data, f"read back {name}")
        finally:
            os.close(fd)

    def write(self) -> None:
        if (name := self.a_file()) is None:
            return
        self.unsure = {name}
        old = self.files[name] or b""
        data, at = self.random.randbytes(100), self.random.randrange(len(old) + 1)
        fd = self.call(os.open, self.path(name), os.O_WRONLY)
        try:
            self.call(os.pwrite, fd, data, at)
        finally:
            os.close(fd)
        self.files[name] = old[:at] + data + old[at + len(data) :]

    def append(self) -> None:
        if (name := self.a_file()) is None:
            return
        self.unsure = {name}
        data = self.random.randbytes(50)
        fd = self.call(os.open, self.path(name), os.O_WRONLY | os.O_APPEND)
        try:
            self.expect(self.call(os.write, fd, data), len(data), f"append {name}")
        finally:
            os.close(fd)
        self.files[name] = (self.files[name] or b"") + data

    def truncate(self) -> None:
        if (name := self.a_file()) is None:
            return
        self.unsure = {name}
        size = self.random.randrange(2000)
        self.call(os.truncate, self.path(name), size)
        self.files[name] = (self.files[name] or b"")[:size].ljust(size, b"\0")

    def read(self) -> None:
        if (name := self.a_file()) is None:
            return
        fd = self.call(os.open, self.path(name), os.O_RDONLY)
        try:
            found = self.call(os.pread, fd, 1 << 17, 0)
        finally:
            os.close(fd)
        self.expect(found, self.files[name], f"read {name}")

    def stat(self) -> None:
        for name, content in list(self.files.items())[:8]:
            found = self.call(os.lstat, self.path(name))
            if content is not None:
                self.expect(found.st_size, len(content), f"size of {name}")

    def missing(self) -> None:
        try:
            self.call(os.lstat, self.path("missing"))
        except FileNotFoundError:
            return
        self.wrong.append("a file that was never made is there")

    def rename(self) -> None:
        if (name := self.a_file()) is None:
            return
        new = self.a_file() if self.random.random() < 0.3 else self.a_new_name()
        assert new is not None
        self.unsure = {name, new}
        self.call(os.rename, self.path(name), self.path(new))
        self.files[new] = self.files.pop(name)

    def unlink(self) -> None:
        if (name := self.a_file()) is None:
            return
        self.unsure = {name}
        self.call(os.unlink, self.path(name))
        del self.files[name]

    def link(self) -> None:
        """A second name, which then becomes a file of its own: contents belong to names here."""
        if (name := self.a_file()) is None or len(self.files) > NAMES:
            return
        new = self.a_new_name()
        self.unsure = {name, new}
        self.call(os.link, self.path(name), self.path(new))
        self.call(os.unlink, self.path(name))
        self.files[new] = self.files.pop(name)

    def symlink(self) -> None:
        name = self.a_new_name()
        self.call(os.symlink, "nowhere", self.path(name))
        self.expect(self.call(os.readlink, self.path(name)), "nowhere", "readlink")
        self.call(os.unlink, self.path(name))

    def mkdir(self) -> None:
        name = self.a_new_name()
        self.unsure = {name}
        self.call(os.mkdir, self.path(name))
        self.files[name] = None
        self.call(os.rmdir, self.path(name))
        del self.files[name]

    def xattr(self) -> None:
        if (name := self.a_file()) is None:
            return
        self.call(os.setxattr, self.path(name), "user.storm", b"1", os.XATTR_CREATE)
        self.call(os.removexattr, self.path(name), "user.storm")

    def listing(self) -> None:
        found = set(self.call(os.listdir, self.folder))
        if found != set(self.files):
            self.wrong.append(f"listing: {sorted(found ^ set(self.files))}")

    def expect(self, found: object, wanted: object, what: str) -> None:
        if found != wanted:
            there, right = (f"{len(x)} bytes" if isinstance(x, bytes) else repr(x) for x in (found, wanted))
            self.wrong.append(f"{what}: found {there}, wanted {right}")

    def step(self, action: Callable[[], None]) -> None:
        self.unsure = set()
        try:
            action()
        except OSError as error:
            self.failures.append((action.__name__, errno.errorcode.get(error.errno or 0, "?")))
            self.look_again()

    def look_again(self) -> None:
        """After a failed call, which may have had its effect: believes what is there."""
        for _ in range(20):
            try:
                self._look_again()
            except OSError:
                time.sleep(0.02)
            else:
                return
        self.wrong.append("cannot look again")

    def _look_again(self) -> None:
        there = set(os.listdir(self.folder))
        for name in there - set(self.files) - self.unsure:
            if os.path.islink(self.path(name)):
                os.unlink(self.path(name))
        for name in self.unsure:
            self.files.pop(name, None)
            if name in there:
                if os.path.isdir(self.path(name)):
                    self.files[name] = None
                else:
                    with open(self.path(name), "rb") as file:
                        self.files[name] = file.read()
        for name in there:
            if self.files.get(name) is not None:
                try:
                    os.removexattr(self.path(name), "user.storm")
                except OSError as error:
                    if error.errno != errno.ENODATA:
                        raise

    def check(self) -> None:
        """What is there in the end, beneath or on the mount."""
        found: dict[str, bytes | None] = {}
        for name in os.listdir(self.folder):
            if os.path.isdir(self.path(name)):
                found[name] = None
            else:
                with open(self.path(name), "rb") as file:
                    found[name] = file.read()
        for name in sorted(found.keys() | self.files.keys()):
            if name not in found or name not in self.files or found[name] != self.files[name]:
                self.wrong.append(f"in the end, {name}")

    def run(self) -> None:
        actions = [
            *[self.stat] * 6,
            *[self.read] * 5,
            *[self.write] * 3,
            *[self.create] * 3,
            *[self.rename] * 2,
            *[self.unlink] * 2,
            self.append,
            self.truncate,
            self.missing,
            self.link,
            self.symlink,
            self.mkdir,
            self.xattr,
            self.listing,
        ]
        while not select.select([sys.stdin], [], [], 0)[0]:
            self.step(self.random.choice(actions))


def main() -> None:
    folder, seed, cpu = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.sched_setaffinity(0, {cpu})
    actor = Actor(folder, seed)
    actor.run()
    actor.check()
    said = {
        "calls": actor.calls,
        "failures": actor.failures,
        "wrong": actor.wrong,
        "slowest": actor.slowest[0],
        "slowest_call": actor.slowest[1],
        "files": {name: None if data is None else data.hex() for name, data in actor.files.items()},
    }
    sys.stdout.write(json.dumps(said))


main()
