"""Why a server could not carry out a request. Numbers are part of the wire format: add, never renumber."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """The reason in an `Error` reply."""

    BAD_REQUEST = 1
    """The request does not follow the protocol. The connection is closed afterwards."""
    UNAUTHENTICATED = 2
    """A request was sent before authentication succeeded. The connection is closed afterwards."""
    AUTHENTICATION_FAILED = 3
    """Unknown user or wrong password. The connection is closed afterwards."""
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
    """The server's history is not a prefix of the one that the request refers to."""
    BUSY = 11
    """Too many connections, or the server is shutting down. Try again."""
    COPYING = 12
    """Another client is copying the map to this server: leave it to that client."""
    DAMAGED = 13
    """The requested data was damaged on the server's disk, or is part of a damaged map: ask another server."""
    TOO_MUCH = 14
    """The requested data does not fit into one reply: request less at once."""
