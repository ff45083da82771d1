"""A map on a log that others write to as well, without and with the lease."""

from __future__ import annotations

import pytest
from support.clock import Clock
from support.fake_log import FakeLog, SharedLog, answer_early, family_of

from dfsfuse.namespace.map.log_map import LogMap
from dfsfuse.namespace.records import keys


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


@pytest.fixture
def leased(store: LogMap, log: FakeLog) -> LogMap:
    """A store whose client has the lease. Nothing is committed automatically: the tests decide when."""
    log.gives_lease = True
    answer_early(store)
    store.transact(lambda tx: tx.put(b"first", b"x"))
    log.asked.clear()
    log.committed.clear()
    return store


@pytest.fixture
def by_folder(log: FakeLog, clock: Clock) -> LogMap:
    """A map with the real families of keys."""
    return LogMap(log, keys.family_of, clock, clock.sleep)  # type: ignore[arg-type]
