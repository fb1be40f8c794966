"""YAML text -> plain data and the position of every key and value. No file is opened here.

The rule: what a plain value means must be beyond doubt. YAML 1.1 (which PyYAML reads) and YAML 1.2
(which editors check) disagree about `yes`, `0755`, `1:30`, `1e3`, `2001-01-01` and more; a value that they
read differently is refused with the two ways to say it. So are tags, anchors, aliases and duplicate keys: a
mount's file needs none of them, and each has made a harmless looking file mean something else.

The text is read as a stream of parser events, not with `compose()`: depth and aliases are then limited
here, where the C composer would recurse as deep as the file says.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from ringmount.config.errors import MAX_MISTAKES, ConfigError, child, grouped, quoted

MAX_DEPTH = 20
MAX_KEY = 100

Position = tuple[int, int]
"""Line and column, both from 1."""


class Positions:
    """Where the keys and values of one document stand, by key path."""

    def __init__(self) -> None:
        self.keys: dict[str, Position] = {}
        self.values: dict[str, Position] = {}

    def of_value(self, path: str) -> Position:
        """Position of the value at `path`, or of the nearest enclosing key if there is no such value."""
        return self.values.get(path) or self.of_key(path)

    def of_key(self, path: str) -> Position:
        """Position of the last key of `path`, or of the nearest enclosing key if there is no such key."""
        while path:
            position = self.keys.get(path) or self.values.get(path)
            if position:
                return position
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.values.get("", (1, 1))


def parse(text: str, file: str) -> tuple[dict[str, Any], Positions]:
    """The one mapping that `text` holds, and where everything in it stands.

    The data is made of dict with str keys, list, str, int (64 bits), finite float, bool and None.
    Raises ConfigError; `file` is only named in it.
    """
    builder = _Builder(_events(text, file), file)
    try:
        data = builder.document()
    except ConfigError as error:
        raise grouped([*builder.problems, error]) from None
    if builder.problems:
        raise grouped(builder.problems)
    return data, builder.positions


def _events(text: str, file: str) -> Iterator[yaml.Event]:
    """The parser's events. Raises ConfigError where the text is not YAML."""
    text = text.removeprefix("\ufeff")
    bad = _UNPRINTABLE.search(text)
    if bad:
        before = text[: bad.start()]
        line = before.count("\n") + 1
        column = bad.start() - (before.rfind("\n") + 1) + 1
        raise ConfigError(
            f"The character U+{ord(bad[0]):04X} is not allowed in YAML",
            file=file,
            line=line,
            column=column,
            hint="remove it",
        )
    try:
        yield from yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(error, text, file) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # The parser in Python lets chr() fail on an escape such as "\UFFFFFFFF".
        raise ConfigError(f"Not YAML: {error}", file=file, line=1, column=1) from None


def _not_yaml(error: yaml.MarkedYAMLError, text: str, file: str) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    before = "".join(text.split("\n")[line - 1 : line])[:column]
    hint = "indent with spaces, not tabs" if "\t" in before else "quote text that holds : # or other signs"
    problem = ", ".join(part for part in (error.context, error.problem) if part)
    return ConfigError(f"Not YAML: {problem}", file=file, line=line, column=column, hint=hint)


