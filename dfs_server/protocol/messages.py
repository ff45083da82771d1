"""The requests and the replies. Each request has one reply of the type named in its docstring, or an `Error`.

This module has those for authentication and for the server itself; those for the piece store are in `piece_messages`,
those for the log and the map in `log_messages`. All can be imported from here. Pure.
"""

from __future__ import annotations

from typing import Final

import msgspec

from dfs_server.protocol.frames import ProtocolError
from dfs_server.protocol.log_messages import (
    Accept,
    Accepted,
    AcceptedAt,
    Batches,
    BeginCopy,
    Behind,
    Change,
    Changes,
    Chosen,
    CopyItems,
    EndCopy,
    GetBatches,
    GetChanges,
    GetPosition,
    Items,
    Learn,
    LogReply,
    LogRequest,
    Position,
    Promise,
    Promised,
    ReadKeys,
    ReadRange,
    Refused,
    Values,
)
from dfs_server.protocol.message import MAX_AT_ONCE, MAX_HAVE_PIECES, Message
from dfs_server.protocol.piece_messages import (
    MAX_GET_PIECES,
    MAX_PUT_PIECES_BYTES,
    MAX_SMALL_PIECE_BYTES,
    MAX_SMALL_PIECES_BYTES,
    Done,
    DropPieces,
    GetPiece,
    GetPieces,
    Have,
    HavePieces,
    ListPieces,
    Piece,
    PieceList,
    PieceReply,
    PieceRequest,
    PutPiece,
    PutPieces,
    SmallPieces,
)

__all__ = [
    "MAX_AT_ONCE",
    "MAX_GET_PIECES",
    "MAX_HAVE_PIECES",
    "MAX_PUT_PIECES_BYTES",
    "MAX_SMALL_PIECES_BYTES",
    "MAX_SMALL_PIECE_BYTES",
    "Accept",
    "Accepted",
    "AcceptedAt",
    "Authenticate",
    "AuthenticationRequest",
    "Batches",
    "BeginCopy",
    "Behind",
    "Challenge",
    "Change",
    "Changes",
    "Chosen",
    "CopyItems",
    "Done",
    "DropPieces",
    "EndCopy",
    "Error",
    "Findings",
    "GetBatches",
    "GetChanges",
    "GetFindings",
    "GetPiece",
    "GetPieces",
    "GetPosition",
    "GetStatus",
    "Have",
    "HavePieces",
    "Items",
    "Learn",
    "ListPieces",
    "LogReply",
    "LogRequest",
    "Message",
    "Piece",
    "PieceList",
    "PieceReply",
    "PieceRequest",
    "Position",
    "Promise",
    "Promised",
    "Prove",
    "PutPiece",
    "PutPieces",
    "ReadKeys",
    "ReadRange",
    "Refused",
    "Reply",
    "Request",
    "ServerStatus",
    "SmallPieces",
    "Values",
    "Welcome",
    "decode_reply",
    "decode_request",
    "encode",
]


# ------------------------------------------------------------------ authentication (RFC 5802, RFC 7677)


class Authenticate(Message, frozen=True):
    """SCRAM-SHA-256, the client's first message. Reply: `Challenge`."""

    version: int
    user: str
    scram: str


class Challenge(Message, frozen=True):
    """SCRAM-SHA-256, the server's first message."""

    scram: str


class Prove(Message, frozen=True):
    """SCRAM-SHA-256, the client's final message. Reply: `Welcome`."""

    scram: str


class Welcome(Message, frozen=True):
    """SCRAM-SHA-256, the server's final message, and the server's identity.

    `server` is its name (DFS1..DFS4), `identity` a random id created with its folder: a server that comes back with an
    empty folder has a different one.
    """

    scram: str
    server: str
    identity: bytes


# ------------------------------------------------------------------ the server itself


class GetStatus(Message, frozen=True):
    """Reply: `ServerStatus`."""


class ServerStatus(Message, frozen=True):
    """The state of the server, as seen from the requesting user's namespace."""

    server: str
    version: str
    applied: int
    free_bytes: int
    total_bytes: int
    piece_count: int
    piece_bytes: int
    quarantined: int = 0
    """Number of pieces in quarantine: see `GetFindings`."""
    scrubbed_s: int = 0
    """When the last complete pass of the scrub ended, in seconds since 1970; 0: never."""
    damage: str = ""
    """What is, or recently was, damaged in SQLite's file; empty if nothing is known to be."""


class GetFindings(Message, frozen=True):
    """The scrub's results in the requesting user's namespace. Reply: `Findings`."""


class Findings(Message, frozen=True):
    """The scrub's results and progress. Times are in seconds since 1970 by the server's clock; 0: never."""

    quarantined: tuple[tuple[bytes, int, int], ...]
    """(segment, number, when) of bad pieces in quarantine, latest first; at most 10,000."""
    quarantined_count: int
    """Total number of pieces in quarantine."""
    passed_s: int
    """When the last complete pass ended."""
    began_s: int
    """When the current pass began; 0: none is under way."""
    checked: int
    """Number of pieces checked so far in this pass."""
    pieces: int
    """Approximate number of pieces in all."""
    database_checked_s: int
    """When SQLite's file was last checked."""
    database: str
    """What is, or recently was, wrong with SQLite's file: SQLite's own message, and rows that are not what was written;
    empty if nothing is known to be."""


class Error(Message, frozen=True):
    """The request failed: a `Status` and a sentence for people."""

    status: int
    text: str


AuthenticationRequest = Authenticate | Prove
Request = AuthenticationRequest | GetStatus | GetFindings | PieceRequest | LogRequest
Reply = Challenge | Welcome | ServerStatus | Findings | PieceReply | LogReply | Error

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)

_UNREADABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


def encode(message: Message) -> bytes:
    """A message as the body of a frame."""
    return _encoder.encode(message)


def decode_request(body: bytes | bytearray | memoryview) -> Request:
    """The request in a frame's body. Raises `ProtocolError` for anything else."""
    try:
        return _requests.decode(body)
    except _UNREADABLE as error:
        raise ProtocolError(f"not a request of this protocol: {error}") from error


def decode_reply(body: bytes | bytearray | memoryview) -> Reply:
    """The reply in a frame's body. Raises `ProtocolError` for anything else."""
    try:
        return _replies.decode(body)
    except _UNREADABLE as error:
        raise ProtocolError(f"not a reply of this protocol: {error}") from error
