"""The command `ringmount`: its arguments, and how it ends. What carries a command out is imported when it is called."""

import argparse
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from ringmount.config.errors import ConfigError
from ringmount.daemon.exitcodes import ExitCode, Failure

MEANINGS = {
    ExitCode.OK: "all is well; of run: it was stopped and has unmounted",
    ExitCode.UNEXPECTED: "something nobody foresaw; there is a message or a traceback",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.CONFIG: "the mount's file cannot be read, or says something impossible",
    ExitCode.MOUNTPOINT: "the mountpoint or the mount's name cannot be used",
    ExitCode.PERMISSION: "the user may not do this",
    ExitCode.UNAVAILABLE: "the machine lacks something (ringmount doctor says what)",
    ExitCode.FILESYSTEM: "the filesystem could not be loaded or started",
    ExitCode.NO_SUCH_MOUNT: "there is no such mount",
    ExitCode.RESOURCES: "more memory, descriptors or processes than allowed or left",
    ExitCode.BUSY: "of drain: the mount is still in use",
}
INTERRUPTED = 128 + 2
"""Ctrl-C in a command other than a mount that serves, as shells have it."""

EXIT_CODES = "exit codes:\n" + "\n".join(f"  {code:<3}  {meaning}" for code, meaning in MEANINGS.items())

