"""A user's namespace on one server: the log, the map and the small pieces, in one SQLite file.

Carries out what the acceptor decides: the effects of a step go into one transaction, and only then is the reply given.
A reply that is a vow (a promise, a vote) waits for the disk (`synchronous=FULL`); knowing that a batch is chosen can be
learnt again and does not wait. Nothing here interprets a key.

Threads: `_write_lock` guards the writing connection and changes of `_state`; `_read_lock` guards the reading one, which
sees committed transactions only, so that a read does not wait for the disk behind a write. Only `close` holds both.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from dfs_server import acceptor
from dfs_server.acceptor import AcceptorState, Apply, ParsedBatch, SavePromise, SaveTail, Step, Tail
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import BadBatchError
from dfs_server.protocol.messages import (
    Accept,
    Batches,
    BeginCopy,
    Behind,
    Change,
    Changes,
    Chosen,
    CopyItems,
    Done,
    EndCopy,
    Error,
    GetBatches,
    GetChanges,
    GetPosition,
    Items,
    Learn,
    Position,
    Promise,
    ReadKeys,
    ReadRange,
    Reply,
    Values,
)
from dfs_server.protocol.pieces import block_digests
from dfs_server.protocol.status import Status
from dfs_server.schema import FORMAT, PRAGMAS, SCHEMA

LogRequest = (
    Promise
    | Accept
    | Chosen
    | Learn
    | GetPosition
    | GetBatches
    | GetChanges
    | ReadKeys
    | ReadRange
    | BeginCopy
    | CopyItems
    | EndCopy
)

REPLY_BYTES: Final = 1024 * 1024
"""About how much a reply with many items, batches or changes may hold; what does not fit is asked for again."""
MAX_ITEMS: Final = 5000
KEEP_BATCHES: Final = 20_000
KEEP_LOG_BYTES: Final = 128 * 1024 * 1024
TRIM_STEP: Final = 1000
_NO_SUCH_COPY: Final = Error(Status.BAD_REQUEST, "no copy of the map with this id is under way")


class FolderFormatError(Exception):
    """This folder was written by another version, or is no namespace's folder."""


class StoredPiece(NamedTuple):
    """A small piece and its level-one digests."""

    digests: bytes
    data: bytes


