"""Reads a namespace over a separate connection, so that a read does not wait for the disk behind a write.

Each answer is of one slot: the tables in one snapshot, with the matching overlay on top. Everything read is checked: a
row that is not what was written raises an exception (`damage`), and is never part of an answer.

Thread-safe: one lock around the connection. The database's lock is acquired briefly, and only if a flush was committed
between reading the overlay and the tables; never while the connection's lock is held.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Final

from dfs_server.protocol import batches, joins
from dfs_server.protocol.frames import AFTER_AUTHENTICATION
from dfs_server.protocol.message import MAX_AT_ONCE
from dfs_server.protocol.messages import Batches, Behind, Change, Changes, Error, Items, ReadRange, Reply, Values
from dfs_server.protocol.status import Status
from dfs_server.store import checksums, log_table
from dfs_server.store.damage import DamagedMapError, DamagedStateError
from dfs_server.store.log_table import LogRow
from dfs_server.store.overlay import Overlay

REPLY_BYTES: Final = 1024 * 1024
"""Approximate maximum size of a reply with many items, batches or changes; the client requests the rest separately."""
VALUES_BYTES: Final = AFTER_AUTHENTICATION.body_bytes - 16 * MAX_AT_ONCE
"""Maximum total size of the values of individually requested keys: a frame has no space for more, including the few
bytes that MessagePack adds to each."""
MAX_ITEMS: Final = 5000
BAD_ROW: Final = "a row of the map is not what was written"


class NamespaceReader:
    """Reads over its own connection, which it closes. `lock`: the database's; `overlay`: returns the current overlay
    for the tables. Everything raises `DamageError`."""

    def __init__(
        self, connection: sqlite3.Connection, lock: AbstractContextManager[bool], overlay: Callable[[], Overlay]
    ) -> None:
        self._lock = threading.Lock()
        self._reader = connection
        self._database_lock = lock
        self._overlay = overlay
        connection.text_factory = no_text

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._reader.close()

    # -------------------------------------------------------------- reading the log

    def batches(self, after: int) -> Reply:
        """The reply to `GetBatches`."""
        with self._logged(after) as (rows, applied):
            if rows is None:
                return _trimmed(after)
            found: list[bytes] = []
            size = 0
            for logged in rows:
                found.append(logged.batch)
                size += len(logged.batch)
                if size >= REPLY_BYTES or len(found) >= MAX_ITEMS:
                    break
            return Batches(after + 1, tuple(found), applied)

    def changes(self, after: int) -> Reply:
        """The reply to `GetChanges`."""
        with self._logged(after) as (rows, applied):
            if rows is None:
                return _trimmed(after)
            found: list[Change] = []
            size = 0
            for slot, digest, encoded in rows:
                batch = batches.decode(encoded)
                keys = tuple(batch.changed_keys())
                found.append(Change(slot, digest, batch.author, batch.sequence, keys))
                size += 100 + sum(map(len, keys))
                if size >= REPLY_BYTES or len(found) >= MAX_ITEMS:
                    break
            return Changes(tuple(found), applied)

    @contextmanager
    def _logged(self, after: int) -> Iterator[tuple[Iterable[LogRow] | None, int]]:
        """The batches after a slot, or None if they are trimmed; and the applied slot. First come those in the table,
        which reaches at least to where the overlay begins."""
        overlay = self._overlay()
        applied, waiting = overlay.batches(after)
        rest = [LogRow(slot, digest, encoded) for slot, _, digest, encoded in waiting]
        if overlay.flushed <= after <= applied:
            yield rest, applied
            return
        with self._snapshot() as db:
            if log_table.is_trimmed(db, after):
                yield None, applied
            else:
                # Closed before the snapshot ends: a snapshot that is still being read would be the next reader's as
                # well.
                with closing(log_table.read(db, after, overlay.flushed)) as tabled:
                    yield itertools.chain(tabled, rest), applied

    # -------------------------------------------------------------- reading the map

    def values(self, slot: int, keys: Sequence[bytes]) -> Reply:
        """The reply to `ReadKeys` at `slot` or later."""
        return self._of_one_slot(lambda overlay: self._values(overlay, slot, keys))

    def _values(self, overlay: Overlay, slot: int, keys: Sequence[bytes]) -> Reply | None:
        applied, waiting = overlay.values(keys)
        if applied < max(slot, overlay.read_from):
            return Behind(applied)
        found: list[bytes | None] = []
        size = 0
        with self._snapshot() as db:
            if not _are_under(db, overlay):
                return None
            for key in keys:
                value = waiting[key] if key in waiting else _value(db, key)
                found.append(value)
                size += len(value or b"")
                if size > VALUES_BYTES:
                    return Error(Status.TOO_MUCH, "the values are more than fits in a reply: ask for fewer at once")
        return Values(applied, tuple(found))

    def items(self, request: ReadRange) -> Reply:
        """The reply to this."""
        return self._of_one_slot(lambda overlay: self._items(overlay, request))

    def _items(self, overlay: Overlay, request: ReadRange) -> Reply | None:
        applied, waiting = overlay.items(request.start, request.end)
        if applied < max(request.slot, overlay.read_from):
            return Behind(applied)
        limit = max(1, min(request.limit, MAX_ITEMS))
        found: list[tuple[bytes, bytes]] = []
        size, more = 0, False
        with self._snapshot() as db:
            if not _are_under(db, overlay):
                return None
            query = "SELECT key, value, checksum FROM map WHERE key >= ? AND key < ? ORDER BY key"
            with closing(db.execute(query, (request.start, request.end))) as rows:
                for key, value in _laid_over(rows, waiting):
                    more = len(found) >= limit or size >= REPLY_BYTES
                    if more:
                        break
                    found.append((key, value))
                    size += len(key) + len(value)
            keys = joins.named(request.join, request.join_key, found) if request.join else []
            joined = _joined(db, overlay, applied, keys, 2 * REPLY_BYTES - size) if keys else ()
        return Items(applied, tuple(found), more, joined)

    def _of_one_slot(self, read: Callable[[Overlay], Reply | None]) -> Reply:
        """The result of `read` for an overlay and the tables below it; `read` returns None if the tables are of another
        slot."""
        reply = read(self._overlay())
        if reply is None:
            # A flush was committed in between: it replaces the overlay before it releases the lock.
            with self._database_lock:
                reply = read(self._overlay())
        if reply is None:
            raise DamagedStateError("the state of the log was damaged or missing")
        return reply

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """The reading connection: everything read through it is of one moment."""
        with self._lock:
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                self._reader.execute("COMMIT")


def _trimmed(after: int) -> Error:
    return Error(Status.TRIMMED, f"the log no longer reaches back to slot {after + 1}")


def _are_under(db: sqlite3.Connection, overlay: Overlay) -> bool:
    """Whether the tables are those that this overlay belongs to."""
    return bool(db.execute("SELECT applied FROM state WHERE id = 1").fetchone() == (overlay.flushed,))


def _value(db: sqlite3.Connection, key: bytes) -> bytes | None:
    row = db.execute("SELECT value, checksum FROM map WHERE key = ?", (key,)).fetchone()
    if row is None:
        return None
    value, checksum = row
    if not checksums.fits(key, value, checksum):
        raise DamagedMapError(BAD_ROW)
    return value  # type: ignore[no-any-return]


def _joined(
    db: sqlite3.Connection, overlay: Overlay, applied: int, keys: Sequence[bytes], room_bytes: int
) -> tuple[tuple[bytes, bytes], ...]:
    """The items with these keys as of slot `applied`, as many as there is room for."""
    at, waiting = overlay.values(keys)
    found: list[tuple[bytes, bytes]] = []
    if at != applied:
        return ()  # another batch has come since: the client asks for what it needs
    for key in keys:
        value = waiting[key] if key in waiting else _value(db, key)
        if value is not None:
            room_bytes -= len(key) + len(value)
            if room_bytes < 0:
                break
            found.append((key, value))
    return tuple(found)


def _laid_over(
    rows: Iterable[tuple[bytes, bytes, int]], waiting: Sequence[tuple[bytes, bytes | None]]
) -> Iterator[tuple[bytes, bytes]]:
    """The items of a range in order: those of the tables, overridden by waiting ones."""
    at = 0
    for key, value, checksum in rows:
        while at < len(waiting) and waiting[at][0] < key:
            yield from _present(waiting[at])
            at += 1
        if at < len(waiting) and waiting[at][0] == key:
            continue  # this row is replaced or gone: the next iteration, or the end, yields its replacement
        if not checksums.fits(key, value, checksum):
            raise DamagedMapError(BAD_ROW)
        yield key, value
    for item in waiting[at:]:
        yield from _present(item)


def _present(item: tuple[bytes, bytes | None]) -> Iterator[tuple[bytes, bytes]]:
    key, value = item
    if value is not None:
        yield key, value


def no_text(_raw: bytes) -> None:
    """A connection's text_factory: bytes that are declared to be text have been damaged."""
    return
