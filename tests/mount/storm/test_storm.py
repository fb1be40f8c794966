"""The short form of `make soak`: clients call, workers die, and nobody notices."""

from pathlib import Path

import pytest
from mount.storm.storm import HARSHLY, KINDLY, rage, serve_storm
from mount.support import TRANSPORTS

both = pytest.mark.parametrize("transport", TRANSPORTS)


@both
def test_no_call_fails_while_workers_crash_hang_and_are_replaced(tmp_path: Path, transport: str) -> None:
    with serve_storm(tmp_path, transport) as (mount, source):
        storm = rage(mount, source, KINDLY, deaths=16, interval=0.05)
    assert not storm.hung
    assert not storm.failures
    assert not storm.wrong
    assert storm.count("lost") == storm.count("quarantined") == 0
    assert storm.count("deaths") >= 8  # one that hangs may be asked to die by the next signal
    assert storm.calls > 100


@both
def test_no_call_hangs_and_hardly_one_fails_while_workers_are_killed(tmp_path: Path, transport: str) -> None:
    with serve_storm(tmp_path, transport) as (mount, source):
        storm = rage(mount, source, HARSHLY, deaths=8, interval=0.05)
    assert not storm.hung
    assert not storm.wrong
    assert storm.count("lost") == storm.count("quarantined") == 0
    # What the kernel had handed to a ring and not yet written to its entry ends there (docs/reliability.md).
    if transport == "dev_fuse":
        assert not storm.failures
    assert all(failure.endswith((" ECANCELED", " EINTR")) for failure in storm.failures)
    assert storm.failed <= 2 * storm.count("deaths")
