"""What a request can fail of, told to the client with a status: the disk's errors are mapped to statuses here, once.

No state, no threads.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from dfs_server.pieces.file import CorruptPieceError
from dfs_server.pieces.store import BadPieceError, DigestMismatchError
from dfs_server.protocol.status import Status
from dfs_server.store.database import FolderFormatError

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
