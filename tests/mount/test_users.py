"""Ordinary users' mounts through fusermount3, and root's mounts whose workers run as an ordinary user."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.private import AS_USER, HOME, Private, private, serve
from mount.support import TRANSPORTS
from mount.support import serve as serve_here

from ringmount.daemon.exitcodes import ExitCode

MOUNTPOINT = f"{HOME}/mnt"

CURIOUS = """\
import os
from ringmount.workers.api import ROOT, Attr, Filesystem, HandlePolicy

with open("{seen}", "a") as seen:
    print(os.geteuid(), file=seen)

class Curious(Filesystem):
    handle_policy = HandlePolicy.STATELESS
    def lookup(self, ctx, parent, name):
        raise FileNotFoundError(2, "no such file")
    def getattr(self, ctx, node, fh):
        return Attr(st_ino=1, st_mode=0o40755, st_nlink=2)
"""


@pytest.fixture
def place() -> Iterator[Private]:
    """A namespace in which an ordinary user can mount for himself."""
    with private() as place:
        yield place


def entry(place: Private) -> str:
    """The line of mountinfo of the only FUSE mount there."""
    (line,) = place.mounts()
    return line


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_ordinary_user_mounts_uses_looks_at_and_stops_his_own(place: Private, transport: str) -> None:
    file = place.write_config("own", mountpoint=MOUNTPOINT, filesystem="memory", transport=transport)
    with serve(place, file, user=True) as server:
        assert "only you can use this mount: /etc/fuse.conf has no line user_allow_other" in server.output
        assert f"\n  transport  {transport}, " in server.output
        assert "rw,nosuid,nodev," in entry(place)
        assert "user_id=65534" in entry(place)

        used = place.run("sh", "-c", f"echo hello >{MOUNTPOINT}/file && cat {MOUNTPOINT}/file", user=True)
        assert (used.stdout, used.stderr) == ("hello\n", "")
        shown = json.loads(place.ringmount("status", "own", "--json", user=True).stdout)
        assert (shown["transport"], shown["user"], shown["pid"]) == (transport, "nobody", server.process.pid)
        assert place.run("ls", MOUNTPOINT).returncode != 0  # not even root

        stopped = place.ringmount("umount", "own", user=True)
        assert (stopped.returncode, stopped.stdout) == (0, f"ringmount: own: unmounted from {MOUNTPOINT}\n")
        assert server.process.wait(timeout=30) == 0
    assert os.listdir(place.root / HOME.lstrip("/") / "run/ringmount") == []


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_ordinary_users_passthrough_acts_as_him(place: Private, transport: str) -> None:
    made = place.run("mkdir", f"{HOME}/source", user=True)
    assert made.returncode == 0
    options = {"source": f"{HOME}/source"}
    file = place.write_config(
        "pass", mountpoint=MOUNTPOINT, filesystem="passthrough", options=options, transport=transport
    )
    with serve(place, file, user=True):
        script = f"cd {MOUNTPOINT} && echo hello >file && mkdir folder && mv file folder && stat -c '%u %a' folder"
        done = place.run("sh", "-c", script, user=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "65534 755\n", "")
        assert place.run("cat", f"{HOME}/source/folder/file").stdout == "hello\n"
        refused = place.run("chown", "0", f"{MOUNTPOINT}/folder", user=True)
        assert "Operation not permitted" in refused.stderr


def test_other_users_are_let_in_only_where_fuse_conf_permits_it(place: Private) -> None:
    file = place.write_config("other", mountpoint=MOUNTPOINT, filesystem="memory", allow_other=True)
    refused = place.ringmount("run", file, user=True)
    assert refused.returncode == ExitCode.PERMISSION
    assert refused.stderr == (
        "ringmount: allow_other is not permitted to ordinary users on this machine; "
        "set allow_other: false, or add the line user_allow_other to /etc/fuse.conf as root\n"
    )
    assert place.mounts() == []
    place.write("/mnt/fuse.conf", "user_allow_other\n")
    with serve(place, file, user=True):
        assert place.run("ls", MOUNTPOINT).returncode == 0


def test_the_default_lets_others_in_where_that_is_permitted(place: Private) -> None:
    place.write("/mnt/fuse.conf", "user_allow_other\n")
    file = place.write_config("other", mountpoint=MOUNTPOINT, filesystem="memory")
    with serve(place, file, user=True) as server:
        assert "only you" not in server.output
        assert "allow_other" in entry(place)


def test_an_ordinary_user_sees_roots_mount_but_cannot_stop_it(place: Private) -> None:
    file = place.write_config("roots", mountpoint="/mnt/empty", filesystem="memory")
    with serve(place, file):
        assert re.search("^roots +root +/mnt/empty +memory ", place.ringmount("status", user=True).stdout, re.MULTILINE)
        assert place.ringmount("status", "roots", user=True).returncode == 0
        refused = place.ringmount("umount", "roots", user=True)
        assert refused.returncode == ExitCode.PERMISSION
        assert refused.stderr.startswith("ringmount: no permission to stop roots, which is another user's; ")
        assert place.mounts() != []


def test_an_ordinary_user_cannot_clear_roots_dead_mount(place: Private) -> None:
    file = place.write_config("roots", mountpoint="/mnt/empty", filesystem="memory")
    with serve(place, file) as server:
        server.kill()
        refused = place.ringmount("umount", "roots", user=True)
        assert (refused.returncode, refused.stdout) == (ExitCode.PERMISSION, "")
        assert place.ringmount("umount", "roots").returncode == 0


def test_root_sees_and_stops_an_ordinary_users_mount(place: Private) -> None:
    # Where a login session has made its usual runtime folder.
    folder = "/run/user/65534"
    place.run("sh", "-c", f"mount -t tmpfs -o mode=755 none /run && mkdir -p {folder} && chown 65534 {folder}")
    file = place.write_config("users", mountpoint=MOUNTPOINT, filesystem="memory")
    with serve(place, file, launcher=[*AS_USER, "env", f"XDG_RUNTIME_DIR={folder}"]) as server:
        assert re.search(f"^users +nobody +{MOUNTPOINT} +memory ", place.ringmount("status").stdout, re.MULTILINE)
        assert place.ringmount("status", "users").returncode == 0
        assert place.ringmount("umount", "users").returncode == 0
        assert server.process.wait(timeout=30) == 0


def test_a_mount_whose_server_root_cannot_ask_is_still_shown_and_removed(place: Private) -> None:
    file = place.write_config("users", mountpoint=MOUNTPOINT, filesystem="memory")
    with serve(place, file, user=True) as server:
        table = place.ringmount("status").stdout
        assert re.search(
            rf"^users +nobody +{MOUNTPOINT} +\(its server cannot be asked from here\)", table, re.MULTILINE
        )
        assert place.ringmount("umount", MOUNTPOINT).returncode == 0
        assert server.process.wait(timeout=30) == 0  # a server without its mount ends


def test_a_user_and_root_may_use_one_name_and_each_means_his_own(place: Private) -> None:
    roots = place.write_config("same", mountpoint="/mnt/empty", filesystem="memory")
    place.run("mkdir", "/mnt/users")
    users = place.write_config("same", "/mnt/users", mountpoint=MOUNTPOINT, filesystem="memory")

    def pid_as(user: bool) -> int:
        return int(json.loads(place.ringmount("status", "same", "--json", user=user).stdout)["pid"])

    with serve(place, roots) as root_server:
        with serve(place, users, user=True) as user_server:
            assert (pid_as(False), pid_as(True)) == (root_server.process.pid, user_server.process.pid)
            assert place.ringmount("umount", "same", user=True).returncode == 0
            assert user_server.process.wait(timeout=30) == 0
        assert pid_as(True) == root_server.process.pid


@pytest.mark.parametrize(
    ("mountpoint", "code", "said"),
    [
        ("/mnt/empty", ExitCode.PERMISSION, "choose a folder that you own"),
        ("/mnt/closed/folder", ExitCode.PERMISSION, "no permission on a folder above it"),
    ],
)
def test_an_ordinary_user_is_told_where_he_may_not_mount(
    place: Private, mountpoint: str, code: ExitCode, said: str
) -> None:
    place.run("sh", "-c", "mkdir -m 700 /mnt/closed; mkdir /mnt/closed/folder")
    file = place.write_config("own", mountpoint=mountpoint, filesystem="memory")
    refused = place.ringmount("run", file, user=True)
    assert refused.returncode == code
    assert said in refused.stderr
    assert place.mounts() == []


def test_an_ordinary_user_is_told_of_a_file_he_may_not_read(place: Private) -> None:
    file = place.write_config("secret", mountpoint=MOUNTPOINT, filesystem="memory")
    place.run("chmod", "600", file)
    refused = place.ringmount("run", file, user=True)
    assert refused.returncode == ExitCode.CONFIG
    assert refused.stderr == (
        f"ringmount: {file}: Cannot read the file: Permission denied; check its permissions, or run as root\n"
    )


def test_only_root_can_give_workers_to_another_user(place: Private) -> None:
    file = place.write_config("own", mountpoint=MOUNTPOINT, filesystem="memory", user="root")
    refused = place.ringmount("run", file, user=True)
    assert refused.returncode == ExitCode.CONFIG
    assert refused.stderr == (
        f"ringmount: {file}:3:7: user: only root can run workers as another user; remove the key, or run as root\n"
    )


def test_an_ordinary_user_without_the_device_is_told(place: Private) -> None:
    place.run("chmod", "600", "/mnt/fuse")
    file = place.write_config("own", mountpoint=MOUNTPOINT, filesystem="memory")
    refused = place.ringmount("run", file, user=True)
    assert refused.returncode == ExitCode.PERMISSION
    assert "\nringmount: fusermount3: failed to open /dev/fuse: Permission denied; let everybody" in refused.stderr
    assert place.mounts() == []


def test_a_missing_fusermount3_is_told() -> None:
    with private(f"mount --bind /dev/null {shutil.which('fusermount3')}") as place:
        file = place.write_config("own", mountpoint=MOUNTPOINT, filesystem="memory")
        refused = place.ringmount("run", file, user=True)
        assert refused.returncode == ExitCode.UNAVAILABLE
        assert "\nringmount: fusermount3 is not installed, and without it only root can mount; " in refused.stderr


def test_without_a_runtime_folder_the_socket_is_in_a_folder_of_the_users_own(place: Private) -> None:
    place.run("sh", "-c", f"rmdir {HOME}/run; mkdir -p /run/user; mount -t tmpfs none /run/user")
    file = place.write_config("own", mountpoint=MOUNTPOINT, filesystem="memory")
    folder = Path("/tmp/ringmount-65534")
    with serve(place, file, user=True):
        found = (place.root / str(folder).lstrip("/")).stat()
        assert (found.st_uid, found.st_mode & 0o777) == (65534, 0o700)
        assert place.ringmount("status", "own", user=True).returncode == 0
        assert place.ringmount("status", "own").returncode == 0  # root knows where to ask
    assert list(folder.iterdir()) == []
    folder.rmdir()


def test_an_ordinary_users_limits_are_raised_as_far_as_he_may(place: Private) -> None:
    file = place.write_config("own", mountpoint=MOUNTPOINT, filesystem="memory")
    with serve(place, file, user=True, launcher=["prlimit", "--nofile=1024:3000"]) as server:
        assert re.search(r"Max open files +3000 +3000 ", Path(f"/proc/{server.process.pid}/limits").read_text())


# --- `user:` --------------------------------------------------------------------------------------------------------


def process_status(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: " ".join(value.split()) for key, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_workers_run_as_the_mounts_user_without_any_privilege(place: Private, transport: str) -> None:
    seen = "/mnt/seen"
    place.run("sh", "-c", f"touch {seen}; chmod 666 {seen}")
    place.write("/mnt/curious.py", CURIOUS.format(seen=seen))
    file = place.write_config(
        "safe", mountpoint="/mnt/empty", filesystem="curious:Curious", user="nobody", transport=transport
    )
    with serve(place, file):
        shown = json.loads(place.ringmount("status", "safe", "--json").stdout)
        assert shown["transport"] == transport
        assert [worker["cpu"] for worker in shown["workers"]] == sorted(os.sched_getaffinity(0))
        for worker in shown["workers"]:
            status = process_status(worker["pid"])
            assert (status["Uid"], status["Gid"]) == ("65534 65534 65534 65534",) * 2
            assert set(status["Groups"].split()) <= {"65534"}
            assert [int(status[f"Cap{which}"], 16) for which in ("Inh", "Prm", "Eff", "Amb")] == [0, 0, 0, 0]
            assert status["NoNewPrivs"] == "1"
        assert process_status(shown["pid"])["Uid"] == "0 0 0 0"
        assert "rw,nosuid,nodev," in entry(place)
        assert place.run("stat", "/mnt/empty").returncode == 0
    # Nor was the filesystem's module ever imported by root, not even to check it.
    assert set((place.root / seen.lstrip("/")).read_text().split()) == {"65534"}


def test_a_filesystem_that_acts_with_its_callers_rights_takes_no_user(place: Private) -> None:
    options = {"source": "/usr"}
    file = place.write_config("safe", mountpoint="/mnt/empty", filesystem="passthrough", options=options, user="nobody")
    refused = place.ringmount("run", file)
    assert refused.returncode == ExitCode.CONFIG
    assert refused.stderr == (
        f"ringmount: {file}:5:7: user: passthrough acts with each caller's rights and cannot run as nobody; "
        "remove the key\n"
    )


def test_a_module_that_the_mounts_user_cannot_read_is_told(place: Private) -> None:
    place.run("mkdir", "-m", "700", "/mnt/closed")
    place.write("/mnt/closed/curious.py", CURIOUS)
    file = place.write_config(
        "safe", "/mnt/closed", mountpoint="/mnt/empty", filesystem="curious:Curious", user="nobody"
    )
    refused = place.ringmount("run", file)
    assert refused.returncode == ExitCode.FILESYSTEM
    assert refused.stderr.endswith("No module named 'curious'; it was looked for as the user nobody\n")


def test_without_user_workers_keep_roots_rights(tmp_path: Path) -> None:
    with serve_here(tmp_path) as mount:
        (pid,) = mount.worker_pids()
        assert process_status(pid)["Uid"] == "0 0 0 0"
