"""How a segment is cut into its four pieces, and where a byte of it lies. Pure.

The pieces are contiguous quarters of the segment: P1 is its beginning, P4 its end. Their lengths differ by at most one
byte; if the length is not a multiple of four, the first pieces are the longer ones. A piece may be empty.

Knows nothing of servers (that is `placement`), digests or the network. Nothing here copies data.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate
from typing import Final, NamedTuple

from dfs_server.protocol.pieces import BLOCK_BYTES, MAX_PIECE_BYTES, PIECE_NUMBERS, Buffer

PIECES: Final = len(PIECE_NUMBERS)
SEGMENT_MAX_BYTES: Final = PIECES * MAX_PIECE_BYTES

Lengths = tuple[int, int, int, int]


class Part(NamedTuple):
    """A run of bytes within one piece (number 1..4), `offset` counted from the piece's own beginning."""

    number: int
    offset: int
    size: int


@lru_cache(maxsize=256)
def piece_lengths(length: int) -> Lengths:
    """Return the lengths of P1..P4 of a segment of `length` bytes."""
    quarter, longer = divmod(length, PIECES)
    first, second, third, fourth = (quarter + (index < longer) for index in range(PIECES))
    return first, second, third, fourth


@lru_cache(maxsize=256)
def piece_bounds(length: int) -> tuple[int, int, int, int, int]:
    """Return where P1..P4 begin in a segment of `length` bytes, and where P4 ends."""
    one, two, three, four, end = accumulate(piece_lengths(length), initial=0)
    return one, two, three, four, end


def split(data: Buffer) -> tuple[memoryview, memoryview, memoryview, memoryview]:
    """Return P1..P4 of a segment, as views of it."""
    view = memoryview(data)
    one, two, three, four, end = piece_bounds(len(view))
    return view[one:two], view[two:three], view[three:four], view[four:end]


def locate(length: int, offset: int, size: int) -> list[Part]:
    """Return where `size` bytes from `offset` on are in the pieces of a segment of `length` bytes, in order.

    The range is cut at the segment's end; empty parts are left out.
    """
    end = min(offset + size, length)
    bounds = piece_bounds(length)
    holder = bisect_right(bounds, offset)  # the piece that holds the first byte
    if offset < end and holder <= PIECES and end <= bounds[holder]:
        return [Part(holder, offset - bounds[holder - 1], end - offset)]
    parts = []
    for number in PIECE_NUMBERS:
        first = max(offset, bounds[number - 1])
        last = min(end, bounds[number])
        if first < last:
            parts.append(Part(number, first - bounds[number - 1], last - first))
    return parts


def blocks_touched(part: Part) -> range:
    """Return the numbers of the 64 KiB blocks of the piece that hold these bytes."""
    return range(part.offset // BLOCK_BYTES, -(-(part.offset + part.size) // BLOCK_BYTES))


def run_bytes(piece_length: int, blocks: range) -> int:
    """Return how many bytes these consecutive blocks of a piece have (the piece's last block may be short)."""
    return min(blocks.stop * BLOCK_BYTES, piece_length) - blocks.start * BLOCK_BYTES


def hull(numbers: Iterable[int]) -> range:
    """Return the shortest run of blocks that contains all these, of which there is at least one."""
    ordered = sorted(numbers)
    return range(ordered[0], ordered[-1] + 1)
