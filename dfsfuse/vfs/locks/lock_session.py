"""What a mount knows about its own session and those of others: the holders of locks here, until when, and which
sessions are dead.

A session that could not be renewed for `SURE_PART` of its lifetime is given up here before others may consider it dead:
its locks are *lost*. Then their holders get EIO when they write to the file, until they have unlocked or closed it; and
also when they ask for another lock on it, since they believe they have the first. Files that such a lock protects
without being locked themselves (`one_mount.Guarded.protects`) are not written to either.

A holder is recorded with the openings (handles) through which its locks were set. For locks of an open file description
(flock, `F_OFD_SETLK`) the kernel reports only the end of the opening, and it does not distinguish them from fcntl locks
when they are set.

Sends no requests and never waits. Threads: changed by the thread that has the turn (`locking.Locking`); `check` may be
called from any thread, since it only looks into dictionaries.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from dfsfuse.errors import posix_error
from dfsfuse.namespace.ops import lock_sessions
from dfsfuse.namespace.ops.lock_sessions import Heartbeats, OwnSession

SURE_PART: Final = 0.75
RENEW_PART: Final = 0.25
NEVER: Final = float("-inf")

Place = tuple[int, bytes]
"""A folder, and a name in it."""
LocalHolder = tuple[int, bool]
"""The kernel's number for an owner, and whether it is flock."""


@dataclass(eq=False)
class Holding:
    """What is known about a holder's locks on a file."""

    handles: set[int] = field(default_factory=set)
    """The openings through which they were set."""
    was_granted: bool = False
    """Whether the holder was told that it has one. Otherwise a request has failed, and may nevertheless have been
    carried out."""
    may_be_exclusive: bool = False
    protects: frozenset[Place] = frozenset()
    """If only one mount may have one of them: the files that are written under it (`one_mount`)."""


