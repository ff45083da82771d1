"""Locks of several mounts over one map in memory, with a clock that tests move. With the kernel: integration."""

from __future__ import annotations

import errno
import itertools
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.memory_map import MemoryMap

from dfsfuse.errors import ReadOnlyError
from dfsfuse.namespace.ops import inodes
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys, locks
from dfsfuse.namespace.records.inode import Entry
from dfsfuse.namespace.records.locks import Lock
from dfsfuse.vfs.locks.locking import Locking
from dfsfuse.vfs.locks.one_mount import Guarded, guarded

INO = 7
DEADLINE_S = 20.0


class Answer:
    """What a request is answered, once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.answered = threading.Event()
        self.error: int | None = None
        self._interruption: Callable[[], None] | None = None

    def done(self) -> bool:
        return self.fail(0)

    def fail(self, error: int) -> bool:
        with self._lock:
            if self.error is not None:
                return False
            self.error = error
        self.answered.set()
        return True

    def on_interrupt(self, callback: Callable[[], None]) -> None:
        self._interruption = callback

    def interrupt(self) -> None:
        assert self._interruption is not None
        self._interruption()

    def result(self) -> int:
        assert self.answered.wait(DEADLINE_S)
        assert self.error is not None
        return self.error


class Mount:
    """The locks of one mount."""

    def __init__(self, world: World, name: bytes) -> None:
        self.saved: list[int] = []
        self.changed: list[int] = []
        numbers = itertools.count(1)
        self.locks = Locking(
            world.map,
            self.saved.append,
            lifetime_s=10.0,
            clock=lambda: world.now_s,
            new_id=lambda: name + b"%d" % next(numbers),
        )
        self.forgotten: list[Callable[[], None]] = []
        """What to call when the kernel has forgotten the file, while that takes time."""
        self.takes_time = False
        self.locks.on_change = self._forget

    def _forget(self, ino: int, then: Callable[[], None]) -> None:
        self.changed.append(ino)
        if self.takes_time:
            self.forgotten.append(then)
        else:
            then()

    def lock(
        self,
        owner: int,
        start: int = 0,
        end: int = 99,
        *,
        shared: bool = False,
        flock: bool = False,
        wait: bool = False,
        handle: int = 0,
        guard: Guarded | None = None,
    ) -> Answer:
        answer = Answer()
        wanted = Lock(b"", owner, flock, not shared, start, end, 1000 + owner)
        self.locks.lock(INO, wanted, answer, wait=wait, handle=handle, guard=guard)
        return answer

    def take(self, owner: int, start: int = 0, end: int = 99, **how: Any) -> int:
        return self.lock(owner, start, end, **how).result()

    def close(self, owner: int) -> None:
        """A descriptor; what keeps the data from being saved keeps no lock."""
        try:
            self.locks.closing(INO, owner)
        finally:
            self.locks.closed(INO, owner)

    def end_opening(self, handle: int) -> None:
        try:
            self.locks.releasing(INO, handle)
        finally:
            self.locks.released(INO, handle)

    def unlock(self, owner: int, start: int = 0, end: int = 99, *, flock: bool = False) -> None:
        self.locks.unlock(INO, owner, start, end, is_flock=flock)


class World:
    """One namespace, its mounts, and what time it is."""

    def __init__(self) -> None:
        self.map = MemoryMap()
        self.now_s = 1000.0
        self.mounts: list[Mount] = []
        self.write(1)

    def mount(self, name: bytes = b"m") -> Mount:
        self.mounts.append(Mount(self, name))
        return self.mounts[-1]

    def write(self, time_ns: int) -> None:
        """Somebody saves something in the file."""
        self.map.transact(lambda tx: inodes.save(tx, INO, inodes.new(0o100644, 0, 0, time_ns)))

    def make_beside(self, parent: int, name: bytes, ino: int) -> None:
        """Another file."""
        entry = records.encode(Entry(records.FORMAT, ino, stat.S_IFREG))
        self.map.transact(lambda tx: tx.put(keys.entry(parent, name), entry))
        self.map.transact(lambda tx: inodes.save(tx, ino, inodes.new(0o100644, 0, 0, 1)))

    def table(self) -> locks.Locks:
        return locks.decode(self.map.items.get(keys.locks(INO)))

    def sessions(self) -> list[bytes]:
        return sorted(key[2:] for key in self.map.items if key.startswith(b"s/"))


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    for mount in world.mounts:
        mount.locks.close()


def test_mounts_keep_each_other_out(world: World) -> None:
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


def test_what_is_not_wanted_any_more_leaves_nothing(world: World) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    assert a.take(1) == b.take(1, flock=True) == 0
    a.unlock(1)
    b.end_opening(0)
    assert keys.locks(INO) not in world.map.items
    a.locks.beat()
    b.locks.close()
    assert world.sessions() == []


def test_who_holds_nothing_asks_nobody(world: World) -> None:
    """Every close() of every file comes here."""
    a = world.mount()
    world.map.before_commit = lambda _: pytest.fail("a commit")
    a.close(1)
    a.unlock(1)
    assert a.saved == []


def test_the_data_is_saved_before_a_lock_ends(world: World) -> None:
    a = world.mount()
    held: list[int] = []
    a.locks._save = lambda ino: held.append(len(world.table()))
    a.take(1)
    a.unlock(1, 0, 49)
    a.close(1)
    assert held == [1, 1]
    assert world.table() == ()


def test_a_close_that_cannot_save_yet_leaves_the_locks_until_it_has_ended(world: World) -> None:
    """It may be tried again (`-o wait`), and others must not read before."""
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


def test_any_close_ends_all_fcntl_locks_of_the_owner(world: World) -> None:
    a = world.mount()
    a.take(1, 0, 9)
    a.take(1, 50, 59)
    a.take(2, 20, 29)
    a.take(1, flock=True)
    a.close(1)
    assert [lock.holder[1:] for lock in world.table()] == [(2, False), (1, True)]


# ---------------------------------------------------------------------- which opening they were set through


def test_an_opening_that_ends_takes_what_was_set_through_it(world: World) -> None:
    """flock and OFD locks: the kernel tells nothing else of their end, and does not tell these from fcntl locks."""
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1, 0, 9, handle=11)
    a.take(2, 10, 19, handle=12)
    a.take(1, flock=True, handle=11)
    assert (b.take(1, 0, 9), b.take(1, flock=True)) == (errno.EAGAIN, errno.EAGAIN)
    a.end_opening(11)
    assert [lock.holder[1:] for lock in world.table()] == [(2, False)]
    assert a.saved == [INO]
    assert (b.take(1, 0, 9), b.take(1, flock=True), b.take(1, 10, 19)) == (0, 0, errno.EAGAIN)


def test_an_opening_without_locks_ends_quietly(world: World) -> None:
    """Every close() of every file comes here."""
    a = world.mount()
    a.take(1, handle=11)
    a.saved.clear()
    before = len(world.map.batches)
    a.end_opening(12)
    a.locks.releasing(INO + 1, 11)
    a.locks.released(INO + 1, 11)
    assert (a.saved, len(world.map.batches)) == ([], before)


def test_an_fcntl_lock_that_was_taken_again_through_another_descriptor_stays(world: World) -> None:
    """The first descriptor's close() ends all locks of the process; its last duplicate may go much later."""
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


