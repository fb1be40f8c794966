"""What a user or an administrator can do wrong: one clear line on stderr, an exit code, and nothing left behind.

Every case goes through the command line on the real machine. What belongs to the machine (/dev/fuse, the ring switch)
is changed in a mount namespace of the test's own.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.private import Private, private
from mount.private import serve as serve_privately
from mount.support import is_mounted, processes_of, ringmount, serve, write_config

from ringmount.daemon.exitcodes import ExitCode

FILESYSTEMS = """\
import msgspec, os, signal
from ringmount.workers.api import ROOT, Attr, Filesystem

class Fine(Filesystem):
    class Options(msgspec.Struct, forbid_unknown_fields=True):
        number: int = 1
        source: str = ""
    def lookup(self, ctx, parent, name):
        raise FileNotFoundError(2, "no such file")
    def getattr(self, ctx, node, fh):
        return Attr(st_ino=1, st_mode=0o40755, st_nlink=2)

class Required(Fine):
    class Options(msgspec.Struct, forbid_unknown_fields=True):
        source: str

class NoLookup(Filesystem):
    def getattr(self, ctx, node, fh): ...

class NoGetattr(Filesystem):
    def lookup(self, ctx, parent, name): ...

class RaisesInInit(Fine):
    def __init__(self, options, mount):
        raise RuntimeError("this is\\nno good")

class RaisesInStart(Fine):
    def start(self):
        raise OSError(13, "Permission denied", "/somewhere")

class DiesInInit(Fine):
    def __init__(self, options, mount):
        os.kill(os.getpid(), signal.SIGKILL)

class Picky(Fine):
    @classmethod
    def check(cls, options, mountpoint):
        raise ValueError("number must be even")

class Other: ...
function = print
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an empty folder `mnt` and the modules of bad filesystems."""
    (tmp_path / "mnt").mkdir()
    (tmp_path / "bad.py").write_text(FILESYSTEMS)
    (tmp_path / "badsyntax.py").write_text("def oops(:\n")
    (tmp_path / "badimport.py").write_text("import there_is_no_such_module\n")
    (tmp_path / "badexit.py").write_text("import os\nos._exit(3)\n")
    return tmp_path


def complaint(done: "subprocess.CompletedProcess[str]", code: ExitCode) -> str:
    """What the command said: one line on stderr that is no traceback, without the command's name."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert re.fullmatch("ringmount: .*\n", done.stderr), done.stderr
    return done.stderr.removeprefix("ringmount: ").removesuffix("\n")


def refused(folder: Path, text: str, code: ExitCode, command: str = "run") -> str:
    """What `ringmount run` says of a file with this text, in which MNT stands for an empty folder.

    Nothing is left: no mount, no process, no socket.
    """
    file = folder / "mount.yaml"
    file.write_text(text.replace("MNT", str(folder / "mnt")))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "ringmount.daemon", command, str(file)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd="/",
    )
    out, err = process.communicate(timeout=60)
    assert processes_of(process.pid) == []
    assert not is_mounted(folder / "mnt")
    assert not Path("/run/ringmount/mount.sock").exists()
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    return complaint(done, code).replace(f"{file}:", "mount.yaml:").replace(str(folder), "FOLDER")


