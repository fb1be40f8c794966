"""A mount's FUSE connection: mount(2), INIT, which transport carries its requests, and its descriptors.

The rule a change must keep: the connection ends with the last copy of a descriptor of it, so each copy is known here.
"""

import errno
import logging
import os
import select
import time
from pathlib import Path

from ringmount.daemon import adoption, datapath, machine, mountinfo, mounting
from ringmount.daemon.adoption import Inherited
from ringmount.daemon.children import throw_away
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.fdstore import ServiceManager
from ringmount.daemon.loop import Loop
from ringmount.daemon.mount import Mount
from ringmount.daemon.notifications import Writer
from ringmount.daemon.session import OtherMajor, Session, SessionError, Wanted, negotiate
from ringmount.workers import abi, codec, events, messages, ring
from ringmount.workers.events import about

log = logging.getLogger(__name__)

INIT_PATIENCE = 10.0
NOT_OFFERED = "the kernel does not offer it (it came with Linux 6.9)"
NOTIFIER_PATIENCE = 1.0
"""Seconds for notifications that wait when the supervisor is replaced."""


class Connection:
    """The connection of `mount`; `fd` is -1 before it is made."""

    def __init__(self, mount: Mount, loop: Loop, manager: ServiceManager) -> None:
        self._mount = mount
        self._loop = loop
        self._manager = manager
        self.fd = -1
        self.number: int | None = None
        """In fusectl; None if the mount cannot be seen from here."""
        self.transport = ""
        self.transport_reason = ""
        """Why it is not io_uring."""
        self.data = "userspace"
        """Which way the contents of files take; `passthrough` where the kernel takes backing files."""
        self.data_reason = ""
        """Why it is not passthrough."""
        self.session: Session | None = None
        self.writer: Writer
        self.given: int | None = None
        """The connection of a mount that was made for this process (handed.py)."""
        self.clones: dict[int, int] = {}
        """By worker, its clone of the descriptor (`dev_fuse`)."""
        self._wants_ring = self._wants_passthrough = False
        self._buffer = bytearray(max(abi.FUSE_MIN_READ_BUFFER, 80 + mount.plan.payload))

    # --- making it --------------------------------------------------------------------------------------------------

    def choose_transport(self) -> None:
        """Whether to ask for rings. Raises Failure when the mount insists on them and there can be none."""
        wanted = self._mount.config.transport
        if wanted == "dev_fuse":
            self.transport_reason = "transport: dev_fuse"
            return
        reason = _why_no_ring()
        if reason is None:
            self._wants_ring = True
            return
        self.transport_reason = reason
        if wanted == "io_uring":
            raise Failure(
                f"transport: io_uring is not to be had: {reason}",
                "ringmount doctor says how to get it; transport: auto falls back to /dev/fuse",
                code=ExitCode.UNAVAILABLE,
            )

    def choose_data(self) -> None:
        """Whether to ask for passthrough. Raises Failure when the mount insists on it and there can be none."""
        why_not = datapath.why_not_passthrough(self._mount.config, self._mount.description)
        self._wants_passthrough = why_not is None
        if why_not is not None:
            self._no_passthrough(why_not[0])

    def _no_passthrough(self, reason: str) -> None:
        self.data_reason = reason
        if self._mount.config.data == "passthrough":
            raise datapath.refusal(reason)

    def make(self) -> None:
        """Mounts, unless that is done, and answers INIT. Raises Failure."""
        self.fd = mounting.mount(self._mount.config) if self.given is None else self.given
        self._find_number()
        self._start_writer()
        self._negotiate()
        self._read_ahead()
        if self._mount.config.transport == "auto" and self.transport != "io_uring":
            what = "no io_uring, because %s: falling back to /dev/fuse"
            log.warning(what, self.transport_reason, extra=about(events.TRANSPORT_FELL_BACK))
        could = self._mount.config.data == "auto" and self._mount.description.backing_files
        if could and self.data != "passthrough":
            what = "contents of files go through the workers, because %s"
            log.info(what, self.data_reason, extra=about(events.DATA_FELL_BACK))

    def adopt(self, inherited: Inherited) -> None:
        """Goes on with the connection of a predecessor."""
        self.fd, self.clones = inherited.fuse_fd, inherited.clones
        kept = inherited.kept
        self.number, self.session = kept.connection, kept.session
        self.transport, self.transport_reason = kept.transport, kept.transport_reason
        self.data = "passthrough" if kept.session.uses_passthrough else "userspace"
        if not kept.session.uses_passthrough:
            why_not = datapath.why_not_passthrough(self._mount.config, self._mount.description)
            self.data_reason = NOT_OFFERED if why_not is None else why_not[0]
        self._start_writer()

    def descriptors(self) -> dict[str, int]:
        """All copies of the connection's descriptor that a successor needs, by name."""
        clones = {f"{adoption.CLONE}{worker}": clone for worker, clone in self.clones.items()}
        return {adoption.FUSE: self.fd, **clones}

    def send_notifications(self) -> None:
        """Has what waits written, while there are workers: some of it may wait for their answers."""
        until = time.monotonic() + NOTIFIER_PATIENCE
        while not self.writer.is_idle and time.monotonic() < until:
            self._loop.turn(0.01)

    def store(self) -> None:
        """Gives copies of the descriptors to the service manager: with them the connection outlives this process."""
        for name, fd in self.descriptors().items():
            self._manager.store(name, fd)

    def _find_number(self) -> None:
        entry = mountinfo.find(self._mount.config.mountpoint)
        self.number = None if entry is None else mounting.connection_id(entry)

    def _read_ahead(self) -> None:
        """More than the kernel's own readahead is not INIT's to give (process_init_reply takes the smaller one)."""
        size = self._mount.config.readahead
        if size is None or self.number is None:
            return
        try:
            Path(f"/sys/class/bdi/0:{self.number}/read_ahead_kb").write_text(str(size >> 10))
        except OSError as error:
            log.info("readahead stays as the kernel has it: %s", error.strerror)

    def _negotiate(self) -> None:
        config, page_size = self._mount.config, os.sysconf("SC_PAGESIZE")
        wanted = Wanted(
            config=config,
            filesystem=self._mount.description,
            queues=self._mount.cpus.possible,
            use_ring=self._wants_ring,
            max_pages_limit=self._mount.plan.payload // page_size,
            page_size=page_size,
            use_passthrough=self._wants_passthrough,
        )
        while True:
            if not select.select([self.fd], [], [], INIT_PATIENCE)[0]:
                raise Failure("the kernel sent no INIT", code=ExitCode.UNAVAILABLE)
            header_bytes, op_in, _ = codec.split_legacy(self.read())
            header = codec.decode_header(header_bytes)
            try:
                agreed = negotiate(codec.decode_init_in(op_in), wanted)
            except (SessionError, codec.DecodeError) as error:
                self.answer(header.unique, errno.EPROTO)
                raise Failure(str(error), code=ExitCode.UNAVAILABLE) from error
            self.answer(header.unique, 0, agreed.reply)
            if not isinstance(agreed, OtherMajor):
                break
        self.session = agreed
        for note in agreed.notes:
            log.info("%s", note)
        if self._wants_ring and not agreed.uses_ring:
            self.transport_reason = "the kernel did not offer FUSE over io_uring"
            if config.transport == "io_uring":
                raise Failure(
                    f"transport: io_uring is not to be had: {self.transport_reason}", code=ExitCode.UNAVAILABLE
                )
        self.transport = "io_uring" if agreed.uses_ring else "dev_fuse"
        if agreed.uses_passthrough:
            self.data = "passthrough"
        elif self._wants_passthrough:
            self._no_passthrough(NOT_OFFERED)

    def give_up_rings(self, reason: str) -> None:
        """Turns the mount to /dev/fuse, before its rings have served. Raises Failure if the kernel did not hear it."""
        extra = about(events.TRANSPORT_FELL_BACK)
        log.warning("io_uring failed (%s): falling back to /dev/fuse", reason, extra=extra)
        self.transport_reason = reason
        arena, fd = self._mount.arena.fd, self.fd
        pid = throw_away(lambda: ring.give_up(arena, fd), {arena, fd})
        if os.waitpid(pid, 0)[1]:  # whoever calls on the mount would wait for the rings for ever
            raise Failure(f"{reason}; and the kernel could not be told", code=ExitCode.UNAVAILABLE)
        self.transport = "dev_fuse"

    # --- using it ---------------------------------------------------------------------------------------------------

    def read(self) -> memoryview:
        """The next message of the legacy path, valid until the one after it. Raises OSError."""
        return memoryview(self._buffer)[: os.readv(self.fd, [self._buffer])]

    def answer(self, unique: int, error: int, body: bytes = b"") -> None:
        """Answers a request that was read here. Raises OSError."""
        reply = bytearray(abi.FUSE_OUT_HEADER.size)
        codec.encode_out_header(memoryview(reply), 0, unique, error, len(body))
        os.write(self.fd, bytes(reply) + body)

    def has_ended(self) -> bool:
        """Whether it was unmounted or aborted (fuse_dev_poll()). Reads nothing."""
        poll = select.poll()
        poll.register(self.fd, 0)
        return bool(poll.poll(0))

    def word_for(self, worker: int) -> tuple[messages.Serve, int]:
        """What tells a worker to serve, with the descriptor that goes with it. Raises OSError."""
        assert self.session is not None
        fd = self.fd
        if self.transport != "io_uring":
            # The supervisor keeps each worker's clone: closed with its last reference, it would end the requests that a
            # dead worker had read (fuse_dev_release).
            if worker not in self.clones:
                self.clones[worker] = ring.clone(self.fd)
            fd = self.clones[worker]
        level = self._mount.worker_log_levels.get(worker, self._mount.log_level)
        session = self.session
        return messages.Serve(self.transport, session.setxattr_ext, session.uses_passthrough, level), fd

    def close(self) -> None:
        """Closes every descriptor: the connection ends."""
        if self.fd < 0:
            return
        self._manager.remove(adoption.FUSE)
        self.end_notifier()
        for worker, clone in self.clones.items():
            self._manager.remove(f"{adoption.CLONE}{worker}")
            os.close(clone)
        self.clones.clear()
        os.close(self.fd)
        self.fd = -1

    # --- notifications ----------------------------------------------------------------------------------------------

    def _start_writer(self) -> None:
        self.writer = Writer(self.fd)
        self._loop.watch(self.writer.channel, self._writer_spoke)

    def _writer_spoke(self) -> None:
        self.writer.pump()
        if not self.writer.ended:
            return
        log.warning("the process that writes notifications died: another takes its place")
        queue = self.writer.queue
        self.end_notifier()
        self._start_writer()
        self.writer.queue = queue
        self.writer.pump()

    def end_notifier(self) -> None:
        """Ends the process that writes notifications. One that is stuck is left to end with the connection."""
        if self.writer.pid == 0:
            return
        self._loop.unwatch(self.writer.channel)
        self.writer.close()
        pidfd = os.pidfd_open(self.writer.pid)
        if select.select([pidfd], [], [], NOTIFIER_PATIENCE)[0]:
            os.waitpid(self.writer.pid, 0)
        os.close(pidfd)
        self.writer.pid = 0


def _why_no_ring() -> str | None:
    switch = machine.ring_switch()
    if switch is None:
        return "this kernel has no FUSE over io_uring (it came with Linux 6.14)"
    if not switch:
        return f"the kernel's switch is off (echo Y > {machine.URING_SWITCH})"
    return ring.probe()
