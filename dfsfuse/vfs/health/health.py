"""A file's health: how many copies of its pieces are reachable now, and where they are; as values and as xattr text.

complete: two copies of every piece. degraded: only one of some piece. incomplete: none of some piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dfs_server.protocol.pieces import PIECE_NUMBERS
from dfsfuse.namespace.ops import bad_copies
from dfsfuse.vfs.context import Context
from dfsfuse.vfs.read.stored_segments import stored_segments

Copies = dict[int, frozenset[int]]
"""Piece number -> ids of the servers that have it."""

PREFIX: Final = b"user.dfs."
HEALTH: Final = b"user.dfs.health"
PIECES: Final = b"user.dfs.pieces"
SERVERS: Final = b"user.dfs.servers"
NAMES: Final = (HEALTH, PIECES, SERVERS)
STATES: Final = ("incomplete", "degraded", "complete")
"""Indexed by the number of copies of the piece that has the fewest."""


@dataclass(frozen=True)
class Health:
    """Where the pieces of each segment of a file are; empty for a file without data."""

    segments: tuple[Copies, ...]

    @property
    def state(self) -> str:
        """Return complete, degraded or incomplete."""
        fewest = min((len(c.get(number, ())) for c in self.segments for number in PIECE_NUMBERS), default=2)
        return STATES[min(fewest, 2)]

    @property
    def servers(self) -> frozenset[int]:
        """Return the servers that have pieces of it."""
        return frozenset(server for copies in self.segments for home in copies.values() for server in home)


def health_of_many(context: Context, inos: Sequence[int]) -> dict[int, Health]:
    """Return the health of these files, omitting those that are not regular files. Asks the servers that answer; a copy
    that was found to be bad counts as missing."""
    segments = stored_segments(context, inos)
    wanted = [segment for known in segments.values() for segment in known]
    bad = context.store.read(bad_copies.find, max_age_s=context.max_age_s) if wanted else frozenset()
    copies = (
        _without(found, segment.id, bad) if bad else found
        for segment, found in zip(wanted, context.segments.copies(wanted), strict=True)
    )
    return {ino: Health(tuple(next(copies) for _ in known)) for ino, known in segments.items()}


def _without(copies: Copies, segment: bytes, bad: frozenset[bad_copies.Place]) -> Copies:
    return {
        number: frozenset(server for server in servers if (segment, number, server) not in bad)
        for number, servers in copies.items()
    }


def attribute(health: Health, name: bytes, servers: Mapping[int, str]) -> bytes | None:
    """Return the value of one of `NAMES`, or None for any other name."""
    if name == HEALTH:
        return health.state.encode()
    if name == SERVERS:
        return " ".join(servers[server] for server in sorted(health.servers)).encode()
    if name == PIECES:
        return _pieces(health, servers).encode()
    return None


def _pieces(health: Health, servers: Mapping[int, str]) -> str:
    """Format the first segment as `P1: DFS1 DFS4; P2: ...`, with the number of segments for a longer file."""
    if not health.segments:
        return ""
    first = "; ".join(
        f"P{number}: {' '.join(servers[server] for server in sorted(health.segments[0].get(number, ()))) or 'none'}"
        for number in PIECE_NUMBERS
    )
    return first if len(health.segments) == 1 else f"{first} (first of {len(health.segments)} segments)"
