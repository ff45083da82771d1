"""Fetching while other threads use the log: how many wait at once, and what an answer from an old slot is worth."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from support.fake_log import FakeLog, SharedLog

from dfs_server.protocol.messages import Change, Items, ReadKeys, ReadRange, Values
from dfsfuse.log.proposer import Point
from dfsfuse.log.state import LogState
from dfsfuse.namespace.map.cache import MapCache
from dfsfuse.namespace.map.committing import Committer
from dfsfuse.namespace.map.fetching import Fetcher, NoCompanions
from dfsfuse.namespace.map.log_map import LogMap
from dfsfuse.namespace.map.refreshing import Refresher
from dfsfuse.namespace.map.runs import RUNS_BESIDE
from dfsfuse.namespace.map.state import MapState
from dfsfuse.namespace.map.steps import CatchUp
from dfsfuse.namespace.map.transactions import View
from dfsfuse.namespace.map.views import CachedView, MissingError

WAIT_S = 30.0
"""A limit that nothing here reaches."""


def held_back(log: FakeLog, hold: Callable[[], None]) -> None:
    """Deliver a server's answer only when `hold` returns; its content is that of the moment of the request."""
    at_once = log.read_beside

    def later(request: ReadKeys | ReadRange) -> Values | Items | None:
        reply = at_once(request)
        hold()
        return reply

    log.read_beside = later  # type: ignore[method-assign]


def once(action: Callable[[], object]) -> Callable[[], None]:
    left = [action]

    def act() -> None:
        if left:
            left.pop()()

    return act


