"""What callers get when a filesystem fails, answers nonsense, or does not answer to a request at all."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.clients import Caller, call, caller, requests, serve_class, status
from mount.filesystems import Hostile, Labelled
from mount.support import TRANSPORTS, ServedMount

both = pytest.mark.parametrize("transport", TRANSPORTS)


class Bad:
    """A hostile mount and its client."""

    def __init__(self, mount: ServedMount, folder: Path, user: Caller) -> None:
        self.mount = mount
        self.folder = folder
        self.user = user

    def error_of(self, expression: str) -> str:
        """The name of the error with which an expression ends; `{0}` to `{63}` are the files."""
        try:
            found = self.user.ask(self.with_paths(expression))
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        raise AssertionError(f"it returned {found!r}")

    def with_paths(self, expression: str) -> str:
        return expression.format(*[repr(f"{self.mount.path}/f{i}") for i in range(64)], root=repr(str(self.mount.path)))


@pytest.fixture(scope="module", params=TRANSPORTS)
def transport_of_module(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["Hostile", "AsyncHostile"])
def bad(
    request: pytest.FixtureRequest, transport_of_module: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bad]:
    folder = tmp_path_factory.mktemp("hostile")
    settings = {"transport": transport_of_module, "timeouts": {"attr": 0, "entry": 0}, "max_write": "128KiB"}
    with serve_class(folder, request.param, **settings) as mount, caller() as user:
        pids = [worker["pid"] for worker in status(mount)["workers"]]
        yield Bad(mount, folder, user)
        assert [worker["pid"] for worker in status(mount)["workers"]] == pids, "a worker died"


@pytest.mark.parametrize("number", sorted(Hostile.READS))
def test_a_read_that_returns_nonsense_fails(bad: Bad, number: int) -> None:
    assert bad.error_of(f"os.pread(os.open({{{number}}}, os.O_RDONLY), 65536, 0).hex()") == "EIO"


@pytest.mark.parametrize("number", range(5))
def test_a_write_that_returns_nonsense_fails(bad: Bad, number: int) -> None:
    assert bad.error_of(f"os.pwrite(os.open({{{number}}}, os.O_WRONLY), b'data', 0)") == "EIO"


@pytest.mark.parametrize("number", range(20, 29))
def test_attributes_that_cannot_be_are_an_error(bad: Bad, number: int) -> None:
    assert bad.error_of(f"os.stat({{{number}}}).st_size") == "EIO"


def test_a_file_that_became_a_folder_is_an_error(bad: Bad) -> None:
    assert bad.error_of("os.stat({29}).st_size") == "EIO"


@pytest.mark.parametrize("number", range(40, 46))
def test_an_entry_that_cannot_be_is_an_error(bad: Bad, number: int) -> None:
    assert bad.error_of(f"os.stat({{{number}}}).st_size") == "EIO"


@pytest.mark.parametrize("number", [10, 11])
def test_an_open_that_returns_nonsense_fails(bad: Bad, number: int) -> None:
    assert bad.error_of(f"os.open({{{number}}}, os.O_RDONLY)") == "EIO"


@pytest.mark.parametrize("which", range(len(Hostile.NAMES)))
def test_a_listing_with_a_name_that_cannot_be_fails(bad: Bad, which: int) -> None:
    (bad.folder / "which").write_text(str(which))
    try:
        assert bad.error_of("os.listdir({root})") == "EIO"
    finally:
        (bad.folder / "which").unlink()


@pytest.mark.parametrize(
    "expression",
    [
        "os.getxattr({0}, 'user.long').hex()",
        "os.getxattr({0}, 'user.none').hex()",
        "os.getxattr({0}, 'user.text').hex()",
        "os.listxattr({0})",
        "os.listxattr({1})",
        "os.listxattr({2})",
    ],
)
def test_attributes_that_cannot_be_told_are_an_error(bad: Bad, expression: str) -> None:
    assert bad.error_of(expression) in ("EIO", "E2BIG", "ERANGE")


def test_statistics_that_are_none_are_an_error(bad: Bad) -> None:
    assert bad.error_of("os.statvfs({root}).f_bsize") == "EIO"


def test_after_all_this_it_still_serves(bad: Bad) -> None:
    assert bad.user.ask(bad.with_paths("os.stat({1}).st_size")) == 65536
    assert len(bad.user.ask(bad.with_paths("os.listdir({root})"))) == 64


@pytest.fixture
def wrong(tmp_path: Path) -> Iterator[Bad]:
    with serve_class(tmp_path, "Hostile", timeouts={"attr": 0, "entry": 0}) as mount, caller() as user:
        yield Bad(mount, tmp_path, user)


def test_an_exception_is_logged_once_with_its_traceback_and_the_worker_goes_on(wrong: Bad) -> None:
    assert wrong.error_of("os.stat({26}).st_size") == "EIO"
    output = wrong.mount.output()
    assert output.count("Traceback (most recent call last)") == 1
    assert output.count("KeyError: 'a mistake'") == 1
    assert "GETATTR of node 28" in output
    assert "filesystems" in output or "mountfs.py" in output


def test_an_oserror_is_an_answer_and_not_logged(wrong: Bad) -> None:
    assert wrong.error_of("os.stat({root} + '/nothing').st_size") == "ENOENT"
    assert wrong.error_of("os.stat({23}).st_size") == "EIO"
    assert "Traceback" not in wrong.mount.output()


# --- what is not implemented ------------------------------------------------------------------------------------


@both
def test_a_filesystem_of_three_methods_works_as_far_as_it_goes(tmp_path: Path, transport: str) -> None:
    with serve_class_bare(tmp_path, transport) as mount, caller() as user:
        path = str(mount.path)

        def error_of(expression: str) -> str:
            with pytest.raises(OSError) as caught:
                user.ask(expression)
            return errno.errorcode[caught.value.errno or 0]

        for _ in range(3):
            assert user.ask(f"Path('{path}/file').read_text()") == "bare\n"
        assert user.ask(f"os.statvfs('{path}').f_namemax") == 255
        assert user.ask(f"os.access('{path}/file', os.R_OK)")
        assert error_of(f"os.listdir('{path}')") == "ENOSYS"
        assert error_of(f"os.mkdir('{path}/new')") == "ENOSYS"
        assert error_of(f"os.unlink('{path}/file')") == "ENOSYS"
        assert error_of(f"os.rename('{path}/file', '{path}/other')") == "ENOSYS"
        assert error_of(f"os.chmod('{path}/file', 0o600)") == "ENOSYS"
        assert error_of(f"os.open('{path}/new', os.O_CREAT | os.O_WRONLY)") == "ENOSYS"
        assert error_of(f"os.link('{path}/file', '{path}/other')") == "EPERM"
        assert error_of(f"os.getxattr('{path}/file', 'user.name').hex()") == "ENOTSUP"
        assert error_of(f"os.setxattr('{path}/file', 'user.name', b'')") == "ENOTSUP"
        assert error_of(f"os.listxattr('{path}/file')") == "ENOTSUP"
        assert error_of(f"os.removexattr('{path}/file', 'user.name')") == "ENOTSUP"
        assert error_of(f"os.pwrite(os.open('{path}/file', os.O_WRONLY), b'x', 0)") == "ENOSYS"
        assert user.ask(f"os.fsync(os.open('{path}/file', os.O_RDONLY))") is None
        assert user.ask(f"os.lseek(os.open('{path}/file', os.O_RDONLY), 0, os.SEEK_HOLE)") == 5
        assert "error" not in mount.output()


@both
def test_what_is_not_implemented_is_asked_for_once(tmp_path: Path, transport: str) -> None:
    with serve_class_bare(tmp_path, transport, timeouts={"attr": 3600, "entry": 3600}) as mount, caller() as user:
        path = str(mount.path)
        once = f"os.close(fd) for fd in [os.open('{path}/file', os.O_RDONLY)] if os.pread(fd, 5, 0) == b'bare\\n'"
        user.ask(f"[{once}]")
        before = sum(requests(mount))
        # Neither OPEN, FLUSH nor RELEASE, nor READ: the pages are there and nothing says that they are stale.
        user.ask(f"[[{once}] for _ in range(50)][-1]")
        assert sum(requests(mount)) - before <= 2


@contextlib.contextmanager
def serve_class_bare(folder: Path, transport: str, **settings: object) -> Iterator[ServedMount]:
    """`Bare` takes no options."""
    with serve_class(folder, "Bare", options=None, transport=transport, **settings) as mount:
        yield mount


# --- extended attributes ------------------------------------------------------------------------------------------


@both
def test_sizes_of_extended_attributes_can_be_asked_for(tmp_path: Path, transport: str) -> None:
    code = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
path = sys.argv[1].encode()
def sized(function, size, *name):
    buffer = ctypes.create_string_buffer(max(size, 1))
    result = function(path, *name, buffer, size)
    if result < 0:
        return errno.errorcode[ctypes.get_errno()]
    return buffer.raw[:result] if size else result
def get(name, size):
    return sized(libc.getxattr, size, name)
def names(size):
    return sized(libc.listxattr, size)
assert get(b"user.short", 0) == 5
assert get(b"user.short", 5) == b"value"
assert get(b"user.short", 100) == b"value"
assert get(b"user.short", 4) == "ERANGE"
assert get(b"user.empty", 0) == 0
assert get(b"user.empty", 10) == b""
assert get(b"user.long", 0) == 60000
assert get(b"user.long", 60000) == b"x" * 60000
assert get(b"user.long", 59999) == "ERANGE"
assert get(b"user.nothing", 0) == "ENODATA"
every = b"user.empty\\0user.short\\0user.long\\0"
assert names(0) == len(every)
assert names(len(every)) == every
assert names(len(every) - 1) == "ERANGE"
"""
    with serve_class(tmp_path, "Labelled", transport=transport) as mount:
        call(code, mount.path / "f0")
        assert sorted(os.listxattr(mount.path / "f0")) == sorted(name.decode() for name in Labelled.VALUES)


# --- settings that answers depend on --------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("name", ["Changing", "ChangingUnopened"])
def test_without_a_cache_every_change_shows_at_once(tmp_path: Path, transport: str, name: str) -> None:
    data = tmp_path / "data-2"
    settings = {"transport": transport, "cache": "none", "timeouts": {"attr": 3600, "entry": 3600, "negative": 3600}}
    data.write_text("first")
    with serve_class(tmp_path, name, **settings) as mount, caller() as user:
        file = f"{mount.path}/f0"
        fd = user.ask(f"os.open('{file}', os.O_RDONLY)")
        assert user.ask(f"os.pread({fd}, 100, 0).decode()") == "first"
        data.write_text("second")
        assert user.ask(f"os.pread({fd}, 100, 0).decode()") == "second"
        assert user.ask(f"os.stat('{file}').st_size") == 6
        (tmp_path / "gone-f0").touch()
        assert not user.ask(f"os.path.exists('{file}')")
        (tmp_path / "gone-f0").unlink()
        assert user.ask(f"os.path.exists('{file}')")
