"""When segments of a region are worth being replaced by one, and by which. Pure.

What a crowded region becomes: one segment of its stretches of data, with the holes between them preserved.

A region is crowded if one new segment would make its record, or what is stored on the servers, much smaller. What
cannot get smaller is left alone: a region of many stretches with holes between them has as many extents afterwards.

A hole counts from one whole block of the file on, as on a local disk; gaps between two writes to one block, or to
adjacent ones, are filled with zeros. So a region has at most `RUNS_MAX` stretches, however it was written, and its
record stays small.

Small segments that lie side by side, as appending makes them, are joined long before that, a few at a time, and joined
ones again with others as long, until they are no longer small. So each byte is written again a few times, and not with
each compaction of the region.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from dfsfuse.data.extents import EMPTY, REGION_BYTES, Extent, Region, Segment, Write, overlay, spans

HOLE_BYTES: Final = 4096
"""A block: the smallest hole, aligned to a multiple of this size."""
RUNS_MAX: Final = REGION_BYTES // HOLE_BYTES // 2
"""Each stretch but the last is followed by a block that is a hole, and lies in another block itself."""
SURPLUS_MAX: Final = 64
"""A region may have this many segments, and this many more extents than stretches."""
WASTE_MAX_BYTES: Final = 1024 * 1024
"""This many bytes of a region's segments need not be visible; nor need as many as are visible."""
NEIGHBOURS: Final = 8
"""So many small segments that lie side by side are joined."""
TINY_BYTES: Final = 4096
"""A segment up to this length is joined with any others."""
NEIGHBOUR_MAX_BYTES: Final = 16 * 1024
"""The largest segment that is joined with others, if these are as long together."""
JOINED_MAX_BYTES: Final = 128 * 1024
"""What they have together at most: it has to fit into a batch."""


def runs(region: Region) -> list[tuple[int, int]]:
    """Return the stretches of data (start, end) of a region, in order; two without a hole between them count as one."""
    found: list[tuple[int, int]] = []
    for extent in region.extents:
        if found and not is_hole(found[-1][1], extent.offset):
            found[-1] = (found[-1][0], extent.end)
        else:
            found.append((extent.offset, extent.end))
    return found


def is_hole(start: int, end: int) -> bool:
    """Return whether there is a whole block between these."""
    first = -(-start // HOLE_BYTES) * HOLE_BYTES
    return first + HOLE_BYTES <= end


def writes_of(region: Region) -> list[Write]:
    """Return where the stretches appear if one segment holds them one after the other."""
    writes: list[Write] = []
    length = 0
    for start, end in runs(region):
        writes.append(Write(start, end - start, length))
        length += end - start
    return writes


def is_crowded(region: Region) -> bool:
    """Return whether it is worthwhile to make one segment of it."""
    shown = sum([extent.length for extent in region.extents])
    if sum([segment.length for segment in region.segments]) - shown > max(shown, WASTE_MAX_BYTES):
        return True
    if len(region.segments) > SURPLUS_MAX:
        return True
    return len(region.extents) > SURPLUS_MAX and len(region.extents) - len(runs(region)) > SURPLUS_MAX


def compacted(
    region: Region, old: Region, segment: Segment, writes: Sequence[Write]
) -> tuple[Region, tuple[bytes, ...]] | None:
    """Return `region` with `segment`, which holds what `old` showed, in place of all segments of `old`; and their ids,
    to drop. What was written since overlays it, as it does now. None if some of the old bytes are no longer visible
    although nothing was written over them (the region was cut), or if nothing of `old` is left.
    """
    known = {made.id for made in old.segments}
    newer = [extent for extent in region.extents if region.segments[extent.segment].id not in known]
    kept = sum(extent.length for extent in region.extents) - sum(extent.length for extent in newer)
    hidden = sum(
        span.length for extent in newer for span in spans(old, extent.offset, extent.length) if span.segment is not None
    )
    if not kept or kept + hidden != sum(extent.length for extent in old.extents):
        return None
    made, _ = overlay(EMPTY, segment, writes)
    for number, writer in enumerate(region.segments):
        over = [Write(e.offset, e.length, e.segment_offset) for e in newer if e.segment == number]
        if over:
            made, _ = overlay(made, writer, over)
    there = {segment.id for segment in region.segments}
    return made, tuple([gone.id for gone in old.segments if gone.id in there])


def small_neighbours(region: Region, end: int) -> Sequence[Extent]:
    """Return the extents before byte `end` that are worth joining: small segments, each visible whole, that follow each
    other up to there without a gap, and none of them much larger than those behind it together; none if they are too
    few."""
    stop = first = bisect_left(region.extents, end, key=_by_offset)
    total = 0
    for extent in reversed(region.extents[:stop]):
        length = extent.length
        if extent.offset + length != end or length != region.segments[extent.segment].length:
            break
        if length > max(min(total, NEIGHBOUR_MAX_BYTES), TINY_BYTES) or total + length > JOINED_MAX_BYTES:
            break
        total += length
        end = extent.offset
        first -= 1
    return region.extents[first:stop] if stop - first >= NEIGHBOURS else ()


_by_offset: Final = attrgetter("offset")
