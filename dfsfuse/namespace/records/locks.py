"""The locks of one inode: ranges of bytes, shared or exclusive, and what follows when one is set or ended. Pure.

A lock belongs to a *holder*: a session (one mount), the kernel's number for an owner within it, and a kind. fcntl locks
and flock locks know nothing of each other. A holder has at most one lock on each byte: setting one replaces what the
holder has there, ending one may split another, and equal neighbours become one (POSIX). flock locks are on all bytes.

Values: a tuple of locks, which `encode` makes the value of a key of the map. Its order says nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Final

import msgspec

from dfsfuse.common import codec
from dfsfuse.common.codec import Codec

FORMAT: Final = 1
END_OF_ALL: Final = 2**63 - 1
"""The last byte that a file can have."""
LOCKS_MAX: Final = 10_000
"""The largest number of locks on one inode: its record must fit into a batch."""

Holder = tuple[bytes, int, bool]
"""Session, owner, whether it is flock."""


class Lock(msgspec.Struct, frozen=True, array_like=True):
    """One lock; `end` is its last byte. `pid` is for people."""

    session: bytes
    owner: int
    is_flock: bool
    is_exclusive: bool
    start: int = 0
    end: int = END_OF_ALL
    pid: int = 0

    @property
    def holder(self) -> Holder:
        """Return the holder."""
        return self.session, self.owner, self.is_flock

    def overlaps(self, start: int, end: int) -> bool:
        """Return whether it covers any of these bytes."""
        return self.start <= end and start <= self.end

    def excludes(self, other: Lock) -> bool:
        """Return whether the two exclude each other."""
        return (
            self.is_flock == other.is_flock
            and (self.is_exclusive or other.is_exclusive)
            and self.holder != other.holder
            and self.overlaps(other.start, other.end)
        )

    def is_elsewhere(self, other: Lock) -> bool:
        """Return whether it belongs to another mount and covers some of the same bytes."""
        return (
            self.is_flock == other.is_flock and self.session != other.session and self.overlaps(other.start, other.end)
        )


Locks = tuple[Lock, ...]


class _Record(msgspec.Struct, frozen=True, array_like=True):
    format: int
    locks: Locks


_records = Codec(_Record, "a file's locks", FORMAT)


def encode(locks: Locks) -> bytes:
    """Encode the value of the inode's key. Raises OSError (ENOLCK) if there are too many."""
    if len(locks) > LOCKS_MAX:
        raise OSError(errno.ENOLCK, f"more than {LOCKS_MAX} locks on one file")
    return codec.encode(_Record(FORMAT, locks))


def decode(data: bytes | None) -> Locks:
    """Decode the locks in a value. Raises OSError (EIO) if it is of no known format."""
    return () if data is None else _records.decode(data).locks


def in_the_way(locks: Iterable[Lock], wanted: Lock, *, one_mount: bool = False) -> Lock | None:
    """Return the first lock (by its start) that keeps `wanted` from being set. `one_mount`: only one mount at a time
    may have locks on these bytes, even shared ones."""
    hindering = (lock for lock in locks if lock.excludes(wanted) or (one_mount and lock.is_elsewhere(wanted)))
    return min(hindering, key=lambda lock: lock.start, default=None)


def held_by(locks: Locks, holder: Holder, start: int = 0, end: int = END_OF_ALL) -> Locks:
    """Return what the holder has of these bytes, cut to them."""
    return tuple(
        msgspec.structs.replace(lock, start=max(lock.start, start), end=min(lock.end, end))
        for lock in locks
        if lock.holder == holder and lock.overlaps(start, end)
    )


def without(locks: Locks, holder: Holder, start: int = 0, end: int = END_OF_ALL) -> Locks:
    """Return the locks with the holder's ended on these bytes."""
    left: list[Lock] = []
    for lock in locks:
        if lock.holder != holder or not lock.overlaps(start, end):
            left.append(lock)
            continue
        if lock.start < start:
            left.append(msgspec.structs.replace(lock, end=start - 1))
        if lock.end > end:
            left.append(msgspec.structs.replace(lock, start=end + 1))
    return tuple(left)


def with_lock(locks: Locks, wanted: Lock) -> Locks:
    """Return the locks with this one set; there must be no conflicting one."""
    left = without(locks, wanted.holder, wanted.start, wanted.end)
    equal = [
        lock
        for lock in left
        if lock.holder == wanted.holder
        and lock.is_exclusive == wanted.is_exclusive
        and lock.overlaps(wanted.start - 1, wanted.end + 1)
    ]
    start = min([wanted.start, *(lock.start for lock in equal)])
    end = max([wanted.end, *(lock.end for lock in equal)])
    merged = msgspec.structs.replace(wanted, start=start, end=end)
    return (*(lock for lock in left if lock not in equal), merged)
