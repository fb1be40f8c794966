"""How long the kernel may keep an answer with `cache: coherent`: until it is told, of all that the watcher sees.

The rule: first the folder is watched and the node is in the table, then the object is looked at. A change that comes
later is then heard of, and its node is found. What the watcher does not see gets the mount's own timeouts:

- objects on another filesystem than the source's (a mount or a subvolume beneath it);
- where folders are watched one by one: folders that this process may not read; open files, which may have gone to a
  folder that nobody looked up; and files with several links, which may be changed by names in such folders.
"""

import os
import stat

from ringmount.workers.api import AttrLike, Entry, Mount, NodeId, Timeouts
from ringmount.workers.filesystems.passthrough.inodenumbers import shown_attr


class Freshness:
    """The timeouts of one worker's answers. `device`: the source's; `brief`: of what is not watched."""

    def __init__(self, mount: Mount, device: int, brief: Timeouts) -> None:
        self._mount = mount
        self._device = device
        self._brief = brief
        self._by_folder = mount.watches_folders

    def is_watched(self, folder: int) -> bool:
        """Whether changes of a folder's names are heard of from now on. To be asked before a name is looked up."""
        return os.fstat(folder).st_dev == self._device and self._mount.watch(folder)

    def entry(self, node: NodeId, fd: int, is_watched: bool) -> Entry:
        """The answer about the object at `fd`, whose node has just been taken."""
        found, lasts = self._look(fd)
        if lasts and is_watched:
            return Entry(node, found)
        return Entry(node, shown_attr(found, self._device), 0, self._brief.entry, self._brief.attr)

    def missing(self, is_watched: bool) -> Entry | None:
        """The answer about a name that does not exist; None if it is not to be remembered."""
        if is_watched:
            return Entry(0, None)
        return Entry(0, None, 0, self._brief.negative) if self._brief.negative else None

    def attributes(self, fd: int, is_open: bool) -> AttrLike:
        """The attributes of a node's object at `fd`. `is_open`: this is an open file's descriptor."""
        found, lasts = self._look(fd)
        if lasts and not (is_open and self._by_folder and not stat.S_ISDIR(found.st_mode)):
            return found
        return shown_attr(found, self._device, self._brief.attr)

    def _look(self, fd: int) -> tuple[os.stat_result, bool]:
        found = os.fstat(fd)
        if found.st_dev != self._device:
            return found, False
        if not self._by_folder:
            return found, True
        if stat.S_ISDIR(found.st_mode):
            lasts = self._mount.watch(fd)
            return os.fstat(fd), lasts
        return found, found.st_nlink == 1
