"""Locks that only one mount may hold at a time, and how requests for them from other mounts are answered."""

from __future__ import annotations

import errno

import pytest
from support.lock_world import INO, Answer, LockWorld

from dfsfuse.namespace.records.locks import Lock
from dfsfuse.vfs.locks.one_mount import GUARDS, guarded

GUARD = guarded([(1, b"x-shm")], 128, 128)


@pytest.mark.parametrize(
    ("name", "byte", "what"),
    [
        (b"places.sqlite-shm", 128, "SQLite"),
        (b"lock.mdb", 0, "LMDB"),
        (b"cache-lock", 0, "LMDB"),
    ],
)
def test_the_table_knows_what_programs_lock(name: bytes, byte: int, what: str) -> None:
    found = guarded([(1, b"another name"), (2, name)], byte, byte)
    assert found is not None
    assert found.name == name
    assert found.beside is None
    assert what in found.refusal


@pytest.mark.parametrize(
    ("name", "byte", "protected"),
    [
        (b"places.sqlite-shm", 128, {b"places.sqlite", b"places.sqlite-wal"}),
        (b"lock.mdb", 0, {b"data.mdb"}),
        (b"cache-lock", 0, {b"cache"}),
    ],
)
def test_it_protects_what_is_written_under_it(name: bytes, byte: int, protected: set[bytes]) -> None:
    found = guarded([(7, name)], byte, byte)
    assert found is not None
    assert found.protects == {(7, each) for each in protected}


def test_sqlite_is_known_by_its_lock_on_the_database() -> None:
    found = guarded([(7, b"places.sqlite")], 0x40000002, 0x40000002 + 509)
    assert found is not None
    assert (found.name, found.beside) == (b"places.sqlite", (7, b"places.sqlite-shm"))


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        (b"places.sqlite", 128, 128),
        (b"places.sqlite-shm", 120, 127),
        (b"places.sqlite-shm", 0, 2**63 - 1),
        (b"places.sqlite-shm", 128, 129),
        (b"my-lock.mdb", 0, 0),
        (b"apt-lock", 0, 2**63 - 1),
        (b"lock.mdb", 7482, 7482),
    ],
)
def test_all_else_is_locked_as_always(name: bytes, start: int, end: int) -> None:
    assert guarded([(1, name)], start, end) is None
    assert guarded([], start, end) is None


def test_each_guard_says_which_version_was_tried() -> None:
    assert all(any(sign.isdigit() for sign in guard.source) for guard in GUARDS)


# ---------------------------------------------------------------------- several mounts


def test_what_only_one_mount_may_use(world: LockWorld, caplog: pytest.LogCaptureFixture) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    assert a.take(1, 128, 128, shared=True, guard=GUARD) == 0
    assert a.take(2, 128, 128, shared=True, guard=GUARD) == 0, "two programs on one mount"
    for wait in (False, True, True):
        assert b.take(1, 128, 128, shared=True, guard=GUARD, wait=wait) == errno.EAGAIN
    assert b.take(1, 128, 128, shared=True, flock=True) == 0
    assert caplog.text.count("'x-shm': a lock is refused") == 1
    a.close(1)
    assert b.take(1, 128, 128, shared=True, guard=GUARD) == errno.EAGAIN
    a.close(2)
    assert b.take(1, 128, 128, shared=True, guard=GUARD) == 0
    assert a.take(1, 128, 128, shared=True, guard=GUARD) == errno.EAGAIN


def test_a_waiter_is_refused_once_only_another_mounts_use_is_in_the_way(world: LockWorld) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    assert a.take(1, 128, 128) == 0
    waiter = b.lock(1, 128, 128, shared=True, guard=GUARD, wait=True)
    assert not waiter.answered.is_set()
    assert a.take(1, 128, 128, shared=True, guard=GUARD) == 0
    assert waiter.result() == errno.EAGAIN


def test_what_only_one_mount_may_use_is_free_when_that_mount_has_died(world: LockWorld) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1, 128, 128, shared=True, guard=GUARD)
    assert b.take(1, 128, 128, shared=True, guard=GUARD) == errno.EAGAIN
    world.now_s += 10.1
    assert b.take(1, 128, 128, shared=True, guard=GUARD) == 0


def test_the_database_is_refused_while_another_mount_uses_the_index_beside_it(
    world: LockWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """For a locked database SQLite has a proper message, and it waits for its busy timeout."""
    a, b = world.mount(b"a"), world.mount(b"b")
    database = guarded([(1, b"x")], 0x40000002, 0x40000002 + 509)
    shared = {"shared": True, "guard": database}
    bytes_ = 0x40000002, 0x40000002 + 509
    assert b.take(1, *bytes_, **shared) == a.take(1, *bytes_, **shared) == 0, "allowed: there is no log yet"
    b.unlock(1, *bytes_)
    world.make_beside(1, b"x-shm", INO + 1)
    assert b.take(1, *bytes_, **shared) == 0
    b.unlock(1, *bytes_)
    a.locks.lock(INO + 1, Lock(b"", 1, False, False, 128, 128), Answer(), wait=False, guard=GUARD)
    assert a.take(2, *bytes_, **shared) == 0, "another program on the same mount"
    for wait in (False, True):
        assert b.take(1, *bytes_, wait=wait, **shared) == errno.EAGAIN
    assert b.take(1, 0x40000000, 0x40000000) == 0, "this byte does not mark the beginning of its use"
    assert caplog.text.count("b'x': a lock is refused") == 1
    a.locks.closed(INO + 1, 1)
    assert b.take(1, *bytes_, **shared) == 0


def test_within_the_mount_it_is_waited_for_as_always(world: LockWorld) -> None:
    a = world.mount()
    a.take(1, 0, 0, guard=GUARD)
    waiter = a.lock(2, 0, 0, shared=True, wait=True, guard=GUARD)
    assert not waiter.answered.is_set()
    a.take(1, 0, 0, shared=True, guard=GUARD)
    assert waiter.result() == 0


def test_the_holder_of_a_guarded_lock_need_not_hand_over_pages_at_each_unlock(world: LockWorld) -> None:
    a = world.mount()
    a.take(1, 128, 128, shared=True, guard=GUARD)
    a.take(1, 120, 120)
    a.take(2, 0, 9)
    assert not a.locks.may_have_written(INO, 1, is_flock=False)
    assert a.locks.may_have_written(INO, 2, is_flock=False)
    assert not a.locks.may_have_written(INO, 3, is_flock=False)
