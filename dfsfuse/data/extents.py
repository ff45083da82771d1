"""A region's record: which bytes of which segments are visible in 4 MiB of a file. Pure.

A region holds extents, sorted and never overlapping, and a table of the segments they refer to. Writing lays the bytes
of a new segment over what was there (`overlay`); what lies between extents is a hole and reads as zeros. A segment that
no extent refers to any more leaves the table, and its id is returned to the caller once, to drop it in the same batch.

Knows nothing of files, keys, or where a region ends for its file (that is the inode's size).

Invariants of every `Region` (created here, or accepted by `decode`): extents are sorted by offset, do not overlap, lie
within REGION_BYTES and each within its segment; every segment in the table is referred to by at least one extent.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from dfs_server.protocol.batches import DIGEST_BYTES, SEGMENT_ID_BYTES
from dfs_server.protocol.pieces import PIECE_NUMBERS
from dfsfuse.common import codec
from dfsfuse.common.codec import Codec
from dfsfuse.data.placement import Homes
from dfsfuse.data.striping import SEGMENT_MAX_BYTES
from dfsfuse.errors import posix_error

FORMAT: Final = 1
REGION_BYTES: Final = 4 * 1024 * 1024
CODE_PAIRS: Final = 0

Digests = tuple[bytes, bytes, bytes, bytes]


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """A segment as the metadata knows it.

    `homes`: for P1..P4 the ids of the servers that acknowledged it. `digests`: their level-two digests. `code`: how the
    pieces make up the data; 0, so far the only one, is the mission's pairs.
    """

    id: bytes
    length: int
    homes: Homes
    digests: Digests
    code: int = CODE_PAIRS


class Extent(msgspec.Struct, frozen=True, array_like=True):
    """States that `length` bytes at `offset` of the region are those at `segment_offset` of segment number
    `segment`."""

    offset: int
    length: int
    segment: int
    segment_offset: int

    @property
    def end(self) -> int:
        """Return the first byte after it, in the region."""
        return self.offset + self.length


class Region(msgspec.Struct, frozen=True, array_like=True):
    """A region record. Immutable: every change creates a new one."""

    format: int
    segments: tuple[Segment, ...]
    extents: tuple[Extent, ...]

    def end(self) -> int:
        """Return where the last extent ends; 0 if there is none."""
        return self.extents[-1].end if self.extents else 0


EMPTY: Final = Region(FORMAT, (), ())


class Span(NamedTuple):
    """A run of a region's bytes: from one segment, or a hole (`segment` is None)."""

    offset: int
    length: int
    segment: Segment | None
    segment_offset: int


class Write(NamedTuple):
    """`length` bytes at `segment_offset` of a new segment, to appear at `offset` of the region."""

    offset: int
    length: int
    segment_offset: int


def covered(region: Region) -> int:
    """Return how many bytes of a region are not holes."""
    return sum([extent.length for extent in region.extents])


def overlay(
    region: Region, segment: Segment, writes: Iterable[tuple[int, int, int]]
) -> tuple[Region, tuple[bytes, ...]]:
    """Return `region` overlaid with parts of `segment`, one per write (offset in the region, length, offset in the
    segment); where writes overlap, the later one wins. Also returns the ids of the segments that no extent refers to
    any more: to drop.
    """
    segments = region.segments
    index = next((i for i, known in enumerate(segments) if known.id == segment.id), len(segments))
    is_behind = index == len(segments)
    if is_behind:
        segments = (*segments, segment)
    extents, end = list(region.extents), region.end()
    for offset, length, segment_offset in writes:
        _check_range(offset, length)
        if segment_offset < 0 or segment_offset + length > segment.length:
            raise ValueError(f"{length} bytes at {segment_offset} of a segment of {segment.length}")
        if length:
            if offset < end:
                extents = _cut(extents, offset, offset + length)
                is_behind = False
            extents.append(Extent(offset, length, index, segment_offset))
            end = max(end, offset + length)
    if is_behind and len(extents) == len(region.extents) + 1:  # as appending does: nothing else is concerned
        return Region(FORMAT, segments, tuple(extents)), ()
    return _tidy(segments, extents)


def clear(region: Region, offset: int, length: int) -> tuple[Region, tuple[bytes, ...]]:
    """Return `region` with a hole in place of these bytes, and the ids of the segments to drop."""
    _check_range(offset, length)
    return _tidy(region.segments, _cut(region.extents, offset, offset + length))


def truncate(region: Region, length: int) -> tuple[Region, tuple[bytes, ...]]:
    """Return the first `length` bytes of `region`, and the ids of the segments to drop."""
    return clear(region, length, REGION_BYTES - length)


