"""Locks of several mounts on one map in memory: when a lock is granted, when it waits, and what may be read from then
on. Tests with the kernel are in tests/integration."""

from __future__ import annotations

import errno

import pytest
from support.lock_world import INO, Answer, LockWorld

from dfsfuse.errors import ReadOnlyError
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.locks import Lock


def test_mounts_keep_each_other_out(world: LockWorld) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    assert a.take(1, 0, 9) == 0
    assert (b.take(1, 5, 20), b.take(1, 10, 20), a.take(2, 9, 9)) == (errno.EAGAIN, 0, errno.EAGAIN)
    assert b.take(1, 0, 9, flock=True) == 0
    a.unlock(1, 4, 9)
    assert b.take(1, 4, 9) == 0
    found = b.locks.test(INO, Lock(b"", 1, False, True, 0, 99))
    assert found is not None
    assert (found.start, found.end, found.pid) == (0, 3, 1001)
    assert a.locks.test(INO, Lock(b"", 1, False, True, 0, 3)) is None


def test_what_is_not_wanted_any_more_leaves_nothing(world: LockWorld) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    assert a.take(1) == b.take(1, flock=True) == 0
    a.unlock(1)
    b.end_opening(0)
    assert keys.locks(INO) not in world.map.items
    a.locks.beat()
    b.locks.close()
    assert world.sessions() == []


def test_closing_a_file_without_locks_commits_nothing(world: LockWorld) -> None:
    """Every close() of every file takes this path."""
    a = world.mount()
    world.map.before_commit = lambda _: pytest.fail("nothing may be committed")
    a.close(1)
    a.unlock(1)
    assert a.saved == []


def test_the_data_is_saved_before_a_lock_ends(world: LockWorld) -> None:
    a = world.mount()
    held: list[int] = []
    a.locks._save = lambda ino: held.append(len(world.table()))
    a.take(1)
    a.unlock(1, 0, 49)
    a.close(1)
    assert held == [1, 1]
    assert world.table() == ()


def test_a_close_that_cannot_save_yet_leaves_the_locks_until_it_has_ended(world: LockWorld) -> None:
    """The save may be retried (`-o wait`), and others must not read before it succeeds."""
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1, handle=11)
    a.take(2, flock=True, handle=11)
    save, a.locks._save = a.locks._save, lambda _: (_ for _ in ()).throw(ReadOnlyError("two servers are away"))
    for attempt in (lambda: a.locks.closing(INO, 1), lambda: a.locks.releasing(INO, 11)):
        for _ in range(2):
            with pytest.raises(ReadOnlyError):
                attempt()
    assert (b.take(1), b.take(1, flock=True)) == (errno.EAGAIN, errno.EAGAIN)
    a.locks._save = save
    a.locks.closing(INO, 1)
    a.locks.closed(INO, 1)
    a.locks.releasing(INO, 11)
    a.locks.released(INO, 11)
    assert a.saved == [INO, INO]
    assert (b.take(1), b.take(1, flock=True)) == (0, 0)


def test_any_close_ends_all_fcntl_locks_of_the_owner(world: LockWorld) -> None:
    a = world.mount()
    a.take(1, 0, 9)
    a.take(1, 50, 59)
    a.take(2, 20, 29)
    a.take(1, flock=True)
    a.close(1)
    assert [lock.holder[1:] for lock in world.table()] == [(2, False), (1, True)]


def test_what_was_written_is_saved_before_an_exclusive_lock_becomes_a_shared_one(world: LockWorld) -> None:
    a = world.mount()
    held: list[bool] = []
    a.locks._save = lambda _: held.append(world.table()[0].is_exclusive)
    a.take(1)
    assert a.take(1, shared=True) == 0
    assert held == [True]
    a.unlock(1)
    held.clear()
    assert a.take(2, shared=True) == a.take(2, shared=True) == 0
    assert held == [], "a process that has only read has nothing to save"


