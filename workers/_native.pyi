"""The cffi module built by native_build.py. Its functions are declared in native/*.cdef."""

from typing import Any

ffi: Any
lib: Any
