"""`ringmount run`: from a mount's file to a mount that serves, in the foreground."""

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterator

import msgspec
import sdnotify

from ringmount.config.model import MountConfig
from ringmount.daemon import log, mountinfo, mounting, text
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.prepared import Prepared, prepare
from ringmount.daemon.supervisor import Supervisor

MANY = 8
"""More workers than these are not listed one by one."""


def run(path: str, mkdir: bool = False) -> None:
    """Serves the mount that this file describes until SIGINT or SIGTERM. Raises ConfigError, Failure.

    `mkdir`: makes the mountpoint if it is missing, and then removes it at the end.
    """
    prepared = prepare(path)
    log.set_up(prepared.config.log_level)
    with _made(prepared.config.mountpoint) if mkdir else contextlib.nullcontext():
        _serve(prepared)


@contextlib.contextmanager
def _made(mountpoint: str) -> Iterator[None]:
    """The folder is there for the time of a `with`. A folder that was there before, or is in use after, stays."""
    made = False
    if mountinfo.find(mountpoint) is None:  # what is mounted may hang: check_mountpoint() says what it is
        try:
            os.makedirs(mountpoint)
            made = True
        except FileExistsError:
            pass
        except OSError as error:
            raise Failure(f"cannot make {mountpoint}: {error.strerror}", code=ExitCode.MOUNTPOINT) from error
    try:
        yield
    finally:
        if made and mountinfo.find(mountpoint) is None:
            with contextlib.suppress(OSError):
                os.rmdir(mountpoint)


def _serve(prepared: Prepared) -> None:
    config = _settled(prepared)
    supervisor = Supervisor(config, prepared.search, prepared.description, prepared.cpus)
    notifier = sdnotify.SystemdNotifier()
    was_mounted = False

    def ready(supervisor: Supervisor) -> None:
        nonlocal was_mounted
        was_mounted = True
        notifier.notify(f"READY=1\nSTATUS=serving {config.mountpoint} by {supervisor.connection.transport}")
        _say(announcement(supervisor))

    supervisor.on_ready = ready
    try:
        supervisor.serve()
    except Failure as failure:
        raise _named(config, failure) from failure
    _say(f"ringmount: {config.name}: {'unmounted' if was_mounted else 'stopped before it was mounted'}")


def _settled(prepared: Prepared) -> MountConfig:
    """The settings, with what depends on the user and on the mountpoint as it is."""
    mountpoint = mounting.check_mountpoint(prepared.config.mountpoint)
    is_explicit = "allow_other" in prepared.document.data
    allow_other = mounting.effective_allow_other(prepared.config, is_explicit=is_explicit)
    return msgspec.structs.replace(prepared.config, allow_other=allow_other, mountpoint=mountpoint)


def _named(config: MountConfig, failure: Failure) -> Failure:
    """The failure, with the filesystem's name where that is to blame."""
    if failure.code is not ExitCode.FILESYSTEM or config.filesystem in failure.message:
        return failure
    hint = failure.hint or ("" if config.log_level == "debug" else "log_level: debug shows more")
    return Failure(f"filesystem {config.filesystem}: {failure.message}", hint, code=failure.code)


def _say(what: str) -> None:
    """Prints, to a terminal or not: a mount goes on when nobody reads what it says."""
    with contextlib.suppress(OSError):
        print(what, flush=True)  # noqa: T201 - the command's own output


def announcement(supervisor: Supervisor) -> str:
    """Where the mount is, what serves it, and what to try next."""
    config = supervisor.mount.config
    where, name = shlex.quote(config.mountpoint), config.name
    command = own_command(sys.argv[0])
    facts = [
        ("  transport", _transport(supervisor)),
        ("  workers", _workers(supervisor)),
        ("  try", f"ls -la {where}"),
        ("", f"{command} status {name}"),
        ("  stop", f"Ctrl-C, or: {command} umount {name}"),
    ]
    return f"ringmount: {name}: {config.filesystem} is mounted on {config.mountpoint}\n{text.pairs(facts)}"


def _transport(supervisor: Supervisor) -> str:
    mount, connection = supervisor.mount, supervisor.connection
    assert connection.session is not None
    protocol = f"FUSE 7.{connection.session.minor}"
    if connection.transport != "io_uring":
        chosen = mount.config.transport == connection.transport
        reason = "as the mount's file says" if chosen else f"no rings, because {connection.transport_reason}"
        return f"{connection.transport}, {protocol}; {reason}"
    depth, memory = mount.config.queue_depth, text.size(mount.plan.buffer_bytes)
    return f"io_uring, {protocol}; {len(mount.plan.depths)} queues of {depth} entries, {memory} of buffers at most"


def _workers(supervisor: Supervisor) -> str:
    workers = supervisor.crew.workers
    if len(workers) > MANY:
        name = supervisor.mount.config.name
        return f"{len(workers)}, each pinned to its CPU (ringmount status {name} lists them)"
    return "; ".join(
        f"worker {worker.index} on {'any CPU' if worker.cpu is None else f'CPU {worker.cpu}'}, pid {worker.pid}"
        for worker in workers
    )


def own_command(started_as: str) -> str:
    """What a user types to call this command again; `started_as` is sys.argv[0]."""
    name = os.path.basename(started_as)
    if name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m ringmount.daemon"
    found = shutil.which(name)
    if found is not None and os.path.realpath(found) == os.path.realpath(started_as):
        return name
    return shlex.quote(started_as)