# ---------------------------------------------------------------------- waiting


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_waiter_is_answered_when_the_lock_becomes_free(world: LockWorld, elsewhere: bool) -> None:
    a = world.mount(b"a")
    other = world.mount(b"b") if elsewhere else a
    a.take(1)
    waiter = other.lock(2, wait=True)
    assert not waiter.answered.is_set()
    a.unlock(1)
    assert waiter.result() == 0
    assert world.table()[0].owner == 2


def test_first_come_first_served(world: LockWorld) -> None:
    a = world.mount()
    a.take(1)
    second = a.lock(2, wait=True)
    third = a.lock(3, shared=True, wait=True)
    fourth = a.lock(4, shared=True, wait=True)
    a.unlock(1)
    assert second.result() == 0
    assert not third.answered.is_set()
    fifth = a.lock(5, wait=True)
    a.unlock(2)
    assert third.result() == fourth.result() == 0
    assert not fifth.answered.is_set()


def test_the_holder_of_a_lock_does_not_queue_behind_its_waiters(world: LockWorld) -> None:
    a = world.mount()
    a.take(1, shared=True)
    waiter = a.lock(2, wait=True)
    assert a.lock(1, wait=True).result() == 0
    a.unlock(1)
    assert waiter.result() == 0


def test_two_holders_that_both_convert_a_flock_do_not_deadlock(world: LockWorld) -> None:
    """As on Linux: converting a flock releases the old one first if the conversion has to wait."""
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1, shared=True, flock=True)
    b.take(1, shared=True, flock=True)
    one, other = a.lock(1, flock=True, wait=True), b.lock(1, flock=True, wait=True)
    assert other.result() == 0
    b.unlock(1, flock=True)
    assert one.result() == 0


def test_an_interrupted_waiter_leaves_nothing(world: LockWorld) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1)
    waiter = b.lock(1, wait=True)
    waiter.interrupt()
    assert waiter.result() == errno.EINTR
    a.unlock(1)
    assert world.table() == ()
    assert a.take(2) == 0


def test_interrupted_at_the_moment_of_the_grant(world: LockWorld) -> None:
    """The process keeps exactly the locks that it had before."""
    a = world.mount()
    a.take(1, 0, 49, shared=True)
    a.changed.clear()
    answer = Answer()
    answer.fail(errno.EINTR)
    a.locks.lock(INO, Lock(b"", 1, False, True, 20, 99), answer, wait=False)
    assert [(lock.start, lock.end, lock.is_exclusive) for lock in world.table()] == [(0, 49, False)]
    answer = Answer()
    answer.fail(errno.EINTR)
    a.locks.lock(INO, Lock(b"", 2, True, True), answer, wait=False)
    assert len(world.table()) == 1


# ---------------------------------------------------------------------- what the kernel forgets


def test_the_kernel_forgets_a_file_that_was_changed_and_only_then(world: LockWorld) -> None:
    a = world.mount()
    for time_ns, expected in [(1, 1), (1, 1), (2, 2), (3, 3), (3, 3)]:
        world.write(time_ns)
        assert a.take(1) == 0
        a.unlock(1)
        assert len(a.changed) == expected


def test_a_lock_is_granted_only_after_the_kernel_has_dropped_its_pages(world: LockWorld) -> None:
    """Dropping them takes as long as the kernel waits for pages, and no thread of the caller waits for it."""
    a = world.mount()
    a.takes_time = True
    first, second = a.lock(1, 0, 9), a.lock(2, 20, 29)
    assert (len(a.changed), len(a.forgotten)) == (2, 2), "the second lock cannot rely on a drop that has not finished"
    assert not first.answered.is_set()
    assert not second.answered.is_set()
    for then in a.forgotten:
        then()
    assert (first.result(), second.result()) == (0, 0)
    assert a.take(3, 40, 49) == 0
    assert len(a.changed) == 2


def test_interrupted_while_the_kernel_forgets(world: LockWorld) -> None:
    a = world.mount()
    a.takes_time = True
    answer = a.lock(1)
    answer.fail(errno.EINTR)
    a.forgotten.pop()()
    assert world.table() == ()
