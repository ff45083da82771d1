"""Removes sessions of mounts that died holding locks, and the locks, which have no effect, from the map. Pure.

A mount that waits for such a lock ends the session at once (`dfsfuse.namespace.ops.lock_sessions`); this is for locks
that no mount waits for. A session is dead if its record is still the same after the time that it may be silent, by the
observer's clock. What cannot be read was written by a newer program and is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.namespace.ops.lock_sessions import lifetime_s
from dfsfuse.namespace.records import keys, locks

LONGEST_S = 600.0
"""A session that may be silent for longer is left to the mounts that wait for its locks."""

Seen = dict[bytes, bytes]
"""Keys of sessions, and their records."""


@dataclass(frozen=True)
class Remains:
    """What dead mounts have left: keys of sessions, and how many locks have no effect without them."""

    sessions: tuple[bytes, ...] = ()
    locks: int = 0
    changes: dict[bytes, bytes | None] = field(default_factory=dict)
    """Keys of locks, and their values without these locks (None: deleted)."""


def look(view: View) -> Seen:
    """Return the existing sessions."""
    return dict(view.scan(*keys.sessions()))


def patience_s(seen: Mapping[bytes, bytes]) -> float:
    """Return how long until those that are still the same are dead; 0 if that can be said of none."""
    return max((2 * life for record in seen.values() if (life := _life_s(record)) is not None), default=0.0)


def remains(seen: Mapping[bytes, bytes], there: Mapping[bytes, bytes], held: Mapping[bytes, bytes]) -> Remains:
    """Return what the dead have left, if `there` are the sessions now, and `held` the values of all lock keys. `seen`
    is old enough that a session that is still the same is dead."""
    dead = tuple(key for key, record in there.items() if seen.get(key) == record and _life_s(record) is not None)
    living = there.keys() - set(dead)
    count = 0
    changes: dict[bytes, bytes | None] = {}
    for key, value in held.items():
        try:
            found = locks.decode(value)
        except OSError:
            continue
        left = tuple(lock for lock in found if keys.session(lock.session) in living)
        if left != found or not left:
            changes[key] = locks.encode(left) if left else None
            count += len(found) - len(left)
    return Remains(dead, count, changes)


def end_dead(tx: Transaction, seen: Mapping[bytes, bytes]) -> Remains:
    """End the sessions whose records are unchanged, and all locks that have no effect. Returns what was removed."""
    found = remains(seen, look(tx), dict(tx.scan(*keys.all_locks())))
    for session in found.sessions:
        tx.delete(session)
    for key, value in found.changes.items():
        if value is None:
            tx.delete(key)
        else:
            tx.put(key, value)
    return found


def _life_s(record: bytes) -> float | None:
    try:
        life = lifetime_s(record)
    except OSError:
        return None
    return life if 0 < life <= LONGEST_S else None
