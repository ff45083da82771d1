"""Region records compared with the simplest model: for each byte, the segment's byte that is visible there, or a
hole."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dfsfuse.data import extents
from dfsfuse.data.extents import (
    EMPTY,
    REGION_BYTES,
    Extent,
    Region,
    Segment,
    Span,
    Write,
    clear,
    decode,
    encode,
    overlay,
    spans,
    truncate,
)
from dfsfuse.data.placement import ring
from dfsfuse.data.runs import compacted

SMALL = 60
"""The model uses only the first bytes of a region, so that ranges often overlap."""


def segment(number: int, length: int = SMALL) -> Segment:
    return Segment(number.to_bytes(16, "big"), length, ring(number % 4), (bytes(32),) * 4)


class RegionMachine(RuleBasedStateMachine):
    """The same writes and truncations on a region and on a list of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.region = EMPTY
        self.model: list[tuple[bytes, int] | None] = [None] * SMALL
        self.made = 0
        self.dropped: list[bytes] = []
        self.written: set[bytes] = set()
        self.look()

    @rule(
        writes=st.lists(
            st.tuples(st.integers(0, SMALL - 1), st.integers(0, 20), st.integers(0, SMALL - 20)), max_size=4
        )
    )
    def write(self, writes: list[tuple[int, int, int]]) -> None:
        self.made += 1
        new = segment(self.made)
        writes = [(offset, min(length, SMALL - offset), source) for offset, length, source in writes]
        self.region, dropped = overlay(self.region, new, writes)
        self.written.add(new.id)
        for offset, length, source in writes:
            for index in range(length):
                self.model[offset + index] = (new.id, source + index)
        self._note(dropped)

    @rule(length=st.integers(0, SMALL))
    def truncate(self, length: int) -> None:
        self.region, dropped = truncate(self.region, length)
        self.model[length:] = [None] * (SMALL - length)
        self._note(dropped)

    @rule()
    def look(self) -> None:
        """Begin a compaction: read what is visible now."""
        self.looked = (self.region, list(self.model))

    @rule()
    def compact(self) -> None:
        """Finish the compaction, whatever happened in between."""
        old, shown = self.looked
        if not old.extents:
            return
        self.made += 1
        new = segment(self.made)
        start, end = old.extents[0].offset, old.end()
        made = compacted(self.region, old, new, [Write(start, end - start, 0)])
        was_cut = any(was is not None and now is None for was, now in zip(shown, self.model, strict=True))
        left = {known.id for known in old.segments} & {known.id for known in self.region.segments}
        if made is None:
            assert was_cut or not left
            return
        assert not was_cut
        self.region, dropped = made
        assert set(dropped) == left
        self.written.add(new.id)
        for index in range(start, end):
            if self.model[index] is None or self.model[index] == shown[index]:
                self.model[index] = (new.id, index - start)
        self._note(dropped)
        self.look()

    @rule(offset=st.integers(0, SMALL), length=st.integers(0, SMALL))
    def clear(self, offset: int, length: int) -> None:
        length = min(length, SMALL - offset)
        self.region, dropped = clear(self.region, offset, length)
        self.model[offset : offset + length] = [None] * length
        self._note(dropped)

    @rule(offset=st.integers(0, SMALL), length=st.integers(0, SMALL))
    def read(self, offset: int, length: int) -> None:
        shown = spans(self.region, offset, length)
        here = offset
        seen: list[tuple[bytes, int] | None] = []
        for span in shown:
            assert span.offset == here
            assert span.length > 0
            here += span.length
            for index in range(span.length):
                seen.append((span.segment.id, span.segment_offset + index) if span.segment else None)
        assert here == offset + length
        assert seen == (self.model + [None] * SMALL)[offset : offset + length]

    @invariant()
    def what_is_dropped_is_what_no_byte_shows(self) -> None:
        live = {shown[0] for shown in self.model if shown}
        assert {known.id for known in self.region.segments} == live
        assert set(self.dropped) == self.written - live
        assert len(self.dropped) == len(set(self.dropped))

    @invariant()
    def the_record_survives_being_stored(self) -> None:
        assert decode(encode(self.region)) == self.region

    @invariant()
    def the_end_is_that_of_the_last_byte_shown(self) -> None:
        assert self.region.end() == max((i + 1 for i, shown in enumerate(self.model) if shown), default=0)

    def _note(self, dropped: tuple[bytes, ...]) -> None:
        self.dropped.extend(dropped)


TestRegionMachine = RegionMachine.TestCase
TestRegionMachine.settings = settings(max_examples=60, stateful_step_count=25)


