"""Lines of /etc/fstab: at boot, by automount, and by hand."""

from collections.abc import Iterator

import pytest
import yaml
from systemd.box import ENVIRONMENT, Box, booted, lack_of_box, prepare

FSTAB = """\
early  /mnt/early  ringmount  defaults                    0 0
auto   /mnt/auto   ringmount  _netdev,x-systemd.automount 0 0
hand   /mnt/hand   ringmount  noauto                      0 0
other  /mnt/hand   ringmount  noauto                      0 0
"""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box that boots with these lines, and with the unit of a mount enabled."""
    if reason := lack_of_box():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("box")
    prepare(folder)
    etc = folder / "rootfs/etc"
    (etc / "ringmount").mkdir(parents=True)
    (etc / "fstab").write_text(FSTAB)
    for name in ("early", "auto", "hand", "other", "enabled"):
        (folder / "rootfs/mnt" / name).mkdir(parents=True)
        settings = {"mountpoint": f"/mnt/{name}", "filesystem": "memory"}
        (etc / f"ringmount/{name}.yaml").write_text(yaml.safe_dump(settings))
    wants = folder / "units/multi-user.target.wants"
    wants.mkdir()
    (wants / "ringmount@enabled.service").symlink_to("/usr/local/lib/systemd/system/ringmount@.service")
    (wants / "remote-fs.target").symlink_to("/lib/systemd/system/remote-fs.target")  # as on any machine
    # mount(8) clears the environment of its helpers, and the helper has to find the checkout.
    helper = folder / "rootfs/usr/sbin/mount.ringmount"
    exports = "".join(f"export {key}={value}\n" for key, value in ENVIRONMENT.items())
    helper.write_text(helper.read_text().replace("\n", "\n" + exports, 1))
    with booted(folder) as box:
        yield box


def kind(box: Box, mountpoint: str) -> list[str]:
    """The types of what is mounted there, from below."""
    lines = (line.split(" ") for line in box.mounts().splitlines())
    return [fields[fields.index("-") + 1] for fields in lines if fields[4] == mountpoint]


def test_what_is_enabled_or_in_fstab_is_mounted_at_boot(box: Box) -> None:
    assert kind(box, "/mnt/enabled") == ["fuse.ringmount"]
    assert kind(box, "/mnt/early") == ["fuse.ringmount"]
    assert box.show("ringmount@early", "ActiveState") == "active"
    assert kind(box, "/mnt/hand") == []


def test_an_automount_mounts_at_the_first_touch_and_again_after_an_unmount(box: Box) -> None:
    assert kind(box, "/mnt/auto") == ["autofs"]
    for _ in range(2):
        box.do("touch", "/mnt/auto/file")
        assert kind(box, "/mnt/auto") == ["autofs", "fuse.ringmount"]
        box.systemctl("stop", "mnt-auto.mount")
        assert kind(box, "/mnt/auto") == ["autofs"]


def test_mount_and_umount_by_hand_start_and_end_the_unit(box: Box) -> None:
    box.do("mount", "/mnt/hand", "-t", "ringmount", "-o", "noauto", "--source", "hand")
    assert kind(box, "/mnt/hand") == ["fuse.ringmount"]
    assert box.show("ringmount@hand", "ActiveState") == "active"
    box.do("umount", "/mnt/hand")
    assert kind(box, "/mnt/hand") == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["other", "/mnt/hand"], "other.yaml has the mountpoint /mnt/other"),
        (["none", "/mnt/hand"], "none.yaml"),
        (["-o", "ro", "hand", "/mnt/hand"], "read_only"),
        (["-o", "size=1", "hand", "/mnt/hand"], "no such option: size=1"),
    ],
)
def test_a_mount_that_cannot_be_says_why(box: Box, arguments: list[str], why: str) -> None:
    done = box.run("mount", "-t", "ringmount", *arguments)
    assert done.returncode == 32
    assert why in done.stderr
    assert kind(box, "/mnt/hand") == []
