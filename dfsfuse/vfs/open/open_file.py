"""A file that is open here: what was written to it and is not in the map yet. One per inode, shared by its handles.

Unsaved data is in one of three states. Dirty: in the write buffer. Sealed: taken out of it as one segment's worth
(`PendingSegment`), being uploaded or waiting for the batch that carries it. Uploaded: on its servers, but the map does
not refer to it yet. Dirty bytes overlay sealed ones, a sealed item overlays those sealed before it, and all of them
overlay what is stored.

Unsaved data either has places of its own or was appended, never a mixture: a writer of the other kind saves first.
Appended data is one run of bytes whose place is decided when it is committed (appending.py); until then it is kept at
the place where this mount believes the file to end, and in memory, since it may have to move.

Does no IO and never waits. Threads: `lock` guards every field but `commit_lock`, which is taken before `lock` and is
held during a whole flush or truncate, so that a file's batches are committed in the order of its writes. Callers hold
`lock` when they call a method.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from dfs_server.protocol.pieces import Buffer
from dfsfuse.data.extents import REGION_BYTES, Segment, Write
from dfsfuse.data.placement import rotation_of, rotation_of_region
from dfsfuse.data.segments import INLINE_SEGMENT_MAX_BYTES
from dfsfuse.namespace.map.losses import Losses
from dfsfuse.vfs.context import Written
from dfsfuse.vfs.write.regions import Patch
from dfsfuse.vfs.write.write_buffer import Interval, WriteBuffer

INTERVALS_MAX: Final = 256
"""A region with more dirty intervals is saved before more is accepted: its record has to fit into a batch."""


class Doubt(NamedTuple):
    """What is known of batches that failed, and may have been made nevertheless."""

    batches: tuple[int, ...] = ()
    """Their numbers, as far as they are known (`MapStore.was_made`)."""

    def also(self, batch: int | None) -> Doubt:
        """Return this, with one more of them; None: its number is unknown."""
        return self if batch is None else Doubt((*self.batches, batch))


@dataclass(eq=False)
class PendingSegment:
    """A segment that the map does not refer to yet. `data` is None once it is uploaded, and holds no memory."""

    region: int
    writes: tuple[Write, ...]
    length: int
    rotation: int
    data: Buffer | None
    written: Written | None = None
    upload: Future[None] | None = None
    began_ns: int = 0
    """When the upload of `written` began."""
    since_s: float = 0.0
    """When the oldest of its bytes was written, by a clock that is never set."""
    is_forgotten: bool = False
    """It is not wanted any more; an upload in progress frees its memory when it ends."""
    is_appended: bool = False
    """Its place is undecided; its data stays in memory until it is decided."""
    doubt: Doubt | None = None
    """Set once a batch with it has failed in a way that leaves open whether it is in the map, and where."""
    earlier: tuple[bytes, ...] = ()
    """Ids of segments with the same bytes that such a batch may have referred to, or that may have been swept. They are
    never reused (uploads.renew)."""
    spare: Written | None = None
    """A second segment with the same bytes, for appended data that may come to lie across a region boundary."""

    @property
    def start(self) -> int:
        """Return its first byte in the file."""
        return self.region * REGION_BYTES + self.writes[0].offset

    @property
    def end(self) -> int:
        """Return the first byte of the file after it."""
        last = self.writes[-1]
        return self.region * REGION_BYTES + last.offset + last.length

    @property
    def is_small(self) -> bool:
        """Return whether its pieces travel within a batch, so that nothing has to be uploaded first."""
        return self.length <= INLINE_SEGMENT_MAX_BYTES

    @property
    def held_bytes(self) -> int:
        """Return how much memory it holds."""
        return 0 if self.data is None else self.length

    def patch(self) -> Patch:
        """Return what to put into the map. It must be written."""
        assert self.written is not None
        return Patch(self.region, self.written.segment, self.written.inline, self.writes)


@dataclass(frozen=True)
class Shown:
    """Bytes of the file from `start` on in one layer: in memory (`data`), or those of `segment` from an offset on."""

    start: int
    length: int
    data: memoryview | None
    segment: Segment | None = None
    segment_offset: int = 0


@dataclass(eq=False)
class OpenFile:
    """See the module."""

    ino: int
    commit_lock: threading.Lock = field(default_factory=threading.Lock)
    lock: threading.Lock = field(default_factory=threading.Lock)
    buffer: WriteBuffer = field(default_factory=WriteBuffer)
    sealed: list[PendingSegment] = field(default_factory=list)
    dirty_since_s: dict[int, float] = field(default_factory=dict)
    """When the oldest dirty byte of each region was written."""
    rotation: int | None = None
    """x of the first segment, as stored or as decided here."""
    written_ns: int | None = None
    """When it was last written to, if that is not saved yet and no other time has been set since."""
    is_appended: bool = False
    """Whether the unsaved data was appended, rather than written to places of its own."""
    error: Exception | None = None
    """Why saving in the background failed; raised by the next write or flush. The data is still
    there."""
    losses: Losses[OSError] = field(default_factory=Losses)
    """Why data was given up; reported once through each handle."""
    writes: int = 0
    """How often it was written to since it was opened here."""
    appends: int = 0
    """Incremented when a batch with appended data is about to be committed, and when its outcome is known: so it is odd
    while it is unknown whether the map that is read has that data (unsaved.py)."""
    cuts: int = 0
    """The same for cutting the file to nothing, which gives up unsaved data."""
    is_unlinked: bool = False
    """Whether its last name was removed by this mount: it is deleted when its last handle is closed."""
    is_commit_due: bool = False
    """Whether a commit in the background is pending."""
    is_seal_due: bool = False
    """Whether that commit is to save all of the file, however recent."""
    is_kept: bool = False
    """Whether a commit in the background failed: the file is pinned until its data is saved after all."""
    mappable: int = 0
    """Number of handles through which a program could write through a shared mapping (O_RDWR)."""
    pins: int = 0
    """Number of handles and others that need it. Guarded by the lock of the table that it is in."""

    @property
    def is_unsaved(self) -> bool:
        """Return whether there is anything that the map does not have."""
        return bool(self.sealed or self.buffer.dirty_bytes or self.written_ns is not None)

    @property
    def has_data(self) -> bool:
        """Return whether there is unsaved data."""
        return bool(self.sealed or self.buffer.dirty_bytes)

    @property
    def start(self) -> int:
        """Return the first byte of unsaved data, of which there must be some."""
        return self.start_without(())

    def start_without(self, items: Collection[PendingSegment]) -> int:
        """Return the first byte of unsaved data other than these items, of which there must be some."""
        starts = [item.start for item in self.sealed if item not in items]
        if self.buffer.dirty_bytes:
            starts.append(self.buffer.start())
        return min(starts)

    @property
    def end(self) -> int:
        """Return the first byte after all unsaved data; 0 if there is none."""
        return self.end_without(())

    def end_without(self, items: Collection[PendingSegment]) -> int:
        """Return the first byte after all unsaved data other than these items; 0 if there is none."""
        return max(self.buffer.end(), *(item.end for item in self.sealed if item not in items), 0)

    @property
    def unsaved_bytes(self) -> int:
        """Return how many bytes are unsaved."""
        return self.buffer.dirty_bytes + sum(item.length for item in self.sealed)

    @property
    def unsaved_since_s(self) -> float | None:
        """Return when the oldest unsaved byte was written; None if there is none."""
        return min([*self.dirty_since_s.values(), *(item.since_s for item in self.sealed)], default=None)

    def write(self, offset: int, data: Buffer, now_ns: int, now_s: float) -> tuple[int, list[PendingSegment]]:
        """Take these bytes. Returns by how much the dirty ones grew, and regions that became full and are now
        sealed."""
        grown = self.buffer.write(offset, data)
        self.written_ns = now_ns
        self.writes += 1
        touched = range(offset // REGION_BYTES, (offset + len(data) - 1) // REGION_BYTES + 1)
        for region in touched:
            self.dirty_since_s.setdefault(region, now_s)
        return grown, [self.seal(region) for region in touched if self.buffer.is_full(region)]

    def begin(self, *, is_append: bool) -> bool:
        """Prepare to write: what is written next is appended, or has a place of its own. Returns False if there is
        unsaved data of the other kind."""
        if not self.has_data:
            self.is_appended = is_append
        return self.is_appended == is_append

    def appended(self, items: list[PendingSegment], place: int) -> list[PendingSegment]:
        """Record that these items, the first of what was appended, are now in the map, from `place` on. What was
        appended since follows them. Returns the items that are no longer sealed because of that."""
        by = place - items[0].start
        self.sealed = [item for item in self.sealed if item not in items]
        return self.unseal(by) if by else []

    def unseal(self, by: int = 0) -> list[PendingSegment]:
        """Make appended data dirty again, shifted by this many bytes. Returns the items that were sealed."""
        since_s = self.unsaved_since_s
        items, self.sealed = self.sealed, []
        parts = [(item.start, item.data) for item in items]
        parts += [
            (region * REGION_BYTES + interval.start, interval.data)
            for region in self.buffer.regions()
            for interval in self.buffer.take(region)
        ]
        for start, data in parts:
            assert data is not None
            self.buffer.write(start + by, data)
        self.dirty_since_s = dict.fromkeys(self.buffer.regions(), 0.0 if since_s is None else since_s)
        for item in items:
            item.data = None  # an upload in progress has its own reference, and no memory to give back
            item.is_forgotten = True
        return items

    def seal(self, region: int) -> PendingSegment:
        """Take the region's dirty bytes out of the buffer: they become one segment."""
        item = _pack(region, self.buffer.take(region))
        assert item.data is not None
        if self.rotation is None:
            self.rotation = rotation_of(item.data)
        item.rotation = rotation_of_region(self.rotation, region)
        item.is_appended = self.is_appended
        item.since_s = self.dirty_since_s.pop(region)
        self.sealed.append(item)
        return item

    def seal_all(self, until_s: float = math.inf) -> None:
        """Seal every region that has dirty bytes written until then."""
        for region in self.buffer.regions():
            if self.dirty_since_s[region] <= until_s:
                self.seal(region)

    def ready(self, until_s: float) -> list[PendingSegment]:
        """Return the first sealed items: up to the last one written until then, and those that follow and are
        uploaded."""
        count = max((number for number, item in enumerate(self.sealed, 1) if item.since_s <= until_s), default=0)
        up = itertools.takewhile(lambda item: item.written is not None, self.sealed[count:])
        return [*self.sealed[:count], *up]

    def is_crowded(self, offset: int) -> bool:
        """Return whether the region there has enough dirty intervals that it should be saved."""
        return self.buffer.intervals(offset // REGION_BYTES) > INTERVALS_MAX

    def take_error(self) -> Exception | None:
        """Return the pending error, once."""
        error, self.error = self.error, None
        return error

    def layers(self, offset: int, end: int, by: int = 0, without: Collection[PendingSegment] = ()) -> list[list[Shown]]:
        """Return what unsaved data shows from `offset` to `end`: the top layer first, each sorted. `by`: all of it is
        shifted by this many bytes. `without`: these items are in the map already."""
        if by:
            layers = self.layers(offset - by, end - by, without=without)
            return [[replace(shown, start=shown.start + by) for shown in layer] for layer in layers]
        layers = [
            [Shown(at, len(data), memoryview(data)) for at, data in self.buffer.find(max(offset, 0), max(end, 0))]
        ]
        for item in reversed(self.sealed):
            base = item.region * REGION_BYTES
            if base < end and base + REGION_BYTES > offset and item not in without:
                layers.append([_shown(item, base, write) for write in item.writes])
        return [layer for layer in layers if layer]


def _pack(region: int, intervals: list[Interval]) -> PendingSegment:
    """Make one segment of all these intervals; a single one is not copied."""
    writes, length = [], 0
    for interval in intervals:
        writes.append(Write(interval.start, len(interval.data), length))
        length += len(interval.data)
    data = intervals[0].data if len(intervals) == 1 else b"".join(interval.data for interval in intervals)
    return PendingSegment(region, tuple(writes), length, 0, data)


def _shown(item: PendingSegment, base: int, write: Write) -> Shown:
    start = base + write.offset
    if item.data is not None:
        data = memoryview(item.data)[write.segment_offset : write.segment_offset + write.length]
        return Shown(start, write.length, data)
    assert item.written is not None
    return Shown(start, write.length, None, item.written.segment, write.segment_offset)
