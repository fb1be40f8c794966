"""A worker that dies at any step of a READDIRPLUS: its successor finds the nodes and their references as they were."""

import os
from itertools import count
from pathlib import Path

import pytest
from process.dying import end_of, start
from process.passthrough.served import PLAN, ArenaTables, Served
from process.test_engine import alone

from ringmount.workers._native import lib
from ringmount.workers.api import ROOT
from ringmount.workers.arena import Arena

NAMES = ("folder", "file", "another")


def fill(source: Path) -> None:
    source.mkdir()
    (source / "folder").mkdir()
    for name in NAMES[1:]:
        (source / name).touch()


@pytest.mark.root
def test_no_reference_is_lost_wherever_a_worker_dies(tmp_path: Path) -> None:
    alone(lambda: die_everywhere(tmp_path / "source"))()


def die_everywhere(source: Path) -> None:
    fill(source)
    arena = Arena.create(PLAN, "test")
    nodes = ArenaTables(arena).nodes(0)
    dead = 0

    def work(step: int) -> None:
        served = Served(Arena.attach(arena.fd), source)
        fh = served.opendir()
        lib.rm_die_at(step, 9)
        served.list(fh)
        lib.rm_die_at(0, 0)

    for step in count(1):
        pid = start(lambda: work(step))  # noqa: B023
        died = end_of(pid) != 0
        journal = arena.c.journal
        if not died:
            break
        dead += 1
        nodes.recover(pid)
        if journal[0].state == lib.RM_ANSWERED:
            break
        nodes.settle_listing(journal, arena.payload_at(0), arena.payload)
        nodes.verify()
        assert list(nodes.iterate()) == [(ROOT, 1)]
    assert dead > 15 * len(NAMES)
    assert sorted(count for _, count in nodes.iterate()) == [1] * (len(NAMES) + 1)
    assert nodes.stats().anomalies == 0
    assert nodes.stats().live == len(NAMES) + 1
    assert os.listdir(source)
