"""What one server holds for its users: for each a namespace store and a piece store, opened when first needed.

Turns requests into replies, apart from authentication and from moving payloads, which are the session's. Whatever goes
wrong is a `RequestFailedError` with the status that the client is told; the disk's errors are mapped to statuses here,
once. Knows no socket.

Threads: everything may be called from any thread. `Namespaces._lock` guards the table of open namespaces; it is held
while one is opened, since a namespace must not be opened twice.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dfs_server import __version__, durable
from dfs_server.accounts import is_user_name
from dfs_server.namespace_reader import StoredPiece
from dfs_server.namespace_store import FolderFormatError, NamespaceStore
from dfs_server.piece_file import CorruptPieceError
from dfs_server.piece_store import (
    BadPieceError,
    DigestMismatchError,
    OpenPiece,
    PieceStore,
    Upload,
    check_piece,
)
from dfs_server.protocol.messages import (
    MAX_HAVE_PIECES,
    Authenticate,
    DropPieces,
    GetFindings,
    GetPiece,
    GetPosition,
    GetStatus,
    Have,
    HavePieces,
    ListPieces,
    LogRequest,
    Position,
    Prove,
    PutPiece,
    PutPieces,
    Reply,
    Request,
    ServerStatus,
)
from dfs_server.protocol.status import Status

DELETE_STEP: Final = 256
"""So many dropped segments are deleted between two transactions."""

log = logging.getLogger(__name__)


class RequestFailedError(Exception):
    """A request failed; the client is told `status` and the text."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status


@contextmanager
def failures_told() -> Iterator[None]:
    """Turns everything that a request can fail of into a `RequestFailedError`, and logs what an operator should see."""
    try:
        yield
    except RequestFailedError:
        raise
    except (BadPieceError, OverflowError) as error:
        raise RequestFailedError(Status.BAD_REQUEST, str(error)) from error
    except DigestMismatchError as error:
        raise RequestFailedError(Status.DIGEST_MISMATCH, str(error)) from error
    except CorruptPieceError as error:
        log.warning("%s", error)
        raise RequestFailedError(Status.DIGEST_MISMATCH, "the piece is damaged on this server's disk") from error
    except FolderFormatError as error:
        log.warning("%s", error)
        raise RequestFailedError(Status.IO_ERROR, str(error)) from error
    except sqlite3.Error as error:
        log.warning("the namespace's database: %s", error)
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        status = Status.NO_SPACE if full else Status.IO_ERROR
        raise RequestFailedError(status, f"the server's disk: {error}") from error
    except OSError as error:
        log.warning("the disk: %s", error)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        status = Status.NO_SPACE if full else Status.IO_ERROR
        raise RequestFailedError(status, f"the server's disk: {error.strerror or error}") from error
    except Exception as error:
        log.exception("a mistake of this program")
        raise RequestFailedError(Status.IO_ERROR, "a mistake of the server's program; its log has more") from error


