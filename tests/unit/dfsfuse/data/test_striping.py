"""Cutting a segment into pieces, and finding its bytes in them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dfs_server.protocol.pieces import BLOCK_BYTES
from dfsfuse.data.striping import (
    SEGMENT_MAX_BYTES,
    Part,
    blocks_touched,
    hull,
    locate,
    piece_bounds,
    piece_lengths,
    run_bytes,
    split,
)

lengths = st.one_of(st.integers(0, 40), st.integers(0, SEGMENT_MAX_BYTES))


def test_the_first_pieces_are_the_longer_ones() -> None:
    assert piece_lengths(0) == (0, 0, 0, 0)
    assert piece_lengths(1) == (1, 0, 0, 0)
    assert piece_lengths(10) == (3, 3, 2, 2)
    assert piece_lengths(SEGMENT_MAX_BYTES) == (1 << 20,) * 4
    assert piece_bounds(10) == (0, 3, 6, 8, 10)


@given(lengths)
def test_lengths_add_up_and_differ_by_one_at_most(length: int) -> None:
    pieces = piece_lengths(length)
    assert sum(pieces) == length
    assert max(pieces) - min(pieces) <= 1
    assert list(pieces) == sorted(pieces, reverse=True)


@given(st.binary(max_size=200))
def test_pieces_joined_are_the_segment(data: bytes) -> None:
    pieces = split(data)
    assert b"".join(pieces) == data
    assert tuple(map(len, pieces)) == piece_lengths(len(data))


def test_splitting_copies_nothing() -> None:
    data = bytearray(b"abcdefgh")
    pieces = split(data)
    data[2] = ord("X")
    assert bytes(pieces[1]) == b"Xd"


@given(st.binary(max_size=100), st.integers(0, 120), st.integers(0, 120))
def test_located_parts_joined_are_the_range(data: bytes, offset: int, size: int) -> None:
    pieces = split(data)
    parts = locate(len(data), offset, size)
    found = b"".join(pieces[part.number - 1][part.offset : part.offset + part.size] for part in parts)
    assert found == data[offset : offset + size]
    assert all(part.size > 0 for part in parts)


def test_a_range_across_all_pieces() -> None:
    assert locate(10, 2, 7) == [Part(1, 2, 1), Part(2, 0, 3), Part(3, 0, 2), Part(4, 0, 1)]


def test_blocks_touched_by_a_part() -> None:
    assert blocks_touched(Part(1, 0, 1)) == range(1)
    assert blocks_touched(Part(1, BLOCK_BYTES - 1, 1)) == range(1)
    assert blocks_touched(Part(1, BLOCK_BYTES - 1, 2)) == range(2)
    assert blocks_touched(Part(1, BLOCK_BYTES, 2 * BLOCK_BYTES)) == range(1, 3)


def test_a_run_ends_with_the_piece() -> None:
    assert run_bytes(3 * BLOCK_BYTES, range(1, 2)) == BLOCK_BYTES
    assert run_bytes(BLOCK_BYTES + 5, range(2)) == BLOCK_BYTES + 5
    assert run_bytes(BLOCK_BYTES + 5, range(1, 2)) == 5


def test_the_hull_of_scattered_blocks() -> None:
    assert hull([7, 3, 4]) == range(3, 8)
