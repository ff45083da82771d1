"""Inodes in the map: loading, saving and creating them. Pure operations on a view or transaction."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

import msgspec

from dfsfuse.errors import posix_error
from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.inode import Inode

NEAR_NS: Final = 1_000_000_000
"""The clocks of well-kept machines are less than this apart."""
LINKS_MAX: Final = 2**31 - 1
"""The largest number of names of a file, and of folders in one folder: as on XFS, and what FUSE and programs can
handle."""


def find(view: View, ino: int) -> Inode | None:
    """Return the inode, or None. The root always exists: until a transaction has created it, a default is returned."""
    data = view.get(keys.inode(ino))
    if data is None:
        return new_root(0) if ino == keys.ROOT else None
    return records.decode_inode(data)


def load(view: View, ino: int) -> Inode:
    """Return the inode. Raises OSError (ENOENT)."""
    found = find(view, ino)
    if found is None:
        raise posix_error(errno.ENOENT)
    return found


def load_directory(view: View, ino: int) -> Inode:
    """Return the inode of a directory. Raises OSError (ENOENT, ENOTDIR)."""
    found = load(view, ino)
    if not found.is_directory:
        raise posix_error(errno.ENOTDIR)
    return found


def find_many(view: View, inos: list[int]) -> list[Inode | None]:
    """Return several inodes, requested at once."""
    values = view.get_many([keys.inode(ino) for ino in inos])
    return [
        (new_root(0) if ino == keys.ROOT else None) if data is None else records.decode_inode(data)
        for ino, data in zip(inos, values, strict=True)
    ]


def ask_for(view: View, inos: list[int]) -> None:
    """Request the records of these at once, since they are about to be needed one after the other."""
    view.get_many([keys.inode(ino) for ino in inos])


def save(tx: Transaction, ino: int, inode: Inode) -> None:
    """Put the inode's record."""
    tx.put(keys.inode(ino), records.encode(inode))


def new(mode: int, uid: int, gid: int, now_ns: int, *, rdev: int = 0, target: bytes = b"", parent: int = 0) -> Inode:
    """Return a new inode with one name (a directory: its own `.` too)."""
    is_directory = stat.S_ISDIR(mode)
    return Inode(
        format=records.FORMAT,
        mode=mode,
        uid=uid,
        gid=gid,
        size=len(target),
        nlink=2 if is_directory else 1,
        rdev=rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0,
        atime_ns=now_ns,
        mtime_ns=now_ns,
        ctime_ns=now_ns,
        parent=parent if is_directory else 0,
        target=target,
    )


def new_root(now_ns: int) -> Inode:
    """Return the root of a new namespace: it belongs to the user of the client that first needs it."""
    return new(stat.S_IFDIR | 0o755, os.getuid(), os.getgid(), now_ns, parent=keys.ROOT)


def make_root(tx: Transaction, now_ns: int) -> Inode:
    """Return the root; it is created if the namespace is new."""
    if tx.get(keys.inode(keys.ROOT)) is None:
        save(tx, keys.ROOT, new_root(now_ns))
    return load(tx, keys.ROOT)


def check_links(nlink: int) -> int:
    """Return the number of links, if it is allowed to be that large. Raises OSError (EMLINK)."""
    if nlink > LINKS_MAX:
        raise posix_error(errno.EMLINK)
    return nlink


def change_time_ns(inode: Inode, now_ns: int) -> int:
    """The time of change of an inode that changes now. It is never the same twice, though several changes are made in
    one tick of the clock, or by clocks that are a little apart: a folder's tells whether a listing still holds. A time
    that lies far ahead is of a clock that was wrong, and does not stay."""
    is_near = now_ns <= inode.ctime_ns < now_ns + NEAR_NS
    return inode.ctime_ns + 1 if is_near else now_ns


def touched(inode: Inode, now_ns: int) -> Inode:
    """Return the inode of a directory whose entries have changed."""
    return msgspec.structs.replace(inode, mtime_ns=now_ns, ctime_ns=change_time_ns(inode, now_ns))
