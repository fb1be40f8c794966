"""From a mount's file to everything that is known of the mount before it is made: for `run` and for `check`.

The rule a change must keep: nothing is mounted or left running, and whatever is wrong with the file, also for this
machine, this user or this filesystem, is told with its line, column and key path.
"""

import os
import pwd
from dataclasses import dataclass

from ringmount.config.errors import ConfigError
from ringmount.config.load import Document, read_document
from ringmount.config.model import MountConfig
from ringmount.daemon import datapath, machine, probe
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.kept import Kept
from ringmount.daemon.machine import Cpus
from ringmount.workers.api import HandlePolicy
from ringmount.workers.arena import Plan
from ringmount.workers.messages import Description


@dataclass(frozen=True)
class Prepared:
    """A mount that could be made. `search`: the file's folder, where the filesystem's module is looked for as well.

    `keys`: those that the file has.
    """

    config: MountConfig
    keys: frozenset[str]
    search: str
    description: Description
    cpus: Cpus
    worker_cpus: tuple[int, ...]
    plan: Plan

    @property
    def policy(self) -> HandlePolicy:
        """How the filesystem's handles are understood in other workers."""
        return HandlePolicy(self.description.handle_policy)


def prepare(path: str, *, is_mounted: bool = False) -> Prepared:
    """Reads and checks the file. Raises ConfigError, Failure.

    `is_mounted`: the mount is there already, so that nothing is checked against its mountpoint.
    """
    document = read_document(path)
    config = document.config()
    _check_user(document, config)
    search = os.path.dirname(os.path.abspath(path))
    description = probe.describe(config, search, is_mounted=is_mounted)
    if isinstance(description, probe.Refusal):
        raise _refused(document, config, description)
    if description.needs_root and config.user is not None:
        message = f"{config.filesystem} acts with each caller's rights and cannot run as {config.user}"
        raise document.error("user", message, "remove the key")
    _check_data(document, config, description)
    cpus = machine.cpus()
    try:
        workers = machine.worker_cpus(config, cpus, description.handle_policy == HandlePolicy.SINGLE.value)
        plan = machine.plan(config, cpus, workers)
    except machine.BadSetting as bad:
        raise Failure(str(document.error(bad.key, bad.message, bad.hint)), code=bad.code) from bad
    return Prepared(config, frozenset(document.data), search, description, cpus, workers, plan)


def taken_over(path: str, kept: Kept) -> Prepared:
    """The mount that a supervisor left when it died, with the settings that it had, whatever its file says by now.

    Nobody serves it: nothing here touches the mountpoint. Raises Failure.
    """
    config, search = kept.config, os.path.dirname(os.path.abspath(path))
    description = probe.describe(config, search, is_mounted=True)
    if isinstance(description, probe.Refusal):
        raise Failure(description.message, code=ExitCode.FILESYSTEM)
    if description.handle_policy != kept.description.handle_policy:
        policies = f"{description.handle_policy}, and not {kept.description.handle_policy} as before"
        raise Failure(f"its handles are understood by policy {policies}", "mount anew", code=ExitCode.FILESYSTEM)
    cpus = machine.cpus()
    workers = machine.worker_cpus(config, cpus, description.handle_policy == HandlePolicy.SINGLE.value)
    return Prepared(config, frozenset(), search, description, cpus, workers, machine.plan(config, cpus, workers))


def _check_user(document: Document, config: MountConfig) -> None:
    if config.user is None:
        return
    try:
        uid = pwd.getpwnam(config.user).pw_uid
    except KeyError:
        raise document.error("user", f"there is no user {config.user}", "see: getent passwd") from None
    if os.geteuid() not in (0, uid):
        raise document.error("user", "only root can run workers as another user", "remove the key, or run as root")


def _check_data(document: Document, config: MountConfig, description: Description) -> None:
    why_not = datapath.why_not_passthrough(config, description)
    if config.data == "passthrough" and why_not is not None and why_not[1]:
        raise document.error("data", f"passthrough is not to be had: {why_not[0]}", "data: auto takes what can be had")


def _refused(document: Document, config: MountConfig, refusal: probe.Refusal) -> ConfigError | Failure:
    if refusal.validation:
        error = document.error_from_validation("options", refusal.validation)
        error.hint = refusal.message.partition("; ")[2] or error.hint
        return error
    if refusal.path != "filesystem":
        return document.error(refusal.path, refusal.message)
    as_whom = f"it was looked for as the user {config.user}" if config.user and os.geteuid() == 0 else ""
    return Failure(str(document.error("filesystem", refusal.message, as_whom)), code=ExitCode.FILESYSTEM)
