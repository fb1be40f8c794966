"""Many nodes, many open files: nothing is left once the kernel has forgotten them."""

import os
import resource
import subprocess
import time
from pathlib import Path

import pytest
from mount.clients import client
from mount.support import TRANSPORTS, ServedMount, serve

FOLDERS = 400
FILES = 500
FIND = """
import subprocess, sys
command = ["find", sys.argv[1], "-type", "f", "-links", "1"]
print(subprocess.run(command, capture_output=True, check=True).stdout.count(b"\\n"))
"""


def make_tree(top: Path) -> None:
    for folder in range(FOLDERS):
        path = top / f"folder{folder}"
        path.mkdir()
        for number in range(FILES):
            os.mknod(path / f"file{number}")


def live_nodes(mount: ServedMount) -> int:
    return int(mount.status()["nodes"])


def drop_caches() -> None:
    Path("/proc/sys/vm/drop_caches").write_text("2\n")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_nothing_is_left_after_find_over_200000_files(tmp_path: Path, transport: str) -> None:
    source = Path("/dev/shm") / f"ringmount-scale-{os.getpid()}"
    source.mkdir()
    try:
        make_tree(source)
        with serve(
            tmp_path, filesystem="passthrough", options={"source": str(source)}, transport=transport, patience=300
        ) as mount:
            most = 0
            with client(FIND, mount.path) as finder:
                while not finder.is_done():
                    most = max(most, live_nodes(mount))  # on the way: memory is dropped as the machine likes
                assert int(finder.result()) == FOLDERS * FILES
            assert most > 1000
            deadline = time.monotonic() + 60
            while live_nodes(mount) > 8 and time.monotonic() < deadline:
                drop_caches()
                time.sleep(0.1)
            assert live_nodes(mount) <= 8
    finally:
        subprocess.run(["rm", "-rf", str(source)], check=True, timeout=60)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ten_thousand_open_files_find_their_descriptors(tmp_path: Path, transport: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    count = 10_500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 1000:
        pytest.fail(f"the limit of open files is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    opened: list[int] = []
    try:
        with serve(
            tmp_path, filesystem="passthrough", options={"source": str(source)}, transport=transport, patience=300
        ) as mount:
            try:
                opened.extend(os.open(mount.path / f"file{n}", os.O_RDWR | os.O_CREAT) for n in range(count))
                for number, fd in enumerate(opened):
                    os.pwrite(fd, b"%d" % number, 0)
                assert all(os.pread(fd, 8, 0) == b"%d" % number for number, fd in enumerate(opened))
            finally:
                for fd in opened:
                    os.close(fd)
            assert (source / f"file{count - 1}").read_bytes() == b"%d" % (count - 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
