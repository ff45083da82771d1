"""The small pieces of a namespace, and the records of what was dropped and when: tables of its SQLite file.

A small piece arrives inside a batch, and is stored here together with many others (`apply`), or is put by healing.
Drops are only records: a segment that a batch has dropped, or single pieces that this server should no longer hold. The
code that deletes after the grace period asks here what is due. Knows no file of a large piece, and no log.

`get` and `have` return what is in the tables. Everything else reflects all applied batches: it first has `flush` write
to the tables what is waiting elsewhere (`overlay`).

Threads: writes under the database's lock, like all writes; reads over a separate connection, guarded by `_read_lock`,
so that they never wait for the disk. `_any_marked` only ever becomes true.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from sqlite3 import Connection
from typing import Final, NamedTuple

from dfs_server.pieces.store import HeldPiece
from dfs_server.protocol.pieces import block_digests
from dfs_server.store.database import Database
from dfs_server.store.overlay import PieceName, WaitingPiece

_BEFORE_ALL: Final = (b"", 0)
_INSERT: Final = "INTO small_pieces (segment, number, digests, data, stored_s) VALUES (?, ?, ?, ?, ?)"
DUE_AT_ONCE: Final = 10_000
LOOK_STEP: Final = 128
"""Number of pieces that are looked up before others get their turn: a client that reads a small piece must not wait for
thousands."""


class StoredPiece(NamedTuple):
    """A small piece and its level-one digests."""

    digests: bytes
    data: bytes


class PieceTables:
    """Small pieces and drops. `grace_s`: how long dropped pieces are kept. `flush`: see the module."""

    def __init__(self, database: Database, grace_s: float, flush: Callable[[], None]) -> None:
        self._database = database
        self._flush = flush
        self._grace_ns = int(grace_s * 1e9)
        self._read_lock = threading.Lock()
        self._reader = database.connect()
        # Most servers never have a marked piece: then there is no need to look for one whenever a piece is put.
        (found,) = self._reader.execute("SELECT EXISTS (SELECT 1 FROM piece_drops)").fetchone()
        self._any_marked = bool(found)

    def close(self) -> None:
        """Close the reading connection."""
        with self._read_lock:
            self._reader.close()

    # -------------------------------------------------------------- small pieces

    def get(self, segment: bytes, number: int) -> StoredPiece | None:
        """A small piece, or None. Its digests are those computed when it arrived: bit rot shows."""
        query = "SELECT digests, data FROM small_pieces WHERE segment = ? AND number = ?"
        with self._read_lock:
            row = self._reader.execute(query, (segment, number)).fetchone()
        return StoredPiece(*row) if row else None

    def have(self, pieces: Sequence[PieceName]) -> set[PieceName]:
        """Those of the pieces that are here as small ones."""
        return self._in("small_pieces", pieces)

    def totals(self) -> tuple[int, int]:
        """(count, bytes) of the small pieces."""
        with contextlib.suppress(sqlite3.Error, OSError):  # a full disk must not keep a server from reporting this
            self._flush()
        with self._read_lock:
            count, size = self._reader.execute("SELECT pieces, bytes FROM small_totals").fetchone()
        return count, size

    def held(self, segment: bytes, number: int) -> HeldPiece | None:
        """This small piece's length and since when it is here, or None."""
        self._flush()
        query = "SELECT length(data), stored_s FROM small_pieces WHERE segment = ? AND number = ?"
        with self._read_lock:
            row = self._reader.execute(query, (segment, number)).fetchone()
        return HeldPiece(segment, number, *row) if row else None

    def listed(self, after: PieceName | None, limit: int) -> list[HeldPiece]:
        """Small pieces in order, starting with the first one after `after`."""
        self._flush()
        query = """SELECT segment, number, length(data), stored_s FROM small_pieces
            WHERE (segment, number) > (?, ?) ORDER BY segment, number LIMIT ?"""
        with self._read_lock:
            rows = self._reader.execute(query, (*(after or _BEFORE_ALL), limit)).fetchall()
        return [HeldPiece(*row) for row in rows]

    @staticmethod
    def apply(db: Connection, pieces: Mapping[PieceName, WaitingPiece], drops: Mapping[bytes, int]) -> None:
        """Write the pieces and drops of batches, with the time of each, in the caller's transaction."""
        db.executemany(
            f"INSERT OR IGNORE {_INSERT}",
            [(*name, block_digests(data), data, came_ns // 10**9) for name, (data, came_ns) in sorted(pieces.items())],
        )
        db.executemany("INSERT OR IGNORE INTO drops (segment, dropped_ns) VALUES (?, ?)", sorted(drops.items()))

    def put(self, pieces: Sequence[tuple[bytes, int, bytes]]) -> None:
        """Store small pieces durably, all or none, replacing existing ones. Pending deletions of them are cancelled."""
        now_s = self._database.clock() // 10**9
        names = [piece[:2] for piece in pieces]
        with self._database.lock, self._database.transaction(durable=True) as db:
            # Deleted first instead of replaced: the triggers that count do not see what REPLACE removes.
            db.executemany("DELETE FROM small_pieces WHERE segment = ? AND number = ?", names)
            db.executemany(f"INSERT {_INSERT}", [(s, n, block_digests(data), data, now_s) for s, n, data in pieces])
            _unmark(db, names)

    def remove(self, segment: bytes, number: int, data: bytes) -> bool:
        """Remove this small piece durably, if it (still) has these bytes; returns whether it had."""
        with self._database.lock, self._database.transaction(durable=True) as db:
            query = "DELETE FROM small_pieces WHERE segment = ? AND number = ? AND data = ?"
            return db.execute(query, (segment, number, data)).rowcount > 0

    # -------------------------------------------------------------- dropped segments

    def expired(self) -> list[bytes]:
        """Segments whose grace period is over, oldest first; at most 10,000."""
        self._flush()
        query = "SELECT segment FROM drops WHERE dropped_ns <= ? ORDER BY dropped_ns LIMIT ?"
        with self._read_lock:
            rows = self._reader.execute(query, (self._due_ns(), DUE_AT_ONCE)).fetchall()
        return [segment for (segment,) in rows]

    def forget(self, segments: Sequence[bytes]) -> None:
        """The large pieces of these dropped segments are deleted: delete the small ones and the records."""
        rows = [(segment,) for segment in segments]
        with self._database.lock, self._database.transaction(durable=False) as db:
            db.executemany("DELETE FROM small_pieces WHERE segment = ?", rows)
            db.executemany("DELETE FROM drops WHERE segment = ?", rows)
            db.executemany("DELETE FROM piece_drops WHERE segment = ?", rows)

    # -------------------------------------------------------------- dropped pieces

    def mark(self, pieces: Sequence[PieceName]) -> None:
        """Mark these pieces as no longer wanted here. One that is already marked keeps its time."""
        now = self._database.clock()
        query = "INSERT OR IGNORE INTO piece_drops (segment, number, dropped_ns) VALUES (?, ?, ?)"
        self._any_marked = True
        with self._database.lock, self._database.transaction(durable=True) as db:
            db.executemany(query, [(*piece, now) for piece in pieces])

    def unmark(self, segment: bytes, number: int) -> None:
        """Durably cancel the deletion of this piece."""
        if self.marked([(segment, number)]):
            with self._database.lock, self._database.transaction(durable=True) as db:
                _unmark(db, [(segment, number)])

    def marked(self, pieces: Sequence[PieceName]) -> set[PieceName]:
        """Those of the pieces that are marked as no longer wanted here."""
        return self._in("piece_drops", pieces) if self._any_marked else set()

    def dropped(self, pieces: Sequence[PieceName]) -> set[PieceName]:
        """Those of the pieces that wait to be deleted, individually or with their whole segment."""
        self._flush()
        query = "SELECT 1 FROM drops WHERE segment = ?"
        marked = self.marked(pieces)
        with self._read_lock:
            return marked | {piece for piece in pieces if self._reader.execute(query, piece[:1]).fetchone()}

    def expired_marks(self) -> list[PieceName]:
        """Marked pieces whose grace period is over, oldest first; at most 10,000."""
        self._flush()
        query = "SELECT segment, number FROM piece_drops WHERE dropped_ns <= ? ORDER BY dropped_ns LIMIT ?"
        with self._read_lock:
            rows = self._reader.execute(query, (self._due_ns(), DUE_AT_ONCE)).fetchall()
        return [(segment, number) for segment, number in rows]

    def forget_marked(self, pieces: Sequence[PieceName]) -> None:
        """The files of these marked pieces are deleted: delete the small ones and the marks, durably. A mark that
        reappeared after a power cut would also apply to a file that was put since then, because nothing is written here
        for that file."""
        with self._database.lock, self._database.transaction(durable=True) as db:
            db.executemany("DELETE FROM small_pieces WHERE segment = ? AND number = ?", pieces)
            _unmark(db, pieces)

    def _in(self, table: str, pieces: Sequence[PieceName]) -> set[PieceName]:
        query = f"SELECT 1 FROM {table} WHERE segment = ? AND number = ?"
        found: set[PieceName] = set()
        for first in range(0, len(pieces), LOOK_STEP):
            with self._read_lock:
                found.update(p for p in pieces[first : first + LOOK_STEP] if self._reader.execute(query, p).fetchone())
        return found

    def _due_ns(self) -> int:
        return self._database.clock() - self._grace_ns


def _unmark(db: Connection, pieces: Sequence[PieceName]) -> None:
    db.executemany("DELETE FROM piece_drops WHERE segment = ? AND number = ?", pieces)
