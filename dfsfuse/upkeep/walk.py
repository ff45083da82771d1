"""The walk over all region records: which segments exist, of which files, and which rotation places them.

Knows keys and records of files' data; knows no servers and no pieces. What is found is as of the slot that the reader's
`begin` gave, or of later ones, page by page: a record that existed at that slot, and still does when its page is read,
is in the walk. A segment never moves from one record to another, so one that is missing from a complete walk is either
unreferenced or newer than the walk's beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dfsfuse.data import extents
from dfsfuse.data.extents import Region
from dfsfuse.data.placement import Homes, ring, rotation_of_region
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys
from dfsfuse.upkeep.map_reader import Pages


@dataclass(frozen=True)
class RegionRecord:
    """A record of a region of a file, as it was read."""

    key: bytes
    region: Region | None
    """None: it is of another format or damaged. Then it is unknown which segments it refers to."""
    rotation: int | None
    """x of the file's first segment. None: the file has none, or is gone, or its record cannot be read."""

    @property
    def ino(self) -> int:
        """The file's inode number."""
        return keys.number_in(self.key)

    @property
    def index(self) -> int:
        """Return which region of the file it is."""
        return keys.index_of(self.key)

    def ring(self) -> Homes | None:
        """Return where the pieces of its segments belong; None if unknown."""
        return None if self.rotation is None else ring(rotation_of_region(self.rotation, self.index))


def walk(pages: Pages, inos: Iterable[int] | None = None) -> Iterator[list[RegionRecord]]:
    """Yield all region records, or those of some files, in pages. Call `pages.begin` first. Raises UnavailableError."""
    ranges = [keys.all_files_regions()] if inos is None else (keys.all_regions(ino) for ino in inos)
    for start, end in ranges:
        for page in pages.pages(start, end):
            yield _with_rotations(pages, page)


def _with_rotations(pages: Pages, page: list[tuple[bytes, bytes]]) -> list[RegionRecord]:
    inos = sorted({keys.number_in(key) for key, _ in page})
    values = pages.values([keys.inode(ino) for ino in inos])
    rotations = {ino: _rotation(value) for ino, value in zip(inos, values, strict=True)}
    return [RegionRecord(key, _region(value), rotations[keys.number_in(key)]) for key, value in page]


def _region(value: bytes) -> Region | None:
    try:
        return extents.decode(value)
    except OSError:
        return None


def _rotation(value: bytes | None) -> int | None:
    if value is None:
        return None
    try:
        return records.decode_inode(value).rotation
    except OSError:
        return None
