"""Locks across mounts: flock and fcntl locks are in the map, so that every mount of the namespace respects them.

- A lock is acquired and released by a transaction: at one moment, for everyone (`dfsfuse.namespace.ops.lock_sessions`).
- A lock that must wait occupies no thread of the caller. One thread here retries for all that wait, within milliseconds
  at first and then less often, and at once when a lock of this mount ends. First come, first served within the mount;
  but a holder of a lock on the file does not queue behind those who wait for it.
- A program that gets a lock sees what was written before it became free: the map is at the batch that set the lock, or
  later; and if anything was saved since the last time, the kernel is told to forget the file before the lock is
  answered.
- Before a lock is ended or downgraded from exclusive to shared, or a file is closed, the file's data is made durable.
- fcntl locks end when their owner closes any descriptor of the file (`closing`, `closed`); flock and OFD locks when the
  opening through which they were set ends (`releasing`, `released`). The first of each pair makes the data durable, and
  may be retried as often as it fails; the second ends the locks.
- Some locks can be held by only one mount at a time, though they are shared locks (`one_mount`).
- A mount that dies falls silent, and then its locks end (`lock_session`).

Threads: any number of callers. `_turn` is held during a transaction on locks, over the network, and guards `_session`
and `_watch`; `_news` guards the list of waiters, and is never held while anything is waited for. Two threads of its
own, started when needed: one sends heartbeats, one retries for waiters.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import msgspec

from dfsfuse.common.events import Events
from dfsfuse.common.worker import Worker
from dfsfuse.errors import DfsError, posix_error
from dfsfuse.namespace.map.transactions import MapStore, Transaction, View
from dfsfuse.namespace.ops import lock_sessions
from dfsfuse.namespace.ops.lock_sessions import Acquired, Place, SessionLostError
from dfsfuse.namespace.records import locks
from dfsfuse.namespace.records.locks import END_OF_ALL, Lock
from dfsfuse.vfs.context import log
from dfsfuse.vfs.locks.lock_session import RENEW_PART, LocalHolder, LockSession, SessionWatch, lost
from dfsfuse.vfs.locks.one_mount import Guarded

LIFETIME_S: Final = 10.0
POLL_FIRST_S: Final = 0.005
POLL_LAST_S: Final = 0.1
POLL_GROWTH: Final = 1.3
NEWEST_DURABLE_S: Final = 1e-9
"""The newest state, without what another mount has answered but not committed: locks are committed before they are
answered."""
REMEMBERED_MAX: Final = 10_000


def since_boot() -> float:
    """Return seconds that go on while the machine sleeps, as they do for other machines."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Answer(Protocol):
    """The requester of a lock. Answered once; False means that the request was interrupted and answered before."""

    def done(self) -> bool: ...
    def fail(self, error: int) -> bool: ...
    def on_interrupt(self, callback: Callable[[], None]) -> None: ...


@dataclass(eq=False)
class Waiter:
    """A request for a lock. Its `session` is filled in when it is tried."""

    ino: int
    wanted: Lock
    answer: Answer
    waits: bool
    handle: int
    """The opening through which it is to be set."""
    guard: Guarded | None
    """Why only one mount may have it."""

    @property
    def holder(self) -> LocalHolder:
        """Return who the holder would be."""
        return self.wanted.owner, self.wanted.is_flock

    @property
    def is_for_one_mount(self) -> bool:
        """Return whether only one mount may have locks on these bytes."""
        return self.guard is not None and self.guard.beside is None

    @property
    def beside(self) -> Place | None:
        """Return where no other mount may have a lock."""
        if self.guard is None or self.guard.beside is None:
            return None
        return Place(*self.guard.beside, self.guard.guard.byte)


