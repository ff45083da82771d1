"""The table of what this mount still needs: files that are open, and inodes that the kernel knows.

An inode that the kernel has looked up is counted, by number alone, until the kernel forgets it. Like an open file it
outlives its last name: between LOOKUP and OPEN, or as somebody's working folder, it must not vanish. When such an
orphan is no longer in use, `unneeded` is called.

Whether an inode without a name may go at once is decided within the transaction that removes its last name; one that
is chosen to go cannot be opened or held from then on (it has no name any more). A look-up must therefore hold what it
found when the read that found it is answered: then it comes before that decision, or it sees what follows from it.

Threads: one lock guards the table, the counts and the files' `pins`; it is never held while anything else is waited
for.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from dfsfuse.errors import posix_error
from dfsfuse.vfs.open.open_file import OpenFile


class OpenFiles:
    """See the module. `closed` is called with each file that has lost its last pin, after it left the table; then
    `unneeded` with the inode if it is an orphan that is no longer in use here."""

    def __init__(self, closed: Callable[[OpenFile], None], unneeded: Callable[[int], None] = lambda _: None) -> None:
        self._closed = closed
        self._unneeded = unneeded
        self._lock = threading.Lock()
        self._files: dict[int, OpenFile] = {}
        self._held: dict[int, int] = {}
        """How often each inode was looked up and not forgotten yet."""
        self._orphans: set[int] = set()
        """Inodes without a name that this mount has claimed, and may have to delete when it no longer needs them."""
        self._being_deleted: set[int] = set()
        """Inodes without a name that cannot be opened or held any more."""
        self._has_ended = False

    # ------------------------------------------------------------------ open files

    def pin(self, ino: int) -> OpenFile:
        """Return the file, which stays in the table until `unpin`. Raises OSError (ENOENT) if it is being deleted."""
        with self._lock:
            if ino in self._being_deleted:
                raise posix_error(errno.ENOENT)
            file = self._files.get(ino)
            if file is None:
                file = self._files[ino] = OpenFile(ino, is_unlinked=ino in self._orphans)
            file.pins += 1
            return file

    @contextmanager
    def pinned(self, ino: int) -> Iterator[OpenFile]:
        """Yield the file, pinned for the duration of a `with`."""
        file = self.pin(ino)
        try:
            yield file
        finally:
            self.unpin(file)

    def pin_if_open(self, ino: int) -> OpenFile | None:
        """Return the file, pinned once more, if it is in the table."""
        with self._lock:
            file = self._files.get(ino)
            if file is not None:
                file.pins += 1
            return file

    def unpin(self, file: OpenFile) -> None:
        """Undo one `pin`; the last one takes the file out of the table."""
        with self._lock:
            file.pins -= 1
            if file.pins:
                return
            del self._files[file.ino]
            is_over = self._take_orphan(file.ino)
        self._closed(file)
        if is_over:
            self._unneeded(file.ino)

    def get(self, ino: int) -> OpenFile | None:
        """Return the file if it is in the table."""
        return self._files.get(ino)  # one operation on a dictionary needs no lock

    def all(self) -> list[OpenFile]:
        """Return all files in the table."""
        with self._lock:
            return list(self._files.values())

    # ------------------------------------------------------------------ what the kernel knows

    def hold(self, ino: int) -> None:
        """Count one more look-up. Raises OSError (ENOENT) if the inode is being deleted."""
        with self._lock:
            if ino in self._being_deleted:
                raise posix_error(errno.ENOENT)
            self._held[ino] = self._held.get(ino, 0) + 1

    def hold_many(self, inos: Sequence[int]) -> list[bool]:
        """Count one more look-up of each, except those that are being deleted, for which False is returned."""
        with self._lock:
            held = [ino not in self._being_deleted for ino in inos]
            for ino, is_held in zip(inos, held, strict=True):
                if is_held:
                    self._held[ino] = self._held.get(ino, 0) + 1
            return held

    def is_held(self, ino: int) -> bool:
        """Return whether it was looked up and not forgotten."""
        with self._lock:
            return ino in self._held

    def forget(self, ino: int, lookups: int) -> None:
        """Take back this many look-ups."""
        with self._lock:
            left = self._held.get(ino, 0) - lookups
            if left > 0:
                self._held[ino] = left
                return
            self._held.pop(ino, None)
            is_over = self._take_orphan(ino)
        if is_over:
            self._unneeded(ino)

    # ------------------------------------------------------------------ inodes without a name

    def begin_deletion(self, ino: int) -> bool:
        """Return whether the inode is not in use here; if so, it cannot be opened or held from now on, until
        `end_deletion`. May be called again."""
        with self._lock:
            if not self._has_ended and (ino in self._files or ino in self._held):
                return False
            self._being_deleted.add(ino)
            return True

    def end_deletion(self, ino: int) -> None:
        """Record that the deletion is done, or was abandoned."""
        with self._lock:
            self._being_deleted.discard(ino)

    def orphaned(self, ino: int) -> None:
        """Record that the last name is gone and the inode is left: it is deleted when it is no longer in use here."""
        with self._lock:
            self._orphans.add(ino)
            file = self._files.get(ino)
            if file is not None:
                file.is_unlinked = True
            is_over = self._take_orphan(ino)
        if is_over:
            self._unneeded(ino)

    def orphans(self) -> list[int]:
        """Return those without a name that are needed here."""
        with self._lock:
            return sorted(self._orphans)

    def end(self) -> list[int]:
        """Return all remaining orphans when the mount ends and nothing is in use."""
        with self._lock:
            left, self._orphans = sorted(self._orphans), set()
            self._held.clear()
            self._has_ended = True
            return left

    def _take_orphan(self, ino: int) -> bool:
        """Return whether it is an orphan that is no longer in use, and hand it to the caller. With the lock held."""
        if ino not in self._orphans or ino in self._files or ino in self._held:
            return False
        self._orphans.discard(ino)
        return True