def test_locks_of_one_process_through_two_descriptors_stay_while_one_is_open(world: World) -> None:
    a = world.mount()
    a.take(1, 0, 9, handle=11)
    a.take(1, 10, 19, handle=12)
    a.end_opening(11)
    assert [(lock.start, lock.end) for lock in world.table()] == [(0, 19)]
    a.end_opening(12)
    assert world.table() == ()


def test_an_owners_number_that_is_given_again_before_the_end_was_told(world: World) -> None:
    """The kernel's number of an OFD lock's owner is an address: the next open() may get it. The new lock stays."""
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1, 0, 9, handle=11)
    assert a.take(1, 0, 99, handle=12) == 0
    a.end_opening(11)
    assert b.take(1) == errno.EAGAIN
    a.end_opening(12)
    assert b.take(1) == 0


def test_who_was_refused_through_an_opening_has_nothing_through_it(world: World) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    b.take(1, 50, 59)
    a.take(1, 0, 9, handle=11)
    assert a.take(1, 50, 59, handle=12) == errno.EAGAIN
    a.end_opening(11)
    assert [lock.session for lock in world.table()] == [b"b1"]


def test_the_end_of_an_opening_forgives_what_was_lost(world: World) -> None:
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


def test_a_waiter_that_is_killed_leaves_an_opening_that_ends_with_nothing(world: World) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    b.take(1)
    waiter = a.lock(1, wait=True, handle=11)
    waiter.interrupt()
    a.end_opening(11)
    b.unlock(1)
    assert world.table() == ()


def test_an_opening_whose_locks_cannot_be_ended_now_has_them_ended_later(world: World) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1, handle=11)
    world.map.is_writable = False
    a.end_opening(11)
    world.map.is_writable = True
    assert b.take(1) == errno.EAGAIN
    a.locks.beat()
    assert b.take(1) == 0


# ---------------------------------------------------------------------- who may read from then on


