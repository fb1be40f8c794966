"""Many clients at once."""

from pathlib import Path

import pytest
from mount.clients import call, requests, serve_class, status
from mount.support import TRANSPORTS, serve

CLIENTS = 64
both = pytest.mark.parametrize("transport", TRANSPORTS)

# Forks the clients, lets them begin together, and prints how many calls they made without an error.
CROWD = """
import os, sys, time, traceback
root, count, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
start, starter = os.pipe()
result, reporter = os.pipe()
for me in range(count):
    if os.fork() == 0:
        code = 1
        try:
            os.close(starter)
            os.read(start, 1)
            end, calls = time.monotonic() + seconds, 0
            while time.monotonic() < end or not calls:
                calls += work(root, me)
            os.write(reporter, b"%d\\n" % calls)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
os.close(start)
os.close(reporter)
os.close(starter)
failed = sum(os.wait()[1] != 0 for _ in range(count))
assert not failed, failed
made = [int(line) for line in os.fdopen(result)]
assert len(made) == count
print(sum(made))
"""

MIXED = """
def work(root, me):
    folder = f"{root}/client{me}"
    os.mkdir(folder)
    data = os.urandom(5000)
    with open(f"{folder}/a", "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    assert open(f"{folder}/a", "rb").read() == data
    os.rename(f"{folder}/a", f"{folder}/b")
    os.link(f"{folder}/b", f"{folder}/c")
    os.symlink("c", f"{folder}/d")
    assert os.readlink(f"{folder}/d") == "c"
    assert open(f"{folder}/d", "rb").read() == data
    assert sorted(os.listdir(folder)) == ["b", "c", "d"]
    os.truncate(f"{folder}/c", 100)
    assert os.stat(f"{folder}/b").st_size == 100
    assert os.stat(f"{folder}/b").st_nlink == 2
    os.chmod(f"{folder}/b", 0o600)
    os.setxattr(f"{folder}/b", "user.name", data[:64])
    assert os.getxattr(f"{folder}/c", "user.name") == data[:64]
    assert f"client{me}" in os.listdir(root)
    os.statvfs(root)
    for name in "bcd":
        os.unlink(f"{folder}/{name}")
    os.rmdir(folder)
    try:
        os.stat(folder)
    except FileNotFoundError:
        return 25
    raise AssertionError("it is still there")
"""

READING = """
def work(root, me):
    for i in range(0, 64, 7):
        number = (i + me) % 64
        name = f"{root}/f{number}"
        assert os.stat(name).st_size == 65536
        fd = os.open(name, os.O_RDONLY | (os.O_DIRECT if i % 2 else 0))
        data = os.pread(fd, 8192, 4096 * (me % 8))
        os.close(fd)
        assert data == (b"%08d" % (number + 2)) * 1024, (name, data[:16])
    assert len(os.listdir(root)) == 64
    return 41
"""


@both
def test_64_clients_change_files_without_an_error(tmp_path: Path, transport: str) -> None:
    with serve(tmp_path, transport=transport) as mount:
        calls = int(call(MIXED + CROWD, mount.path, CLIENTS, 2, seconds=60))
        assert calls >= CLIENTS * 25
        assert status(mount)["counts"]["unexpected"] == 0
        assert "error" not in mount.output()


@both
@pytest.mark.parametrize("name", ["Shared", "AsyncBusy", "ThreadBusy"])
def test_64_clients_read_from_all_workers_without_an_error(tmp_path: Path, transport: str, name: str) -> None:
    (tmp_path / "go").touch()
    settings = {"transport": transport, "timeouts": {"attr": 0, "entry": 0}}
    with serve_class(tmp_path, name, **settings) as mount:
        calls = int(call(READING + CROWD, mount.path, CLIENTS, 2, seconds=60))
        assert calls >= CLIENTS * 41
        assert all(count > 100 for count in requests(mount))
        assert "error" not in mount.output()


@both
def test_one_entry_a_queue_is_enough_for_everybody(tmp_path: Path, transport: str) -> None:
    with serve_class(tmp_path, "Tree", transport=transport, queue_depth=1, timeouts={"attr": 0, "entry": 0}) as mount:
        assert int(call(READING + CROWD, mount.path, CLIENTS, 1, seconds=60)) >= CLIENTS * 41
