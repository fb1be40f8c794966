"""ringmount.config.check: the keys one by one, each mistake at its place."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringmount.config import ConfigError, MountConfig, Timeouts, loads_mount

SHORTEST = "mountpoint: /mnt/data\nfilesystem: passthrough\noptions:\n  source: /srv/data\n"
START = "mountpoint: /mnt/data\nfilesystem: memory\n"


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads_mount(text, "f", "data")
    return [str(error) for error in caught.value.all()]


def mistake(lines: str) -> ConfigError:
    """The one mistake in `lines`, which are lines 3 and following of a file."""
    with pytest.raises(ConfigError) as caught:
        loads_mount(START + lines, "f", "data")
    assert not caught.value.others
    return caught.value


def settings_of(lines: str) -> MountConfig:
    return loads_mount(START + lines, "f", "data")


def test_the_shortest_form_leaves_everything_at_its_default() -> None:
    assert loads_mount(SHORTEST, "data.yaml", "data") == MountConfig(
        name="data",
        mountpoint="/mnt/data",
        filesystem="passthrough",
        options={"source": "/srv/data"},
        transport="auto",
        workers="auto",
        cpus=None,
        queue_depth=8,
        max_write=1 << 20,
        readahead=None,
        ring_memory=None,
        timeouts=Timeouts(attr=1.0, entry=1.0, negative=0.0, request=60.0),
        cache="normal",
        data="auto",
        writeback=False,
        keep_cache=False,
        parallel_direct_writes=False,
        readdirplus="auto",
        on_crash="retry",
        allow_other=True,
        default_permissions=True,
        user=None,
        read_only=False,
        log_level="info",
        metrics=None,
    )


def test_every_key_can_be_given() -> None:
    config = settings_of(
        "options: {a: [1, {b: null}]}\ntransport: dev_fuse\nworkers: 2\ncpus: 0-1,4\nqueue_depth: 32\n"
        "max_write: 128KiB\nring_memory: 64MiB\ntimeouts: {attr: 500ms, request: 5min}\ncache: none\n"
        "data: userspace\non_crash: eio\nallow_other: false\ndefault_permissions: false\nuser: nobody\n"
        "read_only: true\nlog_level: debug\nmetrics: 127.0.0.1:9876\n"
    )
    assert config == MountConfig(
        name="data",
        mountpoint="/mnt/data",
        filesystem="memory",
        options={"a": [1, {"b": None}]},
        transport="dev_fuse",
        workers=2,
        cpus=(0, 1, 4),
        queue_depth=32,
        max_write=128 << 10,
        ring_memory=64 << 20,
        timeouts=Timeouts(attr=0.5, entry=1.0, negative=0.0, request=300.0),
        cache="none",
        data="userspace",
        on_crash="eio",
        allow_other=False,
        default_permissions=False,
        user="nobody",
        read_only=True,
        log_level="debug",
        metrics="127.0.0.1:9876",
    )


def test_settings_survive_json() -> None:
    config = settings_of("options: {a: [1.5, x]}\ncpus: [3, 1]\n")
    assert msgspec.json.decode(msgspec.json.encode(config), type=MountConfig) == config


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("cpus: [2, 0]", "cpus", (2, 0)),
        ("cpus: auto", "cpus", None),
        ("cpus: null", "cpus", None),
        ('cpus: "5"', "cpus", (5,)),
        ("workers: 3", "workers", 3),
        ("max_write: 65536", "max_write", 65536),
        ("ring_memory: 1G", "ring_memory", 1 << 30),
        ("timeouts: {}", "timeouts", Timeouts()),
        ("timeouts: {negative: 2}", "timeouts", Timeouts(negative=2.0)),
        ("mountpoint: //mnt/./data//", "mountpoint", "/mnt/data"),
        ("mountpoint: /usr/local/share/data", "mountpoint", "/usr/local/share/data"),
        ("mountpoint: /mnt/a b é", "mountpoint", "/mnt/a b é"),
        ("filesystem: package.module:Class.Inner", "filesystem", "package.module:Class.Inner"),
        ('user: "1000"', "user", "1000"),
    ],
)
def test_values_have_several_notations(line: str, key: str, value: object) -> None:
    text = "".join(part + "\n" for part in START.splitlines() if not part.startswith(key)) + line
    assert getattr(loads_mount(text, "f", "data"), key) == value


@pytest.mark.parametrize(
    ("lines", "place", "message", "hint"),
    [
        ("worker: 3", "3:1 worker", "Unknown key 'worker'", "did you mean workers? allowed: mountpoint,"),
        (
            "Max-Write: 3",
            "3:1 Max-Write",
            "Unknown key 'Max-Write'",
            "did you mean max_write? allowed: mountpoint,",
        ),
        ("xyz: 3", "3:1 xyz", "Unknown key 'xyz'", "allowed: mountpoint, filesystem, options,"),
        ("name: x", "3:1 name", "Unknown key 'name'", "a mount is named after its file"),
        (
            "timeouts:\n  entry: 1\n  atr: 1",
            "5:3 timeouts.atr",
            "Unknown key 'atr'",
            "did you mean attr? allowed: attr, entry,",
        ),
        (
            "timeouts:\n  entry:   x",
            "4:12 timeouts.entry",
            "'x' is not a duration",
            "write seconds, or a number with ms, s, min, h or d",
        ),
        (
            "timeouts: {attr: -1}",
            "3:18 timeouts.attr",
            "Expected seconds from 0 to 31536000, got int -1",
            "how long the kernel may answer stat from the",
        ),
        (
            "timeouts: {attr: 366d}",
            "3:18 timeouts.attr",
            "Expected seconds from 0 to 31536000, got str '366d'",
            "how long the kernel may answer stat from the",
        ),
        (
            "timeouts: {attr: true}",
            "3:18 timeouts.attr",
            "Expected seconds from 0 to 31536000, got bool True",
            "how long the kernel may answer stat from the",
        ),
        (
            "timeouts: 5",
            "3:11 timeouts",
            "Expected keys and values, got int 5",
            "how long the kernel may reuse answers, and how",
        ),
        (
            "timeouts: [1]",
            "3:11 timeouts",
            "Expected keys and values, got a list",
            "how long the kernel may reuse answers, and how",
        ),
        (
            "timeouts:",
            "3:10 timeouts",
            "Expected keys and values, got null",
            "give a value, or remove the key to leave it at",
        ),
        (
            "options: x",
            "3:10 options",
            "Expected keys and values, got str 'x'",
            "the filesystem's own settings",
        ),
        (
            "transport: uring",
            "3:12 transport",
            "Expected auto, io_uring or dev_fuse, got str 'uring'",
            "how requests arrive: through io_uring rings, or",
        ),
        (
            "workers: 0",
            "3:10 workers",
            "Expected integer from 1 to 8192 or auto, got int 0",
            "the number of worker processes",
        ),
        (
            "workers: 1.5",
            "3:10 workers",
            "Expected integer from 1 to 8192 or auto, got float 1.5",
            "the number of worker processes",
        ),
        (
            "workers: all",
            "3:10 workers",
            "Expected integer from 1 to 8192 or auto, got str 'all'",
            "the number of worker processes",
        ),
        (
            "workers: [1]",
            "3:10 workers",
            "Expected integer from 1 to 8192 or auto, got a list",
            "the number of worker processes",
        ),
        (
            "workers: {a: 1}",
            "3:10 workers",
            "Expected integer from 1 to 8192 or auto, got keys and values",
            "the number of worker processes",
        ),
        (
            "workers: 0x2",
            "3:10 workers",
            "'0x2' does not mean the same in every version of YAML",
            "write the number in decimal, or quote it to make",
        ),
        (
            "cpus: 3",
            "3:7 cpus",
            "Expected a list of CPUs ([0, 2] or 0-3,5) or auto, got int 3",
            "the CPUs that workers are pinned to, as a list or",
        ),
        (
            "cpus: []",
            "3:7 cpus",
            "Expected a list of CPUs ([0, 2] or 0-3,5) or auto, got a list",
            "the CPUs that workers are pinned to, as a list or",
        ),
        (
            "cpus: ''",
            "3:7 cpus",
            "Expected a list of CPUs ([0, 2] or 0-3,5) or auto, got str ''",
            "the CPUs that workers are pinned to, as a list or",
        ),
        ("cpus: 3-1", "3:7 cpus", "'3-1' is not a list of CPUs", "the range 3-1 runs backwards"),
        (
            "cpus: [0, x]",
            "3:11 cpus[1]",
            "Expected integer from 0 to 8191, got str 'x'",
            "the CPUs that workers are pinned to, as a list or",
        ),
        (
            "cpus:\n  - 0\n  - -1",
            "5:5 cpus[1]",
            "Expected integer from 0 to 8191, got int -1",
            "the CPUs that workers are pinned to, as a list or",
        ),
        ("cpus: [1, 2, 1]", "3:7 cpus", "CPU 1 is named 2 times", "a CPU has one worker; name it once"),
        ("cpus: 0-3,2", "3:7 cpus", "CPU 2 is named 2 times", "a CPU has one worker; name it once"),
        (
            "cpus: [0, 1]\nworkers: 3",
            "4:10 workers",
            "3 workers for 2 CPUs: each worker has a CPU of its own",
            "name more CPUs, or lower workers to 2",
        ),
        (
            "queue_depth: 0",
            "3:14 queue_depth",
            "Expected integer from 1 to 1024, got int 0",
            "how many requests each CPU's queue holds at a time",
        ),
        (
            "queue_depth: 1025",
            "3:14 queue_depth",
            "Expected integer from 1 to 1024, got int 1025",
            "how many requests each CPU's queue holds at a time",
        ),
        (
            "max_write: 5000",
            "3:12 max_write",
            "Expected size from 4KiB to 1MiB in steps of 4KiB, got int 5000",
            "the most bytes that one READ or WRITE request",
        ),
        (
            "max_write: 2MiB",
            "3:12 max_write",
            "Expected size from 4KiB to 1MiB in steps of 4KiB, got str '2MiB'",
            "the most bytes that one READ or WRITE request",
        ),
        (
            "max_write: 1MB",
            "3:12 max_write",
            "'1MB' is not a size",
            "write bytes, or a whole number with KiB, MiB, GiB",
        ),
        (
            "ring_memory: 0",
            "3:14 ring_memory",
            "Expected size from 4KiB to 64TiB or null, got int 0",
            "the most memory that the buffers of this mount's",
        ),
        (
            "ring_memory: 4MiB",
            "3:14 ring_memory",
            "4MiB is less than the 8MiB of one queue",
            "raise it, or lower queue_depth or max_write",
        ),
        (
            "cache: all",
            "3:8 cache",
            "Expected none, normal or coherent, got str 'all'",
            "what the kernel keeps: nothing (none), contents",
        ),
        (
            "on_crash: ignore",
            "3:11 on_crash",
            "Expected retry or eio, got str 'ignore'",
            "what happens to a request whose worker died: the",
        ),
        (
            "allow_other: 1",
            "3:14 allow_other",
            "Expected true or false, got int 1",
            "whether users other than the one who mounts may",
        ),
        (
            "read_only: yes",
            "3:12 read_only",
            "'yes' does not mean the same in every version of YAML",
            "write true or false, or quote it to make it text",
        ),
        (
            "user: 1000",
            "3:7 user",
            "Expected a user's name or null, got int 1000",
            'quote it to make it text: "1000"',
        ),
        (
            "user: a:b",
            "3:7 user",
            "Expected a user's name or null, got str 'a:b'",
            "the user that workers run as, where the",
        ),
        (
            'user: "a\\n"',
            "3:7 user",
            "Expected a user's name or null, got str 'a\\n'",
            "the user that workers run as, where the",
        ),
        (
            "log_level: trace",
            "3:12 log_level",
            "Expected debug, info, warning or error, got str 'trace'",
            "the least important messages that are still logged",
        ),
    ],
)
def test_a_mistake_names_its_place_and_what_is_allowed(lines: str, place: str, message: str, hint: str) -> None:
    error = mistake(lines)
    assert f"{error.line}:{error.column} {error.path}" == place
    assert error.message == message
    assert error.hint.startswith(hint)
    assert str(error).startswith(f"f:{place.replace(' ', ': ')}: {message}; {hint}")


def test_keys_that_must_be_given_are_asked_for() -> None:
    assert mistakes("# a comment\nlog_level: info\n") == [
        "f:2:1: mountpoint: This key is missing; add it: the folder to mount on, as an absolute path",
        (
            "f:2:1: filesystem: This key is missing; add it: who answers the requests: passthrough, memory, "
            "or a class of yours as package.module:Class"
        ),
    ]


def test_all_mistakes_come_in_the_order_of_the_file() -> None:
    lines = mistakes("workers: 0\nmountpoint: /\ncache: all\ntimeouts: {attr: x}\nfoo: 1\nfilesystem: 1\n")
    assert [line.split(" ")[0] for line in lines] == [
        "f:1:10:",
        "f:2:13:",
        "f:3:8:",
        "f:4:18:",
        "f:5:1:",
        "f:6:13:",
    ]


def test_many_unknown_keys_do_not_take_long() -> None:
    assert len(mistakes(START + "".join(f"k{n}: 1\n" for n in range(20_000)))) == 20


# fmt: off
WORDS = [
    "1", "0", "-1", "1.5", ".inf", "1e999", "null", "~", "true", "yes", "auto", "none", "normal", "coherent",
    "passthrough", "memory", "a.b:C", "/mnt/x", "/", "~/x", "1MiB", "5000", "4KiB", "0-3", "1-0", "0-999999",
    "5s", "forever", "nobody", "0755", "2001-01-01", "!x", "*a", "&a x", "''", '"\\0"', "debug", "{}", "[]", "",
]
# fmt: on


def flow_mapping(keys: tuple[str, ...], values: list[str]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in zip(keys, values, strict=False)) + "}"


LEAVES = st.sampled_from(WORDS)


NESTED = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(inner, max_size=3).map(lambda items: flow_mapping(("attr", "entry", "x"), items))
    ),
    max_leaves=5,
)


VALUES = LEAVES | NESTED


KEYS = st.sampled_from([*MountConfig.__struct_fields__, "worker", "1", "a b", "'x.y'", "<<"])


@given(st.lists(st.tuples(KEYS, VALUES)))
def test_any_keys_and_values_are_settings_or_located_errors(pairs: list[tuple[str, str]]) -> None:
    text = START + "".join(f"{key}: {value}\n" for key, value in pairs)
    try:
        config = loads_mount(text, "f", "data")
    except ConfigError as error:
        found = error.all()
    else:
        found = ()
        assert msgspec.json.decode(msgspec.json.encode(config), type=MountConfig) == config
    assert all(error.line and error.column and str(error).isprintable() for error in found)
