"""The write buffer compared with a simple model, and its limits."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.vfs.write.write_buffer import WriteBuffer, by_region

BASE = REGION_BYTES - 100


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 60)), max_size=30))
def test_it_holds_exactly_what_was_written(writes: list[tuple[int, int]]) -> None:
    buffer = WriteBuffer()
    model: dict[int, int] = {}
    for turn, (offset, length) in enumerate(writes, start=1):
        before = len(model)
        grown = buffer.write(BASE + offset, bytes([turn]) * length)
        model.update(dict.fromkeys(range(offset, offset + length), turn))
        assert grown == len(model) - before
    assert buffer.dirty_bytes == len(model)
    found = {at - BASE + i: byte for at, data in buffer.find(BASE, BASE + 300) for i, byte in enumerate(data)}
    assert found == model
    assert buffer.end() == (BASE + max(model) + 1 if model else 0)
    for region in buffer.regions():
        intervals = buffer.take(region)
        assert all(left.end < right.start for left, right in pairwise(intervals))
    assert buffer.dirty_bytes == 0
    assert buffer.end() == 0


def test_a_region_is_full_when_all_of_it_is_dirty() -> None:
    buffer = WriteBuffer()
    buffer.write(1, bytes(REGION_BYTES - 1))
    assert not buffer.is_full(0)
    buffer.write(0, b"x")
    assert buffer.is_full(0)
    assert buffer.intervals(0) == 1
    assert not buffer.is_full(1)


def test_data_is_cut_at_the_borders_of_regions() -> None:
    parts = [(region, at, len(part)) for region, at, part in by_region(BASE, bytes(REGION_BYTES + 200))]
    assert parts == [(0, BASE, 100), (1, 0, REGION_BYTES), (2, 0, 100)]


def test_only_the_range_that_is_asked_for_is_found() -> None:
    buffer = WriteBuffer()
    buffer.write(10, b"0123456789")
    assert buffer.find(0, 10) == []
    assert buffer.find(12, 15) == [(12, b"234")]
    assert buffer.find(20, 30) == []
