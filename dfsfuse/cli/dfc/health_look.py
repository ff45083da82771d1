"""Determines the state of everything for `dfc status`: the servers, the copies of all data, and what follows from both.

Queries the servers and passes the results to `dfsfuse.upkeep.health`, which alone decides what is said. If a server
refuses the user, nothing but the servers is queried. Changes nothing but the record of the last count, if that is found
to be wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dfsfuse.cli.dfc import piece_reports, server_notes
from dfsfuse.cli.dfc.piece_reports import PieceReport
from dfsfuse.cli.dfc.server_reports import ClusterLike, ServerReport, as_servers, server_reports
from dfsfuse.data.transport import ClusterLike as DataCluster
from dfsfuse.errors import DfsError, WrongServerError
from dfsfuse.namespace.map.transactions import MapStore
from dfsfuse.namespace.records import members
from dfsfuse.upkeep.heal import state as heal_state
from dfsfuse.upkeep.heal.state import ServerSeen
from dfsfuse.upkeep.health import copies
from dfsfuse.upkeep.health.copies import Knowledge
from dfsfuse.upkeep.health.servers import Server
from dfsfuse.upkeep.health.verdict import Verdict, of_another_namespace, verdict

if TYPE_CHECKING:
    from dfsfuse.log.quorum_log import QuorumLog


class Servers(ClusterLike, DataCluster, Protocol):
    """What is needed of a `Cluster`."""


@dataclass(frozen=True)
class Health:
    """Everything that is known, and what follows from it."""

    reports: tuple[ServerReport, ...]
    pieces: PieceReport | None
    known: Knowledge
    servers: dict[int, Server]
    verdict: Verdict
    error: DfsError | None = None
    """Set if the config does not match what the namespace knows about its servers."""
    config: Path | None = None
    """The file that lists these servers, if one was read."""

    @property
    def names(self) -> dict[int, str]:
        """The servers' names by id."""
        return {id: server.name for id, server in self.servers.items()}


def look(
    cluster: Servers,
    new_log: Callable[[], QuorumLog],
    new_store: Callable[[], AbstractContextManager[MapStore]],
    now_ns: int,
    *,
    count_s: float,
    config: Path | None = None,
) -> Health:
    """Query all servers, and count copies for at most `count_s`. A record in the map that the count refutes is
    corrected."""
    reports = server_reports(cluster)
    error: DfsError | None = None
    pieces = None
    if any(report.status for report in reports) and not any(report.error for report in reports):
        known = server_notes.read(cluster, reports)
        try:
            members.check(known, {report.address.id: report.address.name for report in reports})
        except WrongServerError as wrong:
            error = wrong
        else:
            pieces = piece_reports.piece_report(cluster, new_log(), count_s)
            if count_s > piece_reports.QUICK_S:
                reports, pieces = _asked_again(cluster, reports, pieces)
        reports = [dataclasses.replace(report, noted=known.get(report.address.id)) for report in reports]
    if pieces is not None and copies.is_refuted(pieces.healing, pieces.counted, _seen(reports)):
        with suppress(DfsError, OSError), new_store() as store:
            _correct(store, pieces, now_ns)
    return health(reports, pieces, now_ns, error=error, config=config)


def _asked_again(
    cluster: Servers, before: list[ServerReport], pieces: PieceReport | None
) -> tuple[list[ServerReport], PieceReport | None]:
    """The state of the servers after a long count. If it has changed, the count does not describe the present."""
    now = server_reports(cluster)
    if pieces is not None and _seen(now) != _seen(before):
        pieces = dataclasses.replace(pieces, all_counted=False)
    return now, pieces


def _correct(store: MapStore, pieces: PieceReport, now_ns: int) -> None:
    assert pieces.healing is not None
    state = heal_state.refuted(pieces.healing, pieces.counted, now_ns)
    store.transact(lambda tx: heal_state.claim(tx, pieces.record, state))


def _seen(reports: Sequence[ServerReport]) -> list[ServerSeen]:
    return [ServerSeen(one.identity, one.status.quarantined if one.status else 0) for one in reports]


def health(
    reports: Sequence[ServerReport],
    pieces: PieceReport | None,
    now_ns: int,
    *,
    error: DfsError | None = None,
    config: Path | None = None,
) -> Health:
    """What follows from the results."""
    known = copies.UNKNOWN
    if pieces is not None:
        known = copies.known(
            pieces.counted,
            all_counted=pieces.all_counted,
            record=pieces.healing,
            seen_now=_seen(reports),
            noted=bool(pieces.counted.noted),
            now_ns=now_ns,
        )
    servers = as_servers(reports, pieces.counted.absent if pieces else {})
    found = verdict(servers, known) if error is None else of_another_namespace()
    return Health(tuple(reports), pieces, known, servers, found, error, config)
