"""The manual pages: ringmount(1), ringmount.yaml(5) and ringmount@.service(8), from what they are about.

Commands come from the parser, keys from the model, a filesystem's options from its class, exit codes from their table,
the service from its unit file. `python -m ringmount.daemon.manpages FOLDER` writes man1/, man5/ and man8/ there.
"""

import argparse
import ast
import datetime
import importlib.resources
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ringmount.config.allowed import allowed, description
from ringmount.config.longform import default, written
from ringmount.config.model import BUILT_IN, MountConfig
from ringmount.daemon import cli
from ringmount.daemon.roff import bold, entry, italic, line, literal, page, prose, section, subsection
from ringmount.workers.load import find_class

UNIT = "ringmount@.service"

FILE = """\
One YAML file describes one mount. The mount is named after the file: data.yaml is the mount `data`. A name has
letters, digits and _ . @ -, at most 64, and starts with a letter, a digit or _. `ringmount check` reports every mistake
in a file, each with its line and column, and prints the settings that are in effect. The shortest file:

  mountpoint: /mnt/data
  filesystem: passthrough
  options:
    source: /srv/data
"""
NOTATION = {
    "size": "Bytes as a number, or text with `KiB`, `MiB`, `GiB` or `TiB`; `K`, `M`, `G` and `T` mean the same.",
    "seconds": "Seconds as a number, or text with `ms`, `s`, `min`, `h` or `d`. At most a year.",
    "a list of CPUs": "A list ([0, 1, 4]), or text with numbers and ranges (0-1,4).",
    "true or false": "These words; `yes`, `on` and other values that versions of YAML read differently are refused.",
}
SERVICE = """\
Serves the mount that /etc/ringmount/NAME.yaml describes, NAME being the unit's instance. The service is started when
the mount answers, and stopping it unmounts. Workers that die are replaced; so is the supervisor, by the service
manager, which holds the connection and the state of the mount meanwhile: applications wait for that moment, and their
files stay open.

  # ringmount check /etc/ringmount/data.yaml
  # systemctl enable --now ringmount@data
  # systemctl reload ringmount@data
  # ringmount status data
  # systemctl disable --now ringmount@data

Reloading applies what the file and the installed code say now; keys that last until the mount is made anew are refused
with a message that names them. It is what an upgrade of the package does to each mount that is in use.
"""
CODES = "What `ringmount` ends with, and systemctl status shows when a mount does not start:"


def pages(date: str) -> dict[str, str]:
    """File name -> page."""
    return {
        "ringmount.1": _ringmount(date),
        "ringmount.yaml.5": _ringmount_yaml(date),
        "ringmount@.service.8": _service(date),
    }


def _ringmount(date: str) -> str:
    parser = cli.parser()
    commands = list(_commands(parser, "ringmount"))
    return page(
        "ringmount",
        1,
        date,
        cli._version(),
        "serve FUSE mounts from Python on every CPU",
        section("synopsis", "\n.br\n".join(_synopsis(command, each) for command, _, each in commands)),
        section("description", prose(parser.description or "")),
        section("options", *_entries(parser)),
        section("commands", *(_command(*each) for each in commands)),
        _exit_status(),
        section("files", *_files()),
        _see_also("ringmount.yaml(5)", "ringmount@.service(8)", "fuse(4)", "fusermount3(1)", "mount(8)"),
    )


