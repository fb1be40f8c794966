"""Handles of policy `reopen`: each worker opens for itself what another worker opened.

The shared table says which node a handle is of and how it was opened; the object itself (an HTTP session, an archive
member) lives in each worker that met the handle. When the handle is released in one worker, the others are told.
"""

import contextlib
from collections.abc import Callable
from typing import Any

from ringmount.workers.api import Handle, NodeId
from ringmount.workers.handles import HandleTable


class ReopenHandles(HandleTable):
    """A handle table whose `local` makes what is missing.

    `reopen`: `Filesystem.reopen`, set once the filesystem is made; `announce` tells the other workers of a release.
    """

    def __init__(self, address: int, size: int, worker: int, announce: Callable[[Handle], None]) -> None:
        super().__init__(address, size, worker)
        self.reopen: Callable[[NodeId, Handle, int], Any] | None = None
        self._announce = announce

    def local(self, fh: Handle) -> Any:
        """This worker's object for the handle, opened again if it has none. OSError EBADF, or what `reopen` raises."""
        found = super().local(fh)
        if found is None and self.reopen is not None:
            info = self.get(fh)
            found = self.reopen(info.node, fh, info.flags)
            self.set_local(fh, found)
        return found

    def remove(self, fh: Handle) -> int:
        """Ends the handle everywhere. See `HandleTable.remove`."""
        fd = super().remove(fh)
        self.drop(fh)
        self._announce(fh)
        return fd

    def drop(self, fh: Handle) -> None:
        """Closes this worker's object of a handle that was released."""
        close = getattr(self.pop_local(fh), "close", None)
        if close is not None:
            with contextlib.suppress(Exception):
                close()
