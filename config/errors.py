"""What is wrong with a mount's file, where, and what is allowed there.

The rule: `str()` of an error is exactly one line, whatever the file or its name contains.
"""

import re
from collections.abc import Sequence

MAX_MISTAKES = 20
"""So many mistakes are reported at once; a file with more is hardly a mount's file."""


class ConfigError(Exception):
    """One mistake in a mount's file, with its position.

    `line` and `column` count from 1; they are None when the mistake has no position (a file that cannot
    be read). `path` is the key path, such as `timeouts.attr` or `cpus[2]`; it is empty for mistakes that
    concern no key. `hint` says what is allowed or what to do. `others` holds the further mistakes
    found in the same file, in the order of the file; it is empty on those themselves.
    """

    message: str
    file: str | None
    line: int | None
    column: int | None
    path: str
    hint: str
    others: tuple["ConfigError", ...]

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
        path: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.column = column
        self.path = path
        self.hint = hint
        self.others = ()

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        text = ": ".join(part for part in (place, self.path, self.message) if part)
        return one_line(f"{text}; {self.hint}" if self.hint else text)

    def all(self) -> tuple["ConfigError", ...]:
        """This mistake and the others of the same file."""
        return (self, *self.others)


def grouped(errors: Sequence[ConfigError]) -> ConfigError:
    """The first of `errors` in the order of the file, carrying the others. `errors` is not empty."""
    first, *others = sorted(errors, key=lambda error: (error.line or 0, error.column or 0))
    first.others = tuple(others)
    return first


def child(path: str, key: str | int) -> str:
    """The key path of `key` below `path`: `options.source`, `cpus[2]`, `options["a key"]`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not re.fullmatch("[A-Za-z0-9_-]+", key):
        return f'{path}["{key}"]'
    return f"{path}.{key}" if path else key


def quoted(value: object) -> str:
    """`value` as Python writes it, shortened to what an error has room for."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}...{text[-1]}"


def one_line(text: str) -> str:
    """`text` with everything that is not printable (newlines, lone surrogates) written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
