"""Settings -> a mount's file with every key, as `ringmount check` shows them.

The rule: what is written here is read back as the same settings.
"""

import re
from typing import Any

import msgspec

from ringmount.config.allowed import notation
from ringmount.config.model import MountConfig
from ringmount.config.units import format_cpulist, format_size

COMMENT_COLUMN = 36


def effective(config: MountConfig) -> str:
    """The settings as YAML, every key in the order of the model; a comment marks what is at its default."""
    lines = [f"# The effective settings of the mount {config.name}.", *_lines(config, "")]
    return "\n".join(lines) + "\n"


def _lines(struct: msgspec.Struct, indent: str) -> list[str]:
    lines = []
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        if isinstance(value, msgspec.Struct):
            lines += [f"{indent}{field.name}:", *_lines(value, indent + "  ")]
        elif isinstance(value, dict) and value:
            lines += [f"{indent}{field.name}:"]
            lines += [f"{indent}  {scalar(key)}: {flow(item)}" for key, item in value.items()]
        elif field.name != "name":
            line = f"{indent}{field.name}: {written(field, value)}"
            is_default = value == default(field)
            lines.append(f"{line:{COMMENT_COLUMN}} # default" if is_default else line)
    return lines


def default(field: msgspec.structs.FieldInfo) -> Any:
    """The default of the field; NODEFAULT if it must be given."""
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def written(field: msgspec.structs.FieldInfo, value: Any) -> str:
    """`value` in the notation of its key."""
    match notation(field):
        case "size" if value is not None:
            return format_size(value)
        case "cpulist":
            return "auto" if value is None else scalar(format_cpulist(value))
    return flow(value)


def flow(value: Any) -> str:
    """`value` on one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return scalar(value)


def scalar(value: str | int | float | bool | None) -> str:
    """`value` so that every version of YAML reads it as the same; only plain words are left unquoted."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        # YAML 1.1 takes an exponent only after a decimal point.
        digits, e, exponent = repr(value).partition("e")
        return digits + ("" if "." in digits else ".0") + e + exponent
    if isinstance(value, int):
        return str(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else _escaped(c)) for c in value) + '"'


_PLAIN = re.compile("[A-Za-z_/][A-Za-z0-9_./:-]*[A-Za-z0-9_/]|[A-Za-z]")
_WORDS = frozenset(("null", "true", "false", "yes", "no", "on", "off", "y", "n"))
_ESCAPES = {'"': '\\"', "\\": "\\\\"}


def _escaped(c: str) -> str:
    return f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"