RUN = """\
The mount that FILE.yaml describes is served until Ctrl-C or SIGTERM, and is then unmounted. It is named after the
file: data.yaml is the mount `data`. The shortest file:

  mountpoint: /mnt/data
  filesystem: passthrough
  options:
    source: /srv/data

root mounts by mount(2), for everybody; an ordinary user through fusermount3.

Workers that die are replaced. With --keep so is the supervisor: a small process holds the connection and the state of
the mount, and another supervisor goes on where the last one died; applications wait for that moment. systemd does the
same for a service with FileDescriptorStoreMax=.

examples:
  sudo ringmount run /etc/ringmount/data.yaml
  ringmount run ~/notes.yaml &
"""
CHECK = """\
Reads FILE.yaml, imports its filesystem, and checks both against this machine; nothing is mounted. Prints every setting
with its value and the memory that the rings will take at most. Mistakes are told all at once, each on a line as
FILE:LINE:COLUMN: KEY: what is wrong; what to do.

examples:
  ringmount check data.yaml
  ringmount check data.yaml >/etc/ringmount/data.yaml    what it prints is a mount's file, with every key
"""
DOCTOR = """\
Looks at all that a mount needs: the kernel and its ring switch, /dev/fuse, io_uring, liburing, permissions, limits and
memory; and at mounts whose server is dead. Each finding is ok, warn (slower or less than it could be) or fail (no mount
can work), with what to do. Nothing is changed. If something fails the exit code is 6.

examples:
  ringmount doctor
  ringmount doctor --json | jq -r '.checks[] | select(.status != "ok") | .advice'
"""
STATUS = """\
Without NAME: all mounts, one a line, also those of other users and those whose server is dead. With NAME: its workers,
and what they have done since the mount was made. ERRORS are answers with an errno, ENOENT for a name that is not there
included; BUSY is the number of requests in flight, of those that there is room for; DEATHS are workers of that place
that died and were replaced; RSS is memory. Further, what each operation took: half of the requests at most P50, all but
one in a hundred at most P99 (an eighth too much at worst), from when a worker took a request until it handed the reply
in. What a request waited in the kernel before, for a free entry or a busy worker, is not in these times.

examples:
  ringmount status
  watch -n 1 ringmount status data
  ringmount status data --json | jq '[.workers[].requests]'
"""
PS = """\
Every request that workers were given and have not answered, the oldest first: for how long, the worker, whether
it was begun, the operation, the node and the name it is about, and the process that waits for it. The workers are not
asked, so it answers also when all of them hang. Requests that wait because no entry of their queue is free do not show.

With --stack the Python stack of each handler is shown beneath its request, the innermost call first: of a thread that
runs, waits in a system call or holds the interpreter's lock, and of a coroutine as long as its worker's loop turns.
Workers are interrupted for a moment by a signal; no request fails of it. It is for root and the mount's user.

examples:
  ringmount ps data
  ringmount ps data --stack
"""
TRACE = """\
Every request from now on, when it is answered, until Ctrl-C: the time, the worker, the operation, for how long the
worker had it, the result (an errno, or the bytes that were read or written), the caller, and the path. It is for root
and the mount's user. It costs as long as somebody looks on, and then only what is recorded: with --opcode,
--slower-than and --errors the workers leave out the rest.

What the kernel answers from its caches is no request, and is not seen. A path is #NODE where the filesystem does not
know it, or has forgotten it; names are cut after 104 bytes.

examples:
  ringmount trace data
  ringmount trace data --slower-than 10ms
  ringmount trace data --opcode LOOKUP,GETATTR --path '/src/*' --count 100
  ringmount trace data --errors --json | jq -r .errno | sort | uniq -c
"""
DRAIN = """\
Takes the mount out of the tree, so that nobody new comes to use it, and waits until those who do are done: files
closed, folders left, answers given. Then the mount ends by itself, and a service with it, as after `umount`. Meanwhile
all is served as ever; who is left is said on stderr, as far as it can be seen.

If it is still in use when the time is over the exit code is 10, and it goes on draining; with --force it is ended.

examples:
  ringmount drain data
  ringmount drain data --timeout 60 --force
"""
TOP = """\
Live: requests and bytes per second, how long each operation takes, what each worker does, and the oldest requests in
flight. Times are those of `ringmount status`, of the last interval alone; TIME% is an operation's share of all workers'
time. The workers are not asked, so it goes on while all of them hang. q or Ctrl-C quits.

Without NAME: all mounts, one a line. Without a terminal, or with --once, it looks twice, an interval apart, and prints
what happened in between.

examples:
  ringmount top data
  ringmount top data --once --interval 10 >now.txt
"""
LOG_LEVEL = """\
The mount goes on meanwhile. It lasts until the mount is reloaded or stopped, a worker's also beyond its death: then the
file's log_level counts. Without LEVEL it says what the levels are. docs/logging.md says how to find messages.

examples:
  ringmount log-level data debug
  ringmount log-level data debug --worker 1
"""
UMOUNT = """\
Stops a running mount as Ctrl-C would, also one that is in use, and waits until its processes have ended: requests in
flight are answered, calls on files that are still open fail from then on. Where the server is dead ("Transport endpoint
is not connected") it clears the mount away.

examples:
  ringmount umount data
  ringmount umount /mnt/data
"""
RELOAD = """\
Reads the mount's file again and tries the code that is installed now, while the mount serves. If both are good, new
workers take the place of the old ones: applications wait for a moment, no call fails, and files stay open. If not, the
old ones go on, and this command says why. SIGHUP to the supervisor does the same.

What was agreed with the kernel lasts until the mount is made anew: mountpoint, filesystem, transport, workers, cpus,
queue_depth, max_write, cache, data, allow_other, default_permissions, user and read_only.

examples:
  ringmount reload data
"""
INSTALL = """\
Writes the unit ringmount@.service, with which `systemctl enable --now ringmount@NAME` serves /etc/ringmount/NAME.yaml
from every boot on, and what goes with it: target, slice, user, folders, the module option for the rings, the helper of
mount(8) for /etc/fstab. The units call the command that writes them. With --user it is a unit for `systemctl --user`,
whose mounts are those of ~/.config/ringmount/.

examples:
  sudo ringmount install-units
  ringmount install-units --user
  ringmount install-units --root build/package --prefix /usr
"""
UNIT = """\
A unit with a mount namespace of its own, or without capabilities, has its mount made by commands that have neither. The
unit files show how (ringmount install-units): `mount` gives the connection to systemd's fd store, which hands it to
`ringmount run --handed`; `stop` unmounts and ends the supervisor; `clean` unmounts what nobody serves any more.

examples:
  ExecStartPre=+nsenter -t 1 -m -- ringmount for-unit mount data
"""
FOR_MOUNT = """\
mount(8) calls it as mount.ringmount. A line of /etc/fstab starts the mount's unit, which /etc/ringmount/NAME.yaml
describes; options are those of mount(8) and systemd (_netdev, nofail, noauto, x-systemd.automount, ...), and:

  ro          the file has to say read_only: true, too
  sandboxed   the unit is ringmount-sandboxed@NAME

examples:
  data  /mnt/data  ringmount  _netdev,x-systemd.automount  0  0
  mount -t ringmount data /mnt/data
"""
SCHEMA = """\
With yaml-language-server, editors help in a file whose first line names the schema:

  # yaml-language-server: $schema=ringmount.schema.json

examples:
  ringmount schema >ringmount.schema.json
"""
COMPLETION = """\
examples:
  ringmount completion bash >~/.local/share/bash-completion/completions/ringmount
  ringmount completion zsh >~/.zfunc/_ringmount          with ~/.zfunc in $fpath
  ringmount completion fish >~/.config/fish/completions/ringmount.fish
"""


