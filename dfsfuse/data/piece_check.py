"""Checks whether bytes from a server are the piece that the metadata names. Pure.

The digests that a server keeps beside a piece are not trusted by themselves: they come from the same server.
"""

from __future__ import annotations

from dfs_server.protocol.messages import Piece, Reply
from dfs_server.protocol.pieces import Buffer, block_digests, blocks_match, piece_digest
from dfsfuse.data.extents import Segment
from dfsfuse.data.striping import piece_lengths


def problem(
    segment: Segment, number: int, reply: Reply, payload_bytes: int, data: memoryview, first_block: int = 0
) -> str:
    """Return what is wrong with the answer to a request for a piece, or for a run of its blocks from `first_block` on;
    empty if it is what the metadata promises. `data` is where the payload went, as long as it should be."""
    if not isinstance(reply, Piece):
        return f"answered GetPiece with {type(reply).__name__}"
    if reply.length != piece_lengths(segment.length)[number - 1] or payload_bytes != len(data):
        return f"sent {payload_bytes} bytes of a piece of {reply.length}, not {len(data)}"
    if piece_digest(reply.digests) != segment.digests[number - 1]:
        return "sent digests that are not those of the piece"
    if not blocks_match(data, reply.digests, first_block):
        return "sent bytes that do not have the piece's digests"
    return ""


def is_piece(segment: Segment, number: int, data: Buffer) -> bool:
    """Whether these bytes are the whole piece."""
    return len(data) == piece_lengths(segment.length)[number - 1] and (
        piece_digest(block_digests(data)) == segment.digests[number - 1]
    )
