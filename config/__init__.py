"""The settings of a mount: the model, its files, and the errors that say what is wrong in them where."""

from ringmount.config.errors import ConfigError
from ringmount.config.load import Document, load_mount, loads_mount, read_document
from ringmount.config.longform import effective
from ringmount.config.model import MountConfig, Timeouts

__all__ = [
    "ConfigError",
    "Document",
    "MountConfig",
    "Timeouts",
    "effective",
    "load_mount",
    "loads_mount",
    "read_document",
]
