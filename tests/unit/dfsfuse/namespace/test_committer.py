"""The thread that commits and lets go of the lease."""

from __future__ import annotations

import threading
import time

import pytest
from support.fake_log import FakeLog, HandCommitter, SharedLog, family_of

from dfsfuse.errors import MaybeDoneError
from dfsfuse.namespace import committer as committing
from dfsfuse.namespace.committer import Committer
from dfsfuse.namespace.log_map import LogMap


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


def test_who_could_not_commit_lets_go_too(log: FakeLog, shared: SharedLog) -> None:
    """Some servers may have taken the batch, and given a lease with it that is in the way of others for two seconds."""
    store = LogMap(log, family_of)  # type: ignore[arg-type]
    woken: list[bool] = []
    store._committer = HandCommitter(lambda: woken.append(True))  # type: ignore[assignment]

    def fail() -> None:
        raise MaybeDoneError("too few servers confirmed it")

    log.before_commit = [fail]
    with pytest.raises(MaybeDoneError):
        store.transact(lambda tx: tx.put(b"a", b"1"))
    assert woken
    assert store.settle_if_idle()
    assert log.asked == ["catch up", "settle"]


class Scripted:
    """An owner with something to commit so many times."""

    def __init__(self, times: int, failures: int = 0) -> None:
        self.times = times
        self.failures = failures
        self.asked: list[str] = []
        self.settled = threading.Event()

    def commit_waiting(self) -> bool:
        self.asked.append("commit")
        self.times -= 1
        return self.times > 0

    def settle_if_idle(self) -> bool:
        self.asked.append("settle")
        self.failures -= 1
        if self.failures >= 0:
            raise ValueError("nobody foresaw this")
        self.settled.set()
        return True


def test_what_waits_again_is_committed_though_nobody_wakes_the_committer() -> None:
    owner = Scripted(3)
    committer = Committer(owner)
    committer.start()
    committer.wake()
    assert owner.settled.wait(10.0)
    committer.close()
    assert owner.asked == ["commit", "commit", "commit", "settle"]


def test_a_failure_to_let_go_of_the_lease_does_not_end_the_committer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "RETRY_S", 0.0)
    owner = Scripted(1, failures=1)
    committer = Committer(owner)
    committer.start()
    committer.wake()
    assert owner.settled.wait(10.0)
    committer.close()
    assert owner.asked == ["commit", "settle", "commit", "settle"]
