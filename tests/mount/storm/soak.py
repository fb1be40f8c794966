"""`make soak`: storms, programs and many deaths, and a table of what became of them.

DEATHS scales it: of workers in a storm (default 300). The programs get a third of that each, supervisors and whole
trees a tenth, reloads a fifteenth, the hunt for leaks seven times as many. TRANSPORTS and PARTS narrow it. The exit
code is 1 if anything was wrong.
"""

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from mount.clients import call, cpus, status, wait_for
from mount.storm.programs import present
from mount.storm.storm import (
    HARSHLY,
    KINDLY,
    PATIENCE,
    RELOAD,
    SUPERVISOR,
    TREE,
    Storm,
    Trees,
    Victims,
    rage,
    serve_storm,
)
from mount.support import ServedMount, processes_of

DEATHS = int(os.environ.get("DEATHS", "300"))
TRANSPORTS = os.environ.get("TRANSPORTS", "io_uring dev_fuse").split()
PARTS = os.environ.get("PARTS", "kindly harshly supervisors programs leaks").split()
INTERVAL = 0.1


REMOVE = (
    "import os, shutil, sys; [shutil.rmtree(entry.path) for entry in os.scandir(sys.argv[1])]; os.statvfs(sys.argv[1])"
)


class Table:
    """Rows as they come, and whether all was well."""

    def __init__(self) -> None:
        self.is_well = True

    def row(self, transport: str, what: str, ok: bool, said: str) -> None:
        self.is_well = self.is_well and ok
        sys.stdout.write(f"{'ok ' if ok else 'BAD'} {transport:9} {what:24} {said}\n")
        sys.stdout.flush()


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ringmount-soak-") as folder:
        yield Path(folder)


def storm_row(table: Table, transport: str, what: str, storm: Storm, ok: bool) -> None:
    counts = ", ".join(f"{storm.count(name)} {name}" for name in ("rescued", "retried", "lost", "quarantined"))
    table.row(
        transport,
        what,
        ok and not storm.wrong and not storm.hung,
        f"{storm.deaths} deaths, {storm.calls} calls, {storm.failed} failed {dict(storm.failures) or ''}, "
        f"{len(storm.hung)} hung, slowest {storm.slowest * 1e3:.0f} ms; {counts}",
    )
    for line in (*storm.wrong, *storm.hung):
        sys.stdout.write(f"    {line}\n")


def kindly(table: Table, transport: str) -> None:
    with scratch() as folder, serve_storm(folder, transport) as (mount, source):
        storm = rage(mount, source, KINDLY, DEATHS, INTERVAL)
    lost = storm.count("lost") + storm.count("quarantined")
    storm_row(table, transport, "crash, hang, replace", storm, storm.failed == lost == 0)


def harshly(table: Table, transport: str) -> None:
    with scratch() as folder, serve_storm(folder, transport) as (mount, source):
        storm = rage(mount, source, HARSHLY, DEATHS, INTERVAL)
    storm_row(table, transport, "SIGKILL", storm, storm.failed < storm.count("deaths"))


def supervisors(table: Table, transport: str) -> None:
    """kill -9 of the supervisor, of all its processes, and reloads, with a holder."""
    for what, ways, share in (
        ("supervisor", (SUPERVISOR,), 10),
        ("all processes", (TREE,), 10),
        ("reload", (RELOAD,), 15),
    ):
        with scratch() as folder, serve_storm(folder, transport, arguments=["--keep"]) as (mount, source):
            storm = rage(mount, source, ways, max(1, DEATHS // share), INTERVAL, kind=Trees)
        lost = storm.count("lost") + storm.count("quarantined")
        bound = storm.deaths * len(cpus()) if what == "all processes" else 0
        storm_row(table, transport, what, storm, lost == 0 and storm.failed <= bound)


def programs(table: Table, transport: str) -> None:
    settings = {"cache": "normal", "timeouts": {"request": 2.0}}
    for name, program in present().items():
        with scratch() as folder, serve_storm(folder, transport, **settings) as (mount, _):
            failed: list[BaseException] = []

            def run(mount: ServedMount = mount, failed: list[BaseException] = failed) -> None:
                try:
                    program(mount.path)  # noqa: B023 (the thread ends before the next one)
                except BaseException as error:
                    failed.append(error)

            thread = threading.Thread(target=run, daemon=True)
            began = time.monotonic()
            thread.start()
            victims = Victims(mount, (signal.SIGSEGV,))
            while thread.is_alive():
                victims.kill_one()
                time.sleep(INTERVAL)
            thread.join()
            took = time.monotonic() - began
            table.row(transport, name, not failed, f"{victims.deaths} deaths in {took:.0f} s {failed or ''}")


def levels(mount: ServedMount) -> dict[str, int]:
    """What must not grow: of the supervisor, whose table of descriptors is all workers', and of the kernel."""
    pid = mount.process.pid
    said = status(mount)
    memory = Path(f"/proc/{pid}/statm").read_text().split()
    device = next(
        line.split()[2]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if line.split()[4] == str(mount.path)
    )
    waiting = Path(f"/sys/fs/fuse/connections/{device.split(':')[1]}/waiting")
    return {
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "processes": len(processes_of(pid)),
        "pages of memory": int(memory[1]) - int(memory[2]),
        "nodes": int(said["nodes"]),
        "requests in flight": sum(worker["in_flight"] for worker in said["workers"]),
        "kernel's requests": int(waiting.read_text()) if waiting.exists() else 0,
    }


def leaks(table: Table, transport: str) -> None:
    with scratch() as folder, serve_storm(folder, transport) as (mount, source):

        def settle() -> dict[str, int]:
            for cpu in cpus():  # on each, so that every queue has been used
                call(REMOVE, mount.path, cpu=cpu)
            wait_for(lambda: status(mount)["spare"], "a spare", PATIENCE)
            time.sleep(1.0)
            if os.environ.get("SHOW"):
                fds = f"/proc/{mount.process.pid}/fd"
                for fd in sorted(os.listdir(fds), key=int):
                    with contextlib.suppress(OSError):
                        sys.stdout.write(f"{fd} {os.readlink(f'{fds}/{fd}')}\n")
            return levels(mount)

        deaths = 7 * DEATHS
        rage(mount, source, KINDLY, max(1, deaths // 20), INTERVAL / 2)
        before = settle()
        storm = rage(
            mount, source, (signal.SIGSEGV, signal.SIGABRT, signal.SIGUSR2, signal.SIGKILL), deaths, INTERVAL / 2
        )
        after = settle()
    # Descriptors that nodes keep come and go, memory has a little slack; nothing may grow with the deaths.
    slack = {"descriptors": 4, "pages of memory": 2048}
    grown = {name: (before[name], after[name]) for name in before if after[name] > before[name] + slack.get(name, 0)}
    table.row(transport, "leaks", not grown, f"{storm.count('deaths')} deaths, before {before}, after {after}")


def main() -> int:
    table = Table()
    for transport in TRANSPORTS:
        for part in (kindly, harshly, supervisors, programs, leaks):
            if part.__name__ in PARTS:
                part(table, transport)
    return 0 if table.is_well else 1


sys.exit(main())
