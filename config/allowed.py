"""What a key allows, in words: derived from the types of the model, for errors and for the documentation."""

from typing import Any, get_args

import msgspec
from msgspec import inspect

from ringmount.config.units import format_size


def description(field: msgspec.structs.FieldInfo) -> str:
    """The description that the model gives the key; empty if it gives none."""
    return next((meta.description for meta in _metas(field) if meta.description), "")


def first_sentence(field: msgspec.structs.FieldInfo) -> str:
    """The start of the description, as a hint within a line."""
    text = description(field).split(". ")[0].split("; ")[0].rstrip(".")
    return text[:1].lower() + text[1:]


def notation(field: msgspec.structs.FieldInfo) -> str | None:
    """Which parser reads the key's text (size, cpulist, ...), or None where text is taken as it is."""
    return _extra(field).get("notation")


def allowed(field: msgspec.structs.FieldInfo) -> str:
    """What the key takes: "size from 4KiB to 1MiB in steps of 4KiB", "none, normal or coherent"."""
    return _words(inspect.type_info(field.type), _extra(field))


def allowed_item(field: msgspec.structs.FieldInfo) -> str:
    """What an item of the key's list takes."""
    return _words(_item(inspect.type_info(field.type)), {})


def _item(kind: inspect.Type) -> inspect.Type:
    match kind:
        case inspect.Metadata():
            return _item(kind.type)
        case inspect.UnionType():
            return next(item for item in map(_item, kind.types) if not isinstance(item, inspect.AnyType))
        case inspect.VarTupleType():
            return kind.item_type
        case _:
            return inspect.AnyType()


def _extra(field: msgspec.structs.FieldInfo) -> dict[str, str]:
    return next((meta.extra for meta in _metas(field) if meta.extra), {})


def _metas(field: msgspec.structs.FieldInfo) -> list[msgspec.Meta]:
    return [meta for meta in get_args(field.type)[1:] if isinstance(meta, msgspec.Meta)]


def _words(kind: inspect.Type, extra: dict[str, str]) -> str:
    match kind:
        case inspect.Metadata():
            return _words(kind.type, extra)
        case inspect.UnionType():
            # null comes last: it is the way to leave a key at its default.
            parts = sorted(kind.types, key=lambda part: isinstance(part, inspect.NoneType))
            return _either([_words(part, extra) for part in parts])
        case inspect.LiteralType():
            return _either([str(value) for value in kind.values])
        case inspect.IntType():
            return _number(kind, extra.get("notation", "integer"))
        case inspect.FloatType():
            return _number(kind, extra.get("notation", "number"))
        case inspect.StrType():
            return extra.get("noun", "text")
        case inspect.VarTupleType():
            return "auto, a list of CPUs such as [0, 2] or 0-3,5"
        case inspect.BoolType():
            return "true or false"
        case inspect.NoneType():
            return "null"
        case _:
            return "keys and values"


def _either(parts: list[str]) -> str:
    *rest, last = parts
    return f"{', '.join(rest)} or {last}" if rest else last


def _number(kind: inspect.IntType | inspect.FloatType, noun: str) -> str:
    def show(limit: float) -> str:
        return format_size(int(limit)) if noun == "size" else f"{limit:.0f}"

    words = noun
    if kind.ge is not None:
        words += f" from {show(kind.ge)}"
    if kind.le is not None:
        words += f" to {show(kind.le)}"
    if kind.multiple_of is not None:
        words += f" in steps of {show(kind.multiple_of)}"
    return words


def shown(value: Any) -> str:
    """A value of the file as an error shows it: its type and, where that is short, the value."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
