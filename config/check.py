"""Data of a mount's file -> checked values, key by key, so that one run reports every mistake at its place.

The rule: what a key takes stands in the model; here stands only how a declaration is applied.
"""

import difflib
from typing import TYPE_CHECKING, Any

import msgspec

from ringmount.config import units
from ringmount.config.allowed import allowed, allowed_item, first_sentence, notation, shown
from ringmount.config.errors import MAX_MISTAKES, ConfigError, child
from ringmount.config.model import MountConfig
from ringmount.config.rules import RULES, parse_filesystem, parse_metrics, parse_mountpoint

if TYPE_CHECKING:
    from ringmount.config.load import Document

PARSERS = {
    "size": units.parse_size,
    "seconds": units.parse_seconds,
    "cpulist": lambda text: None if text == "auto" else units.parse_cpulist(text),
    "mountpoint": parse_mountpoint,
    "filesystem": parse_filesystem,
    "metrics": parse_metrics,
}


def check(document: "Document") -> tuple[dict[str, Any], list[ConfigError]]:
    """The valid values as MountConfig takes them, and every mistake."""
    mistakes: list[ConfigError] = []
    values = _struct(MountConfig, document.data, "", document, mistakes)
    for rule in RULES:
        mistakes.extend(document.error(*mistake) for mistake in rule(values))
    return values, mistakes


def _struct(
    kind: type[msgspec.Struct],
    data: dict[str, Any],
    path: str,
    document: "Document",
    mistakes: list[ConfigError],
) -> dict[str, Any]:
    """The valid values among `data`, whose keys should be fields of `kind`."""
    fields = {field.name: field for field in msgspec.structs.fields(kind) if field.name != "name"}
    for key in data:
        if key not in fields and len(mistakes) < MAX_MISTAKES:
            message = f"Unknown key {key!r}"
            mistakes.append(document.key_error(child(path, key), message, _known(key, list(fields), path)))
    values = {}
    for name, field in fields.items():
        here = child(path, name)
        inner = _struct_type(field)
        if name not in data:
            if field.required:
                hint = f"add it: {first_sentence(field)}"
                mistakes.append(document.key_error(here, "This key is missing", hint))
        elif inner and isinstance(data[name], dict):
            values[name] = inner(**_struct(inner, data[name], here, document, mistakes))
        else:
            try:
                values[name] = _converted(field, data[name])
            except Refused as refused:
                mistakes.append(document.error(here + refused.element, refused.message, refused.hint))
    return values


class Refused(Exception):
    """A value that a key does not take; `element` is the place within a list, such as "[2]"."""

    def __init__(self, message: str, hint: str, element: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.element = element


def _converted(field: msgspec.structs.FieldInfo, value: Any) -> Any:
    """`value` as the field's type. Raises Refused."""
    parser = PARSERS.get(notation(field) or "")
    try:
        return msgspec.convert(parser(value) if parser and isinstance(value, str) else value, field.type)
    except msgspec.ValidationError as error:
        place = str(error).partition(" - at `$[")[2].partition("]")[0]
        if isinstance(value, list) and place.isdigit():
            raise _mismatch(field, value[int(place)], f"[{place}]") from None
        raise _mismatch(field, value) from None
    except ValueError as error:
        message, _, hint = str(error).rpartition(": ")
        raise Refused(message, hint) from None


def _mismatch(field: msgspec.structs.FieldInfo, value: Any, element: str = "") -> Refused:
    hint = first_sentence(field)
    if value is None:
        hint = "give a value, or remove the key to leave it at its default"
    elif type(value) in (int, float) and _takes(field, str(value)):
        hint = f'quote it to make it text: "{value}"'
    expected = allowed_item(field) if element else allowed(field)
    return Refused(f"Expected {expected}, got {shown(value)}", hint, element)


def _takes(field: msgspec.structs.FieldInfo, text: str) -> bool:
    try:
        msgspec.convert(text, field.type)
    except msgspec.ValidationError:
        return False
    return True


def _struct_type(field: msgspec.structs.FieldInfo) -> type[msgspec.Struct] | None:
    kind = getattr(field.type, "__origin__", field.type)
    return kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None


def _known(key: str, names: list[str], path: str) -> str:
    """The hint for an unknown key."""
    if (path, key) == ("", "name"):
        return "a mount is named after its file"
    near = difflib.get_close_matches(key.lower().replace("-", "_"), names, n=1)
    start = f"did you mean {near[0]}? " if near else ""
    return f"{start}allowed: {', '.join(names)}"
