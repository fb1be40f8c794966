"""The JSON Schema of a mount's file, for editors (yaml-language-server and others).

`python -m ringmount.config.schema` prints it; config/ringmount.schema.json is its output, and a test compares
the two.
"""

import json
import sys
from typing import Any

import msgspec

from ringmount.config.allowed import choices, description, notation
from ringmount.config.model import MountConfig, Timeouts
from ringmount.config.units import CPULIST_PATTERN, SECONDS_PATTERN, SIZE_PATTERN

TEXT_FORMS: dict[str, tuple[str, list[str]]] = {
    "size": (SIZE_PATTERN, ["128KiB", "1MiB"]),
    "cpulist": (f"^auto$|{CPULIST_PATTERN}", ["auto", "0-3,5"]),
    "seconds": (SECONDS_PATTERN, ["500ms", "1s", "5min"]),
}
"""Notation -> the pattern of its text, and examples."""


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a mount's file; each key has its description, default and limits."""
    _, definitions = msgspec.json.schema_components([MountConfig], ref_template="#/$defs/{name}")
    root, timeouts = definitions["MountConfig"], definitions["Timeouts"]
    del root["properties"]["name"]
    root["required"].remove("name")
    root["properties"]["timeouts"] |= {"default": msgspec.to_builtins(Timeouts())}
    root["properties"]["options"] |= {"default": {}}
    _fill(MountConfig, root["properties"])
    _fill(Timeouts, timeouts["properties"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **root,
        "title": "A mount of ringmount",
        "description": "One file describes one mount, which is named after the file.",
        "$defs": {"Timeouts": timeouts},
    }


def _fill(kind: type[msgspec.Struct], properties: dict[str, Any]) -> None:
    """Add to the properties of `kind` what msgspec does not know: descriptions in full, order, notations."""
    for field in msgspec.structs.fields(kind):
        if field.name not in properties:
            continue
        value = properties.pop(field.name)
        common = {"description": description(field)}
        value.pop("description")
        if "default" in value:
            common["default"] = value.pop("default")
        if "enum" in value:
            value["enum"] = choices(field)
        form = TEXT_FORMS.get(notation(field) or "")
        if form:
            text = {"type": "string", "pattern": form[0], "examples": form[1]}
            value = {"anyOf": [*value.get("anyOf", [value]), text]}
        properties[field.name] = common | value


def main() -> None:
    json.dump(json_schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
