"""Are the servers' maps level? For healing, which waits for that: small pieces come with a server's log.

Brings no server up to date: that is done by a `Repairer` (`dfsfuse.log.repairer`), which runs meanwhile. One thread.
"""

from __future__ import annotations

from collections.abc import Callable

from dfs_server.protocol.messages import GetPosition, Position
from dfsfuse.data.transport import ClusterLike
from dfsfuse.errors import StoppedError
from dfsfuse.net.exchange import Answer
from dfsfuse.upkeep.asking import ask

STEP_S = 1.0


def wait_until_level(
    cluster: ClusterLike,
    wait: Callable[[float], bool],
    clock: Callable[[], float],
    for_s: float,
    *,
    is_whole: bool = False,
) -> frozenset[int]:
    """Until all servers that answer have what the furthest had, or `for_s` is over: then these have not.

    `is_whole`: wait also for those whose map is damaged and that want a copy of it. Raises `StoppedError`.
    """
    until = clock() + for_s
    goal = 0
    lagging: frozenset[int] = frozenset()
    while clock() < until:
        outcomes = ask(cluster, dict.fromkeys(sorted(cluster.usable()), GetPosition()), wait)
        found = {
            server: outcome.reply
            for server, outcome in outcomes.items()
            if isinstance(outcome, Answer) and isinstance(outcome.reply, Position)
        }
        goal = goal or max((at.applied for at in found.values()), default=0) - 1  # the last is applied with the next
        lagging = frozenset(server for server, at in found.items() if at.applied < goal or (is_whole and at.wants_copy))
        if not lagging:
            break
        if wait(STEP_S):
            raise StoppedError
    return lagging
