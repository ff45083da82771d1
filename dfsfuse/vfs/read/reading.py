"""read(): unsaved data over stored data over zeros.

What overlays what, through every state of a file's saving, is decided in unsaved.py. Nothing is locked while segments
are fetched; a segment that was replaced meanwhile is still available, since dropped pieces wait for a grace period.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from dfs_server.protocol.pieces import Buffer
from dfsfuse.data import extents
from dfsfuse.data.extents import REGION_BYTES, Region, Segment
from dfsfuse.errors import DfsError, posix_error
from dfsfuse.namespace.map.neighbours import Neighbours
from dfsfuse.namespace.map.transactions import View
from dfsfuse.namespace.ops import inodes
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.vfs.context import Context
from dfsfuse.vfs.open.open_file import OpenFile, Shown
from dfsfuse.vfs.read.access_times import AccessTimes
from dfsfuse.vfs.read.read_ahead import ReadAhead
from dfsfuse.vfs.write import regions, unsaved
from dfsfuse.vfs.write.unsaved import Place

PREFETCH_SEGMENTS_MAX: Final = 8
"""A region in more segments than this is not fetched ahead: it is used at random."""
SMALL_FILE_SEGMENTS_MAX: Final = 2
"""A neighbour in more segments than this is not fetched along."""


def _first_region(ino: int) -> bytes:
    return keys.region(ino, 0)


class _Stored(NamedTuple):
    """What the map says about a read."""

    inode: Inode
    regions: dict[int, Region]

    @property
    def size(self) -> int:
        return self.inode.size

    def region(self, index: int) -> Region:
        """Return one of the requested regions; an empty one beyond the end."""
        return self.regions.get(index, extents.EMPTY)


class _Answer:
    """A read in progress: what is still missing, and what was found."""

    def __init__(self, offset: int, end: int) -> None:
        self.gaps = [(offset, end)]
        self._parts: list[tuple[int, Buffer]] = []

    def add(self, start: int, data: Buffer) -> None:
        """Add bytes that were found."""
        self._parts.append((start, data))

    def fill(self, layer: Iterable[Shown], context: Context) -> None:
        """Take what is still missing from a layer, which is sorted."""
        left: list[tuple[int, int]] = []
        for start, end in self.gaps:
            at = start
            for shown in layer:
                low, high = max(at, shown.start), min(end, shown.start + shown.length)
                if low >= high:
                    continue
                if low > at:
                    left.append((at, low))
                self.add(low, _bytes_of(shown, low, high, context))
                at = high
            if at < end:
                left.append((at, end))
        self.gaps = left

    def data(self) -> bytes:
        """Return all of it, in order; nothing may be missing any more."""
        if len(self._parts) == 1:
            return bytes(self._parts[0][1])
        return b"".join(data for _, data in sorted(self._parts, key=lambda part: part[0]))


def _bytes_of(shown: Shown, low: int, high: int, context: Context) -> Buffer:
    at = low - shown.start
    if shown.data is not None:
        return shown.data[at : at + high - low]
    assert shown.segment is not None
    return context.segments.read(shown.segment, shown.segment_offset + at, high - low)


class Reader:
    """See the module."""

    def __init__(self, context: Context, access_times: AccessTimes) -> None:
        self._context = context
        self._access_times = access_times
        self._neighbours = Neighbours()

    def read(self, file: OpenFile, offset: int, size: int, ahead: ReadAhead, *, is_noticed: bool = True) -> bytes:
        """Return up to `size` bytes from `offset` on, fewer only at the end of the file. Raises IncompleteError if
        pieces of any of them are unreachable. `is_noticed`: it counts as an access."""
        if size <= 0:
            return b""
        with file.lock:
            fetch, written_ns = ahead.regions(offset, size), file.written_ns
        if offset == 0 and (neighbours := self._neighbours.of(file.ino)):
            with suppress(DfsError):  # it is a guess: what is asked for may be known anyway
                self._fetch(neighbours)
        layers, unsaved_end, stored = self._layers(file, offset, offset + size, fetch)
        if is_noticed:
            self._access_times.read(file.ino, stored.inode, written_ns)
        end = min(offset + size, max(stored.size, unsaved_end))
        if offset >= end:
            return b""
        for index in fetch:
            self._prefetch(stored.region(index))
        if not layers and (data := self._of_one_segment(stored, offset, end - offset)) is not None:
            return data
        answer = _Answer(offset, end)
        for layer in layers:
            answer.fill(layer, self._context)
        for gap in answer.gaps:
            self._add_stored(answer, stored, *gap)
        return answer.data()

    def _fetch(self, inos: Sequence[int]) -> None:
        """Bring the records of these files into memory, and the data of those that are small."""

        def look(view: View) -> list[bytes | None]:
            values = view.get_many([make(ino) for ino in inos for make in (keys.inode, _first_region)])
            return values[1::2]

        segments: list[Segment] = []
        for value in self._context.store.read(look, max_age_s=self._context.max_age_s):
            with suppress(OSError):  # a read of that file gets the error
                region = extents.EMPTY if value is None else regions.decode(value)
                segments += region.segments if len(region.segments) <= SMALL_FILE_SEGMENTS_MAX else ()
        self._context.segments.fetch_small(segments)

    def _layers(self, file: OpenFile, offset: int, end: int, ahead: range) -> tuple[list[list[Shown]], int, _Stored]:
        def take(place: Place) -> tuple[list[list[Shown]], int]:
            layers = file.layers(offset, end, place.by, place.without)
            unsaved_end = file.end_without(place.without)
            return layers, unsaved_end + place.by if unsaved_end else 0

        stored, (layers, unsaved_end) = unsaved.over(
            self._context, file, lambda view: self._look(view, file.ino, offset, end, ahead), take
        )
        return layers, unsaved_end, stored

    def _look(self, view: View, ino: int, offset: int, end: int, ahead: range) -> _Stored:
        inode = inodes.find(view, ino)
        if inode is None:
            raise posix_error(errno.ESTALE, "the file was removed by another mount")
        wanted: Sequence[int] = range(offset // REGION_BYTES, regions.count(min(end, inode.size)))
        if ahead:
            beyond = regions.count(inode.size)
            wanted = sorted({*wanted, *(index for index in ahead if index < beyond)})
        return _Stored(inode, dict(zip(wanted, regions.find(view, ino, inode, wanted), strict=True)))

    def _of_one_segment(self, stored: _Stored, offset: int, length: int) -> bytes | None:
        """Return these bytes of the file if nothing has to be assembled: a random reader's case."""
        index, at = divmod(offset, REGION_BYTES)
        if at + length > REGION_BYTES:
            return None
        first, *more = extents.spans(stored.region(index), at, length)
        if more or first.segment is None:
            return None
        return self._context.segments.read(first.segment, first.segment_offset, length)

    def _add_stored(self, answer: _Answer, stored: _Stored, start: int, end: int) -> None:
        while start < end:
            index, at = divmod(start, REGION_BYTES)
            length = min(end - start, REGION_BYTES - at)
            base = index * REGION_BYTES
            for span in extents.spans(stored.region(index), at, length):
                if span.segment is None:
                    answer.add(base + span.offset, bytes(span.length))
                else:
                    data = self._context.segments.read(span.segment, span.segment_offset, span.length)
                    answer.add(base + span.offset, data)
            start += length

    def _prefetch(self, region: Region) -> None:
        if len(region.segments) <= PREFETCH_SEGMENTS_MAX:
            for segment in region.segments:
                self._context.segments.prefetch(segment)
