"""Requests of whoever works in the background: side by side, with deadlines, given up within a moment at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from dfs_server.protocol.messages import Request
from dfsfuse.data.transport import ClusterLike, ExchangeLike
from dfsfuse.errors import StoppedError
from dfsfuse.net.exchange import Answer, Call, Failure
from dfsfuse.net.stalls import PIECE_S

GLANCE_S: Final = 0.25
"""The longest wait without a look whether to stop."""


def ask(
    cluster: ClusterLike, requests: Mapping[int, Request], wait: Callable[[float], bool]
) -> dict[int, Answer | Failure]:
    """One request to each of some servers, by id. `wait` waits so many seconds, and says whether to stop.

    Raises `StoppedError`, `AuthenticationError`.
    """
    with cluster.exchange() as exchange:
        for server, request in requests.items():
            exchange.start(Call(server, request, stall_s=PIECE_S))
        return {result.call.server: result for result in results(exchange, wait)}


def results(exchange: ExchangeLike, wait: Callable[[float], bool]) -> Iterator[Answer | Failure]:
    """What comes of the calls of the exchange, until none is left; further ones may be made meanwhile. `wait` as above.

    Raises `StoppedError`, `AuthenticationError`.
    """
    while exchange.unfinished():
        result = exchange.next(GLANCE_S)
        if result is not None:
            yield result
        elif wait(0.0):
            raise StoppedError
