"""Values -> bytes, in the kernel's format. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from dfsfuse.fusekernel import wire
from dfsfuse.fusekernel.values import Attributes, Entry, Listed, Lock, Opened, Space, TimedAttributes

NS_PER_S: Final = 10**9
PREFERRED_IO_BYTES: Final = 1 << 20
"""st_blksize: the preferred I/O size of programs."""
_DEVICE_MASK: Final = 2**32 - 1
_RECORD_ALIGNMENT: Final = 8
_NO_ATTRIBUTES: Final = (0,) * 16


@lru_cache(maxsize=64)
def split_seconds(timeout_s: float) -> tuple[int, int]:
    """(seconds, nanoseconds) of a timeout."""
    return divmod(max(round(timeout_s * NS_PER_S), 0), NS_PER_S)


def attr(found: Attributes) -> tuple[int, ...]:
    """The fields of struct fuse_attr."""
    atime_ns, mtime_ns, ctime_ns = found.atime_ns, found.mtime_ns, found.ctime_ns
    return (
        found.ino,
        found.size,
        found.blocks,
        atime_ns // NS_PER_S,
        mtime_ns // NS_PER_S,
        ctime_ns // NS_PER_S,
        atime_ns % NS_PER_S,
        mtime_ns % NS_PER_S,
        ctime_ns % NS_PER_S,
        found.mode,
        found.nlink,
        found.uid,
        found.gid,
        found.rdev & _DEVICE_MASK,
        PREFERRED_IO_BYTES,
        0,
    )


def _entry_fields(entry: Entry) -> tuple[int, ...]:
    entry_s, entry_ns = split_seconds(entry.entry_timeout_s)
    found = entry.attributes
    if found is None:
        return (0, 0, entry_s, 0, entry_ns, 0, *_NO_ATTRIBUTES)
    attr_s, attr_ns = split_seconds(entry.attributes_timeout_s)
    return (found.ino, entry.generation, entry_s, attr_s, entry_ns, attr_ns, *attr(found))


def entry_out(entry: Entry) -> bytes:
    """struct fuse_entry_out."""
    return wire.fuse_entry_out.pack(*_entry_fields(entry))


def attr_out(found: TimedAttributes) -> bytes:
    """struct fuse_attr_out."""
    seconds, nanoseconds = split_seconds(found.timeout_s)
    return wire.fuse_attr_out.pack(seconds, nanoseconds, 0, *attr(found.attributes))


def open_out(opened: Opened) -> bytes:
    """struct fuse_open_out."""
    return wire.fuse_open_out.pack(opened.handle, opened.flags, 0)


def statfs_out(space: Space) -> bytes:
    """struct fuse_statfs_out."""
    return wire.fuse_statfs_out.pack(
        space.blocks,
        space.free,
        space.available,
        space.files,
        space.files_free,
        space.block_bytes,
        space.name_max,
        space.block_bytes,
        0,
    )


def lock_out(lock: Lock) -> bytes:
    """struct fuse_lk_out."""
    return wire.fuse_lk_out.pack(lock.start, lock.end, lock.type, lock.pid)


def dirent_size(name: bytes, *, plus: bool) -> int:
    """FUSE_DIRENT_SIZE, FUSE_DIRENTPLUS_SIZE."""
    fixed = wire.fuse_direntplus.size if plus else wire.fuse_dirent.size
    return -(-(fixed + len(name)) // _RECORD_ALIGNMENT) * _RECORD_ALIGNMENT


def dirent(entry: Listed) -> bytes:
    """struct fuse_dirent followed by its name, padded."""
    fixed = wire.fuse_dirent.pack(entry.ino, entry.offset, len(entry.name), entry.type >> 12)
    return (fixed + entry.name).ljust(dirent_size(entry.name, plus=False), b"\0")


def direntplus(entry: Listed, found: Entry) -> bytes:
    """struct fuse_direntplus followed by its name, padded."""
    fixed = wire.fuse_direntplus.pack(*_entry_fields(found), entry.ino, entry.offset, len(entry.name), entry.type >> 12)
    return (fixed + entry.name).ljust(dirent_size(entry.name, plus=True), b"\0")
