"""The part of the packaging that is computed: which folder is which package, and the C extension."""

from pathlib import Path

from setuptools import find_packages, setup

TOP = ("config", "workers", "daemon")
HERE = Path(__file__).parent

folders = [name for top in TOP for name in (top, *(f"{top}.{sub}" for sub in find_packages(str(HERE / top))))]

setup(
    packages=[*(f"ringmount.{name}" for name in folders), "ringmount.systemd"],
    package_dir={f"ringmount.{top}": top for top in (*TOP, "systemd")},
    include_package_data=False,
    package_data={
        **{f"ringmount.{top}": ["py.typed"] for top in TOP},
        "": ["*.pyi"],
        "ringmount.config": ["py.typed", "*.schema.json", "mounts/*.yaml"],
        "ringmount.systemd": [
            *("*.catalog", "*.conf", "*.service", "*.slice", "*.target", "mount.ringmount", "user/*.service"),
        ],
    },
    cffi_modules=["workers/native_build.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
