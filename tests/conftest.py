"""What a test needs of the machine, and what happens where the machine has not got it.

Tests lie in folders by what they need, and the folder marks them: tests/ring with `ring`, tests/mount with
`mount`, tests/systemd with `root`; elsewhere a test is marked by hand (the io_uring half of a test that runs
on both transports, for one). Where the need is not met the test is skipped and says why, so that a laptop
without privileges runs the rest.

With RINGMOUNT_REQUIRE_RING=1 the machine is promised to have all of it (`make test` promises it as root on a
kernel whose ring switch is on, `.ci/run` always), and a marked test that skips, for whatever reason, fails: a
green run cannot hide tests that never ran. A test that needs more than that, say a newer kernel, is marked
`may_skip`.
"""

import os
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
RING_SWITCH = Path("/sys/module/fuse/parameters/enable_uring")
FOLDER_NEEDS = {"ring": "ring", "mount": "mount", "programs": "mount", "systemd": "root"}

# On request only: `make test-programs` sets the variable.
collect_ignore_glob = [] if os.environ.get("RINGMOUNT_PROGRAMS") else ["programs/test_*"]

# Examples take as long as a busy machine lets them; in CI the same ones are tried every time.
settings.register_profile("ringmount", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("ringmount")


def lack_of_root() -> str | None:
    """Why this process is not root, or None if it is. The other two answer for their markers alike."""
    return None if os.geteuid() == 0 else "needs root"


def lack_of_mount() -> str | None:
    if not Path("/dev/fuse").exists():
        return "needs /dev/fuse (modprobe fuse)"
    return lack_of_root()


def lack_of_ring() -> str | None:
    if not RING_SWITCH.exists():
        return f"needs a kernel with {RING_SWITCH} (Linux 6.14, CONFIG_FUSE_IO_URING)"
    if not RING_SWITCH.read_text().startswith("Y"):
        return f"needs FUSE-over-io_uring: echo Y >{RING_SWITCH}"
    return lack_of_mount()


LACKS: dict[str, Callable[[], str | None]] = {
    "root": lack_of_root,
    "mount": lack_of_mount,
    "ring": lack_of_ring,
}


def is_ring_required() -> bool:
    return os.environ.get("RINGMOUNT_REQUIRE_RING") == "1"


def top_folder(path: Path) -> str:
    """The folder below tests/ that a test file lies in, or an empty string."""
    return path.relative_to(TESTS).parts[0] if TESTS in path.parents else ""


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if need := FOLDER_NEEDS.get(top_folder(item.path)):
            item.add_marker(need)


@pytest.hookimpl(tryfirst=True)  # before any fixture is made
def pytest_runtest_setup(item: pytest.Item) -> None:
    for need, lack in LACKS.items():
        if item.get_closest_marker(need) and (reason := lack()):
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    is_marked = any(item.get_closest_marker(need) for need in LACKS)
    if is_marked and not item.get_closest_marker("may_skip"):
        fail_a_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if top_folder(collector.path) in FOLDER_NEEDS:
        fail_a_skip(report)
    return report


def fail_a_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turns a skip into a failure where the ring is required. An expected failure is no skip."""
    if is_ring_required() and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: {reason}; it may not be skipped, because RINGMOUNT_REQUIRE_RING=1"
