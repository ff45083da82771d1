"""A file's data in the map: puts, cuts and deletes region records within transactions.

The namespace layer keeps the inode, the data layer knows what is in a region record; the two meet here. What no extent
refers to any more is dropped in the same transaction.

Invariants of every committed state: no region record lies beyond the inode's size, none is empty, and the inode's
`stored_bytes` is what all extents cover (so 0 means that there are no records, and none has to be requested). One call
changes at most `STEP_REGIONS` records, so that its batch stays far below the limit.

Threads: any. `_remembering` guards the records that are remembered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

import msgspec

from dfs_server.protocol.batches import InlinePiece
from dfsfuse.common.portions import by_bytes
from dfsfuse.data import extents, runs
from dfsfuse.data.extents import EMPTY, REGION_BYTES, Region, Segment, Write, covered
from dfsfuse.data.placement import rotation_of_region
from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.namespace.ops import inodes
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.vfs.context import Written

STEP_REGIONS: Final = 256
FEW_REGIONS: Final = 16
"""Up to this many regions are requested by key, and deleted together with their file's last name."""
BATCH_BYTES: Final = 640 * 1024
"""Roughly how much patches add to one batch at most; the limit of the log is 2 MiB."""


Join = Callable[[Sequence[Segment], int], Written | None]
"""Makes one segment of these, with a rotation; None if that takes asking a server (`SegmentStore.joined`)."""

REMEMBERED: Final = 512
_remembered: dict[bytes, Region] = {}
"""Records that were last read or made: immutable values, and the same few are read over and over."""
_remembering: Final = threading.Lock()


def decode(data: bytes) -> Region:
    """Decode a region record. Raises OSError (EIO)."""
    region = _remembered.get(data)  # one operation on a dictionary needs no lock
    if region is None:
        region = extents.decode(data)
        _remember(data, region)
    return region


def _remember(data: bytes, region: Region) -> None:
    with _remembering:
        _remembered[data] = region
        if len(_remembered) > REMEMBERED:
            del _remembered[next(iter(_remembered))]


@dataclass(frozen=True)
class Patch:
    """A segment to overlay on a region of a file. `inline`: its pieces, if the batch is to carry them."""

    region: int
    segment: Segment
    inline: tuple[InlinePiece, ...]
    writes: tuple[Write, ...]

    @property
    def end(self) -> int:
        """Return the first byte of the file after it."""
        return self.region * REGION_BYTES + max(write.offset + write.length for write in self.writes)

    @property
    def cost_bytes(self) -> int:
        """Return roughly what it adds to a batch at most."""
        whole = len(self.writes) == 1 and self.writes[0].length == REGION_BYTES
        record = 400 if whole else 20_480 + 16 * len(self.writes)
        return record + sum(len(piece.data) + 128 for piece in self.inline)


def portions(patches: Sequence[Patch]) -> Iterator[list[Patch]]:
    """Yield the patches in order, in portions for one batch each."""
    return by_bytes(patches, BATCH_BYTES, attrgetter("cost_bytes"))


@dataclass(frozen=True)
class Saved:
    """The inode after patches were saved, and the regions that are now crowded."""

    inode: Inode
    crowded: tuple[int, ...]