class Locking:
    """See the module. `save` makes an inode's unsaved data durable."""

    def __init__(
        self,
        store: MapStore,
        save: Callable[[int], None],
        events: Events,
        *,
        lifetime_s: float = LIFETIME_S,
        clock: Callable[[], float] = since_boot,
        new_id: Callable[[], bytes] = lambda: os.urandom(8),
    ) -> None:
        self._store = store
        self._save = save
        self._events = events
        self._lifetime_s = lifetime_s
        self._session = LockSession(lifetime_s, clock, new_id)
        self._watch = SessionWatch(clock)
        self._turn = threading.Lock()
        self._news = threading.Lock()
        self._waiting: list[Waiter] = []
        """In order of arrival."""
        self._poll_s = POLL_FIRST_S
        """The pause before waiters are tried again. Used by their thread only."""
        self._heartbeats = Worker("lock-session", RENEW_PART * lifetime_s, "renewing locks", stop_s=None)
        self._retries = Worker("lock-waiter", self._pause_s, "trying to get locks", stop_s=None)
        self._refused: set[int] = set()
        """Files for which it was logged that another mount uses them."""
        self._shown: dict[int, bytes | None] = {}
        """The inode's record when the kernel was last told to forget it."""

    # ------------------------------------------------------------------ for bindings

    def test(self, ino: int, wanted: Lock) -> Lock | None:
        """Return a conflicting lock."""

        dead = self._watch.dead()

        def look(view: View) -> Lock | None:
            return locks.in_the_way(lock_sessions.living(view, ino, dead)[0], wanted)

        wanted = msgspec.structs.replace(wanted, session=self._session.id)
        return self._store.read(look, max_age_s=NEWEST_DURABLE_S)

    def may_have_written(self, ino: int, owner: int, *, is_flock: bool) -> bool:
        """Return whether the owner may have an exclusive lock on the file, so that another mount must see what it wrote
        when the lock ends."""
        holder = owner, is_flock
        return self._session.holds_exclusively(ino, holder) and not self._session.is_guarded(ino, holder)

    def lock(
        self, ino: int, wanted: Lock, answer: Answer, *, wait: bool, handle: int = 0, guard: Guarded | None = None
    ) -> None:
        """Set a lock, and answer when it is set. If it cannot be set at once: EAGAIN, or with `wait` later. `guard`:
        while another mount has a lock there, it is EAGAIN even with `wait`."""
        waiter = Waiter(ino, wanted, answer, wait, handle, guard)
        if not wanted.is_exclusive and self._session.holds_exclusively(ino, waiter.holder):
            self._save(ino)  # others may read it from then on
        if wait and self._is_behind(waiter):
            self._queue(waiter)
            return
        acquired = self._try(waiter)
        if acquired.obstacle is None:
            self._granted(waiter, acquired)
        elif not self._is_refused(waiter, acquired.obstacle) and wait:
            self._queue(waiter)
        else:
            answer.fail(errno.EAGAIN)

    def _is_refused(self, waiter: Waiter, obstacle: Lock) -> bool:
        """Return whether it must not be waited for: another mount uses what only one may."""
        wanted = msgspec.structs.replace(waiter.wanted, session=self._session.id)
        if waiter.guard is None or obstacle.excludes(wanted):
            return False
        if waiter.ino not in self._refused:  # programs ask again and again: it is logged once
            self._refused.add(waiter.ino)
            log.warning("%s", waiter.guard.refusal)
        return True

    def unlock(self, ino: int, owner: int, start: int = 0, end: int = END_OF_ALL, *, is_flock: bool) -> None:
        """Release what the owner holds of these bytes. What it wrote is durable and visible before. Raises what
        prevents that, and (once) that its locks were lost."""
        holder = owner, is_flock
        was_lost = self._were_lost(ino, holder)
        if self._session.holds(ino, holder):
            self._save(ino)
            with self._turn:
                self._release(ino, holder, start, end)
            self._wake_waiters()
        if was_lost:
            raise posix_error(errno.EIO, "the locks on this file were lost before they were ended")

    def closing(self, ino: int, owner: int) -> None:
        """Prepare for the closing of a descriptor of the file by the owner: what it may have written under its fcntl
        locks is durable when this returns. Raises what prevents that; the locks are unchanged then."""
        if self._session.holds(ino, (owner, False)):
            self._save(ino)

    def closed(self, ino: int, owner: int) -> None:
        """Release all fcntl locks of the owner on the file in any case, since it has closed a descriptor or is gone,
        and forget it. What could be saved was saved before (`closing`). Raises (once) that its locks were lost."""
        holder = owner, False
        was_lost = self._were_lost(ino, holder)
        if self._session.holds(ino, holder):
            with self._turn:
                self._end(ino, [holder])
            self._wake_waiters()
        if was_lost:
            raise posix_error(errno.EIO, "the locks on this file were lost while it was open")

    def releasing(self, ino: int, handle: int) -> None:
        """Prepare for the end of the opening: like `closing`, for locks that were set through it alone."""
        if self._session.through(ino, handle):
            self._save(ino)

    def released(self, ino: int, handle: int) -> None:
        """End, in any case, what is left of locks (flock and OFD) that were set through this opening alone, which has
        ended. What could be saved was saved before (`releasing`)."""
        self._session.acknowledge_through(ino, handle)
        if self._session.through(ino, handle):
            with self._turn:
                self._end(ino, self._session.release(ino, handle))
            self._wake_waiters()

    def check(self, ino: int, places: Callable[[], Iterable[tuple[int, bytes]]] = tuple) -> None:
        """Check before a write. Raises OSError (EIO) if locks on the file were lost, or one that protects a file with
        one of these names (folder and name)."""
        self._session.check(ino, places)

    @property
    def may_matter(self) -> bool:
        """Whether there is any lock here that others must respect; or was, until it was lost: what was written under it
        may still be unsaved."""
        return self._session.has_locks() or self._session.has_lost_any()

    def close(self) -> None:
        """The mount ends, and so do its locks. Those who still wait are not answered."""
        self._heartbeats.close()
        self._retries.close()
        with self._turn, contextlib.suppress(DfsError):
            self._end_sessions(also_own=True)

    # ------------------------------------------------------------------ transactions (while holding the turn)

    def _try(self, waiter: Waiter) -> Acquired:
        """Ask for a lock once. Raises OSError (EIO) if the holder has lost locks on the file and does not know it
        yet."""
        with self._turn:
            if self._session.held and self._session.may_have_expired():
                self._lose()
            try:
                return self._acquire(waiter)
            except SessionLostError:
                self._lose()
                return self._acquire(waiter)

    def _acquire(self, waiter: Waiter) -> Acquired:
        session, ino, holder = self._session, waiter.ino, waiter.holder
        if session.has_lost(ino, holder):
            raise lost()
        own, begun = session.for_transaction()
        wanted = msgspec.structs.replace(waiter.wanted, session=session.id)
        dead = self._watch.dead()
        replaces_stale = session.is_overdue(ino, holder)
        releases_own = waiter.waits and wanted.is_flock and session.holds(ino, holder)

        def work(tx: Transaction) -> Acquired:
            return lock_sessions.acquire(
                tx,
                ino,
                wanted,
                own,
                dead,
                replaces_stale=replaces_stale,
                releases_own=releases_own,
                one_mount=waiter.is_for_one_mount,
                beside=waiter.beside,
            )

        had_some = session.holds(ino, holder)
        # from now on, even if it is unknown whether it was done
        is_new = session.add(
            ino,
            holder,
            waiter.handle,
            is_exclusive=wanted.is_exclusive,
            protects=frozenset() if waiter.guard is None else waiter.guard.protects,
        )
        acquired = self._store.transact(work)
        self._watch.saw(acquired.heartbeats, [session.id])
        if acquired.obstacle is None:
            session.granted(ino, holder)
            session.renewed(own, begun)
            if session.may_have_expired():  # it took so long that the heartbeat is almost outdated
                self._renew()
            session.caught_up(ino, holder)
            self._watch.forget(dead)
            self._heartbeats.start(self._send_heartbeat)
        elif releases_own or not had_some:
            session.remove(ino, holder)
        elif is_new:
            session.not_through(ino, holder, waiter.handle)
        return acquired

    def _release(
        self, ino: int, holder: LocalHolder, start: int = 0, end: int = END_OF_ALL, restored: locks.Locks = ()
    ) -> None:
        whole = self._session.id, *holder
        if not self._store.transact(lambda tx: lock_sessions.release(tx, ino, whole, start, end, restored)):
            self._session.remove(ino, holder)

    def _end(self, ino: int, holders: list[LocalHolder]) -> None:
        """End all their locks on the file, now or later. While holding the turn."""
        for holder in holders:
            try:
                self._release(ino, holder)
            except DfsError as failure:
                log.warning("inode %d: a lock could not be ended yet: %s", ino, failure)
                self._session.postpone(ino, holder)

    def _undo(self, waiter: Waiter, acquired: Acquired) -> None:
        """Undo a lock that was just set and is not wanted: all is as before, unless the holder is gone."""
        holder, wanted = waiter.holder, waiter.wanted
        with self._turn:
            before = acquired.before if self._session.holds(waiter.ino, holder) else ()
            if any(lock.session != self._session.id for lock in before):
                return
            try:
                self._release(waiter.ino, holder, wanted.start, wanted.end, before)
            except DfsError as failure:
                log.warning("inode %d: an abandoned lock could not be ended yet: %s", waiter.ino, failure)
        self._wake_waiters()

    def _were_lost(self, ino: int, holder: LocalHolder) -> bool:
        """Return whether its locks were lost, and the holder was not told at the end of one yet."""
        if self._session.holds(ino, holder) and self._session.may_have_expired():
            with self._turn:
                if self._session.held and self._session.may_have_expired():
                    self._lose()
        return self._session.acknowledge(ino, holder)

    def _lose(self) -> None:
        count = self._session.lose()
        log.error(
            "the locks of %d holders on this mount are lost: too few servers could be reached for too long", count
        )

    def _end_sessions(self, *, also_own: bool) -> None:
        session = self._session
        gone = [*session.given_up, *([session.id] if also_own and session.is_recorded else [])]

        def work(tx: Transaction) -> None:
            for each in gone:
                lock_sessions.end(tx, each)

        if gone:
            self._store.transact(work)
            session.given_up.clear()
            if also_own:
                session.ended()

    # ------------------------------------------------------------------ heartbeats (a thread)

    def _send_heartbeat(self) -> None:
        try:
            self.beat()
        except Exception as failure:  # noqa: BLE001 (it is retried)
            log.warning("this mount's locks could not be renewed: %s", failure)

    def beat(self) -> None:
        """Renew the session if there are locks; end it if there are none."""
        with self._turn:
            session = self._session
            if session.held and session.may_have_expired():
                self._lose()
            self._end_sessions(also_own=not session.has_locks())
            for ino, holders in list(session.overdue.items()):
                for holder in list(holders):
                    self._release(ino, holder)
                    session.caught_up(ino, holder)
            if session.has_locks():
                try:
                    self._renew()
                except SessionLostError:
                    self._lose()

    def _renew(self) -> None:
        own, begun = self._session.for_transaction()
        self._store.transact(lambda tx: lock_sessions.renew(tx, own))
        self._session.renewed(own, begun)

    # ------------------------------------------------------------------ waiting (a thread)

    def _is_behind(self, waiter: Waiter, among: list[Waiter] | None = None) -> bool:
        """Return whether someone is waiting for what this one would take away."""
        if self._session.holds(waiter.ino, waiter.holder):
            return False
        with self._news:
            earlier = self._waiting if among is None else among
            return any(other.ino == waiter.ino and other.wanted.excludes(waiter.wanted) for other in earlier)

    def _queue(self, waiter: Waiter) -> None:
        with self._news:
            self._waiting.append(waiter)
        self._wake_waiters()
        self._retries.start(self._retry)
        waiter.answer.on_interrupt(lambda: self._interrupted(waiter))

    def _interrupted(self, waiter: Waiter) -> None:
        """If the lock is set at this very moment, the thread that finds the request answered undoes it."""
        self._dequeue(waiter)
        waiter.answer.fail(errno.EINTR)

    def _dequeue(self, waiter: Waiter) -> None:
        with self._news:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        """Signal that a lock of this mount has ended, or that others wait than before."""
        self._retries.wake()

    def _pause_s(self) -> float | None:
        return self._poll_s if self._waiting else None

    def _retry(self) -> None:
        is_news = self._retries.was_woken
        self._poll_s = POLL_FIRST_S if is_news else min(self._poll_s * POLL_GROWTH, POLL_LAST_S)
        with self._news:
            waiting = list(self._waiting)
        try:
            if waiting and self._ask_for(waiting):
                self._poll_s = POLL_FIRST_S
        except Exception as failure:  # noqa: BLE001 (they keep waiting)
            log.info("%d lock requests are waiting: %s", len(waiting), failure)
            self._poll_s = POLL_LAST_S

    def _ask_for(self, waiting: list[Waiter]) -> bool:
        """Find waiters that can have what they wait for, or never can. Returns whether any could be answered."""
        inos = {waiter.ino for waiter in waiting}
        dead = self._watch.dead()

        def look(view: View) -> dict[int, tuple[locks.Locks, lock_sessions.Heartbeats]]:
            return {ino: _living(view, ino, dead) for ino in inos}

        found = self._store.read(look, max_age_s=NEWEST_DURABLE_S)
        with self._turn:
            for _, heartbeats in found.values():
                self._watch.saw(heartbeats, [self._session.id])
        blocked: list[Waiter] = []
        is_any = False
        for waiter in waiting:
            if waiter not in self._waiting:  # interrupted meanwhile
                continue
            wanted = msgspec.structs.replace(waiter.wanted, session=self._session.id)
            obstacle = locks.in_the_way(found[waiter.ino][0], wanted, one_mount=waiter.is_for_one_mount)
            if obstacle is None and not self._is_behind(waiter, blocked):
                try:
                    acquired = self._try(waiter)
                except OSError as failure:  # it gets none, however long it waits
                    is_any = True
                    self._dequeue(waiter)
                    waiter.answer.fail(failure.errno or errno.EIO)
                    continue
                obstacle = acquired.obstacle
                if obstacle is None:
                    is_any = True
                    self._granted(waiter, acquired)
                    continue
            if obstacle is not None and self._is_refused(waiter, obstacle):
                self._dequeue(waiter)
                waiter.answer.fail(errno.EAGAIN)
                continue
            blocked.append(waiter)
        return is_any

    def _granted(self, waiter: Waiter, acquired: Acquired) -> None:
        self._dequeue(waiter)
        ino = waiter.ino
        if waiter.guard is not None:
            self._refused.discard(ino)
        if self._shown.get(ino) == acquired.inode:
            self._answer(waiter, acquired)
        else:
            self._events.on_lock_granted(ino, partial(self._forgotten, waiter, acquired))

    def _forgotten(self, waiter: Waiter, acquired: Acquired) -> None:
        """The kernel has dropped what it had of the file."""
        if len(self._shown) >= REMEMBERED_MAX:
            self._shown.clear()
        self._shown[waiter.ino] = acquired.inode
        self._answer(waiter, acquired)

    def _answer(self, waiter: Waiter, acquired: Acquired) -> None:
        if not waiter.answer.done():
            self._undo(waiter, acquired)


def _living(view: View, ino: int, dead: lock_sessions.Heartbeats) -> tuple[locks.Locks, lock_sessions.Heartbeats]:
    """Return the inode's valid locks. None if they cannot be read: an attempt to set one gets the error."""
    try:
        return lock_sessions.living(view, ino, dead)
    except OSError:
        return (), {}
