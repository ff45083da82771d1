"""The pieces of many small segments at once: one request to each server, for files that are likely to be read next.

Whoever reads a folder of small files pays for requests, not for bytes. Each piece is asked for once, at the home that
`download` would ask first, and verified as there. What does not come in time, or is not what the metadata promises,
is left out: whoever reads it asks for it again, and for the other copy, and reports what is bad. So nothing
here fails, and nothing has to be tried twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from dfs_server.protocol.messages import MAX_GET_PIECES, GetPieces, SmallPieces
from dfs_server.protocol.pieces import PIECE_NUMBERS, block_digests, piece_digest
from dfsfuse.cluster.exchange import Answer, Call
from dfsfuse.data.block_cache import Run
from dfsfuse.data.extents import Segment
from dfsfuse.data.pace import Pace, Suspects
from dfsfuse.data.placement import choose_sources
from dfsfuse.data.striping import piece_lengths
from dfsfuse.data.transport import ClusterLike

STALL_S: Final = 3.0
TOTAL_BYTES: Final = 1024 * 1024
"""Segments are asked for together as long as they have no more than this."""

Wanted = tuple[Segment, int]


def together(segments: Iterable[Segment]) -> list[Segment]:
    """The first of these, as many as are worth one go."""
    chosen: list[Segment] = []
    size = 0
    for segment in segments:
        size += segment.length
        if size > TOTAL_BYTES or len(chosen) == MAX_GET_PIECES // len(PIECE_NUMBERS):
            break
        chosen.append(segment)
    return chosen


def by_server(segments: Sequence[Segment], usable: frozenset[int]) -> dict[int, list[Wanted]]:
    """Whom to ask for which pieces."""
    plan: dict[int, list[Wanted]] = {}
    for segment in segments:
        sources = choose_sources(segment.homes, usable)
        for number, length in zip(PIECE_NUMBERS, piece_lengths(segment.length), strict=True):
            if length:
                plan.setdefault(sources[number][0], []).append((segment, number))
    return plan


def verified(wanted: Sequence[Wanted], data: Sequence[bytes | None]) -> list[Run]:
    """Those of a server's pieces that are what the metadata promises."""
    runs = []
    for (segment, number), piece in zip(wanted, data, strict=False):
        if piece is None or len(piece) != piece_lengths(segment.length)[number - 1]:
            continue
        if piece_digest(block_digests(piece)) == segment.digests[number - 1]:
            runs.append(Run(segment.id, number, 0, memoryview(piece)))
    return runs


def fetch_small(
    segments: Sequence[Segment],
    cluster: ClusterLike,
    suspects: Suspects,
    pace: Pace,
    *,
    clock: Callable[[], float],
) -> list[Run]:
    """What can be had of these segments' pieces, in one round. Never waits for longer than the pace allows."""
    plan = by_server(segments, cluster.usable() - suspects.now(clock()))
    size = max((sum(segment.length for segment, _ in wanted) for wanted in plan.values()), default=0)
    begun = clock()
    until = begun + pace.patience_s(size)
    runs: list[Run] = []
    with cluster.exchange() as exchange:
        for server, wanted in plan.items():
            request = GetPieces(tuple((segment.id, number) for segment, number in wanted))
            exchange.start(Call(server=server, request=request, stall_s=STALL_S))
        waiting = set(plan)
        while waiting:
            result = exchange.next(max(until - clock(), 0.0))
            if result is None:
                for server in waiting:
                    suspects.lagged(server, clock())
                break
            server = result.call.server
            waiting.discard(server)
            if isinstance(result, Answer) and isinstance(result.reply, SmallPieces):
                suspects.answered(server)
                pace.note(size, clock() - begun, server)
                runs += verified(plan[server], result.reply.data)
    return runs
