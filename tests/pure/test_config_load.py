"""ringmount.config.load and ringmount.config.check: a file's way to its settings, and its mistakes."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringmount.config import ConfigError, MountConfig, Timeouts, load_mount, loads_mount, read_document
from ringmount.config.load import MAX_FILE, Document

SHORTEST = "mountpoint: /mnt/data\nfilesystem: passthrough\noptions:\n  source: /srv/data\n"
START = "mountpoint: /mnt/data\nfilesystem: memory\n"


def settings_of(lines: str) -> MountConfig:
    return loads_mount(START + lines, "f", "data")


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
        ring_memory=None,
        timeouts=Timeouts(attr=1.0, entry=1.0, negative=0.0, request=60.0),
        cache="normal",
        data="auto",
        on_crash="retry",
        allow_other=True,
        default_permissions=True,
        user=None,
        read_only=False,
        log_level="info",
    )


def test_every_key_can_be_given() -> None:
    config = settings_of(
        "options: {a: [1, {b: null}]}\ntransport: dev_fuse\nworkers: 2\ncpus: 0-1,4\nqueue_depth: 32\n"
        "max_write: 128KiB\nring_memory: 64MiB\ntimeouts: {attr: 500ms, request: 5min}\ncache: none\n"
        "data: userspace\non_crash: eio\nallow_other: false\ndefault_permissions: false\nuser: nobody\n"
        "read_only: true\nlog_level: debug\n"
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
            "Expected none or normal, got str 'all'",
            "what the kernel caches of file contents: nothing",
        ),
        (
            "cache: coherent",
            "3:8 cache",
            "coherent is not supported by this version of ringmount",
            "remove the key to use normal",
        ),
        (
            "data: passthrough",
            "3:7 data",
            "passthrough is not supported by this version of ringmount",
            "remove the key to use auto",
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
def test_a_mistake_names_its_place_and_what_is_allowed(
    lines: str, place: str, message: str, hint: str
) -> None:
    error = mistake(lines)
    assert f"{error.line}:{error.column} {error.path}" == place
    assert error.message == message
    assert error.hint.startswith(hint)
    assert str(error).startswith(f"f:{place.replace(' ', ': ')}: {message}; {hint}")


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("data", "'data' is not an absolute path; it must start with /"),
        ("''", "'' is not an absolute path; it must start with /"),
        ("~/data", "'~/data' is not an absolute path; ~ is not expanded, write the home folder out"),
        ("/mnt/../etc", "'/mnt/../etc' holds '..'; write the path without it"),
        ('"/mnt/a\\nb"', "'/mnt/a\\nb' holds a control character; write the path without it"),
        ("/" + 5000 * "x", "The path is too long; Linux takes at most 4095 bytes"),
        ("/" + 2048 * "é", "The path is too long; Linux takes at most 4095 bytes"),
        ("5", "Expected an absolute path, got int 5; the folder to mount on, as an absolute path"),
        (
            "",
            "Expected an absolute path, got null; give a value, or remove the key to leave it at its default",
        ),
    ],
)
def test_a_mountpoint_is_an_absolute_path(value: str, error: str) -> None:
    assert mistakes(f"filesystem: memory\nmountpoint: {value}\n") == [
        f"f:2:{13 if value else 12}: mountpoint: {error}"
    ]


@pytest.mark.parametrize(
    "path",
    ["/", "//", "/.", "/etc", "/etc/", "/usr//bin", "/proc", "/proc/self", "/sys/x", "/dev/shm", "/run"],
)
def test_what_the_system_needs_is_not_mounted_over(path: str) -> None:
    (line,) = mistakes(f"filesystem: memory\nmountpoint: {path}\n")
    assert line.startswith("f:2:13: mountpoint: '/")
    assert line.endswith("is needed by the system; mount on a folder of its own, such as /mnt/data")


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("pasthrough", "'pasthrough' is not a filesystem; did you mean passthrough?"),
        ("Memory", "'Memory' is not a filesystem; did you mean memory?"),
        ("a.b", "'a.b' is not a filesystem; give passthrough or memory, or package.module:Class"),
        ("a b:c", "'a b:c' is not a filesystem; give passthrough or memory, or package.module:Class"),
        ("a:b:c", "'a:b:c' is not a filesystem; give passthrough or memory, or package.module:Class"),
        ('"a:b\\n"', "'a:b\\n' is not a filesystem; give passthrough or memory, or package.module:Class"),
        (
            "true",
            "Expected passthrough, memory or package.module:Class, got bool True; who answers the requests",
        ),
    ],
)
def test_a_filesystem_is_a_known_word_or_a_class(value: str, error: str) -> None:
    (line,) = mistakes(f"filesystem: {value}\nmountpoint: /mnt/data\n")
    assert line.startswith(f"f:1:13: filesystem: {error}")


def test_keys_that_must_be_given_are_asked_for() -> None:
    assert mistakes("# a comment\nlog_level: info\n") == [
        "f:2:1: mountpoint: This key is missing; add it: the folder to mount on, as an absolute path",
        (
            "f:2:1: filesystem: This key is missing; add it: who answers the requests: passthrough, memory, "
            "or a class of yours as package.module:Class"
        ),
    ]


def test_all_mistakes_come_in_the_order_of_the_file() -> None:
    lines = mistakes(
        "workers: 0\nmountpoint: /\ncache: coherent\ntimeouts: {attr: x}\nfoo: 1\nfilesystem: 1\n"
    )
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


def test_one_queue_must_fit_only_where_there_are_rings() -> None:
    assert settings_of("ring_memory: 4KiB\ntransport: dev_fuse\n").ring_memory == 4096
    assert settings_of("ring_memory: 1MiB\nqueue_depth: 1\n").ring_memory == 1 << 20


def test_a_mount_is_named_after_its_file(tmp_path: Path) -> None:
    path = tmp_path / "my.data@1-x.yaml"
    path.write_text(SHORTEST)
    assert load_mount(str(path)).name == "my.data@1-x"


@pytest.mark.parametrize(
    "name", [".hidden.yaml", "-x.yaml", "a b.yaml", "é.yaml", "a\nb.yaml", "x" * 65 + ".yaml"]
)
def test_a_file_whose_name_cannot_be_a_mount_s_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(SHORTEST)
    with pytest.raises(
        ConfigError, match=r"A mount is named after its file, and '.*' cannot be a name; use letters"
    ):
        load_mount(str(tmp_path / name))


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    cases = {
        str(tmp_path / "none.yaml"): "Cannot read the file: No such file or directory; check the path",
        str(tmp_path): "Cannot read the file: Is a directory; name a file, not a folder",
        "a\0b": "Cannot read the file: embedded null byte",
        "": "Cannot read the file: No such file or directory; check the path",
    }
    for path, message in cases.items():
        with pytest.raises(ConfigError) as caught:
            load_mount(path)
        assert str(caught.value).endswith(message)
        assert caught.value.line is None


def test_a_file_that_is_not_utf_8_is_refused_at_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("a: 1\nb: é".encode() + b"\xff\n")
    with pytest.raises(ConfigError) as caught:
        load_mount(str(path))
    assert str(caught.value) == f"{path}:2:5: The file is not UTF-8; save it as UTF-8"


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"#" * MAX_FILE)
    with pytest.raises(ConfigError, match="The file is empty"):
        load_mount(str(path))
    path.write_bytes(b"#" * (MAX_FILE + 1))
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load_mount(str(path))
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load_mount("/dev/zero")


def test_a_document_locates_keys_for_later_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(SHORTEST)
    document = read_document(str(path))
    assert document.data["options"] == {"source": "/srv/data"}
    assert document.locate("options.source") == (4, 11)
    error = document.error("options.source", "No such folder", "make it")
    assert str(error) == f"{path}:4:11: options.source: No such folder; make it"
    assert document.locate("options.other") == (3, 1)
    assert document.locate("workers") == (1, 1)


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    size: int = 0


class Options(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    inner: Inner | None = None
    items: list[Inner] = []
    by_name: dict[str, int] = {}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("{}", "f:3:1: options.source: This key is missing; add it"),
        ("{source: 1}", "f:3:19: options.source: Expected str, got int"),
        ("{source: x, sorce: 1}", "f:3:22: options.sorce: Unknown key; remove it or correct its name"),
        (
            "{source: x, inner: {siz: 1}}",
            "f:3:30: options.inner.siz: Unknown key; remove it or correct its name",
        ),
        ("{source: x, items: [{}, {size: x}]}", "f:3:41: options.items[1].size: Expected int, got str"),
        ("{source: x, by_name: {a: x}}", "f:3:31: options.by_name: Expected int, got str"),
    ],
)
def test_what_msgspec_finds_in_options_gets_its_place(options: str, error: str) -> None:
    document = Document(START + f"options: {options}\n", "f", "data")
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(document.data["options"], Options)
    assert str(document.error_from_validation("options", str(caught.value))) == error


@given(st.text())
def test_any_validation_message_becomes_one_line(message: str) -> None:
    document = Document(SHORTEST, "f", "data")
    assert str(document.error_from_validation("options", message)).isprintable()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "data.yaml"


@given(content=st.binary() | st.text().map(str.encode))
def test_any_bytes_are_settings_or_a_config_error(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigError):
        load_mount(str(file))


VALUES = st.recursive(
    st.sampled_from(
        [
            "1",
            "0",
            "-1",
            "1.5",
            ".inf",
            "1e999",
            "null",
            "~",
            "true",
            "yes",
            "auto",
            "none",
            "normal",
            "coherent",
            "passthrough",
            "memory",
            "a.b:C",
            "/mnt/x",
            "/",
            "~/x",
            "1MiB",
            "5000",
            "4KiB",
            "0-3",
            "1-0",
            "0-99999999",
            "5s",
            "forever",
            "nobody",
            "0755",
            "2001-01-01",
            "!x",
            "*a",
            "&a",
            "x",
            "''",
            '"\\0"',
            "debug",
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(inner, max_size=3).map(
            lambda items: (
                "{" + ", ".join(f"{key}: {item}" for key, item in zip("abc", items, strict=False)) + "}"
            )
        )
        | st.lists(inner, max_size=2).map(
            lambda items: (
                "{" + ", ".join(f"{k}: {v}" for k, v in zip(("attr", "x"), items, strict=False)) + "}"
            )
        )
    ),
    max_leaves=5,
)
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
