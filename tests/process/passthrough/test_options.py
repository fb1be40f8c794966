"""What can be set, and whether it can work."""

import os
from pathlib import Path

import msgspec
import pytest

from ringmount.workers.filesystems.passthrough import Options, Passthrough, PassthroughLocks


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "mountpoint"
    folder.mkdir()
    return folder


def check(source: object, mountpoint: object) -> None:
    Passthrough.check(Options(str(source)), str(mountpoint))


def test_a_folder_elsewhere_can_be_shown(source: Path, mountpoint: Path) -> None:
    check(source, mountpoint)


def test_a_source_is_named_whole_and_exists(source: Path, mountpoint: Path) -> None:
    (source / "file").touch()
    for wrong, why in (
        ("relative/path", "not an absolute path"),
        ("", "not an absolute path"),
        (source / "nothing", "does not exist"),
        (source / "file", "not a folder"),
        (source / "file" / "x", "cannot be reached"),
    ):
        with pytest.raises(ValueError, match=why):
            check(wrong, mountpoint)


def test_a_mount_must_not_contain_itself(source: Path, mountpoint: Path) -> None:
    inner = source / "a" / "b"
    inner.mkdir(parents=True)
    with pytest.raises(ValueError, match="would contain itself"):
        check(source, inner)
    with pytest.raises(ValueError, match="would contain itself"):
        check("/", mountpoint)
    with pytest.raises(ValueError, match="would hide it"):
        check(inner, source)
    with pytest.raises(ValueError, match="the same folder"):
        check(source, source)


def test_links_do_not_hide_that(source: Path, tmp_path: Path) -> None:
    (source / "inner").mkdir()
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(ValueError, match="the same folder"):
        check(source, tmp_path / "link")
    with pytest.raises(ValueError, match="would contain itself"):
        check(tmp_path / "link", source / "inner")


def test_a_name_that_begins_alike_is_another_folder(source: Path, tmp_path: Path) -> None:
    (tmp_path / "source-2").mkdir()
    check(source, tmp_path / "source-2")
    check(tmp_path / "source-2", source)


def test_a_source_must_be_readable(source: Path, mountpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *arguments, **keywords: False)
    with pytest.raises(ValueError, match="may not be read by uid"):
        check(source, mountpoint)


def test_every_text_is_one_line(source: Path) -> None:
    for wrong in ("x", source / "nothing", source):
        with pytest.raises(ValueError) as caught:
            check(wrong, source)
        assert "\n" not in str(caught.value)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"source": "/x", "sauce": "/y"}, Options)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"source": "/x", "locks": "elsewhere"}, Options)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({}, Options)


def test_locks_choose_the_class() -> None:
    assert Passthrough.variant(Options("/x")) is Passthrough
    assert Passthrough.variant(Options("/x", locks="backing")) is PassthroughLocks
