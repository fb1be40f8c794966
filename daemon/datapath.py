"""Which way the contents of files take: by the kernel straight to the files beneath, or through the workers; and why.

The rule: what must be known before the mount is made is asked here alone; what the kernel says is in the session.
"""

import os
from pathlib import Path

from ringmount.config.model import MountConfig
from ringmount.daemon import privileges
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.workers.messages import Description

USER_NAMESPACE = Path("/proc/self/ns/user")
INITIAL = "user:[4026531837]"
"""PROC_USER_INIT_INO (include/linux/proc_ns.h)."""


def why_not_passthrough(config: MountConfig, description: Description) -> tuple[str, str] | None:
    """Why contents go through the workers, and the key of the mount's file that it comes from; None if they need not.

    The key is "" where it lies with the machine.
    """
    if config.data == "userspace":
        return "data: userspace", "data"
    if config.writeback:
        return "writeback: true", "writeback"
    if not description.backing_files:
        return f"{config.filesystem} has no files beneath to offer", "data"
    if config.user is not None:
        return f"workers run as {config.user}, and the kernel lets only CAP_SYS_ADMIN do it", "user"
    if not may_pass_through():
        return "only root may, outside of any user namespace", ""
    return None


def may_pass_through() -> bool:
    """Whether this process may register backing files: fuse_backing_open() asks for CAP_SYS_ADMIN in the initial user
    namespace."""
    try:
        initial = os.readlink(USER_NAMESPACE) == INITIAL
    except OSError:
        return False
    return initial and privileges.has_capability(privileges.Capability.SYS_ADMIN)


def refusal(reason: str) -> Failure:
    """The mount insists on `data: passthrough`, and it cannot be had."""
    hint = "data: auto takes it where it can be had, and goes through the workers elsewhere"
    return Failure(f"data: passthrough is not to be had: {reason}", hint, code=ExitCode.UNAVAILABLE)
