"""`ringmount run`: from a mount's file to a mount that serves, in the foreground."""

import msgspec
import os
import shlex
import sys

import sdnotify

from ringmount.config.load import Document, read_document
from ringmount.config.model import MountConfig
from ringmount.config.units import format_size
from ringmount.daemon import log, machine, mounting, probe
from ringmount.daemon.supervisor import Supervisor
from ringmount.workers.messages import Description


def run(path: str) -> None:
    """Serves the mount that this file describes until SIGINT or SIGTERM. Raises ConfigError, Failure."""
    document = read_document(path)
    config = _for_this_user(document, document.config())
    log.set_up(config.log_level)
    cpus = machine.cpus()
    mountpoint = mounting.check_mountpoint(config.mountpoint)
    config = msgspec.structs.replace(config, mountpoint=mountpoint)
    search = os.path.dirname(os.path.abspath(path))
    description = describe(document, config, search)
    supervisor = Supervisor(config, search, description, cpus)
    notifier = sdnotify.SystemdNotifier()

    def ready(supervisor: Supervisor) -> None:
        notifier.notify(f"READY=1\nSTATUS=serving {mountpoint} by {supervisor.transport}")
        print(announcement(supervisor), flush=True)

    supervisor.on_ready = ready
    supervisor.serve()
    print(f"ringmount: {config.name}: unmounted", flush=True)


def describe(document: Document, config: MountConfig, search: str) -> Description:
    """The filesystem's description. Raises ConfigError at the key that is to blame, Failure."""
    found = probe.describe(config, search)
    if isinstance(found, probe.Refusal):
        raise document.error(found.path, found.message)
    return found


def _for_this_user(document: Document, config: MountConfig) -> MountConfig:
    """What an ordinary user gets by default: `allow_other` where fuse.conf permits it."""
    explicit = "allow_other" in document.data
    allowed = mounting.effective_allow_other(config, is_explicit=explicit)
    return msgspec.structs.replace(config, allow_other=allowed)


def announcement(supervisor: Supervisor) -> str:
    """Where the mount is, what serves it, and what to try next."""
    config, plan = supervisor.config, supervisor.plan
    assert supervisor.session is not None
    reason = f" ({supervisor.transport_reason})" if supervisor.transport == "dev_fuse" else ""
    depth = f"{len(plan.depths)} queues of {config.queue_depth}" if supervisor.transport == "io_uring" else "no rings"
    workers = ", ".join(
        f"{worker.index} on " + ("every CPU" if worker.cpu is None else f"CPU {worker.cpu}") + f" (pid {worker.pid})"
        for worker in supervisor.workers
    )
    where = shlex.quote(config.mountpoint)
    command = "ringmount" if os.path.basename(sys.argv[0]) == "ringmount" and not os.path.dirname(sys.argv[0]) else sys.argv[0]
    lines = [
        f"ringmount: {config.name}: {config.filesystem} is mounted on {config.mountpoint}",
        f"  transport  {supervisor.transport}{reason}, FUSE 7.{supervisor.session.minor}, {depth},"
        f" up to {format_size(plan.buffer_bytes)} of buffers",
        f"  workers    {workers}",
        f"  try        ls -l {where}",
        f"             {command} status {config.name}",
        "  stop       Ctrl-C",
    ]
    return "\n".join(lines)
