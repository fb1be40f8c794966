"""What a key allows, in words: derived from the types of the model, for errors and for the documentation."""

from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import inspect

from ringmount.config.errors import quoted
from ringmount.config.model import NOT_YET
from ringmount.config.units import format_size


def description(field: msgspec.structs.FieldInfo) -> str:
    """The description that the model gives the key, and which of its values are not supported yet."""
    text = next((meta.description for meta in _metas(field) if meta.description), "")
    missing = NOT_YET.get(field.name)
    return f"{text} Not supported yet: {_either([*missing])}." if missing else text


def first_sentence(field: msgspec.structs.FieldInfo) -> str:
    """The start of the description, as a hint within a line."""
    text = description(field).split(". ")[0].split("; ")[0].rstrip(".")
    return text[:1].lower() + text[1:]


def notation(field: msgspec.structs.FieldInfo) -> str | None:
    """Which parser reads the key's text (size, cpulist, ...), or None where text is taken as it is."""
    return _extra(field).get("notation")


def allowed(field: msgspec.structs.FieldInfo) -> str:
    """What the key takes: "size from 4KiB to 1MiB in steps of 4KiB", "none, normal or coherent"."""
    return _words(inspect.type_info(field.type), {**_extra(field), "choices": _either(choices(field))})


def allowed_item(field: msgspec.structs.FieldInfo) -> str:
    """What an item of the key's list takes."""
    return _words(_item(inspect.type_info(field.type)), {})


def choices(field: msgspec.structs.FieldInfo) -> list[str]:
    """The words that the key takes, in the order of the model, without those not supported yet."""
    return [word for word in _literals(field.type) if word not in NOT_YET.get(field.name, ())]


def _literals(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return [*get_args(kind)]
    return [word for part in get_args(kind) for word in _literals(part)]


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
            return extra["choices"]
        case inspect.IntType():
            return _number(kind, extra.get("notation", "integer"))
        case inspect.FloatType():
            return _number(kind, extra.get("notation", "number"))
        case inspect.StrType():
            return extra.get("noun", "text")
        case inspect.VarTupleType():
            return "a list of CPUs ([0, 2] or 0-3,5)"
        case inspect.BoolType():
            return "true or false"
        case inspect.NoneType():
            return extra.get("null", "null")
        case _:
            return "keys and values"


def _either(parts: list[str]) -> str:
    return " or ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)


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
    return f"{type(value).__name__} {quoted(value)}"