MEMORY = "mountpoint: MNT\nfilesystem: memory\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "mount.yaml:1:1: The file is empty; give at least mountpoint and filesystem"),
        ("mountpoint: [\n", "mount.yaml:2:1: Not YAML: "),
        (MEMORY + "options: &a {}\n", "mount.yaml:3:10: options: Anchors are not accepted"),
        (
            "mountpoint: MNT\nfilesystem: memroy\n",
            "mount.yaml:2:13: filesystem: 'memroy' is not a filesystem; did you mean memory?",
        ),
        ("mountpoint: mnt\nfilesystem: memory\n", "mount.yaml:1:13: mountpoint: 'mnt' is not an absolute path"),
        (MEMORY + "queue_dept: 4\n", "mount.yaml:3:1: queue_dept: Unknown key 'queue_dept'; did you mean queue_depth?"),
        (MEMORY + "queue_depth: many\n", "mount.yaml:3:14: queue_depth: Expected integer from 1 to 1024"),
        (MEMORY + "timeouts: {attr: -1}\n", "mount.yaml:3:18: timeouts.attr: Expected "),
        (MEMORY + "transport: tcp\n", "mount.yaml:3:12: transport: Expected auto, io_uring or dev_fuse"),
        (MEMORY + "options:\n  size: 1MiB\n  colour: red\n", "mount.yaml:5:3: options.colour: Unknown key; "),
        (MEMORY + "options: {inodes: many}\n", "mount.yaml:3:19: options.inodes: Expected int | null, got str; "),
        (MEMORY + "cpus: 0-8191\n", "mount.yaml:3:7: cpus: CPU "),
        (MEMORY + "workers: 8192\n", "mount.yaml:3:10: workers: 8192 are more than "),
        (
            MEMORY + "ring_memory: 1MiB\n",
            "mount.yaml:3:14: ring_memory: 1MiB is less than the 8MiB of one queue; raise",
        ),
        (MEMORY + "user: nobody-at-all\n", "mount.yaml:3:7: user: there is no user nobody-at-all; "),
        ("mountpoint: MNT\nfilesystem: bad:Required\n", "mount.yaml:1:1: options.source: This key is missing; "),
        ("mountpoint: MNT\nfilesystem: bad:Picky\noptions: {}\n", "mount.yaml:3:10: options: number must be even"),
        ("mountpoint: MNT\nfilesystem: passthrough\n", "mount.yaml:1:1: options.source: This key is missing; "),
        ("mountpoint: MNT\nfilesystem: passthrough\noptions:\n  source: /no/such/folder\n", "source /no/such/folder"),
        ("mountpoint: MNT\nfilesystem: passthrough\noptions:\n  source: MNT\n", "the same folder"),
        ("mountpoint: MNT\nfilesystem: passthrough\noptions:\n  source: FOLDER\n", "source"),
        ("mountpoint: MNT\nfilesystem: passthrough\noptions:\n  source: /etc/passwd\n", "source"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_place(folder: Path, text: str, said: str) -> None:
    assert said in refused(folder, text.replace("FOLDER", str(folder)), ExitCode.CONFIG)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nosuchmodule:Class", "importing nosuchmodule failed: ModuleNotFoundError: No module named 'nosuchmodule'"),
        (
            "badimport:Class",
            "importing badimport failed: ModuleNotFoundError: No module named 'there_is_no_such_module'",
        ),
        ("badsyntax:Class", "importing badsyntax failed: SyntaxError: "),
        ("badexit:Class", "the process that imported badexit:Class exited with code 3"),
        ("bad:Missing", "bad has no class Missing"),
        ("bad:function", "bad:function is no subclass of ringmount.workers.api.Filesystem"),
        ("bad:Other", "bad:Other is no subclass of ringmount.workers.api.Filesystem"),
        ("bad:NoLookup", "bad:NoLookup lacks the method lookup()"),
        ("bad:NoGetattr", "bad:NoGetattr lacks the method getattr()"),
    ],
)
def test_a_class_that_is_no_filesystem_is_told(folder: Path, name: str, said: str) -> None:
    text = f"mountpoint: MNT\nfilesystem: {name}\n"
    assert refused(folder, text, ExitCode.FILESYSTEM).startswith(f"mount.yaml:2:13: filesystem: {said}")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (MEMORY + "workers: 8192\n", ExitCode.CONFIG),
        (MEMORY + "user: nobody-at-all\n", ExitCode.CONFIG),
        (MEMORY + "options:\n  colour: red\n", ExitCode.CONFIG),
        (MEMORY + "ring_memory: 8MiB\n", ExitCode.RESOURCES),
        ("mountpoint: MNT\nfilesystem: bad:NoLookup\n", ExitCode.FILESYSTEM),
    ],
)
def test_check_says_what_run_says(folder: Path, text: str, code: ExitCode) -> None:
    assert refused(folder, text, code, "check") == refused(folder, text, code, "run")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bad:RaisesInInit", r"RuntimeError: this is\nno good; log_level: debug shows more"),
        ("bad:RaisesInStart", "Permission denied: /somewhere; log_level: debug shows more"),
        ("bad:DiesInInit", " died while preparing the filesystem"),
    ],
)
def test_a_filesystem_that_cannot_be_made_is_told(folder: Path, name: str, said: str) -> None:
    told = refused(folder, f"mountpoint: MNT\nfilesystem: {name}\n", ExitCode.FILESYSTEM)
    assert told.startswith(f"filesystem {name}: ")
    assert said in told


