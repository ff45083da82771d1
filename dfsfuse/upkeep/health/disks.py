"""The servers' disks as a count of copies sees them: what must not have changed for the count to hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from dfs_server.protocol.messages import GetStatus, ServerStatus
from dfsfuse.data.transport import ClusterLike
from dfsfuse.net.exchange import Answer
from dfsfuse.upkeep.asking import ask
from dfsfuse.upkeep.heal.state import ServerSeen


class Disks(ClusterLike, Protocol):
    """See `dfsfuse.net.cluster.Cluster`."""

    def identities(self) -> Mapping[int, bytes]: ...


def seen(cluster: Disks, wait: Callable[[float], bool] = lambda _: False) -> tuple[ServerSeen, ...]:
    """Return all servers' disks, ordered by id. Raises `StoppedError`."""
    outcomes = ask(cluster, dict.fromkeys(sorted(cluster.usable()), GetStatus()), wait)
    identities = cluster.identities()
    found = []
    for id in sorted(cluster.names):
        outcome = outcomes.get(id)
        reply = outcome.reply if isinstance(outcome, Answer) else None
        if isinstance(reply, ServerStatus):
            found.append(ServerSeen(identities.get(id, b""), reply.quarantined))
        else:
            found.append(ServerSeen(b""))
    return tuple(found)
