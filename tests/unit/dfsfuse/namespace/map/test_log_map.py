"""Transactions on a log that others write to as well; a scripted rival commits at a chosen moment."""

from __future__ import annotations

import errno

import pytest
from support.clock import Clock
from support.fake_log import FakeLog, SharedLog, family_of

from dfsfuse.errors import MaybeDoneError, TooLargeError, UnavailableError
from dfsfuse.log.state import News
from dfsfuse.namespace.map.log_map import LogMap
from dfsfuse.namespace.map.runs import RUNS_FOR_S
from dfsfuse.namespace.map.transactions import Transaction, View


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
    shared.commit({}, (b"n",))  # removed meanwhile, so the cache is out of date
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


class Finding:
    """An operation that finds a key or raises FileNotFoundError, and counts its runs."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, view: View) -> bytes:
        self.runs += 1
        if (value := view.get(b"n")) is None:
            raise FileNotFoundError
        return value


def test_that_something_is_not_there_is_not_believed_of_an_old_state(
    store: LogMap, log: FakeLog, shared: SharedLog, clock: Clock
) -> None:
    find = Finding()
    with pytest.raises(FileNotFoundError):
        store.read(find, max_age_s=0.5, doubted=FileNotFoundError)
    shared.put(n="1")
    clock.now += 0.1
    assert store.read(find, max_age_s=0.5, doubted=FileNotFoundError) == b"1"
    log.asked.clear()
    assert store.read(find, max_age_s=0.5, doubted=FileNotFoundError) == b"1"
    assert log.asked == [], "that something exists is believed"


def test_own_changes_are_known_without_asking(store: LogMap, log: FakeLog) -> None:
    store.transact(lambda tx: tx.put(b"d1", b"x"))
    store.read(lambda view: view.scan(b"d", b"e"))
    store.transact(lambda tx: tx.put(b"d2", b"y"))
    log.asked.clear()
    found = store.read(lambda view: view.scan(b"d", b"e"), max_age_s=1.0)
    assert found == [(b"d1", b"x"), (b"d2", b"y")]
    assert store.read(lambda view: view.get(b"d3"), max_age_s=1.0) is None
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


def test_news_that_were_lost_forget_everything(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    store.transact(increment)
    log.before_commit.append(lambda: (shared.put(n="5"), setattr(log, "news", News(forget=True))))  # type: ignore[arg-type,func-returns-value]
    assert store.transact(increment) == 6


def test_listeners_are_told_what_others_changed(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    told: list[list[bytes] | None] = []
    store._events.on_keys_changed = told.append
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


def test_a_slow_answer_is_not_taken_for_rivals(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    """Slow may be a page of a large folder over a slow link, or the wait for other threads when servers came back."""
    shared.put(n="5")
    log.before_read.append(lambda: log.clock.sleep(RUNS_FOR_S + 1))
    assert store.read(lambda view: view.get(b"n")) == b"5"


def test_slow_servers_are_not_called_rivals_when_it_is_given_up(store: LogMap, log: FakeLog) -> None:
    log.before_read += [lambda: log.clock.sleep(RUNS_FOR_S / 3)] * 20
    with pytest.raises(UnavailableError, match="did not send everything that this operation needs in time"):
        store.read(lambda view: [view.get(b"k%d" % number) for number in range(20)], max_age_s=1e9)
    assert len(log.before_read) > 10


def test_rivals_without_pause_are_given_up_against(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    def rival() -> None:
        log.clock.sleep(RUNS_FOR_S / 5)
        shared.put(n=str(len(shared.changes)))
        log.before_commit.append(rival)

    log.before_commit.append(rival)
    with pytest.raises(UnavailableError, match="without pause"):
        store.transact(increment)
    assert len(shared.changes) < 10


@pytest.fixture
def careful(log: FakeLog, clock: Clock) -> LogMap:
    """A map that shows nothing that may be old: it takes servers 1 and 2 for the newest while `n` exists."""

    def is_newest(view: View, servers: frozenset[int]) -> bool:
        return servers == {1, 2} and view.get(b"n") is not None

    return LogMap(log, family_of, clock, clock.sleep, is_newest)  # type: ignore[arg-type]


def look(store: LogMap, max_age_s: float = 0.0) -> bytes | None:
    return store.read(lambda view: view.get(b"other"), max_age_s=max_age_s)


def test_without_a_quorum_a_careful_map_shows_what_is_confirmed(
    careful: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    shared.put(n="1", other="x")
    log.has_quorum, log.state.witnesses = False, frozenset({1, 2})
    assert look(careful) == b"x"


@pytest.mark.parametrize("witnesses", [(), (1, 3)])
def test_without_a_quorum_a_careful_map_shows_nothing_else(
    careful: LogMap, store: LogMap, log: FakeLog, shared: SharedLog, clock: Clock, witnesses: tuple[int, ...]
) -> None:
    shared.put(n="1", other="x")
    assert look(careful) == b"x"
    log.has_quorum, log.state.witnesses = False, frozenset(witnesses)
    assert look(careful, max_age_s=0.5) == b"x", "this was the newest state a moment ago"
    with pytest.raises(UnavailableError, match="nothing older is shown"):
        look(careful)
    clock.now += 1
    with pytest.raises(UnavailableError, match="nothing older is shown"):
        look(careful, max_age_s=0.5)
    assert look(store) == b"x", "a map that is not careful shows it"


def test_without_a_quorum_a_careful_map_does_not_say_that_something_is_not_there(
    careful: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    shared.put(n="1")
    look(careful)
    log.has_quorum = False

    def remove(tx: Transaction) -> None:
        if tx.get(b"other") is None:
            raise FileNotFoundError(errno.ENOENT, "missing")

    with pytest.raises(UnavailableError, match="nothing older is shown"):
        careful.transact(remove)
