"""The final save of a mount: bounded, and what is left over is available.

`save_all` continues as long as something is saved every few seconds, however much there is; servers that may be
about to return are waited for that long and no longer, even if only answered names are left. It checks whether they
take data before it tries, instead of failing file by file. What is left then is returned by `left_over`, to be kept
elsewhere, and given up by `abandon`, so that closing the Vfs has nothing left to save.

Called by one thread, when no program uses the mount any more. The thread that saves in the background is stopped first,
so that no other thread takes the commit locks of many files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from dfsfuse.common.portions import by_count
from dfsfuse.errors import ReadOnlyError
from dfsfuse.vfs.context import Context
from dfsfuse.vfs.names.names_seen import NamesSeen
from dfsfuse.vfs.open import content_state
from dfsfuse.vfs.open.open_file import OpenFile
from dfsfuse.vfs.open.open_files import OpenFiles
from dfsfuse.vfs.write import left_over
from dfsfuse.vfs.write.background_saving import GROUP_FILES, BackgroundSaver
from dfsfuse.vfs.write.left_over import LeftOver
from dfsfuse.vfs.write.saving import Saver
from dfsfuse.vfs.write.uploads import Uploads

PAUSE_S: Final = 0.2
"""The pause between two checks whether the servers take data again."""
LAST_COMMIT_S: Final = 5.0
"""How long a save in progress may hold a file before what it has not reported yet counts as unsaved."""


class Ending:
    """See the module."""

    def __init__(
        self,
        context: Context,
        files: OpenFiles,
        saver: Saver,
        background: BackgroundSaver,
        uploads: Uploads,
        names: NamesSeen,
    ) -> None:
        self._context = context
        self._files = files
        self._saver = saver
        self._background = background
        self._uploads = uploads
        self._names = names

    def is_near(self, patience_s: float) -> None:
        """Prepare for the end of the mount: operations that wait for servers (`-o wait`) do so for this long and no
        longer, servers that are only slow are no longer waited for specially, and what was answered is kept. Never
        waits."""
        self._context.store.end_within(patience_s)

    def save_all(self, patience_s: float, pause: Callable[[float], None]) -> Exception | None:
        """Save everything, as long as something is saved within `patience_s`. Returns why something is left, if it
        is."""
        failure: Exception | None = None
        self.is_near(patience_s)  # otherwise a save in progress may wait for hours
        self._background.stop()
        deadline = self._context.monotonic() + patience_s
        while self._is_left():
            for group in by_count(self._unsaved(), GROUP_FILES):
                if self._context.monotonic() >= deadline or not self._context.store.writable():
                    break
                failures = self._save(group)
                failure = next(iter(failures.values()), failure)
                if len(failures) < len(group):
                    deadline = self._context.monotonic() + patience_s
            if self._context.monotonic() >= deadline:
                if self._unsaved():
                    return failure or ReadOnlyError("fewer than three servers answer")
                return None
            if self._is_left():
                pause(PAUSE_S)
        return None

    def _is_left(self) -> bool:
        """Return whether data is unsaved, or names wait for servers. Names that need not wait are handled by
        closing."""
        return bool(self._unsaved()) or (self._context.store.owes() and not self._context.store.writable())

    def _save(self, files: list[OpenFile]) -> dict[OpenFile, Exception]:
        """Save these together. Returns the failures of those that could not be saved."""
        for file in files:
            file.commit_lock.acquire()
        try:
            return self._saver.save_many(dict.fromkeys(files, math.inf))
        finally:
            for file in files:
                file.commit_lock.release()

    def _unsaved(self) -> list[OpenFile]:
        return [file for file in self._files.all() if file.has_data and not file.is_unlinked]

    def left_over(self) -> list[LeftOver]:
        """Return what is unsaved, for each file that has a name."""
        found = []
        deadline = self._context.monotonic() + LAST_COMMIT_S
        for file in self._unsaved():
            is_ours = file.commit_lock.acquire(timeout=max(0.0, deadline - self._context.monotonic()))
            try:
                one = left_over.of(file, self._names.path(file.ino), self._context.clock())
            finally:
                if is_ours:
                    file.commit_lock.release()
            if one is not None:
                is_doubtful = one.is_doubtful or not is_ours  # a batch may be in flight
                found.append(replace(one, is_doubtful=is_doubtful, state=self._state(one)))
        return found

    def _state(self, one: LeftOver) -> bytes | None:
        try:
            return content_state.of(one.ino, one.regions, self._context.store.recall)
        except OSError:  # its record cannot be read
            return None

    def abandon(self) -> None:
        """Give up all that is unsaved. Segments that are already uploaded stay there: what is kept refers to them."""
        for file in self._files.all():
            self._uploads.forget(file)
