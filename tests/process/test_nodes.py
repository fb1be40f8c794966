"""The node table: alone, against a model, under many processes, and with processes that die inside it."""

import ctypes
import errno
import itertools
import os
import random
import signal
import struct
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from process.dying import Region, deaths, end_of, kill_at, start, start_until

from ringmount.workers._native import ffi
from ringmount.workers.api import ROOT, NodeId
from ringmount.workers.nodes import MOST_BYTES, NodeTable, size

SMALL = 64  # one shard
SHARDS = 1024  # four shards of 256 slots

Record = tuple[bytes | None, bytes, int]


class Table(NodeTable):
    """A node table in a region of its own, with room for intents behind it."""

    def __init__(self, capacity: int = SHARDS, worker: int = 0) -> None:
        self.region = Region(size(capacity) + 4096)
        super().__init__(self.region.address, size(capacity), worker, create=True)

    def also(self, worker: int) -> NodeTable:
        """The same table as another worker sees it."""
        return NodeTable(self.region.address, size(self.stats().capacity), worker)

    def words(self, number: int = 0) -> Any:
        return ffi.cast("uint64_t *", self.region.address + self.region.size - 4096) + 2 * number

    def records(self) -> list[Record]:
        """All nodes but the root: key, value, count."""
        self.verify()
        return sorted(
            ((self.key(node), self.value(node), count) for node, count in self.iterate() if node != ROOT),
            key=repr,
        )

    def record(self, node: NodeId) -> Record:
        return self.key(node), self.value(node), dict(self.iterate())[node]

    def keys_of_shards(self, n: int, long: int = 0) -> list[bytes]:
        """n keys, each of another shard."""
        found: dict[int, bytes] = {}
        for i in itertools.count():
            key = b"%d" % i + b"k" * long
            node = self.take(key, b"")
            self.give_back(node)
            found.setdefault((node & 0xFFFF_FFFF) // 256, key)
            if len(found) == n:
                return list(found.values())
        raise AssertionError


@pytest.fixture
def table() -> Table:
    return Table()


def errno_of(call: Callable[[], object]) -> str:
    with pytest.raises(OSError) as caught:
        call()
    return errno.errorcode[caught.value.errno or 0]


def pairs(*forgets: tuple[NodeId, int]) -> bytes:
    return b"".join(struct.pack("=QQ", *forget) for forget in forgets)


# --- one process ----------------------------------------------------------------------------------


def test_the_root_is_there_from_the_beginning_and_stays(table: Table) -> None:
    assert (table.value(ROOT), table.key(ROOT)) == (b"", None)
    table.replace(ROOT, b"/srv")
    assert not table.give_back(ROOT, 1)
    assert table.forget_batch(pairs((ROOT, 1))) == (1, [])
    assert table.value(ROOT) == b"/srv"
    assert table.stats().anomalies == 0


def test_the_root_can_be_found_once_it_has_a_key(table: Table) -> None:
    table.rekey(ROOT, b"root")
    assert table.take(b"root", b"not used") == ROOT
    assert table.find(b"root") == ROOT
    assert not table.give_back(ROOT)
    table.verify()


def test_one_key_is_one_node_with_the_value_of_its_maker(table: Table) -> None:
    node = table.take(b"key", b"value")
    assert table.take(b"key", b"another") == node
    assert table.record(node) == (b"key", b"value", 2)


def test_find_takes_no_reference(table: Table) -> None:
    assert table.find(b"key") is None
    node = table.take(b"key", b"value")
    assert table.find(b"key") == node
    assert table.give_back(node)
    assert table.find(b"key") is None


def test_a_node_goes_with_its_last_reference(table: Table) -> None:
    node = table.take(b"key", b"value")
    table.take(b"key", b"value")
    assert not table.give_back(node)
    assert table.give_back(node)
    assert errno_of(lambda: table.value(node)) == "ESTALE"
    assert table.records() == []


def test_a_nodeid_is_never_used_again() -> None:
    table = Table(SMALL)
    seen = set()
    for _ in range(1000):
        node = table.take(b"key", b"")
        seen.add(node)
        table.give_back(node)
    assert len(seen) == 1000
    assert table.stats().used <= 3


def test_an_unknown_node_is_estale_for_every_call(table: Table) -> None:
    gone = table.take(b"key", b"")
    table.give_back(gone)
    for node in map(NodeId, (0, gone, 77, 1 << 32 | 1, SHARDS, 2**32 - 1, 2**63, 2**64 - 1)):
        calls: list[Callable[[], object]] = [
            partial(table.value, node),
            partial(table.key, node),
            partial(table.watch, node),
            partial(table.give_back, node),
            partial(table.replace, node, b""),
            partial(table.rekey, node, b"k"),
            partial(table.rekey, node, None),
        ]
        assert {errno_of(call) for call in calls} == {"ESTALE"}
    table.verify()


@pytest.mark.parametrize("length", [0, 1, 79, 80, 81, 112, 113, 224, 225, 1023, 1024])
def test_bytes_of_any_length_come_back_as_they_were(table: Table, length: int) -> None:
    for split in {0, 1, length // 2, length} & set(range(length + 1)):
        key, value = os.urandom(split), os.urandom(length - split)
        node = table.take(key, value)
        assert (table.key(node), table.value(node), table.find(key)) == (key, value, node)
        table.verify()
        assert table.give_back(node)
    assert table.records() == []


def test_more_bytes_than_fit_are_refused(table: Table) -> None:
    node = table.take(b"k" * 10, b"")
    full = b"v" * MOST_BYTES
    for call in (
        lambda: table.take(b"k", full),
        lambda: table.take(full, b"v"),
        lambda: table.take(full * 1000, full * 1000),
        lambda: table.replace(node, full),
        lambda: table.rekey(node, full + b"k"),
    ):
        assert errno_of(call) == "ENAMETOOLONG"
    table.replace(node, b"v" * (MOST_BYTES - 10))
    assert errno_of(lambda: table.rekey(node, b"k" * 11)) == "ENAMETOOLONG"
    assert table.find(full * 2) is None
    assert table.records() == [(b"k" * 10, b"v" * (MOST_BYTES - 10), 1)]


def test_a_replaced_value_is_there_and_the_key_stays(table: Table) -> None:
    node = table.take(b"key", b"first")
    for length in (0, 5, 200, 3, 1000, 1000, 77, 78, 0):
        value = os.urandom(length)
        table.replace(node, value)
        assert table.record(node) == (b"key", value, 1)
        assert table.find(b"key") == node
        table.verify()


def test_a_node_moves_to_its_new_key_in_whatever_shard(table: Table) -> None:
    keys = table.keys_of_shards(4) + table.keys_of_shards(4, long=300)
    node = table.take(keys[0], b"value")
    old = keys[0]
    for key in [*keys, *keys[::-1]]:
        table.rekey(node, key)
        assert table.find(key) == node
        assert key == old or table.find(old) is None
        assert table.records() == [(key, b"value", 1)]
        old = key
    assert table.give_back(node)
    assert table.records() == []


def test_a_node_without_a_key_lives_on_and_its_key_is_free(table: Table) -> None:
    node = table.take(b"key", b"value")
    table.rekey(node, None)
    table.rekey(node, None)
    assert (table.key(node), table.value(node), table.find(b"key")) == (None, b"value", None)
    other = table.take(b"key", b"another")
    assert other != node
    assert errno_of(lambda: table.rekey(node, b"key")) == "EEXIST"
    table.rekey(node, b"free")
    assert table.give_back(node)
    assert table.give_back(other)
    assert table.records() == []


def test_the_empty_key_is_a_key(table: Table) -> None:
    node = table.take(b"", b"")
    assert table.find(b"") == node
    assert table.key(node) == b""


def test_a_full_table_says_enfile_and_works_on() -> None:
    table = Table(SMALL)
    nodes: list[NodeId] = []
    with pytest.raises(OSError) as caught:
        nodes.extend(table.take(b"%d" % i, b"") for i in itertools.count())
    assert caught.value.errno == errno.ENFILE
    assert len(nodes) == SMALL - 2
    assert errno_of(lambda: table.replace(nodes[0], b"v" * 100)) == "ENOSPC"
    assert errno_of(lambda: table.rekey(nodes[0], b"k" * 100)) == "ENOSPC"
    assert table.take(b"0", b"") == nodes[0]
    table.give_back(nodes.pop())
    assert errno_of(lambda: table.take(b"k" * 100, b"")) == "ENFILE"
    assert table.take(b"new", b"")
    table.verify()


def test_references_that_were_not_taken_are_counted_and_harm_nobody(table: Table) -> None:
    node = table.take(b"key", b"")
    other = table.take(b"other", b"")
    assert table.give_back(node, 5)
    assert table.forget_batch(pairs((node, 1), (NodeId(12345), 1))) == (2, [])
    assert table.stats().anomalies == 3
    assert table.record(other) == (b"other", b"", 1)


def test_a_batch_of_forgets_names_the_watched_nodes_that_went(table: Table) -> None:
    watched, unwatched, kept = (table.take(key, b"") for key in (b"a", b"b", b"c"))
    table.take(b"c", b"")
    table.also(worker=3).watch(watched)
    table.also(worker=66).watch(watched)
    table.watch(kept)
    done, gone = table.forget_batch(memoryview(pairs((watched, 1), (unwatched, 1), (kept, 1))))
    assert (done, gone) == (3, [(watched, 1 << 3 | 1 << 2)])
    assert table.records() == [(b"c", b"", 1)]
    assert table.forget_batch(b"") == (0, [])


def test_a_node_that_goes_in_a_worker_leaves_word_for_the_other_watchers(table: Table) -> None:
    mine, both = table.take(b"mine", b""), table.take(b"both", b"")
    table.watch(mine)
    table.watch(both)
    table.also(worker=5).watch(both)
    assert table.give_back(mine)
    assert table.give_back(both)
    assert table.departed == [(both, 1 << 5)]


def test_a_new_node_in_an_old_slot_has_no_watchers() -> None:
    table = Table(SMALL)
    node = table.take(b"key", b"")
    table.also(worker=5).watch(node)
    table.forget_batch(pairs((node, 1)))
    node = table.take(b"key", b"")
    assert table.forget_batch(pairs((node, 1))) == (1, [])


def test_iterate_gives_every_node_and_its_count(table: Table) -> None:
    expected = {ROOT: 1}
    for i in range(600):
        node = table.take(b"%d" % (i % 300), b"")
        expected[node] = expected.get(node, 0) + 1
    assert dict(table.iterate()) == expected
    assert table.stats().live == 301


def test_an_empty_table_of_four_million_slots_takes_a_few_pages() -> None:
    table = Table(4 << 20)
    assert table.stats().capacity == 4 << 20
    assert table.region.bytes_in_use() < 1 << 20


def test_what_is_not_a_table_is_refused() -> None:
    region = Region(1 << 20)
    for bad in (0, 100, 8192):
        assert errno_of(partial(NodeTable, region.address, bad, 0, create=True)) == "EINVAL"
    assert errno_of(lambda: NodeTable(region.address, region.size, 0)) == "EINVAL"
    NodeTable(region.address, region.size, 0, create=True)
    NodeTable(region.address, region.size, 0)
    assert errno_of(lambda: NodeTable(region.address, region.size + 4096, 0)) == "EINVAL"
    region.map[8] += 1
    assert errno_of(lambda: NodeTable(region.address, region.size, 0)) == "EPROTONOSUPPORT"


class Model(RuleBasedStateMachine):
    """The table does what a dictionary does."""

    nodes = Bundle("nodes")
    keys = st.binary(max_size=3) | st.binary(min_size=70, max_size=130)
    values = st.binary(max_size=5) | st.binary(min_size=60, max_size=400)

    def __init__(self) -> None:
        super().__init__()
        self.table = Table()
        self.model: dict[NodeId, tuple[bytes | None, bytes, int]] = {}

    def owner(self, key: bytes) -> NodeId | None:
        return next((node for node, record in self.model.items() if record[0] == key), None)

    @rule(target=nodes, key=keys, value=values)
    def take(self, key: bytes, value: bytes) -> NodeId:
        owner = self.owner(key)
        node = self.table.take(key, value)
        assert owner in (node, None)
        old = self.model.get(node, (key, value, 0))
        self.model[node] = (*old[:2], old[2] + 1)
        return node

    @rule(node=nodes, key=st.none() | keys)
    def rekey(self, node: NodeId, key: bytes | None) -> None:
        owner = None if key is None else self.owner(key)
        if node not in self.model:
            assert errno_of(lambda: self.table.rekey(node, key)) == "ESTALE"
        elif owner not in (None, node):
            assert errno_of(lambda: self.table.rekey(node, key)) == "EEXIST"
        else:
            self.table.rekey(node, key)
            self.model[node] = (key, *self.model[node][1:])

    @rule(node=nodes, value=values)
    def replace(self, node: NodeId, value: bytes) -> None:
        if node in self.model:
            self.table.replace(node, value)
            key, _, count = self.model[node]
            self.model[node] = (key, value, count)

    @rule(node=consumes(nodes), count=st.integers(1, 2))
    def give_back(self, node: NodeId, count: int) -> None:
        if node not in self.model:
            assert errno_of(lambda: self.table.give_back(node, count)) == "ESTALE"
            return
        key, value, old = self.model.pop(node)
        assert self.table.give_back(node, count) == (count >= old)
        if count < old:
            self.model[node] = (key, value, old - count)

    @invariant()
    def agrees(self) -> None:
        assert self.table.records() == sorted(self.model.values(), key=repr)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


# --- many threads and processes -------------------------------------------------------------------


def test_threads_get_each_their_own_answers(table: Table) -> None:
    wrong: set[int] = set()

    def work(number: int) -> None:
        node = table.take(b"%d" % number, bytes([number]) * number)
        for _ in range(2000):
            if table.value(node) != bytes([number]) * number or table.key(node) != b"%d" % number:
                wrong.add(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_value_is_read_whole_while_others_replace_it(table: Table) -> None:
    values = [bytes([i]) * length for i, length in enumerate((10, 1000, 80, 300, 0, 900))]
    node = table.take(b"key", values[0])

    def replace() -> None:
        for i in range(20_000):
            table.replace(node, values[i % len(values)])

    pids = [start(replace), start(replace)]
    seen = {table.value(node) for _ in range(20_000)}
    assert [end_of(pid) for pid in pids] == [0, 0]
    assert seen <= set(values)
    table.verify()


def churn(table: NodeTable, seed: int, rounds: int) -> None:
    """Random operations on common keys that keep the books: what was taken is given back."""
    chance = random.Random(seed)
    held: list[NodeId] = []
    for _ in range(rounds):
        act = chance.random()
        if act < 0.5 or not held:
            key = b"%d" % chance.randrange(40) + b"k" * chance.choice((0, 0, 100))
            held.append(table.take(key, b"v" * chance.choice((0, 10, 200))))
        elif act < 0.9:
            table.give_back(held.pop(chance.randrange(len(held))))
        elif act < 0.95:
            table.replace(chance.choice(held), b"w" * chance.choice((0, 10, 200)))
        else:
            key = b"%d" % chance.randrange(40)
            try:
                table.rekey(chance.choice(held), chance.choice((key, None)))
            except FileExistsError:
                pass
    for node in held:
        table.give_back(node)


def test_processes_that_keep_the_books_leave_an_empty_table(table: Table) -> None:
    pids = [start(partial(churn, table, seed, 5000)) for seed in range(4)]
    assert [end_of(pid) for pid in pids] == [0] * 4
    assert table.records() == []
    assert table.stats().anomalies == 0


def test_a_forget_in_one_process_never_takes_a_node_that_another_just_found(table: Table) -> None:
    rounds = 30_000

    def look_up() -> None:
        for _ in range(rounds):
            node = table.take(b"key", b"value")
            assert table.value(node) == b"value"
            table.give_back(node)

    pids = [start(look_up) for _ in range(3)]
    assert [end_of(pid) for pid in pids] == [0] * 3
    assert table.records() == []
    assert table.stats().anomalies == 0


# --- death ----------------------------------------------------------------------------------------

Act = Callable[[Table], Callable[[], object]]


def making_a_node(table: Table) -> Callable[[], object]:
    return lambda: table.take(b"new", b"value")


def making_a_long_node_from_used_slots(table: Table) -> Callable[[], object]:
    (key,) = table.keys_of_shards(1)
    long = key + b"k" * 300
    for i in range(8):
        table.give_back(table.take(long, b"v" * 100 * i))
    return lambda: table.take(long, b"v" * 600)


def finding_a_node(table: Table) -> Callable[[], object]:
    table.take(b"key", b"value")
    return lambda: table.take(b"key", b"value")


def giving_one_back(table: Table) -> Callable[[], object]:
    node = table.take(b"key", b"value")
    table.take(b"key", b"value")
    return lambda: table.give_back(node)


def giving_the_last_back(table: Table) -> Callable[[], object]:
    for i in range(60):  # neighbours in its chain
        table.take(b"%d" % i, b"")
    node = table.take(b"key" * 50, b"value" * 50)
    for i in range(60, 120):
        table.take(b"%d" % i, b"")
    return lambda: table.give_back(node)


def giving_the_last_back_of_a_moved_node(table: Table) -> Callable[[], object]:
    first, second = table.keys_of_shards(2)
    node = table.take(first, b"value" * 50)
    table.rekey(node, second)
    return lambda: table.give_back(node)


def replacing_a_short_value(table: Table) -> Callable[[], object]:
    node = table.take(b"key", b"first")
    return lambda: table.replace(node, b"second")


def replacing_a_long_value(table: Table) -> Callable[[], object]:
    node = table.take(b"key", b"first" * 100)
    return lambda: table.replace(node, b"second" * 100)


def rekeying_at_home(table: Table) -> Callable[[], object]:
    node = table.take(b"key", b"value")
    for i in range(100):
        key = b"%d" % i
        other = table.take(key, b"")
        table.give_back(other)
        if (node & 0xFFFF_FFFF) // 256 == (other & 0xFFFF_FFFF) // 256:
            return lambda: table.rekey(node, key)
    raise AssertionError


def rekeying_to_another_shard(table: Table) -> Callable[[], object]:
    first, second = table.keys_of_shards(2)
    node = table.take(first, b"value" * 50)
    return lambda: table.rekey(node, second)


def rekeying_between_two_other_shards(table: Table) -> Callable[[], object]:
    home, first, second = table.keys_of_shards(3)
    node = table.take(home, b"value")
    table.rekey(node, first)
    return lambda: table.rekey(node, second)


def rekeying_back_home(table: Table) -> Callable[[], object]:
    home, other = table.keys_of_shards(2)
    node = table.take(home, b"value" * 50)
    table.rekey(node, other)
    return lambda: table.rekey(node, home)


def taking_the_key_away(table: Table) -> Callable[[], object]:
    first, second = table.keys_of_shards(2)
    node = table.take(first, b"value")
    table.rekey(node, second)
    return lambda: table.rekey(node, None)


def watching(table: Table) -> Callable[[], object]:
    node = table.take(b"key", b"value")
    return lambda: table.watch(node)


ACTS: list[Act] = [
    making_a_node,
    making_a_long_node_from_used_slots,
    finding_a_node,
    giving_one_back,
    giving_the_last_back,
    giving_the_last_back_of_a_moved_node,
    replacing_a_short_value,
    replacing_a_long_value,
    rekeying_at_home,
    rekeying_to_another_shard,
    rekeying_between_two_other_shards,
    rekeying_back_home,
    taking_the_key_away,
    watching,
]
every_act = pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)


class Stage:
    """Tables prepared for one act, each afresh, and how they look before and after it."""

    def __init__(self, act: Act) -> None:
        self.act = act
        self.table = Table()
        self.before: list[Record] = []

    def prepare(self) -> Callable[[], object]:
        self.table = Table()
        action = self.act(self.table)
        self.before = self.table.records()
        return action

    def usable(self) -> None:
        """Every chain and free list still works."""
        churn(self.table, 1, 60)
        self.table.verify()


@every_act
def test_a_death_at_any_step_leaves_the_act_done_or_not_begun(act: Act) -> None:
    stage = Stage(act)
    outcomes = []
    for pid in deaths(stage.prepare):
        if pid:
            stage.table.recover(pid)
        after = stage.table.records()
        outcomes.append((stage.before, after))
        stage.usable()
        assert len(stage.table.records()) == len(after)
    done = sorted(outcomes[-1][1], key=repr)
    shape = [record[1:] for record in done]
    seen = [
        "not begun" if after == before else "done" if [r[1:] for r in after] == shape else after
        for before, after in outcomes
    ]
    assert set(seen) <= {"not begun", "done"}
    assert seen == sorted(seen, reverse=True)


@every_act
def test_who_waits_for_a_dead_owner_repairs_what_it_left(act: Act) -> None:
    stage = Stage(act)
    for step in itertools.count(1, 5):
        pid = start_until(step, stage.prepare())
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # a zombie: its number is still taken
        stage.usable()
        if end_of(pid) == 0:
            break


@pytest.mark.parametrize(
    "act",
    [making_a_long_node_from_used_slots, giving_the_last_back_of_a_moved_node, rekeying_to_another_shard],
    ids=lambda act: act.__name__,
)
def test_a_death_during_the_repair_is_repaired_too(act: Act) -> None:
    stage = Stage(act)
    for step in itertools.count(2, 4):
        victim = kill_at(step, stage.prepare())
        if not victim:
            break
        for repair_step in itertools.count(1 + step % 3, 3):
            if not kill_at(repair_step, partial(stage.table.recover, victim)):
                break
        stage.table.recover()
        stage.usable()


def test_a_table_that_was_repaired_can_be_repaired_again(table: Table) -> None:
    node = table.take(b"key", b"first" * 100)
    for step in range(1, 30):
        table.recover(kill_at(step, lambda: table.replace(node, b"second" * 100)))
        table.verify()
        table.replace(node, b"third" * 100)
    assert table.give_back(node)
    assert table.records() == []


def test_what_a_dead_tree_left_is_put_right_at_once(table: Table) -> None:
    node = table.take(b"key", b"value")
    for step in (3, 4, 5):
        assert kill_at(step, lambda: table.replace(node, b"other"))
    assert table.recover() >= 1
    assert table.recover() == 0
    assert table.stats().repairs >= 1
    table.verify()


def test_a_batch_of_forgets_waits_for_a_stopped_owner_only_shortly() -> None:
    table = Table(SMALL)
    nodes = [table.take(b"%d" % i, b"") for i in range(3)]
    pid = start_until(2, lambda: table.give_back(nodes[0]), signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)
    assert owners(table) == {pid}
    begin = time.monotonic()
    assert table.forget_batch(pairs((nodes[1], 1), (nodes[2], 1))) == (0, [])
    intent = table.words()
    intent[0], intent[1] = nodes[1], 2**64 - 1
    assert errno_of(lambda: table.settle(intent)) == "EAGAIN"
    intent[0] = 0
    assert time.monotonic() - begin < 5
    os.kill(pid, signal.SIGCONT)
    assert end_of(pid) == 0
    assert table.forget_batch(pairs((nodes[1], 1), (nodes[2], 1))) == (2, [])
    assert table.records() == []


def test_processes_killed_at_random_leave_a_table_that_works(table: Table) -> None:
    chance = random.Random(7)
    for generation in range(30):
        pids = [start(partial(churn, table, seed, 10**9)) for seed in range(3)]
        while table.stats().live < 5:
            os.sched_yield()
        for _ in range(chance.randrange(3000)):
            table.give_back(table.take(b"%d" % generation, b""))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert [end_of(pid) for pid in pids] == [-signal.SIGKILL] * 3
        table.recover()
        for node, count in list(table.iterate()):
            table.give_back(node, count)
        assert table.records() == []
    assert table.stats().anomalies == 0


# --- intents --------------------------------------------------------------------------------------


def counting(table: Table, key: bytes) -> Callable[[], object]:
    return lambda: table.take(key, b"value" * 30, table.words())


@pytest.mark.parametrize("known", [0, 1, 3])
def test_a_reference_counted_by_a_dead_process_is_given_back_exactly_once(known: int) -> None:
    def act(table: Table) -> Callable[[], object]:
        for _ in range(known):
            table.take(b"key", b"value" * 30)
        return counting(table, b"key")

    stage = Stage(act)
    for pid in deaths(stage.prepare):
        if pid % 2:
            stage.table.recover(pid)
        for _ in range(2):
            stage.table.settle(stage.table.words())
            assert stage.table.records() == stage.before


@pytest.mark.parametrize("known", [0, 2])
def test_a_death_while_a_reference_is_given_back_does_not_give_it_back_twice(known: int) -> None:
    def settling(table: Table) -> Callable[[], object]:
        first, second = table.keys_of_shards(2)
        for _ in range(known):
            table.take(first, b"value")
        counting(table, first)()
        node = table.find(first)
        assert node
        table.rekey(node, second)
        return lambda: table.settle(table.words())

    stage = Stage(settling)
    for _ in deaths(stage.prepare):
        stage.table.settle(stage.table.words())
        assert stage.table.words()[0] == 0
        assert [count for _, _, count in stage.table.records()] == ([known] if known else [])
        stage.usable()


def test_an_old_intent_does_not_harm_a_new_one(table: Table) -> None:
    keys = table.keys_of_shards(2)
    for step in itertools.count(1):
        pid = kill_at(step, counting(table, keys[0]))
        table.settle(table.words())
        node = table.take(keys[1], b"value", table.words())
        table.recover(pid)
        assert [(key, count) for key, _, count in table.records()] == [(keys[1], 1)]
        assert table.settle(table.words())
        assert errno_of(partial(table.value, node)) == "ESTALE"
        if not pid:
            break


def test_an_intent_that_was_not_cleared_stands_for_one_reference_at_every_instant() -> None:
    def act(table: Table) -> Callable[[], object]:
        counting(table, b"first")()
        return counting(table, b"second")

    stage = Stage(act)
    for _ in deaths(stage.prepare):
        stage.table.settle(stage.table.words())
        assert stage.table.records() in ([], stage.before)


def test_a_settled_node_leaves_word_for_its_watchers(table: Table) -> None:
    node = table.take(b"key", b"", table.words())
    table.also(worker=9).watch(node)
    assert table.settle(table.words())
    assert table.departed == [(node, 1 << 9)]


# --- death at any instruction -----------------------------------------------------------------------

PTRACE_TRACEME, PTRACE_SINGLESTEP = 0, 9
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def start_traced(action: Callable[[], object]) -> int:
    """A child of which we are the tracer, stopped inside `action` just after it took its first lock."""

    def act() -> None:
        if libc.ptrace(PTRACE_TRACEME, 0, None, None):
            os._exit(77)
        action()

    pid = start_until(1, act, signal.SIGTRAP)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 77:
        pytest.skip("ptrace(2) is not permitted here")
    assert os.WIFSTOPPED(status)
    return pid


def owners(table: Table) -> set[int]:
    """Who holds locks of the table's shards."""
    shards = max(1, table.stats().capacity // 256)
    return {struct.unpack_from("=I", table.region.map, 4096 + 64 * i)[0] for i in range(shards)} - {0}


def single_steps(pid: int, table: Table, most: int) -> int:
    """Lets the child run for `most` instructions, or until it is out of the table; returns how many."""
    free_for = 0
    for n in range(most):
        free_for = 0 if owners(table) else free_for + 1
        if free_for == 200:  # longer than between the two attempts to lock a node that has moved
            return n
        assert libc.ptrace(PTRACE_SINGLESTEP, pid, None, None) == 0
        os.waitpid(pid, 0)
    return most


@pytest.mark.parametrize(
    "act",
    [making_a_node, giving_the_last_back_of_a_moved_node, rekeying_to_another_shard, replacing_a_short_value],
    ids=lambda act: act.__name__,
)
def test_a_death_at_any_instruction_leaves_a_table_that_works(act: Act) -> None:
    stage = Stage(act)
    stride = int(os.environ.get("RINGMOUNT_TEST_STRIDE", "23"))
    for instruction in itertools.count(0, stride):
        pid = start_traced(stage.prepare())
        reached = single_steps(pid, stage.table, instruction)
        os.kill(pid, signal.SIGKILL)
        assert end_of(pid) == -signal.SIGKILL
        stage.table.recover(pid)
        stage.usable()
        if reached < instruction:
            break
    assert instruction > 200
