"""`dfc` with four servers in memory, which hold pieces and can fail: the real command line, Vfs and data layer.

The map is a `MemoryMap`. Pieces that a batch carries reach the servers that answer, as they would with the log.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from support.fake_cluster import FakeCluster
from support.grid import Fault, Grid
from support.memory_dfc import MemoryAccess
from support.memory_map import MemoryMap
from support.memory_pages import MemoryPages

from dfs_server.protocol.batches import NO_BATCH, Batch
from dfs_server.protocol.messages import Items, Values
from dfs_server.protocol.pieces import block_digests
from dfsfuse.cli.dfc import health_look
from dfsfuse.cli.dfc.health_look import Health
from dfsfuse.data.segments import SegmentStore
from dfsfuse.log.proposer import Point
from dfsfuse.log.quorum_log import QuorumLog
from dfsfuse.log.state import News
from dfsfuse.vfs.vfs import Vfs


class MemoryLog:
    """The part of a `QuorumLog` that readers of the map use, on a `MemoryMap`."""

    def __init__(self, store: MemoryMap) -> None:
        self._store = store
        self.known = Point(1, NO_BATCH)

    def catch_up(self, *, recall: bool = True) -> bool:
        return True

    def take_news(self) -> News:
        return News()

    def read_keys(self, keys: tuple[bytes, ...]) -> Values:
        return Values(1, tuple(self._store.items.get(key) for key in keys))

    def read_range(self, start: bytes, end: bytes, limit: int) -> Items:
        page = next(MemoryPages(self._store, limit).pages(start, end), [])
        more = any(page and page[-1][0] < key < end for key in self._store.items)
        return Items(1, tuple(page), more)


class StoredAccess(MemoryAccess):
    """Gives `dfc` access to these servers."""

    def __init__(self) -> None:
        super().__init__()
        self.grid = Grid()
        self.servers = FakeCluster(self.grid)
        self.store.before_commit = self._carry
        self.now_ns = 0

    def connect(self) -> StoredAccess:
        self.open += 1
        self._segment_store = SegmentStore(self.servers, cache_bytes=0, clock=self.grid.clock)
        self.vfs = Vfs(self.store, self._segment_store, servers=self.names, usable=self.servers.usable)
        return self

    @property
    def cluster(self) -> FakeCluster:
        return self.servers

    def new_log(self) -> QuorumLog:
        return MemoryLog(self.store)  # type: ignore[return-value]

    def health(self, count_s: float) -> Health:
        return health_look.look(
            self.servers, self.new_log, lambda: nullcontext(self.store), self.now_ns, count_s=count_s
        )

    def down(self, *servers: int) -> None:
        """Make these servers refuse connections, which clients know at once."""
        self._set(Fault.DOWN, self.servers.notice_down, *servers)

    def up(self, *servers: int) -> None:
        """Make these servers answer again."""
        self._set(Fault.NONE, self.servers.notice_up, *servers)

    def _set(self, fault: Fault, notice: Callable[[int], None], *servers: int) -> None:
        for server in servers:
            self.grid[server].fault = fault
            notice(server)

    def _carry(self, batch: Batch) -> None:
        for piece in batch.pieces:
            for server in self.grid.servers.values():
                if server.name in piece.homes and server.fault is not Fault.DOWN:
                    server.stored[piece.segment, piece.number] = (block_digests(piece.data), piece.data)

    def close(self) -> None:
        super().close()
        self._segment_store.close()
