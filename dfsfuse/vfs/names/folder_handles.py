"""Listing folders: opendir, readdir, releasedir.

opendir() takes a snapshot of the newest state in one pass; offsets count its entries, so they are stable. The inodes of
the listed entries are fetched along with the listing, many at a time: programs that list a folder usually ask for
attributes next.

Reading from offset 0 starts over, as rewinddir(3) promises: what was made and removed since is visible. The first read
of a handle uses the snapshot that opendir() took unless the folder has changed; a program may have held the folder open
for a long time before listing it. Every later read from offset 0 takes a new snapshot of the newest state.

Threads: `_lock` guards the handles and their fields; a snapshot never changes.
"""

from __future__ import annotations

import errno
import itertools
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from dfsfuse.errors import posix_error
from dfsfuse.namespace.map.losses import Witness
from dfsfuse.namespace.map.transactions import View
from dfsfuse.namespace.ops import directories, inodes
from dfsfuse.namespace.records.inode import Entry, Inode
from dfsfuse.vfs.attributes import DirectoryEntry
from dfsfuse.vfs.context import Context
from dfsfuse.vfs.health.incomplete import Incomplete
from dfsfuse.vfs.read.access_times import AccessTimes

INODES_AT_ONCE: Final = 1000


@dataclass(frozen=True)
class _Snapshot:
    """A folder as it was at one moment."""

    inode: Inode
    entries: list[DirectoryEntry]

    def shows(self, inode: Inode) -> bool:
        """Return whether these are still the folder's entries: every change of one changes its ctime."""
        then = self.inode
        return (then.mtime_ns, then.ctime_ns, then.size) == (inode.mtime_ns, inode.ctime_ns, inode.size)


@dataclass(eq=False)
class _Handle:
    """One opening of a folder."""

    ino: int
    snapshot: _Snapshot
    witness: Witness
    """Knows which changes of names were lost."""
    was_read: bool = False


class FolderHandles:
    """See the module."""

    def __init__(self, context: Context, incomplete: Incomplete, access_times: AccessTimes) -> None:
        self._context = context
        self._incomplete = incomplete
        self._access_times = access_times
        self._lock = threading.Lock()
        self._handles: dict[int, _Handle] = {}
        self._numbers = itertools.count(1)

    def open(self, ino: int) -> int:
        """Return a handle on a snapshot. Raises OSError (ENOENT, ENOTDIR)."""
        handle = _Handle(ino, self._take_snapshot(ino), self._context.store.witness())
        with self._lock:
            number = next(self._numbers)
            self._handles[number] = handle
            return number

    def _take_snapshot(self, ino: int) -> _Snapshot:
        """Read the newest state in one pass."""

        def work(view: View) -> tuple[Inode, list[tuple[bytes, Entry]]]:
            inode = inodes.load_directory(view, ino)
            entries = directories.scan(view, ino) if inode.size else []
            self._incomplete.check_listing(inode, entries)
            inodes.ask_for(view, [entry.ino for _, entry in entries[:INODES_AT_ONCE]])
            return inode, entries

        inode, entries = self._context.store.read(work)
        names = self._incomplete.names(entries)
        listing = [(b".", ino, stat.S_IFDIR), (b"..", inode.parent, stat.S_IFDIR)]
        listing += [(name, entry.ino, entry.type) for name, (_, entry) in zip(names, entries, strict=True)]
        return _Snapshot(inode, [DirectoryEntry(*item, offset=place) for place, item in enumerate(listing, start=1)])

    def is_open(self, ino: int) -> bool:
        """Return whether anyone here has the folder open."""
        with self._lock:
            return any(handle.ino == ino for handle in self._handles.values())

    def read(self, number: int, offset: int) -> Iterator[DirectoryEntry]:
        """Yield the entries from `offset` on, `.` and `..` first. From 0 on: the folder's current ones."""
        handle = self._get(number)
        with self._lock:
            was_read, handle.was_read = handle.was_read, True
            snapshot = handle.snapshot
        if offset == 0 and (was_read or not self._is_current(handle.ino, snapshot)):
            snapshot = self._take_anew(handle)
        if offset == 0 or not was_read:
            self._access_times.read(handle.ino, snapshot.inode)
        return self._entries(snapshot.entries, offset)

    def _is_current(self, ino: int, snapshot: _Snapshot) -> bool:
        """Return whether the folder still has these entries, as far as is known here."""
        inode = self._context.store.read(lambda view: inodes.find(view, ino), max_age_s=self._context.max_age_s)
        return inode is not None and snapshot.shows(inode)

    def _take_anew(self, handle: _Handle) -> _Snapshot:
        try:
            snapshot = self._take_snapshot(handle.ino)
        except FileNotFoundError:  # it was removed, and so it is empty: as on a local disk
            snapshot = _Snapshot(handle.snapshot.inode, [])
        with self._lock:
            handle.snapshot = snapshot
        return snapshot

    def _get(self, number: int) -> _Handle:
        with self._lock:
            handle = self._handles.get(number)
        if handle is None:
            raise posix_error(errno.EBADF)
        return handle

    def _entries(self, snapshot: Sequence[DirectoryEntry], offset: int) -> Iterator[DirectoryEntry]:
        for place in range(max(offset, 0), len(snapshot)):
            if place >= INODES_AT_ONCE and place % INODES_AT_ONCE == 0:
                self._fetch_inodes(snapshot[place : place + INODES_AT_ONCE])
            yield snapshot[place]

    def _fetch_inodes(self, portion: Sequence[DirectoryEntry]) -> None:
        self._context.store.read(
            lambda view: inodes.ask_for(view, [entry.ino for entry in portion]),
            max_age_s=self._context.max_age_s,
        )

    def sync(self, number: int) -> None:
        """fsync(2): make all changes of names durable. Raises what prevented one of them, once per handle."""
        self._context.store.flush(self._get(number).witness)

    def close(self, number: int) -> None:
        """Forget the handle."""
        with self._lock:
            if self._handles.pop(number, None) is None:
                raise posix_error(errno.EBADF)

    def list(self, ino: int) -> list[tuple[bytes, int, Inode]]:
        """Return the newest state of a folder: real names, inodes and their records, in one pass."""

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
