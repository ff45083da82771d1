"""The records of the map's namespace keys: inodes and directory entries, as values and as bytes. Pure.

Records are immutable; a change is `msgspec.structs.replace`. They are MessagePack arrays with the format first, so that
fields can be added at the end. A record of another format is refused and never guessed at.
"""

from __future__ import annotations

import stat
from functools import lru_cache
from typing import Final

import msgspec

from dfsfuse.common import codec
from dfsfuse.common.codec import Codec

FORMAT: Final = 1
KNOWN_INODES: Final = 4096
KNOWN_MAX_BYTES: Final = 512
"""Number of inodes that are kept decoded, since the same few are read over and over; and the longest record of one
(extended attributes may be long)."""
TIME_MIN_NS: Final = -(2**63)
TIME_MAX_NS: Final = 2**64 - 1
"""The largest integer in MessagePack, in nanoseconds: covers 1677 to 2554."""


class Inode(msgspec.Struct, frozen=True, array_like=True):
    """What stat(2) tells of a file, and what it does not.

    `mode` holds the type as well. `size`: bytes of a file or of a link's target; for a directory, the number of its
    entries. `nlink`: names; for a directory 2 and one more for each folder in it. Invariant: no entry and no region
    lies beyond what `size` says.
    """

    format: int
    mode: int
    uid: int
    gid: int
    size: int
    nlink: int
    rdev: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    rotation: int | None = None
    """x of the file's first segment (DESIGN section 1); None as long as it has none."""
    stored_bytes: int = 0
    """Bytes that are not holes."""
    parent: int = 0
    """The folder that a folder is in; the root is in itself. 0 for anything that may have several names."""
    target: bytes = b""
    xattrs: dict[bytes, bytes] = {}

    @property
    def is_directory(self) -> bool:
        """Return whether it is a folder."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Return whether it is a regular file."""
        return stat.S_ISREG(self.mode)


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A name's inode, and the type bits of its mode (a type never changes), so that listing needs no inodes."""

    format: int
    ino: int
    type: int

    @property
    def is_directory(self) -> bool:
        """Return whether it is a folder."""
        return stat.S_ISDIR(self.type)

    @property
    def is_file(self) -> bool:
        """Return whether it is a regular file."""
        return stat.S_ISREG(self.type)


def clamped_time(time_ns: int) -> int:
    """Return the nearest time that a record can hold: as in local file systems, a time that is out of range is no
    error."""
    return min(max(time_ns, TIME_MIN_NS), TIME_MAX_NS)


_inodes = Codec(Inode, "an inode", FORMAT)
_entries = Codec(Entry, "a directory entry", FORMAT)
_known_inode = lru_cache(KNOWN_INODES)(_inodes.decode)

decode_entry: Final = _entries.decode


def encode(record: Inode | Entry) -> bytes:
    """The record as stored in the map."""
    return codec.encode(record)


def decode_inode(data: bytes) -> Inode:
    """Decode an inode. Raises OSError (EIO) if the bytes are not of this format."""
    return _known_inode(data) if len(data) <= KNOWN_MAX_BYTES else _inodes.decode(data)
