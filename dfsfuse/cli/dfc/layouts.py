"""Summarises for people where a file's pieces are. Pure.

In: for each of the file's segments, which servers have which piece now. Out: the segments grouped by the placement of
their pieces, since a long file has hundreds of segments but usually only four placements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PIECES = (1, 2, 3, 4)

Copies = Mapping[int, frozenset[int]]  # piece number -> ids of the servers that have it


@dataclass(frozen=True)
class Layout:
    """Segments of a file with the same placement: how many, and the piece numbers by server id."""

    segments: int
    pieces: dict[int, tuple[int, ...]]


def layouts_of(segments: Sequence[Copies]) -> list[Layout]:
    """The layouts of a file, in order of first occurrence; none for a file without data."""
    count = Counter(_pieces_by_server(copies) for copies in segments)
    return [Layout(number, dict(pieces)) for pieces, number in count.items()]


def pieces_text(numbers: tuple[int, ...]) -> str:
    """The pieces that a server holds, in the pair's order along the ring (4,1 and not 1,4)."""
    if set(numbers) == {1, 4}:
        numbers = (4, 1)
    return ",".join(str(number) for number in numbers) or "-"


def _pieces_by_server(copies: Copies) -> tuple[tuple[int, tuple[int, ...]], ...]:
    servers = sorted({server for number in PIECES for server in copies.get(number, ())})
    return tuple((server, tuple(number for number in PIECES if server in copies.get(number, ()))) for server in servers)
