"""A file's health and the places of its pieces, put together for people. Pure.

In: for each of the file's segments, which servers have which piece now (`SegmentStore.copies`). Out: one word, and the
segments gathered by which pieces lie where, since a long file has hundreds of segments and four ways to lie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PIECES = (1, 2, 3, 4)
WORDS = ("incomplete", "degraded", "complete")  # by the number of copies of the piece with the fewest

Copies = Mapping[int, frozenset[int]]  # piece number -> ids of the servers that have it


@dataclass(frozen=True)
class Layout:
    """Some segments of a file whose pieces lie alike: how many, and the piece numbers by server id."""

    segments: int
    pieces: dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class Health:
    """`state` is complete, degraded or incomplete. A file without data (empty, or a hole) has no layouts."""

    state: str
    layouts: tuple[Layout, ...] = ()


def health_of(segments: Sequence[Copies]) -> Health:
    """The health of a file whose segments have these copies."""
    fewest = min((len(copies.get(number, ())) for copies in segments for number in PIECES), default=2)
    count = Counter(_pieces_by_server(copies) for copies in segments)  # keeps the order of the segments
    layouts = tuple(Layout(number, dict(pieces)) for pieces, number in count.items())
    return Health(WORDS[min(fewest, 2)], layouts)


def _pieces_by_server(copies: Copies) -> tuple[tuple[int, tuple[int, ...]], ...]:
    servers = sorted({server for number in PIECES for server in copies.get(number, ())})
    return tuple(
        (server, tuple(number for number in PIECES if server in copies.get(number, ()))) for server in servers
    )
