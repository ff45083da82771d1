"""What a mount knows of its own session and of others': who holds locks here, until when that is sure, who is dead.

A session that could not be renewed for `SURE_PART` of its lifetime is given up here before others may take it for dead:
its locks are *lost*. Who held one gets EIO when the file is written to, until he has unlocked or closed it.

Asks nobody and waits for nothing. Threads: changed by whoever has the turn (`locking.Locking`); `check` may be called
by anybody, since it only looks into dictionaries.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from typing import Final

from dfsfuse.namespace import lock_sessions
from dfsfuse.namespace.inodes import error
from dfsfuse.namespace.lock_sessions import Life, Signs

SURE_PART: Final = 0.75
RENEW_PART: Final = 0.25
NEVER: Final = float("-inf")

LocalHolder = tuple[int, bool]
"""The kernel's number for an owner; is it flock."""


class LockSession:
    """See the module. `new_id` makes ids that nobody else has."""

    def __init__(self, lifetime_s: float, clock: Callable[[], float], new_id: Callable[[], bytes]) -> None:
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._new_id = new_id
        self.id = new_id()
        self._beat = 0
        self._renewed_at = NEVER
        self.is_recorded = False
        """Its record may be in the map."""
        self.held: dict[int, set[LocalHolder]] = {}
        """By inode: who holds locks, or may hold some after an error."""
        self.overdue: dict[int, set[LocalHolder]] = {}
        """Closed, and the locks could not be ended yet."""
        self._lost: dict[int, set[LocalHolder]] = {}
        self.given_up: list[bytes] = []
        """Sessions of ours that are lost, and whose records may still be there."""

    # -------------------------------------------------------------- the session

    def life(self) -> tuple[Life, float]:
        """What a transaction needs that begins now; and when now is."""
        now = self._clock()
        is_due = now >= self._renewed_at + RENEW_PART * self._lifetime_s
        self._beat += is_due
        self.is_recorded = True
        sign = lock_sessions.encode_sign(self._beat, self._lifetime_s)
        return Life(self.id, sign, self.has_locks(), is_due), now

    def has_locks(self) -> bool:
        """Is there any lock that others must respect?"""
        return bool(self.held or self.overdue)

    def renewed(self, life: Life, begun: float) -> None:
        """A transaction with this has made its record durable, or has found it there and recent."""
        if life.is_due:
            self._renewed_at = begun

    def is_unsure(self) -> bool:
        """Might others soon take this mount for dead?"""
        return self._clock() >= self._renewed_at + SURE_PART * self._lifetime_s

    def ended(self) -> None:
        """The record was taken out, while there were no locks."""
        self.is_recorded = False
        self._renewed_at = NEVER

    def lose(self) -> int:
        """All locks are lost; go on as a new session. How many holders had some?"""
        count = sum(map(len, self.held.values()))
        for ino, holders in self.held.items():
            self._lost.setdefault(ino, set()).update(holders)
        self.given_up.append(self.id)
        self.held, self.overdue = {}, {}
        self.id = self._new_id()
        self.ended()
        return count

    # -------------------------------------------------------------- who holds

    def holds(self, ino: int, holder: LocalHolder) -> bool:
        """May he have locks on the file?"""
        return holder in self.held.get(ino, ())

    def add(self, ino: int, holder: LocalHolder) -> None:
        """He may have locks from now on."""
        self.held.setdefault(ino, set()).add(holder)

    def remove(self, ino: int, holder: LocalHolder) -> None:
        """He has none any more."""
        _discard(self.held, ino, holder)

    def is_overdue(self, ino: int, holder: LocalHolder) -> bool:
        """Was he gone before his locks could be ended?"""
        return holder in self.overdue.get(ino, ())

    def postpone(self, ino: int, holder: LocalHolder) -> None:
        """He is gone, and his locks could not be ended."""
        self.remove(ino, holder)
        self.overdue.setdefault(ino, set()).add(holder)

    def caught_up(self, ino: int, holder: LocalHolder) -> None:
        """They could after all."""
        _discard(self.overdue, ino, holder)

    def forgive(self, ino: int, holder: LocalHolder) -> bool:
        """He knows that his locks are lost, or is gone. Were they?"""
        was_lost = holder in self._lost.get(ino, ())
        _discard(self._lost, ino, holder)
        return was_lost

    def check(self, ino: int) -> None:
        """Raises OSError (EIO) if somebody here works on the file under locks that are lost."""
        if ino in self._lost or (ino in self.held and self.is_unsure()):
            raise error(errno.EIO, "the locks on this file were lost: too few servers could be reached for too long")


class Witness:
    """For how long others' sessions have shown no sign of life."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[bytes, tuple[bytes, float]] = {}
        """By session: its record, and when it is dead if the record is still that."""

    def saw(self, signs: Signs, own: Iterable[bytes]) -> None:
        """These records are there now."""
        for session, sign in signs.items():
            known = self._seen.get(session)
            if session not in own and (known is None or known[0] != sign):
                self._seen[session] = sign, self._clock() + _patience_s(sign)

    def dead(self) -> Signs:
        """Sessions that have been silent for too long, unless their records are others by now."""
        now = self._clock()
        return {session: sign for session, (sign, until) in list(self._seen.items()) if now > until}

    def forget(self, sessions: Iterable[bytes]) -> None:
        """They are dealt with."""
        for session in sessions:
            self._seen.pop(session, None)


def _patience_s(sign: bytes) -> float:
    """What a program of another version has written is left to such programs."""
    try:
        return lock_sessions.lifetime_s(sign)
    except OSError:
        return float("inf")


def _discard(holders: dict[int, set[LocalHolder]], ino: int, holder: LocalHolder) -> None:
    found = holders.get(ino)
    if found is not None:
        found.discard(holder)
        if not found:
            del holders[ino]
