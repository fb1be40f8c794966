"""From a mount's file to its filesystem class, and what the supervisor must know of that class.

Runs in workers and in the throw-away process that checks a mount before it is made: never in the supervisor.
"""

import importlib
import inspect
import os
import sys
from typing import Any

import msgspec

from ringmount.config.model import MountConfig
from ringmount.workers import api, dispatch, messages

BUILT_IN = {
    "passthrough": "ringmount.workers.filesystems.passthrough:Passthrough",
    "memory": "ringmount.workers.filesystems.memory:Memory",
}


class FilesystemError(Exception):
    """The filesystem cannot be had, or cannot work with its options. `path`: the key it is about."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.message = message


def find_class(name: str, search: str | None = None) -> type[api.Filesystem]:
    """The class that `filesystem:` names, a built-in name or `package.module:Class`.

    `search`: a folder to look for the module in, besides sys.path. Raises FilesystemError.
    """
    module_name, _, class_name = BUILT_IN.get(name, name).partition(":")
    if search is not None and search not in sys.path:
        sys.path.append(search)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise FilesystemError("filesystem", f"importing {module_name} failed: {_one_line(error)}") from error
    found = getattr(module, class_name, None)
    if found is None:
        raise FilesystemError("filesystem", f"{module_name} has no class {class_name}")
    if not (inspect.isclass(found) and issubclass(found, api.Filesystem)):
        raise FilesystemError("filesystem", f"{name} is no subclass of ringmount.workers.api.Filesystem")
    for method in ("lookup", "getattr"):
        if not api.is_implemented(found, method):
            raise FilesystemError(
                "filesystem", f"{name} lacks the method {method}(), without which nothing can be found"
            )
    return found


def read_options(cls: type[api.Filesystem], options: dict[str, Any]) -> Any:
    """`options:` as the class's own type. Raises FilesystemError with the key it is about."""
    try:
        return msgspec.convert(options, cls.Options)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `$")
        path = "options" + (where.rstrip("`") if where else "")
        known = ", ".join(field.encode_name for field in msgspec.structs.fields(cls.Options))
        raise FilesystemError(path, f"{text}; options of this filesystem: {known or 'none'}") from error


def load(config: MountConfig, search: str | None = None) -> tuple[type[api.Filesystem], Any]:
    """The class and its options for a mount. Raises FilesystemError."""
    cls = find_class(config.filesystem, search)
    options = read_options(cls, config.options)
    return cls.variant(options), options


def check(config: MountConfig, search: str | None = None, *, is_mounted: bool = False) -> messages.Description:
    """Loads the class, asks it whether its options can work, and describes it. Raises FilesystemError.

    `is_mounted`: the mount is there already and perhaps nobody serves it, so that nothing may look at its mountpoint.
    """
    cls, options = load(config, search)
    try:
        if not is_mounted:
            cls.check(options, config.mountpoint)
    except (OSError, ValueError) as error:
        path = f"options.{error.option}" if isinstance(error, api.OptionError) else "options"
        raise FilesystemError(path, _one_line(error)) from error
    if cls.needs_root and config.user is not None and os.geteuid() == 0:
        raise FilesystemError(
            "user", f"{config.filesystem} acts with each caller's rights and cannot run as {config.user}"
        )
    description = describe(cls)
    if config.cache == "coherent":
        description.watched = cls.watched(options)
        if description.watched is None and not cls.reports_changes:
            raise FilesystemError(
                "cache",
                f"coherent needs to hear of changes, and {config.filesystem} neither reports any nor can be watched",
            )
    return description


def describe(cls: type[api.Filesystem]) -> messages.Description:
    """What INIT and the supervisor need to know."""
    names = sorted({route.method for route in dispatch.ROUTES.values()} | {"flock"})
    methods = [name for name in names if api.is_implemented(cls, name)]
    return messages.Description(
        methods=methods,
        handle_policy=cls.handle_policy.value,
        threads=cls.threads,
        is_async=any(inspect.iscoroutinefunction(getattr(cls, name)) for name in [*methods, "start", "stop"]),
        interrupt_sync=cls.interrupt_sync,
        needs_root=cls.needs_root,
        posix_acl=cls.posix_acl,
        handle_killpriv=cls.handle_killpriv,
        export=cls.export,
        owns_descriptors=cls.owns_descriptors,
        backing_files=cls.backing_files,
        secret_options=secret_options(cls.Options),
    )


def secret_options(options: type[msgspec.Struct]) -> list[str]:
    """The options that are `api.Secret`, or have in them what is."""
    found = msgspec.inspect.type_info(options)
    assert isinstance(found, msgspec.inspect.StructType)
    return [field.encode_name for field in found.fields if _is_secret(field.type, set())]


def _is_secret(kind: Any, seen: set[int]) -> bool:
    if id(kind) in seen:  # a struct may have itself in it
        return False
    seen.add(id(kind))
    if isinstance(kind, msgspec.inspect.Metadata) and (kind.extra or {}).items() >= (api.Secret.extra or {}).items():
        return True
    if isinstance(kind, tuple):
        return any(_is_secret(each, seen) for each in kind)
    inner = (getattr(kind, name) for name in getattr(kind, "__struct_fields__", ()))
    return any(_is_secret(each, seen) for each in inner if isinstance(each, tuple | msgspec.Struct))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": {error.filename}" if error.filename else "")
    elif not isinstance(error, ValueError | OSError):
        text = f"{type(error).__name__}: {text}"
    return text
