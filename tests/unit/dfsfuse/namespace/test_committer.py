"""The thread that commits and lets go of the lease."""

from __future__ import annotations

import threading
import time

from support.fake_log import FakeLog, SharedLog, family_of

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
