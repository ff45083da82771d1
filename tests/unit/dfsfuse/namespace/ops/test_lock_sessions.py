"""Transactions on locks: which locks count, and which sessions may be ended."""

from __future__ import annotations

import errno

import pytest
from support.memory_map import MemoryMap

from dfsfuse.namespace.ops import lock_sessions
from dfsfuse.namespace.ops.lock_sessions import Acquired, OwnSession, SessionLostError, encode_heartbeat
from dfsfuse.namespace.records import keys, locks
from dfsfuse.namespace.records.locks import Lock

INO = 5


def own(session: bytes, beat: int = 1, *, has_locks: bool = False, is_due: bool = True) -> OwnSession:
    return OwnSession(session, encode_heartbeat(beat, 10.0), has_locks, is_due)


def acquire(map_: MemoryMap, session: bytes, *, dead: dict[bytes, bytes] | None = None, **how: bool) -> Acquired:
    wanted = Lock(session, 1, False, True, 0, 9)
    return map_.transact(
        lambda tx: lock_sessions.acquire(
            tx, INO, wanted, own(session, **how), dead or {}, replaces_stale=False, releases_own=False
        )
    )


def table(map_: MemoryMap) -> locks.Locks:
    return locks.decode(map_.items.get(keys.locks(INO)))


def test_a_lock_without_a_session_does_not_count() -> None:
    map_ = MemoryMap()
    assert acquire(map_, b"a").obstacle is None
    assert acquire(map_, b"b").obstacle == table(map_)[0]
    map_.transact(lambda tx: lock_sessions.end(tx, b"a"))
    assert acquire(map_, b"b").obstacle is None
    assert [lock.session for lock in table(map_)] == [b"b"], "and is removed"


def test_a_dead_session_is_ended_only_if_its_record_has_not_changed() -> None:
    map_ = MemoryMap()
    acquire(map_, b"a")
    seen = acquire(map_, b"b").heartbeats
    assert seen == {b"a": encode_heartbeat(1, 10.0)}
    map_.transact(lambda tx: lock_sessions.renew(tx, own(b"a", 2, has_locks=True)))
    assert acquire(map_, b"b", dead=seen).obstacle is not None
    assert keys.session(b"a") in map_.items
    seen = acquire(map_, b"b").heartbeats
    assert acquire(map_, b"b", dead=seen).obstacle is None
    assert keys.session(b"a") not in map_.items


def test_a_mount_that_was_declared_dead_learns_it() -> None:
    map_ = MemoryMap()
    acquire(map_, b"a")
    map_.transact(lambda tx: lock_sessions.end(tx, b"a"))
    with pytest.raises(SessionLostError):
        acquire(map_, b"a", has_locks=True)
    with pytest.raises(SessionLostError):
        map_.transact(lambda tx: lock_sessions.renew(tx, own(b"a", has_locks=True)))
    assert acquire(map_, b"a", has_locks=False).obstacle is None


def test_what_changes_nothing_commits_nothing() -> None:
    map_ = MemoryMap()
    acquire(map_, b"a")
    before = len(map_.batches)
    assert acquire(map_, b"a", has_locks=True, is_due=False).obstacle is None
    assert acquire(map_, b"b").obstacle is not None
    map_.transact(lambda tx: lock_sessions.end(tx, b"nobody"))
    map_.transact(lambda tx: lock_sessions.release(tx, INO, (b"b", 1, False)))
    assert len(map_.batches) == before


@pytest.mark.parametrize("heartbeat", [b"", b"\xc1", b"\x93\x63\x01\x01"])
def test_a_record_that_is_no_heartbeat(heartbeat: bytes) -> None:
    with pytest.raises(OSError, match="record of a session") as caught:
        lock_sessions.lifetime_s(heartbeat)
    assert caught.value.errno == errno.EIO
    assert lock_sessions.lifetime_s(encode_heartbeat(3, 2.5)) == 2.5