class NamespaceStore:
    """One user's log, map and small pieces. Thread-safe.

    `folder` is `ROOT/<user>` and must exist or be creatable; `server` is this server's name, as in inline
    pieces' homes; dropped segments are given out by `expired_drops` after `grace_s` seconds of `clock` (in ns).
    Raises `FolderFormatError`; sqlite3 and OS errors only for the disk, never for what a peer sent.
    """

    def __init__(
        self, folder: Path, server: str, *, grace_s: float = 600.0, clock: Callable[[], int] = time.time_ns
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "namespace.db"
        self._server = server
        self._grace_ns = int(grace_s * 1e9)
        self._clock = clock
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._writer = self._connect()
        self._reader = self._connect()
        self._state = self._load()
        first, size = self._writer.execute(
            "SELECT coalesce(min(slot), 0), coalesce(sum(length(batch)), 0) FROM log"
        ).fetchone()
        self._log_first: int = first
        self._log_bytes: int = size

    def close(self) -> None:
        """Close the file. What was acknowledged is durable already."""
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()

    # -------------------------------------------------------------- requests

    def handle(self, request: LogRequest) -> Reply:
        """The reply to a request. What is wrong with the request is an `Error` reply, not an exception."""
        try:
            return self._handle(request)
        except BadBatchError as error:
            return Error(Status.BAD_REQUEST, str(error))

    def _handle(self, request: LogRequest) -> Reply:
        match request:
            case Promise(ballot):
                return self._step(lambda state: acceptor.promise(state, ballot))
            case Accept(ballot, slot, encoded):
                parsed = ParsedBatch.of(encoded)
                return self._step(lambda state: acceptor.accept(state, ballot, slot, parsed))
            case Chosen(slot, digest):
                return self._step(lambda state: acceptor.chosen(state, slot, digest))
            case Learn(first, encoded_batches):
                chosen = [ParsedBatch.of(encoded) for encoded in encoded_batches]
                return self._step(lambda state: acceptor.learn(state, first, chosen))
            case GetPosition():
                return self._state.position()
            case GetBatches(after):
                return self._batches(after)
            case GetChanges(after, slot, digest):
                return self._read_at(slot, digest, lambda: self._changes(after))
            case ReadKeys(slot, digest, keys):
                return self._read_at(slot, digest, lambda: self._values(slot, keys))
            case ReadRange(slot, digest, start, end, limit):
                return self._read_at(slot, digest, lambda: self._items(slot, start, end, limit))
            case BeginCopy(copy, slot, digest):
                return self._begin_copy(copy, slot, digest)
            case CopyItems(copy, items):
                return self._copy_items(copy, items)
            case EndCopy(copy, count, read_until):
                return self._end_copy(copy, count, read_until)

    # -------------------------------------------------------------- small pieces and drops

    def small_piece(self, segment: bytes, number: int) -> StoredPiece | None:
        """A piece that came inside a batch, or None. Its digests are as they were then: bit rot shows."""
        with self._read_lock:
            row = self._reader.execute(
                "SELECT digests, data FROM small_pieces WHERE segment = ? AND number = ?", (segment, number)
            ).fetchone()
        return StoredPiece(*row) if row else None

    def have_small(self, pieces: Sequence[tuple[bytes, int]]) -> set[tuple[bytes, int]]:
        """Those of the (segment, number) that are here as small pieces."""
        query = "SELECT 1 FROM small_pieces WHERE segment = ? AND number = ?"
        with self._read_lock:
            return {piece for piece in pieces if self._reader.execute(query, piece).fetchone()}

    def piece_totals(self) -> tuple[int, int]:
        """(count, bytes) of the small pieces."""
        with self._read_lock:
            count, size = self._reader.execute(
                "SELECT count(*), coalesce(sum(length(data)), 0) FROM small_pieces"
            ).fetchone()
        return count, size

    def expired_drops(self) -> list[bytes]:
        """Segments that were dropped longer ago than the grace period, oldest first; at most 10,000."""
        with self._read_lock:
            rows = self._reader.execute(
                "SELECT segment FROM drops WHERE dropped_ns <= ? ORDER BY dropped_ns LIMIT 10000",
                (self._clock() - self._grace_ns,),
            ).fetchall()
        return [segment for (segment,) in rows]

    def forget_drops(self, segments: Sequence[bytes]) -> None:
        """The large pieces of these dropped segments are deleted: delete the small ones and the notes."""
        with self._write_lock, self._transaction(durable=False) as db:
            rows = [(segment,) for segment in segments]
            db.executemany("DELETE FROM small_pieces WHERE segment = ?", rows)
            db.executemany("DELETE FROM drops WHERE segment = ?", rows)

    # -------------------------------------------------------------- the acceptor's effects

    def _step(self, decide: Callable[[AcceptorState], Step]) -> Reply:
        with self._write_lock:
            step = decide(self._state)
            if step.effects:
                with self._transaction(durable=step.must_be_durable) as db:
                    for effect in step.effects:
                        self._carry_out(db, effect)
                    self._trim(db, step.state.applied)
            self._state = step.state
            return step.reply

    def _carry_out(self, db: sqlite3.Connection, effect: acceptor.Effect) -> None:
        match effect:
            case SavePromise(ballot):
                db.execute("UPDATE state SET round = ?, client = ?", (ballot.round, ballot.client))
            case SaveTail(Tail(slot, ballot, parsed)):
                self._write_log(db, slot, ballot, parsed)
            case Apply(slot, parsed):
                self._apply(db, slot, parsed)

    def _write_log(self, db: sqlite3.Connection, slot: int, ballot: Ballot, parsed: ParsedBatch) -> None:
        db.execute(
            "INSERT OR REPLACE INTO log (slot, round, client, digest, batch) VALUES (?, ?, ?, ?, ?)",
            (slot, ballot.round, ballot.client, parsed.digest, parsed.encoded),
        )
        self._log_bytes += len(parsed.encoded)
        self._log_first = self._log_first or slot

    def _apply(self, db: sqlite3.Connection, slot: int, parsed: ParsedBatch) -> None:
        tail = self._state.tail
        if tail is None or tail.parsed.digest != parsed.digest:
            self._write_log(db, slot, self._state.promised, parsed)
        batch = parsed.batch
        db.executemany("INSERT OR REPLACE INTO map (key, value) VALUES (?, ?)", batch.puts)
        if batch.deletes:
            db.executemany("DELETE FROM map WHERE key = ?", [(key,) for key in batch.deletes])
        if batch.pieces:
            db.executemany(
                "INSERT OR IGNORE INTO small_pieces (segment, number, digests, data) VALUES (?, ?, ?, ?)",
                [
                    (piece.segment, piece.number, block_digests(piece.data), piece.data)
                    for piece in batch.pieces
                    if self._server in piece.homes
                ],
            )
        if batch.drops:
            now = self._clock()
            db.executemany(
                "INSERT OR IGNORE INTO drops (segment, dropped_ns) VALUES (?, ?)",
                [(segment, now) for segment in batch.drops],
            )
        db.execute("UPDATE state SET applied = ?, digest = ?", (slot, parsed.digest))

    def _trim(self, db: sqlite3.Connection, applied: int) -> None:
        """Forget the oldest chosen batches when there are too many; who misses them copies the map."""
        too_many = applied - self._log_first > KEEP_BATCHES + TRIM_STEP
        if not too_many and self._log_bytes <= KEEP_LOG_BYTES:
            return
        until = min(self._log_first + TRIM_STEP, applied)
        db.execute("DELETE FROM log WHERE slot < ?", (until,))
        self._log_first = until
        (self._log_bytes,) = db.execute("SELECT coalesce(sum(length(batch)), 0) FROM log").fetchone()

    # -------------------------------------------------------------- reading the log

    def _batches(self, after: int) -> Reply:
        with self._reading() as (db, applied):
            if (trimmed := self._trimmed(db, after, applied)) is not None:
                return trimmed
            found: list[bytes] = []
            size = 0
            for (encoded,) in self._log_rows(db, after, applied, "batch"):
                found.append(encoded)
                size += len(encoded)
                if size >= REPLY_BYTES:
                    break
            return Batches(after + 1, tuple(found), applied)

    def _changes(self, after: int) -> Reply:
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

    def _read_at(self, slot: int, digest: bytes, read: Callable[[], Reply]) -> Reply:
        """`read` at `slot` or later; first apply the tail if the caller says that it is chosen."""
        if self._state.applied < slot:
            self._step(lambda state: acceptor.chosen(state, slot, digest))
        if self._state.applied < slot:
            return Behind(self._state.applied)
        return read()

    def _values(self, slot: int, keys: Sequence[bytes]) -> Reply:
        with self._reading() as (db, applied):
            if applied < max(slot, self._read_from(db)):
                return Behind(applied)
            query = "SELECT value FROM map WHERE key = ?"
            rows = [db.execute(query, (key,)).fetchone() for key in keys]
            return Values(applied, tuple(row[0] if row else None for row in rows))

    def _items(self, slot: int, start: bytes, end: bytes, limit: int) -> Reply:
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
        with self._read_lock:
            self._reader.execute("BEGIN")
            try:
                (applied,) = self._reader.execute("SELECT applied FROM state").fetchone()
                yield self._reader, applied
            finally:
                self._reader.execute("COMMIT")

    # -------------------------------------------------------------- copying the map

    def _begin_copy(self, copy: bytes, slot: int, digest: bytes) -> Reply:
        with self._write_lock, self._transaction(durable=False) as db:
            db.execute("DELETE FROM map_copy")
            db.execute("UPDATE state SET copy = ?, copy_slot = ?, copy_digest = ?", (copy, slot, digest))
        return Done()

    def _copy_items(self, copy: bytes, items: Sequence[tuple[bytes, bytes]]) -> Reply:
        with self._write_lock:
            if self._copy_under_way(copy) is None:
                return _NO_SUCH_COPY
            with self._transaction(durable=False) as db:
                db.executemany("INSERT OR REPLACE INTO map_copy (key, value) VALUES (?, ?)", items)
        return Done()

    def _end_copy(self, copy: bytes, count: int, read_until: int) -> Reply:
        with self._write_lock:
            point = self._copy_under_way(copy)
            if point is None:
                return _NO_SUCH_COPY
            (found,) = self._writer.execute("SELECT count(*) FROM map_copy").fetchone()
            if found != count:
                return Error(Status.BAD_REQUEST, f"the copy has {found} items and should have {count}")
            slot, digest = point
            if slot <= self._state.applied:
                return self._state.position()
            state = acceptor.copied(self._state, slot, digest)
            with self._transaction(durable=True) as db:
                db.execute("DELETE FROM map")
                db.execute("INSERT INTO map SELECT key, value FROM map_copy")
                db.execute("DELETE FROM map_copy")
                db.execute("DELETE FROM log WHERE slot <= ?", (slot,))
                db.execute(
                    "UPDATE state SET applied = ?, digest = ?, read_from = ?, copy = x''", (slot, digest, read_until)
                )
            self._state = state
            self._log_first, self._log_bytes = slot + 1, 0
            return state.position()

    def _copy_under_way(self, copy: bytes) -> tuple[int, bytes] | None:
        """The slot and digest of this copy, if it is the one under way."""
        current, slot, digest = self._writer.execute("SELECT copy, copy_slot, copy_digest FROM state").fetchone()
        return (slot, digest) if copy and current == copy else None

    # -------------------------------------------------------------- the file

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10.0)
        for pragma in PRAGMAS:
            db.execute(pragma)
        return db

    def _load(self) -> AcceptorState:
        db = self._writer
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version not in (0, FORMAT):
            raise FolderFormatError(f"{self._path} has format {version}; this program knows format {FORMAT}")
        with self._transaction(durable=True):
            for statement in SCHEMA:
                db.execute(statement)
        row = db.execute("SELECT round, client, applied, digest FROM state").fetchone()
        promised, applied, digest = Ballot(row[0], row[1]), row[2], row[3]
        tail = None
        row = db.execute("SELECT round, client, batch FROM log WHERE slot = ?", (applied + 1,)).fetchone()
        if row is not None:
            tail = Tail(applied + 1, Ballot(row[0], row[1]), ParsedBatch.of(row[2]))
        return AcceptorState(promised, applied, digest, tail)

    @contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """One transaction of the writing connection. `durable`: on the disk when this ends.

        One that is not durable is on the disk with the next one that is: WAL is written in order.
        """
        db = self._writer
        db.execute("PRAGMA synchronous = FULL" if durable else "PRAGMA synchronous = NORMAL")
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


__all__ = ["FolderFormatError", "LogRequest", "NamespaceStore", "Position", "StoredPiece"]
