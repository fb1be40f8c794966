"""ringmount.config.rules: what the types cannot say. (Keys that contradict each other: see check.)"""

import pytest

from ringmount.config import ConfigError, loads_mount

START = "mountpoint: /mnt/data\nfilesystem: memory\n"


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads_mount(text, "f", "data")
    return [str(error) for error in caught.value.all()]


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
    assert mistakes(f"filesystem: memory\nmountpoint: {value}\n") == [f"f:2:{13 if value else 12}: mountpoint: {error}"]


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


def test_one_queue_must_fit_only_where_there_are_rings() -> None:
    assert mistakes(START + "ring_memory: 1MiB\nqueue_depth: 2\n")
    loads_mount(START + "ring_memory: 1MiB\nqueue_depth: 1\n", "f", "data")
    loads_mount(START + "ring_memory: 4KiB\ntransport: dev_fuse\n", "f", "data")


@pytest.mark.parametrize("value", ["127.0.0.1:9876", "[::1]:1", "/run/ringmount/data.metrics", "/mnt/data.sock"])
def test_metrics_are_served_to_this_machine(value: str) -> None:
    assert loads_mount(f"{START}metrics: '{value}'\n", "f", "data").metrics == value


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("0.0.0.0:9876", "'0.0.0.0:9876' is not of this machine alone; give 127.0.0.1:PORT, [::1]:PORT or a path"),
        ("9876", "Expected a socket's path, 127.0.0.1:PORT or [::1]:PORT or null, got int 9876; where Prometheus"),
        ("localhost:9876", "'localhost:9876' is not of this machine alone; give 127.0.0.1:PORT"),
        ("'127.0.0.1:0'", "'0' is not a port; give a number from 1 to 65535"),
        ("127.0.0.1:65536", "'65536' is not a port; give a number from 1 to 65535"),
        ("127.0.0.1:http", "'http' is not a port; give a number from 1 to 65535"),
        ("run/metrics", "'run/metrics' is not of this machine alone; give"),
        ("/run/", "'/run' is needed by the system"),
        ("/srv/metrics/", "'/srv/metrics/' is a folder; name a socket in it, such as /srv/metrics/metrics.sock"),
        ("/mnt/data/metrics", "'/mnt/data/metrics' is inside of the mount; name a place outside"),
    ],
)
def test_metrics_are_not_served_anywhere_else(value: str, error: str) -> None:
    (line,) = mistakes(f"{START}metrics: {value}\n")
    assert line.startswith("f:3:10: metrics: " + error)


@pytest.mark.parametrize("other", ["cache: none", "cache: coherent", "data: passthrough", "default_permissions: false"])
def test_writeback_goes_with_nobody_else_who_decides(other: str) -> None:
    (line,) = mistakes(START + f"{other}\nwriteback: true\n")
    assert f"writeback does not go with {other}: " in line
    loads_mount(START + f"{other}\nwriteback: false\n", "f", "data")


def test_what_is_not_cached_is_not_kept() -> None:
    (line,) = mistakes(START + "cache: none\nkeep_cache: true\n")
    assert "cache: none keeps nothing" in line
