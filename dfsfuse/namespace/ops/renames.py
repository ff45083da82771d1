"""rename(2) in the map: moving, replacing, exchanging. Pure operations on a transaction; see directories.py."""

from __future__ import annotations

import errno
import stat
from typing import Final, NamedTuple

import msgspec

from dfsfuse.errors import posix_error
from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.namespace.ops import directories, inodes
from dfsfuse.namespace.ops.directories import Removed
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.inode import Entry, Inode

NOREPLACE: Final = 1
"""RENAME_NOREPLACE of <linux/fs.h>."""
EXCHANGE: Final = 2
"""RENAME_EXCHANGE of <linux/fs.h>."""
WHITEOUT: Final = 4
"""RENAME_WHITEOUT of <linux/fs.h>: an overlay needs it of its upper layer."""


class Whiteout(NamedTuple):
    """What is left at the old name: a device with the number 0, which shows an overlay that a name is removed."""

    ino: int
    inode: Inode


def whiteout(ino: int, uid: int, gid: int, now_ns: int) -> Whiteout:
    """Return one with this inode number."""
    return Whiteout(ino, inodes.new(stat.S_IFCHR, uid, gid, now_ns))


def rename(
    tx: Transaction,
    parent: int,
    name: bytes,
    new_parent: int,
    new_name: bytes,
    now_ns: int,
    flags: int = 0,
    left: Whiteout | None = None,
) -> Removed | None:
    """Move an entry; what was at the new name is replaced, and given back. With WHITEOUT `left` stays at the old one.

    Raises OSError: ENOENT, EEXIST (NOREPLACE), EINVAL (a folder into itself, unknown flags), EISDIR,
    ENOTDIR, ENOTEMPTY.
    """
    directories.check_name(name)
    directories.check_name(new_name)
    if flags not in (0, NOREPLACE, EXCHANGE, WHITEOUT, WHITEOUT | NOREPLACE):
        raise posix_error(errno.EINVAL)
    source = directories.lookup(tx, parent, name)
    directories.load_growing(tx, new_parent)
    target = directories.find(tx, new_parent, new_name)
    if flags == EXCHANGE:
        _exchange(tx, (parent, name, source), (new_parent, new_name, target), now_ns)
        return None
    if target is not None and flags & NOREPLACE:
        raise posix_error(errno.EEXIST)
    if source.is_directory:
        _check_not_inside(tx, source.ino, new_parent)
    if target is not None and target.ino == source.ino:
        return None
    removed = None
    if target is not None:
        removed = _make_way(tx, source, target, new_parent, new_name, now_ns)
    _move(tx, (parent, name, source), (new_parent, new_name), now_ns)
    if flags & WHITEOUT:
        assert left is not None
        directories.make(tx, parent, name, left.ino, left.inode, now_ns)
    return removed


def _make_way(tx: Transaction, source: Entry, target: Entry, parent: int, name: bytes, now_ns: int) -> Removed | None:
    if target.is_directory:
        if not source.is_directory:
            raise posix_error(errno.EISDIR)
        return directories.rmdir(tx, parent, name, now_ns)
    if source.is_directory:
        raise posix_error(errno.ENOTDIR)
    return directories.unlink(tx, parent, name, now_ns)


def _move(tx: Transaction, source: tuple[int, bytes, Entry], target: tuple[int, bytes], now_ns: int) -> None:
    """Move an entry to a free name."""
    parent, name, entry = source
    new_parent, new_name = target
    inode = _moved(inodes.load(tx, entry.ino), new_parent, now_ns)
    inodes.save(tx, entry.ino, inode)
    tx.delete(keys.entry(parent, name))
    directories.put_entry(tx, new_parent, new_name, entry.ino, inode)
    _count(tx, parent, -1, -inode.is_directory, now_ns)
    _count(tx, new_parent, +1, +inode.is_directory, now_ns)


def _exchange(
    tx: Transaction,
    one: tuple[int, bytes, Entry],
    other: tuple[int, bytes, Entry | None],
    now_ns: int,
) -> None:
    parent, name, source = one
    new_parent, new_name, target = other
    if target is None:
        raise posix_error(errno.ENOENT)
    if source.is_directory:
        _check_not_inside(tx, source.ino, new_parent)
    if target.is_directory:
        _check_not_inside(tx, target.ino, parent)
    if source.ino == target.ino:
        return
    for entry, to_parent, to_name in ((source, new_parent, new_name), (target, parent, name)):
        inode = _moved(inodes.load(tx, entry.ino), to_parent, now_ns)
        inodes.save(tx, entry.ino, inode)
        directories.put_entry(tx, to_parent, to_name, entry.ino, inode)
    folders = source.is_directory - target.is_directory
    _count(tx, parent, 0, -folders, now_ns)
    _count(tx, new_parent, 0, +folders, now_ns)


def _moved(inode: Inode, parent: int, now_ns: int) -> Inode:
    changed_ns = inodes.change_time_ns(inode, now_ns)
    return msgspec.structs.replace(inode, ctime_ns=changed_ns, parent=parent if inode.is_directory else 0)


def _count(tx: Transaction, ino: int, entries: int, folders: int, now_ns: int) -> None:
    folder = inodes.touched(inodes.load_directory(tx, ino), now_ns)
    nlink = inodes.check_links(folder.nlink + folders)
    inodes.save(tx, ino, msgspec.structs.replace(folder, size=folder.size + entries, nlink=nlink))


def _check_not_inside(view: View, ino: int, folder: int) -> None:
    """Raise OSError (EINVAL) if `folder` is the folder `ino` or is inside it."""
    while folder != keys.ROOT:
        if folder == ino:
            raise posix_error(errno.EINVAL)
        folder = inodes.load(view, folder).parent
    if ino == keys.ROOT:
        raise posix_error(errno.EINVAL)
