"""The place of appended data is decided within the transaction that commits it: at the end that the file has there.

Until then it is kept as if it began where this mount believes the file to end, cut into segments at the boundaries of
regions. If others have appended meanwhile, it moves as a whole: its segments are laid elsewhere as they are. One that
would cross a boundary in its new place needs a spare, a second segment with the same bytes: each of the two regions
then refers to one of them, so that a segment still belongs to one region.

All of a file's appended data is committed in one batch, so no record (what one write() call gave) is ever torn.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from dfsfuse.data.extents import REGION_BYTES, Write
from dfsfuse.errors import posix_error
from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.vfs.context import FILE_MAX_BYTES
from dfsfuse.vfs.open.open_file import PendingSegment
from dfsfuse.vfs.write import regions
from dfsfuse.vfs.write.regions import Join, Patch, Saved


class Laid(NamedTuple):
    """Where appended data begins in the map, and what else a batch has to do. `saved` None: it was already there."""

    place: int
    saved: Saved | None


def lay(
    tx: Transaction,
    ino: int,
    inode: Inode,
    items: Sequence[PendingSegment],
    join: Join | None = None,
    *,
    was_made: bool = False,
) -> Laid | None:
    """Lay these items, which follow one another, at the end of the file. None, and nothing is changed: one of them
    would cross a border of regions, and has no spare. `was_made`: a batch of ours that laid them, and whose fate was
    not known, is known to be made. Raises OSError (EFBIG)."""
    place = inode.size
    length = sum(item.length for item in items)
    if any(item.doubt is not None for item in items):
        found = place_of(tx, ino, inode, items[0])
        if found is None and was_made:
            # Others have since compacted that part of the file, overwritten it or cut it off.
            found = max(0, inode.size - length)
        if found is not None:
            for item in items:  # their new segments are not needed
                if not (patch := item.patch()).inline:
                    tx.drop(patch.segment.id)
            return Laid(found, None)
    if place + length > FILE_MAX_BYTES:
        raise posix_error(errno.EFBIG)
    by = place - items[0].start
    if any(_crosses(item, by) and item.spare is None for item in items):
        return None
    patches = [patch for item in items for patch in _moved(item, by)]
    saved = regions.save(tx, ino, inode, patches, join)
    used = {patch.segment.id for patch in patches}
    for item in items:
        if item.spare is not None and not item.spare.inline and item.spare.segment.id not in used:
            tx.drop(item.spare.segment.id)
        for segment in item.earlier:
            tx.drop(segment)
    return Laid(place, saved)


def place_of(view: View, ino: int, inode: Inode, item: PendingSegment) -> int | None:
    """Where a batch of ours, whose fate was not known, has laid this item; None if it has not. A client that commits
    after such a batch knows: it is in the log by now, or never will be."""
    made = () if item.written is None else (item.written.segment.id,)
    ids = {*item.earlier, *made}
    for index, region in regions.find_all(view, ino, inode):
        for extent in region.extents:
            if region.segments[extent.segment].id in ids:
                return index * REGION_BYTES + extent.offset - extent.segment_offset
    return None


def _crosses(item: PendingSegment, by: int) -> bool:
    return (item.start + by) % REGION_BYTES + item.length > REGION_BYTES


def _moved(item: PendingSegment, by: int) -> Iterator[Patch]:
    """Yield the item's patch (or two, if it crosses a boundary), shifted by this many bytes."""
    region, at = divmod(item.start + by, REGION_BYTES)
    if not _crosses(item, by):
        yield replace(item.patch(), region=region, writes=(Write(at, item.length, 0),))
        return
    room = REGION_BYTES - at
    assert item.spare is not None
    yield replace(item.patch(), region=region, writes=(Write(at, room, 0),))
    rest = Write(0, item.length - room, room)
    yield Patch(region + 1, item.spare.segment, item.spare.inline, (rest,))
