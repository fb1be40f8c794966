"""The examples, without a mount."""

import asyncio
import errno
import importlib.util
import socket
import stat
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fakes import FakeContext, FakeDirectoryBuffer, FakeMount

from ringmount.workers.abi import OpenReply
from ringmount.workers.api import ROOT, Handle, NodeId, NoOptions

EXAMPLES = Path(__file__).parents[2] / "examples"
CTX = FakeContext()
FH = Handle(0)


def load(name: str) -> ModuleType:
    """An example as a module of its own."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(fs: Any) -> list[bytes]:
    out = FakeDirectoryBuffer()
    fs.readdir(CTX, ROOT, FH, 0, out)
    rest = FakeDirectoryBuffer()
    fs.readdir(CTX, ROOT, FH, len(out.entries), rest)
    assert rest.entries == []
    return out.names


def read(fs: Any, node: int, offset: int = 0) -> bytes:
    buffer = memoryview(bytearray(100))
    return bytes(buffer[: fs.read(CTX, NodeId(node), FH, offset, buffer)])


def test_hello_says_hello() -> None:
    fs = load("hello").Hello(NoOptions(), FakeMount())
    entry = fs.lookup(CTX, ROOT, b"hello")
    assert names(fs) == [b"hello"]
    assert entry.attr.st_size == len(read(fs, entry.node))
    assert read(fs, entry.node, 7) == b"world!\n"
    assert stat.S_ISDIR(fs.getattr(CTX, ROOT, None).st_mode)
    with pytest.raises(OSError, match=f"Errno {errno.ENOENT}"):
        fs.lookup(CTX, ROOT, b"bye")


class TestSlow:
    fs = load("slow").Slow(NoOptions(), FakeMount())

    def read(self, name: bytes, offset: int = 0) -> bytes:
        buffer = memoryview(bytearray(100))
        node = self.fs.lookup(CTX, ROOT, name).node
        return bytes(buffer[: asyncio.run(self.fs.read(CTX, node, FH, offset, buffer))])

    def test_a_name_says_how_long_reading_takes(self) -> None:
        assert self.read(b"0.001") == b"waited 0.001 s\n"
        assert self.fs.lookup(CTX, ROOT, b"0.001").attr.st_size == 15

    def test_reading_on_takes_no_time(self) -> None:
        assert self.read(b"9999", offset=7) == b"9999 s\n"

    def test_other_names_do_not_exist(self) -> None:
        for name in (b"soon", b"-1", b"1e3", b"nan", b"12345", b"1."):
            with pytest.raises(OSError, match=f"Errno {errno.ENOENT}"):
                self.fs.lookup(CTX, ROOT, name)

    def test_a_listing_shows_some(self) -> None:
        assert names(self.fs) == [b"0", b"0.1", b"1", b"10"]

    def test_whoever_reads_asks_us_and_can_be_interrupted(self) -> None:
        node = self.fs.lookup(CTX, ROOT, b"3600").node
        assert self.fs.open(CTX, node, 0).flags == OpenReply.DIRECT_IO

        async def interrupted() -> None:
            task = asyncio.ensure_future(self.fs.read(CTX, node, FH, 0, memoryview(bytearray(9))))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(interrupted())


class TestBlocking:
    module = load("blocking")

    def answers(self, monkeypatch: pytest.MonkeyPatch, answer: object) -> Any:
        """The filesystem, where the resolver gives this answer."""

        def getaddrinfo(*arguments: object, **options: object) -> object:
            if isinstance(answer, BaseException):
                raise answer
            return answer

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return self.module.Hosts(NoOptions(), FakeMount())

    def test_a_computer_s_file_holds_its_addresses_once_each(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = [(0, 0, 0, "", (address, 0)) for address in ("::1", "127.0.0.1", "::1")]
        fs = self.answers(monkeypatch, found)
        entry = fs.lookup(CTX, ROOT, b"localhost")
        assert read(fs, entry.node) == b"::1\n127.0.0.1\n"
        assert fs.lookup(CTX, ROOT, b"localhost").node == entry.node
        assert fs.open(CTX, entry.node, 0).flags == OpenReply.DIRECT_IO
        assert names(fs) == []

    @pytest.mark.parametrize(
        ("code", "expected"),
        [(socket.EAI_NONAME, errno.ENOENT), (socket.EAI_AGAIN, errno.EIO)],
    )
    def test_what_the_resolver_says_becomes_an_errno(
        self, monkeypatch: pytest.MonkeyPatch, code: int, expected: int
    ) -> None:
        fs = self.answers(monkeypatch, socket.gaierror(code, "says the resolver"))
        with pytest.raises(OSError, match=f"Errno {expected}"):
            fs.lookup(CTX, ROOT, b"computer")

    def test_a_name_that_no_computer_has_does_not_exist(self) -> None:
        fs = self.module.Hosts(NoOptions(), FakeMount())
        with pytest.raises(OSError, match=f"Errno {errno.ENOENT}"):
            fs.lookup(CTX, ROOT, b"\xff\xfe")

    def test_methods_go_to_threads(self) -> None:
        assert self.module.Hosts.threads > 1
