"""How the command `ringmount` ends: its documented exit codes, and the error that carries one.

Whatever a user or an administrator can cause ends as a `Failure` (or as ringmount.config's ConfigError),
which the command prints as one line on stderr. The rule a change must keep: a code's number never changes its
meaning, for scripts and units rely on it (`RestartPreventExitStatus=`).
"""

from enum import IntEnum

from ringmount.config.errors import one_line


class ExitCode(IntEnum):
    """The exit codes of `ringmount`."""

    OK = 0
    UNEXPECTED = 1
    """A bug or an error nobody foresaw; there is a traceback."""
    USAGE = 2
    """The command line is wrong."""
    CONFIG = 3
    """The mount's file is missing, cannot be read or says something impossible."""
    MOUNTPOINT = 4
    """The mountpoint is missing, not an empty folder, or taken."""
    PERMISSION = 5
    """The user may not do this."""
    UNAVAILABLE = 6
    """The machine lacks something: FUSE, its device, a kernel that is new enough, fusermount3."""
    FILESYSTEM = 7
    """The filesystem could not be loaded or started."""
    NO_SUCH_MOUNT = 8
    """`status` or `umount` of a mount that is not there."""
    RESOURCES = 9
    """Not enough memory, descriptors or processes are allowed or left."""
    BUSY = 10
    """`drain`: the mount was still in use after the time that was given."""


class Failure(Exception):
    """Something the user can put right: what happened, what to do about it, and how the command exits.

    `message` and `hint` have no full stop; what is not printable in them is escaped. str() is one line:
    `MESSAGE; HINT`, or `MESSAGE` where there is no hint.
    """

    def __init__(self, message: str, hint: str = "", *, code: ExitCode = ExitCode.UNEXPECTED) -> None:
        self.message = one_line(message)
        self.hint = one_line(hint)
        self.code = code
        super().__init__(f"{self.message}; {self.hint}" if self.hint else self.message)
