"""Files whose pieces are on a `Grid` and whose records are in a `MemoryMap`, without a Vfs, for tests of the upkeep of
pieces."""

from __future__ import annotations

import msgspec
from support.fake_cluster import FakeCluster
from support.grid import Fault, Grid
from support.memory_map import MemoryMap
from support.memory_pages import MemoryPages

from dfs_server.protocol.pieces import PIECE_NUMBERS, block_digests, piece_digest
from dfsfuse.data import extents
from dfsfuse.data.extents import EMPTY, Region, Segment, overlay
from dfsfuse.data.placement import ring, rotation_of_region
from dfsfuse.data.segments import SegmentStore
from dfsfuse.namespace.ops import inodes
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys


class StoredFiles:
    """Writes files, breaks servers, and shows what is where. It must be closed."""

    def __init__(self) -> None:
        self.grid = Grid()
        self.cluster = FakeCluster(self.grid)
        self.store = MemoryMap()
        self.pages = MemoryPages(self.store)
        self.segments = SegmentStore(self.cluster, cache_bytes=0, clock=self.grid.clock)
        self.contents: dict[bytes, bytes] = {}
        """The content of each segment."""

    def write(self, ino: int, rotation: int, *regions: bytes) -> list[Segment]:
        """Write a file with one segment in each region."""
        inode = msgspec.structs.replace(inodes.new(0o100644, 0, 0, 0), rotation=rotation)
        self.store.transact(lambda tx: inodes.save(tx, ino, inode))
        return [self.write_region(ino, rotation, index, data) for index, data in enumerate(regions)]

    def write_region(self, ino: int, rotation: int, index: int, data: bytes) -> Segment:
        segment, inline = self.segments.write(data, rotation_of_region(rotation, index))
        for piece in inline:
            for server in self.grid.servers.values():
                if server.name in piece.homes and server.fault is not Fault.DOWN:
                    server.stored[segment.id, piece.number] = (block_digests(piece.data), piece.data)
        region = overlay(EMPTY, segment, [(0, segment.length, 0)])[0]
        self.store.transact(lambda tx: tx.put(keys.region(ino, index), extents.encode(region)))
        self.contents[segment.id] = data
        return segment

    def down(self, *servers: int) -> None:
        for server in servers:
            self.grid[server].fault = Fault.DOWN
            self.cluster.notice_down(server)

    def up(self, *servers: int) -> None:
        for server in servers:
            self.grid[server].fault = Fault.NONE
            self.cluster.notice_up(server)

    def region(self, ino: int, index: int) -> Region:
        return extents.decode(self.store.items[keys.region(ino, index)])

    def assert_all_at_home(self) -> None:
        """Check that every record names the ring's homes, and that exactly these hold each piece, with the right
        digests and bytes."""
        start, end = keys.all_files_regions()
        for key, value in self.store.items.items():
            if not start <= key < end:
                continue
            rotation = records.decode_inode(self.store.items[keys.inode(keys.number_in(key))]).rotation
            assert rotation is not None
            homes = ring(rotation_of_region(rotation, keys.index_of(key)))
            for segment in extents.decode(value).segments:
                assert [set(home) for home in segment.homes] == [set(home) for home in homes], key
                for number in PIECE_NUMBERS:
                    assert self.grid.holders(segment.id, number) == set(homes[number - 1]), (key, number)
                    for server in homes[number - 1]:
                        digests, data = self.grid[server].stored[segment.id, number]
                        assert piece_digest(digests) == segment.digests[number - 1]
                        assert block_digests(data) == digests

    def close(self) -> None:
        self.segments.close()
