"""Request failures and their statuses: the errors of the disk are mapped to statuses here, in one place.

No state, no threads.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
from types import TracebackType
from typing import Final

from dfs_server.pieces.file import CorruptPieceError
from dfs_server.pieces.store import BadPieceError, DigestMismatchError
from dfs_server.protocol.status import Status
from dfs_server.store.database import FolderFormatError

log = logging.getLogger(__name__)


class RequestFailedError(Exception):
    """A request failed; the client gets `status` and the text."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status


class _FailuresTold:
    """See `failures_told`. A class: a generator as a context takes twice as many calls, at each request."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, RequestFailedError):
            raise _told(error) from error


_FAILURES_TOLD: Final = _FailuresTold()


def failures_told() -> _FailuresTold:
    """Turn every failure of a request into a `RequestFailedError`, and log what an operator should know."""
    return _FAILURES_TOLD


def _told(error: Exception) -> RequestFailedError:
    match error:
        case BadPieceError() | OverflowError():
            return RequestFailedError(Status.BAD_REQUEST, str(error))
        case DigestMismatchError():
            return RequestFailedError(Status.DIGEST_MISMATCH, str(error))
        case CorruptPieceError():
            log.warning("%s", error)
            return RequestFailedError(Status.DIGEST_MISMATCH, "the piece is damaged on this server's disk")
        case FolderFormatError():
            log.warning("%s", error)
            return RequestFailedError(Status.IO_ERROR, str(error))
        case sqlite3.Error():
            log.warning("the namespace's database: %s", error)
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            return RequestFailedError(Status.NO_SPACE if full else Status.IO_ERROR, f"the server's disk: {error}")
        case OSError():
            log.warning("the disk: %s", error)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            status = Status.NO_SPACE if full else Status.IO_ERROR
            return RequestFailedError(status, f"the server's disk: {error.strerror or error}")
    log.error("unexpected exception", exc_info=error)
    return RequestFailedError(Status.IO_ERROR, "an internal error of the server; see its log")
