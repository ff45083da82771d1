"""Transactions over a log that others write too. The log is a fake with the interface of `QuorumLog`, one slot after
the other; a scripted rival commits at a chosen moment."""

from __future__ import annotations

import errno
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from msgspec import structs

from dfs_server.protocol.messages import Change, Items, Values
from dfsfuse.cluster.log_protocol import Contents, News
from dfsfuse.cluster.quorum_log import NEVER
from dfsfuse.errors import MaybeDoneError, ReadOnlyError, TooLargeError, UnavailableError
from dfsfuse.namespace import directories, inodes, keys, renames
from dfsfuse.namespace.log_map import READ_KEYS, LogMap
from dfsfuse.namespace.map_cache import MapCache
from dfsfuse.namespace.transactions import Transaction, View


class Clock:
    now = 100.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def __call__(self) -> float:
        return self.now


@dataclass
class SharedLog:
    """What the servers hold."""

    map: dict[bytes, bytes] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    def put(self, **values: str) -> None:
        """Somebody commits."""
        self.commit({key.encode(): value.encode() for key, value in values.items()}, ())

    def commit(self, puts: dict[bytes, bytes], deletes: tuple[bytes, ...]) -> None:
        self.map.update(puts)
        for key in deletes:
            self.map.pop(key, None)
        slot = len(self.changes) + 1
        self.changes.append(Change(slot, b"%d" % slot, b"author", slot, (*puts, *deletes)))


class FakeLog:
    """One client's `QuorumLog`."""

    def __init__(self, shared: SharedLog, clock: Clock) -> None:
        self.shared = shared
        self.client = b"me"
        self.slot = 0
        self.news = News()
        self.asked: list[str] = []
        self.committed: list[Contents] = []
        self.lease_until = NEVER
        self.lease_s = 0.0
        self.turn_is_over = False
        self.settled: Callable[[], None] = lambda: None
        self.clock = clock
        self.before_commit: list[Callable[[], None]] = []
        self.before_read: list[Callable[[], None]] = []

    def _learn(self) -> None:
        self.news.changes.extend(self.shared.changes[self.slot :])
        self.slot = len(self.shared.changes)

    def catch_up(self, *, recall: bool = True) -> bool:
        self.asked.append("catch up")
        self._learn()
        return True

    def read_keys(self, keys: tuple[bytes, ...]) -> Values:
        if self.before_read:
            self.before_read.pop(0)()
        self.asked.append("keys")
        self._learn()
        return Values(self.slot, tuple(self.shared.map.get(key) for key in keys))

    def read_range(self, start: bytes, end: bytes, limit: int) -> Items:
        if self.before_read:
            self.before_read.pop(0)()
        self.asked.append("range")
        self._learn()
        found = sorted((key, value) for key, value in self.shared.map.items() if start <= key < end)
        return Items(self.slot, tuple(found[:limit]), more=len(found) > limit)

    def commit(self, contents: Contents, conflicts: Callable[[News], bool]) -> bool:
        if self.before_commit:
            self.before_commit.pop(0)()
        self.asked.append("commit")
        self._learn()
        if conflicts(self.news):
            return False
        self.shared.commit(dict(contents.puts), contents.deletes)
        self.committed.append(contents)
        self.slot += 1
        self.lease_until = self.clock() + self.lease_s
        return True

    def want_lease(self) -> None:
        pass

    def settle(self) -> None:
        self.asked.append("settle")
        self.lease_until = NEVER
        if len(self.committed) == 2:
            self.settled()

    def take_news(self) -> News:
        news, self.news = self.news, News()
        return news

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        pass


def family_of(key: bytes) -> bytes | None:
    return b"d" if key.startswith(b"d") else None


@pytest.fixture
def shared() -> SharedLog:
    return SharedLog()


