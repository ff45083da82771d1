"""A user's namespace on one server: the log and the map, in one SQLite file; its small pieces are `piece_tables`'.

Carries out what the acceptor decides: the effects of a step go into one transaction, and only then is the reply given.
A reply that others rely on (a promise, a vote, a batch that was missed and is here now) waits for the disk
(`synchronous=FULL`); that the batch which is here already is chosen can be learnt again and does not wait. Nothing here
interprets a key.

Threads: the database's lock guards the writing connection and changes of `_state`; reading has a connection of its own
(`namespace_reader`), so that a read does not wait for the disk behind a write.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from dfs_server import acceptor
from dfs_server.acceptor import AcceptorState, Apply, ParsedBatch, SavePromise, SaveTail, Step, Tail
from dfs_server.copy_turn import NOBODY, CopyTurn
from dfs_server.database import Database, Owner
from dfs_server.namespace_reader import NamespaceReader
from dfs_server.piece_tables import PieceTables, StoredPiece
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import BadBatchError, InlinePiece
from dfs_server.protocol.messages import (
    Accept,
    BeginCopy,
    Behind,
    Chosen,
    CopyItems,
    Done,
    EndCopy,
    Error,
    GetBatches,
    GetChanges,
    GetPosition,
    Learn,
    LogRequest,
    Promise,
    ReadKeys,
    ReadRange,
    Reply,
)
from dfs_server.protocol.pieces import block_digests
from dfs_server.protocol.status import Status

KEEP_BATCHES: Final = 20_000
KEEP_LOG_BYTES: Final = 128 * 1024 * 1024
KEEP_TIGHT_BYTES: Final = 4 * 1024 * 1024
"""So much of the log is kept when only the reserve is left on the disk: the rest of the file is then used again."""
TRIM_STEP: Final = 1000
_NO_SUCH_COPY: Final = Error(Status.BAD_REQUEST, "no copy of the map with this id is under way")
_COPYING: Final = Error(Status.COPYING, "another client copies the map to this server")


class NamespaceStore:
    """One user's log, map and small pieces. Thread-safe.

    `folder` is `ROOT/<user>` and must exist or be creatable; `server` is this server's name, as in inline
    pieces' homes; what was dropped is given out by `pieces` after `grace_s` seconds of `clock` (in ns); leases last by
    `monotonic`. `is_tight`: whether only the reserve is left on the disk.
    Raises `FolderFormatError`; sqlite3 and OS errors only for the disk, never for what a peer sent.
    """

    def __init__(
        self,
        folder: Path,
        server: str,
        *,
        grace_s: float = 600.0,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        is_tight: Callable[[], bool] = lambda: False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._server = server
        self._monotonic = monotonic
        self._is_tight = is_tight
        self._database = Database(folder / "namespace.db", Owner(server, folder.name), clock)
        try:
            self._state = acceptor.started(self._load(), monotonic())
        except BaseException:
            self._database.close()
            raise
        self._copy_turn = NOBODY  # guarded by the database's lock
        self._reader = NamespaceReader(self._database.connect())
        self.pieces = PieceTables(self._database, grace_s)
        """Small pieces that are applied, and drops."""
        first, size = self._database.writer.execute(
            "SELECT coalesce(min(slot), 0), coalesce(sum(length(batch)), 0) FROM log"
        ).fetchone()
        self._log_first: int = first
        self._log_bytes: int = size

    def connect(self) -> sqlite3.Connection:
        """Another connection to the file, for reading; it belongs to the caller."""
        return self._database.connect()

    def close(self) -> None:
        """Close the file. What was acknowledged is durable already."""
        self.pieces.close()
        self._reader.close()
        self._database.close()

    # -------------------------------------------------------------- requests

    def handle(self, request: LogRequest) -> Reply:
        """The reply to a request. What is wrong with the request is an `Error` reply, not an exception."""
        try:
            return self._handle(request)
        except BadBatchError as error:
            return Error(Status.BAD_REQUEST, str(error))

    def _handle(self, request: LogRequest) -> Reply:  # noqa: PLR0912 - one branch a request
        match request:
            case Promise(ballot):
                return self._step(lambda state: acceptor.promise(state, ballot, self._monotonic()))
            case Accept(ballot, slot, encoded, lease):
                parsed = ParsedBatch.of(encoded)
                now = self._monotonic()
                return self._step(lambda state: acceptor.accept(state, ballot, slot, parsed, now, lease=lease))
            case Chosen(slot, digest, client):
                now = self._monotonic()
                return self._step(
                    lambda state: acceptor.chosen(acceptor.let_go(state, client, slot, now), slot, digest)
                )
            case Learn(first, encoded_batches):
                chosen = [ParsedBatch.of(encoded) for encoded in encoded_batches]
                return self._step(lambda state: acceptor.learn(state, first, chosen))
            case GetPosition(recall):
                if not recall:
                    return self._state.position()
                return self._step(lambda state: acceptor.position(state, recall, self._monotonic()))
            case GetBatches(after):
                return self._reader.batches(after)
            case GetChanges(after, slot, digest):
                return self._read_at(slot, digest, lambda: self._reader.changes(after))
            case ReadKeys(slot, digest, keys):
                return self._read_at(slot, digest, lambda: self._reader.values(slot, keys))
            case ReadRange(slot, digest, start, end, limit):
                return self._read_at(slot, digest, lambda: self._reader.items(slot, start, end, limit))
            case BeginCopy(copy, slot, digest):
                return self._begin_copy(copy, slot, digest)
            case CopyItems(copy, items):
                return self._copy_items(copy, items)
            case EndCopy(copy, count, read_until):
                return self._end_copy(copy, count, read_until)

    # -------------------------------------------------------------- small pieces

    def small_piece(self, segment: bytes, number: int) -> StoredPiece | None:
        """A piece that came inside a batch, or None.

        The tail's pieces count: its batch may be chosen, and a reader may know that before this server does.
        """
        for piece in self._tail_pieces():
            if (piece.segment, piece.number) == (segment, number):
                return StoredPiece(block_digests(piece.data), piece.data)
        return self.pieces.get(segment, number)

    def have_small(self, pieces: Sequence[tuple[bytes, int]]) -> set[tuple[bytes, int]]:
        """Those of the (segment, number) that are here as small pieces, in the tail or applied."""
        in_tail = {(piece.segment, piece.number) for piece in self._tail_pieces()}
        return in_tail.intersection(pieces) | self.pieces.have(pieces)

    def _tail_pieces(self) -> list[InlinePiece]:
        # Looked at before the applied ones: a batch that is applied meanwhile is found there.
        tail = self._state.tail
        if tail is None:
            return []
        return [piece for piece in tail.parsed.batch.pieces if self._server in piece.homes]

    # -------------------------------------------------------------- the acceptor's effects

    def _step(self, decide: Callable[[AcceptorState], Step]) -> Reply:
        with self._database.lock:
            step = decide(self._state)
            if step.effects:
                with self._database.transaction(durable=step.must_be_durable) as db:
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
            case Apply(slot, parsed, is_logged):
                if not is_logged:
                    self._write_log(db, slot, self._state.promised, parsed)
                self._apply(db, slot, parsed)

    def _write_log(self, db: sqlite3.Connection, slot: int, ballot: Ballot, parsed: ParsedBatch) -> None:
        db.execute(
            "INSERT OR REPLACE INTO log (slot, round, client, digest, batch) VALUES (?, ?, ?, ?, ?)",
            (slot, ballot.round, ballot.client, parsed.digest, parsed.encoded),
        )
        self._log_bytes += len(parsed.encoded)
        self._log_first = self._log_first or slot

    def _apply(self, db: sqlite3.Connection, slot: int, parsed: ParsedBatch) -> None:
        batch = parsed.batch
        db.executemany("INSERT OR REPLACE INTO map (key, value) VALUES (?, ?)", batch.puts)
        if batch.deletes:
            db.executemany("DELETE FROM map WHERE key = ?", [(key,) for key in batch.deletes])
        ours = [(piece.segment, piece.number, piece.data) for piece in batch.pieces if self._server in piece.homes]
        self.pieces.apply(db, ours, batch.drops)
        db.execute("UPDATE state SET applied = ?, digest = ?", (slot, parsed.digest))

    def _trim(self, db: sqlite3.Connection, applied: int) -> None:
        """Forget the oldest chosen batches when there are too many; who misses them copies the map."""
        too_many = applied - self._log_first > KEEP_BATCHES + TRIM_STEP
        if not too_many and self._log_bytes <= KEEP_TIGHT_BYTES:
            return
        if not too_many and self._log_bytes <= KEEP_LOG_BYTES and not self._is_tight():
            return
        until = min(self._log_first + TRIM_STEP, applied)
        db.execute("DELETE FROM log WHERE slot < ?", (until,))
        self._log_first = until
        (self._log_bytes,) = db.execute("SELECT coalesce(sum(length(batch)), 0) FROM log").fetchone()

    def _read_at(self, slot: int, digest: bytes, read: Callable[[], Reply]) -> Reply:
        """`read` at `slot` or later; first apply the tail if the caller says that it is chosen."""
        if self._state.applied < slot:
            self._step(lambda state: acceptor.chosen(state, slot, digest))
        if self._state.applied < slot:
            return Behind(self._state.applied)
        return read()

    # -------------------------------------------------------------- copying the map

    def _begin_copy(self, copy: bytes, slot: int, digest: bytes) -> Reply:
        with self._database.lock:
            if not self._copy_turn.may_begin(copy, self._monotonic()):
                return _COPYING
            with self._database.transaction(durable=False) as db:
                db.execute("DELETE FROM map_copy")
                db.execute("UPDATE state SET copy = ?, copy_slot = ?, copy_digest = ?", (copy, slot, digest))
            self._copy_turn = CopyTurn(copy, self._monotonic())
        return Done()

    def _copy_items(self, copy: bytes, items: Sequence[tuple[bytes, bytes]]) -> Reply:
        with self._database.lock:
            if self._copy_under_way(copy) is None:
                return _NO_SUCH_COPY
            with self._database.transaction(durable=False) as db:
                db.executemany("INSERT OR REPLACE INTO map_copy (key, value) VALUES (?, ?)", items)
            self._copy_turn = CopyTurn(copy, self._monotonic())
        return Done()

    def _end_copy(self, copy: bytes, count: int, read_until: int) -> Reply:
        with self._database.lock:
            point = self._copy_under_way(copy)
            if point is None:
                return _NO_SUCH_COPY
            self._copy_turn = NOBODY  # whatever comes of it
            (found,) = self._database.writer.execute("SELECT count(*) FROM map_copy").fetchone()
            if found != count:
                return Error(Status.BAD_REQUEST, f"the copy has {found} items and should have {count}")
            slot, digest = point
            if slot <= self._state.applied:
                return self._state.position()
            state = acceptor.copied(self._state, slot, digest)
            with self._database.transaction(durable=True) as db:
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
        current, slot, digest = self._database.writer.execute(
            "SELECT copy, copy_slot, copy_digest FROM state"
        ).fetchone()
        return (slot, digest) if copy and current == copy else None

    # -------------------------------------------------------------- the file

    def _load(self) -> AcceptorState:
        db = self._database.writer
        row = db.execute("SELECT round, client, applied, digest FROM state").fetchone()
        promised, applied, digest = Ballot(row[0], row[1]), row[2], row[3]
        tail = None
        row = db.execute("SELECT round, client, batch FROM log WHERE slot = ?", (applied + 1,)).fetchone()
        if row is not None:
            tail = Tail(applied + 1, Ballot(row[0], row[1]), ParsedBatch.of(row[2]))
        return AcceptorState(promised, applied, digest, tail)
