"""Orphans in the map: inodes without a name that some client still needs. Pure operations on a view or transaction.

The record of an orphan (`o/<inode>`) names the clients that need it, each with the time at which it said so last. Who
takes a last name away claims the orphan in the same transaction; others who have the file open claim it too. Each takes
its claim back when it needs the inode no more, and **who takes back the last one deletes the inode**.

A client that died takes nothing back. So claims are renewed by those who live, and one that is older than a day is
void. That compares clocks of different machines: they may be wrong by hours.
"""

from __future__ import annotations

from typing import Final

import msgspec

from dfsfuse.common import codec
from dfsfuse.common.codec import Codec
from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.namespace.records import keys

FORMAT: Final = 2
_OLD_RECORD: Final = b"\x01"
"""From a client that made no claims: one that ended long ago, or an old version that knows none."""
VALID_NS: Final = 24 * 3600 * 10**9
"""A claim that was not renewed for this long is void."""
RENEW_S: Final = 6 * 3600.0


class Orphan(msgspec.Struct, frozen=True, array_like=True):
    """The record of an orphan."""

    format: int
    claims: dict[bytes, int]
    """By client: when it last said that it needs the inode, in nanoseconds since 1970."""


_records = Codec(Orphan, "an orphan", FORMAT)


def decode(data: bytes) -> dict[bytes, int]:
    """Decode the claims in a record. Raises OSError (EIO) if it is not of this format."""
    return {} if data == _OLD_RECORD else _records.decode(data).claims


def claims(view: View, ino: int) -> dict[bytes, int]:
    """Return the clients that need the orphan; empty if it is not an orphan."""
    data = view.get(keys.orphan(ino))
    return {} if data is None else decode(data)


def is_orphan(view: View, ino: int) -> bool:
    """Return whether the inode is marked as one."""
    return view.get(keys.orphan(ino)) is not None


def begin(tx: Transaction, ino: int, client: bytes, now_ns: int) -> None:
    """Claim an inode that has just lost its last name, or has none yet, for the client. No client can have claimed it
    before, so nothing is read: a removal is answered from what is cached."""
    _save(tx, ino, {client: now_ns})


def claim(tx: Transaction, ino: int, client: bytes, now_ns: int) -> None:
    """Claim an inode without a name for the client."""
    _save(tx, ino, claims(tx, ino) | {client: now_ns})


def others(view: View, ino: int, client: bytes, now_ns: int) -> bool:
    """Return whether any other live client needs it."""
    return any(_is_valid(since_ns, now_ns) for who, since_ns in claims(view, ino).items() if who != client)


def is_void(record: bytes, now_ns: int) -> bool:
    """Return whether no live client needs the orphan with this record. Unreadable ones are left to clients that can
    read them."""
    try:
        return not any(_is_valid(since_ns, now_ns) for since_ns in decode(record).values())
    except OSError:
        return False


def leave(tx: Transaction, ino: int, client: bytes) -> None:
    """Remove the claim of a client that no longer needs the inode, while others do."""
    left = claims(tx, ino)
    if client in left:
        _save(tx, ino, {who: since_ns for who, since_ns in left.items() if who != client})


def end(tx: Transaction, ino: int) -> None:
    """Unmark an inode that is no longer an orphan: deleted, or named."""
    if is_orphan(tx, ino):
        tx.delete(keys.orphan(ino))


def _is_valid(since_ns: int, now_ns: int) -> bool:
    return now_ns - since_ns <= VALID_NS


def _save(tx: Transaction, ino: int, found: dict[bytes, int]) -> None:
    tx.put(keys.orphan(ino), codec.encode(Orphan(FORMAT, found)))
