"""`ringmount doctor`: what this machine has, what it lacks, and what to do about each.

A check is a function in `CHECKS`; it yields `Check`s and may raise, which counts as failed. `fail` means that no mount
can work here, `warn` that something is slower, smaller or less than it could be.

The rule a change must keep: nothing is changed on the machine, and nothing takes long: paths that may hang
are touched by liveness.py alone, and all checks together take two seconds at most.
"""

import importlib.metadata
import json
import os
import re
import resource
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from ringmount.config.model import MountConfig
from ringmount.config.units import format_cpulist
from ringmount.daemon import fusectl, fusermount, liveness, mountinfo, mounting, privileges, text
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.liveness import Liveness
from ringmount.daemon.mountpoint import clearing_command

OLDEST_KERNEL = (5, 4)
"""FUSE 7.31: see session.OLDEST_MINOR."""
RING_KERNEL = (6, 14)
RECOMMENDED_KERNEL = (6, 18)
ENOUGH_FILES = 16384
"""Descriptors that a mount with ten thousand open files needs, with room to spare."""
STALE_PATIENCE = 1.5
"""Seconds after which the server of a mount counts as stuck."""

URING_DISABLED = Path("/proc/sys/kernel/io_uring_disabled")
URING_GROUP = Path("/proc/sys/kernel/io_uring_group")
FILESYSTEMS = Path("/proc/filesystems")
MODULES = Path("/proc/modules")
MAPS = Path("/proc/self/maps")
SYSTEMD = Path("/run/systemd/system")

DEFAULTS = MountConfig(name="default", mountpoint="/mnt", filesystem="passthrough")
"""A mount with all settings at their defaults, to see what it would take."""


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One finding. `advice` says what to do, or is empty."""

    name: str
    status: Status
    detail: str
    advice: str = ""


Findings = Iterator[Check]


def checks() -> list[Check]:
    """All findings, in the order in which one would put things right."""
    return [finding for name, check in CHECKS.items() for finding in _findings(name, check)]


def exit_code(findings: Iterable[Check]) -> ExitCode:
    """What the command ends with: warnings are no failure."""
    return ExitCode.UNAVAILABLE if any(f.status is Status.FAIL for f in findings) else ExitCode.OK


def main(*, as_json: bool = False) -> ExitCode:
    """The whole command: checks, prints on stdout, and returns its exit code."""
    findings = checks()
    sys.stdout.write(to_json(findings) if as_json else to_table(findings))
    return exit_code(findings)


def to_json(findings: Iterable[Check]) -> str:
    """For programs: {"checks": [{"name", "status", "detail", "advice"}, ...]}."""
    return json.dumps({"checks": [asdict(finding) for finding in findings]}, indent=2) + "\n"


def to_table(findings: list[Check]) -> str:
    """For people: a line each, the advice beneath, and the conclusion."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:<4}  {finding.name:<{width}}  {finding.detail}")
        if finding.advice:
            lines.append(f"{'':4}  {'':{width}}  -> {finding.advice}")
    return "\n".join([*lines, "", _conclusion(findings)]) + "\n"


def _conclusion(findings: list[Check]) -> str:
    failed = [finding.name for finding in findings if finding.status is Status.FAIL]
    if failed:
        return f"ringmount cannot serve mounts here yet: {', '.join(failed)}"
    warnings = sum(finding.status is Status.WARN for finding in findings)
    return f"ringmount can serve mounts here; warnings: {warnings}"


def _findings(name: str, check: Callable[[], Findings]) -> list[Check]:
    try:
        return list(check())
    except Failure as failure:
        return [Check(name, Status.FAIL, failure.message, failure.hint)]
    except Exception as error:
        return [Check(name, Status.FAIL, f"cannot be checked: {type(error).__name__}: {error}")]


# --- one function a subject
# -------------------------------------------------------------------------------------


def kernel(release: str = "") -> Findings:
    """The kernel's version."""
    release = release or os.uname().release
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < OLDEST_KERNEL:
        yield Check("kernel", Status.FAIL, f"Linux {release} is too old", "ringmount needs Linux 5.4")
    elif version < RING_KERNEL:
        yield Check(
            "kernel",
            Status.WARN,
            f"Linux {release} has no FUSE over io_uring: mounts are served through /dev/fuse",
            "for rings, take Linux 6.18 (6.14 at least)",
        )
    elif version < RECOMMENDED_KERNEL:
        yield Check(
            "kernel",
            Status.WARN,
            f"Linux {release} has rings, but requests may hang or be lost when a worker dies",
            "take Linux 6.18, in its latest stable version",
        )
    else:
        yield Check("kernel", Status.OK, f"Linux {release}")


