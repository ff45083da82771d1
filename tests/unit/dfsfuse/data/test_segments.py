"""The segment store with four servers in memory."""

from __future__ import annotations

import random
from collections.abc import Iterator
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_cluster import FakeCluster
from support.grid import Fault, Grid

from dfs_server.protocol.messages import GetPiece, HavePieces, Message, PutPiece
from dfs_server.protocol.pieces import BLOCK_BYTES, block_digests, blocks_match, piece_digest
from dfsfuse.data.holders import LAST_ONE_S
from dfsfuse.data.placement import place, ring
from dfsfuse.data.segments import INLINE_SEGMENT_MAX_BYTES, SegmentStore, Written
from dfsfuse.data.striping import SEGMENT_MAX_BYTES, split
from dfsfuse.errors import IncompleteError, NoSpaceError, ReadOnlyError

LARGE = random.Random(7).randbytes(1_500_001)
SMALL = random.Random(8).randbytes(INLINE_SEGMENT_MAX_BYTES)
WAIT_S = 20.0


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


def apply(grid: Grid, written: Written) -> None:
    """Store the pieces that a batch carries, as servers do."""
    for piece in written.inline:
        for server in grid.servers.values():
            if server.name in piece.homes:
                server.stored[piece.segment, piece.number] = (block_digests(piece.data), piece.data)


# ------------------------------------------------------------------ write


def test_a_large_segment_is_on_its_servers_when_write_returns(store: SegmentStore, grid: Grid) -> None:
    segment, inline = store.write(LARGE, 2)
    assert inline == ()
    assert segment.length == len(LARGE)
    assert segment.homes == ring(2)
    for number, home in enumerate(segment.homes, start=1):
        assert grid.holders(segment.id, number) == set(home)


def test_a_small_segment_costs_no_message_and_is_carried(store: SegmentStore, cluster: FakeCluster) -> None:
    segment, inline = store.write(SMALL, 1)
    assert cluster.started == []
    assert b"".join(piece.data for piece in inline) == SMALL
    assert [piece.number for piece in inline] == [1, 2, 3, 4]
    assert {piece.segment for piece in inline} == {segment.id}
    assert [piece.homes for piece in inline] == [tuple(f"DFS{server}" for server in home) for home in segment.homes]
    assert segment.homes == ring(1)
    for piece, digest in zip(inline, segment.digests, strict=True):
        assert piece_digest(block_digests(piece.data)) == digest
        assert blocks_match(piece.data, block_digests(piece.data))


def test_one_byte_more_than_small_is_large(store: SegmentStore, grid: Grid) -> None:
    assert store.write(SMALL + b"x", 0).inline == ()
    assert grid.asked(PutPiece) == {1: 2, 2: 2, 3: 2, 4: 2}


def test_small_segments_are_handed_off_too(store: SegmentStore, cluster: FakeCluster) -> None:
    cluster.notice_down(2)
    assert store.write(b"hello", 0).segment.homes == place(0, {1, 3, 4})


@pytest.mark.parametrize("data", [SMALL, LARGE])
def test_with_two_servers_down_nothing_is_written(store: SegmentStore, cluster: FakeCluster, data: bytes) -> None:
    cluster.notice_down(2, 3)
    with pytest.raises(ReadOnlyError):
        store.write(data, 0)
    assert cluster.started == []


def test_small_segments_are_joined_without_asking_anyone(store: SegmentStore, cluster: FakeCluster) -> None:
    parts = [SMALL[:100], SMALL[100:101], SMALL[101:5000]]
    segments = [store.write(part, 0).segment for part in parts]
    made = store.joined(segments, 1)
    assert made is not None
    assert b"".join(piece.data for piece in made.inline) == SMALL[:5000]
    assert store.read(made.segment, 0, 5000) == SMALL[:5000]
    assert made.segment.homes == ring(1)
    assert cluster.started == []


def test_not_if_one_of_them_must_be_fetched(store: SegmentStore, cluster: FakeCluster) -> None:
    segments = [store.write(b"here", 0).segment, SegmentStore(cluster).write(b"elsewhere", 0).segment]
    assert store.joined(segments, 0) is None
    assert cluster.started == []


@pytest.mark.parametrize("are_full", [False, True])
def test_nor_if_too_few_servers_take_it(store: SegmentStore, cluster: FakeCluster, are_full: bool) -> None:
    segments = [store.write(b"some", 0).segment, store.write(b"thing", 0).segment]
    if are_full:
        cluster.known_full = {2, 3}
    else:
        cluster.notice_down(2, 3)
    assert store.joined(segments, 0) is None
    assert cluster.started == []


def test_ids_are_never_the_same(store: SegmentStore) -> None:
    assert len({store.write(b"same", 0).segment.id for _ in range(50)}) == 50


