"""A piece must match the metadata, whatever the server that sends it claims."""

from __future__ import annotations

import pytest

from dfs_server.protocol.messages import Done, Piece, Reply
from dfs_server.protocol.pieces import BLOCK_BYTES, block_digests, piece_digest
from dfsfuse.data.extents import Segment
from dfsfuse.data.piece_check import is_piece, problem
from dfsfuse.data.placement import ring
from dfsfuse.data.striping import split

DATA = b"".join(number.to_bytes(4, "big") for number in range(131_072))
"""Two blocks in each piece."""
PIECES = [bytes(piece) for piece in split(DATA)]
DIGESTS = tuple(piece_digest(block_digests(piece)) for piece in PIECES)
SEGMENT = Segment(b"s" * 16, len(DATA), ring(0), DIGESTS)  # type: ignore[arg-type]
LENGTH = len(PIECES[1])
BAD = PIECES[1][:-1] + bytes([PIECES[1][-1] ^ 1])


@pytest.mark.parametrize(
    ("reply", "payload_bytes", "data", "what"),
    [
        (Piece(LENGTH, block_digests(PIECES[1])), LENGTH, PIECES[1], ""),
        (Done(), 0, PIECES[1], "answered GetPiece with Done"),
        (Piece(LENGTH + 1, block_digests(PIECES[1])), LENGTH, PIECES[1], f"bytes of a piece of {LENGTH + 1}"),
        (Piece(LENGTH, block_digests(PIECES[1])), LENGTH - 1, PIECES[1], f"sent {LENGTH - 1} bytes"),
        (Piece(LENGTH, block_digests(BAD)), LENGTH, BAD, "sent digests that are not those of the piece"),
        (Piece(LENGTH, block_digests(PIECES[1])), LENGTH, BAD, "sent bytes that do not have the piece's digests"),
    ],
)
def test_what_a_server_did_wrong_is_said(reply: Reply, payload_bytes: int, data: bytes, what: str) -> None:
    found = problem(SEGMENT, 2, reply, payload_bytes, memoryview(data))
    assert what in found and bool(what) == bool(found)


def test_a_run_of_blocks_is_checked_by_itself() -> None:
    reply = Piece(LENGTH, block_digests(PIECES[1]))
    run = memoryview(PIECES[1])[BLOCK_BYTES:]
    assert problem(SEGMENT, 2, reply, len(run), run, 1) == ""
    assert problem(SEGMENT, 2, reply, len(run), run, 0) == "sent bytes that do not have the piece's digests"


def test_whole_bytes_are_a_piece_or_not() -> None:
    assert is_piece(SEGMENT, 2, PIECES[1])
    assert not is_piece(SEGMENT, 2, BAD) and not is_piece(SEGMENT, 2, b"")