@pytest.fixture
def log(shared: SharedLog, clock: Clock) -> FakeLog:
    return FakeLog(shared, clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(log: FakeLog, clock: Clock) -> LogMap:
    return LogMap(log, family_of, clock, clock.sleep)  # type: ignore[arg-type]


def increment(tx: Transaction) -> int:
    value = int(tx.get(b"n") or b"0") + 1
    tx.put(b"n", b"%d" % value)
    return value


def test_an_operation_that_a_rival_touched_is_run_again(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    assert store.transact(increment) == 1
    log.before_commit.append(lambda: shared.put(n="10"))
    assert store.transact(increment) == 11
    assert shared.map[b"n"] == b"11"


def test_an_operation_that_a_rival_did_not_touch_is_proposed_again(
    store: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    store.transact(increment)
    runs = []
    log.before_commit.append(lambda: shared.put(other="x"))
    store.transact(lambda tx: runs.append(increment(tx)))
    assert runs == [2]


def test_a_rival_in_a_scanned_range_counts(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    shared.put(d1="x")

    def remove_if_alone(tx: Transaction) -> None:
        if len(tx.scan(b"d", b"e")) != 1:
            raise OSError(errno.ENOTEMPTY, "not empty")
        tx.delete(b"d1")

    log.before_commit.append(lambda: shared.put(d2="y"))
    with pytest.raises(OSError, match="not empty"):
        store.transact(remove_if_alone)
    assert shared.map == {b"d1": b"x", b"d2": b"y"}


def test_a_refusal_is_checked_against_the_newest_state(store: LogMap, shared: SharedLog) -> None:
    def create(tx: Transaction) -> None:
        if tx.get(b"n") is not None:
            raise FileExistsError(errno.EEXIST, "exists")
        tx.put(b"n", b"mine")

    shared.put(n="theirs")
    assert store.read(lambda view: view.get(b"n")) == b"theirs"
    shared.commit({}, (b"n",))  # removed meanwhile: what the cache has is old
    store.transact(create)
    assert shared.map[b"n"] == b"mine"


def test_a_refusal_commits_nothing(store: LogMap, shared: SharedLog) -> None:
    def refuse(tx: Transaction) -> None:
        tx.put(b"n", b"half")
        raise OSError(errno.EIO, "no")

    with pytest.raises(OSError, match="no"):
        store.transact(refuse)
    assert shared.map == {}


def test_reads_of_one_operation_are_of_one_state(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    shared.put(a="1", b="1")
    log.before_read = [lambda: None, lambda: shared.put(a="2", b="2")]
    assert store.read(lambda view: (view.get(b"a"), view.get(b"b"))) == (b"2", b"2")


def test_fresh_means_fresh_and_a_little_old_may_be_cached(
    store: LogMap, log: FakeLog, shared: SharedLog, clock: Clock
) -> None:
    def look(view: View) -> bytes | None:
        return view.get(b"n")

    shared.put(n="1")
    assert store.read(look) == b"1"
    shared.put(n="2")
    clock.now += 0.4
    assert store.read(look, max_age_s=0.5) == b"1"
    assert store.read(look) == b"2"
    log.asked.clear()
    assert store.read(look, max_age_s=0.5) == b"2"
    assert log.asked == []
    clock.now += 0.6
    shared.put(n="3")
    assert store.read(look, max_age_s=0.5) == b"3"


def test_own_changes_are_known_without_asking(store: LogMap, log: FakeLog) -> None:
    store.transact(lambda tx: tx.put(b"d1", b"x"))
    store.read(lambda view: view.scan(b"d", b"e"))
    store.transact(lambda tx: tx.put(b"d2", b"y"))
    log.asked.clear()
    found = store.read(lambda view: view.scan(b"d", b"e"), max_age_s=1.0)
    assert found == [(b"d1", b"x"), (b"d2", b"y")]
    assert store.read(lambda view: view.get(b"d3"), max_age_s=1.0) is None
    assert log.asked == []


def test_one_key_of_a_small_family_brings_the_rest(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    shared.put(d1="1", d2="2")
    store.read(lambda view: view.get(b"d1"))
    log.asked.clear()
    assert store.read(lambda view: (view.get(b"d2"), view.get(b"d9")), max_age_s=1.0) == (b"2", None)
    assert log.asked == []


def test_a_transaction_sees_its_own_changes(store: LogMap, shared: SharedLog) -> None:
    shared.put(d1="1", d2="2")

    def work(tx: Transaction) -> list[tuple[bytes, bytes]]:
        tx.put(b"d3", b"3")
        tx.delete(b"d1")
        assert tx.get(b"d1") is None
        assert tx.get_many([b"d3", b"d2"]) == [b"3", b"2"]
        return tx.scan(b"d", b"e")

    assert store.transact(work) == [(b"d2", b"2"), (b"d3", b"3")]


def test_a_long_range_comes_in_pages(store: LogMap, shared: SharedLog) -> None:
    keys = [b"d%05d" % n for n in range(12_001)]
    shared.commit(dict.fromkeys(keys, b"v"), ())
    assert [key for key, _ in store.read(lambda view: view.scan(b"d", b"e"))] == keys


def test_news_that_were_lost_forget_everything(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    store.transact(increment)
    log.before_commit.append(lambda: (shared.put(n="5"), setattr(log, "news", News(forget=True))))  # type: ignore[arg-type,func-returns-value]
    assert store.transact(increment) == 6


def test_whoever_wants_to_is_told_what_others_changed(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    told: list[list[bytes] | None] = []
    store.on_change = told.append
    store.transact(lambda tx: tx.put(b"mine", b"1"))
    shared.put(a="1", b="2")
    shared.commit({}, (b"a",))
    store.read(lambda view: view.get(b"x"))
    assert told == [[b"a", b"b", b"a"]]
    log.news.forget = True
    store.read(lambda view: view.get(b"x"))
    assert told[1:] == [None]


def test_too_large_a_change_is_refused(store: LogMap, shared: SharedLog) -> None:
    with pytest.raises(TooLargeError):
        store.transact(lambda tx: tx.put(b"k", bytes(2_000_000)))
    assert shared.map == {}


def test_what_may_be_done_is_said_to_be_so(store: LogMap, log: FakeLog) -> None:
    def fail() -> None:
        raise MaybeDoneError("no answer")

    log.before_commit.append(fail)
    with pytest.raises(MaybeDoneError):
        store.transact(increment)
    assert store.transact(increment) == 1


def test_rivals_without_end_are_an_error_not_a_hang(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    counter = iter(range(100_000))
    log.before_commit = [lambda: shared.put(n=str(next(counter)))] * 1000
    with pytest.raises(UnavailableError, match="other clients"):
        store.transact(increment)


# ------------------------------------------------------------------ under the writer lease


@pytest.fixture
def leased(store: LogMap, log: FakeLog) -> LogMap:
    """A store whose client has the lease. Its committer does nothing by itself: the tests say when."""
    log.lease_s = 10.0
    store._committer = HandCommitter()  # type: ignore[assignment]
    store.transact(lambda tx: tx.put(b"first", b"x"))
    log.asked.clear()
    log.committed.clear()
    return store


class HandCommitter:
    is_running = True

    def __init__(self, woken: Callable[[], None] = lambda: None) -> None:
        self.woken = woken

    def wake(self) -> None:
        woken, self.woken = self.woken, lambda: None
        woken()

    def close(self) -> None:
        pass


def test_under_the_lease_answers_come_before_the_commit_and_are_seen(leased: LogMap, log: FakeLog) -> None:
    leased.read(lambda view: view.scan(b"d", b"e"))
    log.asked.clear()
    leased.transact(lambda tx: tx.put(b"d1", b"x"), durable=False)
    assert leased.read(lambda view: view.scan(b"d", b"e")) == [(b"d1", b"x")]
    with pytest.raises(OSError, match="there"):
        leased.transact(_create_d1, durable=False)
    assert log.asked == []


def _create_d1(tx: Transaction) -> None:
    if tx.get(b"d1") is not None:
        raise FileExistsError(errno.EEXIST, "there")
    tx.put(b"d1", b"y")


def test_what_is_answered_while_a_family_is_fetched_is_in_it(leased: LogMap, log: FakeLog, shared: SharedLog) -> None:
    """Files that are made while their large folder is being listed: they are in the next listing too, and removing them
    removes them only."""
    shared.map |= {b"d1": b"1", b"d3": b"3"}
    log.before_read.append(lambda: leased.transact(lambda tx: tx.put(b"d2", b"2"), durable=False))
    listed = [(b"d1", b"1"), (b"d2", b"2"), (b"d3", b"3")]
    assert leased.read(lambda view: view.scan(b"d", b"e")) == listed
    leased.flush()
    assert leased.read(lambda view: view.scan(b"d", b"e")) == listed
    leased.transact(lambda tx: tx.delete(b"d2"), durable=False)
    assert leased.read(lambda view: view.scan(b"d", b"e")) == [listed[0], listed[2]]


def test_what_waits_is_one_batch_and_durable_means_all_before_too(leased: LogMap, log: FakeLog) -> None:
    leased.read(lambda view: view.get(b"n"))
    for _ in range(3):
        leased.transact(increment, durable=False)
    assert log.committed == []
    leased.transact(lambda tx: tx.delete(b"first"))
    assert log.committed == [Contents(puts=((b"n", b"3"),), deletes=(b"first",))]


def test_flush_makes_all_durable(leased: LogMap, log: FakeLog) -> None:
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    leased.flush()
    assert len(log.committed) == 1
    leased.flush()
    assert len(log.committed) == 1


def test_a_lease_that_ran_out_is_not_answered_on(leased: LogMap, log: FakeLog, clock: Clock) -> None:
    clock.now += 11.0
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    assert len(log.committed) == 1


def test_what_is_not_cached_is_fetched_after_what_waits_is_committed(leased: LogMap, log: FakeLog) -> None:
    leased.transact(lambda tx: tx.put(b"d1", b"x"), durable=False)
    assert leased.read(lambda view: view.scan(b"d", b"e")) == [(b"d1", b"x")]
    assert log.asked[:2] == ["commit", "range"]


def test_answers_that_are_lost_are_told_once_and_forgotten(leased: LogMap, log: FakeLog, shared: SharedLog) -> None:
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)

    def fail() -> None:
        raise MaybeDoneError("no answer")

    log.before_commit.append(fail)
    with pytest.raises(MaybeDoneError):
        leased.flush()
    leased.flush()
    assert leased.read(lambda view: view.get(b"a")) is None
    assert b"a" not in shared.map


def test_answers_wait_for_a_server_that_is_about_to_return(leased: LogMap, log: FakeLog, shared: SharedLog) -> None:
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)

    def fail() -> None:
        raise ReadOnlyError("only two servers answer")

    log.before_commit = [fail, fail]
    leased.flush()
    assert shared.map[b"a"] == b"1"
    leased.transact(lambda tx: tx.put(b"b", b"1"), durable=False)
    log.before_commit = [fail] * 10
    with pytest.raises(ReadOnlyError):
        leased.flush()


def test_a_rival_that_should_not_be_costs_the_answers_not_the_truth(
    leased: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    leased.read(lambda view: view.get(b"n"))
    leased.transact(increment, durable=False)
    log.before_commit.append(lambda: shared.put(n="40"))
    with pytest.raises(UnavailableError, match="another client"):
        leased.flush()
    assert leased.transact(increment) == 41


def test_the_lease_is_handed_over_when_the_turn_is_over(leased: LogMap, log: FakeLog) -> None:
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    log.turn_is_over = True
    leased.flush()
    assert log.asked == ["commit", "settle"]
    log.turn_is_over = False
    leased.transact(lambda tx: tx.put(b"b", b"1"), durable=False)
    assert log.asked == ["commit", "settle", "commit"], "not answered before the commit any more"


def test_much_that_waits_is_committed_in_batches_that_are_not_too_large(leased: LogMap, log: FakeLog) -> None:
    for n in range(30):
        leased.transact(lambda tx, n=n: tx.put(b"k%d" % n, bytes(100_000)), durable=False)  # type: ignore[misc]
    leased.flush()
    assert len(log.committed) == 4
    assert [key for contents in log.committed for key, _ in contents.puts] == [b"k%d" % n for n in range(30)]


def test_the_committer_commits_and_settles_by_itself(log: FakeLog, shared: SharedLog) -> None:
    store = LogMap(log, family_of)  # type: ignore[arg-type]
    settled = threading.Event()
    log.clock = time.monotonic  # type: ignore[assignment]  # what is answered waits for real
    log.lease_s = 10.0
    log.settled = settled.set
    store.start()
    store.transact(lambda tx: tx.put(b"a", b"1"))
    store.transact(lambda tx: tx.put(b"b", b"1"), durable=False)
    assert settled.wait(10.0)
    assert shared.map == {b"a": b"1", b"b": b"1"}
    store.close()


# ------------------------------------------------------------------ what only shows when several are at it


def test_everybody_who_waits_for_a_batch_that_is_lost_is_told(leased: LogMap, log: FakeLog) -> None:
    told: list[Exception] = []
    answered = threading.Event()

    def put_b(tx: Transaction) -> None:
        tx.put(b"b", b"1")
        answered.set()

    def second() -> None:
        try:
            leased.transact(put_b)
        except MaybeDoneError as error:
            told.append(error)

    thread = threading.Thread(target=second)

    def fail_both() -> None:
        thread.start()
        assert answered.wait(10.0)
        with leased._lock:
            assert len(leased._pending) == 2
        raise MaybeDoneError("no answer")

    log.before_commit.append(fail_both)
    with pytest.raises(MaybeDoneError):
        leased.transact(lambda tx: tx.put(b"a", b"1"))
    thread.join(10.0)
    assert len(told) == 1
    leased.flush()  # nothing was lost that nobody knows of


def test_a_loss_that_nobody_waited_for_is_not_told_as_the_failure_of_another_change(
    leased: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)

    def fail() -> None:
        raise MaybeDoneError("no answer")

    log.before_commit.append(fail)
    leased.read(lambda view: view.get(b"new"))
    leased.transact(lambda tx: tx.put(b"b", b"1"))
    assert shared.map[b"b"] == b"1"
    with pytest.raises(MaybeDoneError):
        leased.flush()


def test_what_had_to_be_fetched_takes_its_turn_with_what_is_answered_meanwhile(
    leased: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    def meanwhile() -> None:
        leased.transact(increment, durable=False)

    log.before_commit.append(meanwhile)
    leased.transact(increment)
    leased.flush()
    assert shared.map[b"n"] == b"2"


def test_the_first_answer_under_a_lease_sees_the_change_that_brought_the_lease(
    store: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    log.lease_s = 10.0

    def at_once() -> None:
        store.transact(increment, durable=False)

    store._committer = HandCommitter(at_once)  # type: ignore[assignment]
    store.transact(increment)
    store.flush()
    assert shared.map[b"n"] == b"2"


def test_a_change_that_another_client_finished_and_built_on_is_not_taken_for_the_newest(
    store: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    commit = log.commit

    def finished_by_a_rival(contents: Contents, conflicts: Callable[[News], bool]) -> bool:
        log.commit = commit  # type: ignore[method-assign]
        shared.commit(dict(contents.puts), contents.deletes)
        shared.put(n="40")
        log._learn()
        return True

    log.commit = finished_by_a_rival  # type: ignore[method-assign]
    store.transact(increment)
    assert store.transact(increment) == 41


# ---------------------------------------------------------------- folders of many entries


def test_what_waits_behind_a_batch_that_a_rival_finished_is_compared_with_what_the_rival_did_next(
    leased: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    """Our batch was in doubt, a rival finished it and went on; more was answered while it was under way."""
    commit = log.commit

    def finished_by_a_rival(contents: Contents, conflicts: Callable[[News], bool]) -> bool:
        log.commit = commit  # type: ignore[method-assign]
        assert leased.transact(increment, durable=False) == 3, "answered while the batch is under way"
        shared.commit(dict(contents.puts), contents.deletes)
        shared.changes[-1] = structs.replace(shared.changes[-1], author=log.client)
        shared.put(n="40")
        log._learn()
        return True

    assert leased.transact(increment, durable=False) == 1
    assert leased.transact(increment, durable=False) == 2
    log.commit = finished_by_a_rival  # type: ignore[method-assign]
    leased.flush()
    with pytest.raises(UnavailableError, match="another client"):
        leased.flush()
    assert shared.map[b"n"] == b"40", "the rival's change was undone"
    assert leased.transact(increment) == 41


def test_news_that_came_before_a_quorum_was_missed_still_count(leased: LogMap, log: FakeLog, shared: SharedLog) -> None:
    """The first attempt learns what a rival did and then finds too few servers; the second must not forget that."""
    commit = log.commit

    def too_few(contents: Contents, conflicts: Callable[[News], bool]) -> bool:
        log.commit = commit  # type: ignore[method-assign]
        shared.put(n="40")
        log._learn()
        raise ReadOnlyError("only 2 of 4 servers answer")

    assert leased.transact(increment, durable=False) == 1
    log.commit = too_few  # type: ignore[method-assign]
    with pytest.raises(UnavailableError, match="another client"):
        leased.flush()
    assert shared.map[b"n"] == b"40", "the rival's change was undone"


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
    store._cache = MapCache(family_of, max_keys=100)
    names = {b"d%05d" % n: b"v" for n in range(3000)}
    others = {b"k%05d" % n: b"w" for n in range(3000)}
    shared.commit(names | others, ())

    def work(view: View) -> int:
        return len(view.scan(b"d", b"e")) + len(view.get_many(sorted(others)))

    for _ in range(2):
        log.asked.clear()
        assert store.read(work) == 6000
        assert (log.asked.count("range"), log.asked.count("keys")) == (1, -(-3000 // READ_KEYS))


def test_filling_and_emptying_a_large_folder_asks_the_servers_in_proportion(log: FakeLog, clock: Clock) -> None:
    """And no answer looks at more of the folder than its own name."""
    log.lease_s = 1000.0
    store = LogMap(log, keys.family_of, clock, clock.sleep)  # type: ignore[arg-type]
    store._committer._thread = threading.Thread(target=lambda: None)
    store.start()
    scans: list[bytes] = []
    scan = MapCache.scan
    store._cache.scan = lambda *ends: (scans.append(ends[0]), scan(store._cache, *ends))[1]  # type: ignore[method-assign, func-returns-value]
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


@pytest.fixture
def by_folder(log: FakeLog, clock: Clock) -> LogMap:
    """With the families that there are in truth."""
    return LogMap(log, keys.family_of, clock, clock.sleep)  # type: ignore[arg-type]


def entries(count: int) -> dict[bytes, bytes]:
    """Names in the folder 1: more than are asked for at once."""
    return {keys.entry(1, b"n%06d" % number): b"x" for number in range(count)}


def is_free(store: LogMap, name: bytes) -> bool:
    return store.read(lambda view: view.get(keys.entry(1, name)), max_age_s=1e9) is None


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


def test_a_very_large_one_is_not_fetched_for_a_few_names(by_folder: LogMap, log: FakeLog, shared: SharedLog) -> None:
    shared.commit(entries(60_000), ())
    for number in range(60):
        assert (
            by_folder.read(lambda view, number=number: view.get(keys.entry(1, b"%d" % number)), max_age_s=1e9) is None
        )  # type: ignore[misc]
    assert log.asked.count("range") < 60 + 10


def test_the_lease_begins_with_the_first_batch_after_others_have_written(
    store: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    """A turn is short: to commit one more batch before answering would be most of it."""
    log.lease_s = 1000.0
    store._committer._thread = threading.Thread(target=lambda: None)
    store.start()
    store.transact(lambda tx: tx.put(b"mine", b"1"))
    log.lease_until = store._lease_until = NEVER
    shared.put(theirs="1")
    store.transact(lambda tx: tx.put(b"mine", b"2"))
    log.asked.clear()
    store.transact(lambda tx: tx.put(b"mine", b"3"), durable=False)
    assert log.asked == []
    assert store.read(lambda view: (view.get(b"mine"), view.get(b"theirs"))) == (b"3", b"1")


def test_but_not_if_ours_was_finished_by_another_client(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    log.lease_s = 1000.0
    store._committer._thread = threading.Thread(target=lambda: None)
    store.start()

    def finished_by_another(contents: Contents, conflicts: Callable[[News], bool]) -> bool:
        shared.commit(dict(contents.puts), contents.deletes)
        shared.changes[-1] = structs.replace(shared.changes[-1], author=b"me")
        shared.put(x="theirs, later")
        log._learn()
        log.lease_until = log.clock() + log.lease_s
        return True

    log.commit = finished_by_another  # type: ignore[method-assign]
    store.transact(lambda tx: tx.put(b"x", b"mine"))
    assert store._lease_until == NEVER
    assert store.read(lambda view: view.get(b"x")) == b"theirs, later"