@pytest.mark.parametrize("length", [0, SEGMENT_MAX_BYTES + 1])
def test_what_is_no_segment_is_our_own_mistake(store: SegmentStore, length: int) -> None:
    with pytest.raises(ValueError, match="a segment has"):
        store.write(bytes(length), 0)


def test_the_buffer_may_be_used_again_after_write(store: SegmentStore, cluster: FakeCluster) -> None:
    buffer = bytearray(LARGE)
    segment, _ = store.write(buffer, 0)
    small, inline = store.write(memoryview(buffer)[:100], 0)
    cluster.started.clear()
    buffer[:] = bytes(len(buffer))
    buffer.clear()  # BufferError would mean that a view of it was kept
    assert store.read(segment, 0, len(LARGE)) == LARGE
    assert b"".join(piece.data for piece in inline) == LARGE[:100]
    assert small.length == 100


# ------------------------------------------------------------------ read


def test_what_was_written_is_read(store: SegmentStore) -> None:
    segment, _ = store.write(LARGE, 3)
    assert store.read(segment, 0, len(LARGE)) == LARGE


@pytest.mark.parametrize("length", [1, 2, 3, 5, 1000, INLINE_SEGMENT_MAX_BYTES])
def test_small_segments_are_read_from_where_the_batch_put_them(store: SegmentStore, grid: Grid, length: int) -> None:
    written = store.write(SMALL[:length], 2)
    apply(grid, written)
    other = SegmentStore(FakeCluster(grid), clock=grid.clock)
    assert other.read(written.segment, 0, length) == SMALL[:length]
    assert grid.asked(GetPiece) != {}


def test_a_small_segment_just_written_is_read_from_memory(store: SegmentStore, cluster: FakeCluster) -> None:
    segment = store.write(SMALL, 2).segment
    assert store.read(segment, 100, len(SMALL)) == SMALL[100:]
    assert cluster.started == []


@settings(max_examples=60)
@given(
    reads=st.lists(st.tuples(st.integers(0, len(LARGE) + 10), st.integers(0, 3 * BLOCK_BYTES)), min_size=1, max_size=6),
    cache_bytes=st.sampled_from([0, BLOCK_BYTES, 1 << 27]),
)
def test_any_ranges_in_any_order(reads: list[tuple[int, int]], cache_bytes: int) -> None:
    grid = Grid()
    store = SegmentStore(FakeCluster(grid), clock=grid.clock, cache_bytes=cache_bytes)
    segment, _ = store.write(LARGE, 0)
    for offset, length in reads:
        assert store.read(segment, offset, length) == LARGE[offset : offset + length]


def test_a_small_read_fetches_one_block(store: SegmentStore, cluster: FakeCluster) -> None:
    segment, _ = store.write(LARGE, 0)
    cluster.started.clear()
    assert store.read(segment, BLOCK_BYTES + 7, 100) == LARGE[BLOCK_BYTES + 7 : BLOCK_BYTES + 107]
    assert [call.request for call in cluster.started] == [GetPiece(segment.id, 1, 1, 1)]


def test_what_is_in_the_cache_is_not_fetched_again(store: SegmentStore, grid: Grid) -> None:
    segment, _ = store.write(LARGE, 0)
    store.read(segment, 0, len(LARGE))
    grid.forget_requests()
    assert store.read(segment, 12345, 200_000) == LARGE[12345:212345]
    assert grid.asked(GetPiece) == {}


def test_an_incomplete_segment_says_so_and_its_other_pieces_are_read(store: SegmentStore, grid: Grid) -> None:
    segment, _ = store.write(LARGE, 0)
    for server in ring(0)[1]:
        grid[server].forget()
    with pytest.raises(IncompleteError, match=f"P2 of segment {segment.id.hex()}"):
        store.read(segment, 0, len(LARGE))
    first = len(split(LARGE)[0])
    assert store.read(segment, 0, first) == LARGE[:first]


# ------------------------------------------------------------------ prefetch


def test_prefetched_segments_are_read_from_memory(store: SegmentStore, grid: Grid) -> None:
    segment, _ = store.write(LARGE, 0)
    store.prefetch(segment)
    assert store.read(segment, 0, 100) == LARGE[:100]
    assert store.read(segment, 0, len(LARGE)) == LARGE
    assert grid.asked(GetPiece) == {1: 1, 2: 1, 3: 1, 4: 1}


def test_a_read_waits_for_the_prefetch_and_does_not_ask_again(store: SegmentStore, grid: Grid) -> None:
    segment, _ = store.write(LARGE, 0)
    asked, go = Event(), Event()

    def hold(request: Message) -> None:
        asked.set()
        assert go.wait(WAIT_S)

    grid[1].before_answer = hold
    store.prefetch(segment)
    assert asked.wait(WAIT_S)
    store.prefetch(segment)  # must not start a second one
    go.set()
    assert store.read(segment, 0, len(LARGE)) == LARGE
    assert grid.asked(GetPiece) == {1: 1, 2: 1, 3: 1, 4: 1}


