"""What dead mounts have left is found and ended; living mounts are neither taken for dead nor waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from support.memory_map import MemoryMap
from support.memory_pages import MemoryPages

from dfsfuse.errors import ReadOnlyError
from dfsfuse.namespace.ops import lock_sessions
from dfsfuse.namespace.records import keys, locks
from dfsfuse.namespace.records.locks import Lock
from dfsfuse.upkeep.fsck.sessions import LOOK_EVERY_S, Sessions

LIFE_S = 10.0
PATIENCE_S = 2 * LIFE_S


class Mounts:
    """Mounts that hold locks, and one that checks them. `meanwhile` is called at each of its pauses."""

    def __init__(self) -> None:
        self.store = MemoryMap()
        self.pages = MemoryPages(self.store)
        self.now = 100.0
        self.paused = 0.0
        self.meanwhile: Callable[[], None] = lambda: None

    def look(self) -> Sessions:
        return Sessions(self.pages, lambda: self.now, self.pause)

    def pause(self, seconds: float) -> None:
        assert 0 < seconds <= LOOK_EVERY_S
        self.now += seconds
        self.paused += seconds
        self.meanwhile()

    def hold(self, session: bytes, ino: int, beat: int = 1) -> None:
        def work(tx: lock_sessions.Transaction) -> None:
            tx.put(keys.session(session), lock_sessions.encode_heartbeat(beat, LIFE_S))
            found = locks.decode(tx.get(keys.locks(ino)))
            tx.put(keys.locks(ino), locks.encode(locks.with_lock(found, Lock(session, 7, False, False))))

        self.store.transact(work)

    def end(self, session: bytes) -> None:
        self.store.transact(lambda tx: tx.delete(keys.session(session)))

    def left(self) -> list[bytes]:
        return sorted(self.store.items)

    def holders(self, ino: int) -> list[bytes]:
        return [lock.session for lock in locks.decode(self.store.items.get(keys.locks(ino)))]


@pytest.fixture
def mounts() -> Mounts:
    return Mounts()


def test_a_session_without_a_sign_of_life_and_locks_without_a_session_are_counted_and_nothing_changes(
    mounts: Mounts,
) -> None:
    mounts.hold(b"dead", 5)
    mounts.hold(b"dead", 6)
    mounts.hold(b"ended", 6)
    mounts.end(b"ended")
    mounts.hold(b"lives", 6)
    before = mounts.left()
    sessions = mounts.look()
    mounts.meanwhile = lambda: mounts.hold(b"lives", 6, beat=int(mounts.now))
    found = sessions.remains()
    assert (found.sessions, found.locks) == ((keys.session(b"dead"),), 3)
    assert mounts.paused == PATIENCE_S
    assert mounts.left() == before


def test_they_are_ended_and_the_locks_of_the_living_stay(mounts: Mounts) -> None:
    mounts.hold(b"dead", 5)
    mounts.hold(b"dead", 6)
    mounts.hold(b"lives", 6)
    sessions = mounts.look()
    mounts.meanwhile = lambda: mounts.hold(b"lives", 6, beat=int(mounts.now))
    found = sessions.end_dead(mounts.store)
    assert (found.sessions, found.locks) == ((keys.session(b"dead"),), 2)
    assert mounts.left() == [keys.locks(6), keys.session(b"lives")]
    assert mounts.holders(6) == [b"lives"]
    assert mounts.look().remains().locks == 0


def test_a_mount_that_has_renewed_since_the_beginning_is_not_waited_for(mounts: Mounts) -> None:
    mounts.hold(b"lives", 5)
    sessions = mounts.look()
    mounts.hold(b"lives", 5, beat=2)
    mounts.hold(b"later", 6)
    assert sessions.end_dead(mounts.store).sessions == ()
    assert mounts.paused == 0
    assert (mounts.holders(5), mounts.holders(6)) == ([b"lives"], [b"later"])


def test_what_passed_since_the_beginning_counts(mounts: Mounts) -> None:
    mounts.hold(b"dead", 5)
    sessions = mounts.look()
    mounts.now += PATIENCE_S - 1.5
    assert sessions.remains().locks == 1
    assert mounts.paused == 1.5


def test_a_sign_at_the_last_moment_saves_it(mounts: Mounts) -> None:
    mounts.hold(b"late", 5)
    sessions = mounts.look()

    def just_before() -> None:
        if mounts.paused > PATIENCE_S - 0.5:
            mounts.hold(b"late", 5, beat=2)

    mounts.meanwhile = just_before
    assert sessions.end_dead(mounts.store).sessions == ()
    assert mounts.holders(5) == [b"late"]


def test_a_lock_taken_or_ended_during_the_check_does_not_count_as_left_behind(mounts: Mounts) -> None:
    def pages(start: bytes, end: bytes) -> Iterator[list[tuple[bytes, bytes]]]:
        now = next(events)
        if now == "one ends":
            mounts.store.transact(lambda tx: tx.delete(keys.locks(5)))
            mounts.end(b"quick")
        elif now == "one begins":
            mounts.hold(b"new", 6)
        return read(start, end)

    sessions = mounts.look()
    mounts.hold(b"quick", 5)
    read, events = mounts.pages.pages, iter(["locks", "one ends", "one begins"])
    mounts.pages.pages = pages  # type: ignore[method-assign]
    assert sessions.remains().locks == 0
    assert mounts.left() == [keys.locks(6), keys.session(b"new")]


def test_without_a_quorum_no_mount_is_declared_dead_and_nothing_can_be_ended(mounts: Mounts) -> None:
    mounts.hold(b"dead", 5)
    sessions = mounts.look()
    mounts.pages.is_newest = False
    mounts.store.is_writable = False
    assert sessions.remains().sessions == ()
    with pytest.raises(ReadOnlyError):
        sessions.end_dead(mounts.store)


def test_what_a_newer_program_wrote_is_left_alone_and_not_waited_for(mounts: Mounts) -> None:
    mounts.hold(b"newer", 5)
    mounts.store.items[keys.session(b"newer")] = b"\x93\x63\x01\x02"
    mounts.store.items[keys.locks(6)] = b"\x92\x63\x90"
    before = mounts.left()
    assert mounts.look().end_dead(mounts.store).sessions == ()
    assert mounts.paused == 0
    assert mounts.left() == before
