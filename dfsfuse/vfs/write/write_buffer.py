"""Bytes of one file that were written and are not being uploaded yet: dirty intervals by region. Pure, without a lock.

Within a region intervals are sorted and neither overlap nor touch: what is written next to or over an interval becomes
part of it. Memory is what is dirty and no more: an interval is one bytearray that grows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

from dfs_server.protocol.pieces import Buffer
from dfsfuse.data.extents import REGION_BYTES


@dataclass
class Interval:
    """Dirty bytes from `start` on, which is relative to the beginning of the region."""

    start: int
    data: bytearray

    @property
    def end(self) -> int:
        """Return the first byte after it."""
        return self.start + len(self.data)


_start = attrgetter("start")


class WriteBuffer:
    """The dirty intervals of a file."""

    def __init__(self) -> None:
        self._regions: dict[int, list[Interval]] = {}
        self.dirty_bytes = 0

    def write(self, offset: int, data: Buffer) -> int:
        """Take these bytes. Returns by how much `dirty_bytes` grew."""
        before = self.dirty_bytes
        for region, at, part in by_region(offset, data):
            self._write(self._regions.setdefault(region, []), at, part)
        return self.dirty_bytes - before

    def _write(self, intervals: list[Interval], offset: int, data: memoryview) -> None:
        index = bisect_right(intervals, offset, key=_start) - 1
        if index >= 0 and intervals[index].end >= offset:
            here = intervals[index]
            old = len(here.data)
            at = offset - here.start
            inside = min(old - at, len(data))
            if inside:
                with memoryview(here.data) as view:  # a bytearray's own slice assignment copies the data twice
                    view[at : at + inside] = data[:inside]
            here.data += data[inside:]
            self.dirty_bytes += len(here.data) - old
        else:
            index += 1
            here = Interval(offset, bytearray(data))
            intervals.insert(index, here)
            self.dirty_bytes += len(data)
        while index + 1 < len(intervals) and intervals[index + 1].start <= here.end:
            following = intervals.pop(index + 1)
            self.dirty_bytes -= len(following.data)
            beyond = following.data[here.end - following.start :] if following.end > here.end else b""
            here.data += beyond
            self.dirty_bytes += len(beyond)

    def regions(self) -> list[int]:
        """Return the regions that have dirty bytes, in order."""
        return sorted(self._regions)

    def is_full(self, region: int) -> bool:
        """Return whether every byte of the region is dirty."""
        intervals = self._regions.get(region, [])
        return len(intervals) == 1 and len(intervals[0].data) == REGION_BYTES

    def intervals(self, region: int) -> int:
        """Return how many dirty intervals the region has."""
        return len(self._regions.get(region, ()))

    def take(self, region: int) -> list[Interval]:
        """Remove and return the region's intervals."""
        intervals = self._regions.pop(region, [])
        self.dirty_bytes -= sum(len(interval.data) for interval in intervals)
        return intervals

    def find(self, offset: int, end: int) -> list[tuple[int, bytes]]:
        """Return copies of what is dirty from `offset` to `end`: (offset in the file, bytes), in order."""
        found = []
        for region in range(offset // REGION_BYTES, -(-end // REGION_BYTES)):
            base = region * REGION_BYTES
            for interval in self._regions.get(region, ()):
                start, stop = max(offset - base, interval.start), min(end - base, interval.end)
                if start < stop:
                    found.append((base + start, bytes(interval.data[start - interval.start : stop - interval.start])))
        return found

    def start(self) -> int:
        """Return the first dirty byte of the file; something must be dirty."""
        first = min(self._regions)
        return first * REGION_BYTES + self._regions[first][0].start

    def end(self) -> int:
        """Return the first byte of the file after the last dirty one; 0 if nothing is dirty."""
        if not self._regions:
            return 0
        last = max(self._regions)
        return last * REGION_BYTES + self._regions[last][-1].end


def by_region(offset: int, data: Buffer) -> Iterator[tuple[int, int, memoryview]]:
    """Yield the data cut at region boundaries: (region, offset in it, bytes)."""
    view = memoryview(data)
    while view:
        region, at = divmod(offset, REGION_BYTES)
        part = view[: REGION_BYTES - at]
        yield region, at, part
        offset += len(part)
        view = view[len(part) :]
