"""What identifies a file's content in the map, so that it can be told later whether others have changed it since.

The times of the inode do not suffice: a save sets them to the time of the write, which may be long ago; it may come in
several batches with the same time; and it sets no time at all if a program has set one since the write. So the records
of those regions count that somebody is going to write to: they name the segments, and no segment's id is used again. Of
the inode count the size, the number of stored bytes, and its times of change (mtime, ctime); not that of access.

A state that is equal to an earlier one is that state. One that differs may show the same bytes all the same (a region
was compacted, the mode was changed). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
from blake3 import blake3

from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys

GetMany = Callable[[Sequence[bytes]], list[bytes | None] | None]
"""The values of these keys; None if one of them is not known."""


def of(ino: int, regions: Sequence[int], get_many: GetMany) -> bytes | None:
    """A digest of the state of this file, with these regions of it. None if there is no such inode, or if the state is
    not known. Raises OSError (EIO) if the inode's record cannot be read."""
    found = get_many([keys.inode(ino)])
    if found is None or found[0] is None:
        return None
    inode = records.decode_inode(found[0])
    stored = get_many([keys.region(ino, index) for index in regions]) if inode.stored_bytes and regions else []
    if stored is None:
        return None
    state = (inode.size, inode.stored_bytes, inode.mtime_ns, inode.ctime_ns, stored)
    return blake3(msgspec.msgpack.encode(state)).digest()


def regions_written(starts: Iterable[int], *, is_appended: bool) -> list[int]:
    """The regions whose content counts for who is going to write bytes that begin at these places, none of which
    crosses a border of regions. What is appended is laid over nothing."""
    return [] if is_appended else sorted({start // REGION_BYTES for start in starts})
