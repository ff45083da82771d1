"""A user's namespace on one server: the log and the map, in one SQLite file; `piece_tables` has its small pieces.

Answers requests about the log and the map: `namespace_writer` makes changes, `namespace_reader` reads, over a separate
connection, so that a read does not wait for the disk behind a write. Damaged data is never part of an answer
(`damage`): another server must be asked.

Threads: everything may be called from any thread.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from dfs_server.pieces.tables import PieceTables, StoredPiece
from dfs_server.protocol.batches import BadBatchError
from dfs_server.protocol.messages import (
    Accept,
    BeginCopy,
    Behind,
    Chosen,
    CopyItems,
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
from dfs_server.store import acceptor
from dfs_server.store.acceptor import ParsedBatch
from dfs_server.store.damage import DamageError, DamageNotes
from dfs_server.store.database import Database, Owner
from dfs_server.store.reader import NamespaceReader
from dfs_server.store.row_scan import RowScan
from dfs_server.store.writer import NamespaceWriter


class NamespaceStore:
    """One user's log, map and small pieces. Thread-safe.

    `folder` is `ROOT/<user>` and must exist or be creatable; `server` is this server's name, as in inline pieces'
    homes; dropped pieces are due for deletion after `grace_s` seconds of `clock` (in ns); leases are timed by
    `monotonic`. `is_tight`: whether only the reserve is left on the disk. Raises `FolderFormatError`; sqlite3 and OS
    errors only for the disk, never because of what a peer sent.
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
        with contextlib.ExitStack() as undo:
            self._database = Database(folder / "namespace.db", Owner(server, folder.name), clock)
            undo.callback(self._database.close)
            self.pieces = PieceTables(self._database, grace_s, self.flush)
            """Small pieces that have reached the tables, and drops."""
            undo.callback(self.pieces.close)
            self._writer = NamespaceWriter(self._database, server, self.pieces, monotonic=monotonic, is_tight=is_tight)
            self._reader = NamespaceReader(self._database.connect(), self._database.lock, lambda: self._writer.overlay)
            undo.pop_all()

    @property
    def damage(self) -> DamageNotes:
        """The damage found here."""
        return self._writer.damage

    def connect(self) -> sqlite3.Connection:
        """Another connection to the file, for reading; it belongs to the caller."""
        return self._database.connect()

    def close(self) -> None:
        """Close the files. Everything acknowledged is already durable."""
        self._writer.close()
        self.pieces.close()
        self._reader.close()
        self._database.close()

    # -------------------------------------------------------------- requests

    def handle(self, request: LogRequest) -> Reply:
        """The reply to a request. An invalid request gets an `Error` reply, not an exception."""
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

    def _handle(self, request: LogRequest) -> Reply:  # noqa: PLR0912 - one branch for each request
        match request:
            case Accept(ballot, slot, encoded, lease):
                parsed = ParsedBatch.of(encoded)
                now = self._monotonic()
                return self._writer.step(lambda state: acceptor.accept(state, ballot, slot, parsed, now, lease=lease))
            case Promise(ballot):
                return self._writer.step(lambda state: acceptor.promise(state, ballot, self._monotonic()))
            case Chosen(slot, digest, client):
                now = self._monotonic()
                return self._writer.step(
                    lambda state: acceptor.chosen(acceptor.let_go(state, client, slot, now), slot, digest)
                )
            case Learn(first, encoded_batches):
                chosen = [ParsedBatch.of(encoded) for encoded in encoded_batches]
                return self._writer.step(lambda state: acceptor.learn(state, first, chosen))
            case GetPosition(recall):
                return self._writer.position(recall)
            case GetBatches(after):
                reply = self._reader.batches(after)
                if not isinstance(reply, Error):
                    self._writer.keep_log_after(after)
                return reply
            case GetChanges(after, slot, digest):
                return self._read_at(slot, digest, lambda: self._reader.changes(after))
            case ReadKeys(slot, digest, keys):
                return self._read_map_at(slot, digest, lambda: self._reader.values(slot, keys))
            case ReadRange(slot, digest):
                if slot:  # otherwise any slot will do: the log since then is not needed
                    self._writer.keep_log_after(slot)
                return self._read_map_at(slot, digest, lambda: self._reader.items(request))
            case BeginCopy(copy, slot, digest):
                return self._writer.begin_copy(copy, slot, digest)
            case CopyItems(copy, items):
                return self._writer.copy_items(copy, items)
            case EndCopy(copy, count, read_until):
                return self._writer.end_copy(copy, count, read_until)

    def _read_at(self, slot: int, digest: bytes, read: Callable[[], Reply]) -> Reply:
        """`read` at `slot` or later; first apply the tail if the caller says that it is chosen."""
        if self._writer.state.applied < slot:
            self._writer.step(lambda state: acceptor.chosen(state, slot, digest))
        if self._writer.state.applied < slot:
            return Behind(self._writer.state.applied)
        return read()

    def _read_map_at(self, slot: int, digest: bytes, read: Callable[[], Reply]) -> Reply:
        if self.damage.map:
            return _damaged(self.damage.map)
        return self._read_at(slot, digest, read)

    # -------------------------------------------------------------- small pieces

    def small_piece(self, segment: bytes, number: int) -> StoredPiece | None:
        """A small piece, which came inside a batch, or None.

        The tail's pieces count: its batch may be chosen, and a reader may know that before this server does.
        """
        data = self._in_tail().get((segment, number))
        if data is None:
            data = self._writer.overlay.piece((segment, number))
        return self.pieces.get(segment, number) if data is None else StoredPiece(block_digests(data), data)

    def small_pieces(self, pieces: Iterable[tuple[bytes, int]]) -> Iterator[bytes | None]:
        """The data of each, in order, looked up when requested; None for one that is not here as a small one."""
        for piece in pieces:
            found = self.small_piece(*piece)
            yield None if found is None else found.data

    def have_small(self, pieces: Sequence[tuple[bytes, int]]) -> set[tuple[bytes, int]]:
        """Those of the (segment, number) that are here as small pieces, in the tail or applied."""
        waiting = self._in_tail().keys() & set(pieces)
        return waiting | self._writer.overlay.have(pieces) | self.pieces.have(pieces)

    def _in_tail(self) -> dict[tuple[bytes, int], bytes]:
        # A batch moves from the tail to the overlay and from there to the tables: looking in this order always finds
        # it.
        tail = self._writer.state.tail
        if tail is None:
            return {}
        pieces = (piece for piece in tail.parsed.batch.pieces if self._server in piece.homes)
        return {(piece.segment, piece.number): piece.data for piece in pieces}

    # -------------------------------------------------------------- flushing

    def flush(self) -> None:
        """Write what waits to the tables, durably."""
        self._writer.flush()

    def flush_if_idle(self) -> None:
        """Flush if nothing has arrived since the last call."""
        self._writer.flush_if_idle()

    # -------------------------------------------------------------- damage

    def scan(self) -> RowScan:
        """A walk through all rows of the map and the log. Pass its findings to `found`."""
        return self._writer.scan()

    def found(self, error: DamageError) -> None:
        """Repair the damage that was found, or have it repaired."""
        self._writer.found(error)


def _damaged(what: object) -> Error:
    return Error(Status.DAMAGED, f"{what}; ask another server")
