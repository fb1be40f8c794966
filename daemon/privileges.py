"""What this process is allowed, as the kernel sees it: capabilities rather than user ids."""

import os
import re
from enum import IntEnum
from pathlib import Path

SELF_STATUS = Path("/proc/self/status")


class Capability(IntEnum):
    """CAP_...: numbers of capabilities(7)."""

    SYS_ADMIN = 21


def has_capability(capability: Capability, status: Path = SELF_STATUS) -> bool:
    """True if the capability is in this process's effective set (in its own user namespace)."""
    return bool(_field("CapEff", status) >> capability & 1)


def has_no_new_privs(status: Path = SELF_STATUS) -> bool:
    """True if set-user-id programs confer nothing on this process's children (prctl(2),
    PR_SET_NO_NEW_PRIVS).
    """
    return bool(_field("NoNewPrivs", status))


def may_mount() -> bool:
    """True if mount(2) is the way for this process, False if fusermount3 is.

    It is for root even without the capability (in a container, say): fusermount3 could do no more.
    """
    return os.geteuid() == 0 or has_capability(Capability.SYS_ADMIN)


def _field(name: str, status: Path) -> int:
    """A hexadecimal number of proc_pid_status(5); 0 where the kernel has no such line."""
    found = re.search(rf"^{name}:\s*([0-9a-f]+)$", status.read_text(), re.MULTILINE)
    return int(found[1], 16) if found else 0
