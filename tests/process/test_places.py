"""Where control sockets are, and which mounts there are."""

import os
from pathlib import Path

import pytest

from ringmount.daemon import mountinfo, places
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.places import Identity, Known

ME = os.geteuid()


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Makes the code take an ordinary user's ways for the user who runs the test; returns his runtime folder."""
    monkeypatch.setattr(places, "ROOTS_FOLDER", tmp_path / "roots")
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    return runtime


def test_roots_sockets_are_in_run() -> None:
    assert places.runtime_folder(0) == Path("/run/ringmount")
    assert Identity("data", 0).socket == Path("/run/ringmount/data.sock")


def test_a_user_without_a_runtime_folder_has_one_in_tmp() -> None:
    assert places.runtime_folder(4294967) == Path("/tmp/ringmount-4294967")


def test_a_user_has_his_sockets_in_his_runtime_folder(somebody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 4294967)
    monkeypatch.setattr(places, "_is_folder_of", lambda path, owner: (path, owner) == (somebody, 4294967))
    assert places.runtime_folder(4294967) == somebody / "ringmount"


def test_roots_folder_is_made_so_that_everybody_can_ask(somebody: Path) -> None:
    if ME != 0:
        pytest.skip("needs root")
    before = os.umask(0o077)
    try:
        folder = places.make_runtime_folder()
    finally:
        os.umask(before)
    assert folder == places.ROOTS_FOLDER
    assert folder.stat().st_mode & 0o777 == 0o755
    assert places.make_runtime_folder() == folder


@pytest.mark.parametrize("spoil", ["writable", "link", "file"])
def test_a_folder_that_others_could_speak_from_is_refused(somebody: Path, spoil: str) -> None:
    folder = places.runtime_folder(ME)
    if spoil == "writable":
        folder.mkdir()
        folder.chmod(0o777)
    elif spoil == "link":
        (somebody / "elsewhere").mkdir()
        folder.symlink_to(somebody / "elsewhere")
    else:
        folder.touch()
    with pytest.raises(Failure, match="is not yours alone") as caught:
        places.make_runtime_folder()
    assert caught.value.code is ExitCode.PERMISSION


def test_a_folder_that_cannot_be_made_is_a_failure(somebody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "ROOTS_FOLDER", Path("/proc/ringmount"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/proc")
    if ME == 0:
        with pytest.raises(Failure, match="cannot make /proc/ringmount: "):
            places.make_runtime_folder()


def test_a_runtime_folder_of_somebody_else_is_not_used(somebody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/")  # what su and sudo may leave behind
    monkeypatch.setattr("os.geteuid", lambda: 4294967)
    assert places.runtime_folder(4294967) == Path("/tmp/ringmount-4294967")


def test_a_users_name_is_his_number_where_he_has_none() -> None:
    assert Identity("data", 0).user == "root"
    assert Identity("data", 4294967).user == "4294967"


LINE = "{id} 20 0:{minor} / {at} rw - {type} {name} rw,user_id={owner},group_id=0"


def table(*mounts: tuple[str, int, int, str], fstype: str = "fuse.ringmount") -> list[mountinfo.MountEntry]:
    """A mount table of these mounts: name, owner, connection and place."""
    lines = [
        LINE.format(id=30 + number, name=name, owner=owner, minor=minor, at=at, type=fstype)
        for number, (name, owner, minor, at) in enumerate(mounts)
    ]
    return list(mountinfo.parse("\n".join(lines)))


def test_mounts_are_known_by_their_table_and_their_sockets(somebody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        *table(("b", 4294967, 50, "/b"), ("a", 0, 51, "/a"), ("a", 0, 51, "/bound"), ("a", 0, 52, "/dead")),
        *table(("other", 0, 53, "/other"), fstype="fuse.sshfs"),
    ]
    monkeypatch.setattr(mountinfo, "read", lambda: entries)
    places.ROOTS_FOLDER.mkdir()
    for name in ("a", "elsewhere"):
        (places.ROOTS_FOLDER / f"{name}.sock").touch()
    assert places.known() == [
        Known(Identity("a", 0), ("/a", "/bound")),
        Known(Identity("a", 0), ("/dead",)),
        Known(Identity("b", 4294967), ("/b",)),
        Known(Identity("elsewhere", 0), ()),
    ]


def test_ones_own_mount_comes_before_roots_and_roots_before_others(
    somebody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mountinfo, "read", lambda: table(("a", 5, 1, "/5"), ("a", 0, 2, "/0"), ("a", 7, 3, "/7")))
    monkeypatch.setattr("os.geteuid", lambda: 7)
    assert [known.mountpoints for known in places.known()] == [("/7",), ("/0",), ("/5",)]