class Namespace:
    """One user's namespace on this server."""

    def __init__(self, folder: Path, server: str, store: NamespaceStore, reserve_bytes: int) -> None:
        self._folder = folder
        self._server = server
        self._store = store
        self._reserve_bytes = reserve_bytes
        self._pieces = PieceStore(folder / "pieces")

    def answer(self, request: Request) -> Reply:
        """The reply to any request that needs no payload in either direction. Raises `RequestFailedError`."""
        with failures_told():
            match request:
                case GetStatus():
                    return self._status()
                case HavePieces(pieces):
                    return self._have(pieces)
                case Authenticate() | Prove() | PutPiece() | GetPiece():
                    raise AssertionError("the session answers these")
                case GetFindings() | PutPieces() | ListPieces() | DropPieces():
                    raise RequestFailedError(Status.BAD_REQUEST, "this server does not answer this yet")
                case _:
                    return self._answer_log(request)

    def put_piece(self, request: PutPiece, length: int) -> Upload:
        """Begin to store a piece. Raises `RequestFailedError`; the upload itself wants `failures_told` around it."""
        with failures_told():
            free_bytes, _ = _room(self._folder)
            if free_bytes - length < self._reserve_bytes:
                text = f"server {self._server} has {free_bytes} bytes free, of which it keeps {self._reserve_bytes}"
                raise RequestFailedError(Status.NO_SPACE, text)
            return self._pieces.put(request.segment, request.number, request.digests, length)

    def get_piece(self, request: GetPiece) -> OpenPiece | StoredPiece:
        """The piece, wherever it is. Raises `RequestFailedError`, also if it is not here."""
        with failures_told():
            check_piece(request.segment, request.number)
            piece = self._pieces.open(request.segment, request.number)
            found = piece or self._store.small_piece(request.segment, request.number)
        if found is None:
            raise RequestFailedError(Status.NOT_FOUND, "this piece is not here")
        return found

    def delete_dropped(self, stop: Callable[[], bool] = lambda: False) -> int:
        """Delete the pieces whose grace period is over; how many segments. Raises `RequestFailedError`."""
        deleted = 0
        with failures_told():
            while (segments := self._store.expired_drops()[:DELETE_STEP]) and not stop():
                for segment in segments:
                    self._pieces.delete(segment)
                self._store.forget_drops(segments)
                deleted += len(segments)
        return deleted

    def close(self) -> None:
        self._store.close()

    def _answer_log(self, request: LogRequest) -> Reply:
        return self._store.handle(request)

    def _status(self) -> ServerStatus:
        position = self._store.handle(GetPosition())
        large_count, large_bytes = self._pieces.totals()
        small_count, small_bytes = self._store.piece_totals()
        free_bytes, total_bytes = _room(self._folder)
        return ServerStatus(
            server=self._server,
            version=__version__,
            applied=position.applied if isinstance(position, Position) else 0,
            free_bytes=max(0, free_bytes - self._reserve_bytes),
            total_bytes=total_bytes,
            piece_count=large_count + small_count,
            piece_bytes=large_bytes + small_bytes,
        )

    def _have(self, pieces: tuple[tuple[bytes, int], ...]) -> Have:
        if len(pieces) > MAX_HAVE_PIECES:
            raise BadPieceError(f"{len(pieces)} pieces asked for at once; at most {MAX_HAVE_PIECES} are allowed")
        here = self._pieces.have(pieces)
        here |= self._store.have_small([piece for piece in pieces if piece not in here])
        return Have(bytes(piece in here for piece in pieces))


class Namespaces:
    """The namespaces of one server, below `root`."""

    def __init__(self, root: Path, server: str, *, grace_s: float, reserve_bytes: int) -> None:
        self._root = root
        self._server = server
        self._grace_s = grace_s
        self._reserve_bytes = reserve_bytes
        self._lock = threading.Lock()
        self._open: dict[str, Namespace] = {}

    def of(self, user: str) -> Namespace:
        """The namespace of an authenticated user. Raises `RequestFailedError`."""
        with self._lock, failures_told():
            if user not in self._open:
                self._open[user] = self._opened(user)
            return self._open[user]

    def opened(self) -> list[Namespace]:
        """Those that were needed so far."""
        with self._lock:
            return list(self._open.values())

    def close(self) -> None:
        """Close all. No request may be under way."""
        with self._lock:
            for namespace in self._open.values():
                namespace.close()
            self._open.clear()

    def _opened(self, user: str) -> Namespace:
        if not is_user_name(user):
            raise AssertionError(f"{user!r} must not get this far")
        folder = self._root / user
        durable.make_folder(folder)
        store = NamespaceStore(folder, self._server, grace_s=self._grace_s)
        try:
            return Namespace(folder, self._server, store, self._reserve_bytes)
        except BaseException:
            store.close()
            raise


def _room(folder: Path) -> tuple[int, int]:
    """(free, total) bytes of the disk."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