def test_all_mistakes_of_a_file_are_told_at_once(folder: Path) -> None:
    file = folder / "two.yaml"
    file.write_text("mountpoint: 1\nfilesystem: memory\nworkers: none\n")
    done = ringmount("check", str(file))
    assert done.returncode == ExitCode.CONFIG
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == [f"{file}:1:13", f"{file}:3:10"]


def test_rings_beyond_the_memory_cap_are_told_with_what_to_lower(folder: Path) -> None:
    told = refused(folder, MEMORY + "ring_memory: 8MiB\n", ExitCode.RESOURCES)
    assert told.startswith("mount.yaml:3:14: ring_memory: ")
    assert told.endswith("; lower queue_depth (8) or max_write (1MiB), or raise ring_memory")


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, command: str) -> None:
    assert "No such file" in complaint(ringmount(command, str(tmp_path / "none.yaml")), ExitCode.CONFIG)
    assert "name a file, not a folder" in complaint(ringmount(command, str(tmp_path)), ExitCode.CONFIG)
    unnamed = write_config(tmp_path, "a name", mountpoint="/mnt/x", filesystem="memory")
    assert "cannot be a name" in complaint(ringmount(command, str(unnamed)), ExitCode.CONFIG)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: COMMAND; see: ringmount --help"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["run"], "the following arguments are required: FILE.yaml; see: ringmount run --help"),
        (["run", "a.yaml", "b.yaml"], "unrecognized arguments: b.yaml"),
        (["status", "--jsn"], "unrecognized arguments: --jsn"),
        (["completion", "cmd.exe"], "invalid choice: 'cmd.exe'"),
    ],
)
def test_a_wrong_command_line_is_told(arguments: list[str], said: str) -> None:
    assert said in complaint(ringmount(*arguments), ExitCode.USAGE)


# --- mountpoints --------------------------------------------------------------------------------------------------


def test_a_mountpoint_that_does_not_exist_is_told(folder: Path) -> None:
    told = refused(folder, "mountpoint: MNT/none\nfilesystem: memory\n", ExitCode.MOUNTPOINT)
    assert told == "mountpoint FOLDER/mnt/none does not exist; make it with: mkdir -p FOLDER/mnt/none"


def test_a_mountpoint_with_something_in_it_is_told(folder: Path) -> None:
    (folder / "mnt/precious").touch()
    told = refused(folder, MEMORY, ExitCode.MOUNTPOINT)
    assert told.startswith("mountpoint FOLDER/mnt is not empty: precious is in it and would be hidden; ")


def test_a_mountpoint_that_is_a_file_is_told(folder: Path) -> None:
    told = refused(
        folder, "mountpoint: MNT/../bad.py\nfilesystem: memory\n".replace("/../", "/.."), ExitCode.MOUNTPOINT
    )
    assert "does not exist" in told
    (folder / "mnt").rmdir()
    (folder / "mnt").touch()
    assert refused(folder, MEMORY, ExitCode.MOUNTPOINT).startswith("mountpoint FOLDER/mnt is not a folder; ")


def test_a_mountpoint_that_serves_already_is_told(tmp_path: Path) -> None:
    with serve(tmp_path) as mount:
        file = write_config(tmp_path, "second", mountpoint=str(mount.path), filesystem="memory")
        told = complaint(ringmount("run", str(file)), ExitCode.MOUNTPOINT)
        assert told.startswith(f"mountpoint {mount.path} is already mounted by mount {mount.name}; ")
        assert f"ringmount umount {mount.name}" in told
        assert mount.path.is_dir()


def test_a_mountpoint_of_something_else_is_told(folder: Path) -> None:
    with private(f"mount -t tmpfs elsewhere {folder}/mnt") as place:
        file = place.write_config("mount", mountpoint=str(folder / "mnt"), filesystem="memory")
        told = complaint(place.ringmount("run", file), ExitCode.MOUNTPOINT)
    assert told.startswith(f"mountpoint {folder}/mnt is already a mount of tmpfs (elsewhere); ")


def test_two_mounts_cannot_have_one_name(tmp_path: Path) -> None:
    with serve(tmp_path, name="twin") as mount:
        (tmp_path / "other").mkdir()
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        file = write_config(elsewhere, "twin", mountpoint=str(tmp_path / "other"), filesystem="memory")
        told = complaint(ringmount("run", str(file)), ExitCode.MOUNTPOINT)
        assert told.startswith("a mount named twin is running already; stop it with: ringmount umount twin")
        assert mount.status()["pid"] == mount.process.pid


