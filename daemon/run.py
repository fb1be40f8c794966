"""`ringmount run`: from a mount's file to a mount that serves, in the foreground."""

import contextlib
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import msgspec

from ringmount.config.errors import ConfigError
from ringmount.config.model import MountConfig
from ringmount.daemon import adoption, control, fdstore, handed, keeper, log, mountinfo, mounting, places, reload, text
from ringmount.daemon.adoption import Inherited
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.fdstore import ServiceManager
from ringmount.daemon.prepared import Prepared, prepare, taken_over
from ringmount.daemon.supervisor import Supervisor
from ringmount.workers import events
from ringmount.workers.events import Event, about

logger = logging.getLogger(__name__)

MANY = 8
"""More workers than these are not listed one by one."""


def run(path: str, mkdir: bool = False, is_handed: bool = False) -> None:
    """Serves the mount that this file describes until SIGINT or SIGTERM. Raises ConfigError, Failure.

    `mkdir`: makes the mountpoint if it is missing, and then removes it at the end. Where a service manager has kept the
    descriptors of a supervisor that died, its mount is taken over, with the settings that it had. `is_handed`: other
    commands of the unit make the mount and take it away (handed.py).
    """
    log.set_up("info", mount=Path(path).stem)
    manager = ServiceManager()
    try:
        _run(path, manager, mkdir, is_handed)
    except (ConfigError, Failure) as error:
        manager.say(f"STATUS={str(error).splitlines()[0]}")
        raise


def _run(path: str, manager: ServiceManager, mkdir: bool, is_handed: bool) -> None:
    stored = fdstore.received()
    given = handed.given(stored) if is_handed else None
    if given is not None:
        _serve_given(path, manager, given)
        return
    open_still = reload.handed_over()
    try:
        inherited = adoption.inherit(Path(path).stem, open_still or stored, is_reload=bool(open_still))
    except adoption.Gone as gone:
        _forget(manager, stored)
        manager.say("STOPPING=1")
        control.remove_stale(places.socket_path(gone.kept.config.name))
        with _kept_or_removed(gone.kept.config.mountpoint, made=gone.kept.made_mountpoint):
            _say(gone.kept.config.name, "it was unmounted while nobody served it", events.UNMOUNTED)
        return
    except adoption.Refused as refused:
        _forget(manager, stored)
        inherited, why = None, str(refused)
    else:
        why = ""
    if inherited is not None:
        config = inherited.kept.config
        log.set_up(config.log_level, mount=config.name)
        with _kept_or_removed(config.mountpoint, made=inherited.kept.made_mountpoint):
            kept = inherited.kept
            _serve(path, taken_over(path, kept), manager, inherited, asked=kept.asked, is_handed=is_handed)
        return
    if is_handed:
        prepare(path, is_mounted=True)  # what is wrong with the file comes first
        raise Failure(why or "systemd has handed no mount over", "the unit's ExecStartPre= makes it")
    prepared = prepare(path)
    log.set_up(prepared.config.log_level, mount=prepared.config.name)
    if why:
        _replace(prepared.config, why)
    made = mkdir and _make(prepared.config.mountpoint)
    with _kept_or_removed(prepared.config.mountpoint, made=made):
        _serve(path, _settled(prepared), manager, asked=prepared.config, made_mountpoint=made)


def _serve_given(path: str, manager: ServiceManager, fd: int) -> None:
    """Serves a mount that was made for this process. What fails leaves its connection to nobody."""
    try:
        prepared = prepare(path, is_mounted=True)
        log.set_up(prepared.config.log_level, mount=prepared.config.name)
        where = handed.settled(prepared.config)
        _serve(path, replace(prepared, config=where), manager, asked=prepared.config, is_handed=True, given=fd)
    except BaseException:
        _forget(manager, [(adoption.FUSE, fd)])
        raise


def keep(path: str, mkdir: bool = False) -> NoReturn:
    """Becomes the holder (keeper.py), which runs and keeps the mount that this file describes.

    It is executed, so that it is as small as can be, and runs no code but its own.
    """
    name, arguments = Path(path).stem, [path, *(["--mkdir"] if mkdir else [])]
    python = [sys.executable, "-I", "-S", keeper.__file__]
    os.execv(sys.executable, [*python, name, *reload.interpreter(), "-m", "ringmount.daemon", "--", *arguments])


def _forget(manager: ServiceManager, stored: list[tuple[str, int]]) -> None:
    """Has all that was stored closed: the old connection ends, and whoever waits for it gets an error."""
    for name in {name for name, _ in stored}:
        manager.remove(name)