def spans(region: Region, offset: int, length: int) -> list[Span]:
    """Return what is visible at these bytes of the region: spans in order that cover exactly the requested range."""
    _check_range(offset, length)
    found: list[Span] = []
    here, end = offset, offset + length
    start = max(bisect_right(region.extents, offset, key=lambda extent: extent.offset) - 1, 0)
    for extent in region.extents[start:]:
        if extent.offset >= end or here == end:
            break
        if extent.end <= here:
            continue
        if extent.offset > here:
            found.append(Span(here, extent.offset - here, None, 0))
            here = extent.offset
        stop = min(extent.end, end)
        segment_offset = extent.segment_offset + here - extent.offset
        found.append(Span(here, stop - here, region.segments[extent.segment], segment_offset))
        here = stop
    if here < end:
        found.append(Span(here, end - here, None, 0))
    return found


def _check_range(offset: int, length: int) -> None:
    if offset < 0 or length < 0 or offset + length > REGION_BYTES:
        raise ValueError(f"{length} bytes at {offset} do not lie in a region of {REGION_BYTES}")


def _cut(extents: Sequence[Extent], start: int, end: int) -> list[Extent]:
    """Return the extents without what they cover from `start` to `end`."""
    kept = []
    for extent in extents:
        if extent.end <= start or extent.offset >= end:
            kept.append(extent)
            continue
        if extent.offset < start:
            kept.append(Extent(extent.offset, start - extent.offset, extent.segment, extent.segment_offset))
        if extent.end > end:
            skipped = end - extent.offset
            kept.append(Extent(end, extent.end - end, extent.segment, extent.segment_offset + skipped))
    return kept


def _tidy(segments: tuple[Segment, ...], extents: Iterable[Extent]) -> tuple[Region, tuple[bytes, ...]]:
    """Return a region of these: sorted, neighbours joined, the table without unreferenced segments."""
    joined: list[Extent] = []
    last: Extent | None = None
    for extent in sorted(extents, key=_by_offset):
        if last is not None and last.segment == extent.segment and _continues(last, extent):
            last = Extent(last.offset, last.length + extent.length, last.segment, last.segment_offset)
            joined[-1] = last
        else:
            last = extent
            joined.append(extent)
    used = sorted({extent.segment for extent in joined})
    if len(used) == len(segments):
        return Region(FORMAT, segments, tuple(joined)), ()
    place = {old: new for new, old in enumerate(used)}
    region = Region(
        FORMAT,
        tuple(segments[old] for old in used),
        tuple(Extent(e.offset, e.length, place[e.segment], e.segment_offset) for e in joined),
    )
    return region, tuple(segment.id for old, segment in enumerate(segments) if old not in place)


_by_offset: Final = attrgetter("offset")


def _continues(left: Extent, right: Extent) -> bool:
    return (
        left.end == right.offset
        and left.segment == right.segment
        and left.segment_offset + left.length == right.segment_offset
    )


# ------------------------------------------------------------------ as bytes

_records = Codec(Region, "a file's data", FORMAT)


def encode(region: Region) -> bytes:
    """The record as stored in the map."""
    return codec.encode(region)


def decode(data: bytes) -> Region:
    """Decode a record, which may come from anyone or from another version. Raises OSError (EIO)."""
    region = _records.decode(data)
    problem = _problem(region)
    if problem:
        raise posix_error(errno.EIO, f"cannot read the record of a file's data: {problem}")
    return region


def _problem(region: Region) -> str | None:
    for segment in region.segments:
        problem = _segment_problem(segment)
        if problem:
            return problem
    if len({segment.id for segment in region.segments}) < len(region.segments):
        return "a segment is in the table twice"
    return _extents_problem(region)


def _segment_problem(segment: Segment) -> str | None:
    if len(segment.id) != SEGMENT_ID_BYTES:
        return f"a segment's id of {len(segment.id)} bytes"
    if not 0 < segment.length <= SEGMENT_MAX_BYTES:
        return f"a segment of {segment.length} bytes"
    if segment.code != CODE_PAIRS:
        return f"segment code {segment.code}; this program knows {CODE_PAIRS}"
    if any(len(digest) != DIGEST_BYTES for digest in segment.digests):
        return "a digest of the wrong length"
    for number, home in zip(PIECE_NUMBERS, segment.homes, strict=True):
        if not home or min(home) < 1 or len(set(home)) < len(home):
            return f"homes of P{number}: {home}"
    return None


def _extents_problem(region: Region) -> str | None:
    for extent in region.extents:
        if extent.length < 1 or extent.offset < 0 or extent.end > REGION_BYTES:
            return f"an extent of {extent.length} bytes at {extent.offset}"
        if not 0 <= extent.segment < len(region.segments):
            return f"an extent of segment {extent.segment} of {len(region.segments)}"
        if not 0 <= extent.segment_offset <= region.segments[extent.segment].length - extent.length:
            return f"an extent from byte {extent.segment_offset} on, beyond its segment"
    if any(left.end > right.offset for left, right in pairwise(region.extents)):
        return "extents that overlap"
    if {extent.segment for extent in region.extents} != set(range(len(region.segments))):
        return "a segment that no extent refers to"
    return None
