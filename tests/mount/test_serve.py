"""A mount from the command line to the last system call, on both transports."""

import os
from pathlib import Path

import pytest
from mount.support import TRANSPORTS, serve


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_files_can_be_made_read_and_removed(tmp_path: Path, transport: str) -> None:
    with serve(tmp_path, transport=transport) as mount:
        assert mount.status()["transport"] == transport
        file = mount.path / "file"
        file.write_bytes(b"hello")
        assert file.read_bytes() == b"hello"
        (mount.path / "folder").mkdir()
        assert sorted(os.listdir(mount.path)) == ["file", "folder"]
        file.unlink()
        assert os.listdir(mount.path) == ["folder"]
