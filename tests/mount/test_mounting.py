"""Mounting, unmounting and judging mountpoints, on real mounts with a server of one screenful.

This process never touches a mountpoint while something is mounted there.
"""

import contextlib
import errno
import fcntl
import json
import os
import select
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringmount.config.model import MountConfig
from ringmount.daemon import libc, liveness, mountinfo, mounting
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.libc import MountFlags, UmountFlags
from ringmount.daemon.liveness import Liveness
from ringmount.workers import abi, codec

SHORT = 0.6
"""Seconds after which a server counts as stuck here: time for an interpreter to start on a busy machine."""


def answer(request: bytes) -> bytes:
    """The reply of a server that can do nothing: INIT's, ENOSYS, or none where none is expected."""
    _, opcode, unique, *_ = abi.FUSE_IN_HEADER.struct.unpack_from(request)
    if opcode in (abi.Opcode.FORGET, abi.Opcode.BATCH_FORGET, abi.Opcode.INTERRUPT):
        return b""
    size = abi.FUSE_INIT_OUT.size if opcode == abi.Opcode.INIT else 0
    reply = bytearray(abi.FUSE_OUT_HEADER.size + size)
    codec.encode_out_header(memoryview(reply), 0, unique, 0 if size else errno.ENOSYS, size)
    if size:
        codec.encode_init_out(
            memoryview(reply),
            abi.FUSE_OUT_HEADER.size,
            minor=abi.FUSE_KERNEL_MINOR_VERSION,
            max_readahead=0,
            flags=0,
            max_background=0,
            congestion_threshold=0,
            max_write=4096,
        )
    return bytes(reply)


class TinyServer:
    """Answers INIT, and ENOSYS to everything else, until it is closed (the connection then ends)."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._stop, self._stopping = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        while self._stop not in dict(poll.poll()):
            try:
                request = os.read(self._fd, 1 << 17)
            except BlockingIOError:  # taken back: its caller is gone
                continue
            except OSError:  # unmounted, or aborted
                return
            if not (reply := answer(request)):
                continue
            with contextlib.suppress(FileNotFoundError):  # the caller is gone
                os.write(self._fd, reply)

    def close(self) -> None:
        os.close(self._stopping)
        self._thread.join()
        os.close(self._stop)
        os.close(self._fd)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder; whatever a test leaves mounted there goes."""
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    while mountinfo.find(str(path)):
        libc.umount2(str(path), UmountFlags.DETACH)


def settings(folder: Path, **changes: Any) -> MountConfig:
    return MountConfig(name="demo", mountpoint=str(folder), filesystem="memory", **changes)


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., TinyServer]]:
    """Mounts on `folder` and serves."""
    with contextlib.ExitStack() as stack:

        def start(**changes: Any) -> TinyServer:
            server = TinyServer(mounting.mount(settings(folder, **changes)))
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def mount_without_server(folder: Path) -> Iterator[Callable[..., int]]:
    """Mounts on `folder` and leaves the connection to the test; what the test does not close is closed."""
    fds: list[int] = []

    def start(**changes: Any) -> int:
        fds.append(mounting.mount(settings(folder, **changes)))
        return fds[-1]

    yield start
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def entry_at(folder: Path) -> mountinfo.MountEntry:
    entry = mountinfo.find(str(folder))
    assert entry is not None
    return entry


# --- /dev/fuse and mount(2) ---------------------------------------------------------------------------------


def test_the_device_is_opened_non_blocking_and_close_on_exec() -> None:
    fd = mounting.open_fuse()
    try:
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_NONBLOCK | os.O_ACCMODE) == os.O_NONBLOCK | os.O_RDWR
        assert fcntl.fcntl(fd, fcntl.F_GETFD) == fcntl.FD_CLOEXEC
    finally:
        os.close(fd)


def test_a_missing_device_names_modprobe(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="modprobe fuse") as caught:
        mounting.open_fuse(tmp_path / "fuse")
    assert caught.value.code == ExitCode.UNAVAILABLE


def test_a_device_without_a_driver_names_modprobe(tmp_path: Path) -> None:
    os.mknod(tmp_path / "fuse", stat.S_IFCHR | 0o600, os.makedev(10, 254))
    with pytest.raises(Failure, match="modprobe fuse"):
        mounting.open_fuse(tmp_path / "fuse")