class Parser(argparse.ArgumentParser):
    """Complains in one line; shows descriptions and examples as they are written."""

    def __init__(self, **options: object) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f"ringmount: {message}; see: {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = Parser(
        prog="ringmount",
        description="Serves FUSE mounts from Python, one worker process per CPU over FUSE-over-io_uring.",
        epilog=EXIT_CODES,
    )
    top.add_argument("--version", action="version", version=_version(), help="show the version and exit")
    commands = top.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)

    def command(name: str, summary: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.\n\n{text}")

    run = command("run", "serve a mount in the foreground, until Ctrl-C", RUN)
    run.add_argument("file", metavar="FILE.yaml", help="the mount's file, or the name of one in /etc/ringmount")
    run.add_argument(
        "--keep", action="store_true", help="outlive the supervisor's death: a small process holds the mount"
    )
    run.add_argument(
        "--handed",
        action="store_true",
        help="for units: `ringmount for-unit mount` has made the mount, in ExecStartPre=",
    )
    run.add_argument("--mkdir", action="store_true", help="make the mountpoint if it is missing, remove it afterwards")

    check = command("check", "validate a mount's file and show its effective settings", CHECK)
    check.add_argument("file", metavar="FILE.yaml", help="the mount's file, or the name of one in /etc/ringmount")

    doctor = command("doctor", "say what this machine can do, and what to do about the rest", DOCTOR)
    doctor.add_argument("--json", action="store_true", help="print JSON, for programs")

    status = command("status", "show running mounts, or one of them in detail", STATUS)
    status.add_argument("name", metavar="NAME", nargs="?", help="the mount's name")
    status.add_argument("--json", action="store_true", help="print JSON, for programs")

    ps = command("ps", "show a mount's requests in flight: why does it hang?", PS)
    ps.add_argument("name", metavar="NAME", help="the mount's name")
    ps.add_argument("--stack", action="store_true", help="show where each handler is")
    ps.add_argument("--json", action="store_true", help="print JSON, for programs")

    live = command("top", "show what mounts do, live in the terminal", TOP)
    live.add_argument("name", metavar="NAME", nargs="?", help="the mount's name")
    live.add_argument("--interval", metavar="SECONDS", type=_interval, default=2.0, help="between looks (default: 2)")
    live.add_argument("--once", action="store_true", help="print one page as plain text")

    level = command("log-level", "say from which level on a running mount logs", LOG_LEVEL)
    level.add_argument("name", metavar="NAME", help="the mount's name")
    level.add_argument(
        "level", choices=("debug", "info", "warning", "error"), nargs="?", help="the least important messages to log"
    )
    level.add_argument("--worker", metavar="N", type=int, help="of this worker alone")

    trace = command("trace", "show a mount's requests live, as they are answered", TRACE)
    trace.add_argument("name", metavar="NAME", help="the mount's name")
    trace.add_argument("--opcode", metavar="X,Y", type=_opcodes, default="", help="only these operations")
    trace.add_argument("--path", metavar="GLOB", help="only paths like this; * matches any text")
    trace.add_argument("--pid", metavar="N", type=int, help="only requests of this process")
    trace.add_argument("--slower-than", metavar="TIME", type=_seconds, default=0.0, help="only what took as long: 10ms")
    trace.add_argument("--errors", action="store_true", help="only what failed")
    trace.add_argument("--count", metavar="N", type=_count, default=0, help="end after so many")
    trace.add_argument("--json", action="store_true", help="print JSON, one line a request, for programs")

    drain = command("drain", "stop a mount when those who use it are done", DRAIN)
    drain.add_argument("name", metavar="NAME", help="the mount's name, or its mountpoint")
    drain.add_argument("--timeout", metavar="TIME", type=_seconds, help="wait no longer: 90s, 5min; default: for ever")
    drain.add_argument("--force", action="store_true", help="end it when the time is over, with errors for who uses it")

    umount = command("umount", "stop a mount, or clear away one whose server is dead", UMOUNT)
    umount.add_argument("name", metavar="NAME", help="the mount's name, or its mountpoint")

    reload = command("reload", "have a running mount go on with new code and settings", RELOAD)
    reload.add_argument("name", metavar="NAME", help="the mount's name, or its mountpoint")

    unit = command("for-unit", "in unit files: make a mount for a supervisor without privileges", UNIT)
    unit.add_argument("step", choices=("mount", "stop", "clean"), help="what to do")
    unit.add_argument("name", metavar="NAME", help="the mount's name")
    unit.add_argument("--owner", metavar="USER", help="the user that the supervisor runs as (default: root)")

    helper = command("for-mount", "the helper of mount(8), for lines of /etc/fstab", FOR_MOUNT)
    helper.add_argument("name", metavar="NAME", help="the mount's name")
    helper.add_argument("target", metavar="FOLDER", help="the folder to mount on, which its file names as well")
    helper.add_argument("-o", dest="options", metavar="OPTIONS", default="", help="options as in fstab")
    helper.add_argument("-f", dest="fake", action="store_true", help="only check")
    for flag in "snv":
        helper.add_argument(f"-{flag}", action="store_true", help=argparse.SUPPRESS)
    for flag in "Nt":
        helper.add_argument(f"-{flag}", help=argparse.SUPPRESS)

    install = command("install-units", "have systemd serve mounts: put its unit files in place", INSTALL)
    install.add_argument("--user", action="store_true", help="for mounts of your own, by systemctl --user")
    install.add_argument("--root", metavar="DIR", default="/", help="the top of the tree to write to (default: /)")
    install.add_argument("--prefix", metavar="DIR", default="/usr/local", help="below it (default: /usr/local)")
    install.add_argument("--uninstall", action="store_true", help="remove the files; mounts that run go on")

    command("schema", "print the JSON Schema of a mount's file, for editors", SCHEMA)

    completion = command("completion", "print a completion script for a shell", COMPLETION)
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")
    return top


def _interval(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{value} is not a number of seconds from 0.1 to 3600")
    return seconds


def _opcodes(text: str) -> frozenset[int]:
    from ringmount.daemon.trace import opcodes

    try:
        return opcodes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    """A number of seconds, or with a unit: 250us, 10ms, 1.5s, 2min, 1h."""
    found = re.fullmatch(r"([0-9]*[.]?[0-9]+) ?(us|ms|s|min|h)?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"not a time: {text}; try 10ms, 1.5s or 2min")
    return float(found[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}[found[2] or "s"]


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"not a number above 0: {text}")
    return int(text)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"ringmount {version('ringmount')}"
    except PackageNotFoundError:
        return "ringmount (not installed)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    complain = _complain
    try:
        options = parser().parse_args(arguments)
        if options.command == "run":
            from ringmount.daemon.log import complain
        code = _call(options)
        sys.stdout.flush()
        return code
    except ConfigError as error:
        for each in error.all():
            complain(each)
        return ExitCode.CONFIG
    except Failure as failure:
        complain(failure)
        return failure.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `ringmount status | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed at the exit
        return ExitCode.OK


def _complain(error: Exception) -> None:
    print(f"ringmount: {error}", file=sys.stderr)


def _call(options: argparse.Namespace) -> int:
    match options.command:
        case "run":
            # A shell's background job is started with SIGINT ignored; a mount is stopped by it all the same.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            from ringmount.daemon.places import settings_file
            from ringmount.daemon.run import keep, run

            file = settings_file(options.file)
            if options.keep:
                keep(file, mkdir=options.mkdir)
            run(file, mkdir=options.mkdir, is_handed=options.handed)
        case "check":
            from ringmount.daemon.check import check
            from ringmount.daemon.places import settings_file

            print(check(settings_file(options.file)))
        case "doctor":
            from ringmount.daemon import doctor

            return doctor.main(as_json=options.json)
        case "status":
            from ringmount.daemon import status

            print(status.show(options.name, as_json=options.json))
        case "ps":
            from ringmount.daemon import ps

            print(ps.show(options.name, as_json=options.json, with_stacks=options.stack))
        case "top":
            from ringmount.daemon import top

            top.run(options.name, options.interval, options.once)
        case "log-level":
            from ringmount.daemon.loglevel import log_level

            print(log_level(options.name, options.level, options.worker))
        case "trace":
            from ringmount.daemon.trace import Wanted, trace

            wanted = Wanted(
                options.opcode, options.path, options.pid, options.slower_than, options.errors, options.count
            )
            trace(options.name, wanted, as_json=options.json)
        case "drain":
            from ringmount.daemon.emptying import drain

            print(drain(options.name, options.timeout, force=options.force))
        case "umount":
            from ringmount.daemon.umount import umount

            print(umount(options.name))
        case "reload":
            from ringmount.daemon.upgrade import reload

            print(reload(options.name))
        case "for-unit":
            from ringmount.daemon import handed

            handed.step(options.step, options.name, options.owner)
        case "for-mount":
            from ringmount.daemon import fstab

            fstab.mount(options.name, options.target, options.options, is_fake=options.fake)
        case "install-units":
            from ringmount.daemon import install

            put = install.uninstall if options.uninstall else install.install
            print(put(options.root, options.prefix, for_user=options.user))
        case "schema":
            import json

            from ringmount.config.schema import json_schema

            print(json.dumps(json_schema(), indent=2))
        case "completion":
            from ringmount.daemon.completion import script

            print(script(parser(), options.shell))
    return ExitCode.OK
