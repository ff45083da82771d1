"""The pieces of many small segments at once: one request to each server, for files that are likely to be read next.

When a folder of small files is read, requests are the cost, not bytes. Each piece is requested once, from the
home that `download` would ask first, and verified as there. What does not come in time, or is not what the metadata
promises, is left out: a read of it asks again, and for the other copy, and reports what is bad. So nothing
here fails, and nothing has to be retried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from dfs_server.protocol.messages import MAX_GET_PIECES, GetPieces, SmallPieces
from dfs_server.protocol.pieces import PIECE_NUMBERS
from dfsfuse.data.block_cache import Run
from dfsfuse.data.extents import Segment
from dfsfuse.data.piece_check import is_piece
from dfsfuse.data.placement import choose_sources
from dfsfuse.data.striping import piece_lengths
from dfsfuse.data.transport import ClusterLike
from dfsfuse.net.asking import Asked
from dfsfuse.net.exchange import Answer, Call
from dfsfuse.net.health.pace import Pace
from dfsfuse.net.stalls import SMALL_PIECES_S

FEWEST_BYTES: Final = 64 * 1024
FIRST_BYTES: Final = 256 * 1024
MOST_BYTES: Final = 1024 * 1024
"""The total size of the segments that are requested together: at least, at first, and at most."""
SEGMENTS_MAX: Final = MAX_GET_PIECES // len(PIECE_NUMBERS)
QUICK_S: Final = 0.05
SLOW_S: Final = 0.2
LAG_FACTOR: Final = 3

Wanted = tuple[Segment, int]


def next_size(size: int, took_s: float) -> int:
    """Return how many bytes are worth one go, if the last one of `size` took this long: on a slow link a reader of one
    small file must not wait for many."""
    if took_s > SLOW_S:
        return max(size // 2, FEWEST_BYTES)
    return min(size * 2, MOST_BYTES) if took_s < QUICK_S else size


def together(segments: Iterable[Segment], total_bytes: int) -> list[Segment]:
    """Return those of these, from the first on, that are worth one go."""
    chosen: list[Segment] = []
    size = 0
    for segment in segments:
        if len(chosen) < SEGMENTS_MAX and size + segment.length <= total_bytes:
            chosen.append(segment)
            size += segment.length
    return chosen


def by_server(segments: Sequence[Segment], usable: frozenset[int]) -> dict[int, list[Wanted]]:
    """Return which server to ask for which pieces."""
    plan: dict[int, list[Wanted]] = {}
    for segment in segments:
        sources = choose_sources(segment.homes, usable)
        for number, length in zip(PIECE_NUMBERS, piece_lengths(segment.length), strict=True):
            if length:
                plan.setdefault(sources[number][0], []).append((segment, number))
    return plan


def verified(wanted: Sequence[Wanted], data: Sequence[bytes | None]) -> list[Run]:
    """Return those of a server's pieces that are what the metadata promises."""
    runs = []
    for (segment, number), piece in zip(wanted, data, strict=False):
        if piece is not None and is_piece(segment, number, piece):
            runs.append(Run(segment.id, number, 0, memoryview(piece)))
    return runs


def fetch_small(
    segments: Sequence[Segment],
    cluster: ClusterLike,
    pace: Pace,
    *,
    clock: Callable[[], float],
) -> list[Run]:
    """Fetch what is reachable of these segments' pieces in one round. A server that lags behind the first is not waited
    for; if all are slow, none is at fault."""
    spared = cluster.health.data
    plan = by_server(segments, cluster.usable() - spared.now())
    size = max((sum(segment.length for segment, _ in wanted) for wanted in plan.values()), default=0)
    begun = clock()
    patience_s = pace.patience_s(size)
    until = begun + SMALL_PIECES_S  # the first answer shows what is usual now
    runs: list[Run] = []
    with cluster.exchange() as exchange:
        calls = [
            Call(server, GetPieces(tuple((segment.id, number) for segment, number in wanted)), stall_s=SMALL_PIECES_S)
            for server, wanted in plan.items()
        ]
        asked = Asked(exchange, calls)

        def left_s() -> float:
            return max(until - clock(), 0.0)

        for result in asked.outcomes(left_s):
            if isinstance(result, Answer) and isinstance(result.reply, SmallPieces):
                server = result.call.server
                spared.answered(server)
                took_s = clock() - begun
                pace.note(size, took_s, server)
                until = min(until, begun + max(patience_s, LAG_FACTOR * took_s))
                runs += verified(plan[server], result.reply.data)
        spared.lagged(asked.waiting)
    return runs