def test_a_mount_shows_its_name_type_and_options(folder: Path, serve: Callable[..., TinyServer]) -> None:
    serve()
    entry = entry_at(folder)
    assert (entry.source, entry.fstype) == ("demo", "fuse.ringmount")
    assert {"user_id=0", "group_id=0", "default_permissions", "allow_other"} <= set(entry.super_options)
    assert not {"nosuid", "nodev", "ro"} & set(entry.options)
    assert (("demo", str(folder), entry.minor)) in mounting.ringmount_mounts()


def test_settings_become_options_of_the_mount(folder: Path, serve: Callable[..., TinyServer]) -> None:
    serve(read_only=True, allow_other=False, default_permissions=False, max_write=65536)
    entry = entry_at(folder)
    assert "ro" in entry.options
    assert entry.super_option("max_read") == "65536"
    assert not {"default_permissions", "allow_other"} & set(entry.super_options)


def test_what_an_unprivileged_user_serves_confers_no_privileges(folder: Path, serve: Callable[..., TinyServer]) -> None:
    serve(user="nobody")
    assert {"nosuid", "nodev"} <= set(entry_at(folder).options)


def test_a_descriptor_that_is_no_connection_is_refused(folder: Path) -> None:
    with pytest.raises(Failure, match="EINVAL") as caught, open("/dev/null") as null:
        mounting.mount_direct(null.fileno(), settings(folder))
    assert caught.value.code == ExitCode.UNAVAILABLE
    assert mountinfo.find(str(folder)) is None


def test_a_failed_mount_leaves_no_descriptor(folder: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Failure, match=r"cannot mount on .*No such file") as caught:
        mounting.mount(settings(folder / "gone"))
    assert caught.value.code == ExitCode.MOUNTPOINT
    assert os.listdir("/proc/self/fd") == before


# --- unmounting ---------------------------------------------------------------------------------------------


def test_unmounting_twice_is_fine(folder: Path, serve: Callable[..., TinyServer]) -> None:
    serve()
    assert mounting.unmount(str(folder))
    assert not mounting.unmount(str(folder))


def test_a_stuck_mount_can_be_unmounted(folder: Path, mount_without_server: Callable[..., int]) -> None:
    mount_without_server()
    assert mounting.unmount(str(folder))
    assert mountinfo.find(str(folder)) is None


def test_what_is_not_ours_is_left_alone(folder: Path) -> None:
    libc.mount("none", str(folder), "tmpfs", MountFlags(0), "size=4k")
    assert not mounting.unmount(str(folder))
    assert entry_at(folder).fstype == "tmpfs"


def test_another_connections_mount_is_left_alone(folder: Path, serve: Callable[..., TinyServer]) -> None:
    serve()
    connection = mounting.connection_id(entry_at(folder))
    assert not mounting.unmount(str(folder), connection=connection + 1)
    assert mounting.unmount(str(folder), connection=connection)


def test_a_mount_in_use_is_removed_only_lazily(folder: Path, serve: Callable[..., TinyServer]) -> None:
    serve()
    hold = "import os, sys; os.open(sys.argv[1], os.O_PATH); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", hold, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline()
        with pytest.raises(Failure, match="in use; stop what uses it") as caught:
            mounting.unmount(str(folder), lazy=False)
        assert caught.value.code == ExitCode.MOUNTPOINT
        assert mounting.unmount(str(folder))
        user.communicate(timeout=10)


# --- judging mountpoints ------------------------------------------------------------------------------------


def refusal(path: object, **options: Any) -> Failure:
    with pytest.raises(Failure) as caught:
        mounting.check_mountpoint(str(path), **options)
    assert "\n" not in str(caught.value)
    return caught.value


def test_an_empty_folder_is_fine(folder: Path) -> None:
    assert mounting.check_mountpoint(str(folder)) == str(folder)
    assert mounting.check_mountpoint(f"{folder}/.") == str(folder)


def test_symbolic_links_are_resolved(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "to folder").symlink_to("mnt")
    (tmp_path / "to link").symlink_to(tmp_path / "to folder")
    assert mounting.check_mountpoint(str(tmp_path / "to link")) == str(folder)


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff \xc3\xa9\n")
    os.mkdir(name)
    assert mounting.check_mountpoint(name) == name


def test_a_relative_path_is_refused() -> None:
    assert str(refusal("mnt")).startswith("mountpoint mnt is a relative path; write it in full, /")


def test_a_missing_mountpoint_names_mkdir(folder: Path) -> None:
    failure = refusal(folder / "a b" / "c")
    assert failure.message == f"mountpoint {folder}/a b/c does not exist"
    assert failure.hint == f"make it with: mkdir -p '{folder}/a b/c'"
    assert failure.code == ExitCode.MOUNTPOINT


def test_a_dangling_link_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    assert "does not exist" in refusal(tmp_path / "link").message