def _commands(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Each command with its summary and parser; those that have commands of their own stand for these."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for word, each in action.choices.items():
                inner = list(_commands(each, f"{name} {word}"))
                yield from inner or [(f"{name} {word}", summaries.get(word, ""), each)]


def _arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    left_out = (argparse._HelpAction, argparse._SubParsersAction)
    return [action for action in parser._actions if not isinstance(action, left_out)]


def _entries(parser: argparse.ArgumentParser) -> list[str]:
    return [entry(_term(action), _help(action)) for action in _arguments(parser)]


def _synopsis(command: str, parser: argparse.ArgumentParser) -> str:
    options = [f"[{_term(action)}]" for action in _arguments(parser) if action.option_strings]
    operands = [_term(action) for action in _arguments(parser) if not action.option_strings]
    return " ".join([bold(command), *options, *operands])


def _term(action: argparse.Action) -> str:
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    value = "|".join(map(bold, action.choices)) if action.choices else italic(metavar)
    if not action.option_strings:
        return {"?": f"[{value}]", "*": f"[{value}...]", "+": f"{value}..."}.get(str(action.nargs), value)
    takes = "" if action.nargs == 0 else f" {value}"
    return ", ".join(bold(option) for option in action.option_strings) + takes


def _command(command: str, summary: str, parser: argparse.ArgumentParser) -> str:
    text = (parser.description or "").partition("\n\n")[2]
    return subsection(
        command.removeprefix("ringmount "),
        f"{_synopsis(command, parser)}\n.PP\n{line(_sentence(summary))}",
        prose(text) if text.strip() else "",
        *_entries(parser),
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(("?", ".")) else ".")


def _help(action: argparse.Action) -> str:
    text = action.help or ""
    return text % vars(action) if "%" in text else text


def _exit_status() -> str:
    return section("exit status", *(entry(bold(str(int(code))), text) for code, text in cli.MEANINGS.items()))


def _files() -> list[str]:
    return [
        entry(italic("/etc/ringmount/NAME.yaml"), "A mount, as ringmount.yaml(5) says."),
        entry(
            italic("/run/ringmount/NAME.sock"), "The socket that a running mount answers `status` on; root's mounts."
        ),
        entry(italic("/usr/lib/modprobe.d/ringmount.conf"), "Turns FUSE-over-io_uring on when fuse is loaded."),
        entry(italic("/sys/module/fuse/parameters/enable_uring"), "The same switch of the running kernel: `Y` or `N`."),
    ]


def _see_also(*names: str) -> str:
    return section("see also", ",\n".join(f"{bold(n.partition('(')[0])}({n.partition('(')[2]}" for n in names))


def _ringmount_yaml(date: str) -> str:
    return page(
        "ringmount.yaml",
        5,
        date,
        cli._version(),
        "the file that describes a mount of ringmount",
        section("synopsis", italic("/etc/ringmount/NAME.yaml")),
        section("description", prose(FILE)),
        section("values", *(entry(italic(kind), text) for kind, text in NOTATION.items())),
        section("keys", *_keys(MountConfig, "")),
        *(_options(name) for name in BUILT_IN),
        section("files", *_files()),
        _see_also("ringmount(1)", "ringmount@.service(8)"),
    )


def _keys(kind: type[msgspec.Struct], prefix: str) -> Iterator[str]:
    for field in msgspec.structs.fields(kind):
        if field.name == "name":
            continue
        inner = type(field.default)
        text = description(field)
        if issubclass(inner, msgspec.Struct):
            yield entry(bold(prefix + field.name), text)
            yield from _keys(inner, f"{field.name}.")
            continue
        start = "must be given" if field.required else f"default `{written(field, default(field))}`"
        yield entry(bold(prefix + field.name), f"{text} Takes {allowed(field)}; {start}.")


def _options(filesystem: str) -> str:
    """What a built-in filesystem's `options` are."""
    kind = find_class(filesystem).Options
    assert issubclass(kind, msgspec.Struct)
    texts = option_texts(kind)
    entries = []
    for field in msgspec.structs.fields(kind):
        start = "It must be given." if field.required else f"Default: `{written(field, field.default)}`."
        entries.append(entry(bold(field.encode_name), f"{texts[field.name]} {start}"))
    return section(f"options of {filesystem}", *entries)


def option_texts(kind: type) -> dict[str, str]:
    """Option -> its description, which stands below it, or in the class's docstring: a paragraph that begins with the
    option's name in backquotes."""
    told = re.findall(r"^`(\w+)`: (.*?)(?:\n\n|\Z)", inspect.cleandoc(kind.__doc__ or ""), re.MULTILINE | re.DOTALL)
    texts = {name: text[:1].upper() + text[1:] for name, text in told}
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    for before, after in zip(definition.body, definition.body[1:], strict=False):
        match before, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = text
    return texts


def _service(date: str) -> str:
    units = importlib.resources.files("ringmount.systemd")
    shown = sorted(unit.name for unit in units.iterdir() if unit.name.startswith("ringmount") and "@" in unit.name)
    return page(
        UNIT,
        8,
        date,
        cli._version(),
        "a mount of ringmount as a service",
        section("synopsis", f"{bold('systemctl')} {italic('COMMAND')} {bold('ringmount@')}{italic('NAME')}"),
        section("description", prose(SERVICE)),
        section("exit status", line(CODES), *(entry(bold(str(int(c))), t) for c, t in cli.MEANINGS.items())),
        section("files", *_files()),
        section("units", *(subsection(name, literal((units / name).read_text())) for name in shown)),
        _see_also("ringmount(1)", "ringmount.yaml(5)", "systemd.service(5)", "systemctl(1)", "journalctl(1)"),
    )


def main(arguments: list[str]) -> None:
    """Writes the pages below a folder. Their date is that of SOURCE_DATE_EPOCH, or today's."""
    (folder,) = arguments
    at = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.datetime.now(datetime.UTC) if at is None else datetime.datetime.fromtimestamp(int(at), datetime.UTC)
    for name, text in pages(now.date().isoformat()).items():
        file = Path(folder) / f"man{name[-1]}" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