class LockSession:
    """See the module. `new_id` creates unique ids."""

    def __init__(self, lifetime_s: float, clock: Callable[[], float], new_id: Callable[[], bytes]) -> None:
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._new_id = new_id
        self.id = new_id()
        self._beat = 0
        self._renewed_at = NEVER
        self.is_recorded = False
        """Whether its record may be in the map."""
        self.held: dict[int, dict[LocalHolder, Holding]] = {}
        """By inode: the holders of locks, and those that may hold some after an error."""
        self.overdue: dict[int, set[LocalHolder]] = {}
        """Holders that have closed the file and whose locks could not be ended yet."""
        self._lost: dict[int, dict[LocalHolder, Holding]] = {}
        self._protectors: frozenset[int] = frozenset()
        """Files on which someone had a lock that protects others."""
        self.given_up: list[bytes] = []
        """Lost sessions of ours whose records may still exist."""

    # -------------------------------------------------------------- the session

    def for_transaction(self) -> tuple[OwnSession, float]:
        """Return what a transaction beginning now needs to know of this session, and the current time."""
        now = self._clock()
        is_due = now >= self._renewed_at + RENEW_PART * self._lifetime_s
        self._beat += is_due
        self.is_recorded = True
        heartbeat = lock_sessions.encode_heartbeat(self._beat, self._lifetime_s)
        return OwnSession(self.id, heartbeat, self.has_locks(), is_due), now

    def has_locks(self) -> bool:
        """Return whether there is any lock that others must respect."""
        return bool(self.held or self.overdue)

    def renewed(self, own: OwnSession, begun: float) -> None:
        """Record that a transaction has made this session's record durable, or has found it present and recent."""
        if own.is_due:
            self._renewed_at = begun

    def may_have_expired(self) -> bool:
        """Return whether others might soon consider this mount dead."""
        return self._clock() >= self._renewed_at + SURE_PART * self._lifetime_s

    def ended(self) -> None:
        """Record that the session's record was removed while there were no locks."""
        self.is_recorded = False
        self._renewed_at = NEVER

    def lose(self) -> int:
        """Mark all locks as lost and continue as a new session. Returns how many holders had some."""
        count = sum(map(len, self.held.values()))
        for ino, holders in self.held.items():
            for holder, holding in holders.items():
                if holding.was_granted:  # otherwise the holder does not believe that it has any
                    self._lost.setdefault(ino, {})[holder] = holding
        self.given_up.append(self.id)
        self.held, self.overdue = {}, {}
        self.id = self._new_id()
        self.ended()
        return count

    # -------------------------------------------------------------- holders

    def holds(self, ino: int, holder: LocalHolder) -> bool:
        """Return whether the holder may have locks on the file."""
        return holder in self.held.get(ino, ())

    def holds_exclusively(self, ino: int, holder: LocalHolder) -> bool:
        """Return whether some of its locks on the file may be exclusive, so that it may have written to it."""
        holding = self.held.get(ino, {}).get(holder)
        return holding is not None and holding.may_be_exclusive

    def is_guarded(self, ino: int, holder: LocalHolder) -> bool:
        """Return whether it has a lock on the file that keeps all other mounts from using it."""
        holding = self.held.get(ino, {}).get(holder)
        return holding is not None and bool(holding.protects)

    def add(
        self,
        ino: int,
        holder: LocalHolder,
        handle: int = 0,
        *,
        is_exclusive: bool = True,
        protects: frozenset[Place] = frozenset(),
    ) -> bool:
        """Record that the holder may have locks from now on, set through this opening. Returns whether it had none
        through it before."""
        holding = self.held.setdefault(ino, {}).setdefault(holder, Holding())
        is_new = handle not in holding.handles
        holding.handles.add(handle)
        holding.may_be_exclusive |= is_exclusive
        if protects:
            holding.protects = protects
            self._protectors |= {ino}
        return is_new

    def granted(self, ino: int, holder: LocalHolder) -> None:
        """Record that the holder is told that it has a lock."""
        self.held[ino][holder].was_granted = True

    def not_through(self, ino: int, holder: LocalHolder, handle: int) -> None:
        """Record that the holder got none through this opening after all; those that it had before stay."""
        holding = self.held.get(ino, {}).get(holder)
        if holding is not None:
            holding.handles.discard(handle)

    def remove(self, ino: int, holder: LocalHolder) -> None:
        """Record that the holder no longer has any."""
        _discard(self.held, ino, holder)
        self._forget_protector(ino)

    def through(self, ino: int, handle: int) -> list[LocalHolder]:
        """Return the holders of locks on the file that were set through this opening."""
        if ino not in self.held:
            return []
        return [holder for holder, holding in list(self.held.get(ino, {}).items()) if handle in holding.handles]

    def release(self, ino: int, handle: int) -> list[LocalHolder]:
        """Record the end of the opening. Returns those whose locks end with it: those who have set them through no
        other.

        A process that holds fcntl locks and closes a descriptor has been forgotten before (FLUSH). The kernel may have
        given the number of a former owner to another one: an owner that has set a lock through an opening that still
        exists keeps it."""
        ended = []
        for holder in self.through(ino, handle):
            handles = self.held[ino][holder].handles
            handles.discard(handle)
            if not handles:
                ended.append(holder)
        return ended

    def is_overdue(self, ino: int, holder: LocalHolder) -> bool:
        """Return whether the holder was gone before its locks could be ended."""
        return holder in self.overdue.get(ino, ())

    def postpone(self, ino: int, holder: LocalHolder) -> None:
        """Record that the holder is gone, and its locks could not be ended."""
        self.remove(ino, holder)
        self.overdue.setdefault(ino, set()).add(holder)

    def caught_up(self, ino: int, holder: LocalHolder) -> None:
        """Record that they could be ended after all."""
        _discard(self.overdue, ino, holder)

    def acknowledge(self, ino: int, holder: LocalHolder) -> bool:
        """Record that the holder knows that its locks are lost, or is gone. Returns whether they were."""
        if ino not in self._lost and ino not in self._protectors:
            return False
        was_lost = self.has_lost(ino, holder)
        _discard(self._lost, ino, holder)
        self._forget_protector(ino)
        return was_lost

    def acknowledge_through(self, ino: int, handle: int) -> bool:
        """The same for all who had set them through this opening, which has ended, and through no other."""
        was_lost = False
        for holder, holding in list(self._lost.get(ino, {}).items()):
            if handle in holding.handles:
                holding.handles.discard(handle)
                was_lost = True
                if not holding.handles:
                    _discard(self._lost, ino, holder)
        self._forget_protector(ino)
        return was_lost

    def has_lost_any(self) -> bool:
        """Whether locks were lost whose holders do not know it yet, or whose record is still on the servers."""
        return bool(self._lost or self.given_up)

    def has_lost(self, ino: int, holder: LocalHolder) -> bool:
        """Return whether its locks on the file were lost, and the holder was not told at the end of one yet."""
        return holder in self._lost.get(ino, ())

    def check(self, ino: int, places: Callable[[], Iterable[Place]] = tuple) -> None:
        """Raise OSError (EIO) if someone here works on the file under lost locks. `places`: its names."""
        if ino in self._lost or (ino in self.held and self.may_have_expired()):
            raise lost()
        if self._protectors and (self._lost or self.may_have_expired()):
            names = set(places())
            for protector in self._protectors:
                for holding in (*self._lost.get(protector, {}).values(), *self._at_risk(protector)):
                    if not names.isdisjoint(holding.protects):
                        raise lost()

    def _at_risk(self, ino: int) -> Iterable[Holding]:
        return list(self.held.get(ino, {}).values()) if self.may_have_expired() else ()

    def _forget_protector(self, ino: int) -> None:
        if ino in self._protectors and ino not in self.held and ino not in self._lost:
            self._protectors -= {ino}


def lost() -> OSError:
    """Return the error for someone who works under lost locks."""
    return posix_error(errno.EIO, "the locks on this file were lost: too few servers could be reached for too long")


class SessionWatch:
    """Tracks for how long others' sessions have been silent."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[bytes, tuple[bytes, float]] = {}
        """By session: its record, and when it is dead if the record is still the same."""

    def saw(self, heartbeats: Heartbeats, own: Iterable[bytes]) -> None:
        """Record that these records exist now."""
        for session, heartbeat in heartbeats.items():
            known = self._seen.get(session)
            if session not in own and (known is None or known[0] != heartbeat):
                self._seen[session] = heartbeat, self._clock() + _patience_s(heartbeat)

    def dead(self) -> Heartbeats:
        """Return sessions that have been silent for too long, unless their records have changed by now."""
        now = self._clock()
        return {session: heartbeat for session, (heartbeat, until) in list(self._seen.items()) if now > until}

    def forget(self, sessions: Iterable[bytes]) -> None:
        """Forget sessions that have been dealt with."""
        for session in sessions:
            self._seen.pop(session, None)


def _patience_s(heartbeat: bytes) -> float:
    """Sessions written by a program of another version are left to such programs."""
    try:
        return lock_sessions.lifetime_s(heartbeat)
    except OSError:
        return float("inf")


def _discard(
    holders: dict[int, set[LocalHolder]] | dict[int, dict[LocalHolder, Holding]], ino: int, holder: LocalHolder
) -> None:
    found = holders.get(ino)
    if found is not None:
        if isinstance(found, set):
            found.discard(holder)
        else:
            found.pop(holder, None)
        if not found:
            del holders[ino]