def test_the_mount_of_a_dead_server_is_told_shown_and_cleared() -> None:
    with private() as place:
        file = place.write_config("gone", mountpoint="/mnt/empty", filesystem="memory")
        with serve_privately(place, file) as server:
            server.kill()

            told = complaint(place.ringmount("run", file), ExitCode.MOUNTPOINT)
            assert told.startswith("mountpoint /mnt/empty is a stale mount: the server of mount gone is dead; ")
            assert "clear it with: ringmount umount gone" in told

            table = place.ringmount("status").stdout
            assert re.search(r"^gone +root +/mnt/empty +\(no server answers for it\)", table, re.MULTILINE)
            told = complaint(place.ringmount("status", "gone"), ExitCode.NO_SUCH_MOUNT)
            assert told.endswith("clear it with: ringmount umount gone")

            cleared = place.ringmount("umount", "gone")
            assert (cleared.returncode, cleared.stderr) == (0, "")
            assert cleared.stdout == "ringmount: gone: cleared /mnt/empty; no server answered for it\n"
            assert place.mounts() == []
            assert not Path("/run/ringmount/gone.sock").exists()
            complaint(place.ringmount("umount", "gone"), ExitCode.NO_SUCH_MOUNT)
        with serve_privately(place, file):  # the name and the place can be used again
            assert place.ringmount("umount", "/mnt/empty").returncode == 0


def test_a_mount_that_is_not_there_cannot_be_stopped_or_shown(tmp_path: Path) -> None:
    assert complaint(ringmount("umount", "nowhere"), ExitCode.NO_SUCH_MOUNT).startswith("there is no mount nowhere; ")
    assert complaint(ringmount("umount", str(tmp_path)), ExitCode.NO_SUCH_MOUNT).startswith("there is no mount /")
    assert "no mount named nowhere" in complaint(ringmount("status", "nowhere"), ExitCode.NO_SUCH_MOUNT)


# --- the machine --------------------------------------------------------------------------------------------------

NO_DEVICE = """
mount -t tmpfs -o mode=755 none /dev
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/urandom c 1 9
"""
OTHER_DEVICE = "mount --bind /dev/null /dev/fuse"
SWITCH_OFF = "echo N >/mnt/switch; mount --bind /mnt/switch /sys/module/fuse/parameters/enable_uring"


@pytest.fixture
def without_switch() -> Iterator[Private]:
    """A namespace in which the kernel's ring switch reads as off."""
    if not Path("/sys/module/fuse/parameters/enable_uring").exists():
        pytest.skip("this kernel has no ring switch")
    with private(SWITCH_OFF) as place:
        yield place


def test_a_machine_without_dev_fuse_is_told() -> None:
    with private(NO_DEVICE) as place:
        file = place.write_config("mount", mountpoint="/mnt/empty", filesystem="memory")
        told = complaint(place.ringmount("run", file), ExitCode.UNAVAILABLE)
        assert told.startswith("there is no /dev/fuse: the kernel's fuse module is not loaded; load it as root with: ")
        assert place.mounts() == []


def test_a_device_that_is_not_fuse_is_told() -> None:
    with private(OTHER_DEVICE) as place:
        file = place.write_config("mount", mountpoint="/mnt/empty", filesystem="memory")
        assert "the kernel refused to mount" in complaint(place.ringmount("run", file), ExitCode.UNAVAILABLE)
        assert place.mounts() == []


def test_rings_that_the_switch_forbids_are_told(without_switch: Private) -> None:
    file = without_switch.write_config("mount", mountpoint="/mnt/empty", filesystem="memory", transport="io_uring")
    told = complaint(without_switch.ringmount("run", file), ExitCode.UNAVAILABLE)
    assert told.startswith("transport: io_uring is not to be had: the kernel's switch is off (echo Y > ")
    assert without_switch.mounts() == []


def test_without_rings_a_mount_falls_back_and_says_why(without_switch: Private) -> None:
    file = without_switch.write_config("fallback", mountpoint="/mnt/empty", filesystem="memory", transport="auto")
    with serve_privately(without_switch, file) as server:
        assert "\n  transport  dev_fuse, FUSE 7." in server.output
        assert "; no rings, because the kernel's switch is off (echo Y > /sys/module/fuse/" in server.output
        shown = without_switch.ringmount("status", "fallback").stdout
        assert "\ntransport  dev_fuse (the kernel's switch is off (echo Y > /sys/module/fuse/" in shown
