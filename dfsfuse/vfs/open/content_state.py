"""What identifies a file's content in the map, so that it can be determined later whether others have changed it since.

The times of the inode do not suffice: a save sets them to the time of the write, which may be long ago; it may come in
several batches with the same time; and it sets no time at all if a program has set one since the write. So the records
of the regions about to be written to count: they name the segments, and no segment's id is ever reused. Of the inode,
the size, the number of stored bytes, mtime and ctime count, but not atime.

If a state equals an earlier one, nothing has changed. If it differs, the bytes may still be the same (a region was
compacted, the mode was changed). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
from blake3 import blake3

from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys

GetMany = Callable[[Sequence[bytes]], list[bytes | None] | None]
"""Returns the values of these keys; None if one of them is unknown."""


def of(ino: int, regions: Sequence[int], get_many: GetMany) -> bytes | None:
    """Return a digest of the state of this file, with these regions of it. None if there is no such inode, or if the
    state is unknown. Raises OSError (EIO) if the inode's record cannot be read."""
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
    """Return the regions whose content matters to a writer of bytes that begin at these places, none of
    which crosses a region boundary. What is appended overlays nothing."""
    return [] if is_appended else sorted({start // REGION_BYTES for start in starts})
