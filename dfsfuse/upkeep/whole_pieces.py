"""Whole pieces, as fetched by healing and verification. Pure."""

from __future__ import annotations

from dfs_server.protocol.messages import GetPiece
from dfs_server.protocol.pieces import PIECE_NUMBERS
from dfsfuse.data.extents import Segment
from dfsfuse.data.striping import piece_lengths


def length_of(segment: Segment, number: int) -> int:
    """Return how many bytes piece `number` of the segment has."""
    return piece_lengths(segment.length)[number - 1]


def stored_bytes(segment: Segment) -> int:
    """Return the total bytes of a segment's pieces, counting each once."""
    return sum(length_of(segment, number) for number in PIECE_NUMBERS)


def request(segment: Segment, number: int) -> GetPiece:
    """Return a request for all of a piece."""
    return GetPiece(segment.id, number)
