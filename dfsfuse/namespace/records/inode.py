"""The records of the map's namespace keys: inodes and directory entries, as values and as bytes. Pure.

Records are immutable; a change is `msgspec.structs.replace`. They are MessagePack arrays with the format first, so that
fields can be added at the end. A record of another format is refused and never guessed at.
"""

from __future__ import annotations

import errno
import stat
from functools import lru_cache
from typing import Final

import msgspec

FORMAT: Final = 1
KNOWN_INODES: Final = 4096
KNOWN_MAX_BYTES: Final = 512
"""Number of inodes that are kept as they were decoded, since the same few are read over and over; and the longest
record of one (extended attributes may be long)."""
TIME_MIN_NS: Final = -(2**63)
TIME_MAX_NS: Final = 2**64 - 1
"""What MessagePack's whole numbers hold, in nanoseconds: from 1677 to 2554."""


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
    """The folder that a folder is in; the root is in itself. 0 for what may have several names."""
    target: bytes = b""
    xattrs: dict[bytes, bytes] = {}

    @property
    def is_directory(self) -> bool:
        """Is it a folder?"""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Is it a regular file?"""
        return stat.S_ISREG(self.mode)


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A name's inode, and the type bits of its mode (a type never changes), so that listing needs no inodes."""

    format: int
    ino: int
    type: int

    @property
    def is_directory(self) -> bool:
        """Is it a folder?"""
        return stat.S_ISDIR(self.type)

    @property
    def is_file(self) -> bool:
        """Is it a regular file?"""
        return stat.S_ISREG(self.type)


def clamped_time(time_ns: int) -> int:
    """The nearest time that a record can hold: as with local file systems, a time that is too far off is no error."""
    return min(max(time_ns, TIME_MIN_NS), TIME_MAX_NS)


_encoder = msgspec.msgpack.Encoder()
_inodes = msgspec.msgpack.Decoder(Inode)
_entries = msgspec.msgpack.Decoder(Entry)


def encode(record: Inode | Entry) -> bytes:
    """The record as stored in the map."""
    return _encoder.encode(record)


def decode_inode(data: bytes) -> Inode:
    """The inode in these bytes. Raises OSError (EIO) if they are none of this format."""
    return _known_inode(data) if len(data) <= KNOWN_MAX_BYTES else _decode_inode(data)


def _decode_inode(data: bytes) -> Inode:
    try:
        record = _inodes.decode(data)
    except UNREADABLE as error:
        raise unreadable("an inode", data, FORMAT, error) from error
    if record.format != FORMAT:
        raise unreadable("an inode", data, FORMAT)
    return record


_known_inode = lru_cache(KNOWN_INODES)(_decode_inode)


def decode_entry(data: bytes) -> Entry:
    """The entry in these bytes. Raises OSError (EIO) if they are none of this format."""
    try:
        record = _entries.decode(data)
    except UNREADABLE as error:
        raise unreadable("a directory entry", data, FORMAT, error) from error
    if record.format != FORMAT:
        raise unreadable("a directory entry", data, FORMAT)
    return record


UNREADABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""What decoding bytes raises that are not as expected."""


def unreadable(what: str, data: bytes, known: int, error: Exception | None = None) -> OSError:
    """EIO with a sentence: the record's format, if it is not the one that is known (a newer client's record may have
    fields of other types); else what is wrong with it."""
    why = str(error)
    try:
        found = msgspec.msgpack.decode(data)
    except UNREADABLE:
        found = None
    if isinstance(found, list) and found and type(found[0]) is int and found[0] != known:
        why = f"format {found[0]}; this program knows format {known}"
    return OSError(errno.EIO, f"cannot read the record of {what}: {why}")