def test_several_wait_for_servers_at_once_and_none_for_a_batch_that_is_on_its_way(
    leased: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    """Each answer is held back until all threads have asked, and the batch until all are answered."""
    shared.map |= {b"k%d" % number: b"%d" % number for number in range(4)}
    all_ask = threading.Barrier(4)
    all_answered, is_on_its_way = threading.Semaphore(0), threading.Event()
    found: dict[int, object] = {}
    held_back(log, lambda: all_ask.wait(WAIT_S) and None)

    def wait_for_answers() -> None:
        is_on_its_way.set()
        for _ in range(4):
            assert all_answered.acquire(timeout=WAIT_S)

    def look(number: int) -> None:
        found[number] = leased.read(lambda view: view.get(b"k%d" % number))
        all_answered.release()

    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    log.before_commit.append(wait_for_answers)
    threads = [threading.Thread(target=leased.flush)]
    threads[0].start()
    assert is_on_its_way.wait(WAIT_S)
    threads += [threading.Thread(target=look, args=(number,)) for number in range(4)]
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert found == {number: b"%d" % number for number in range(4)}
    assert shared.map[b"a"] == b"1"


@pytest.mark.parametrize("is_committed", [False, True])
def test_what_is_answered_while_a_server_tells_what_was_before_counts(
    leased: LogMap, log: FakeLog, shared: SharedLog, is_committed: bool
) -> None:
    shared.map |= {b"k": b"old", b"d1": b"old", b"d2": b"old", b"f1": b"old"}

    def change() -> None:
        for key in (b"k", b"d1", b"d3", b"f1"):
            leased.transact(lambda tx, key=key: tx.put(key, b"new"), durable=False)  # type: ignore[misc]
        leased.transact(lambda tx: tx.delete(b"d2"), durable=False)
        if is_committed:
            leased.flush()

    works: list[tuple[Callable[[View], object], object]] = [
        (lambda view: view.get(b"k"), b"new"),
        (lambda view: view.get(b"d2"), None),
        (lambda view: view.scan(b"d", b"e"), [(b"d1", b"new"), (b"d3", b"new")]),
        (lambda view: view.scan(b"f0", b"f9"), [(b"f1", b"new")]),
    ]
    for work, newest in works:
        leased.state.cache.forget()
        shared.map |= {b"k": b"old", b"d1": b"old", b"d2": b"old", b"f1": b"old"}
        shared.map.pop(b"d3", None)
        held_back(log, once(change))
        assert leased.read(work) == newest
        leased.flush()


def test_what_others_change_while_a_server_tells_what_was_before_counts(
    store: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    shared.put(k="old")
    store.read(lambda view: view.get(b"other"))

    def learn() -> None:
        shared.put(k="new")
        store.read(lambda view: view.get(b"other"))

    held_back(log, once(learn))
    assert store.read(lambda view: view.get(b"k"), max_age_s=1.0) == b"new"


def test_a_server_that_knows_more_than_we_is_asked_once(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    shared.put(k="old")
    store.read(lambda view: view.get(b"other"))
    shared.put(other="new")
    log.asked.clear()
    assert store.read(lambda view: view.get(b"k"), max_age_s=1.0) == b"old"
    assert log.asked == ["keys"]
    assert store.read(lambda view: view.get(b"other"), max_age_s=1.0) == b"new", "what is learnt on the way is used"


def test_what_no_server_tells_at_once_is_asked_for_with_the_log(
    leased: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    shared.map[b"k"] = b"1"
    log.read_beside = lambda _: None  # type: ignore[method-assign]
    assert leased.read(lambda view: view.get(b"k")) == b"1"
    shared.map[b"l"] = b"1"
    leased.transact(lambda tx: tx.put(b"m", tx.get(b"l") or b""), durable=False)
    assert log.asked == ["keys", "keys"]


def test_an_operation_that_always_comes_too_late_is_run_with_the_log(
    leased: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    shared.map[b"k"] = b"1"
    held_back(log, leased.state.cache.forget)
    assert leased.read(lambda view: view.get(b"k")) == b"1"
    assert log.asked == ["keys", "keys"]
    assert RUNS_BESIDE > 1


def test_nothing_newer_is_fetched_before_others_are_told(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    """While `on_keys_changed` is called, a reader that finds the changed keys unknown has to wait for the log."""
    shared.put(k="old")
    store.read(lambda view: view.get(b"k"))
    fetched: list[bool] = []

    def told(_keys: list[bytes] | None) -> None:
        view = CachedView(store.state.cache)
        with pytest.raises(MissingError):
            view.get(b"k")
        with pytest.raises(StopIteration) as end:
            next(store.refresher.fetch_beside(view))
        fetched.append(end.value.value)

    shared.put(k="new")
    store._events.on_keys_changed = told
    store.read(lambda view: view.get(b"other"))
    assert fetched == [False]
    assert store.read(lambda view: view.get(b"k")) == b"new"


def test_what_is_missing_comes_along_with_the_look_at_the_end_of_the_log(
    store: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    shared.put(k="1", other="1")
    store.read(lambda view: view.get(b"other"))
    log.read_keys = lambda _: pytest.fail("asked again")  # type: ignore[method-assign]
    log.asked.clear()
    assert store.read(lambda view: view.get(b"k")) == b"1"
    assert log.asked == ["keys", "catch up"]


def test_a_look_up_that_finds_nothing_runs_once_and_looks_once(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    runs: list[bytes | None] = []

    def find(view: View) -> None:
        runs.append(view.get(b"d9"))
        raise FileNotFoundError

    shared.put(d1="1")
    store.read(lambda view: view.get(b"d1"))
    log.asked.clear()
    for max_age_s in (0.0, 100.0):
        runs.clear()
        with pytest.raises(FileNotFoundError):
            store.read(find, max_age_s=max_age_s, doubted=FileNotFoundError)
        assert runs == [None]
    assert log.asked == ["catch up", "catch up"]


def test_threads_that_wait_for_the_newest_state_share_the_next_look(
    store: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    """The one that is under way began too early for them. However many they are, they wait for one more."""
    shared.put(k="1")
    store.read(lambda view: view.get(b"k"))
    is_under_way, may_end = threading.Event(), threading.Event()
    have_begun = threading.Semaphore(0)
    look = log.catch_up

    def take_time(*, recall: bool = True) -> bool:
        is_under_way.set()
        assert may_end.wait(WAIT_S)
        log.clock.now += 1.0
        return look(recall=recall)

    def read() -> None:
        store.read(lambda view: (view.get(b"k"), have_begun.release()))

    log.asked.clear()
    log.catch_up = take_time  # type: ignore[method-assign]
    threads = [threading.Thread(target=read) for _ in range(8)]
    threads[0].start()
    assert is_under_way.wait(WAIT_S)
    for thread in threads[1:]:
        thread.start()
    for _ in threads:
        assert have_begun.acquire(timeout=WAIT_S)
    may_end.set()
    for thread in threads:
        thread.join(WAIT_S)
    assert log.asked == ["catch up"] * 2


def test_a_look_without_a_recall_is_none_with_one(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    """A look at the log by another thread, at the same time, did not recall what others answered under their lease."""
    shared.put(k="1")
    store.read(lambda view: view.get(b"k"))
    log.clock.now += 1.0
    recalls: list[bool] = []
    look = log.catch_up

    def meanwhile(*, recall: bool = True) -> bool:
        recalls.append(recall)
        log.clock.now += 1.0
        return look(recall=recall)

    log.catch_up = meanwhile  # type: ignore[method-assign]
    store.read(lambda view: view.get(b"k"), max_age_s=0.5)
    assert store.state.is_newest(log.clock.now - 1.5, recall=False)
    assert not store.state.is_newest(log.clock.now - 1.5, recall=True)
    store.read(lambda view: view.get(b"k"))
    assert recalls == [False, True]


def test_what_comes_along_with_a_second_look_is_asked_for_at_the_point_of_the_first() -> None:
    """Else what the first look has told is missing: no watch that begins later knows that it has changed since."""

    def family_of(key: bytes) -> bytes:
        return key[:1]

    log = LogState(b"here", known=Point(12, b"d"))
    state = MapState(log, MapCache(family_of), lambda: 5.0)  # a clock that stands still: each look is due
    fetcher = Fetcher(family_of, state, NoCompanions(), lambda _: b"")
    refresher = Refresher(state, Committer(state, threading.Event(), 0.0), fetcher, lambda: float("inf"), None)
    view = CachedView(state.cache)
    with pytest.raises(MissingError):
        view.get(b"n3")
    look = refresher.become_newest(5.0, view, recall=True)
    first = next(look)
    assert isinstance(first, CatchUp) and first.along is not None and first.along.point.slot == 12
    log.learnt(Change(13, b"e", b"another", 1, (b"n3",)))
    step = look.send((True, Items(12, ((b"n1", b""), (b"n2", b"")), more=True)))
    while not isinstance(step, CatchUp):
        step = look.send(None)
    assert step.along is not None and step.along.point.slot == 13
