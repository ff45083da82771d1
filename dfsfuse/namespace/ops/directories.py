"""Directories in the map: looking up, creating and removing names. Pure operations on a view or transaction.

Each does what Linux' file systems do, errno by errno; permissions are checked by the kernel (default_permissions) and
not here. A name is 1 to 255 bytes without NUL and slash, and neither `.` nor `..`.

Invariants of every committed state: an entry's inode exists; a directory's `size` is the number of its entries and its
`nlink` is 2 plus one per folder in it; another inode's `nlink` is the number of its names; whoever changes a
directory's entries puts its inode too (so that two clients who change one directory notice each other).

Removing a name does not delete an inode: that is for the caller, which is told when the last name is gone (nlink 0). A
folder without a name may live on for those who still have it open, but gets no entries any more.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from dfsfuse.errors import posix_error
from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.namespace.ops import inodes
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.inode import Entry, Inode

NAME_MAX_BYTES: Final = 255
TARGET_MAX_BYTES: Final = 4095


Step = tuple[int, bytes, int]
"""A folder, a name in it, and the inode that it was looked up to be."""
Route = Sequence[Step]
"""The names by which somebody has reached one or more inodes, in any order."""


class Removed(NamedTuple):
    """A name that was removed, and its inode as it is now; with nlink 0 the caller must delete it."""

    ino: int
    inode: Inode


def check_name(name: bytes) -> None:
    """Raise OSError (ENOENT, EINVAL, ENAMETOOLONG) if this is not a valid name."""
    if not name:
        raise posix_error(errno.ENOENT)
    if len(name) > NAME_MAX_BYTES:
        raise posix_error(errno.ENAMETOOLONG)
    if name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise posix_error(errno.EINVAL)


def find(view: View, parent: int, name: bytes) -> Entry | None:
    """Return the entry, or None; whether the directory exists is not checked."""
    check_name(name)
    data = view.get(keys.entry(parent, name))
    return None if data is None else records.decode_entry(data)


def find_many(view: View, parent: int, names: Sequence[bytes]) -> list[Entry | None]:
    """Return several entries, requested at once."""
    values = view.get_many([keys.entry(parent, name) for name in names])
    return [None if data is None else records.decode_entry(data) for data in values]


def lookup(view: View, parent: int, name: bytes) -> Entry:
    """Return the entry. Raises OSError (ENOENT, ENOTDIR)."""
    found = find(view, parent, name)
    if found is None:
        inodes.load_directory(view, parent)
        raise posix_error(errno.ENOENT)
    return found


def check_route(view: View, route: Route) -> None:
    """Raise OSError (ESTALE) if one of these names no longer leads to the same inode."""
    for folder, name, ino in route:
        data = view.get(keys.entry(folder, name))
        if data is None or records.decode_entry(data).ino != ino:
            raise posix_error(errno.ESTALE)


def scan(view: View, ino: int) -> list[tuple[bytes, Entry]]:
    """Return all entries of a directory, by name, in one pass."""
    return [(keys.name_of(key), records.decode_entry(data)) for key, data in view.scan(*keys.entries(ino))]


def put_entry(tx: Transaction, parent: int, name: bytes, ino: int, inode: Inode) -> None:
    """Set an entry. For the operations of this package, which keep the invariants."""
    tx.put(keys.entry(parent, name), records.encode(Entry(records.FORMAT, ino, stat.S_IFMT(inode.mode))))


def load_growing(view: View, ino: int) -> Inode:
    """Return a folder that is to get an entry. Raises OSError (ENOENT, also if it is removed; ENOTDIR)."""
    folder = inodes.load_directory(view, ino)
    if not folder.nlink:
        raise posix_error(errno.ENOENT)
    return folder


def make(tx: Transaction, parent: int, name: bytes, ino: int, inode: Inode, now_ns: int) -> Inode:
    """A new inode under a name that must be free. In a set-group-id folder it gets the folder's group, and folders
    the bit too. Gives the inode as it is now. Raises OSError (EEXIST, ENOENT, ENOTDIR...)."""
    folder = load_growing(tx, parent)
    if find(tx, parent, name) is not None:
        raise posix_error(errno.EEXIST)
    if folder.mode & stat.S_ISGID:
        mode = inode.mode | stat.S_ISGID if inode.is_directory else inode.mode
        inode = msgspec.structs.replace(inode, gid=folder.gid, mode=mode)
    inodes.save(tx, ino, inode)
    put_entry(tx, parent, name, ino, inode)
    inodes.save(tx, parent, _grown(folder, inode, now_ns))
    return inode


def link(tx: Transaction, ino: int, parent: int, name: bytes, now_ns: int) -> Inode:
    """Add a name to an inode. Raises OSError (EPERM for a folder, EEXIST, ENOENT, EMLINK...)."""
    check_name(name)
    folder = load_growing(tx, parent)
    inode = inodes.load(tx, ino)
    if find(tx, parent, name) is not None:
        raise posix_error(errno.EEXIST)
    if inode.is_directory:
        raise posix_error(errno.EPERM)
    if not inode.nlink:
        raise posix_error(errno.ENOENT)
    changed_ns = inodes.change_time_ns(inode, now_ns)
    inode = msgspec.structs.replace(inode, nlink=inodes.check_links(inode.nlink + 1), ctime_ns=changed_ns)
    inodes.save(tx, ino, inode)
    put_entry(tx, parent, name, ino, inode)
    inodes.save(tx, parent, _grown(folder, inode, now_ns))
    return inode


def unlink(tx: Transaction, parent: int, name: bytes, now_ns: int) -> Removed:
    """Remove a name of anything but a folder. Raises OSError (ENOENT, EISDIR)."""
    entry = lookup(tx, parent, name)
    if entry.is_directory:
        raise posix_error(errno.EISDIR)
    folder = inodes.load_directory(tx, parent)
    inode = _unnamed(inodes.load(tx, entry.ino), now_ns)
    inodes.save(tx, entry.ino, inode)
    tx.delete(keys.entry(parent, name))
    inodes.save(tx, parent, _shrunk(folder, inode, now_ns))
    return Removed(entry.ino, inode)


def rmdir(tx: Transaction, parent: int, name: bytes, now_ns: int) -> Removed:
    """Remove an empty folder. It goes with its name, unless the caller saves its inode (without names) again.
    Raises OSError (ENOENT, ENOTDIR, ENOTEMPTY)."""
    entry = lookup(tx, parent, name)
    if not entry.is_directory:
        raise posix_error(errno.ENOTDIR)
    inode = inodes.load(tx, entry.ino)
    if inode.size:
        raise posix_error(errno.ENOTEMPTY)
    folder = inodes.load_directory(tx, parent)
    tx.delete(keys.inode(entry.ino))
    tx.delete(keys.entry(parent, name))
    inodes.save(tx, parent, _shrunk(folder, inode, now_ns))
    changed_ns = inodes.change_time_ns(inode, now_ns)
    return Removed(entry.ino, msgspec.structs.replace(inode, nlink=0, ctime_ns=changed_ns))


def replace(tx: Transaction, parent: int, name: bytes, ino: int, inode: Inode, now_ns: int) -> Removed | None:
    """Put a file that has no name yet in the place of whatever file has this one, if any; gives that.
    Raises OSError (EISDIR, ENOENT...)."""
    check_name(name)
    folder = load_growing(tx, parent)
    old = find(tx, parent, name)
    inodes.save(tx, ino, inode)
    put_entry(tx, parent, name, ino, inode)
    if old is None:
        inodes.save(tx, parent, _grown(folder, inode, now_ns))
        return None
    if old.is_directory:
        raise posix_error(errno.EISDIR)
    removed = _unnamed(inodes.load(tx, old.ino), now_ns)
    inodes.save(tx, old.ino, removed)
    inodes.save(tx, parent, inodes.touched(folder, now_ns))
    return Removed(old.ino, removed)


def _unnamed(inode: Inode, now_ns: int) -> Inode:
    return msgspec.structs.replace(inode, nlink=inode.nlink - 1, ctime_ns=inodes.change_time_ns(inode, now_ns))


def _grown(folder: Inode, inode: Inode, now_ns: int) -> Inode:
    """Return the folder after `inode` got a name in it."""
    nlink = inodes.check_links(folder.nlink + inode.is_directory)
    return msgspec.structs.replace(inodes.touched(folder, now_ns), size=folder.size + 1, nlink=nlink)


def _shrunk(folder: Inode, inode: Inode, now_ns: int) -> Inode:
    """Return the folder after a name of `inode` was removed."""
    return msgspec.structs.replace(
        inodes.touched(folder, now_ns), size=folder.size - 1, nlink=folder.nlink - inode.is_directory
    )