def fuse_device() -> Findings:
    """/dev/fuse and the module behind it."""
    os.close(mounting.open_fuse())  # this loads the module where udev left a static device
    if "\tfuse\n" not in FILESYSTEMS.read_text():
        raise Failure("the kernel has no fuse filesystem", "load it as root with: modprobe fuse")
    yield Check("fuse", Status.OK, f"{mounting.FUSE_DEVICE} can be opened")


def ring_switch() -> Findings:
    """The kernel's own switch for FUSE over io_uring, which is off by default."""
    from ringmount.daemon import machine

    match machine.ring_switch():
        case True:
            yield Check("ring switch", Status.OK, f"{machine.URING_SWITCH} is on")
        case False:
            yield Check(
                "ring switch",
                Status.WARN,
                f"{machine.URING_SWITCH} is off: mounts are served through /dev/fuse",
                f"echo Y | sudo tee {machine.URING_SWITCH}; from the next boot on: {_switch_for_good()}",
            )
        case None:
            yield Check(
                "ring switch",
                Status.WARN,
                f"there is no {machine.URING_SWITCH}: mounts are served through /dev/fuse",
                "take Linux 6.14 or newer, built with CONFIG_FUSE_IO_URING",
            )


def _switch_for_good() -> str:
    if re.search("^fuse ", MODULES.read_text(), re.MULTILINE):
        return "echo 'options fuse enable_uring=1' | sudo tee /etc/modprobe.d/ringmount.conf"
    return "fuse is built into this kernel, so add fuse.enable_uring=1 to its command line"


def io_uring() -> Findings:
    """Whether this process may have a ring: tried, and explained by the sysctls."""
    from ringmount.workers import ring

    refusal = ring.probe()
    if refusal is None:
        yield Check("io_uring", Status.OK, "a ring was set up")
        return
    disabled, group = _number(URING_DISABLED), _number(URING_GROUP)
    advice = "a seccomp filter of a container may forbid it; systemd's @system-service allows it"
    if disabled == 2:
        advice = "sudo sysctl -w kernel.io_uring_disabled=0"
    elif disabled == 1:
        advice = (
            f"ordinary users may not (kernel.io_uring_disabled=1): run as root, as a member of group {group}"
            " (kernel.io_uring_group), or set it to 0"
        )
    yield Check("io_uring", Status.WARN, f"{refusal}: mounts are served through /dev/fuse", advice)


def liburing() -> Findings:
    """The library that the native module is linked with."""
    from ringmount.workers import _native

    found = re.search(r"/liburing\.so[.\d]*", MAPS.read_text(errors="replace"))
    name = Path(_native.__file__ or "").name
    yield Check("liburing", Status.OK, found[0].lstrip("/") if found else f"linked into {name}")


def python() -> Findings:
    """The interpreter and the packages that the daemon imports."""
    packages = ("msgspec", "pyyaml", "psutil", "sdnotify", "cffi")
    missing = []
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        yield Check(
            "python",
            Status.FAIL,
            f"missing in {sys.prefix}: {', '.join(missing)}",
            f"{sys.executable} -m pip install {' '.join(missing)}",
        )
    else:
        yield Check("python", Status.OK, f"{sys.version.split()[0]}, {', '.join(versions)}")


def permissions() -> Findings:
    """How this user can mount, and for whom."""
    if privileges.may_mount():
        yield Check("permissions", Status.OK, "root: mounts by mount(2)")
        return
    program = fusermount.find_fusermount()
    if program is None:
        raise Failure(
            f"{fusermount.FUSERMOUNT} is not installed, and without it only root can mount",
            "sudo apt install fuse3",
        )
    if not is_set_user_id_root(program):
        raise Failure(f"{program} is not set-user-id root", f"sudo chmod u+s {program}")
    if privileges.has_no_new_privs():
        raise Failure(
            f"no_new_privs is set for this process, so {program} has no rights",
            "log in anew, or remove NoNewPrivileges=yes from the unit",
        )
    yield Check("permissions", Status.OK, f"ordinary user: mounts through {program}")
    if not fusermount.is_allow_other_permitted():
        yield Check(
            "allow_other",
            Status.WARN,
            "only you will be able to use your mounts, not even root",
            f"echo user_allow_other | sudo tee -a {fusermount.FUSE_CONF}",
        )


def is_set_user_id_root(program: str) -> bool:
    """True if the program runs as root whoever starts it."""
    status = os.stat(program)
    return status.st_uid == 0 and bool(status.st_mode & stat.S_ISUID)


