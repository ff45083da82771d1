"""The errors that callers see.

    DfsError                     everything below; has an `errno` for the mount and an `exit_code` for commands
    ├── AuthenticationError      a server answered, and rejected the user or password            EACCES
    ├── WrongServerError         a server answered, and is not the one the config names          EIO
    ├── UnavailableError         too few servers answer to do this at all                        EIO
    │   └── ReadOnlyError        enough to read, too few to write                                EROFS
    ├── MaybeDoneError           it timed out: it may have happened, or may still happen         EIO
    ├── LostError                what was answered before it was durable is lost                 EIO
    ├── IncompleteError          no good copy of a piece is reachable: bytes are missing         EIO
    ├── NoSpaceError             too few servers have room for it                                ENOSPC
    └── TooLargeError            over a documented limit                                         EFBIG

What a local file system would also say (no such file, not a directory, ...) is the builtin `OSError` with that errno
(`posix_error`).
A single server's failure is not an exception but a value (`dfsfuse.net.exchange.Failure`), which a quorum counts.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable


class DfsError(Exception):
    """Base of all errors that dfsfuse reports to its user. The text says what happened, where, and what to do."""

    errno: int = errno.EIO
    exit_code: int = 1


class AuthenticationError(DfsError):
    """A server answered and rejected the user. Nothing was done on any server."""

    errno = errno.EACCES
    exit_code = 4


class WrongServerError(DfsError):
    """The server at an address is not the one the config names there."""

    exit_code = 5


class UnavailableError(DfsError):
    """Too few servers answer."""

    exit_code = 6


class ReadOnlyError(UnavailableError):
    """Fewer than three servers answer: existing data can be read, nothing can be written."""

    errno = errno.EROFS
    exit_code = 7


class MaybeDoneError(DfsError):
    """The answer did not come in time. The change may have happened, or may still happen."""

    exit_code = 8
    sequence: int | None = None
    """The number, among this client's batches, of the one that may have been made."""


class LostError(DfsError):
    """Something answered before it was durable is lost. Raised once for each witness; retrying is useless."""


class IncompleteError(DfsError):
    """No good copy of some piece is reachable. `away`: the ids of its servers that do not answer."""

    exit_code = 3

    def __init__(self, text: str = "", away: Iterable[int] = ()) -> None:
        super().__init__(text)
        self.away = frozenset(away)


class NoSpaceError(DfsError):
    """Too few servers have room."""

    errno = errno.ENOSPC
    exit_code = 9


class TooLargeError(DfsError):
    """Over a documented limit."""

    errno = errno.EFBIG


def posix_error(number: int, detail: str = "") -> OSError:
    """Return an OSError, of the fitting subclass, as a local file system would raise it."""
    return OSError(number, detail or os.strerror(number))


def too_few_to_write(answering: int) -> str:
    """Return why nothing can be written while this few servers answer, and what to do."""
    who = f"only {answering} of 4 servers answer{'s' if answering == 1 else ''}" if answering else "no server answers"
    return f"{who}, and writing needs three: 'dfc status' shows which are missing; start them"


class StoppedError(Exception):
    """The work was asked to stop. What was done is done, and the rest is as it was."""
