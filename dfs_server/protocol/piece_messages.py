"""The messages of the piece store. Each request has one reply of the type named in its docstring, or an `Error`.

The raw bytes of large pieces are sent as a frame's payload; small pieces, of which many are put at once, in the body.
Pure.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from dfs_server.protocol.message import MAX_AT_ONCE, MAX_HAVE_PIECES, Message

MAX_SMALL_PIECE_BYTES: Final = 32 * 1024
"""Maximum size of a piece of a small segment: a quarter of 128 KiB."""
MAX_PUT_PIECES_BYTES: Final = 1024 * 1024
"""Maximum total size of the pieces in one `PutPieces`."""
MAX_GET_PIECES: Final = 256
MAX_SMALL_PIECES_BYTES: Final = 1024 * 1024
"""Maximum total size of the pieces in one `SmallPieces`."""


class PutPiece(Message, frozen=True):
    """Store a piece durably; the payload is the piece, `digests` its level-one digests. Reply: `Done`.

    Putting a piece that already exists is not an error: pieces are immutable. `replace`: atomically replace an existing
    copy, whatever it contains, because it was found to be bad.
    """

    segment: bytes
    number: int
    digests: bytes
    replace: bool = False


class GetPiece(Message, frozen=True):
    """Read `block_count` blocks of a piece from `first_block` on; 0 blocks means all remaining ones. Reply: `Piece`."""

    segment: bytes
    number: int
    first_block: int = 0
    block_count: int = 0


class Piece(Message, frozen=True):
    """The payload is the requested blocks; `digests` are the level-one digests of the whole piece."""

    length: int
    digests: bytes


class PutPieces(Message, frozen=True):
    """Store pieces (segment, number, data) of small segments durably, all or none, replacing existing ones. Reply:
    `Done`. Each has at most 32 KiB, all together 1 MiB."""

    pieces: Annotated[tuple[tuple[bytes, int, bytes], ...], msgspec.Meta(max_length=MAX_AT_ONCE)]


class GetPieces(Message, frozen=True):
    """Read whole small pieces (segment, number) in one request. Reply: `SmallPieces`. At most 256."""

    pieces: Annotated[tuple[tuple[bytes, int], ...], msgspec.Meta(max_length=MAX_GET_PIECES)]


class SmallPieces(Message, frozen=True):
    """The data of each requested piece, in order. None: the server does not have it, or it is a large one, or the reply
    already has 1 MiB; `GetPiece` tells which."""

    data: tuple[bytes | None, ...]


class ListPieces(Message, frozen=True):
    """The pieces that the server holds for the user, large and small alike, in the order of (segment, number), starting
    with the first one after `after`. Reply: `PieceList`. At most `limit`, and at most 10,000.

    Left out are pieces that were dropped, and those of a batch that the server has accepted and not yet applied.
    """

    after: tuple[bytes, int] | None = None
    limit: int = MAX_AT_ONCE


class PieceList(Message, frozen=True):
    """Pieces as (segment, number, length, age_s), with the age since they were stored, by the server's clock. `more`
    says that there are others after the last of them."""

    pieces: tuple[tuple[bytes, int, int, int], ...]
    more: bool


class DropPieces(Message, frozen=True):
    """Delete these (segment, number) after the grace period, if they were stored at least `min_age_s` ago by the
    server's clock. Reply: `Have`: 1 for each that will be deleted. Putting a piece again cancels its deletion. At most
    10,000."""

    pieces: Annotated[tuple[tuple[bytes, int], ...], msgspec.Meta(max_length=MAX_AT_ONCE)]
    min_age_s: int


class HavePieces(Message, frozen=True):
    """Which of these (segment, number) the server has. Reply: `Have`. At most 10,000 at a time. A piece that will be
    deleted because of `DropPieces` does not count."""

    pieces: Annotated[tuple[tuple[bytes, int], ...], msgspec.Meta(max_length=MAX_HAVE_PIECES)]


class Have(Message, frozen=True):
    """One byte for each requested piece: 1 for yes, 0 for no. No data was read to determine this."""

    flags: bytes


class Done(Message, frozen=True):
    """The request was carried out durably."""


PieceRequest = PutPiece | PutPieces | GetPiece | GetPieces | HavePieces | ListPieces | DropPieces
PieceReply = Piece | SmallPieces | PieceList | Have | Done
