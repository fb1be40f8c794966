"""A mount's file -> MountConfig, with every mistake at its line, column and key path.

The rule: whatever bytes the file holds, the outcome is a MountConfig or a ConfigError. The file is the only
thing that is read: whether folders, users and CPUs exist is for the daemon to find out.
"""

import re
from pathlib import PurePath

from ringmount.config.check import check
from ringmount.config.errors import ConfigError, grouped, quoted
from ringmount.config.model import MountConfig

MAX_FILE = 1 << 20
NAME_PATTERN = "[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}"


class Document:
    """A mount's file that is valid YAML: its data, and the position of everything in it.

    `data` is what `ringmount.config.yamltext.parse` returns. Key paths read `timeouts.attr` and `cpus[2]`.
    An invalid `name` or text raises ConfigError.
    """

    def __init__(self, text: str, file: str, name: str) -> None:
        # Imported here because only the reader of a file needs PyYAML: workers get their settings as JSON.
        from ringmount.config.yamltext import parse

        self.file = file
        self.name = _checked_name(name, file)
        self.data, self.positions = parse(text, file)

    def locate(self, path: str) -> tuple[int, int]:
        """Line and column of the value at `path`, or of the nearest enclosing key if it has no value."""
        return self.positions.of_value(path)

    def error(self, path: str, message: str, hint: str = "") -> ConfigError:
        """A mistake in the value at `path`, to be raised by the caller."""
        line, column = self.positions.of_value(path)
        return ConfigError(message, file=self.file, line=line, column=column, path=path, hint=hint)

    def key_error(self, path: str, message: str, hint: str = "") -> ConfigError:
        """A mistake in the key at `path` rather than in its value, to be raised by the caller."""
        line, column = self.positions.of_key(path)
        return ConfigError(message, file=self.file, line=line, column=column, path=path, hint=hint)

    def error_from_validation(self, prefix: str, message: str) -> ConfigError:
        """The mistake that msgspec found when it converted the value at `prefix`.

        `message` is the text of a msgspec.ValidationError, for the prefix `options` perhaps "Expected `str`,
        got `int` - at `$.source`". A missing field and an unknown one become part of the key path.
        """
        text, _, place = message.partition(" - at ")
        found = re.search(r"\$([^`]*)`", place)
        # msgspec writes [...] for any key of a dict: the value cannot be told, its mapping can.
        path = prefix + (found[1].partition("[...]")[0] if found else "")
        named = re.fullmatch("Object (?:contains unknown|missing required) field `(.*)`", text, re.DOTALL)
        if not named:
            return self.error(path, text.replace("`", ""))
        path = f"{path}.{named[1]}".removeprefix(".")
        if "unknown" in text:
            return self.key_error(path, "Unknown key", "remove it or correct its name")
        return self.key_error(path, "This key is missing", "add it")

    def config(self) -> MountConfig:
        """The settings. Raises ConfigError, which carries all mistakes of the file in its `others`."""
        values, errors = check(self)
        if errors:
            raise grouped(errors)
        return MountConfig(name=self.name, **values)


def read_document(path: str) -> Document:
    """Read the file at `path`. Raises ConfigError if it cannot be read or is not YAML."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(f"Cannot read the file: {error.strerror}", file=path, hint=_unreadable(error)) from None
    except ValueError as error:
        raise ConfigError(f"Cannot read the file: {error}", file=path) from None
    if len(content) > MAX_FILE:
        raise ConfigError("The file is larger than 1 MiB", file=path, hint="is it a mount's file?")
    return Document(_decoded(content, path), path, PurePath(path).stem)


def load_mount(path: str) -> MountConfig:
    """The settings in the file at `path`; the mount is named after the file. Raises ConfigError."""
    return read_document(path).config()


def loads_mount(text: str, file: str, name: str) -> MountConfig:
    """The settings in `text`; `file` is what errors name, `name` is the mount's. Raises ConfigError."""
    return Document(text, file, name).config()


def _checked_name(name: str, file: str) -> str:
    if re.fullmatch(NAME_PATTERN, name):
        return name
    raise ConfigError(
        f"A mount is named after its file, and {quoted(name)} cannot be a name",
        file=file,
        hint="use letters, digits and _ . @ -, at most 64, starting with a letter, a digit or _",
    )


def _unreadable(error: OSError) -> str:
    match error:
        case FileNotFoundError():
            return "check the path"
        case PermissionError():
            return "check its permissions, or run as root"
        case IsADirectoryError():
            return "name a file, not a folder"
    return ""


def _decoded(content: bytes, path: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        raise ConfigError(
            "The file is not UTF-8",
            file=path,
            line=before.count("\n") + 1,
            column=len(before) - (before.rfind("\n") + 1) + 1,
            hint="save it as UTF-8",
        ) from None
