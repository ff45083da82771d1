"""Whether the servers' maps are level. Healing waits for that: small pieces come with a server's log.

Brings no server up to date: a `Repairer` (`dfsfuse.log.repairer`) does that, running in parallel. Single-threaded.
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
    """Wait until all answering servers have what the furthest had; after `for_s`, return those that do not.

    `is_whole`: also wait for those whose map is damaged and that want a copy of it. Raises `StoppedError`.
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
        # the last one is applied together with the next
        goal = goal or max((at.applied for at in found.values()), default=0) - 1
        lagging = frozenset(server for server, at in found.items() if at.applied < goal or (is_whole and at.wants_copy))
        if not lagging:
            break
        if wait(STEP_S):
            raise StoppedError
    return lagging
