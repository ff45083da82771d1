"""Reading a namespace: its own connection, so that a read does not wait for the disk behind a write.

Sees committed transactions only, each read inside one snapshot, and says at which slot that is. All that is read is
checked: a row that is not what was written is an exception (`damage`), never an answer. Thread-safe: one lock around
the connection.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from dfs_server import checksums, log_table, state_row
from dfs_server.acceptor import ParsedBatch
from dfs_server.damage import DamagedMapError, DamagedStateError
from dfs_server.protocol.frames import AFTER_AUTHENTICATION
from dfs_server.protocol.message import MAX_AT_ONCE
from dfs_server.protocol.messages import Batches, Behind, Change, Changes, Error, Items, Reply, Values
from dfs_server.protocol.status import Status
from dfs_server.state_row import StateRow

REPLY_BYTES: Final = 1024 * 1024
"""About how much a reply with many items, batches or changes may hold; what does not fit is asked for again."""
VALUES_BYTES: Final = AFTER_AUTHENTICATION.body_bytes - 16 * MAX_AT_ONCE
"""What the values of keys that were asked for one by one may have at most: a frame has no room for more, with the few
bytes that MessagePack adds to each."""
MAX_ITEMS: Final = 5000
BAD_ROW: Final = "a row of the map is not what was written"


class NamespaceReader:
    """Reads over a connection of its own, which it closes. All of it raises `DamageError`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._lock = threading.Lock()
        self._reader = connection
        connection.text_factory = no_text

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._reader.close()

    # -------------------------------------------------------------- reading the log

    def batches(self, after: int) -> Reply:
        """The reply to `GetBatches`."""
        with self._reading() as (db, row):
            if (trimmed := self._trimmed(db, after, row.applied)) is not None:
                return trimmed
            found: list[bytes] = []
            size = 0
            for logged in log_table.read(db, after, row.applied):
                found.append(logged.batch)
                size += len(logged.batch)
                if size >= REPLY_BYTES or len(found) >= MAX_ITEMS:
                    break
            return Batches(after + 1, tuple(found), row.applied)

    def changes(self, after: int) -> Reply:
        """The reply to `GetChanges`."""
        with self._reading() as (db, row):
            if (trimmed := self._trimmed(db, after, row.applied)) is not None:
                return trimmed
            found: list[Change] = []
            size = 0
            for slot, digest, encoded in log_table.read(db, after, row.applied):
                batch = ParsedBatch.of(encoded).batch
                keys = tuple(batch.changed_keys())
                found.append(Change(slot, digest, batch.author, batch.sequence, keys))
                size += 100 + sum(map(len, keys))
                if size >= REPLY_BYTES or len(found) >= MAX_ITEMS:
                    break
            return Changes(tuple(found), row.applied)

    @staticmethod
    def _trimmed(db: sqlite3.Connection, after: int, applied: int) -> Error | None:
        if after >= applied or not log_table.is_trimmed(db, after):
            return None
        return Error(Status.TRIMMED, f"the log no longer reaches back to slot {after + 1}")

    # -------------------------------------------------------------- reading the map

    def values(self, slot: int, keys: Sequence[bytes]) -> Reply:
        """The reply to `ReadKeys` at `slot` or later."""
        with self._reading() as (db, state):
            if state.applied < max(slot, state.read_from):
                return Behind(state.applied)
            found: list[bytes | None] = []
            size = 0
            for key in keys:
                row = db.execute("SELECT value, checksum FROM map WHERE key = ?", (key,)).fetchone()
                if row is None:
                    found.append(None)
                    continue
                value, checksum = row
                if not checksums.fits(key, value, checksum):
                    raise DamagedMapError(BAD_ROW)
                found.append(value)
                size += len(value)
                if size > VALUES_BYTES:
                    return Error(Status.TOO_MUCH, "the values are more than fits in a reply: ask for fewer at once")
            return Values(state.applied, tuple(found))

    def items(self, slot: int, start: bytes, end: bytes, limit: int) -> Reply:
        """The reply to `ReadRange` at `slot` or later."""
        limit = max(1, min(limit, MAX_ITEMS))
        with self._reading() as (db, state):
            if state.applied < max(slot, state.read_from):
                return Behind(state.applied)
            rows = db.execute(
                "SELECT key, value, checksum FROM map WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
                (start, end, limit + 1),
            )
            found: list[tuple[bytes, bytes]] = []
            size = 0
            for key, value, checksum in rows:
                if len(found) >= limit or size >= REPLY_BYTES:
                    return Items(state.applied, tuple(found), more=True)
                if not checksums.fits(key, value, checksum):
                    raise DamagedMapError(BAD_ROW)
                found.append((key, value))
                size += len(key) + len(value)
            return Items(state.applied, tuple(found), more=False)

    @contextmanager
    def _reading(self) -> Iterator[tuple[sqlite3.Connection, StateRow]]:
        """The reading connection inside one snapshot, and where that is."""
        with self._lock:
            self._reader.execute("BEGIN")
            try:
                state = state_row.read(self._reader)
                if state is None:
                    raise DamagedStateError("the state of the log was damaged or missing")
                yield self._reader, state
            finally:
                self._reader.execute("COMMIT")


def no_text(_raw: bytes) -> None:
    """A connection's text_factory: what should be bytes and is said to be text was damaged."""
    return
