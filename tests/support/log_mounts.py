"""Mounts with empty caches, of a namespace whose map is in four real logs, in virtual time.

`maker`, a mount of a map in memory, makes the content of the namespace, which is then committed to the log unchanged.
Pieces are in memory (`MemorySegments`), which also decides which servers answer about them.
"""

from __future__ import annotations

from support.log_cluster import LogCluster, log_of, never
from support.memory_mounts import MemoryMounts, write_file
from support.memory_segments import NAMES

from dfs_server.protocol.messages import ReadKeys, ReadRange
from dfsfuse.log.state import Contents
from dfsfuse.namespace.map.log_map import LogMap
from dfsfuse.namespace.records import keys
from dfsfuse.vfs.vfs import Vfs

BATCH_BYTES = 1_000_000


class LogMounts:
    """See the module."""

    def __init__(self, cluster: LogCluster) -> None:
        self.cluster = cluster
        self.memory = MemoryMounts()
        self.maker = self.memory.mount()

    def commit(self) -> None:
        """Commit everything that the maker has made to the log."""
        log = log_of(self.cluster, b"maker...")
        items = sorted(self.memory.map.items.items())
        while items:
            count = size = 0
            while count < len(items) and size < BATCH_BYTES:
                size += sum(map(len, items[count]))
                count += 1
            assert log.commit(Contents(puts=tuple(items[:count])), never)
            del items[:count]

    def cold_map(self) -> LogMap:
        """The map as seen by a client that has read nothing of it."""
        clock = self.cluster.grid.clock

        def sleep(seconds: float) -> None:
            clock.wait_until(clock() + seconds)

        return LogMap(log_of(self.cluster, b"cold...."), keys.family_of, clock, sleep)

    def cold(self, *answering: int) -> Vfs:
        """A mount with an empty cache, with only these servers answering; resets the count of requests."""
        clock = self.cluster.grid.clock
        segments = self.memory.segments
        self.cluster.down(*set(NAMES).difference(answering))
        segments.answering = set(answering)
        self.cluster.grid.forget_requests()
        return Vfs(self.cold_map(), segments, servers=NAMES, usable=segments.usable, monotonic=clock)

    def with_much_in_their_records(self, count: int) -> list[int]:
        """Make `count` files with 60,000 bytes of extended attributes each, in the log."""
        made = [write_file(self.maker, b"x%03d" % number, b"x" * 1000) for number in range(count)]
        for ino in made:
            self.maker.setxattr(ino, b"user.much", bytes(60_000), 0)
        self.commit()
        return made

    def reads(self) -> int:
        """Count the requests that have read the map."""
        return sum(sum(self.cluster.grid.asked(kind).values()) for kind in (ReadKeys, ReadRange))
