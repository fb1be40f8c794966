"""The events that are logged: their ids, what the catalog and the documentation say of them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ringmount.daemon import catalog
from ringmount.workers import events
from ringmount.workers.events import EVENTS, about

ROOT = Path(__file__).parents[2]


def test_each_event_has_an_id_and_a_name_of_its_own() -> None:
    assert all(re.fullmatch("[0-9a-f]{32}", event.id) for event in EVENTS)
    assert len({event.id for event in EVENTS}) == len({event.name for event in EVENTS}) == len(EVENTS)


def test_ids_stay_what_they_are() -> None:
    assert events.WORKER_DIED.id == "712a0ab1b4ac4003b978b280f4ca637b"
    assert events.REQUEST_QUARANTINED.id == "aa54340c23fe40468576213419e03700"


def test_only_what_is_known_becomes_a_field() -> None:
    (told,) = about(events.HANG, worker=0, opcode=9999).values()
    assert (told.event, told.fields) == (events.HANG, {"WORKER": 0, "OPCODE": "9999"})


def test_the_catalog_is_that_of_the_table() -> None:
    made = "make it anew: python -m ringmount.daemon.catalog >systemd/ringmount.catalog"
    assert (ROOT / "systemd/ringmount.catalog").read_text() == catalog.catalog(), made


def test_the_documentation_has_the_table() -> None:
    text = (ROOT / "docs/logging.md").read_text()
    made = "make it anew: python -m ringmount.daemon.catalog table"
    assert f"catalog table`. -->\n{catalog.table()}\n<!-- End" in text, made


def test_the_journal_understands_the_catalog(tmp_path: Path) -> None:
    journalctl = shutil.which("journalctl")
    if journalctl is None:
        pytest.skip("there is no journalctl here")
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "systemd/ringmount.catalog", folder)

    def run(*arguments: str) -> str:
        command = [journalctl, f"--root={tmp_path}", "--no-pager", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert done.stderr == ""
        return done.stdout

    run("--update-catalog")
    listed = run("--list-catalog").splitlines()
    assert sorted(line.split()[0] for line in listed) == sorted(event.id for event in EVENTS)
    shown = run("--dump-catalog", events.HANG.id)
    assert events.HANG.what.split()[-1] in shown
    assert "Defined-By: ringmount" in shown
