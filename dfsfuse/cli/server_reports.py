"""How the four servers are: who answers, how fast, how much room, how far its log is.

Knows the cluster's exchange and the GetStatus message. A server that does not answer is a value here, not an exception;
one that refuses the user, or is not the one that the config names, is an error as everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from dfs_server.protocol.messages import GetStatus, ServerStatus
from dfsfuse.cluster.exchange import Answer, Call, Failure
from dfsfuse.cluster.servers import ServerAddress
from dfsfuse.namespace.members import Member

STALL_S = 2.0


@dataclass(frozen=True)
class ServerReport:
    """One server's state. `status` and `latency_s` are None if it does not answer; `problem` says why."""

    address: ServerAddress
    status: ServerStatus | None = None
    latency_s: float | None = None
    problem: str = ""
    noted: Member | None = None
    """What the namespace knows of it."""

    @property
    def is_full(self) -> bool:
        """Whether it has no room for data: all but its reserve is used."""
        return self.status is not None and self.status.free_bytes == 0


class ExchangeLike(Protocol):
    """What is needed of an `Exchange`."""

    def start(self, call: Call) -> None: ...
    def next(self, timeout_s: float | None) -> Answer | Failure | None: ...
    def unfinished(self) -> int: ...


class ClusterLike(Protocol):
    """What is needed of a `Cluster`."""

    @property
    def servers(self) -> tuple[ServerAddress, ...]: ...
    def exchange(self) -> AbstractContextManager[ExchangeLike]: ...


def server_reports(cluster: ClusterLike, *, clock: Callable[[], float] = time.monotonic) -> list[ServerReport]:
    """Ask all servers side by side, twice: the first answer may include connecting, the second is the latency."""
    first = _ask(cluster, cluster.servers, clock)
    answering = [server for server in cluster.servers if first[server.id].status is not None]
    return list((first | _ask(cluster, answering, clock)).values())


def unreachable(servers: Iterable[ServerAddress], problem: str) -> list[ServerReport]:
    """The reports where no server answers at all."""
    return [ServerReport(server, problem=problem) for server in servers]


def _ask(cluster: ClusterLike, servers: Iterable[ServerAddress], clock: Callable[[], float]) -> dict[int, ServerReport]:
    found = {server.id: ServerReport(server, problem="no answer in time") for server in servers}
    with cluster.exchange() as exchange:
        began = clock()
        for server in found:
            exchange.start(Call(server, GetStatus(), stall_s=STALL_S))
        while exchange.unfinished():
            outcome = exchange.next(2 * STALL_S)
            if outcome is None:
                break
            address = found[outcome.call.server].address
            if isinstance(outcome, Answer) and isinstance(outcome.reply, ServerStatus):
                found[address.id] = ServerReport(address, outcome.reply, clock() - began)
            elif isinstance(outcome, Failure):
                if outcome.error is not None:
                    raise outcome.error
                found[address.id] = ServerReport(address, problem=outcome.text)
    return found
