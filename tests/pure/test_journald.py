"""Entries for the journal: how they are written, and that they arrive."""

import fcntl
import mmap
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pure.entries import decoded

from ringmount.daemon import journald


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.setattr(journald, "ADDRESS", str(tmp_path / "socket"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(journald.ADDRESS)
        listening.setblocking(False)
        yield listening


def test_a_value_of_one_line_follows_its_name() -> None:
    assert journald.encode([("MESSAGE", "hello"), ("PRIORITY", 6)]) == b"MESSAGE=hello\nPRIORITY=6\n"


def test_a_value_of_several_lines_has_its_length_in_front() -> None:
    assert journald.encode([("MESSAGE", "a\nb")]) == b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n"


def test_no_value_can_make_another_field() -> None:
    fields = {"MESSAGE": "x\nPRIORITY=0", "ERRNO": "=\n=\n", "EMPTY": "", "BINARY": "\0\x7f=\n"}
    assert decoded(journald.encode(fields.items())) == fields


def test_bytes_go_as_they_are_and_what_is_no_text_is_escaped() -> None:
    fields = [("A", b"\xff\0"), ("B", os.fsdecode(b"\xfe")), ("C", "\ud800")]
    assert journald.encode(fields) == b"A=\xff\0\nB=\\udcfe\nC=\\ud800\n"


def test_an_entry_arrives_as_one_datagram(journal: socket.socket) -> None:
    journald.Sender().send(b"MESSAGE=hello\n")
    assert journal.recv(100) == b"MESSAGE=hello\n"


def test_a_huge_entry_arrives_as_memory_that_nobody_can_change(journal: socket.socket) -> None:
    entry = journald.encode([("MESSAGE", "line\n" * 5_000_000)])
    journald.Sender().send(entry)
    data, (fd,), _, _ = socket.recv_fds(journal, 100, 1)
    try:
        assert data == b""
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == journald.SEALS
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as memory:
            assert memory[:] == entry
    finally:
        os.close(fd)


def test_without_a_journal_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journald, "ADDRESS", str(tmp_path / "none"))
    sender = journald.Sender()
    assert not sender.is_there()
    with pytest.raises(FileNotFoundError):
        sender.send(b"MESSAGE=x\n")


def test_a_journal_that_does_not_read_is_waited_for_once(
    journal: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    polls, poll = [0], select.poll

    def counted() -> Any:
        polls[0] += 1
        return poll()

    monkeypatch.setattr(select, "poll", counted)
    sender, refused = journald.Sender(), 0
    for _ in range(2000):
        try:
            sender.send(b"MESSAGE=x\n")
        except BlockingIOError:
            refused += 1
    assert refused > 1000
    assert polls == [1]
    journal.recv(100)
    sender.send(b"MESSAGE=x\n")
    with pytest.raises(BlockingIOError):
        sender.send(b"MESSAGE=x\n")
    assert polls == [2]


def test_nothing_is_left_open(journal: socket.socket) -> None:
    before = os.listdir("/proc/self/fd")
    for size in (10, 20_000_000):
        journald.Sender().send(b"MESSAGE=" + bytes(size) + b"\n")
    _, fds, _, _ = socket.recv_fds(journal, 100, 1)
    assert fds == []
    assert os.listdir("/proc/self/fd") == before