def count(size: int) -> int:
    """Return how many regions a file of this size has."""
    return -(-size // REGION_BYTES)


def find(view: View, ino: int, inode: Inode, indexes: Sequence[int]) -> list[Region]:
    """Return these regions of a file; an empty one where there is no record."""
    if not inode.stored_bytes:
        return [EMPTY] * len(indexes)
    if len(indexes) == 1:  # a random reader's case
        value = view.get(keys.region(ino, indexes[0]))
        return [EMPTY if value is None else decode(value)]
    values = view.get_many([keys.region(ino, index) for index in indexes])
    return [EMPTY if value is None else decode(value) for value in values]


def is_short(inode: Inode) -> bool:
    """Return whether all of the file's regions are requested by key."""
    return not inode.stored_bytes or count(inode.size) <= FEW_REGIONS


def ask_for_short(view: View, files: Iterable[tuple[int, Inode]]) -> None:
    """Request all regions of the short ones among these files at once: file by file, each that is not cached would cost
    a round trip and a run of its own."""
    short = [(ino, count(inode.size)) for ino, inode in files if inode.stored_bytes and is_short(inode)]
    view.get_many([keys.region(ino, index) for ino, number in short for index in range(number)])


def find_all(view: View, ino: int, inode: Inode) -> list[tuple[int, Region]]:
    """Return all regions of a file that have a record, in order."""
    if not inode.stored_bytes:
        return []
    if is_short(inode):
        indexes = range(count(inode.size))
        found = find(view, ino, inode, indexes)
        return [(index, region) for index, region in zip(indexes, found, strict=True) if region.extents]
    return [(keys.index_of(key), decode(value)) for key, value in view.scan(*keys.all_regions(ino))]


def put(tx: Transaction, ino: int, index: int, region: Region, dropped: Sequence[bytes]) -> None:
    """Put a record (or delete it, if nothing is left in it) and drop these segments."""
    if region.extents:
        data = extents.encode(region)
        _remember(data, region)  # the next append reads it
        tx.put(keys.region(ino, index), data)
    else:
        tx.delete(keys.region(ino, index))
    for segment in dropped:
        tx.drop(segment)


def save(tx: Transaction, ino: int, inode: Inode, patches: Sequence[Patch], join: Join | None = None) -> Saved:
    """Overlay the patches on the regions as they are in this transaction, in order. Returns the inode with its new size
    and stored bytes, for the caller to save with whatever else changes.

    A single patch that comes right behind many small segments has these joined, where that is possible.
    """
    indexes = sorted({patch.region for patch in patches})
    regions = dict(zip(indexes, find(tx, ino, inode, indexes), strict=True))
    before = sum(map(covered, regions.values()))
    dropped: dict[int, list[bytes]] = {index: [] for index in indexes}
    joined = _joined(regions[indexes[0]], inode, patches[0], join) if join and len(patches) == 1 else ()
    for patch in (*joined, *patches):
        tx.carry(patch.inline)
        regions[patch.region], gone = extents.overlay(regions[patch.region], patch.segment, patch.writes)
        dropped[patch.region].extend(gone)
    for index in indexes:
        put(tx, ino, index, regions[index], dropped[index])
    inode = msgspec.structs.replace(
        inode,
        size=max(inode.size, *(patch.end for patch in patches)),
        stored_bytes=inode.stored_bytes + sum(map(covered, regions.values())) - before,
    )
    return Saved(inode, tuple(index for index in indexes if runs.is_crowded(regions[index])))


def _joined(region: Region, inode: Inode, patch: Patch, join: Join) -> Sequence[Patch]:
    """Return what replaces the small segments that lie right before this patch. The patch's own segment is never among
    them: if it becomes unknown whether its batch was made, the segment in the map tells."""
    found = runs.small_neighbours(region, patch.writes[0].offset)
    if not found:
        return ()
    rotation = rotation_of_region(inode.rotation or 0, patch.region)
    made = join([region.segments[extent.segment] for extent in found], rotation)
    if made is None:
        return ()
    return (Patch(patch.region, made.segment, made.inline, (Write(found[0].offset, made.segment.length, 0),)),)


def compact(tx: Transaction, ino: int, index: int, old: Region, patch: Patch) -> bool:
    """Put one segment, which holds what `old` showed of a region, in place of those that `old` is made of. What was
    written since stays on top. Returns whether it is done: not if the region was cut meanwhile."""
    inode = inodes.find(tx, ino)
    if inode is None:
        return False
    now = find(tx, ino, inode, [index])[0]
    made = runs.compacted(now, old, patch.segment, patch.writes)
    if made is None:
        return False
    region, dropped = made
    tx.carry(patch.inline)
    put(tx, ino, index, region, dropped)
    stored = inode.stored_bytes + covered(region) - covered(now)
    inodes.save(tx, ino, msgspec.structs.replace(inode, stored_bytes=stored))
    return True


def drop_unused(tx: Transaction, ino: int, segments: Sequence[tuple[int, bytes]]) -> None:
    """Drop those of these segments (region, id) that the file does not refer to. A batch of ours whose outcome was
    unknown is decided once this one commits: so what it may have made a part of the file is safe."""
    inode = inodes.find(tx, ino)
    indexes = sorted({index for index, _ in segments})
    known = [] if inode is None else find(tx, ino, inode, indexes)
    used = {segment.id for region in known for segment in region.segments}
    for _, segment in segments:
        if segment not in used:
            tx.drop(segment)


def resize(tx: Transaction, ino: int, inode: Inode, size: int) -> tuple[Inode, bool]:
    """Bring a file to this size, or a long one a step closer to it: shrinking goes from the end, so that each step
    leaves a prefix. Returns the inode as it is now, for the caller to save, and whether the size is reached."""
    first = count(size)
    found, complete = _last_records(tx, ino, inode, first)
    stored = inode.stored_bytes
    for index, region in found:
        put(tx, ino, index, EMPTY, [segment.id for segment in region.segments])
        stored -= covered(region)
    if not complete:
        size = found[0][0] * REGION_BYTES
    elif size < inode.size and size % REGION_BYTES:
        old = find(tx, ino, inode, [first - 1])[0]
        region, dropped = extents.truncate(old, size % REGION_BYTES)
        if region != old:
            put(tx, ino, first - 1, region, dropped)
            stored += covered(region) - covered(old)
    rotation = inode.rotation if size else None
    return msgspec.structs.replace(inode, size=size, stored_bytes=stored, rotation=rotation), complete


def crowded_end(view: View, ino: int, inode: Inode) -> list[int]:
    """Return the region in which the file ends, if it is crowded; for a caller that has just cut it there."""
    if not inode.size % REGION_BYTES:
        return []
    index = inode.size // REGION_BYTES
    return [index] if runs.is_crowded(find(view, ino, inode, [index])[0]) else []


def _last_records(view: View, ino: int, inode: Inode, first: int) -> tuple[list[tuple[int, Region]], bool]:
    """Return the records from region `first` on, at most the last `STEP_REGIONS`; and whether these are all.

    Examines windows from the end on, each twice as large as the one before: a sparse file may have any size.
    """
    end = count(inode.size)
    if not inode.stored_bytes or end <= first:
        return [], True
    if end - first <= FEW_REGIONS:
        indexes = range(first, end)
        regions = zip(indexes, find(view, ino, inode, indexes), strict=True)
        return [(index, region) for index, region in regions if region.extents], True
    found: list[tuple[int, Region]] = []
    window = STEP_REGIONS
    while end > first and len(found) <= STEP_REGIONS:
        start = max(first, end - window)
        items = view.scan(*keys.regions(ino, start, end))[-STEP_REGIONS - 1 :]
        found = [(keys.index_of(key), decode(value)) for key, value in items] + found
        end, window = start, window * 2
    return found[-STEP_REGIONS:], len(found) <= STEP_REGIONS
