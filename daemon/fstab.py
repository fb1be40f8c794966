"""The helper of mount(8) for the type `ringmount`: what a line of /etc/fstab asks for is done by the mount's unit.

    data  /mnt/data  ringmount  defaults,_netdev  0 0        mount -t ringmount data /mnt/data

The rule a change must keep: whether something is mounted is read from mountinfo; an automount, or a mount whose server
is dead, is not the mount, and the mountpoint is never touched.
"""

import subprocess
from pathlib import Path

from ringmount.config.load import read_document
from ringmount.daemon import handed, mountinfo, mountpoint, places
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.mountinfo import RINGMOUNT_TYPE

SYSTEMD = Path("/run/systemd/system")
PATIENCE = 180.0

OTHERS = (
    "defaults",
    "auto",
    "noauto",
    "nofail",
    "rw",
    "_netdev",
    "user",
    "users",
    "nouser",
    "owner",
    "group",
    "comment",
)
"""Options for mount(8) and systemd, which are not ours to see to."""


def mount(name: str, target: str, options: str, *, is_fake: bool = False) -> None:
    """Has the mount `name` served on the folder `target`. Raises ConfigError, Failure.

    `options`: as in fstab. `sandboxed` chooses ringmount-sandboxed@; `ro` has to be the file's `read_only` as well.
    """
    file = str(places.SETTINGS / f"{name}.yaml")
    config = read_document(file).config()
    where = mountpoint.resolved(target)
    if mountpoint.resolved(config.mountpoint) != where:
        raise Failure(f"{file} has the mountpoint {config.mountpoint}, not {target}", code=ExitCode.MOUNTPOINT)
    asked = {option for option in options.split(",") if option and not _is_for_others(option)}
    if "ro" in asked and not config.read_only:
        raise Failure(f"{name} is not read-only", f"write read_only: true into {file}", code=ExitCode.CONFIG)
    if unknown := asked - {"ro", "sandboxed"}:
        raise Failure(f"no such option: {', '.join(sorted(unknown))}", f"settings are in {file}", code=ExitCode.USAGE)
    if is_fake:
        return
    with handed.offer(name, where):
        _start("ringmount-sandboxed" if "sandboxed" in asked else "ringmount", name, where)


def _is_for_others(option: str) -> bool:
    return option in OTHERS or option.lower().startswith(("x-", "comment="))


def _start(template: str, name: str, where: str) -> None:
    if not SYSTEMD.is_dir():
        raise Failure("systemd does not run here", f"ringmount run --keep {name}", code=ExitCode.UNAVAILABLE)
    unit = f"{template}@{name}.service"
    # At boot the unit would wait for local-fs.target, which waits for this: what it needs is said in fstab (_netdev,
    # x-systemd.requires=).
    command = ["systemctl", "start", "--job-mode=ignore-dependencies", unit]
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE, check=False
    )
    if done.returncode:
        raise Failure(f"{unit} did not start", f"systemctl status {unit}", code=ExitCode.MOUNTPOINT)
    entry = mountinfo.find(where)
    if entry is None or (entry.fstype, entry.source) != (RINGMOUNT_TYPE, name):
        raise Failure(
            f"{unit} runs, but is not mounted on {where}", f"systemctl restart {unit}", code=ExitCode.MOUNTPOINT
        )
