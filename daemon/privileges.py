"""What this process is allowed, as the kernel sees it: capabilities rather than user ids."""

import os
import re
from enum import IntEnum
from pathlib import Path

SELF_STATUS = Path("/proc/self/status")


class Capability(IntEnum):
    """CAP_...: numbers of capabilities(7)."""

    SYS_ADMIN = 21
    SYS_RESOURCE = 24


def has_capability(capability: Capability, status: Path = SELF_STATUS) -> bool:
    """True if the capability is in this process's effective set (in its own user namespace)."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status.read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> capability & 1)


def may_mount() -> bool:
    """True if mount(2) is the way for this process, False if fusermount3 is.

    It is for root even without the capability (in a container, say): fusermount3 could do no more.
    """
    return os.geteuid() == 0 or has_capability(Capability.SYS_ADMIN)
