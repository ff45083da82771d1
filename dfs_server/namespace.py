"""One user's namespace on one server: turns requests into replies, except for transferring payloads, which the session
does.

Every error is a `RequestFailedError` with the status for the client. Knows no sockets.

Threads: everything may be called from any thread.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dfs_server import __version__
from dfs_server.pieces.file import CorruptPieceError
from dfs_server.pieces.holdings import Holdings
from dfs_server.pieces.open_piece import OpenPiece
from dfs_server.pieces.open_pieces import OpenPieces
from dfs_server.pieces.store import BadPieceError, Upload, check_piece
from dfs_server.pieces.tables import StoredPiece
from dfs_server.protocol.messages import (
    MAX_AT_ONCE,
    MAX_HAVE_PIECES,
    MAX_SMALL_PIECES_BYTES,
    Accept,
    AcceptedAt,
    Authenticate,
    Done,
    DropPieces,
    Findings,
    GetFindings,
    GetPiece,
    GetPieces,
    GetPosition,
    GetStatus,
    Have,
    HavePieces,
    ListPieces,
    PieceList,
    Position,
    Prove,
    PutPiece,
    PutPieces,
    Reply,
    Request,
    ServerStatus,
    SmallPieces,
)
from dfs_server.protocol.status import Status
from dfs_server.scrub.scrubber import Rest, Scrubber
from dfs_server.store.overlay import PieceName
from dfs_server.store.room_watch import RoomWatch
from dfs_server.store.store import NamespaceStore
from dfs_server.wire.failures import RequestFailedError, failures_told

log = logging.getLogger(__name__)


class Namespace:
    """One user's namespace on this server. `room`: (free, total) bytes of the disk that a folder is on. `open_pieces`:
    see `PieceStore`."""

    def __init__(
        self,
        folder: Path,
        server: str,
        store: NamespaceStore,
        reserve_bytes: int,
        room: Callable[[Path], tuple[int, int]],
        open_pieces: OpenPieces | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._server = server
        self._store = store
        self._reserve_bytes = reserve_bytes
        self._room = room
        self._watch = RoomWatch(self._free_bytes, monotonic)
        self.holdings = Holdings(folder, store, open_pieces=open_pieces)
        self.scrubber = Scrubber(folder, self.holdings, store)

    def answer(self, request: Request) -> Reply:
        """The reply to any request that has no payload in either direction. Raises `RequestFailedError`."""
        with failures_told():
            match request:
                case Accept():  # by far the most frequent request
                    return self._accept(request)
                case GetStatus():
                    return self._status()
                case GetFindings():
                    return self._findings()
                case HavePieces(pieces):
                    return self._have(pieces)
                case ListPieces(after, limit):
                    return self._list(after, limit)
                case PutPieces(pieces_with_data):
                    self._refuse_beyond_reserve(sum(len(data) for _, _, data in pieces_with_data))
                    self.holdings.put_small(pieces_with_data)
                    return Done()
                case GetPieces(pieces):
                    return self._get_small(pieces)
                case DropPieces(pieces, min_age_s):
                    return Have(bytes(self.holdings.drop(pieces, min_age_s)))
                case Authenticate() | Prove() | PutPiece() | GetPiece():
                    raise AssertionError("the session answers these")
                case _:
                    return self._store.handle(request)

    def put_piece(self, request: PutPiece, length: int) -> Upload:
        """Begin to store a piece. Raises `RequestFailedError`; use the upload itself within `failures_told`."""
        with failures_told():
            self._refuse_beyond_reserve(length)
            return self.holdings.files.put(
                request.segment, request.number, request.digests, length, replace=request.replace
            )

    def get_piece(self, request: GetPiece) -> OpenPiece | StoredPiece:
        """The piece, wherever it is stored. Raises `RequestFailedError`, also if it is not here."""
        with failures_told():
            check_piece(request.segment, request.number)
            piece = self._open(request.segment, request.number)
            found = piece or self._store.small_piece(request.segment, request.number)
        if found is None:
            raise RequestFailedError(Status.NOT_FOUND, "this server does not have this piece")
        return found

    def _get_small(self, pieces: Sequence[PieceName]) -> SmallPieces:
        """Small pieces, as many as fit into a reply."""
        for segment, number in pieces:
            check_piece(segment, number)
        left = MAX_SMALL_PIECES_BYTES
        found: list[bytes | None] = []
        for piece in self._store.small_pieces(pieces):
            data = None if piece is None or len(piece) > left else piece
            left -= len(data or b"")
            found.append(data)
        return SmallPieces(tuple(found))

    def _open(self, segment: bytes, number: int) -> OpenPiece | None:
        try:
            return self.holdings.files.take(segment, number)
        except CorruptPieceError:
            # Quarantine it now, so that healing notices it immediately and not only after the next scrub.
            self.scrubber.look_at(segment, number)
            raise

    def delete_dropped(self, stop: Callable[[], bool] = lambda: False) -> int:
        """Delete dropped pieces whose grace period is over; returns the number of segments and single pieces. Raises
        `RequestFailedError`."""
        with failures_told():
            self.holdings.forget_old_findings()
            return sum(self.holdings.delete_dropped(stop))

    def scrub(self, period_s: float, bytes_per_s: float, rest: Rest) -> bool:
        """Scrub, if it is due; returns whether a whole pass has ended. Raises `RequestFailedError`."""
        with failures_told():
            return self.scrubber.run(period_s, bytes_per_s, rest)

    def flush_if_idle(self) -> None:
        """Flush accepted batches to the tables, if nothing more has arrived since the last call. Raises
        `RequestFailedError`."""
        with failures_told():
            self._store.flush_if_idle()

    def close(self) -> None:
        self._store.close()

    # -------------------------------------------------------------- the log

    def _accept(self, request: Accept) -> Reply:
        reply = self._store.handle(request)
        if isinstance(reply, AcceptedAt) and self._watch.is_full(len(request.batch)):
            return AcceptedAt(reply.slot, reply.wanted, reply.recalled, full=True)
        return reply

    # -------------------------------------------------------------- the disk

    def _refuse_beyond_reserve(self, size_bytes: int) -> None:
        free_bytes, _ = self._room(self._folder)
        if free_bytes - size_bytes < self._reserve_bytes:
            text = f"server {self._server} has {free_bytes} bytes free, of which it keeps {self._reserve_bytes}"
            raise RequestFailedError(Status.NO_SPACE, text)

    def _free_bytes(self) -> int:
        """Free bytes without the reserve; negative if the reserve is in use."""
        free_bytes, _ = self._room(self._folder)
        return free_bytes - self._reserve_bytes

    def _status(self) -> ServerStatus:
        position = self._store.handle(GetPosition())
        piece_count, piece_bytes = self.holdings.totals()
        _, total_bytes = self._room(self._folder)
        return ServerStatus(
            server=self._server,
            version=__version__,
            applied=position.applied if isinstance(position, Position) else 0,
            free_bytes=max(0, self._free_bytes()),
            total_bytes=total_bytes,
            piece_count=piece_count,
            piece_bytes=piece_bytes,
            quarantined=len(self.holdings.quarantine),
            scrubbed_s=self.scrubber.progress.passed_s,
            damage=self._damage(),
        )

    # -------------------------------------------------------------- pieces

    def _have(self, pieces: tuple[PieceName, ...]) -> Have:
        if len(pieces) > MAX_HAVE_PIECES:
            raise BadPieceError(f"{len(pieces)} pieces asked for at once; at most {MAX_HAVE_PIECES} are allowed")
        here = self.holdings.have(pieces)
        return Have(bytes(piece in here for piece in pieces))

    def _list(self, after: PieceName | None, limit: int) -> PieceList:
        now_s = self.holdings.now_s()
        found, more = self.holdings.listed(after, max(1, min(limit, MAX_AT_ONCE)))
        pieces = tuple((piece.segment, piece.number, piece.length, max(0, now_s - piece.stored_s)) for piece in found)
        return PieceList(pieces, more)

    def _findings(self) -> Findings:
        bad = self.holdings.quarantine.latest(MAX_AT_ONCE)
        progress = self.scrubber.progress
        return Findings(
            quarantined=tuple((piece.segment, piece.number, piece.when_s) for piece in bad),
            quarantined_count=len(self.holdings.quarantine),
            passed_s=progress.passed_s,
            began_s=progress.began_s if progress.is_under_way else 0,
            checked=progress.checked,
            pieces=max(progress.pieces, progress.checked),
            database_checked_s=progress.database_checked_s,
            database=self._damage(),
        )

    def _damage(self) -> str:
        return "; ".join(filter(None, (self.scrubber.progress.database, self._store.damage.text())))


def room(folder: Path) -> tuple[int, int]:
    """(free, total) bytes of the disk."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
