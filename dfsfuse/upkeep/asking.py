"""Requests of whoever works in the background: side by side, with deadlines, given up within a moment at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dfs_server.protocol.messages import Request
from dfsfuse.data.transport import ClusterLike
from dfsfuse.errors import StoppedError
from dfsfuse.net.exchange import Answer, Call, Failure
from dfsfuse.net.stalls import PIECE_S
from dfsfuse.upkeep.heal.moving import GLANCE_S


def ask(
    cluster: ClusterLike, requests: Mapping[int, Request], wait: Callable[[float], bool]
) -> dict[int, Answer | Failure]:
    """One request to each of some servers, by id. `wait` waits so many seconds, and says whether to stop.

    Raises `StoppedError`, `AuthenticationError`.
    """
    outcomes: dict[int, Answer | Failure] = {}
    with cluster.exchange() as exchange:
        for server, request in requests.items():
            exchange.start(Call(server, request, stall_s=PIECE_S))
        while len(outcomes) < len(requests):
            outcome = exchange.next(GLANCE_S)
            if outcome is not None:
                outcomes[outcome.call.server] = outcome
            elif wait(0.0):
                raise StoppedError
    return outcomes
