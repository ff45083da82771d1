"""A user's namespace on one server: the log and the map, in one SQLite file; its small pieces are `piece_tables`'.

Carries out what the acceptor decides: the effects of a step go into one transaction, and only then is the reply given.
A reply that others rely on (a promise, a vote, a batch that was missed and is here now) waits for the disk
(`synchronous=FULL`); that the batch which is here already is chosen can be learnt again and does not wait. Nothing here
interprets a key.

What is damaged is never answered (`damage`). A damaged log is cut, a damaged map is not read until a copy is in its
place; a server that finds its memory damaged when it starts begins as if its disk were new (`recovery`).

Threads: the database's lock guards the writing connection and changes of `_state`; reading has a connection of its own
(`namespace_reader`), so that a read does not wait for the disk behind a write.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from dfs_server import acceptor, log_table, map_table, recovery
from dfs_server.acceptor import AcceptorState, Apply, ParsedBatch, SavePromise, SaveTail, Step, Tail
from dfs_server.copy_turn import NOBODY, CopyTurn
from dfs_server.damage import DamagedLogError, DamagedMapError, DamageError, DamageNotes
from dfs_server.database import Database, Owner
from dfs_server.log_hold import LogHold
from dfs_server.log_table import LogTable
from dfs_server.map_table import MapTable
from dfs_server.namespace_reader import NamespaceReader
from dfs_server.piece_tables import PieceTables, StoredPiece
from dfs_server.protocol import batches
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
    Position,
    Promise,
    ReadKeys,
    ReadRange,
    Reply,
)
from dfs_server.protocol.pieces import block_digests
from dfs_server.protocol.status import Status
from dfs_server.row_scan import RowScan

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
            self.damage = DamageNotes(self._database)
            """What was found to be damaged here."""
            self._row, state = recovery.load(self._database, self.damage)
        except BaseException:
            self._database.close()
            raise
        self._state = acceptor.started(state, monotonic())
        self._log = LogTable(self._database.writer)
        self._map = MapTable()
        self._copy_turn = NOBODY  # guarded by the database's lock
        self._log_hold = LogHold()  # replaced as a whole; a hint
        self._reader = NamespaceReader(self._database.connect())
        self.pieces = PieceTables(self._database, grace_s)
        """Small pieces that are applied, and drops."""

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
            reply = self._handle(request)
        except BadBatchError as error:
            return Error(Status.BAD_REQUEST, str(error))
        except DamageError as error:
            self.found(error)
            return _damaged(error)
        if self.damage.map and isinstance(reply, Position):
            return msgspec.structs.replace(reply, wants_copy=True)
        return reply

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
                reply = self._reader.batches(after)
                if not isinstance(reply, Error):
                    self._log_hold = self._log_hold.named(after, self._monotonic())
                return reply
            case GetChanges(after, slot, digest):
                return self._read_at(slot, digest, lambda: self._reader.changes(after))
            case ReadKeys(slot, digest, keys):
                return self._read_map_at(slot, digest, lambda: self._reader.values(slot, keys))
            case ReadRange(slot, digest, start, end, limit):
                self._log_hold = self._log_hold.named(slot, self._monotonic())
                return self._read_map_at(slot, digest, lambda: self._reader.items(slot, start, end, limit))
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

    def small_pieces(self, pieces: Iterable[tuple[bytes, int]]) -> Iterator[bytes | None]:
        """The data of each, in order, looked up as it is asked for; None for one that is not here as a small one."""
        in_tail = {(piece.segment, piece.number): piece.data for piece in self._tail_pieces()}
        for piece in pieces:
            if piece in in_tail:
                yield in_tail[piece]
            else:
                found = self.pieces.get(*piece)
                yield None if found is None else found.data

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
                self._carry_out(step)
            self._state = step.state
            return step.reply

    def _carry_out(self, step: Step) -> None:
        row = self._row.with_state(step.state)
        try:
            with self._database.transaction(durable=step.must_be_durable) as db:
                for effect in step.effects:
                    match effect:
                        case SavePromise():
                            pass  # it is in the row
                        case SaveTail(Tail(slot, ballot, parsed)):
                            self._log.write(db, slot, ballot, parsed)
                        case Apply(slot, parsed, is_logged):
                            if not is_logged:
                                self._log.write(db, slot, self._state.promised, parsed)
                            row = row.with_sum_changed(self._apply(db, parsed))
                held = self._log_hold.keeps_after(self._monotonic())
                self._log.trim(db, step.state.applied, self._is_tight, held)
                row.write(db)
        except BaseException:
            self._map.scan = None  # it may have been told of changes that were not made
            raise
        self._row = row

    def _apply(self, db: sqlite3.Connection, parsed: ParsedBatch) -> int:
        batch = parsed.batch
        ours = [(piece.segment, piece.number, piece.data) for piece in batch.pieces if self._server in piece.homes]
        self.pieces.apply(db, ours, batch.drops)
        return self._map.change(db, batch.puts, batch.deletes)

    def _read_at(self, slot: int, digest: bytes, read: Callable[[], Reply]) -> Reply:
        """`read` at `slot` or later; first apply the tail if the caller says that it is chosen."""
        if self._state.applied < slot:
            self._step(lambda state: acceptor.chosen(state, slot, digest))
        if self._state.applied < slot:
            return Behind(self._state.applied)
        return read()

    def _read_map_at(self, slot: int, digest: bytes, read: Callable[[], Reply]) -> Reply:
        if self.damage.map:
            return _damaged(self.damage.map)
        return self._read_at(slot, digest, read)

    # -------------------------------------------------------------- damage

    def scan(self) -> RowScan:
        """A walk through all rows of the map and the log. What it finds is for `found`."""
        return RowScan(self._database, self._map, lambda: self._row)

    def found(self, error: DamageError) -> None:
        """Somebody has found this."""
        with self._database.lock:
            if isinstance(error, DamagedMapError):
                self.damage.note(str(error), is_mended=False)
                return
            with self._database.transaction(durable=True) as db:
                if isinstance(error, DamagedLogError):
                    self._log.cut(db, min(error.slot, self._state.applied))
                self._row.write(db)  # what is in memory is right
            self.damage.note(str(error), is_mended=True)

    # -------------------------------------------------------------- copying the map

    def _begin_copy(self, copy: bytes, slot: int, digest: bytes) -> Reply:
        with self._database.lock:
            if not self._copy_turn.may_begin(copy, self._monotonic()):
                return _COPYING
            row = self._row._replace(copy=copy, copy_slot=slot, copy_digest=digest)
            with self._database.transaction(durable=False) as db:
                db.execute("DELETE FROM map_copy")
                row.write(db)
            self._row = row
            self._copy_turn = CopyTurn(copy, self._monotonic())
        return Done()

    def _copy_items(self, copy: bytes, items: Sequence[tuple[bytes, bytes]]) -> Reply:
        if any(not 0 < len(key) <= batches.MAX_KEY_BYTES for key, _ in items):
            return Error(Status.BAD_REQUEST, f"a key must have 1 to {batches.MAX_KEY_BYTES} bytes")
        with self._database.lock:
            if not copy or self._row.copy != copy:
                return _NO_SUCH_COPY
            with self._database.transaction(durable=False) as db:
                map_table.add_to_copy(db, items)
            self._copy_turn = CopyTurn(copy, self._monotonic())
        return Done()

    def _end_copy(self, copy: bytes, count: int, read_until: int) -> Reply:
        with self._database.lock:
            if not copy or self._row.copy != copy:
                return _NO_SUCH_COPY
            self._copy_turn = NOBODY  # whatever comes of it
            (found,) = self._database.writer.execute("SELECT count(*) FROM map_copy").fetchone()
            if found != count:
                return Error(Status.BAD_REQUEST, f"the copy has {found} items and should have {count}")
            slot, digest, applied = self._row.copy_slot, self._row.copy_digest, self._state.applied
            if slot > applied:
                self._put_copy(acceptor.copied(self._state, slot, digest), (), read_until)
            elif self.damage.map:
                since = self._batches_since(slot, digest)
                if since is None:
                    return Error(Status.TRIMMED, f"the log no longer reaches back to slot {slot}, which the copy is of")
                self._put_copy(self._state, since, read_until)
            return self._state.position()

    def _batches_since(self, slot: int, digest: bytes) -> list[ParsedBatch] | None:
        """The batches that are applied here and not in a copy as of `slot`; None if they are not all here."""
        since = []
        for row in log_table.read(self._database.writer, slot, self._state.applied):
            parsed = ParsedBatch.of(row.batch)
            if parsed.batch.previous != digest:
                return None
            since.append(parsed)
            digest = parsed.digest
        return since if digest == self._state.digest else None

    def _put_copy(self, state: AcceptorState, since: Sequence[ParsedBatch], read_until: int) -> None:
        """The copy takes the map's place, with the changes of these batches, whose pieces are here already."""
        row = self._row._replace(read_from=read_until, copy=b"").with_state(state)
        with self._database.transaction(durable=True) as db:
            row = row._replace(map_sum=self._map.replace(db))
            for parsed in since:
                row = row.with_sum_changed(self._map.change(db, parsed.batch.puts, parsed.batch.deletes))
            if state.applied > self._state.applied:
                self._log.cut(db, state.applied)
            row.write(db)
            self.damage.map_is_replaced(db)
        self._row, self._state = row, state
        self.damage.read_again()


def _damaged(what: object) -> Error:
    return Error(Status.DAMAGED, f"{what}; another server can tell")
