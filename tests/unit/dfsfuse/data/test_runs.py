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
    RUNS_MAX,
    SURPLUS_MAX,
    WASTE_MAX_BYTES,
    compacted,
    is_crowded,
    runs,
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