def limits() -> Findings:
    """Limits of this process that a mount may meet."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_enough = hard == resource.RLIM_INFINITY or hard >= ENOUGH_FILES
    yield Check(
        "open files",
        Status.OK if is_enough else Status.WARN,
        f"limit {_limit(soft)}, raised by the daemon to {_limit(hard)}",
        "" if is_enough else f"allow {ENOUGH_FILES} or more: LimitNOFILE= of a unit, /etc/security/limits.conf",
    )
    _, locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    size = "unlimited" if locked == resource.RLIM_INFINITY else text.size(locked)
    yield Check("locked memory", Status.OK, f"limit {size} (rings do not count)")


def processors() -> Findings:
    """CPUs, and the memory that the rings of a mount with default settings take."""
    from ringmount.daemon import machine

    cpus = machine.cpus()
    yield Check(
        "processors",
        Status.OK,
        f"usable {format_cpulist(cpus.usable)}, online {format_cpulist(cpus.online)}, possible {cpus.possible}",
    )
    cap = text.size(machine.ring_memory_cap(DEFAULTS))
    try:
        plan = machine.plan(DEFAULTS, cpus, cpus.usable)
    except Failure as failure:
        yield Check("ring memory", Status.WARN, f"with default settings {failure.message}", failure.hint)
        return
    yield Check(
        "ring memory",
        Status.OK,
        f"{text.size(plan.buffer_bytes)} at most for a mount with default settings, of {cap} allowed",
    )


def pages_limit() -> Findings:
    """fs.fuse.max_pages_limit, which lowers max_write."""
    from ringmount.daemon import machine

    allowed = machine.max_write(DEFAULTS)
    if allowed < DEFAULTS.max_write:
        pages = DEFAULTS.max_write // os.sysconf("SC_PAGESIZE")
        yield Check(
            "request size",
            Status.WARN,
            f"{text.size(allowed)} at most, which lowers max_write: fs.fuse.max_pages_limit is below {pages}",
            f"sudo sysctl -w fs.fuse.max_pages_limit={pages}",
        )
    else:
        yield Check("request size", Status.OK, f"{text.size(allowed)} allowed")


def services() -> Findings:
    """Whether systemd runs, for the units."""
    detail = "runs" if SYSTEMD.is_dir() else "does not run: use `ringmount run`"
    yield Check("systemd", Status.OK, detail)


def connections() -> Findings:
    """fusectl, through which a mount that hangs can be given up."""
    found = fusectl.list_connections()
    if found is None:
        yield Check(
            "connections",
            Status.WARN,
            f"{fusectl.FUSECTL} is not mounted: a mount that hangs could not be aborted",
            f"sudo mount -t fusectl none {fusectl.FUSECTL}",
        )
    else:
        yield Check("connections", Status.OK, f"{len(found)} FUSE connections")


def stale_mounts() -> Findings:
    """FUSE mounts of anybody whose server is dead or does not answer."""
    table = mountinfo.read()
    # At the place of a mount that another one hides, the other one would answer.
    entries = [entry for entry in table if entry.is_fuse and mountinfo.find(entry.mountpoint, table) == entry]
    answers = liveness.ask_servers(entries, STALE_PATIENCE)
    for entry, answer in zip(entries, answers, strict=True):
        place = f"{entry.mountpoint} ({entry.fstype} {entry.source})"
        if answer is Liveness.DEAD:
            yield Check("stale mount", Status.WARN, f"{place}: its server is dead", clearing_command(entry))
        elif answer is Liveness.STUCK:
            abort = fusectl.FUSECTL / str(fusectl.connection_id(entry)) / "abort"
            yield Check(
                "stale mount",
                Status.WARN,
                f"{place}: its server has not answered for {STALE_PATIENCE:g} s",
                f"stop the server; or give it up: echo 1 >{abort}, then {clearing_command(entry)}",
            )
    if not {Liveness.DEAD, Liveness.STUCK} & set(answers):
        unknown = answers.count(Liveness.UNKNOWN)
        note = f", {unknown} of others could not be asked" if unknown else ""
        yield Check("stale mounts", Status.OK, f"none among {len(entries)} FUSE mounts{note}")


CHECKS: dict[str, Callable[[], Findings]] = {
    "python": python,
    "liburing": liburing,
    "kernel": kernel,
    "fuse": fuse_device,
    "ring switch": ring_switch,
    "io_uring": io_uring,
    "permissions": permissions,
    "limits": limits,
    "processors": processors,
    "request size": pages_limit,
    "systemd": services,
    "connections": connections,
    "stale mounts": stale_mounts,
}


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)
