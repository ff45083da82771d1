"""Which regions are crowded, and which ranges the segment that replaces them holds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfsfuse.data.extents import EMPTY, REGION_BYTES, Extent, Region, Segment, Write, overlay, spans
from dfsfuse.data.placement import ring
from dfsfuse.data.runs import (
    HOLE_BYTES,
    JOINED_MAX_BYTES,
    NEIGHBOUR_MAX_BYTES,
    NEIGHBOURS,
    RUNS_MAX,
    SURPLUS_MAX,
    TINY_BYTES,
    WASTE_MAX_BYTES,
    compacted,
    is_crowded,
    runs,
    small_neighbours,
    writes_of,
)


def segment(number: int, length: int) -> Segment:
    return Segment(number.to_bytes(16, "big"), length, ring(number % 4), (bytes(32),) * 4)


def one_segment(*stretches: tuple[int, int]) -> Region:
    """A region with these ranges (start, end), one after the other in one segment."""
    at, writes = 0, []
    for start, end in stretches:
        writes.append((start, end - start, at))
        at += end - start
    return overlay(EMPTY, segment(1, at), writes)[0]


def many_segments(*stretches: tuple[int, int]) -> Region:
    region = EMPTY
    for number, (start, end) in enumerate(stretches):
        region, _ = overlay(region, segment(number, end - start), [(start, end - start, 0)])
    return region


@pytest.mark.parametrize(
    ("between", "is_hole"),
    [
        ((10, 20), False),
        ((HOLE_BYTES - 10, HOLE_BYTES + 10), False),
        ((1, 2 * HOLE_BYTES - 1), False),
        ((1, 2 * HOLE_BYTES), True),
        ((HOLE_BYTES, 2 * HOLE_BYTES), True),
        ((HOLE_BYTES, 2 * HOLE_BYTES - 1), False),
        ((5, 10 * HOLE_BYTES + 5), True),
    ],
)
def test_a_hole_is_a_whole_block(between: tuple[int, int], is_hole: bool) -> None:
    region = one_segment((0, between[0]), (between[1], between[1] + 7))
    assert len(runs(region)) == 1 + is_hole


@given(st.lists(st.tuples(st.integers(0, 40 * HOLE_BYTES), st.integers(1, 2 * HOLE_BYTES)), max_size=12))
def test_the_stretches_hold_all_data_and_lie_apart(writes: list[tuple[int, int]]) -> None:
    region = EMPTY
    for number, (offset, length) in enumerate(writes):
        region, _ = overlay(region, segment(number, length), [(offset, length, 0)])
    found = runs(region)
    for (_, end), (start, _) in pairwise(found):
        assert start - end >= HOLE_BYTES
        assert all(span.segment is None for span in spans(region, end, start - end))
    for extent in region.extents:
        assert any(start <= extent.offset and extent.end <= end for start, end in found)
    edges = {extent.offset for extent in region.extents}, {extent.end for extent in region.extents}
    assert all(start in edges[0] and end in edges[1] for start, end in found)
    packed = writes_of(region)
    assert [(write.offset, write.offset + write.length) for write in packed] == found
    assert [write.segment_offset for write in packed] == [
        sum(write.length for write in packed[:number]) for number in range(len(packed))
    ]


def test_there_cannot_be_more_stretches() -> None:
    tiny = Region(1, (segment(1, 1),), tuple(Extent(at, 1, 0, 0) for at in range(0, REGION_BYTES, 2 * HOLE_BYTES)))
    assert len(runs(tiny)) == RUNS_MAX


def test_what_cannot_get_smaller_is_not_crowded() -> None:
    assert not is_crowded(EMPTY)
    stretches = [(at, at + 10) for at in range(0, REGION_BYTES, 2 * HOLE_BYTES)]
    assert not is_crowded(one_segment(*stretches))
    assert not is_crowded(many_segments(*stretches[:SURPLUS_MAX]))
    assert is_crowded(many_segments(*stretches[: SURPLUS_MAX + 1]))


def test_many_extents_of_few_stretches_are_crowded() -> None:
    region = one_segment(*((at, at + 5) for at in range(0, 10 * (SURPLUS_MAX + 1), 10)))
    assert len(region.extents) == SURPLUS_MAX + 1
    assert not is_crowded(region)
    assert is_crowded(one_segment(*((at, at + 5) for at in range(0, 10 * (SURPLUS_MAX + 2), 10))))


def test_a_segment_of_which_little_shows_is_crowded() -> None:
    large = segment(1, REGION_BYTES)
    half = REGION_BYTES // 2
    assert not is_crowded(overlay(EMPTY, large, [(0, half, 0)])[0])
    assert is_crowded(overlay(EMPTY, large, [(0, half - 1, 0)])[0])
    small = segment(1, WASTE_MAX_BYTES)
    assert not is_crowded(overlay(EMPTY, small, [(0, 1, 0)])[0])


def test_what_is_compacted_is_not_crowded_and_shows_the_same_places() -> None:
    old = many_segments(*((at, at + HOLE_BYTES) for at in range(0, REGION_BYTES, 3 * HOLE_BYTES)))
    writes = writes_of(old)
    new = segment(5000, sum(write.length for write in writes))
    made = compacted(old, old, new, writes)
    assert made is not None
    region, dropped = made
    assert not is_crowded(region)
    assert runs(region) == runs(old)
    assert region.segments == (new,)
    assert set(dropped) == {one.id for one in old.segments}
    assert [Write(e.offset, e.length, e.segment_offset) for e in region.extents] == writes


def side_by_side(*lengths: int, start: int = 0) -> Region:
    """A region of segments of these lengths, one right behind the other."""
    stretches = []
    for length in lengths:
        stretches.append((start, start + length))
        start += length
    return many_segments(*stretches)


def test_small_neighbours_before_a_place_are_worth_joining() -> None:
    region = side_by_side(*[10] * (NEIGHBOURS + 3))
    assert small_neighbours(region, region.end()) == region.extents
    assert small_neighbours(region, region.end() - 10) == region.extents[:-1]
    assert small_neighbours(region, 10 * NEIGHBOURS) == region.extents[:NEIGHBOURS]


@pytest.mark.parametrize(
    ("before", "is_joined"),
    [
        (TINY_BYTES, True),
        (TINY_BYTES + 1, False),
        (8 * 600, False),
    ],
)
def test_a_longer_one_is_joined_too_unless_it_is_much_longer_than_those_behind_it(before: int, is_joined: bool) -> None:
    region = side_by_side(before, *[500] * NEIGHBOURS)
    assert len(small_neighbours(region, region.end())) == NEIGHBOURS + is_joined


def test_one_that_is_as_long_as_those_behind_it_is_joined_while_it_is_small() -> None:
    for length, is_joined in ((5000, True), (5001, False)):
        region = side_by_side(length, *[625] * NEIGHBOURS)
        assert len(small_neighbours(region, region.end())) == NEIGHBOURS + is_joined
    for length, is_joined in ((NEIGHBOUR_MAX_BYTES, True), (NEIGHBOUR_MAX_BYTES + 1, False)):
        region = side_by_side(length, *[TINY_BYTES] * NEIGHBOURS)
        assert len(small_neighbours(region, region.end())) == NEIGHBOURS + is_joined


def test_what_is_joined_fits_into_a_batch() -> None:
    region = side_by_side(*[TINY_BYTES] * 60)
    assert sum(extent.length for extent in small_neighbours(region, region.end())) == JOINED_MAX_BYTES


def test_each_byte_of_small_appends_is_joined_a_few_times_only() -> None:
    region, moved, most = EMPTY, 0, 0
    for number in range(2000):
        at = region.end()
        if found := small_neighbours(region, at):
            length = sum(extent.length for extent in found)
            region, _ = overlay(region, segment(10_000 + number, length), [(found[0].offset, length, 0)])
            moved += length
        region, _ = overlay(region, segment(number, 100), [(at, 100, 0)])
        most = max(most, len(region.segments))
    assert region.end() == 2000 * 100
    assert moved <= 5 * region.end()
    assert most <= 24


@pytest.mark.parametrize(
    ("region", "end"),
    [
        pytest.param(EMPTY, 0, id="nothing"),
        pytest.param(side_by_side(*[10] * (NEIGHBOURS - 1)), 10 * (NEIGHBOURS - 1), id="too few"),
        pytest.param(side_by_side(*[10] * NEIGHBOURS), 10 * NEIGHBOURS + 1, id="a gap before the place"),
        pytest.param(side_by_side(*[10] * NEIGHBOURS), 10 * NEIGHBOURS - 1, id="one reaches beyond the place"),
        pytest.param(
            many_segments(*((12 * n, 12 * n + 12 - (n == 3)) for n in range(NEIGHBOURS))), 12 * NEIGHBOURS, id="a gap"
        ),
        pytest.param(side_by_side(*[TINY_BYTES + 1] * NEIGHBOURS), NEIGHBOURS * (TINY_BYTES + 1), id="larger ones"),
        pytest.param(
            overlay(side_by_side(*[10] * NEIGHBOURS), segment(99, 3), [(10 * NEIGHBOURS - 5, 3, 0)])[0],
            10 * NEIGHBOURS,
            id="a segment that is not visible whole",
        ),
    ],
)
def test_others_are_left_alone(region: Region, end: int) -> None:
    assert not small_neighbours(region, end)
