"""Runs a command that cannot have rings: `without_io_uring.py MOST COMMAND...`, a program of the tests.

io_uring_setup(2) of more than MOST entries fails with EPERM for it and for its children (seccomp(2)). With 0 no ring is
to be had. With the size of the ring by which ringmount finds out whether there are any, the workers' rings fail,
when the kernel has already been told to wait for them.
"""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
IO_URING_SETUP = 425
ALLOW, FAIL_WITH_EPERM = 0x7FFF_0000, 0x0005_0001
LOAD, JUMP_EQUAL, JUMP_GREATER, RETURN = 0x20, 0x15, 0x25, 0x06
NUMBER_AT, FIRST_ARGUMENT_AT = 0, 16  # in struct seccomp_data


def forbid(most: int) -> None:
    """Installs the filter in this process."""
    program = b"".join(
        struct.pack("<HBBI", *instruction)
        for instruction in (
            (LOAD, 0, 0, NUMBER_AT),
            (JUMP_EQUAL, 0, 3, IO_URING_SETUP),
            (LOAD, 0, 0, FIRST_ARGUMENT_AT),
            (JUMP_GREATER, 0, 1, most),
            (RETURN, 0, 0, FAIL_WITH_EPERM),
            (RETURN, 0, 0, ALLOW),
        )
    )
    instructions = ctypes.create_string_buffer(program)
    filters = struct.pack("<H6xQ", len(program) // 8, ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filters, 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    forbid(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
