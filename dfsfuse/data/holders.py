"""Which servers hold which pieces, according to the servers themselves.

All usable servers are asked in parallel. When all others have answered, the last one is waited for only briefly: one
that hangs serves nothing either, whatever it holds. No data is read for this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from dfs_server.protocol.messages import MAX_HAVE_PIECES, Have, HavePieces
from dfsfuse.data.transport import ClusterLike
from dfsfuse.net.asking import Asked
from dfsfuse.net.exchange import Answer, Call
from dfsfuse.net.health.pace import Pace
from dfsfuse.net.stalls import HAVE_S

LAST_ONE_S: Final = 0.5
"""How long the last server is waited for, unless answers to such questions usually take long."""


def holders(
    pieces: Sequence[tuple[bytes, int]],
    cluster: ClusterLike,
    pace: Pace,
    *,
    one_is_enough: bool,
    clock: Callable[[], float],
) -> list[set[int]]:
    """Return, for each (segment, number), the usable servers that say they have it, or at least one of them if that is
    enough. `pace` is one for this kind of question, created with `LAST_ONE_S`.
    """
    found: list[set[int]] = [set() for _ in pieces]
    for start in range(0, len(pieces), MAX_HAVE_PIECES):
        batch = tuple(pieces[start : start + MAX_HAVE_PIECES])
        _ask(batch, found[start : start + MAX_HAVE_PIECES], cluster, pace, one_is_enough, clock)
    return found


def _ask(
    batch: tuple[tuple[bytes, int], ...],
    found: list[set[int]],
    cluster: ClusterLike,
    pace: Pace,
    one_is_enough: bool,
    clock: Callable[[], float],
) -> None:
    begun, spared = clock(), cluster.health.data
    with cluster.exchange() as exchange:
        asked = Asked(exchange, [Call(server, HavePieces(batch), stall_s=HAVE_S) for server in cluster.usable()])

        def patience_s() -> float | None:
            if len(asked.waiting) > 1:
                return None
            return 0.0 if asked.waiting <= spared.now() else pace.patience_s(len(batch))

        for result in asked.outcomes(patience_s):
            if isinstance(result, Answer):
                server = result.call.server
                spared.answered(server)
                pace.note(len(batch), clock() - begun, server)
                if isinstance(result.reply, Have):
                    for servers, flag in zip(found, result.reply.flags, strict=False):
                        if flag:
                            servers.add(server)
            if one_is_enough and all(found):
                break
        else:
            spared.lagged(asked.waiting)
