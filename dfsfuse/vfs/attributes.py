"""What the Vfs gives and takes: attributes, changes to them, room. Values only.

Times are nanoseconds since 1970, sizes bytes, `blocks` units of 512 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dfsfuse.namespace.records import Inode

BLOCK_BYTES: Final = 512
_DIRECTORY_SIZE_BYTES: Final = 4096
"""What a folder shows as its size and takes of the disk: as ext4 does for a small one."""


@dataclass(frozen=True)
class Attributes:
    """What stat(2) says."""

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
    """What setattr is to change; None leaves it as it is."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True)
class DirectoryEntry:
    """One name of a listing. `offset` is where the listing goes on after it; `type` the type bits of a mode."""

    name: bytes
    ino: int
    type: int
    offset: int


@dataclass(frozen=True)
class Room:
    """How many bytes of files there is room for: each is counted once, though it is stored twice."""

    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Space:
    """What statvfs(3) says. Blocks have `block_bytes`."""

    block_bytes: int
    blocks: int
    free: int
    available: int
    files: int
    files_free: int
    name_max: int


def attributes_of(ino: int, inode: Inode) -> Attributes:
    """What the record says."""
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


def blocks(stored_bytes: int) -> int:
    """`st_blocks` for so many bytes."""
    return -(-stored_bytes // BLOCK_BYTES)
