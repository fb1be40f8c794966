"""Names: looked up, made, removed, renamed, linked."""

import errno
import os
import stat

from ringmount.workers import system
from ringmount.workers.api import Context, Entry, NodeId, Opened, repeatable
from ringmount.workers.filesystems.passthrough import again
from ringmount.workers.filesystems.passthrough.files import Files
from ringmount.workers.filesystems.passthrough.objects import NOTHING, proc_path

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4


class Names(Files):
    """The operations on names."""

    def lookup(self, ctx: Context, parent: NodeId, name: bytes) -> Entry:
        folder = self.objects.folder(parent)
        try:
            return self.objects.entry(parent, folder, name)
        except FileNotFoundError:
            missing = self.objects.missing(folder)
            if missing is None:
                raise
            return missing

    def readlink(self, ctx: Context, node: NodeId) -> bytes:
        with self.objects.borrow(node) as fd:
            return os.readlink(b"", dir_fd=fd)

    # --- making ---------------------------------------------------------------------------------------------------

    @repeatable
    def symlink(self, ctx: Context, parent: NodeId, name: bytes, target: bytes) -> Entry:
        folder = self.objects.folder(parent)
        if not again.was_made(ctx, folder, name, stat.S_IFLNK):
            again.will_make(ctx)
            with self.credentials.owner(ctx):
                os.symlink(target, name, dir_fd=folder)
            ctx.done()
        return self.objects.entry(parent, folder, name)

    @repeatable
    def mknod(self, ctx: Context, parent: NodeId, name: bytes, mode: int, rdev: int) -> Entry:
        folder = self.objects.folder(parent)
        if not again.was_made(ctx, folder, name, stat.S_IFMT(mode) or stat.S_IFREG):
            again.will_make(ctx)
            with self.credentials.owner(ctx):
                os.mknod(name, mode, rdev, dir_fd=folder)
            ctx.done()
        return self.objects.entry(parent, folder, name)

    @repeatable
    def mkdir(self, ctx: Context, parent: NodeId, name: bytes, mode: int) -> Entry:
        folder = self.objects.folder(parent)
        if not again.was_made(ctx, folder, name, stat.S_IFDIR):
            again.will_make(ctx)
            with self.credentials.owner(ctx):
                os.mkdir(name, mode, dir_fd=folder)
            ctx.done()
        return self.objects.entry(parent, folder, name)

    @repeatable
    def create(self, ctx: Context, parent: NodeId, name: bytes, mode: int, flags: int) -> tuple[Entry, Opened]:
        """The kernel sends CREATE for a name that it believes to be free. Where somebody beneath was quicker, ESTALE
        makes it look again (do_filp_open, LOOKUP_REVAL) and open what is there as any existing file, with all checks;
        opening it here would skip those, and might wait for the other end of a fifo."""
        folder = self.objects.folder(parent)
        backing = self.backing_flags(flags) & ~os.O_TRUNC | os.O_NOFOLLOW
        if again.was_made(ctx, folder, name, stat.S_IFREG):
            with self.credentials.worker():
                fd = self._open_made(folder, name, backing)
            return self._made(parent, name, flags, fd)
        backing |= os.O_CREAT | os.O_EXCL
        again.will_make(ctx)
        try:
            with self.credentials.owner(ctx):
                fd = self.objects.descriptors.with_room(os.open, name, backing, mode, dir_fd=folder)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            raise OSError(errno.ESTALE, "the name was taken meanwhile") from None
        ctx.done()
        return self._made(parent, name, flags, fd)

    def _open_made(self, folder: int, name: bytes, flags: int) -> int:
        """Whoever makes a file may write to it, whatever its mode. Without privileges a worker lets itself in first."""
        try:
            return self.objects.descriptors.with_room(os.open, name, flags, dir_fd=folder)
        except PermissionError:
            made = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            mode = stat.S_IMODE(os.fstat(made).st_mode)
            os.chmod(proc_path(made), mode | stat.S_IRUSR | stat.S_IWUSR)
            try:
                return os.open(name, flags, dir_fd=folder)
            finally:
                os.chmod(proc_path(made), mode)
        finally:
            os.close(made)

    def tmpfile(self, ctx: Context, parent: NodeId, mode: int, flags: int) -> tuple[Entry, Opened]:
        folder = self.objects.folder(parent)
        backing = self.backing_flags(flags) | flags & os.O_EXCL | os.O_TMPFILE
        with self.credentials.owner(ctx):
            fd = self.objects.descriptors.with_room(os.open, b".", backing, mode, dir_fd=folder)
        return self._made(parent, b"", flags, fd)

    def _made(self, parent: NodeId, name: bytes, flags: int, fd: int) -> tuple[Entry, Opened]:
        try:
            entry = self.objects.entry_of(fd, parent, name)
        except BaseException:
            os.close(fd)
            raise
        try:
            return entry, self.opened(NodeId(entry.node), flags, fd, self.reply(flags, fd), self.offered(flags, fd))
        except OSError:
            self.mount.nodes.give_back(NodeId(entry.node))
            raise

    @repeatable
    def link(self, ctx: Context, node: NodeId, new_parent: NodeId, new_name: bytes) -> Entry:
        folder = self.objects.folder(new_parent)
        with self.objects.borrow(node) as fd:
            if not again.was_linked(ctx, folder, new_name, fd):
                ctx.begin()
                os.link(proc_path(fd), new_name, dst_dir_fd=folder, follow_symlinks=True)
                ctx.done()
        return self.objects.entry(new_parent, folder, new_name)

    # --- removing and renaming ------------------------------------------------------------------------------------

    @repeatable
    def unlink(self, ctx: Context, parent: NodeId, name: bytes) -> None:
        folder = self.objects.folder(parent)
        if not again.was_removed(ctx, folder, name):
            with self.objects.leaving(parent, folder, name):
                again.will_remove(ctx, folder, name)
                os.unlink(name, dir_fd=folder)
                ctx.done()

    @repeatable
    def rmdir(self, ctx: Context, parent: NodeId, name: bytes) -> None:
        folder = self.objects.folder(parent)
        if not again.was_removed(ctx, folder, name):
            with self.objects.leaving(parent, folder, name, is_folder=True):
                again.will_remove(ctx, folder, name)
                os.rmdir(name, dir_fd=folder)
                ctx.done()

    @repeatable
    def rename(
        self, ctx: Context, parent: NodeId, name: bytes, new_parent: NodeId, new_name: bytes, flags: int
    ) -> None:
        objects = self.objects
        folder, new_folder = objects.folder(parent), objects.folder(new_parent)
        if again.was_renamed(ctx, folder, name, new_folder, new_name, flags):
            return
        if flags & RENAME_EXCHANGE:
            replaced = objects.moving(new_parent, new_folder, new_name, parent, name)
        elif flags & RENAME_NOREPLACE:
            replaced = NOTHING
        else:
            replaced = objects.leaving(new_parent, new_folder, new_name)
        maker = self.credentials.owner(ctx) if flags & RENAME_WHITEOUT else NOTHING  # it leaves a device file behind
        with replaced, objects.moving(parent, folder, name, new_parent, new_name), maker:
            again.will_rename(ctx, folder, name, new_folder, new_name)
            system.rename(folder, name, new_folder, new_name, flags)
            ctx.done()
