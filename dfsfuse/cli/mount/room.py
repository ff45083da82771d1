"""The space available for files on the four servers together, for statfs.

Every byte of a file is on two servers, and the pieces of a file are spread evenly, so the available space is half of
what the servers' disks have together. Servers on one host that report the same size share a disk (everything on one
laptop), which counts once. Servers that do not answer are not counted. Knows the GetStatus message; asks at most once
per second. Threads: any; one asks, the others wait for the answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from dfs_server.protocol.limits import COPIES
from dfs_server.protocol.messages import GetStatus, ServerStatus
from dfsfuse.net.cluster import Cluster
from dfsfuse.net.exchange import Answer
from dfsfuse.net.stalls import ROOM_S
from dfsfuse.vfs.attributes import Room

MAX_AGE_S = 1.0


class RoomGauge:
    """Call it to get the available space."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._clock = clock
        self._lock = threading.Lock()
        self._room = Room(0, 0)
        self._asked_at = float("-inf")

    def __call__(self) -> Room:
        with self._lock:
            if self._clock() - self._asked_at > MAX_AGE_S:
                self._room = self._ask()
                self._asked_at = self._clock()
            return self._room

    def _ask(self) -> Room:
        hosts = {server.id: server.host for server in self._cluster.servers}
        outcomes = self._cluster.ask(dict.fromkeys(self._cluster.usable(), GetStatus()), stall_s=ROOM_S)
        return room_of(
            (hosts[server], outcome.reply)
            for server, outcome in outcomes.items()
            if isinstance(outcome, Answer) and isinstance(outcome.reply, ServerStatus)
        )


def room_of(servers: Iterable[tuple[str, ServerStatus]]) -> Room:
    """The space for files, from each server's host and status."""
    disks: dict[tuple[str, int], int] = {}
    for host, status in servers:
        disk = (host, status.total_bytes)
        disks[disk] = min(status.free_bytes, disks.get(disk, status.free_bytes))
    return Room(total_bytes=sum(total for _, total in disks) // COPIES, free_bytes=sum(disks.values()) // COPIES)