def test_what_was_written_is_saved_before_an_exclusive_lock_becomes_a_shared_one(world: World) -> None:
    a = world.mount()
    held: list[bool] = []
    a.locks._save = lambda _: held.append(world.table()[0].is_exclusive)
    a.take(1)
    assert a.take(1, shared=True) == 0
    assert held == [True]
    a.unlock(1)
    held.clear()
    assert a.take(2, shared=True) == a.take(2, shared=True) == 0
    assert held == [], "who has only read has nothing to save"


# ---------------------------------------------------------------------- what only one mount may use


GUARD = guarded([(1, b"x-shm")], 128, 128)


def test_what_only_one_mount_may_use(world: World, caplog: pytest.LogCaptureFixture) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    assert a.take(1, 128, 128, shared=True, guard=GUARD) == 0
    assert a.take(2, 128, 128, shared=True, guard=GUARD) == 0, "two programs of one mount"
    for wait in (False, True, True):
        assert b.take(1, 128, 128, shared=True, guard=GUARD, wait=wait) == errno.EAGAIN
    assert b.take(1, 128, 128, shared=True, flock=True) == 0
    assert caplog.text.count("'x-shm': a lock is refused") == 1
    a.close(1)
    assert b.take(1, 128, 128, shared=True, guard=GUARD) == errno.EAGAIN
    a.close(2)
    assert b.take(1, 128, 128, shared=True, guard=GUARD) == 0
    assert a.take(1, 128, 128, shared=True, guard=GUARD) == errno.EAGAIN


def test_what_only_one_mount_may_use_is_free_when_that_mount_has_died(world: World) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1, 128, 128, shared=True, guard=GUARD)
    assert b.take(1, 128, 128, shared=True, guard=GUARD) == errno.EAGAIN
    world.now_s += 10.1
    assert b.take(1, 128, 128, shared=True, guard=GUARD) == 0


def test_the_database_is_refused_while_another_mount_uses_the_index_beside_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """There SQLite has the right words, and waits as long as it was told."""
    a, b = world.mount(b"a"), world.mount(b"b")
    database = guarded([(1, b"x")], 0x40000002, 0x40000002 + 509)
    shared = {"shared": True, "guard": database}
    bytes_ = 0x40000002, 0x40000002 + 509
    assert b.take(1, *bytes_, **shared) == a.take(1, *bytes_, **shared) == 0, "as long as there is no log"
    b.unlock(1, *bytes_)
    world.make_beside(1, b"x-shm", INO + 1)
    assert b.take(1, *bytes_, **shared) == 0
    b.unlock(1, *bytes_)
    a.locks.lock(INO + 1, Lock(b"", 1, False, False, 128, 128), Answer(), wait=False, guard=GUARD)
    assert a.take(2, *bytes_, **shared) == 0, "another program of the same mount"
    for wait in (False, True):
        assert b.take(1, *bytes_, wait=wait, **shared) == errno.EAGAIN
    assert b.take(1, 0x40000000, 0x40000000) == 0, "what is not the beginning of its use"
    assert caplog.text.count("b'x': a lock is refused") == 1
    a.locks.closed(INO + 1, 1)
    assert b.take(1, *bytes_, **shared) == 0


def test_within_the_mount_it_is_waited_for_as_always(world: World) -> None:
    a = world.mount()
    a.take(1, 0, 0, guard=GUARD)
    waiter = a.lock(2, 0, 0, shared=True, wait=True, guard=GUARD)
    assert not waiter.answered.is_set()
    a.take(1, 0, 0, shared=True, guard=GUARD)
    assert waiter.result() == 0


def test_who_keeps_other_mounts_out_owes_them_nothing_at_each_unlock(world: World) -> None:
    a = world.mount()
    a.take(1, 128, 128, shared=True, guard=GUARD)
    a.take(1, 120, 120)
    a.take(2, 0, 9)
    assert not a.locks.may_have_written(INO, 1, is_flock=False)
    assert a.locks.may_have_written(INO, 2, is_flock=False)
    assert not a.locks.may_have_written(INO, 3, is_flock=False)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_who_waits_is_answered_when_it_is_free(world: World, elsewhere: bool) -> None:
    a = world.mount(b"a")
    other = world.mount(b"b") if elsewhere else a
    a.take(1)
    waiter = other.lock(2, wait=True)
    assert not waiter.answered.is_set()
    a.unlock(1)
    assert waiter.result() == 0
    assert world.table()[0].owner == 2


def test_first_come_first_served(world: World) -> None:
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


def test_who_has_a_lock_does_not_queue_behind_those_who_wait_for_it(world: World) -> None:
    a = world.mount()
    a.take(1, shared=True)
    waiter = a.lock(2, wait=True)
    assert a.lock(1, wait=True).result() == 0
    a.unlock(1)
    assert waiter.result() == 0