def test_a_file_is_no_mountpoint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is not a folder" in refusal(tmp_path / "file").message
    assert "a part of it is not a folder" in refusal(tmp_path / "file" / "below").message


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("link")
    assert "Too many levels of symbolic links" in refusal(tmp_path / "link").message


def test_a_folder_with_something_in_it_is_refused(folder: Path) -> None:
    (folder / "some\nthing").touch()
    assert "is not empty: some\\nthing is in it" in refusal(folder).message
    assert mounting.check_mountpoint(str(folder), nonempty=True) == str(folder)


def test_another_kind_of_mount_is_named(folder: Path) -> None:
    libc.mount("scratch", str(folder), "tmpfs", MountFlags(0), "size=4k")
    assert f"{folder} is already a mount of tmpfs (scratch)" in refusal(folder).message


def test_a_live_mount_is_named(folder: Path, serve: Callable[..., TinyServer]) -> None:
    serve()
    failure = refusal(folder)
    assert failure.message == f"mountpoint {folder} is already mounted by mount demo"
    assert "ringmount umount demo" in failure.hint


def test_a_dead_servers_mount_says_how_to_clear_it(
    folder: Path, tmp_path: Path, serve: Callable[..., TinyServer]
) -> None:
    os.close(mounting.mount(settings(folder)))
    assert liveness.ask_servers([entry_at(folder)], 10) == [Liveness.DEAD]
    (tmp_path / "link").symlink_to("mnt")
    for path in (folder, tmp_path / "link"):
        failure = refusal(path)
        assert failure.message == f"mountpoint {folder} is a stale mount: the server of mount demo is dead"
        assert failure.hint == f"clear it with: ringmount umount demo (or umount -l {folder})"
    assert "lies in a stale mount" in refusal(folder / "below").message


def test_a_server_that_does_not_answer_is_told_in_time(folder: Path, mount_without_server: Callable[..., int]) -> None:
    mount_without_server()
    failure = refusal(folder, patience=SHORT)
    assert "the server of mount demo does not answer" in failure.message
    assert f"/sys/fs/fuse/connections/{entry_at(folder).minor}/abort" in failure.hint


def test_a_child_that_even_sigkill_cannot_end_is_left_behind(
    folder: Path, mount_without_server: Callable[..., int]
) -> None:
    fd = mount_without_server()
    os.write(fd, answer(os.read(fd, 8192)))
    found: list[list[Liveness]] = []
    asking = threading.Thread(target=lambda: found.append(liveness.ask_servers([entry_at(folder)], SHORT)))
    asking.start()
    select.select([fd], [], [], 10)
    os.read(fd, 8192)  # the STATFS: from here on its caller waits uninterruptibly
    asking.join(10)
    assert found == [[Liveness.STUCK]]
    os.close(fd)  # ends the connection, and with it the child
    pid, status = os.wait()
    assert os.WTERMSIG(status) == 9, pid


def test_a_folder_on_a_mount_that_hangs_is_refused_in_time(
    folder: Path, mount_without_server: Callable[..., int]
) -> None:
    mount_without_server()
    assert "it, or a folder above it, does not answer" in refusal(folder / "below", patience=SHORT).message


def test_an_automount_is_no_obstacle_and_is_not_triggered(folder: Path) -> None:
    reader, writer = os.pipe()
    try:
        data = f"fd={writer},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
        libc.mount("systemd-1", str(folder), "autofs", MountFlags(0), data)
        # The child is of another process group: a touch would have the kernel ask us for the mount.
        os.set_blocking(reader, False)
        assert mounting.check_mountpoint(str(folder), patience=10) == str(folder)
        with pytest.raises(BlockingIOError):
            os.read(reader, 4096)
        assert not mounting.unmount(str(folder))
        assert entry_at(folder).fstype == "autofs"
    finally:
        libc.umount2(str(folder), UmountFlags.DETACH)
        os.close(reader)
        os.close(writer)


# --- in a mount namespace of its own: fusectl, and an ordinary user with fusermount3 ------------------------

PRELUDE = """
import json, os, subprocess, sys, time
import msgspec
from pathlib import Path
from ringmount.config.model import MountConfig
from ringmount.daemon import fusectl, fusermount, liveness, mountinfo, mounting, privileges
from ringmount.daemon.exitcodes import Failure
config = MountConfig(name="demo", mountpoint="/mnt/own", filesystem="memory", allow_other=False)
def say(value): print(json.dumps(value))
def failure(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except Failure as error:
        return [error.message, error.hint, error.code]
"""

