"""The mount table's text, as the kernel writes it."""

import os
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringmount.daemon import mountinfo
from ringmount.daemon.mountinfo import MountEntry, containing, find, parse, under

# A Debian machine: optional fields none, one and two; an automount with its mount on top; a covered folder.
TABLE = r"""27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
22 27 0:21 / /proc rw,nosuid shared:5 master:2 - proc proc rw
40 27 0:40 / /mnt/data rw,relatime - fuse.ringmount demo rw,user_id=0,group_id=0,allow_other
41 27 0:41 / /mnt/two\040words\134and\011tab rw - fuse.sshfs host:/a\040b rw,user_id=1000,group_id=1000
50 27 0:50 / /auto rw - autofs systemd-1 rw,fd=30,pgrp=1,direct
51 50 0:51 / /auto rw,nosuid - fuse.ringmount auto rw,user_id=0,group_id=0
60 27 0:60 / /srv/deep rw - tmpfs  rw
61 27 0:61 / /srv rw - tmpfs tmpfs rw
62 61 254:0 /home/export /srv/bind ro - ext4 /dev/vda rw
"""
ENTRIES = list(parse(TABLE))


def test_every_field_of_a_line_has_its_place() -> None:
    assert ENTRIES[2] == MountEntry(
        id=40,
        parent=27,
        major=0,
        minor=40,
        root="/",
        mountpoint="/mnt/data",
        options=("rw", "relatime"),
        fstype="fuse.ringmount",
        source="demo",
        super_options=("rw", "user_id=0", "group_id=0", "allow_other"),
    )


def test_any_number_of_optional_fields_is_skipped() -> None:
    assert [entry.fstype for entry in ENTRIES[:3]] == ["ext4", "proc", "fuse.ringmount"]


def test_octal_escapes_are_undone() -> None:
    assert ENTRIES[3].mountpoint == "/mnt/two words\\and\ttab"
    assert ENTRIES[3].source == "host:/a b"


def test_an_empty_source_is_kept_as_one() -> None:
    assert (ENTRIES[6].source, ENTRIES[6].super_options) == ("", ("rw",))


def test_an_option_is_found_by_its_whole_name() -> None:
    assert ENTRIES[3].super_option("user_id") == "1000"
    assert ENTRIES[3].super_option("id") is None
    assert ENTRIES[2].super_option("allow_other") is None


@pytest.mark.parametrize(
    ("fstype", "is_fuse"),
    [("fuse", True), ("fuse.sshfs", True), ("fuseblk.ntfs", True), ("fusectl", False), ("ext4", False)],
)
def test_fuse_is_told_by_the_type(fstype: str, is_fuse: bool) -> None:
    assert ENTRIES[0]._replace(fstype=fstype).is_fuse == is_fuse


@pytest.mark.parametrize(
    ("path", "fstype"),
    [
        ("/mnt/data", "fuse.ringmount"),
        ("/mnt/data/", "fuse.ringmount"),
        ("//mnt/./data", "fuse.ringmount"),
        ("/", "ext4"),
        ("/mnt", None),
        ("/mnt/data/below", None),
        ("/mnt/dat", None),
    ],
)
def test_a_mount_is_found_at_exactly_its_path(path: str, fstype: str | None) -> None:
    entry = find(path, ENTRIES)
    assert (entry and entry.fstype) == fstype


@pytest.mark.parametrize("order", [1, -1])
def test_the_topmost_of_stacked_mounts_is_found_in_any_order(order: int) -> None:
    entry = find("/auto", ENTRIES[::order])
    assert entry is not None
    assert entry.id == 51


def test_a_mount_hidden_by_one_above_it_is_not_found() -> None:
    assert find("/srv/deep", ENTRIES) is None
    assert [entry.id for entry in under("/srv", ENTRIES)] == [60, 61, 62]


def test_under_takes_whole_names_only() -> None:
    assert [entry.mountpoint for entry in under("/mnt/da", ENTRIES)] == []
    assert len(under("/", ENTRIES)) == len(ENTRIES)


@pytest.mark.parametrize(
    ("path", "identity"),
    [("/etc/fstab", 27), ("/srv/deep/x", 61), ("/srv/bind/x/y", 62), ("/auto", 51), ("/srvx", 27)],
)
def test_a_file_is_on_the_nearest_mount_above(path: str, identity: int) -> None:
    entry = containing(path, ENTRIES)
    assert entry is not None
    assert entry.id == identity


def test_a_chroot_does_not_show_its_root() -> None:
    entries = [entry for entry in ENTRIES if entry.id != 27]
    assert containing("/etc", entries) is None
    assert find("/proc", entries) == ENTRIES[1]


@pytest.mark.parametrize("line", ["", "1 2 3", "27 1 254:0 / / rw ext4 /dev/vda rw", TABLE[:30]])
def test_a_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        list(parse(f"{line}\n" if line else "-"))


def test_names_that_are_not_utf8_stay_usable_as_paths(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(b"27 1 254:0 / /mnt/\xff rw - ext4 /dev/vda rw\n")
    assert os.fsencode(mountinfo.read(table)[0].mountpoint) == b"/mnt/\xff"


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


@given(path=NAMES, source=NAMES.filter(lambda name: name.strip(string.whitespace)))
def test_what_the_kernel_escapes_comes_back(path: str, source: str) -> None:
    # mangle_path(s, p, " \t\n\\") of fs/namespace.c
    def escape(text: str) -> str:
        return "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in text)

    line = f"27 1 254:0 / /{escape(path)} rw - ext4 {escape(source)} rw\n"
    (entry,) = parse(line)
    assert (entry.mountpoint, entry.source) == (f"/{path}", source)


def test_this_machines_own_table_has_a_root() -> None:
    entries = mountinfo.read()
    assert find("/", entries) in entries
