"""ringmount.config.schema, and what else is derived from the model: the documentation and the examples."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ringmount.config import ConfigError, MountConfig, Timeouts, load_mount, loads_mount
from ringmount.config.allowed import description
from ringmount.config.check import PARSERS
from ringmount.config.model import NOT_YET
from ringmount.config.reference import reference
from ringmount.config.schema import TEXT_FORMS, json_schema

ROOT = Path(__file__).parents[2]
MOUNTS = sorted((ROOT / "config" / "mounts").glob("*.yaml"))
FIELDS = [*msgspec.structs.fields(MountConfig), *msgspec.structs.fields(Timeouts)]


def test_the_schema_file_is_current() -> None:
    """If it is not: python -m ringmount.config.schema > config/ringmount.schema.json"""
    assert json.loads((ROOT / "config" / "ringmount.schema.json").read_text()) == json_schema()


def test_the_documentation_lists_the_keys_as_they_are() -> None:
    """If it does not: put the output of python -m ringmount.config.reference at the end of the document."""
    assert (ROOT / "docs" / "configuration.md").read_text().endswith("-->\n\n" + reference())


def test_every_key_has_a_description_and_no_other_key_is_allowed() -> None:
    schema = json_schema()
    keys = [name for name in MountConfig.__struct_fields__ if name != "name"]
    assert list(schema["properties"]) == keys
    assert schema["required"] == ["mountpoint", "filesystem"]
    for part, names in ((schema, keys), (schema["$defs"]["Timeouts"], list(Timeouts.__struct_fields__))):
        assert part["additionalProperties"] is False
        assert list(part["properties"]) == names
        assert all(value["description"] for value in part["properties"].values())
        assert [name for name, value in part["properties"].items() if "default" not in value] == part["required"]


def test_defaults_of_the_schema_are_those_of_the_model() -> None:
    defaults = {name: value["default"] for name, value in json_schema()["properties"].items() if "default" in value}
    config = MountConfig(name="x", mountpoint="/mnt/data", filesystem="memory")
    assert defaults.items() <= msgspec.to_builtins(config).items()


def patterns(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [p for key, item in value.items() for p in ([item] if key == "pattern" else patterns(item))]
    return [p for item in value for p in patterns(item)] if isinstance(value, list) else []


def test_patterns_use_nothing_that_only_python_knows() -> None:
    found = patterns(json_schema())
    assert len(found) > 5
    assert not [p for p in found if re.search(r"\\[AZdws]|\(\?P|\(\?[aiLmsux]", p)]


def test_examples_of_each_notation_are_accepted_by_pattern_and_parser() -> None:
    for notation, (pattern, examples) in TEXT_FORMS.items():
        for example in examples:
            assert re.search(pattern, example)
            PARSERS[notation](example)


def test_descriptions_are_sentences() -> None:
    for field in FIELDS:
        if field.name != "name":
            assert re.fullmatch(r"[^\n]+\.", description(field)), field.name


def test_what_is_not_supported_yet_is_said_and_not_offered() -> None:
    schema = json_schema()
    for key, values in NOT_YET.items():
        for value in values:
            assert value not in schema["properties"][key]["enum"]
            assert f"Not supported yet: {value}." in schema["properties"][key]["description"]
            with pytest.raises(ConfigError, match="not supported by this version"):
                loads_mount(f"mountpoint: /mnt/data\nfilesystem: memory\n{key}: {value}\n", "f", "data")


@pytest.mark.parametrize("path", MOUNTS, ids=lambda path: path.name)
def test_an_example_is_valid_and_names_the_schema(path: Path) -> None:
    assert load_mount(str(path)).name == path.stem
    first = path.read_text().partition("\n")[0]
    schema = re.fullmatch(r"# yaml-language-server: \$schema=(.*)", first)
    assert schema
    assert (path.parent / schema[1]).exists()


def test_there_are_three_examples() -> None:
    assert {"demo.yaml", "passthrough.yaml", "memory.yaml"} <= {path.name for path in MOUNTS}


def test_the_long_example_gives_every_key_in_order_with_its_default_and_a_comment() -> None:
    path = ROOT / "config" / "mounts" / "passthrough.yaml"
    assert load_mount(str(path)) == MountConfig(
        name="passthrough",
        mountpoint="/mnt/data",
        filesystem="passthrough",
        options={"source": "/srv/data"},
    )
    text = path.read_text()
    assert re.findall("(?m)^([a-z_]+):", text) == [name for name in MountConfig.__struct_fields__ if name != "name"]
    assert re.findall("(?m)^  ([a-z_]+):", text) == ["source", *Timeouts.__struct_fields__]
    commented = re.findall("(?m)^ *#.*\n *([a-z_]+):", text)
    assert {*MountConfig.__struct_fields__, *Timeouts.__struct_fields__} - {*commented} == {"name"}
