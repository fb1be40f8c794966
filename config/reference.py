"""The part of docs/configuration.md that lists the keys, derived from the model.

`python -m ringmount.config.reference` prints it; a test compares it with the document.
"""

import sys
from collections.abc import Iterator

import msgspec

from ringmount.config.allowed import allowed, description
from ringmount.config.longform import default, written
from ringmount.config.model import MountConfig


def reference() -> str:
    """One section for each key, in the order of the model, as Markdown."""
    return "\n".join(_sections(MountConfig, ""))


def _sections(kind: type[msgspec.Struct], prefix: str) -> Iterator[str]:
    for field in msgspec.structs.fields(kind):
        if field.name == "name":
            continue
        yield f"### `{prefix}{field.name}`\n"
        yield f"{description(field)}\n"
        inner = type(field.default)
        if issubclass(inner, msgspec.Struct):
            yield from _sections(inner, f"{field.name}.")
        else:
            start = "must be given" if field.required else f"default `{written(field, default(field))}`"
            yield f"Takes {allowed(field)}; {start}.\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
