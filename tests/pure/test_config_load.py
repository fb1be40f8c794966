"""ringmount.config.load: files, documents, and errors located later."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringmount.config import ConfigError, load_mount, read_document
from ringmount.config.load import MAX_FILE, Document

SHORTEST = "mountpoint: /mnt/data\nfilesystem: passthrough\noptions:\n  source: /srv/data\n"
START = "mountpoint: /mnt/data\nfilesystem: memory\n"


def test_a_mount_is_named_after_its_file(tmp_path: Path) -> None:
    path = tmp_path / "my.data@1-x.yaml"
    path.write_text(SHORTEST)
    assert load_mount(str(path)).name == "my.data@1-x"


@pytest.mark.parametrize("name", [".hidden.yaml", "-x.yaml", "a b.yaml", "é.yaml", "a\nb.yaml", "x" * 65 + ".yaml"])
def test_a_file_whose_name_cannot_be_a_mount_s_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(SHORTEST)
    with pytest.raises(ConfigError, match=r"A mount is named after its file, and '.*' cannot be a name; use letters"):
        load_mount(str(tmp_path / name))


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    cases = {
        str(tmp_path / "none.yaml"): "Cannot read the file: No such file or directory; check the path",
        str(tmp_path): "Cannot read the file: Is a directory; name a file, not a folder",
        "a\0b": "Cannot read the file: embedded null byte",
        "": "Cannot read the file: No such file or directory; check the path",
    }
    for path, message in cases.items():
        with pytest.raises(ConfigError) as caught:
            load_mount(path)
        assert str(caught.value).endswith(message)
        assert caught.value.line is None


def test_a_file_that_is_not_utf_8_is_refused_at_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("a: 1\nb: é".encode() + b"\xff\n")
    with pytest.raises(ConfigError) as caught:
        load_mount(str(path))
    assert str(caught.value) == f"{path}:2:5: The file is not UTF-8; save it as UTF-8"


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"#" * MAX_FILE)
    with pytest.raises(ConfigError, match="The file is empty"):
        load_mount(str(path))
    path.write_bytes(b"#" * (MAX_FILE + 1))
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load_mount(str(path))
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load_mount("/dev/zero")


def test_a_document_locates_keys_for_later_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(SHORTEST)
    document = read_document(str(path))
    assert document.data["options"] == {"source": "/srv/data"}
    assert document.locate("options.source") == (4, 11)
    error = document.error("options.source", "No such folder", "make it")
    assert str(error) == f"{path}:4:11: options.source: No such folder; make it"
    assert document.locate("options.other") == (3, 1)
    assert document.locate("workers") == (1, 1)


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    size: int = 0


class Options(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    inner: Inner | None = None
    items: list[Inner] = []
    by_name: dict[str, int] = {}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("{}", "f:3:1: options.source: This key is missing; add it"),
        ("{source: 1}", "f:3:19: options.source: Expected str, got int"),
        ("{source: x, sorce: 1}", "f:3:22: options.sorce: Unknown key; remove it or correct its name"),
        (
            "{source: x, inner: {siz: 1}}",
            "f:3:30: options.inner.siz: Unknown key; remove it or correct its name",
        ),
        ("{source: x, items: [{}, {size: x}]}", "f:3:41: options.items[1].size: Expected int, got str"),
        ("{source: x, by_name: {a: x}}", "f:3:31: options.by_name: Expected int, got str"),
    ],
)
def test_what_msgspec_finds_in_options_gets_its_place(options: str, error: str) -> None:
    document = Document(START + f"options: {options}\n", "f", "data")
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(document.data["options"], Options)
    assert str(document.error_from_validation("options", str(caught.value))) == error


@given(st.text())
def test_any_validation_message_becomes_one_line(message: str) -> None:
    document = Document(SHORTEST, "f", "data")
    assert str(document.error_from_validation("options", message)).isprintable()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "data.yaml"


@given(content=st.binary() | st.text().map(str.encode))
def test_any_bytes_are_settings_or_a_config_error(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigError):
        load_mount(str(file))
