"""Whole pieces, as fetched by healing and verification: the request, and what may be wrong with the answer. Pure.

A piece is checked against the digest in the metadata, not only against the digests that its server keeps beside it.
"""

from __future__ import annotations

from dfs_server.protocol.messages import GetPiece, Piece, Reply
from dfs_server.protocol.pieces import PIECE_NUMBERS, Buffer, block_digests, blocks_match, piece_digest
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


def problem(segment: Segment, number: int, reply: Reply, payload_bytes: int, data: Buffer) -> str:
    """Return what is wrong with an answer to `request`; empty if it is the piece. `data` is where the payload went, as
    long as the piece should be."""
    if not isinstance(reply, Piece):
        return f"answered GetPiece with {type(reply).__name__}"
    length = length_of(segment, number)
    if reply.length != length or payload_bytes != length:
        return f"has {payload_bytes} bytes of a piece of {reply.length}; it should have {length}"
    if piece_digest(reply.digests) != segment.digests[number - 1]:
        return "has another piece under this name: its digests differ from the metadata"
    if not blocks_match(data, reply.digests):
        return "has bytes that differ from what was put"
    return ""


def is_piece(segment: Segment, number: int, data: Buffer) -> bool:
    """Return whether these bytes are the piece."""
    return piece_digest(block_digests(data)) == segment.digests[number - 1]
