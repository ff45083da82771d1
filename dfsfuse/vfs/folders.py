"""Listing folders: opendir, readdir, releasedir.

opendir() takes a snapshot of the newest state in one pass; offsets count its entries, so they are stable. The inodes of
what is listed are fetched along with the listing, many at a time: who lists usually asks for their attributes next.

Threads: `_lock` guards the handles; a snapshot never changes.
"""

from __future__ import annotations

import errno
import itertools
import stat
import threading
from collections.abc import Iterator, Sequence
from typing import Final

from dfsfuse.namespace import directories, inodes
from dfsfuse.namespace.inodes import error
from dfsfuse.namespace.losses import Witness
from dfsfuse.namespace.records import Entry, Inode
from dfsfuse.namespace.transactions import View
from dfsfuse.vfs.access_times import AccessTimes
from dfsfuse.vfs.attributes import DirectoryEntry
from dfsfuse.vfs.context import Context
from dfsfuse.vfs.incomplete import Incomplete

INODES_AT_ONCE: Final = 1000


class Folders:
    """See the module."""

    def __init__(self, context: Context, incomplete: Incomplete, access_times: AccessTimes) -> None:
        self._context = context
        self._incomplete = incomplete
        self._access_times = access_times
        self._lock = threading.Lock()
        self._handles: dict[int, list[DirectoryEntry]] = {}
        self._unread: dict[int, tuple[int, Inode]] = {}
        """The folders, by handle, that were opened and not read yet."""
        self._witnesses: dict[int, Witness] = {}
        """Who, by handle, knows which changes of names were lost."""
        self._numbers = itertools.count(1)

    def open(self, ino: int) -> int:
        """A handle on a snapshot. Raises OSError (ENOENT, ENOTDIR)."""

        def work(view: View) -> tuple[Inode, list[tuple[bytes, Entry]]]:
            inode = inodes.load_directory(view, ino)
            entries = directories.scan(view, ino) if inode.size else []
            inodes.find_many(view, [entry.ino for _, entry in entries[:INODES_AT_ONCE]])
            return inode, entries

        inode, entries = self._context.store.read(work)
        names = self._incomplete.names(entries)
        listing = [(b".", ino, stat.S_IFDIR), (b"..", inode.parent, stat.S_IFDIR)]
        listing += [(name, entry.ino, entry.type) for name, (_, entry) in zip(names, entries, strict=True)]
        snapshot = [DirectoryEntry(*item, offset=place) for place, item in enumerate(listing, start=1)]
        witness = self._context.store.witness()
        with self._lock:
            number = next(self._numbers)
            self._handles[number] = snapshot
            self._unread[number] = ino, inode
            self._witnesses[number] = witness
            return number

    def is_open(self, ino: int) -> bool:
        """Has anybody here got the folder open?"""
        with self._lock:
            return any(snapshot[0].ino == ino for snapshot in self._handles.values())

    def read(self, number: int, offset: int) -> Iterator[DirectoryEntry]:
        """The entries of the snapshot from `offset` on, `.` and `..` first."""
        with self._lock:
            snapshot = self._handles.get(number)
            unread = self._unread.pop(number, None)
        if snapshot is None:
            raise error(errno.EBADF)
        if unread is not None:
            self._access_times.read(*unread)
        return self._entries(snapshot, offset)

    def _entries(self, snapshot: Sequence[DirectoryEntry], offset: int) -> Iterator[DirectoryEntry]:
        for place in range(max(offset, 0), len(snapshot)):
            if place >= INODES_AT_ONCE and place % INODES_AT_ONCE == 0:
                self._fetch_inodes(snapshot[place : place + INODES_AT_ONCE])
            yield snapshot[place]

    def _fetch_inodes(self, portion: Sequence[DirectoryEntry]) -> None:
        self._context.store.read(
            lambda view: inodes.find_many(view, [entry.ino for entry in portion]),
            max_age_s=self._context.max_age_s,
        )

    def sync(self, number: int) -> None:
        """fsync(2): all changes of names are durable. Raises what kept one of them from it, once by each handle."""
        with self._lock:
            witness = self._witnesses.get(number)
        if witness is None:
            raise error(errno.EBADF)
        self._context.store.flush(witness)

    def close(self, number: int) -> None:
        """Forget the snapshot."""
        with self._lock:
            self._unread.pop(number, None)
            self._witnesses.pop(number, None)
            if self._handles.pop(number, None) is None:
                raise error(errno.EBADF)

    def list(self, ino: int) -> list[tuple[bytes, int, Inode]]:
        """The newest state of a folder: real names, inodes and their records, in one pass."""

        def work(view: View) -> list[tuple[bytes, int, Inode]]:
            inodes.load_directory(view, ino)
            entries = directories.scan(view, ino)
            records = inodes.find_many(view, [entry.ino for _, entry in entries])
            return [
                (name, entry.ino, inode)
                for (name, entry), inode in zip(entries, records, strict=True)
                if inode is not None
            ]

        return self._context.store.read(work)
