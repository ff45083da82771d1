"""Requests made by background work: in parallel, with deadlines, and abandoned within a moment when it is to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from dfs_server.protocol.messages import Request
from dfsfuse.data.transport import ClusterLike
from dfsfuse.errors import StoppedError
from dfsfuse.net.asking import ExchangeLike
from dfsfuse.net.exchange import Answer, Call, Failure
from dfsfuse.net.stalls import PIECE_S

GLANCE_S: Final = 0.25
"""The longest wait between two checks whether to stop."""


def ask(
    cluster: ClusterLike, requests: Mapping[int, Request], wait: Callable[[float], bool]
) -> dict[int, Answer | Failure]:
    """Send one request to each of some servers, by id. `wait` sleeps for a number of seconds and returns whether to
    stop.

    Raises `StoppedError`, `AuthenticationError`.
    """
    with cluster.exchange() as exchange:
        for server, request in requests.items():
            exchange.start(Call(server, request, stall_s=PIECE_S))
        return {result.call.server: result for result in results(exchange, wait)}


def results(exchange: ExchangeLike, wait: Callable[[float], bool]) -> Iterator[Answer | Failure]:
    """Yield the outcomes of the exchange's calls until none is left; more may be started meanwhile. `wait` as above.

    Raises `StoppedError`, `AuthenticationError`.
    """
    while exchange.unfinished():
        result = exchange.next(GLANCE_S)
        if result is not None:
            yield result
        elif wait(0.0):
            raise StoppedError