def test_two_who_both_want_more_of_a_flock_do_not_wait_for_each_other(world: World) -> None:
    """As Linux does: who waits for another kind of flock lets go of the one he has."""
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1, shared=True, flock=True)
    b.take(1, shared=True, flock=True)
    one, other = a.lock(1, flock=True, wait=True), b.lock(1, flock=True, wait=True)
    assert other.result() == 0
    b.unlock(1, flock=True)
    assert one.result() == 0


def test_an_interrupted_waiter_leaves_nothing(world: World) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1)
    waiter = b.lock(1, wait=True)
    waiter.interrupt()
    assert waiter.result() == errno.EINTR
    a.unlock(1)
    assert world.table() == ()
    assert a.take(2) == 0


def test_interrupted_at_the_moment_of_the_grant(world: World) -> None:
    """What it had before it has afterwards."""
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


def test_the_kernel_forgets_a_file_that_was_changed_and_only_then(world: World) -> None:
    a = world.mount()
    for time_ns, expected in [(1, 1), (1, 1), (2, 2), (3, 3), (3, 3)]:
        world.write(time_ns)
        assert a.take(1) == 0
        a.unlock(1)
        assert len(a.changed) == expected


def test_nobody_is_answered_before_the_kernel_has_forgotten(world: World) -> None:
    """It takes as long as the kernel waits for pages, and is waited for by no thread of the caller."""
    a = world.mount()
    a.takes_time = True
    first, second = a.lock(1, 0, 9), a.lock(2, 20, 29)
    assert (len(a.changed), len(a.forgotten)) == (2, 2), "the second one cannot rely on what is not done yet"
    assert not first.answered.is_set()
    assert not second.answered.is_set()
    for then in a.forgotten:
        then()
    assert (first.result(), second.result()) == (0, 0)
    assert a.take(3, 40, 49) == 0
    assert len(a.changed) == 2


def test_interrupted_while_the_kernel_forgets(world: World) -> None:
    a = world.mount()
    a.takes_time = True
    answer = a.lock(1)
    answer.fail(errno.EINTR)
    a.forgotten.pop()()
    assert world.table() == ()


# ---------------------------------------------------------------------- who is dead


def test_a_silent_mount_loses_its_locks_and_is_told(world: World) -> None:
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


def test_who_has_lost_a_lock_gets_no_other_one_on_the_file_before_he_knows(world: World) -> None:
    """He believes to have the first: a SQLite process would go on writing beside another mount's."""
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1, 0, 9)
    b.take(1, 0, 9)
    world.now_s += 10.1
    assert b.take(1, 0, 9) == 0
    for _ in range(2):
        with pytest.raises(OSError, match="lost") as caught:
            a.take(1, 50, 59)
        assert caught.value.errno == errno.EIO
    assert a.take(2, 50, 59) == 0, "another process knows of nothing"
    a.end_opening(0)
    assert (a.take(1, 50, 59), a.take(1, 0, 9)) == (0, errno.EAGAIN)


@pytest.mark.parametrize("how", ["lost", "unreadable"])
def test_who_waits_for_what_he_can_never_get_is_told_and_nobody_waits_behind_him(world: World, how: str) -> None:
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


def test_what_a_lost_lock_protects_is_not_written_to_either(world: World) -> None:
    """A write-ahead log and its database have no lock that would be lost: that is the index's."""
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


def test_who_was_refused_or_failed_has_nothing_to_lose(world: World) -> None:
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


def test_a_mount_that_gives_signs_of_life_keeps_its_locks(world: World) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1)
    for _ in range(10):
        assert b.take(1) == errno.EAGAIN
        world.now_s += 5
        a.locks.beat()
        a.locks.check(INO)
    assert b.take(1) == errno.EAGAIN


def test_a_waiter_finds_out_who_is_dead(world: World) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1)
    waiter = b.lock(1, wait=True)
    world.now_s += 11
    assert waiter.result() == 0
    world.now_s -= 11


def test_a_mount_without_quorum_knows_that_its_locks_are_unsure_before_others_take_them(world: World) -> None:
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


def test_a_lock_that_cannot_be_ended_at_close_is_ended_later(world: World) -> None:
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
    assert a.take(1, 300, 300) == 0, "the same number, another process"
    assert b.take(1, 0, 99) == 0
    a.locks.beat()
    assert b.take(1, 200, 299) == 0


def test_a_mount_that_slept_while_it_had_no_locks_has_lost_nothing(world: World) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1)
    a.unlock(1)
    world.now_s += 3600
    assert a.take(1) == 0
    a.locks.check(INO)
    assert b.take(1) == errno.EAGAIN


def test_a_clean_end_ends_all_locks_at_once(world: World) -> None:
    a, b = world.mount(b"a"), world.mount(b"b")
    a.take(1)
    a.take(2, flock=True)
    a.locks.close()
    assert b.take(1) == b.take(1, flock=True) == 0
