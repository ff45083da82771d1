"""The library in-process, assembled in two ways: on servers in memory, and on real ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from support.fake_cluster import FakeCluster
from support.grid import Grid as MemoryGrid
from support.memory_map import MemoryMap

from dfs_server.protocol.batches import Batch
from dfs_server.protocol.pieces import block_digests
from dfsfuse.cli.config import read_config
from dfsfuse.data.segments import SegmentStore
from dfsfuse.log.quorum_log import QuorumLog
from dfsfuse.log.repairer import Repairer
from dfsfuse.namespace.map.log_map import LogMap
from dfsfuse.namespace.records import keys
from dfsfuse.net.cluster import Cluster
from dfsfuse.vfs.settings import MountSettings
from dfsfuse.vfs.vfs import Room, Vfs


def _carry(batch: Batch, grid: MemoryGrid) -> None:
    """Store the small pieces of a batch on their homes, as servers do when they apply it."""
    for piece in batch.pieces:
        for server in grid.servers.values():
            if server.name in piece.homes:
                server.stored[(piece.segment, piece.number)] = (block_digests(piece.data), piece.data)


@contextmanager
def memory_vfs() -> Iterator[Vfs]:
    """A Vfs on a map and four servers in memory, with the real data layer."""
    grid = MemoryGrid()
    cluster = FakeCluster(grid)
    store = MemoryMap()
    store.before_commit = lambda batch: _carry(batch, grid)
    with ExitStack() as opened:
        room = partial(Room, 1 << 40, 1 << 39)
        segments = SegmentStore(cluster, clock=grid.clock)
        opened.callback(segments.close)
        vfs = Vfs(
            store,
            segments,
            servers=cluster.names,
            usable=cluster.usable,
            room=room,
            settings=MountSettings(atime="relatime"),
        )
        opened.callback(vfs.close)
        yield vfs


@contextmanager
def served_vfs(config: Path, *, max_age_s: float = 0.5) -> Iterator[Vfs]:
    """A Vfs on real servers, assembled as in `dfsfuse.cli.session`, with a chosen limit on the age of metadata."""
    client = read_config(config, {})
    with ExitStack() as opened:
        cluster = Cluster(client.servers, client.credentials)
        opened.callback(cluster.close)
        cluster.connect()
        log = QuorumLog(cluster)
        opened.enter_context(Repairer(cluster, lambda: log.known))
        store = LogMap(log, keys.family_of)
        opened.callback(store.close)
        segments = SegmentStore(cluster)
        opened.callback(segments.close)
        vfs = Vfs(
            store, segments, servers=cluster.names, usable=cluster.usable, settings=MountSettings(max_age_s=max_age_s)
        )
        opened.callback(vfs.close)
        yield vfs