class _Builder:
    """Builds the data from events, with a position for each part.

    Problems after which reading can go on are collected in `problems`; others are raised.
    """

    def __init__(self, events: Iterator[yaml.Event], file: str) -> None:
        self.events = events
        self.file = file
        self.positions = Positions()
        self.problems: list[ConfigError] = []

    def document(self) -> dict[str, Any]:
        next(self.events)  # the start of the stream
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            raise self.problem(event, "", "The file is empty", "give at least mountpoint and filesystem")
        event = next(self.events)
        if not isinstance(event, yaml.MappingStartEvent):
            raise self.problem(event, "", "Expected keys and values at the top level", "write key: value lines")
        data: dict[str, Any] = self.value(event, "", 1)
        next(self.events)  # the end of the document
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise self.problem(event, "", "A second document starts here", "one file describes one mount")
        return data

    def problem(self, event: yaml.Event, path: str, message: str, hint: str) -> ConfigError:
        line, column = _position(event)
        return ConfigError(message, file=self.file, line=line, column=column, path=path, hint=hint)

    def report(self, event: yaml.Event, path: str, message: str, hint: str) -> None:
        problem = self.problem(event, path, message, hint)
        if len(self.problems) == MAX_MISTAKES - 1:
            raise problem
        self.problems.append(problem)

    def value(self, event: yaml.Event, path: str, depth: int) -> Any:
        """The value at `path`, which starts with `event`."""
        self.positions.values[path] = _position(event)
        return self.node(event, path, depth)

    def node(self, event: yaml.Event, path: str, depth: int) -> Any:
        """The key or value that starts with `event`; problems in it are at `path`."""
        if depth > MAX_DEPTH:
            raise self.problem(event, path, f"More than {MAX_DEPTH} levels deep", "flatten it")
        if isinstance(event, yaml.AliasEvent):
            return self.report(event, path, "Aliases are not accepted", "write the value out, or quote a leading *")
        if isinstance(event, yaml.NodeEvent) and event.anchor:
            self.report(event, path, "Anchors are not accepted", "remove it, or quote a leading &")
        if getattr(event, "tag", None):
            self.report(event, path, "Tags are not accepted", "remove it, or quote a leading !")
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(path, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path, depth)
        return self.scalar(event, path)

    def mapping(self, path: str, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.key(event, path, depth)
            here = child(path, key)
            if key in data:
                self.report(event, here, "This key is given twice", "keep one of them")
            self.positions.keys[here] = _position(event)
            data[key] = self.value(next(self.events), here, depth + 1)
        return data

    def key(self, event: yaml.Event, path: str, depth: int) -> str:
        """The key that starts with `event`; after a problem, text that takes its place."""
        before = len(self.problems)
        key = self.node(event, path, depth + 1)
        if len(self.problems) == before:
            if not isinstance(key, str):
                self.report(event, path, "A key must be text", "quote it to make it text")
            elif len(key) > MAX_KEY:
                self.report(event, path, f"A key of more than {MAX_KEY} characters", "shorten it")
            else:
                return key
        return f"?{len(self.problems)}"

    def sequence(self, path: str, depth: int) -> list[Any]:
        data: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            data.append(self.value(event, child(path, len(data)), depth + 1))
        return data

    def scalar(self, event: yaml.Event, path: str) -> Any:
        assert isinstance(event, yaml.ScalarEvent)
        try:
            return plain_value(event.value) if event.implicit[0] else checked_text(event.value)
        except Ambiguous as error:
            return self.report(event, path, str(error), error.hint)


class Ambiguous(ValueError):
    """A scalar that cannot be accepted, and in `hint` what to write instead."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def checked_text(text: str) -> str:
    """`text`, unless it holds what no system call and no terminal takes: NUL and lone surrogates."""
    if re.search("[\0\ud800-\udfff]", text):
        raise Ambiguous(f"{quoted(text)} holds a NUL or half a character", "remove the escape")
    return text


def plain_value(text: str) -> Any:
    """The value of an unquoted scalar. Raises Ambiguous if YAML 1.1 and 1.2 read it differently."""
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    old = tag.rpartition(":")[2]
    new = next((kind for kind, pattern in _CORE if pattern.fullmatch(text)), "str")
    if old != new or (new == "int" and not _DECIMAL.fullmatch(text)):
        raise Ambiguous(f"{quoted(text)} does not mean the same in every version of YAML", _INSTEAD.get(old, _QUOTE))
    if new == "str":
        return checked_text(text)
    if new == "int":
        if len(text) > 20 or not -(1 << 63) <= int(text) < 1 << 64:
            raise Ambiguous(f"{quoted(text)} does not fit in 64 bits", _QUOTE)
        return int(text)
    if new == "float":
        number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if not math.isfinite(number):
            raise Ambiguous(f"{quoted(text)} is not a finite number", _QUOTE)
        return number
    return text.lower() == "true" if new == "bool" else None


_QUOTE = "quote it to make it text"
_INSTEAD = {
    "bool": "write true or false, or quote it to make it text",
    "int": "write the number in decimal, or quote it to make it text",
    "float": "write the number in decimal, or quote it to make it text",
    "timestamp": "quote the date to make it text",
    "merge": "write the keys out, or quote it to make it text",
}

# What YAML 1.2 may hold: YAML 1.2.2, 5.1 "Character Set".
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# How YAML 1.2 reads a plain scalar: YAML 1.2.2, 10.3.2 "Tag Resolution" of the core schema.
_CORE = (
    ("null", re.compile("null|Null|NULL|~|")),
    ("bool", re.compile("true|True|TRUE|false|False|FALSE")),
    ("int", re.compile("[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")),
    (
        "float",
        re.compile(r"[-+]?([.][0-9]+|[0-9]+([.][0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?[.](inf|Inf|INF)|[.](nan|NaN|NAN)"),
    ),
)
_DECIMAL = re.compile("[-+]?(0|[1-9][0-9]*)")
_RESOLVER = yaml.resolver.Resolver()


def _position(event: yaml.Event) -> Position:
    assert event.start_mark
    return event.start_mark.line + 1, event.start_mark.column + 1
