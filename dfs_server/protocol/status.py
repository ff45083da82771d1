"""Why a server could not do what it was asked. Numbers are part of the wire format: add, never renumber."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """The reason in an `Error` reply."""

    BAD_REQUEST = 1
    """The request does not follow the protocol. The connection is closed after it."""
    UNAUTHENTICATED = 2
    """Something was asked before authentication succeeded. The connection is closed after it."""
    AUTHENTICATION_FAILED = 3
    """Unknown user or wrong password. The connection is closed after it."""
    UNSUPPORTED_VERSION = 4
    NOT_FOUND = 5
    """The server does not have this piece."""
    DIGEST_MISMATCH = 6
    """The bytes of a piece, as received or as read from disk, do not have the digests that came with them."""
    NO_SPACE = 7
    """The server's disk is full, or only its reserve is left."""
    IO_ERROR = 8
    """The server's disk failed."""
    TRIMMED = 9
    """The log no longer reaches back to that slot: copy the map instead."""
    DIVERGED = 10
    """The server's history is not a prefix of the one the request speaks of."""
    BUSY = 11
    """Too many connections, or the server is going down. Try again."""
    COPYING = 12
    """Another client copies the map to this server: leave it to that one."""
    DAMAGED = 13
    """What was asked for was damaged on the server's disk, or is part of a map that is: ask another server."""
    TOO_MUCH = 14
    """What was asked for is more than fits in one reply: ask for less at once."""
