"""Reading a namespace: its own connection, so that a read does not wait for the disk behind a write.

Sees committed transactions only, each read inside one snapshot, and says at which slot that is. Thread-safe: one lock
around the connection.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from dfs_server.acceptor import ParsedBatch
from dfs_server.protocol.messages import Batches, Behind, Change, Changes, Error, Items, Reply, Values
from dfs_server.protocol.status import Status

REPLY_BYTES: Final = 1024 * 1024
"""About how much a reply with many items, batches or changes may hold; what does not fit is asked for again."""
VALUES_BYTES: Final = 4 * 1024 * 1024
"""What the values of keys that were asked for one by one may have at most: a frame has no room for more."""
MAX_ITEMS: Final = 5000


class NamespaceReader:
    """Reads over a connection of its own, which it closes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._lock = threading.Lock()
        self._reader = connection

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._reader.close()

    # -------------------------------------------------------------- reading the log

    def batches(self, after: int) -> Reply:
        """The reply to `GetBatches`."""
        with self._reading() as (db, applied):
            if (trimmed := self._trimmed(db, after, applied)) is not None:
                return trimmed
            found: list[bytes] = []
            size = 0
            for (encoded,) in self._log_rows(db, after, applied, "batch"):
                found.append(encoded)
                size += len(encoded)
                if size >= REPLY_BYTES or len(found) >= MAX_ITEMS:
                    break
            return Batches(after + 1, tuple(found), applied)

    def changes(self, after: int) -> Reply:
        """The reply to `GetChanges`."""
        with self._reading() as (db, applied):
            if (trimmed := self._trimmed(db, after, applied)) is not None:
                return trimmed
            found: list[Change] = []
            size = 0
            for slot, digest, encoded in self._log_rows(db, after, applied, "slot, digest, batch"):
                batch = ParsedBatch.of(encoded).batch
                keys = tuple(batch.changed_keys())
                found.append(Change(slot, digest, batch.author, batch.sequence, keys))
                size += 100 + sum(map(len, keys))
                if size >= REPLY_BYTES or len(found) >= MAX_ITEMS:
                    break
            return Changes(tuple(found), applied)

    @staticmethod
    def _log_rows(db: sqlite3.Connection, after: int, applied: int, columns: str) -> sqlite3.Cursor:
        query = f"SELECT {columns} FROM log WHERE slot > ? AND slot <= ? ORDER BY slot"
        return db.execute(query, (after, applied))

    @staticmethod
    def _trimmed(db: sqlite3.Connection, after: int, applied: int) -> Error | None:
        if after >= applied:
            return None
        if db.execute("SELECT 1 FROM log WHERE slot = ?", (after + 1,)).fetchone():
            return None
        return Error(Status.TRIMMED, f"the log no longer reaches back to slot {after + 1}")

    # -------------------------------------------------------------- reading the map

    def values(self, slot: int, keys: Sequence[bytes]) -> Reply:
        """The reply to `ReadKeys` at `slot` or later."""
        with self._reading() as (db, applied):
            if applied < max(slot, self._read_from(db)):
                return Behind(applied)
            found: list[bytes | None] = []
            size = 0
            for key in keys:
                row = db.execute("SELECT value FROM map WHERE key = ?", (key,)).fetchone()
                found.append(row[0] if row else None)
                size += len(row[0]) if row else 0
                if size > VALUES_BYTES:
                    return Error(Status.BAD_REQUEST, "the values are more than fits in a reply: ask for fewer at once")
            return Values(applied, tuple(found))

    def items(self, slot: int, start: bytes, end: bytes, limit: int) -> Reply:
        """The reply to `ReadRange` at `slot` or later."""
        limit = max(1, min(limit, MAX_ITEMS))
        with self._reading() as (db, applied):
            if applied < max(slot, self._read_from(db)):
                return Behind(applied)
            rows = db.execute(
                "SELECT key, value FROM map WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
                (start, end, limit + 1),
            )
            found: list[tuple[bytes, bytes]] = []
            size = 0
            for key, value in rows:
                if len(found) >= limit or size >= REPLY_BYTES:
                    return Items(applied, tuple(found), more=True)
                found.append((key, value))
                size += len(key) + len(value)
            return Items(applied, tuple(found), more=False)

    @staticmethod
    def _read_from(db: sqlite3.Connection) -> int:
        (slot,) = db.execute("SELECT read_from FROM state").fetchone()
        return int(slot)

    @contextmanager
    def _reading(self) -> Iterator[tuple[sqlite3.Connection, int]]:
        """The reading connection inside one snapshot, and the slot that the snapshot is at."""
        with self._lock:
            self._reader.execute("BEGIN")
            try:
                (applied,) = self._reader.execute("SELECT applied FROM state").fetchone()
                yield self._reader, applied
            finally:
                self._reader.execute("COMMIT")
