"""The worker commits what was answered before its commit, and releases the lease."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.clock import Clock
from support.fake_log import FakeLog, ManualWakeEvent, SharedLog, family_of

from dfsfuse.errors import MaybeDoneError
from dfsfuse.log.lease import SETTLE_AFTER_S
from dfsfuse.namespace.map.client import FOLLOWED_S
from dfsfuse.namespace.map.log_map import LogMap
from dfsfuse.namespace.map.steps import AwaitWork, Linger, Step, WithLog
from dfsfuse.namespace.map.worker import LINGER_S, RETRY_S


def test_the_committer_commits_and_settles_by_itself(log: FakeLog, shared: SharedLog) -> None:
    store = LogMap(log, family_of)  # type: ignore[arg-type]
    settled = threading.Event()
    log.clock = time.monotonic  # type: ignore[assignment]  # what is answered waits for real
    log.gives_lease = True
    log.settled = settled.set
    store.start()
    store.transact(lambda tx: tx.put(b"a", b"1"))
    store.transact(lambda tx: tx.put(b"b", b"1"), durable=False)
    assert settled.wait(10.0)
    assert shared.map == {b"a": b"1", b"b": b"1"}
    store.close()


def test_a_client_that_could_not_commit_releases_the_lease_too(log: FakeLog, shared: SharedLog) -> None:
    """Some servers may have accepted the batch and given a lease with it, which would block others for two seconds."""
    store = LogMap(log, family_of)  # type: ignore[arg-type]
    woken: list[bool] = []
    store.committer.wake_event = ManualWakeEvent(lambda: woken.append(True))

    def fail() -> None:
        raise MaybeDoneError("too few servers confirmed it")

    log.before_commit = [fail]
    with pytest.raises(MaybeDoneError):
        store.transact(lambda tx: tx.put(b"a", b"1"))
    assert woken
    assert store.run(store.worker.settle_if_idle())
    assert log.asked == ["catch up", "settle"]


def steps_of_a_worker(store: LogMap, clock: Clock, ends_after: int) -> list[str]:
    """Wake the worker once and return its steps until it waits for work again."""
    done: list[str] = []
    work = store.worker.work()
    step = next(work)
    assert step == AwaitWork(None)
    resume: Callable[[Any], Step] = work.send
    answer: object = True
    for _ in range(ends_after):
        step = resume(answer)
        resume = work.send
        done.append(type(step).__name__)
        match step:
            case AwaitWork(None):
                return done
            case AwaitWork(seconds) | Linger(seconds):
                assert seconds is not None
                clock.now += seconds
                answer = False
            case WithLog(procedure):
                try:
                    answer = store.run(procedure)
                except ValueError as error:
                    resume, answer = work.throw, error
    raise AssertionError(f"the worker does not come to rest: {done}")


def test_what_waits_again_is_committed_without_waking_the_worker(leased: LogMap, log: FakeLog, clock: Clock) -> None:
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    for number in range(2):  # answered while a batch is being committed
        log.before_commit.append(
            lambda number=number: leased.transact(lambda tx: tx.put(b"%d" % number, b"1"), durable=False)  # type: ignore[misc]
        )
    steps_of_a_worker(leased, clock, 100)
    assert log.asked == ["commit", "commit", "commit", "settle"]


def test_an_unexpected_exception_does_not_end_the_worker(
    leased: LogMap, log: FakeLog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    settle, failures = log.settle, [ValueError("unexpected")]

    def fail_once() -> None:
        if failures:
            raise failures.pop()
        settle()

    monkeypatch.setattr(log, "settle", fail_once)
    begun = clock()
    steps_of_a_worker(leased, clock, 100)
    assert log.asked == ["commit", "settle"]
    assert clock() - begun > RETRY_S, "it must pause before it tries again"


class CountingWakeEvent:
    """A wake event that counts how often it was set."""

    def __init__(self) -> None:
        self.set_count = 0

    def set(self) -> None:
        self.set_count += 1

    def clear(self) -> None:
        pass


def test_only_a_worker_that_sleeps_is_woken(leased: LogMap, log: FakeLog, clock: Clock) -> None:
    wake_event = leased.committer.wake_event = CountingWakeEvent()
    work = leased.worker.work()
    assert next(work) == AwaitWork(None)
    leased.transact(lambda tx: tx.put(b"a", b"1"))
    leased.transact(lambda tx: tx.put(b"b", b"1"), durable=False)
    assert wake_event.set_count > 0
    assert work.send(True) == Linger(LINGER_S)
    wake_event.set_count = 0
    for number in range(5):
        leased.transact(lambda tx, number=number: tx.put(b"%d" % number, b"1"))  # type: ignore[misc]
        leased.transact(lambda tx, number=number: tx.put(b"d%d" % number, b"1"), durable=False)  # type: ignore[misc]
    assert wake_event.set_count == 0
    commits = log.asked.count("commit")
    step = work.send(None)
    assert isinstance(step, WithLog), "a change is pending that no caller waits for"
    leased.run(step.procedure)
    assert log.asked.count("commit") == commits + 1
    assert work.send(False) == Linger(SETTLE_AFTER_S)
    clock.now += SETTLE_AFTER_S
    step = work.send(None)
    assert isinstance(step, WithLog)
    leased.run(step.procedure)
    assert log.asked[-1] == "settle"
    assert wake_event.set_count == 0
    leased.transact(lambda tx: tx.put(b"z", b"1"))
    assert wake_event.set_count > 0, "it counts as asleep once it has released the lease, even before it waits"
    assert work.send(True) == AwaitWork(None)


def test_the_worker_leaves_the_log_to_a_thread_that_does_its_work(leased: LogMap, log: FakeLog) -> None:
    work = leased.worker.work()
    next(work)
    assert work.send(True) == Linger(LINGER_S)
    seen: list[Step] = []
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    log.before_commit.append(lambda: seen.append(work.send(None)))
    leased.transact(lambda tx: tx.put(b"b", b"1"))
    assert seen == [Linger(SETTLE_AFTER_S)]
    assert log.asked.count("commit") == 1, "both"
    leased.transact(lambda tx: tx.put(b"c", b"1"), durable=False)
    assert isinstance(work.send(None), WithLog)


def test_what_its_caller_will_commit_is_left_to_the_caller(leased: LogMap, log: FakeLog, clock: Clock) -> None:
    work = leased.worker.work()
    next(work)
    step = work.send(True)
    leased.transact(lambda tx: tx.put(b"name", b"1"), durable=False, is_followed=True)
    for _ in range(4):
        assert isinstance(step, Linger)
        clock.now += step.seconds
        step = work.send(None)
    assert "commit" not in log.asked
    leased.transact(lambda tx: tx.put(b"data", b"1"))
    assert log.asked.count("commit") == 1, "both"


@pytest.mark.parametrize("behind", [False, True])
def test_but_no_longer_than_for_a_moment_and_not_if_something_else_waits(
    leased: LogMap, log: FakeLog, clock: Clock, shared: SharedLog, behind: bool
) -> None:
    leased.transact(lambda tx: tx.put(b"name", b"1"), durable=False, is_followed=True)
    if behind:
        leased.transact(lambda tx: tx.put(b"other", b"1"), durable=False)
    begun = clock()
    waited_s: list[float] = []
    log.before_commit.append(lambda: waited_s.append(clock() - begun))
    steps_of_a_worker(leased, clock, 100)
    assert log.asked == ["commit", "settle"]
    assert shared.map[b"name"] == b"1"
    assert waited_s[0] <= (LINGER_S if behind else FOLLOWED_S + SETTLE_AFTER_S)


def test_what_waits_behind_an_interrupted_thread_is_committed(leased: LogMap, log: FakeLog) -> None:
    """Ctrl-C reaches a program that uses the library during its commit."""
    work = leased.worker.work()
    next(work)
    work.send(True)

    def interrupt() -> None:
        raise KeyboardInterrupt

    log.before_commit.append(interrupt)
    with pytest.raises(KeyboardInterrupt) as interrupted:
        leased.transact(lambda tx: tx.put(b"a", b"1"))
    assert isinstance(work.send(None), WithLog), "it must not rely on a thread that is gone"
    del interrupted
