"""From the machine and the settings to the plan of workers and buffers."""

import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringmount.config.model import MIB, MountConfig
from ringmount.daemon import machine
from ringmount.daemon.exitcodes import ExitCode, Failure
from ringmount.daemon.machine import BadSetting, Cpus

FOUR = Cpus(possible=4, online=(0, 1, 2, 3), usable=(0, 1, 2, 3))


def config(**settings: Any) -> MountConfig:
    return MountConfig(name="x", mountpoint="/mnt/x", filesystem="memory", **settings)


def test_cpus_are_read_from_sysfs(tmp_path: Path) -> None:
    (tmp_path / "possible").write_text("0-7\n")
    (tmp_path / "online").write_text("0-2,5\n")
    found = machine.cpus(tmp_path)
    assert (found.possible, found.online) == (8, (0, 1, 2, 5))


def test_this_machines_cpus_can_be_used() -> None:
    found = machine.cpus()
    assert set(found.usable) <= set(found.online) <= set(range(found.possible))


def test_a_machine_without_sysfs_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="cannot read the list of CPUs") as caught:
        machine.cpus(tmp_path)
    assert caught.value.code is ExitCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("settings", "single", "expected"),
    [
        ({}, False, (0, 1, 2, 3)),
        ({"workers": 2}, False, (0, 1)),
        ({"cpus": (3, 1)}, False, (3, 1)),
        ({"cpus": (3, 1), "workers": 1}, False, (3,)),
        ({}, True, (0,)),
        ({"cpus": (2, 3)}, True, (2,)),
    ],
)
def test_each_worker_has_a_cpu_of_its_own(settings: dict[str, Any], single: bool, expected: tuple[int, ...]) -> None:
    assert machine.worker_cpus(config(**settings), FOUR, single) == expected


def test_a_process_that_is_confined_to_some_cpus_uses_those() -> None:
    assert machine.worker_cpus(config(), Cpus(4, (0, 1, 2, 3), (1, 3)), False) == (1, 3)


@pytest.mark.parametrize(
    ("settings", "cpus", "key", "message"),
    [
        ({"cpus": (0, 4, 5)}, FOUR, "cpus", "CPU 4-5 is not there or not online; this machine has 0-3"),
        ({"cpus": (1,)}, Cpus(2, (0,), (0,)), "cpus", "CPU 1 is not there or not online; this machine has 0"),
        ({"cpus": (0, 1)}, Cpus(2, (0, 1), (0,)), "cpus", "this process may not run on CPU 1; its affinity"),
        ({"workers": 5}, FOUR, "workers", "5 are more than 4 CPUs, and each has one of its own; lower it to 4"),
        ({"workers": 2}, Cpus(1, (0,), (0,)), "workers", "2 are more than 1 CPU, "),
    ],
)
@pytest.mark.parametrize("single", [False, True])
def test_what_the_machine_has_not_is_refused_by_its_key(
    settings: dict[str, Any], cpus: Cpus, key: str, message: str, single: bool
) -> None:
    with pytest.raises(BadSetting) as caught:
        machine.worker_cpus(config(**settings), cpus, single)
    assert caught.value.key == key
    assert str(caught.value).startswith(message)
    assert caught.value.code is ExitCode.CONFIG


@given(st.integers(1, 64), st.data())
def test_every_possible_cpu_has_an_owner_and_an_entry(possible: int, data: st.DataObject) -> None:
    online = tuple(sorted(data.draw(st.sets(st.integers(0, possible - 1), min_size=1))))
    cpus = Cpus(possible, online, online)
    workers = machine.worker_cpus(config(workers=data.draw(st.integers(1, len(online)))), cpus, False)
    plan = machine.plan(config(ring_memory=1 << 46), cpus, workers)
    assert len(plan.depths) == len(plan.owners) == possible
    assert all(depth == (8 if cpu in online else 1) for cpu, depth in enumerate(plan.depths))
    assert all(0 <= owner < len(workers) for owner in plan.owners)
    assert all(plan.owners[cpu] == index for index, cpu in enumerate(workers))
    # The queues of CPUs without a worker are spread: no worker has all of them.
    others = [plan.owners[cpu] for cpu in range(possible) if cpu not in workers]
    if len(others) >= len(workers) * 8:
        assert set(others) == set(range(len(workers)))


def test_buffers_beyond_the_cap_are_refused_with_what_to_lower() -> None:
    exactly = machine.plan(config(ring_memory=1 << 46), FOUR, (0, 1, 2, 3)).buffer_bytes
    assert machine.plan(config(ring_memory=exactly), FOUR, (0, 1, 2, 3)).buffer_bytes == exactly
    with pytest.raises(BadSetting) as caught:
        machine.plan(config(ring_memory=exactly - 1), FOUR, (0, 1, 2, 3))
    assert caught.value.key == "ring_memory"
    assert caught.value.code is ExitCode.RESOURCES
    assert str(caught.value).startswith("32.1 MiB of buffers for 32 entries are more than ")
    assert caught.value.hint == "lower queue_depth (8) or max_write (1MiB), or raise ring_memory"


def test_by_default_buffers_may_take_a_quarter_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "machine_memory", lambda: 64 * MIB)
    assert machine.ring_memory_cap(config()) == 16 * MIB
    with pytest.raises(BadSetting, match="more than 16 MiB, a quarter of this machine's memory"):
        machine.plan(config(), FOUR, (0, 1, 2, 3))


def test_small_payloads_have_the_least_that_the_kernel_registers() -> None:
    assert machine.plan(config(max_write=4096), FOUR, (0,)).payload == 8192


@pytest.mark.parametrize(("pages", "expected"), [("256\n", MIB), ("64\n", 256 << 10), ("", MIB), (None, MIB)])
def test_the_kernels_page_limit_lowers_max_write(
    pages: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pages is not None:
        (tmp_path / "limit").write_text(pages)
    monkeypatch.setattr(machine, "MAX_PAGES_LIMIT", tmp_path / "limit")
    assert machine.max_write(config()) == expected


@pytest.mark.parametrize(("text", "expected"), [("Y\n", True), ("1\n", True), ("N\n", False), (None, None)])
def test_the_ring_switch_is_on_off_or_not_there(
    text: str | None, expected: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / "switch").write_text(text)
    monkeypatch.setattr(machine, "URING_SWITCH", tmp_path / "switch")
    assert machine.ring_switch() is expected


def test_the_limit_of_open_files_is_raised_to_what_is_allowed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        assert machine.raise_descriptor_limit() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_limit_that_cannot_be_raised_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(which: int, limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (100, 200))
    assert machine.raise_descriptor_limit() == 100
