"""What is fetched along with the requested keys, and that the cost of a large folder grows in proportion."""

from __future__ import annotations

import stat

import pytest
from support.clock import Clock
from support.fake_log import FakeLog, SharedLog, answer_early, family_of

from dfs_server.protocol.messages import Items, ReadKeys, ReadRange, Values
from dfsfuse.namespace.map.cache import MapCache
from dfsfuse.namespace.map.fetching import READ_KEYS
from dfsfuse.namespace.map.log_map import LogMap
from dfsfuse.namespace.map.neighbours import BLOCK_INODES, InodeCompanions
from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.namespace.ops import directories, inodes, renames
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.inode import FORMAT, Entry, decode_entry, encode


def entries(count: int) -> dict[bytes, bytes]:
    """More names in folder 1 than one request asks for."""
    return {keys.entry(1, b"n%06d" % number): b"x" for number in range(count)}


def is_free(store: LogMap, name: bytes) -> bool:
    return store.read(lambda view: view.get(keys.entry(1, name)), max_age_s=1e9) is None


def test_one_key_of_a_small_family_brings_the_rest(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    shared.put(d1="1", d2="2")
    store.read(lambda view: view.get(b"d1"))
    log.asked.clear()
    assert store.read(lambda view: (view.get(b"d2"), view.get(b"d9")), max_age_s=1.0) == (b"2", None)
    assert log.asked == []


def test_a_long_range_comes_in_pages(store: LogMap, shared: SharedLog) -> None:
    keys = [b"d%05d" % n for n in range(12_001)]
    shared.commit(dict.fromkeys(keys, b"v"), ())
    assert [key for key, _ in store.read(lambda view: view.scan(b"d", b"e"))] == keys


def test_what_is_answered_while_a_family_is_fetched_is_in_it(leased: LogMap, log: FakeLog, shared: SharedLog) -> None:
    """Files that are made while their large folder is being listed are in the next listing too, and removing them
    removes nothing else."""
    shared.map |= {b"d1": b"1", b"d3": b"3"}
    log.before_read.append(lambda: leased.transact(lambda tx: tx.put(b"d2", b"2"), durable=False))
    listed = [(b"d1", b"1"), (b"d2", b"2"), (b"d3", b"3")]
    assert leased.read(lambda view: view.scan(b"d", b"e")) == listed
    leased.flush()
    assert leased.read(lambda view: view.scan(b"d", b"e")) == listed
    leased.transact(lambda tx: tx.delete(b"d2"), durable=False)
    assert leased.read(lambda view: view.scan(b"d", b"e")) == [listed[0], listed[2]]


@pytest.mark.parametrize(("start", "end"), [(b"d", b"e"), (b"f1", b"f9")])
def test_under_the_lease_what_waits_is_laid_over_what_is_fetched_and_not_committed_first(
    leased: LogMap, log: FakeLog, shared: SharedLog, start: bytes, end: bytes
) -> None:
    """Both for a family and for a range that is not one, with keys that were made, changed and removed."""
    old, gone, new = start + b"1", start + b"2", start + b"3"
    shared.map |= {old: b"old", gone: b"gone"}

    def change(tx: Transaction) -> None:
        tx.put(old, b"changed")
        tx.delete(gone)
        tx.put(new, b"new")

    leased.transact(change, durable=False)
    for _ in range(2):
        leased.state.cache.forget()
        assert leased.read(lambda view: view.get_many([gone, new, old])) == [None, b"new", b"changed"]
        leased.state.cache.forget()
        assert leased.read(lambda view: view.get(new)) == b"new"
        assert leased.read(lambda view: view.scan(start, end)) == [(old, b"changed"), (new, b"new")]
        leased.transact(lambda tx: tx.put(old, b"changed"), durable=False)
    assert set(log.asked) == {"keys", "range"}
    leased.flush()
    assert shared.map == {old: b"changed", new: b"new", b"first": b"x"}


def test_without_the_lease_what_waits_is_committed_before_something_is_fetched(
    leased: LogMap, log: FakeLog, clock: Clock
) -> None:
    leased.transact(lambda tx: tx.put(b"d1", b"x"), durable=False)
    clock.now += 11.0
    assert leased.read(lambda view: view.scan(b"d", b"e")) == [(b"d1", b"x")]
    assert log.asked[:2] == ["commit", "range"]


def test_inodes_that_were_made_together_are_fetched_together(log: FakeLog, clock: Clock, shared: SharedLog) -> None:
    """And inodes that are known already are not requested again."""
    store = LogMap(log, keys.family_of, clock, clock.sleep, companions=InodeCompanions())  # type: ignore[arg-type]
    shared.commit({keys.inode(ino): b"%d" % ino for ino in range(200)}, ())
    asked: list[int] = []
    at_once = log.read_beside

    def count(request: ReadKeys | ReadRange) -> Values | Items | None:
        asked.append(len(request.keys) if isinstance(request, ReadKeys) else 0)
        return at_once(request)

    log.read_beside = count  # type: ignore[method-assign]
    assert store.read(lambda view: view.get(keys.inode(70)))
    asked.clear()
    for ino in (64, 65, 95, 96, 100, 3, 130):
        assert store.read(lambda view, ino=ino: view.get(keys.inode(ino)), max_age_s=100.0) == b"%d" % ino  # type: ignore[misc]
    assert asked == [BLOCK_INODES - 1, BLOCK_INODES, 1, BLOCK_INODES]
    assert store.read(lambda view: view.get(b"l/70"), max_age_s=100.0) is None
    assert asked[-1] == 1


@pytest.fixture
def joining(log: FakeLog, clock: Clock) -> LogMap:
    """A map in which names bring inodes. Its clock never stands still."""

    def tick() -> float:
        clock.now += 0.000_001
        return clock.now

    companions = InodeCompanions()
    return LogMap(log, keys.family_of, tick, clock.sleep, companions=companions, join_of=keys.join_of)  # type: ignore[arg-type]


def make_folder(joining: LogMap, log: FakeLog, shared: SharedLog, count: int) -> None:
    """Make a folder of files, and let the map learn that something was changed."""
    entry = (encode(Entry(FORMAT, 100 + n, stat.S_IFREG)) for n in range(count))
    shared.commit({keys.entry(1, b"n%05d" % n): value for n, value in enumerate(entry)}, ())
    shared.commit({keys.inode(100 + n): b"inode %d" % n for n in range(count)}, ())
    joining.read(lambda view: view.get(b"other"))
    log.asked.clear()


def look_up(view: View, number: int = 1) -> bytes | None:
    """A name, and then its inode."""
    entry = view.get(keys.entry(1, b"n%05d" % number))
    return None if entry is None else view.get(keys.inode(decode_entry(entry).ino))


@pytest.mark.parametrize(("joins", "then"), [(True, []), (False, ["keys"])])
def test_a_name_brings_its_inode(
    joining: LogMap, log: FakeLog, shared: SharedLog, joins: bool, then: list[str]
) -> None:
    """Servers of version 0.1.0 do not send it along."""
    log.joins = joins
    make_folder(joining, log, shared, 200)
    for _ in range(2):
        assert joining.read(look_up, max_age_s=1.0) == b"inode 1"
        assert joining.read(lambda view: look_up(view, 999), max_age_s=1.0) is None
    assert log.asked == ["range", *then]


def test_the_inode_that_came_along_counts_as_looked_at(joining: LogMap, log: FakeLog, shared: SharedLog) -> None:
    """So the second one brings the inodes that were made at about the same time, as it would otherwise."""
    make_folder(joining, log, shared, 200)
    for number in (1, 2, 3, 4):
        assert joining.read(lambda view, number=number: look_up(view, number), max_age_s=1.0)  # type: ignore[misc]
    assert log.asked == ["range", "keys"]


def test_so_does_a_name_in_a_large_folder(joining: LogMap, log: FakeLog, shared: SharedLog) -> None:
    make_folder(joining, log, shared, 300)
    assert joining.read(look_up, max_age_s=1.0) == b"inode 1"
    assert joining.read(lambda view: look_up(view, 290), max_age_s=1.0) == b"inode 290"
    assert log.asked == ["range", "range", "range"], "the first page only says that the folder is large"


@pytest.mark.parametrize(("joins", "then"), [(True, ["keys"] * 2), (False, ["keys"] * 3)])
def test_a_page_of_names_brings_its_inodes(
    joining: LogMap, log: FakeLog, shared: SharedLog, joins: bool, then: list[str]
) -> None:
    log.joins = joins
    make_folder(joining, log, shared, 2500)

    def work(view: View) -> int:
        inos = [decode_entry(value).ino for _, value in view.scan(*keys.entries(1))]
        return len(set(view.get_many([keys.inode(ino) for ino in inos])))

    assert joining.read(work) == 2500
    assert log.asked == ["range", "catch up", *then]
    log.asked.clear()
    shared.commit({keys.entry(1, b"new"): encode(Entry(FORMAT, 100, stat.S_IFREG))}, ())
    at_once = log.read_beside

    def without_inodes(request: ReadKeys | ReadRange) -> Values | Items | None:
        assert isinstance(request, ReadRange) and not request.join, "they are known"
        return at_once(request)

    log.read_beside = without_inodes  # type: ignore[method-assign]
    assert joining.read(work) == 2500
    assert log.asked == ["catch up", "range"]


def test_an_inode_that_comes_along_is_older_than_what_has_changed_since(
    joining: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    make_folder(joining, log, shared, 3)
    at_once = log.read_beside

    def later(request: ReadKeys | ReadRange) -> Values | Items | None:
        log.read_beside = at_once  # type: ignore[method-assign]
        reply = at_once(request)
        shared.commit({keys.inode(101): b"newer"}, ())
        joining.read(lambda view: view.get(b"other"))
        return reply

    log.read_beside = later  # type: ignore[method-assign]
    assert joining.read(look_up, max_age_s=1.0) == b"newer"


def test_what_was_answered_is_laid_over_an_inode_that_comes_along(
    joining: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    make_folder(joining, log, shared, 3)
    log.gives_lease = True
    answer_early(joining)
    joining.transact(lambda tx: tx.put(b"first", b"x"))
    joining.transact(lambda tx: tx.put(keys.inode(101), b"newer"), durable=False)
    joining.state.cache.forget()
    log.asked.clear()
    assert joining.read(look_up) == b"newer"
    assert log.asked == ["range"]


def test_a_large_family_is_read_onwards_from_the_key_that_is_asked_for(
    store: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    keys = [b"d%05d" % n for n in range(2000)]
    shared.commit(dict.fromkeys(keys, b"v"), ())
    for key in keys:
        assert store.read(lambda view, key=key: view.get(key), max_age_s=100.0) == b"v"  # type: ignore[misc]
    assert store.read(lambda view: view.get(b"d00000x"), max_age_s=100.0) is None
    assert store.read(lambda view: view.get(b"d99999"), max_age_s=100.0) is None
    assert log.asked.count("range") <= 2000 / 256 + 5
    assert "keys" not in log.asked


def test_an_operation_may_need_more_than_is_kept(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    store.state.cache = MapCache(family_of, max_keys=100)
    names = {b"d%05d" % n: b"v" for n in range(3000)}
    others = {b"k%05d" % n: b"w" for n in range(3000)}
    shared.commit(names | others, ())

    def work(view: View) -> int:
        return len(view.scan(b"d", b"e")) + len(view.get_many(sorted(others)))

    for turn in range(2):
        assert store.read(lambda view, turn=turn: view.get(b"%d" % turn)) is None  # type: ignore[misc]
        log.asked.clear()
        assert store.read(work) == 6000
        assert (log.asked.count("range"), log.asked.count("keys")) == (1, -(-3000 // READ_KEYS))


def test_so_may_one_that_is_answered_under_the_lease(leased: LogMap, log: FakeLog, shared: SharedLog) -> None:
    leased.state.cache = MapCache(family_of, max_keys=100)
    shared.map |= {b"k%05d" % n: b"w" for n in range(3000)}

    def work(tx: Transaction) -> None:
        for first in range(0, 3000, 1000):
            tx.get_many([b"k%05d" % n for n in range(first, first + 1000)])
        tx.put(b"a", b"1")

    log.asked.clear()
    leased.transact(work, durable=False)
    assert log.asked == ["keys"] * 3


def test_filling_and_emptying_a_large_folder_asks_the_servers_in_proportion(log: FakeLog, clock: Clock) -> None:
    """And no operation reads more of the folder than its own name."""
    log.gives_lease = True
    store = LogMap(log, keys.family_of, clock, clock.sleep)  # type: ignore[arg-type]
    answer_early(store, 1000.0)
    scans: list[bytes] = []
    scan = MapCache.scan
    store.state.cache.scan = lambda *ends: (scans.append(ends[0]), scan(store.state.cache, *ends))[1]  # type: ignore[method-assign, func-returns-value]
    store.transact(lambda tx: inodes.make_root(tx, 1))
    costs = []
    for count in (1000, 4000):
        log.asked.clear()
        for number in range(count):
            new = inodes.new(stat.S_IFREG | 0o644, 0, 0, 1)
            name = b"file %d" % number
            store.transact(
                lambda tx, name=name, number=number, new=new: directories.make(tx, 1, name, 10 + number, new, 2),  # type: ignore[misc]
                durable=False,
            )
        assert len(store.read(lambda view: directories.scan(view, 1))) == count
        assert len(scans) == 1
        scans.clear()
        store.transact(lambda tx: renames.rename(tx, 1, b"file 0", 1, b"first", 3), durable=False)
        for name in [b"first", *(b"file %d" % number for number in range(1, count))]:
            store.transact(lambda tx, name=name: directories.unlink(tx, 1, name, 4), durable=False)  # type: ignore[misc]
        store.flush()
        assert store.read(lambda view: directories.scan(view, 1)) == []
        assert scans == [keys.entries(1)[0]]
        scans.clear()
        costs.append(len(log.asked))
    assert costs[0] <= 20
    assert costs[1] <= 5 * costs[0]
    assert all(len(contents.puts) < 10_000 for contents in log.committed)


def test_what_others_change_in_a_large_folder_is_asked_for_and_no_more(
    by_folder: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    shared.commit(entries(12_000), ())
    assert len(by_folder.read(lambda view: view.scan(*keys.entries(1)))) == 12_000
    shared.commit({keys.entry(1, b"new"): b"y"}, (keys.entry(1, b"n000007"),))
    log.asked.clear()
    assert is_free(by_folder, b"unheard of")
    found = by_folder.read(lambda view: view.scan(*keys.entries(1)))
    assert [what for what in log.asked if what != "catch up"] == ["keys"]
    assert len(found) == 12_000
    assert (found[0][0], found[-1]) == (keys.entry(1, b"n000000"), (keys.entry(1, b"new"), b"y"))


def test_a_large_folder_can_be_listed_while_others_write_in_it(
    by_folder: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    shared.commit(entries(12_000), ())
    turns = 0

    def write() -> None:
        nonlocal turns
        turns += 1
        gone, new = keys.entry(1, b"n%06d" % turns), keys.entry(1, b"n%06d.new" % turns)
        shared.commit({new: b"y", keys.entry(1, b"n011999"): b"z%d" % turns}, (gone,))
        if turns < 5:
            log.before_read.append(write)

    log.before_read.append(write)
    found = dict(by_folder.read(lambda view: view.scan(*keys.entries(1)), max_age_s=1e9))
    assert log.asked.count("range") == 3
    assert found == {key: value for key, value in shared.map.items() if key.startswith(b"d/")}


def test_a_large_folder_is_fetched_whole_when_its_names_are_missed_again_and_again(
    by_folder: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    shared.commit(entries(12_000), ())
    for number in range(200):
        assert (
            by_folder.read(lambda view, number=number: view.get(keys.entry(1, b"%d" % number)), max_age_s=1e9) is None
        )  # type: ignore[misc]
    assert log.asked.count("range") < 30


def test_a_large_folder_is_fetched_as_a_whole_if_names_are_added_at_its_end(
    by_folder: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    """Nothing follows these names, which does not mean that the folder is small."""
    shared.commit(entries(12_000), ())
    for number in range(200):
        assert is_free(by_folder, b"z%d" % number)
    assert log.asked.count("range") < 30


def test_a_large_folder_of_which_others_changed_much_is_read_from_end_to_end(
    by_folder: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    """Requests for single keys would be twenty, and the pages are only three."""
    shared.commit(entries(7000), ())
    by_folder.read(lambda view: view.scan(*keys.entries(1)))
    shared.commit({keys.entry(1, b"other %d" % number): b"x" for number in range(5000)}, ())
    log.asked.clear()
    assert len(by_folder.read(lambda view: view.scan(*keys.entries(1)))) == 12_000
    assert [what for what in log.asked if what != "catch up"] == ["range"] * 3


def test_what_others_add_without_pause_does_not_make_a_large_folder_unknown(
    by_folder: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    """Two clients write in one folder, so each learns of thousands of names that it will never ask for."""
    shared.commit(entries(6000), ())
    assert len(by_folder.read(lambda view: view.scan(*keys.entries(1)))) == 6000
    log.asked.clear()
    for turn in range(100):
        shared.commit({keys.entry(1, b"other %d.%d" % (turn, number)): b"x" for number in range(150)}, ())
        by_folder.transact(lambda tx, turn=turn: tx.put(keys.entry(1, b"mine %d" % turn), b"x"))  # type: ignore[misc]
        assert is_free(by_folder, b"unheard of %d" % turn)
    assert "range" not in log.asked
    assert "keys" not in log.asked


def test_a_very_large_one_is_not_fetched_for_a_few_names(by_folder: LogMap, log: FakeLog, shared: SharedLog) -> None:
    shared.commit(entries(60_000), ())
    for number in range(60):
        assert (
            by_folder.read(lambda view, number=number: view.get(keys.entry(1, b"%d" % number)), max_age_s=1e9) is None
        )  # type: ignore[misc]
    assert log.asked.count("range") < 60 + 10