def test_a_small_write_in_the_middle() -> None:
    base, patch = segment(1, REGION_BYTES), segment(2, 4096)
    region, _ = overlay(EMPTY, base, [(0, REGION_BYTES, 0)])
    region, dropped = overlay(region, patch, [(8192, 4096, 0)])
    assert dropped == ()
    assert region.extents == (
        Extent(0, 8192, 0, 0),
        Extent(8192, 4096, 1, 0),
        Extent(12288, REGION_BYTES - 12288, 0, 12288),
    )
    assert spans(region, 8190, 6) == [Span(8190, 2, base, 8190), Span(8192, 4, patch, 0)]


def test_neighbours_of_one_segment_are_joined() -> None:
    region, _ = overlay(EMPTY, segment(1), [(10, 5, 0), (15, 5, 5), (20, 5, 40)])
    assert region.extents == (Extent(10, 10, 0, 0), Extent(20, 5, 0, 40))


def test_a_segment_written_over_is_dropped_once() -> None:
    region, _ = overlay(EMPTY, segment(1), [(0, 50, 0)])
    region, dropped = overlay(region, segment(2), [(0, 60, 0)])
    assert dropped == (segment(1).id,)
    assert truncate(region, 0) == (EMPTY, (segment(2).id,))
    assert truncate(EMPTY, 0) == (EMPTY, ())


@pytest.mark.parametrize(
    "write",
    [(-1, 5, 0), (0, SMALL + 1, 0), (0, 5, -1), (0, 10, SMALL - 5), (REGION_BYTES - 1, 2, 0), (0, -1, 0)],
)
def test_a_write_outside_region_or_segment_is_our_own_mistake(write: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="bytes at"):
        overlay(EMPTY, segment(1), [write])


def test_a_region_with_one_full_segment_is_small() -> None:
    full = Segment(bytes(range(16)), REGION_BYTES, ring(2), tuple(bytes([n]) * 32 for n in range(4)))  # type: ignore[arg-type]
    region, _ = overlay(EMPTY, full, [(0, REGION_BYTES, 0)])
    assert len(encode(region)) < 260
    assert decode(encode(region)) == region


def damaged() -> dict[str, Region]:
    good = segment(1)
    return {
        "format 2; this program knows format 1": Region(2, (), ()),
        "overlap": Region(1, (good,), (Extent(0, 5, 0, 0), Extent(4, 5, 0, 10))),
        "sorted, so overlap": Region(1, (good,), (Extent(10, 5, 0, 0), Extent(0, 5, 0, 10))),
        "extent of segment 1": Region(1, (good,), (Extent(0, 5, 1, 0),)),
        "beyond its segment": Region(1, (good,), (Extent(0, 5, 0, SMALL - 4),)),
        "extent of 2 bytes": Region(1, (good,), (Extent(REGION_BYTES - 1, 2, 0, 0),)),
        "extent of 0 bytes": Region(1, (good,), (Extent(0, 0, 0, 0),)),
        "no extent refers to": Region(1, (good,), ()),
        "twice": Region(1, (good, good), (Extent(0, 5, 0, 0), Extent(5, 5, 1, 0))),
        "id of 3 bytes": Region(1, (msgspec.structs.replace(good, id=b"abc"),), (Extent(0, 5, 0, 0),)),
        "segment code 9": Region(1, (msgspec.structs.replace(good, code=9),), (Extent(0, 5, 0, 0),)),
        "homes of P2": Region(
            1, (msgspec.structs.replace(good, homes=((1, 2), (), (1, 2), (1, 2))),), (Extent(0, 5, 0, 0),)
        ),
        "digest": Region(1, (msgspec.structs.replace(good, digests=(b"",) * 4),), (Extent(0, 5, 0, 0),)),
        "segment of 0 bytes": Region(1, (segment(1, 0),), (Extent(0, 5, 0, 0),)),
    }


@pytest.mark.parametrize("what", damaged())
def test_damaged_records_are_refused(what: str) -> None:
    with pytest.raises(OSError, match=what.rpartition("so ")[2]):
        decode(encode(damaged()[what]))


@pytest.mark.parametrize("data", [b"", b"\x93", b"hello", msgspec.msgpack.encode({"format": 1}), b"\x91" * 5000])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(OSError, match="cannot read the record of a file's data: "):
        decode(data)


def test_a_later_format_is_named_even_if_its_shape_differs() -> None:
    with pytest.raises(OSError, match=r"format 7; this program knows format 1"):
        decode(msgspec.msgpack.encode([7, "something else"]))


@given(st.binary(max_size=60))
def test_whatever_the_bytes_only_an_io_error(data: bytes) -> None:
    with contextlib.suppress(OSError):
        assert decode(data).format == extents.FORMAT
