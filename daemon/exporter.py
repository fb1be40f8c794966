"""The process that serves a mount's metrics, and its life.

It maps the arena to be read only, holds no copy of the connection, and answers by itself: nothing that a client does
reaches the supervisor or a worker. Of root's mounts it runs as nobody. The rule a change must keep: what may block, and
what imports prometheus_client, happens in it alone.
"""

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import signal
import socket
import time
from pathlib import Path

import msgspec

from ringmount.daemon import client, httpserver, places
from ringmount.daemon.attendant import Attendant
from ringmount.daemon.connection import Connection
from ringmount.daemon.loop import Loop
from ringmount.daemon.mount import Mount
from ringmount.workers._native import lib
from ringmount.workers.api import HandlePolicy
from ringmount.workers.arena import Arena

log = logging.getLogger(__name__)

NOBODY = 65534
LISTEN_INTERVAL = 1.0
"""Seconds until it tries again to listen at a place that is taken."""
END_PATIENCE = 1.0
NICENESS = 5


class Facts(msgspec.Struct, frozen=True):
    """What does not change while a supervisor serves. `since`: when the mount was made, time.time()."""

    mount: str
    about: dict[str, str]
    since: float
    supervisor: int
    adoptions: int
    reloads: int
    is_fallback: bool
    memory_limit: int | None
    has_nodes: bool


class Exporter:
    """The metrics of one mount, or nothing where none are wanted."""

    def __init__(self, mount: Mount, loop: Loop, connection: Connection) -> None:
        self._mount = mount
        self._connection = connection
        self._supervisor = os.getpid()
        self._attendant = Attendant(mount, loop, "rm-metrics", self._serve, lambda: {mount.arena.fd}, self._died)

    def start(self) -> None:
        """Starts it, once the mount serves."""
        if self._mount.config.metrics is None:
            return
        try:
            self._attendant.start()
        except OSError as error:
            log.error("no metrics are served: %s", error.strerror)

    def _died(self, pid: int, code: int) -> None:
        log.error("the process that serves the metrics died: another one follows")

    def end(self) -> None:
        """Ends it. A stuck one is left to end by itself."""
        if self._mount.config.metrics is None:
            return
        if self._attendant.kill(END_PATIENCE):
            self._attendant.reap()
        path = Path(self._mount.config.metrics)
        if path.is_absolute() and not client.is_answered(path):
            with contextlib.suppress(OSError):
                path.unlink()

    def status(self) -> dict[str, object] | None:
        """For `ringmount status`; None without."""
        if self._mount.config.metrics is None:
            return None
        return {"at": self._mount.config.metrics, "pid": self._attendant.pid, "deaths": self._attendant.deaths}

    # --- in the process ---------------------------------------------------------------------------------------------

    def _serve(self, is_first: bool) -> None:
        at = self._mount.config.metrics
        assert at is not None
        listening = _listen_patiently(at)
        arena = Arena.look_into(self._mount.arena.fd)
        os.close(self._mount.arena.fd)
        from ringmount.daemon import metrics

        page = metrics.exposition(arena, self._facts())
        with contextlib.suppress(OSError):  # a service may be refused it
            os.nice(NICENESS)
        _drop_privileges()
        if os.getppid() == self._supervisor:
            log.info("serving metrics at %s", at)
            asyncio.run(httpserver.Server(page).serve(listening))

    def _facts(self) -> Facts:
        mount, connection = self._mount, self._connection
        assert connection.session is not None
        about = {
            "mountpoint": mount.config.mountpoint,
            "filesystem": mount.config.filesystem,
            "transport": connection.transport,
            "data": connection.data,
            "protocol": f"7.{connection.session.minor}",
            "version": _version(),
        }
        return Facts(
            mount=mount.config.name,
            about=about,
            since=mount.since,
            supervisor=self._supervisor,
            adoptions=mount.adoptions,
            reloads=mount.reloads,
            is_fallback=connection.transport == "dev_fuse" and mount.config.transport != "dev_fuse",
            memory_limit=mount.config.memory_limit,
            has_nodes=mount.policy is not HandlePolicy.SINGLE,
        )


def _listen_patiently(at: str) -> socket.socket:
    """A listening socket there, as soon as nobody else has the place: a predecessor may still be dying."""
    why = ""
    while True:
        try:
            return _listen(at)
        except OSError as error:
            if why != str(error):
                why = str(error)
                log.error("cannot serve metrics at %s: %s; trying again", at, error.strerror)
            time.sleep(LISTEN_INTERVAL)


def _listen(at: str) -> socket.socket:
    """Raises OSError."""
    if at.startswith("/"):
        path = Path(at)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if path.is_socket() and not client.is_answered(path):
                path.unlink()
            with places.short_path(path) as short:
                listening.bind(short)
            path.chmod(0o666)  # whoever gets into the folder may ask
        except OSError:
            listening.close()
            raise
    else:
        host, _, port = at.rpartition(":")
        listening = socket.create_server(
            (host.strip("[]"), int(port)), family=socket.AF_INET6 if "[" in host else socket.AF_INET
        )
    listening.listen(httpserver.MAX_CLIENTS)
    return listening


def _drop_privileges() -> None:
    """Root's becomes nobody; where it may not, it stays what it is."""
    if os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        except OSError as error:
            log.debug("metrics are served as root: %s", error.strerror)
    lib.rm_no_new_privileges()
    lib.rm_die_with_parent(signal.SIGKILL)  # a change of user has undone it


def _version() -> str:
    try:
        return importlib.metadata.version("ringmount")
    except importlib.metadata.PackageNotFoundError:
        return ""
