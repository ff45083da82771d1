"""All pieces that a server holds for a user, large ones in files and small ones in tables, behind one interface.

Puts pieces, lists them, records which are no longer wanted, deletes those after the grace period, and moves bad ones to
quarantine. Putting a piece cancels its pending deletion, before the piece is acknowledged. Knows no sockets and no
messages; `namespace` reads pieces for clients.

Threads: everything may be called from any thread. The piece store's lock makes "it is here, and wanted" one step:
storing a large piece, marking and deleting pieces exclude each other. It is acquired before the database's lock, never
after.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from dfs_server.pieces.open_pieces import OpenPieces
from dfs_server.pieces.quarantine import BadPiece, Quarantine
from dfs_server.pieces.store import BadPieceError, HeldPiece, PieceStore, check_piece
from dfs_server.pieces.tables import StoredPiece
from dfs_server.protocol.messages import MAX_PUT_PIECES_BYTES, MAX_SMALL_PIECE_BYTES
from dfs_server.store.overlay import PieceName
from dfs_server.store.store import NamespaceStore

DELETE_STEP: Final = 256
"""Maximum number of dropped segments or pieces that are marked, or deleted, in one transaction."""
LIST_STEP: Final = 1000


class Holdings:
    """The pieces below `folder` (`ROOT/<user>`). `clock` returns seconds since 1970. `open_pieces`: see
    `PieceStore`."""

    def __init__(
        self,
        folder: Path,
        store: NamespaceStore,
        clock: Callable[[], float] = time.time,
        open_pieces: OpenPieces | None = None,
    ) -> None:
        self._clock = clock
        self._store = store
        self.tables = store.pieces
        self.files = PieceStore(folder / "pieces", on_install=self.tables.unmark, open_pieces=open_pieces)
        self.quarantine = Quarantine(folder / "quarantine")

    def now_s(self) -> int:
        """Seconds since 1970 by the server's clock."""
        return int(self._clock())

    # -------------------------------------------------------------- what is here

    def have(self, pieces: Sequence[PieceName]) -> set[PieceName]:
        """Those of the pieces that are here and not about to be deleted."""
        here = self.files.have(pieces)
        here |= self._store.have_small([piece for piece in pieces if piece not in here])
        return here - self.tables.marked(pieces)

    def totals(self) -> tuple[int, int]:
        """(count, bytes) of all pieces."""
        large, small = self.files.totals(), self.tables.totals()
        return large[0] + small[0], large[1] + small[1]

    def listed(self, after: PieceName | None, limit: int) -> tuple[list[HeldPiece], bool]:
        """At most `limit` pieces after `after`, in order, without those waiting to be deleted; and whether there are
        more. Raises `BadPieceError`."""
        if after is not None:
            check_piece(*after)
        wanted = self._wanted(after)
        found = list(itertools.islice(wanted, limit))
        return found, next(wanted, None) is not None

    def _wanted(self, after: PieceName | None) -> Iterator[HeldPiece]:
        both = heapq.merge(self.files.listed(after), self._small(after))
        while step := list(itertools.islice(both, LIST_STEP)):
            dropped = self.tables.dropped([piece[:2] for piece in step])
            for piece in step:
                if piece[:2] not in dropped and piece[:2] != after:
                    after = piece[:2]  # a piece that is here both as a large and as a small one is listed once
                    yield piece

    def _small(self, after: PieceName | None) -> Iterator[HeldPiece]:
        while step := self.tables.listed(after, LIST_STEP):
            yield from step
            after = step[-1][:2]

    # -------------------------------------------------------------- putting and dropping

    def put_small(self, pieces: Sequence[tuple[bytes, int, bytes]]) -> None:
        """Store small pieces durably, replacing existing ones. Raises `BadPieceError`."""
        for segment, number, data in pieces:
            check_piece(segment, number)
            if len(data) > MAX_SMALL_PIECE_BYTES:
                raise BadPieceError(f"a piece of {len(data)} bytes; at most {MAX_SMALL_PIECE_BYTES} are small")
        if (size := sum(len(data) for _, _, data in pieces)) > MAX_PUT_PIECES_BYTES:
            raise BadPieceError(f"{size} bytes of small pieces at once; at most {MAX_PUT_PIECES_BYTES} are allowed")
        if len({piece[:2] for piece in pieces}) < len(pieces):
            raise BadPieceError("the same piece twice at once")
        with self.files.lock:
            self.tables.put(pieces)

    def drop(self, pieces: Sequence[PieceName], min_age_s: int) -> list[bool]:
        """Mark these for deletion after the grace period, if they are at least this old; returns which will be deleted.
        Raises `BadPieceError`."""
        for piece in pieces:
            check_piece(*piece)
        if min_age_s < 0:
            raise BadPieceError(f"an age of {min_age_s} seconds")
        latest_s = self._clock() - min_age_s
        flags: list[bool] = []
        for first in range(0, len(pieces), DELETE_STEP):  # a client that puts a piece waits for one step at most
            step = pieces[first : first + DELETE_STEP]
            with self.files.lock:
                here = [self._is_as_old_as(piece, latest_s) for piece in step]
                self.tables.mark(list(itertools.compress(step, here)))
            flags += here
        return flags

    def _is_as_old_as(self, piece: PieceName, latest_s: float) -> bool:
        held = (self.files.held(*piece), self.tables.held(*piece))
        times = [found.stored_s for found in held if found is not None]
        return bool(times) and max(times) <= latest_s

    def delete_dropped(self, stop: Callable[[], bool] = lambda: False) -> tuple[int, int]:
        """Delete dropped pieces whose grace period is over; returns the numbers of segments and of single pieces."""
        segments = pieces = 0
        while not stop() and (due := self.tables.expired()[:DELETE_STEP]):
            for segment in due:
                self.files.delete(segment)
                self.quarantine.forget(segment)
            self.tables.forget(due)
            segments += len(due)
        while not stop() and (marked := self.tables.expired_marks()[:DELETE_STEP]):
            with self.files.lock:
                still = sorted(self.tables.marked(marked))
                for segment, number in still:
                    self.files.delete(segment, [number])
                self.tables.forget_marked(still)
            pieces += len(still)
        return segments, pieces

    # -------------------------------------------------------------- bad pieces

    def quarantine_large(self, segment: bytes, number: int, inode: int) -> Path | None:
        """Move a bad piece's file to quarantine, if it is (still) the file with this inode. Raises OSError."""
        bad = BadPiece(self.now_s(), segment, number)
        places: list[Path] = []
        self.files.move_out(segment, number, inode, lambda path: places.append(self.quarantine.move_here(path, bad)))
        return places[0] if places else None

    def quarantine_small(self, segment: bytes, number: int, stored: StoredPiece) -> Path | None:
        """Move a bad small piece to quarantine, if it still has these bytes. Raises OSError, sqlite3 errors."""
        place = self.quarantine.write_here(stored.data, BadPiece(self.now_s(), segment, number))
        return place if self.tables.remove(segment, number, stored.data) else None

    def forget_old_findings(self) -> None:
        """Delete old pieces in quarantine that are here again."""
        self.quarantine.forget_old(self.now_s(), lambda segment, number: bool(self.have([(segment, number)])))
