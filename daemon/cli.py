"""The command `ringmount`: its arguments, and how it ends. Each command is imported when it is called."""

import argparse
import sys
from collections.abc import Sequence

from ringmount.config.errors import ConfigError
from ringmount.daemon.exitcodes import ExitCode, Failure

EXIT_CODES = """\
exit codes:
  0  all is well                       5  the user may not do this
  1  unexpected; see the traceback     6  the machine lacks something (ringmount doctor)
  2  the command line is wrong         7  the filesystem could not be loaded or started
  3  the mount's file is wrong         8  there is no such mount
  4  the mountpoint cannot be used     9  not enough memory, descriptors or processes
"""


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(
        prog="ringmount",
        description="Serves FUSE mounts from Python, one worker process per CPU over FUSE-over-io_uring.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=_version())
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="serve a mount in the foreground, until Ctrl-C")
    run.add_argument("file", metavar="FILE.yaml", help="the mount's file; its name without .yaml is the mount's name")

    check = commands.add_parser("check", help="validate a mount's file and show its effective settings")
    check.add_argument("file", metavar="FILE.yaml", help="the mount's file")

    doctor = commands.add_parser("doctor", help="say what this machine can do, and what to do about the rest")
    doctor.add_argument("--json", action="store_true", help="for programs")

    status = commands.add_parser("status", help="show running mounts, or one of them in detail")
    status.add_argument("name", metavar="NAME", nargs="?", help="the mount's name")
    status.add_argument("--json", action="store_true", help="for programs")

    umount = commands.add_parser("umount", help="stop a mount, or clear away one whose server is dead")
    umount.add_argument("name", metavar="NAME", help="the mount's name, or its mountpoint")

    schema = commands.add_parser("schema", help="print the JSON Schema of a mount's file, for editors")
    schema.set_defaults(quiet=True)

    completion = commands.add_parser("completion", help="print a completion script for a shell")
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")
    return top


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"ringmount {version('ringmount')}"
    except PackageNotFoundError:
        return "ringmount (not installed)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    options = parser().parse_args(arguments)
    try:
        return _call(options)
    except ConfigError as error:
        for each in (error, *error.others):
            print(f"ringmount: {each}", file=sys.stderr)
        return ExitCode.CONFIG
    except Failure as failure:
        print(f"ringmount: {failure}", file=sys.stderr)
        return failure.code
    except BrokenPipeError:
        sys.stderr.close()
        return ExitCode.OK


def _call(options: argparse.Namespace) -> int:
    match options.command:
        case "run":
            from ringmount.daemon.run import run

            run(options.file)
        case "check":
            from ringmount.daemon.check import check

            print(check(options.file))
        case "doctor":
            from ringmount.daemon import doctor

            return doctor.main(as_json=options.json)
        case "status":
            from ringmount.daemon import status

            status.show(options.name, as_json=options.json)
        case "umount":
            from ringmount.daemon.umount import umount

            umount(options.name)
        case "schema":
            import json

            from ringmount.config.schema import json_schema

            print(json.dumps(json_schema(), indent=2))
        case "completion":
            return _print_completion(options.shell)
    return ExitCode.OK


def _print_completion(shell: str) -> int:
    try:
        import shtab
    except ModuleNotFoundError:
        raise Failure(
            "completion scripts are made by the package shtab",
            "pip install 'ringmount[completion]'",
            code=ExitCode.UNAVAILABLE,
        ) from None
    if shell == "fish" and "fish" not in shtab.SUPPORTED_SHELLS:
        raise Failure("this version of shtab knows no fish", code=ExitCode.UNAVAILABLE)
    print(shtab.complete(parser(), shell=shell))
    return ExitCode.OK
