"""Dead mounts, and locks lost with a session: locks that cannot be renewed are given up before others take them."""

from __future__ import annotations

import errno

import pytest
from support.lock_world import INO, Answer, LockWorld

from dfsfuse.errors import ReadOnlyError
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.locks import Lock
from dfsfuse.vfs.locks.one_mount import guarded

GUARD = guarded([(1, b"x-shm")], 128, 128)


def test_a_silent_mount_loses_its_locks_and_is_told(world: LockWorld) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1)
    assert b.take(1) == errno.EAGAIN
    world.now_s += 9.9
    assert b.take(1) == errno.EAGAIN
    world.now_s += 0.2
    assert b.take(1) == 0
    assert world.sessions() == [b"b1"]
    for _ in range(2):
        with pytest.raises(OSError, match="lost") as caught:
            a.locks.check(INO)
        assert caught.value.errno == errno.EIO
    with pytest.raises(OSError, match="lost"):
        a.unlock(1)
    a.locks.check(INO)
    assert a.take(1) == errno.EAGAIN
    b.unlock(1)
    assert a.take(1) == 0
    assert world.table()[0].session != b"a1"


def test_a_process_gets_no_new_lock_on_a_file_until_it_was_told_of_the_lost_one(world: LockWorld) -> None:
    """The process still relies on the lost one: a SQLite process would go on writing beside another mount's."""
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1, 0, 9)
    b.take(1, 0, 9)
    world.now_s += 10.1
    assert b.take(1, 0, 9) == 0
    for _ in range(2):
        with pytest.raises(OSError, match="lost") as caught:
            a.take(1, 50, 59)
        assert caught.value.errno == errno.EIO
    assert a.take(2, 50, 59) == 0, "another process has lost nothing"
    a.end_opening(0)
    assert (a.take(1, 50, 59), a.take(1, 0, 9)) == (0, errno.EAGAIN)


@pytest.mark.parametrize("how", ["lost", "unreadable"])
def test_waiting_for_a_lock_that_can_never_be_granted_fails_and_blocks_no_waiter(world: LockWorld, how: str) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1, 0, 9)
    b.take(1, 50, 59)
    waiter = a.lock(1, 50, 59, wait=True)
    other = Answer()
    b.locks.lock(INO + 1, Lock(b"", 1, False, True), Answer(), wait=False)
    a.locks.lock(INO + 1, Lock(b"", 2, False, True), other, wait=True)
    if how == "lost":
        with a.locks._turn:
            a.locks._session.lose()
    else:
        world.map.transact(lambda tx: tx.put(keys.locks(INO), b"nonsense"))
    b.locks.unlock(INO + 1, 1, is_flock=False)
    if how == "lost":
        b.unlock(1, 50, 59)
    assert (waiter.result(), other.result()) == (errno.EIO, 0)
    world.map.transact(lambda tx: tx.delete(keys.locks(INO)))


def test_what_a_lost_lock_protects_is_not_written_to_either(world: LockWorld) -> None:
    """SQLite's write-ahead log and database are protected by a lock on its index file, so they have no lock to lose."""
    a, b = world.mount(b"a"), world.mount(b"b")
    log, database, another = INO + 1, INO + 2, INO + 3
    names = {log: [(1, b"x-wal")], database: [(1, b"x")], another: [(1, b"y"), (2, b"x")]}

    def check(ino: int) -> None:
        a.locks.check(ino, lambda: names[ino])

    a.take(1, 128, 128, shared=True, guard=GUARD)
    b.take(1, 128, 128, shared=True, guard=GUARD)
    for ino in names:
        check(ino)
    world.now_s += 7.6
    for ino in (log, database):
        with pytest.raises(OSError, match="lost"):
            check(ino)
    world.now_s += 2.5
    assert b.take(1, 128, 128, shared=True, guard=GUARD) == 0
    for ino in (log, database):
        with pytest.raises(OSError, match="lost"):
            check(ino)
    check(another)
    with pytest.raises(OSError, match="lost"):
        a.close(1)
    for ino in names:
        check(ino)


def test_a_process_whose_lock_was_refused_or_failed_has_nothing_to_lose(world: LockWorld) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    b.take(1)
    assert a.take(1) == errno.EAGAIN
    world.map.is_writable = False
    with pytest.raises(ReadOnlyError):
        a.take(2, 200, 299)
    world.map.is_writable = True
    a.locks._session.lose()
    a.locks.check(INO)
    assert a.take(2, 200, 299) == 0


def test_a_mount_that_gives_signs_of_life_keeps_its_locks(world: LockWorld) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1)
    for _ in range(10):
        assert b.take(1) == errno.EAGAIN
        world.now_s += 5
        a.locks.beat()
        a.locks.check(INO)
    assert b.take(1) == errno.EAGAIN


def test_a_waiter_finds_out_that_a_mount_is_dead(world: LockWorld) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1)
    waiter = b.lock(1, wait=True)
    world.now_s += 11
    assert waiter.result() == 0
    world.now_s -= 11


def test_a_mount_without_quorum_knows_that_its_locks_are_unsure_before_others_take_them(world: LockWorld) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1)
    b.take(1)
    world.map.is_writable = False
    world.now_s += 7.6
    with pytest.raises(OSError, match="lost"):
        a.locks.check(INO)
    world.map.is_writable = True
    assert b.take(1) == errno.EAGAIN
    with pytest.raises(OSError, match="lost"):
        a.locks.check(INO)


def test_a_lock_that_cannot_be_ended_at_close_is_ended_later(world: LockWorld) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1)
    a.take(2, 200, 299)
    world.map.is_writable = False
    a.close(1)
    a.close(2)
    with pytest.raises(ReadOnlyError):
        b.take(1, 500, 500)
    world.map.is_writable = True
    assert b.take(1, 0, 99) == errno.EAGAIN
    assert a.take(1, 300, 300) == 0, "the same owner number, but another process"
    assert b.take(1, 0, 99) == 0
    a.locks.beat()
    assert b.take(1, 200, 299) == 0


def test_a_mount_that_slept_while_it_had_no_locks_has_lost_nothing(world: LockWorld) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1)
    a.unlock(1)
    world.now_s += 3600
    assert a.take(1) == 0
    a.locks.check(INO)
    assert b.take(1) == errno.EAGAIN


def test_a_clean_end_ends_all_locks_at_once(world: LockWorld) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1)
    a.take(2, flock=True)
    a.locks.close()
    assert b.take(1) == b.take(1, flock=True) == 0
