"""Many small segments are read with one request to each server."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from support.fake_cluster import FakeCluster
from support.grid import Fault, Grid

from dfs_server.protocol.messages import GetPiece, GetPieces
from dfs_server.protocol.pieces import block_digests
from dfsfuse.data.download import HEDGE_S
from dfsfuse.data.extents import Segment
from dfsfuse.data.segments import INLINE_SEGMENT_MAX_BYTES, SegmentStore
from dfsfuse.data.small_pieces import FEWEST_BYTES, MOST_BYTES, QUICK_S, SLOW_S, next_size, together


@pytest.fixture
def grid() -> Grid:
    return Grid()


@pytest.fixture
def cluster(grid: Grid) -> FakeCluster:
    return FakeCluster(grid)


@pytest.fixture
def store(cluster: FakeCluster, grid: Grid) -> Iterator[SegmentStore]:
    store = SegmentStore(cluster, clock=grid.clock)
    yield store
    store.close()


@pytest.fixture
def files(grid: Grid, cluster: FakeCluster) -> list[tuple[Segment, bytes]]:
    """Segments of all small sizes that matter, stored on the servers and not in the cache of `store`."""
    chance = random.Random(1)
    writer = SegmentStore(cluster, clock=grid.clock)
    files = []
    for number, size in enumerate((1, 2, 3, 4, 5, 4096, 5000, 65_537, INLINE_SEGMENT_MAX_BYTES)):
        data = chance.randbytes(size)
        made = writer.write(data, number % 4)
        for piece in made.inline:
            for server in grid.servers.values():
                if server.name in piece.homes:
                    server.stored[piece.segment, piece.number] = (block_digests(piece.data), piece.data)
        files.append((made.segment, data))
    writer.close()
    return files


def read_all(store: SegmentStore, files: list[tuple[Segment, bytes]]) -> None:
    for segment, data in files:
        assert store.read(segment, 0, len(data)) == data


def test_each_server_is_asked_once_and_reading_needs_no_request(
    store: SegmentStore, grid: Grid, files: list[tuple[Segment, bytes]]
) -> None:
    store.fetch_small([segment for segment, _ in files])
    assert grid.asked(GetPieces) == {1: 1, 2: 1, 3: 1, 4: 1}
    read_all(store, files)
    assert not grid.asked(GetPiece)
    store.fetch_small([segment for segment, _ in files])
    assert grid.asked(GetPieces) == {1: 1, 2: 1, 3: 1, 4: 1}  # all of it is there


def test_one_segment_alone_is_left_to_its_reader(
    store: SegmentStore, grid: Grid, files: list[tuple[Segment, bytes]]
) -> None:
    store.fetch_small([files[5][0]])
    assert not grid.asked(GetPieces)


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("server", [1, 3])
def test_whatever_a_server_does_what_is_read_is_right(
    store: SegmentStore, grid: Grid, files: list[tuple[Segment, bytes]], fault: Fault, server: int
) -> None:
    grid[server].fault = fault
    begun = grid.clock()
    store.fetch_small([segment for segment, _ in files])
    assert grid.clock() - begun <= HEDGE_S + 0.1
    read_all(store, files)


def test_a_piece_that_is_gone_is_read_from_the_other_home(
    store: SegmentStore, grid: Grid, files: list[tuple[Segment, bytes]]
) -> None:
    bad: list[tuple[int, int]] = []
    store._on_bad_piece = lambda _, number, server: bad.append((number, server))
    segment = files[5][0]
    for number, home in enumerate(segment.homes, start=1):
        del grid[home[0]].stored[segment.id, number]
    store.fetch_small([one for one, _ in files])
    assert bad == []
    read_all(store, files)
    assert {number for number, _ in bad} <= {1, 2, 3, 4}


def test_what_is_asked_for_together_is_bounded(files: list[tuple[Segment, bytes]]) -> None:
    largest, smallest = files[-1][0], files[0][0]
    assert len(together([largest] * 100, MOST_BYTES)) == MOST_BYTES // INLINE_SEGMENT_MAX_BYTES
    assert len(together([smallest] * 100, MOST_BYTES)) == 64
    assert together([largest, smallest], FEWEST_BYTES) == [smallest]
    assert together([], FEWEST_BYTES) == []


def test_on_a_slow_link_less_is_asked_for() -> None:
    size = FEWEST_BYTES
    for _ in range(10):
        size = next_size(size, QUICK_S / 2)
    assert size == MOST_BYTES
    assert next_size(size, (QUICK_S + SLOW_S) / 2) == size
    for _ in range(10):
        size = next_size(size, SLOW_S * 2)
    assert size == FEWEST_BYTES


def test_if_all_are_slow_no_server_is_at_fault(
    store: SegmentStore, grid: Grid, files: list[tuple[Segment, bytes]]
) -> None:
    for number, server in grid.servers.items():
        server.latency_s = 1.0 + 0.1 * number
    small = files[:6]
    store.fetch_small([segment for segment, _ in small])
    assert store._cluster.health.data.now() == frozenset()
    read_all(store, small)
    assert not grid.asked(GetPiece)


def test_a_server_that_lags_behind_the_others_is_not_waited_for(
    store: SegmentStore, grid: Grid, files: list[tuple[Segment, bytes]]
) -> None:
    grid[2].latency_s = 2.0
    begun = grid.clock()
    store.fetch_small([segment for segment, _ in files[:6]])
    assert grid.clock() - begun <= HEDGE_S + 0.1
    assert store._cluster.health.data.now() == {2}
