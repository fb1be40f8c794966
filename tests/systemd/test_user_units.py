"""ringmount@.service of `systemctl --user`, for an ordinary user, through fusermount3."""

import subprocess
from collections.abc import Iterator

import pytest
from systemd.box import COMMAND, ENVIRONMENT, Box, booted, lack_of_box, wait_for

UID = "12345"
HOME = "/tmp/somebody"
MANAGER = f"""
[Service]
Type=notify
User={UID}
Environment=XDG_RUNTIME_DIR=/run/user/{UID} HOME={HOME}
Environment={" ".join(f"{key}={value}" for key, value in ENVIRONMENT.items())}
RuntimeDirectory=user/{UID}
RuntimeDirectoryMode=0700
Delegate=yes
ExecStart=/lib/systemd/systemd --user
"""
"""As user@.service, but for the session that logind would make."""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box in which the manager of this user runs."""
    if reason := lack_of_box():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("box")
    (folder / "units").mkdir()
    (folder / "units/manager.service").write_text(MANAGER)
    with booted(folder) as box:
        box.do("useradd", "--uid", UID, "--home-dir", HOME, "somebody")
        box.do("mkdir", "-p", f"{HOME}/.config/ringmount", f"{HOME}/mnt")
        box.do("chown", "-R", "somebody:", HOME)
        box.systemctl("start", "manager")
        yield box


def as_user(box: Box, *command: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command as this user would."""
    user = ["setpriv", "--reuid", UID, "--regid", UID, "--clear-groups"]
    return box.run(*user, "env", f"XDG_RUNTIME_DIR=/run/user/{UID}", f"HOME={HOME}", *command)


def test_an_ordinary_user_has_mounts_as_services(box: Box) -> None:
    installed = as_user(box, *COMMAND, "install-units", "--user")
    assert installed.returncode == 0, installed.stderr
    box.path(f"{HOME}/.config/ringmount/notes.yaml").write_text(f"mountpoint: {HOME}/mnt\nfilesystem: memory\n")
    reloaded = as_user(box, "systemctl", "--user", "daemon-reload")
    assert reloaded.returncode == 0, reloaded.stderr
    started = as_user(box, "systemctl", "--user", "start", "ringmount@notes")
    assert started.returncode == 0, box.journal()
    assert box.is_mounted(f"{HOME}/mnt")
    assert as_user(box, "touch", f"{HOME}/mnt/file").returncode == 0
    assert as_user(box, "ls", f"{HOME}/mnt").stdout == "file\n"
    main = as_user(box, "systemctl", "--user", "show", "-P", "MainPID", "ringmount@notes").stdout.strip()
    box.do("kill", "-KILL", main)
    wait_for(
        lambda: as_user(box, "systemctl", "--user", "show", "-P", "NRestarts", "ringmount@notes").stdout == "1\n",
        "another supervisor",
        box=box,
    )
    assert as_user(box, "ls", f"{HOME}/mnt").returncode == 0
    stopped = as_user(box, "systemctl", "--user", "stop", "ringmount@notes")
    assert stopped.returncode == 0, stopped.stderr
    assert not box.is_mounted(f"{HOME}/mnt")
