"""rsync, tar and cp: what they copy onto the mount, off it and within it equals the original in every attribute."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from programs.places import Place, differences

DOCUMENTS = Path("/usr/share/doc")
MAKE = r"""
set -e
mkdir -p folder/deep/er empty; umask 022
cp -r /usr/share/common-licenses licenses
seq 20000 >folder/numbers; ln folder/numbers folder/deep/hardlink; ln folder/numbers hardlink
ln -s ../numbers folder/deep/link; ln -s /nowhere dangling; mkfifo fifo
/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
ln -P dangling hardlink-of-a-link
truncate -s 5M sparse; echo middle | dd of=sparse bs=1 seek=3000000 conv=notrunc status=none; truncate -s 0 none
printf 'x' >"$(printf 'odd \n name\377')"
touch -d '1999-12-31 23:59:59.123456789' folder/numbers; touch -h -d '2040-01-02' dangling
setfattr -n user.note -v something folder/numbers; setfattr -n user.note -v folder folder
setfacl -m u:daemon:rwx,g:sys:r folder/deep; setfacl -d -m u:daemon:rx folder/deep
chmod 1777 empty; chmod 4711 none; touch -d '2001-02-03' folder/deep empty
"""
MAKE_AS_ROOT = r"""
set -e
chown -h 12345:54321 dangling; chown 1:2 hardlink; mknod device c 1 3; mknod block b 7 99
chown 7:8 licenses/*; chmod 6755 licenses/GPL-2
setfattr -n trusted.note -v secret folder
setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 licenses/GPL-3
"""


@pytest.fixture
def tree(place: Place) -> Iterator[Path]:
    """A tree with every kind of object, outside."""
    with TemporaryDirectory(prefix="ringmount-tree-", dir="/var/tmp") as temporary:
        os.chmod(temporary, 0o1777)
        outside = place._replace(root=Path(temporary)).folder("tree")
        outside.run("sh", "-c", MAKE)
        if place.user == "root":
            outside.run("sh", "-c", MAKE_AS_ROOT)
        yield outside.root


@pytest.mark.everybody
def test_rsync(place: Place, tree: Path) -> None:
    options = ["-aHAX", "--numeric-ids", "--sparse"]
    back = tree.parent / "back"
    place.run("rsync", *options, f"{tree}/", "there/")
    assert differences(tree, place.root / "there") == ""
    place.run("rsync", *options, "there/", f"{back}/")
    assert differences(tree, back) == ""
    place.run("sh", "-c", "seq 30000 >there/folder/numbers; rm -r there/licenses; mv there/sparse there/moved")
    for more in ([], ["--inplace"], ["--append-verify"], ["--delay-updates"], ["--link-dest=../there"]):
        target = place.root / ("new" if "--link-dest=../there" in more else "there")
        place.run("rsync", *options, *more, "--delete", f"{tree}/", f"{target}/")
        assert differences(tree, target) == ""


@pytest.mark.everybody
def test_tar(place: Place, tree: Path) -> None:
    (tree / "socket").unlink()  # tar leaves them out
    keep = ["--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--numeric-owner"]
    place.run("tar", "-C", tree, *keep, "-cf", "archive.tar", ".")
    place.run("mkdir", "there")
    place.run("tar", "-C", "there", *keep, "-xpf", "archive.tar")
    place.run("tar", "-C", "there", "--compare", *keep, "-f", "archive.tar")
    assert differences(tree, place.root / "there") == ""
    place.run("tar", "-C", "there", *keep, "-cf", "again.tar", ".")
    place.run("mkdir", "back")
    place.run("tar", "-C", "back", *keep, "-xpf", "again.tar")
    assert differences(tree, place.root / "back") == ""
    place.run("sh", "-c", 'cd /usr/share && tar -cf - doc/*/copyright | tar -C "$0" -xf -', place.root)
    incremental = ["--listed-incremental=snapshot", "doc"]
    place.run("tar", "-cf", "first.tar", *incremental)
    changed = place.run("tar", "-cvf", "second.tar", *incremental).splitlines()
    assert [name for name in changed if not name.endswith("/")] == []
    place.run("rm", "-r", "there", "back", "doc")


@pytest.mark.everybody
def test_cp(place: Place, tree: Path) -> None:
    place.run("cp", "-a", tree, "there")
    assert differences(tree, place.root / "there") == ""
    place.run("cp", "-al", "there", "linked")
    assert differences(place.root / "there", place.root / "linked") == ""
    assert place.run("find", "there", "linked", "-type", "f", "-links", "1") == ""
    place.run("cp", "-a", "--reflink=auto", "--sparse=always", "there/sparse", "sparse")
    place.run("cmp", "there/sparse", "sparse")
    assert int(place.run("stat", "-c", "%b", "sparse")) < 1000
    place.run("cp", "-a", "there", f"{tree.parent}/back")
    assert differences(tree, tree.parent / "back") == ""
    place.run("mv", "linked", f"{tree.parent}/moved")
    place.run("mv", f"{tree.parent}/moved", "returned")
    assert differences(tree, place.root / "returned") == ""
    place.run("rm", "-rf", "there", "returned")
    assert place.run("ls", "-A") == "sparse\n"
