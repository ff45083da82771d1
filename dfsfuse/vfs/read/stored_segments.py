"""Which segments files are made of, for many files at once: for listings that show what is reachable of them.

The records of all short files are requested together. A long file's are a range of the map, which costs a round trip of
its own if it is not cached: so only a few of these are examined in one read, far fewer than a read may have runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dfsfuse.common.portions import by_count
from dfsfuse.data.extents import Segment
from dfsfuse.namespace.map.transactions import View
from dfsfuse.namespace.ops import inodes
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.vfs.context import Context
from dfsfuse.vfs.write import regions

FILES_AT_ONCE: Final = 500
LONG_FILES_AT_ONCE: Final = 50


def stored_segments(context: Context, inos: Sequence[int]) -> dict[int, list[Segment]]:
    """Return the segments of each of these that is a regular file, as of one moment per file."""

    def short(view: View, portion: list[int]) -> tuple[dict[int, list[Segment]], list[int]]:
        files = _files(view, portion)
        long = [ino for ino, inode in files if not regions.is_short(inode)]
        regions.ask_for_short(view, files)
        return {ino: _segments(view, ino, inode) for ino, inode in files if regions.is_short(inode)}, long

    def whole(view: View, portion: list[int]) -> dict[int, list[Segment]]:
        return {ino: _segments(view, ino, inode) for ino, inode in _files(view, portion)}

    found: dict[int, list[Segment]] = {}
    left: list[int] = []
    for portion in by_count(inos, FILES_AT_ONCE):
        known, long = context.store.read(lambda view, at=portion: short(view, at), max_age_s=context.max_age_s)  # type: ignore[misc]
        found |= known
        left += long
    for portion in by_count(left, LONG_FILES_AT_ONCE):
        found |= context.store.read(lambda view, at=portion: whole(view, at), max_age_s=context.max_age_s)  # type: ignore[misc]
    return {ino: found[ino] for ino in inos if ino in found}


def _files(view: View, inos: list[int]) -> list[tuple[int, Inode]]:
    found = zip(inos, inodes.find_many(view, inos), strict=True)
    return [(ino, inode) for ino, inode in found if inode is not None and inode.is_file]


def _segments(view: View, ino: int, inode: Inode) -> list[Segment]:
    return [segment for _, region in regions.find_all(view, ino, inode) for segment in region.segments]
