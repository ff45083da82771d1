"""The table of files that are open in this mount, and which of them are being deleted.

Whether an unlinked file may go at once is decided within the transaction that removes its last name; a file that is
chosen to go cannot be opened from then on (it has no name any more).

Threads: one lock guards the table and the files' `pins`; it is never held while anything else is waited for.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dfsfuse.namespace.inodes import error
from dfsfuse.vfs.open_file import OpenFile


class OpenFiles:
    """Open files by inode. `closed` is called with each file that has lost its last pin, after it left the table."""

    def __init__(self, closed: Callable[[OpenFile], None]) -> None:
        self._closed = closed
        self._lock = threading.Lock()
        self._files: dict[int, OpenFile] = {}
        self._doomed: set[int] = set()

    def pin(self, ino: int) -> OpenFile:
        """The file, which stays in the table until `unpin`. Raises OSError (ENOENT) if it is being deleted."""
        with self._lock:
            if ino in self._doomed:
                raise error(errno.ENOENT)
            file = self._files.setdefault(ino, OpenFile(ino))
            file.pins += 1
            return file

    @contextmanager
    def pinned(self, ino: int) -> Iterator[OpenFile]:
        """The file, pinned for the duration of a `with`."""
        file = self.pin(ino)
        try:
            yield file
        finally:
            self.unpin(file)

    def pin_if_open(self, ino: int) -> OpenFile | None:
        """The file, pinned once more, if it is in the table."""
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
        self._closed(file)

    def get(self, ino: int) -> OpenFile | None:
        """The file, if it is in the table."""
        with self._lock:
            return self._files.get(ino)

    def all(self) -> list[OpenFile]:
        """All files in the table."""
        with self._lock:
            return list(self._files.values())

    def doom(self, ino: int) -> bool:
        """If the file is not open, let nobody open it any more. May be called again. Is it so?"""
        with self._lock:
            if ino in self._files:
                return False
            self._doomed.add(ino)
            return True

    def pardon(self, ino: int) -> None:
        """The deletion is done, or came to nothing."""
        with self._lock:
            self._doomed.discard(ino)
