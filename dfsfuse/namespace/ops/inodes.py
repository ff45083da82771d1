"""Inodes in the map: loading, saving and making them. Pure operations on a view or transaction."""

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
"""Clocks of machines that are kept right are less than this apart."""
LINKS_MAX: Final = 2**31 - 1
"""At most so many names a file has, and so many folders are in one: as on XFS, and what FUSE and programs can take."""


def find(view: View, ino: int) -> Inode | None:
    """The inode, or None. The root is always there: as long as no transaction has made it, a default is given."""
    data = view.get(keys.inode(ino))
    if data is None:
        return new_root(0) if ino == keys.ROOT else None
    return records.decode_inode(data)


def load(view: View, ino: int) -> Inode:
    """The inode. Raises OSError (ENOENT)."""
    found = find(view, ino)
    if found is None:
        raise posix_error(errno.ENOENT)
    return found


def load_directory(view: View, ino: int) -> Inode:
    """The inode of a directory. Raises OSError (ENOENT, ENOTDIR)."""
    found = load(view, ino)
    if not found.is_directory:
        raise posix_error(errno.ENOTDIR)
    return found


def find_many(view: View, inos: list[int]) -> list[Inode | None]:
    """Several inodes, asked for at once."""
    values = view.get_many([keys.inode(ino) for ino in inos])
    return [
        (new_root(0) if ino == keys.ROOT else None) if data is None else records.decode_inode(data)
        for ino, data in zip(inos, values, strict=True)
    ]


def ask_for(view: View, inos: list[int]) -> None:
    """Have the records of these asked for at once, as somebody is about to want one after the other."""
    view.get_many([keys.inode(ino) for ino in inos])


def save(tx: Transaction, ino: int, inode: Inode) -> None:
    """Put the inode's record."""
    tx.put(keys.inode(ino), records.encode(inode))


def new(mode: int, uid: int, gid: int, now_ns: int, *, rdev: int = 0, target: bytes = b"", parent: int = 0) -> Inode:
    """A new inode with one name (a directory: its own `.` too)."""
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
    """The root of a new namespace: it belongs to who is running the client that needs it first."""
    return new(stat.S_IFDIR | 0o755, os.getuid(), os.getgid(), now_ns, parent=keys.ROOT)


def make_root(tx: Transaction, now_ns: int) -> Inode:
    """The root; made if the namespace is new."""
    if tx.get(keys.inode(keys.ROOT)) is None:
        save(tx, keys.ROOT, new_root(now_ns))
    return load(tx, keys.ROOT)


def check_links(nlink: int) -> int:
    """The number of links, if it may be so large. Raises OSError (EMLINK)."""
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
    """The inode of a directory whose entries have changed."""
    return msgspec.structs.replace(inode, mtime_ns=now_ns, ctime_ns=change_time_ns(inode, now_ns))
