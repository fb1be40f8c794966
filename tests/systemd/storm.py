"""Calls without a pause on a mount in a box, and what became of them."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from systemd.box import wait_for

THREADS = 4


class Storm:
    """Threads that make, write, read, rename and remove files, each in a folder of its own, and one open file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rounds = [0] * THREADS
        self.failures: list[BaseException] = []
        self.is_over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(index,), daemon=True) for index in range(THREADS)]

    def _call(self, index: int) -> None:
        try:
            own = self.folder / f"caller{index}"
            own.mkdir()
            with (own / "open").open("w+b", buffering=0) as file:
                while not self.is_over.is_set():
                    self._round(own, file.fileno(), self.rounds[index])
                    self.rounds[index] += 1
        except BaseException as error:
            self.failures.append(error)

    def _round(self, own: Path, fd: int, number: int) -> None:
        word = b"%08d" % number
        assert os.pwrite(fd, word, 8 * (number % 512)) == 8
        assert os.pread(fd, 8, 8 * (number % 512)) == word
        (own / "new").write_bytes(word)
        (own / "new").rename(own / "other")
        assert (own / "other").read_bytes() == word
        assert sorted(os.listdir(own)) == ["open", "other"]
        (own / "other").unlink()

    def goes_on(self) -> None:
        """Waits until each caller has made two more rounds."""
        before = list(self.rounds)
        wait_for(
            lambda: self.failures or all(now > then + 1 for now, then in zip(self.rounds, before, strict=True)), "calls"
        )

    def ends(self) -> None:
        """Has the callers finish."""
        self.is_over.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a call hangs"

    def start(self) -> None:
        for thread in self._threads:
            thread.start()


@contextlib.contextmanager
def storm(folder: Path) -> Iterator[Storm]:
    """A storm that nothing may fail in."""
    calls = Storm(folder)
    calls.start()
    try:
        calls.goes_on()
        yield calls
        calls.goes_on()
    finally:
        calls.ends()
    assert calls.failures == []
