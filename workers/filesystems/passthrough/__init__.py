"""Passthrough: a folder shown as it is."""

from ringmount.workers.filesystems.passthrough.filesystem import Passthrough, PassthroughLocks
from ringmount.workers.filesystems.passthrough.options import Options

__all__ = ["Options", "Passthrough", "PassthroughLocks"]
