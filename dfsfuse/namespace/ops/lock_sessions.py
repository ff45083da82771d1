"""Locks and sessions in the map: transactions that acquire and release locks, and renew sessions. Pure.

A mount that holds locks has a *session*, a key with a record that the mount changes every few seconds. **A lock counts
only while its session's record is there**: deleting the record ends all locks of the session at once.

The record is a heartbeat: it says how long the mount may be silent. A mount that is kept from a lock notes the record's
bytes, and if they are still the same after that time, by its own clock, passes them as `dead`: then the record is
deleted, in the transaction that found it unchanged. No clock is compared with another one's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from dfsfuse.common import codec
from dfsfuse.common.codec import Codec
from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys, locks
from dfsfuse.namespace.records.locks import END_OF_ALL, Holder, Lock, Locks

FORMAT: Final = 1

Heartbeats = dict[bytes, bytes]
"""The records of sessions, as they were seen."""


class Heartbeat(msgspec.Struct, frozen=True, array_like=True):
    """The record of a session: different at each beat."""

    format: int
    beat: int
    lifetime_ms: int
    """How long it may stay the same."""


_heartbeats = Codec(Heartbeat, "a session", FORMAT)


class SessionLostError(Exception):
    """The session's record is gone: others have considered the mount dead, and its locks are theirs."""


@dataclass(frozen=True)
class OwnSession:
    """What a mount's own session needs in a transaction."""

    session: bytes
    heartbeat: bytes
    """The record to be written."""
    has_locks: bool
    """Whether it has locks: then its record must be present."""
    is_due: bool
    """Whether it is time to renew the record."""


@dataclass(frozen=True)
class Place:
    """A byte of a named file."""

    parent: int
    name: bytes
    byte: int


@dataclass(frozen=True)
class Acquired:
    """The outcome of a request for a lock."""

    obstacle: Lock | None
    """None: the lock is set."""
    heartbeats: Heartbeats
    """The sessions that have locks on the inode."""
    before: Locks
    """What the holder had on these bytes."""
    inode: bytes | None
    """The inode's record: a different one if anyone has saved anything."""


def encode_heartbeat(beat: int, lifetime_s: float) -> bytes:
    """The record of a session."""
    return codec.encode(Heartbeat(FORMAT, beat, round(lifetime_s * 1000)))


def lifetime_s(heartbeat: bytes) -> float:
    """Return how long a session's record may stay the same. Raises OSError (EIO)."""
    return _heartbeats.decode(heartbeat).lifetime_ms / 1000


def living(view: View, ino: int, dead: Mapping[bytes, bytes]) -> tuple[Locks, Heartbeats]:
    """Return the inode's valid locks, and the records of their sessions."""
    found = locks.decode(view.get(keys.locks(ino)))
    sessions = sorted({lock.session for lock in found})
    records = zip(sessions, view.get_many([keys.session(session) for session in sessions]), strict=True)
    heartbeats = {
        session: heartbeat for session, heartbeat in records if heartbeat is not None and dead.get(session) != heartbeat
    }
    return tuple(lock for lock in found if lock.session in heartbeats), heartbeats


def renew(tx: Transaction, own: OwnSession) -> None:
    """Write a heartbeat, if it is due. Raises `SessionLostError`."""
    is_there = tx.get(keys.session(own.session)) is not None
    if own.has_locks and not is_there:
        raise SessionLostError
    if own.is_due or not is_there:
        tx.put(keys.session(own.session), own.heartbeat)


def acquire(
    tx: Transaction,
    ino: int,
    wanted: Lock,
    own: OwnSession,
    dead: Mapping[bytes, bytes],
    *,
    replaces_stale: bool,
    releases_own: bool,
    one_mount: bool = False,
    beside: Place | None = None,
) -> Acquired:
    """Set the lock unless another one is in the way. Raises `SessionLostError`, OSError (ENOLCK).

    `replaces_stale`: what the holder still has belongs to a predecessor, and ends. `releases_own`: if the lock must be
    waited for, the holder's own lock is released meanwhile. `one_mount`: as for `locks.in_the_way`. `beside`: the lock
    is set only while no other mount has one at this place.
    """
    found, heartbeats = living(tx, ino, dead)
    if own.has_locks and tx.get(keys.session(own.session)) is None:
        raise SessionLostError
    kept = locks.without(found, wanted.holder) if replaces_stale else found
    before = locks.held_by(kept, wanted.holder, wanted.start, wanted.end)
    inode = tx.get(keys.inode(ino))
    obstacle = locks.in_the_way(kept, wanted, one_mount=one_mount)
    if obstacle is None and beside is not None:
        obstacle, others = _used_elsewhere(tx, beside, wanted, dead)
        heartbeats |= others
    if obstacle is not None:
        if releases_own:
            _save(tx, ino, locks.without(kept, wanted.holder))
        return Acquired(obstacle, heartbeats, before, inode)
    _end_dead(tx, dead)
    _save(tx, ino, locks.with_lock(kept, wanted))
    renew(tx, own)
    return Acquired(None, heartbeats, before, inode)


def _used_elsewhere(
    view: View, place: Place, wanted: Lock, dead: Mapping[bytes, bytes]
) -> tuple[Lock | None, Heartbeats]:
    entry = view.get(keys.entry(place.parent, place.name))
    if entry is None:
        return None, {}
    found, heartbeats = living(view, records.decode_entry(entry).ino, dead)
    there = msgspec.structs.replace(wanted, start=place.byte, end=place.byte)
    return next((lock for lock in found if lock.is_elsewhere(there)), None), heartbeats


def release(
    tx: Transaction, ino: int, holder: Holder, start: int = 0, end: int = END_OF_ALL, restored: Locks = ()
) -> bool:
    """End the holder's locks on these bytes, except that `restored` is there afterwards. Returns whether any lock is
    left."""
    found = locks.without(locks.decode(tx.get(keys.locks(ino))), holder, start, end)
    for lock in restored:
        found = locks.with_lock(found, lock)
    _save(tx, ino, found)
    return any(lock.holder == holder for lock in found)


def end(tx: Transaction, session: bytes) -> None:
    """End the session, and all its locks with it."""
    if tx.get(keys.session(session)) is not None:
        tx.delete(keys.session(session))


def _end_dead(tx: Transaction, dead: Mapping[bytes, bytes]) -> None:
    for session, heartbeat in dead.items():
        if tx.get(keys.session(session)) == heartbeat:
            tx.delete(keys.session(session))


def _save(tx: Transaction, ino: int, found: Locks) -> None:
    key = keys.locks(ino)
    old = tx.get(key)
    new = locks.encode(found) if found else None
    if new is None and old is not None:
        tx.delete(key)
    elif new is not None and new != old:
        tx.put(key, new)