SETUP = """
set -e
mount -t tmpfs -o mode=755 none /mnt
mkdir -m 755 /mnt/own /mnt/roots
chown nobody /mnt/own
mknod -m 666 /mnt/fuse c 10 229
mount --bind /mnt/fuse /dev/fuse
printf "$FUSE_CONF" >/mnt/fuse.conf
mount --bind /mnt/fuse.conf /etc/fuse.conf
cd /
"""

ROOTS_MOUNT = """
exec 9<>/dev/fuse
mount -i -t fuse.ringmount -o fd=9,rootmode=40000,user_id=0,group_id=0 demo /mnt/own
"""

AS_NOBODY = "setpriv --reuid nobody --regid nogroup --clear-groups"


def in_private(code: str, *, user: str = "", setup: str = SETUP, fuse_conf: str = "") -> Any:
    """What `code` says in a mount namespace where /mnt is its own and everybody may open /dev/fuse."""
    run = f'{setup}\nexec {user} "$@"'
    command = ["unshare", "--mount", "--propagation=private", "sh", "-c", run, "sh"]
    done = subprocess.run(
        [*command, sys.executable, "-c", PRELUDE + code],
        env={"PATH": os.environ["PATH"], "FUSE_CONF": fuse_conf},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_connection_is_listed_counted_and_aborted() -> None:
    listed, waiting, other, aborted, alive, gone = in_private(
        """
subprocess.run(["mount", "-t", "fusectl", "none", "/sys/fs/fuse/connections"])
fd = mounting.mount(config)
[entry] = [e for e in mountinfo.read() if e.fstype == "fuse.ringmount" and e.mountpoint == "/mnt/own"]
number = mounting.connection_id(entry)
first = [number in mounting.list_connections(), fusectl.waiting_requests(number)]
first.append(mounting.abort_connection(999999))
first.append(mounting.abort_connection(number))
first.append(liveness.ask_servers([entry], 10)[0].value)
mounting.unmount("/mnt/own"); os.close(fd)
say([*first, number not in mounting.list_connections()])
"""
    )
    assert (listed, other, aborted, alive, gone) == (True, False, True, "dead", True)
    assert waiting == 1  # INIT


def test_without_fusectl_nothing_is_known_of_connections() -> None:
    code = "say([mounting.list_connections(), fusectl.waiting_requests(1), mounting.abort_connection(1)])"
    hide = SETUP + "while umount /sys/fs/fuse/connections 2>/dev/null; do :; done"
    assert in_private(code, setup=hide) == [None, None, None]


def test_an_ordinary_user_mounts_through_fusermount3() -> None:
    entry, flags, cloexec, connections, unmounted, again = in_private(
        """
import fcntl
from ringmount.config.model import MIB
mounting.check_mountpoint("/mnt/own")
fd = mounting.mount(msgspec.structs.replace(config, read_only=True))
entry = mountinfo.find("/mnt/own")
say([entry, fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK, fcntl.fcntl(fd, fcntl.F_GETFD),
     len(mounting.ringmount_mounts()), mounting.unmount("/mnt/own"), mounting.unmount("/mnt/own")])
""",
        user=AS_NOBODY,
    )
    mounted = mountinfo.MountEntry(*entry)
    assert (mounted.source, mounted.fstype) == ("demo", "fuse.ringmount")
    assert {"ro", "nosuid", "nodev"} <= set(mounted.options)
    assert {"user_id=65534", "default_permissions", "max_read=1048576"} <= set(mounted.super_options)
    assert "allow_other" not in mounted.super_options
    assert flags == os.O_NONBLOCK
    assert cloexec == fcntl.FD_CLOEXEC
    assert connections >= 1
    assert (unmounted, again) == (True, False)


def test_allow_other_takes_a_line_in_fuse_conf() -> None:
    code = """
config = msgspec.structs.replace(config, allow_other=True)
say([fusermount.effective_allow_other(config, is_explicit=False),
     failure(fusermount.effective_allow_other, config, is_explicit=True),
     failure(mounting.mount, config)])
"""
    default, explicit, mounted = in_private(code, user=AS_NOBODY, fuse_conf="#user_allow_other\n")
    assert default is False
    for message, hint, exit_code in (explicit, mounted):
        assert "allow_other is not permitted" in message
        assert "user_allow_other to /etc/fuse.conf" in hint
        assert exit_code == ExitCode.PERMISSION


def test_allow_other_is_taken_where_fuse_conf_permits_it() -> None:
    code = """
config = msgspec.structs.replace(config, allow_other=True)
allowed = fusermount.effective_allow_other(config, is_explicit=False)
fd = mounting.mount(config)
say([allowed, mountinfo.find("/mnt/own").super_options, mounting.unmount("/mnt/own")])
"""
    conf = "# a comment\n  user_allow_other  # another\n"
    allowed, options, unmounted = in_private(code, user=AS_NOBODY, fuse_conf=conf)
    assert allowed is True
    assert "allow_other" in options
    assert unmounted is True


def test_root_needs_no_line_in_fuse_conf() -> None:
    code = """
config = msgspec.structs.replace(config, allow_other=True)
say(fusermount.effective_allow_other(config, is_explicit=True))
"""
    assert in_private(code) is True


def test_too_many_mounts_of_ordinary_users_are_refused() -> None:
    code = "say(failure(mounting.mount, config))"
    message, hint, exit_code = in_private(code, user=AS_NOBODY, fuse_conf="mount_max = 0\n")
    assert "too many FUSE filesystems mounted" in message
    assert "mount_max" in hint
    assert exit_code == ExitCode.RESOURCES


def test_an_ordinary_user_mounts_only_on_folders_of_his_own() -> None:
    code = 'say(failure(mounting.mount, msgspec.structs.replace(config, mountpoint="/mnt/roots")))'
    message, hint, exit_code = in_private(code, user=AS_NOBODY)
    assert message == "fusermount3: user has no write access to mountpoint /mnt/roots"
    assert hint == "choose a folder that you own"
    assert exit_code == ExitCode.PERMISSION


def test_an_ordinary_user_cannot_unmount_roots_mount() -> None:
    setup = SETUP + ROOTS_MOUNT
    code = 'say([failure(mounting.unmount, "/mnt/own"), mountinfo.find("/mnt/own") is not None])'
    (_, hint, exit_code), still_there = in_private(code, user=AS_NOBODY, setup=setup)
    assert "only the user who mounted it, or root" in hint
    assert exit_code == ExitCode.PERMISSION
    assert still_there


def test_a_missing_fusermount3_names_its_package() -> None:
    code = """
import shutil
shutil.which = lambda *args, **kwargs: None
say(failure(mounting.mount, config))
"""
    message, hint, exit_code = in_private(code, user=AS_NOBODY)
    assert "fusermount3 is not installed" in message
    assert "apt install fuse3" in hint
    assert exit_code == ExitCode.UNAVAILABLE


def test_without_its_set_user_id_bit_fusermount3_is_explained() -> None:
    code = "say(failure(mounting.mount, config))"
    message, hint, _ = in_private(code, user=f"{AS_NOBODY} --no-new-privs")
    assert "Operation not permitted" in message
    assert "no_new_privs" in hint


def test_an_ordinary_user_may_not_open_a_private_device() -> None:
    setup = SETUP + "chmod 600 /mnt/fuse"
    code = """
say([failure(mounting.open_fuse), failure(mounting.mount, config),
     failure(mounting.mount_direct, 0, config)])
"""
    opened, mounted, direct = in_private(code, user=AS_NOBODY, setup=setup)
    assert opened[0] == "no permission to open /dev/fuse"
    assert mounted[0] == "fusermount3: failed to open /dev/fuse: Permission denied"
    assert direct[0] == "mount(2) on /mnt/own is not permitted"
    assert {failure[2] for failure in (opened, mounted, direct)} == {ExitCode.PERMISSION}


def test_a_folder_that_cannot_be_reached_is_told() -> None:
    setup = SETUP + "mkdir -m 700 /mnt/closed; mkdir /mnt/closed/below"
    code = 'say(failure(mounting.check_mountpoint, "/mnt/closed/below"))'
    message, _, exit_code = in_private(code, user=AS_NOBODY, setup=setup)
    assert message == "mountpoint /mnt/closed/below cannot be looked at: no permission on a folder above it"
    assert exit_code == ExitCode.PERMISSION


def test_another_users_server_is_not_judged() -> None:
    setup = SETUP + ROOTS_MOUNT
    code = 'say(liveness.ask_servers([mountinfo.find("/mnt/own")], 10)[0].value)'
    assert in_private(code, user=AS_NOBODY, setup=setup) == "unknown"


def test_root_judges_another_users_private_mount() -> None:
    setup = SETUP + ROOTS_MOUNT.replace("=0", "=65534")
    # The connection's end is inherited as 9. To root the kernel would answer in the dead server's place.
    code = 'os.close(9); say(liveness.ask_servers([mountinfo.find("/mnt/own")], 10)[0].value)'
    assert in_private(code, setup=setup) == "dead"