def _replace(config: MountConfig, why: str) -> None:
    """Takes a mount away that cannot be taken over, to make it anew."""
    what = "the mount that a dead supervisor left cannot be taken over (%s): it is made anew"
    logger.error(what, why, extra=about(events.NOT_ADOPTED))
    entry = mountinfo.find(config.mountpoint)
    if entry is not None and entry.source == config.name:
        mounting.unmount(config.mountpoint)


def _make(mountpoint: str) -> bool:
    """Makes the folder; False if it was there before."""
    if mountinfo.find(mountpoint) is not None:  # what is mounted may hang: check_mountpoint() says what it is
        return False
    try:
        os.makedirs(mountpoint)
    except FileExistsError:
        return False
    except OSError as error:
        raise Failure(f"cannot make {mountpoint}: {error.strerror}", code=ExitCode.MOUNTPOINT) from error
    return True


@contextlib.contextmanager
def _kept_or_removed(mountpoint: str, *, made: bool) -> Iterator[None]:
    """After a `with`, a folder that was made is removed, unless it is in use."""
    try:
        yield
    finally:
        if made and mountinfo.find(mountpoint) is None:
            with contextlib.suppress(OSError):
                os.rmdir(mountpoint)


def _serve(
    path: str,
    prepared: Prepared,
    manager: ServiceManager,
    inherited: Inherited | None = None,
    *,
    asked: MountConfig,
    made_mountpoint: bool = False,
    is_handed: bool = False,
    given: int | None = None,
) -> None:
    config = prepared.config
    supervisor = Supervisor(
        path,
        config,
        prepared.search,
        prepared.description,
        prepared.cpus,
        manager,
        inherited,
        asked=asked,
        made_mountpoint=made_mountpoint,
        is_handed=is_handed,
    )
    supervisor.connection.given = given
    was_mounted = False

    def ready(supervisor: Supervisor) -> None:
        nonlocal was_mounted
        was_mounted = True
        manager.say("READY=1", f"STATUS=serving {config.mountpoint} by {supervisor.connection.transport}")
        if log.goes_to_journal():
            if inherited is None:
                logger.info("%s", summary(supervisor), extra=about(events.MOUNTED))
        else:
            _print(announcement(supervisor))

    supervisor.on_ready = ready
    try:
        supervisor.serve()
    except Failure as failure:
        raise _named(config, failure) from failure
    if was_mounted:
        _say(config.name, "unmounted", events.UNMOUNTED)
    else:
        _say(config.name, "stopped before it was mounted", events.STOPPING)


def _settled(prepared: Prepared) -> Prepared:
    """The settings, with what depends on the user and on the mountpoint as it is."""
    mountpoint = mounting.check_mountpoint(prepared.config.mountpoint)
    is_explicit = "allow_other" in prepared.keys
    allow_other = mounting.effective_allow_other(prepared.config, is_explicit=is_explicit)
    config = msgspec.structs.replace(prepared.config, allow_other=allow_other, mountpoint=mountpoint)
    return replace(prepared, config=config)


def _named(config: MountConfig, failure: Failure) -> Failure:
    """The failure, with the filesystem's name where that is to blame."""
    if failure.code is not ExitCode.FILESYSTEM or config.filesystem in failure.message:
        return failure
    hint = failure.hint or ("" if config.log_level == "debug" else "log_level: debug shows more")
    return Failure(f"filesystem {config.filesystem}: {failure.message}", hint, code=failure.code)


def _say(name: str, what: str, event: Event) -> None:
    """Says how the mount of this name ended: in the journal, if it reads this process."""
    if log.goes_to_journal():
        logger.info("%s", what, extra=about(event))
    else:
        _print(f"ringmount: {name}: {what}")


def _print(what: str) -> None:
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
        ("  data", _data(supervisor)),
        ("  workers", _workers(supervisor)),
        ("  try", f"ls -la {where}"),
        ("", f"{command} status {name}"),
        ("  stop", f"Ctrl-C, or: {command} umount {name}"),
    ]
    how = "is mounted on" if supervisor.inherited is None else "goes on: its supervisor was replaced; mounted on"
    return f"ringmount: {name}: {config.filesystem} {how} {config.mountpoint}\n{text.pairs(facts)}"


def summary(supervisor: Supervisor) -> str:
    """The same in a line, for the journal."""
    config, connection = supervisor.mount.config, supervisor.connection
    workers = len(supervisor.crew.workers)
    count = f"{workers} workers" if workers > 1 else "1 worker"
    how = f"{count} by {_transport(supervisor)}; data: {connection.data}"
    return f"mounted on {config.mountpoint}: {config.filesystem}, {how}"


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


def _data(supervisor: Supervisor) -> str:
    if supervisor.connection.data == "passthrough":
        return "passthrough: the kernel reads and writes the files beneath by itself"
    return f"userspace: {supervisor.connection.data_reason}"


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