def test_a_failed_prefetch_is_silent_and_the_read_is_not(store: SegmentStore, grid: Grid) -> None:
    segment, _ = store.write(LARGE, 0)
    for server in grid.servers.values():
        server.forget()
    store.prefetch(segment)
    with pytest.raises(IncompleteError):
        store.read(segment, 0, 10)


def test_a_prefetch_that_waits_for_a_thread_is_overtaken(store: SegmentStore, grid: Grid) -> None:
    segments = [store.write(LARGE, 0).segment for _ in range(3)]
    asked, go = Event(), Event()

    def hold(request: Message) -> None:
        if isinstance(request, GetPiece) and request.segment != segments[2].id:
            asked.set()
            assert go.wait(WAIT_S)

    for server in grid.servers.values():
        server.before_answer = hold
    for segment in segments:
        store.prefetch(segment)
    assert asked.wait(WAIT_S)
    try:
        assert store.read(segments[2], 0, 10) == LARGE[:10]
    finally:
        go.set()


def test_nothing_is_prefetched_after_close(store: SegmentStore, grid: Grid) -> None:
    segment, _ = store.write(LARGE, 0)
    store.close()
    store.prefetch(segment)
    assert grid.asked(GetPiece) == {}


# ------------------------------------------------------------------ copies and missing pieces


def test_copies_shows_which_server_has_what_now(store: SegmentStore, grid: Grid) -> None:
    segments = [store.write(LARGE, rotation).segment for rotation in range(3)]
    grid[4].forget()
    expected = [
        {number: frozenset(home) - {4} for number, home in enumerate(segment.homes, start=1)} for segment in segments
    ]
    assert store.copies(segments) == expected
    assert store.missing(segments) == [frozenset()] * 3


def test_missing_are_pieces_that_no_answering_server_has(store: SegmentStore, grid: Grid) -> None:
    segments = [store.write(LARGE, 0).segment, store.write(LARGE, 1).segment]
    grid[1].fault = Fault.DOWN
    grid[2].fault = Fault.HANG
    assert store.missing(segments) == [frozenset({2}), frozenset({1})]


def test_a_hung_server_is_not_waited_for_if_the_others_have_everything(store: SegmentStore, grid: Grid) -> None:
    segments = [store.write(LARGE, rotation).segment for rotation in range(4)]
    grid[2].fault = Fault.HANG
    began = grid.clock()
    assert store.missing(segments) == [frozenset()] * 4
    assert grid.clock() - began < 0.1
    assert {number: 2 in servers for number, servers in store.copies(segments)[0].items()} == dict.fromkeys(
        range(1, 5), False
    )
    assert grid.clock() - began <= LAST_ONE_S + 0.1
    began = grid.clock()
    store.copies(segments)
    assert grid.clock() - began < 0.1, "the next request spares it"


def test_servers_known_to_be_down_are_not_asked(store: SegmentStore, grid: Grid, cluster: FakeCluster) -> None:
    segment = store.write(LARGE, 0).segment
    cluster.notice_down(1, 2)
    assert store.missing([segment]) == [frozenset({2})]
    assert grid.asked(HavePieces) == {3: 1, 4: 1}


def test_empty_pieces_are_never_missing(store: SegmentStore, grid: Grid) -> None:
    written = store.write(b"ab", 0)
    assert store.missing([written.segment]) == [frozenset({1, 2})]
    apply(grid, written)
    assert store.missing([written.segment]) == [frozenset()]


def test_many_segments_are_asked_for_in_batches(store: SegmentStore, grid: Grid) -> None:
    written = [store.write(b"abcd", 0) for _ in range(2600)]
    for one in written:
        apply(grid, one)
    segments = [one.segment for one in written]
    assert store.missing(segments) == [frozenset()] * 2600
    grid.forget_requests()
    homes = dict(enumerate(map(frozenset, ring(0)), start=1))
    assert store.copies(segments) == [homes] * 2600
    assert grid.asked(HavePieces) == {1: 2, 2: 2, 3: 2, 4: 2}
    assert store.copies([]) == []


def test_small_segments_spare_full_servers_too(store: SegmentStore, cluster: FakeCluster) -> None:
    cluster.known_full = {3}
    written = store.write(b"abcd", 0)
    assert all(3 not in home for home in written.segment.homes)
    assert all("DFS3" not in piece.homes for piece in written.inline)
    cluster.known_full = {3, 1}
    with pytest.raises(NoSpaceError, match="DFS1 and DFS3 are full"):
        store.write(b"abcd", 0)
