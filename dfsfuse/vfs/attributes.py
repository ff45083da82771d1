"""The values that go into and out of the Vfs: attributes, changes to them, room. Values only.

Times are nanoseconds since 1970, sizes are bytes, `blocks` are units of 512 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from dfsfuse.namespace.records.inode import Inode

BLOCK_BYTES: Final = 512
SPACE_BLOCK_BYTES: Final = 4096
"""The unit in which statvfs(3) counts, unless there are too many of them."""
SPACE_BLOCKS_MAX: Final = 2**32 - 1
"""The largest number of blocks: a 32-bit program's statfs(2) fails with EOVERFLOW if there are more."""
_DIRECTORY_SIZE_BYTES: Final = 4096
"""The size and disk usage shown for a folder: the same as for a small one on ext4."""


class Attributes(msgspec.Struct, frozen=True):
    """The answer to stat(2)."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    rdev: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    blocks: int
    generation: int = 1


@dataclass(frozen=True)
class AttributeChanges:
    """What setattr should change; None leaves a field as it is."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


class DirectoryEntry(msgspec.Struct, frozen=True):
    """One name of a listing. `offset` is where the listing continues after it; `type` has the type bits of a mode."""

    name: bytes
    ino: int
    type: int
    offset: int


@dataclass(frozen=True)
class Room:
    """How many bytes of files there is room for: each byte is counted once, though it is stored twice."""

    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Space:
    """The answer to statvfs(3). Blocks have `block_bytes`. `files` and `files_free` are 0 where there is no limit, as
    on btrfs; `df -i` then shows no percentage."""

    block_bytes: int
    blocks: int
    free: int
    available: int
    name_max: int
    files: int = 0
    files_free: int = 0


def attributes_of(ino: int, inode: Inode) -> Attributes:
    """Return the attributes that the record holds."""
    if inode.is_directory:
        size, stored = _DIRECTORY_SIZE_BYTES, _DIRECTORY_SIZE_BYTES
    else:
        size, stored = inode.size, inode.stored_bytes
    return Attributes(
        ino=ino,
        mode=inode.mode,
        nlink=inode.nlink,
        uid=inode.uid,
        gid=inode.gid,
        size=size,
        rdev=inode.rdev,
        atime_ns=inode.atime_ns,
        mtime_ns=inode.mtime_ns,
        ctime_ns=inode.ctime_ns,
        blocks=blocks(stored),
    )


def space_of(room: Room, name_max: int) -> Space:
    """Return the answer to statvfs(3) for this much room. Blocks are as large as needed for their number to fit into 32
    bits.

    Inodes are not counted: nothing limits them, and a count would be one key that every create and unlink changes.
    """
    block_bytes = SPACE_BLOCK_BYTES
    while max(room.total_bytes, room.free_bytes) // block_bytes > SPACE_BLOCKS_MAX:
        block_bytes *= 2
    free = room.free_bytes // block_bytes
    return Space(block_bytes, room.total_bytes // block_bytes, free, free, name_max)


def blocks(stored_bytes: int) -> int:
    """Return `st_blocks` for this many bytes."""
    return -(-stored_bytes // BLOCK_BYTES)
