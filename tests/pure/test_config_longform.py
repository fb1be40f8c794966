"""ringmount.config.longform"""

from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from ringmount.config import MountConfig, Timeouts, loads_mount
from ringmount.config.longform import effective, scalar
from ringmount.config.model import MIB, PAGE, YEAR

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
SCALARS = (
    TEXT
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.none()
)
KEYS = TEXT.filter(lambda text: len(text) <= 100)
DATA = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)
SECONDS = st.floats(0, YEAR)
CONFIGS = st.builds(
    MountConfig,
    name=st.just("data"),
    mountpoint=st.sampled_from(["/mnt/data", "/mnt/a b", "/srv/é", "/mnt/x: y #z", '/mnt/"', "/mnt/\u2028"]),
    filesystem=st.sampled_from(["passthrough", "memory", "package.module:Class", "m:On"]),
    options=st.dictionaries(KEYS, DATA, max_size=3),
    transport=st.sampled_from(["auto", "io_uring", "dev_fuse"]),
    workers=st.just("auto") | st.just(1),
    cpus=st.none() | st.lists(st.integers(0, 8191), min_size=1, unique=True).map(tuple),
    queue_depth=st.integers(1, 1024),
    max_write=st.integers(1, MIB // PAGE).map(lambda pages: pages * PAGE),
    ring_memory=st.none() | st.integers(1 << 30, 1 << 46),
    timeouts=st.builds(Timeouts, attr=SECONDS, entry=SECONDS, negative=SECONDS, request=SECONDS),
    cache=st.sampled_from(["none", "normal"]),
    data=st.sampled_from(["auto", "userspace"]),
    keep_cache=st.just(False),
    parallel_direct_writes=st.booleans(),
    readdirplus=st.sampled_from(["auto", "always", "never"]),
    on_crash=st.sampled_from(["retry", "eio"]),
    allow_other=st.booleans(),
    default_permissions=st.booleans(),
    user=st.none() | st.sampled_from(["nobody", "1000", "no", "DOMAIN\\user", "a@b", "null", "1e3"]),
    read_only=st.booleans(),
    log_level=st.sampled_from(["debug", "info", "warning", "error"]),
    metrics=st.none() | st.sampled_from(["127.0.0.1:9876", "[::1]:80", "/run/ringmount/data.metrics", "/run/a b"]),
)


@given(CONFIGS)
def test_the_effective_settings_are_read_back(config: MountConfig) -> None:
    assert loads_mount(effective(config), "f", "data") == config


@given(SCALARS)
def test_a_scalar_means_the_same_to_other_readers(value: Any) -> None:
    assert yaml.safe_load(f"a: {scalar(value)}\n") == {"a": value}


def test_defaults_are_marked() -> None:
    text = effective(
        loads_mount(
            "mountpoint: /mnt/data\nfilesystem: passthrough\noptions: {source: /srv/data, list: [1, a b]}\n"
            "cpus: [0, 1, 3]\nmax_write: 131072\ntimeouts: {attr: 5}\nuser: '1000'\n",
            "f",
            "data",
        )
    )
    assert text == (
        "# The effective settings of the mount data.\n"
        "mountpoint: /mnt/data\n"
        "filesystem: passthrough\n"
        "options:\n"
        "  source: /srv/data\n"
        '  list: [1, "a b"]\n'
        "transport: auto                      # default\n"
        "workers: auto                        # default\n"
        'cpus: "0-1,3"\n'
        "queue_depth: 8                       # default\n"
        "max_write: 128KiB\n"
        "readahead: null                      # default\n"
        "ring_memory: null                    # default\n"
        "memory_limit: null                   # default\n"
        "timeouts:\n"
        "  attr: 5.0\n"
        "  entry: 1.0                         # default\n"
        "  negative: 0.0                      # default\n"
        "  request: 60.0                      # default\n"
        "cache: normal                        # default\n"
        "data: auto                           # default\n"
        "writeback: false                     # default\n"
        "keep_cache: false                    # default\n"
        "parallel_direct_writes: false        # default\n"
        "readdirplus: auto                    # default\n"
        "on_crash: retry                      # default\n"
        "allow_other: true                    # default\n"
        "default_permissions: true            # default\n"
        'user: "1000"\n'
        "control_group: null                  # default\n"
        "read_only: false                     # default\n"
        "log_level: info                      # default\n"
        "metrics: null                        # default\n"
    )
