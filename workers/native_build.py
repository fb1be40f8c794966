"""Builds `ringmount.workers._native`: the one C module, over the system's liburing (cffi API mode).

Each part is NAME.cdef in `native/` (what Python sees), NAME.h, and the code: NAME.c, or that and several NAME_*.c.
`setup.py` names this file in `cffi_modules`; liburing's flags come from pkg-config.
"""

import shlex
import subprocess
import sys
from pathlib import Path

from cffi import FFI

NATIVE = Path(__file__).resolve().parent / "native"
PARTS = (
    "ring",
    "nodes",
    "handles",
    "process",
    "death",
    "system",
    "listing",
    "given",
    "opens",
    "fast",
    "trace",
    "stacks",
)
MINIMUM_LIBURING = "2.3"


def pkg_config(*arguments: str) -> list[str]:
    """The output of pkg-config, split as a shell would. Exits with what to install when liburing is missing."""
    command = ["pkg-config", f"liburing >= {MINIMUM_LIBURING}", *arguments]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit("ringmount: pkg-config is missing: install pkg-config and liburing-dev")
    except subprocess.CalledProcessError as error:
        sys.exit(f"ringmount: liburing >= {MINIMUM_LIBURING} is missing: install liburing-dev\n{error.stderr}")
    return shlex.split(done.stdout)


def present() -> list[str]:
    """The parts in build order."""
    return [part for part in PARTS if (NATIVE / f"{part}.c").exists()]


ffi = FFI()
ffi.cdef("\n".join((NATIVE / f"{part}.cdef").read_text() for part in present()))
ffi.set_source(
    "ringmount.workers._native",
    "\n".join(f'#include "{part}.h"' for part in present()),
    sources=sorted(f"workers/native/{path.name}" for path in NATIVE.glob("*.c")),
    include_dirs=["workers/native"],
    extra_compile_args=["-O2", "-std=gnu11", "-Wall", "-Wextra", *pkg_config("--cflags")],
    extra_link_args=pkg_config("--libs"),
    py_limited_api=True,
)
