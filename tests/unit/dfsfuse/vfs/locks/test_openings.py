"""Locks end with the open file description through which they were set: flock and OFD locks, which the kernel does not
distinguish from fcntl locks."""

from __future__ import annotations

import errno

import pytest
from support.lock_world import INO, LockWorld


def test_an_opening_that_ends_takes_what_was_set_through_it(world: LockWorld) -> None:
    """For flock and OFD locks the kernel reports nothing else at their end; OFD locks look like fcntl locks."""
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1, 0, 9, handle=11)
    a.take(2, 10, 19, handle=12)
    a.take(1, flock=True, handle=11)
    assert (b.take(1, 0, 9), b.take(1, flock=True)) == (errno.EAGAIN, errno.EAGAIN)
    a.end_opening(11)
    assert [lock.holder[1:] for lock in world.table()] == [(2, False)]
    assert a.saved == [INO]
    assert (b.take(1, 0, 9), b.take(1, flock=True), b.take(1, 10, 19)) == (0, 0, errno.EAGAIN)


def test_an_opening_without_locks_ends_quietly(world: LockWorld) -> None:
    """Every close() of every file takes this path."""
    a = world.mount()
    a.take(1, handle=11)
    a.saved.clear()
    before = len(world.map.batches)
    a.end_opening(12)
    a.locks.releasing(INO + 1, 11)
    a.locks.released(INO + 1, 11)
    assert (a.saved, len(world.map.batches)) == ([], before)


def test_an_fcntl_lock_that_was_taken_again_through_another_descriptor_stays(world: LockWorld) -> None:
    """The first descriptor's close() ends all locks of the process; its last duplicate may be closed much later."""
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1, handle=11)
    a.close(1)
    assert world.table() == ()
    a.take(1, handle=12)
    a.end_opening(11)
    assert b.take(1) == errno.EAGAIN
    a.close(1)
    assert b.take(1) == 0
    a.end_opening(12)
    assert [lock.session for lock in world.table()] == [b"b1"]


def test_locks_of_one_process_through_two_descriptors_stay_while_one_is_open(world: LockWorld) -> None:
    a = world.mount()
    a.take(1, 0, 9, handle=11)
    a.take(1, 10, 19, handle=12)
    a.end_opening(11)
    assert [(lock.start, lock.end) for lock in world.table()] == [(0, 19)]
    a.end_opening(12)
    assert world.table() == ()


def test_an_owners_number_that_is_given_again_before_the_end_was_told(world: LockWorld) -> None:
    """The kernel identifies the owner of an OFD lock by an address that may be used again. The new lock stays."""
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1, 0, 9, handle=11)
    assert a.take(1, 0, 99, handle=12) == 0
    a.end_opening(11)
    assert b.take(1) == errno.EAGAIN
    a.end_opening(12)
    assert b.take(1) == 0


def test_a_refused_request_leaves_nothing_with_the_opening(world: LockWorld) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    b.take(1, 50, 59)
    a.take(1, 0, 9, handle=11)
    assert a.take(1, 50, 59, handle=12) == errno.EAGAIN
    a.end_opening(11)
    assert [lock.session for lock in world.table()] == [b"b1"]


def test_the_end_of_an_opening_forgives_what_was_lost(world: LockWorld) -> None:
    a = world.mount()
    a.take(1, handle=11)
    a.locks._session.lose()
    with pytest.raises(OSError, match="lost"):
        a.locks.check(INO)
    a.end_opening(12)
    with pytest.raises(OSError, match="lost"):
        a.locks.check(INO)
    a.end_opening(11)
    a.locks.check(INO)


def test_a_waiter_that_is_killed_leaves_an_opening_that_ends_with_nothing(world: LockWorld) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    b.take(1)
    waiter = a.lock(1, wait=True, handle=11)
    waiter.interrupt()
    a.end_opening(11)
    b.unlock(1)
    assert world.table() == ()


def test_an_opening_whose_locks_cannot_be_ended_now_has_them_ended_later(world: LockWorld) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1, handle=11)
    world.map.is_writable = False
    a.end_opening(11)
    world.map.is_writable = True
    assert b.take(1) == errno.EAGAIN
    a.locks.beat()
    assert b.take(1) == 0
