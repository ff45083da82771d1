"""The state of the four servers: which answer, how fast, their free space, how far their log is; and why the others do
not.

Knows the GetStatus message, and how to send it to all servers. Whatever a server does is a value here, never an
exception: one that refuses the user, or is not the one that the config names, has a row in the table like the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from dfs_server.protocol.messages import GetStatus, Request, ServerStatus
from dfsfuse.errors import AuthenticationError, DfsError, WrongServerError
from dfsfuse.namespace.records.members import Member
from dfsfuse.net.exchange import Answer, Failure
from dfsfuse.net.servers import ServerAddress
from dfsfuse.net.stalls import STATUS_S
from dfsfuse.upkeep.health import servers
from dfsfuse.upkeep.health.servers import Server, State


@dataclass(frozen=True)
class ServerReport:
    """One server's state. `status` and `latency_s` are None if it does not answer; `problem` says why."""

    address: ServerAddress
    status: ServerStatus | None = None
    latency_s: float | None = None
    problem: str = ""
    reason: str = ""
    """The problem in a few words."""
    error: DfsError | None = None
    """Set if the server refuses the user, or is not the one that the config names."""
    identity: bytes = b""
    """The identity of its folder, if it answers."""
    noted: Member | None = None
    """What the namespace has recorded about it."""

    @property
    def is_full(self) -> bool:
        """Whether it has no space for data: everything but its reserve is used."""
        return self.status is not None and self.status.free_bytes == 0


class ClusterLike(Protocol):
    """What is needed of a `Cluster`."""

    @property
    def servers(self) -> tuple[ServerAddress, ...]: ...
    def identities(self) -> Mapping[int, bytes]: ...
    def try_all(
        self, request: Request, servers: Iterable[int] | None = None, *, stall_s: float
    ) -> dict[int, Answer | Failure]: ...


def server_reports(cluster: ClusterLike, *, clock: Callable[[], float] = time.monotonic) -> list[ServerReport]:
    """Ask all servers at once, and each that answers a second time: the first answer may include connecting, the second
    gives the latency."""
    found = {server.id: ServerReport(server, problem="no answer in time") for server in cluster.servers}
    for id, outcome in cluster.try_all(GetStatus(), stall_s=STATUS_S).items():
        found[id] = _report(found[id].address, outcome)
    for id in [id for id, report in found.items() if report.status is not None]:
        began = clock()
        outcomes = cluster.try_all(GetStatus(), [id], stall_s=STATUS_S)
        if id in outcomes:
            found[id] = _report(found[id].address, outcomes[id], clock() - began, cluster.identities().get(id, b""))
    return list(found.values())


def _report(
    address: ServerAddress, outcome: Answer | Failure, latency_s: float | None = None, identity: bytes = b""
) -> ServerReport:
    if isinstance(outcome, Failure):
        return ServerReport(address, problem=outcome.text, reason=outcome.reason, error=outcome.error)
    assert isinstance(outcome.reply, ServerStatus)
    return ServerReport(address, outcome.reply, latency_s, identity=identity)


def as_servers(reports: Iterable[ServerReport], lacks: Mapping[int, int]) -> dict[int, Server]:
    """The reports in the form that the verdict is made from, by id. `lacks`: the number of copies missing on each
    server."""
    reports = list(reports)
    newest = servers.newest_slot(report.status for report in reports)
    return {report.address.id: _as_server(report, newest, lacks.get(report.address.id, 0)) for report in reports}


def _as_server(report: ServerReport, newest: int, lacks: int) -> Server:
    name = report.address.name
    if report.status is not None:
        return servers.from_status(name, report.status, newest, lacks)
    match report.error:
        case AuthenticationError():
            state = State.REFUSED
        case WrongServerError():
            state = State.WRONG
        case _:
            state = State.DOWN
    return Server(name, state, report.reason or "no answer")
