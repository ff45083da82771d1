"""write(): memory for the data, its place among what is unsaved, and the upload of regions that become full.

Memory that is short makes a writer wait, and never fail, as long as servers take data: it saves its own file, has what
else is unsaved saved, and tries again whenever some memory was given back.

Pages of a shared mapping were written to long ago, when no program could be told that too few servers answer, and the
kernel drops what is refused. So they are taken without servers too, while there is memory: they stay unsaved, and
msync(), fsync() and close() fail until they are saved. Threads: called by any; see context.py.
"""

from __future__ import annotations

import errno
from typing import Final, NamedTuple

from dfsfuse.common import withdrawal
from dfsfuse.errors import DfsError, UnavailableError, posix_error
from dfsfuse.namespace.map.transactions import View
from dfsfuse.namespace.ops import inodes
from dfsfuse.vfs.context import FILE_MAX_BYTES, Context
from dfsfuse.vfs.open.open_file import OpenFile
from dfsfuse.vfs.write.background_saving import BackgroundSaver
from dfsfuse.vfs.write.backlog import Backlog
from dfsfuse.vfs.write.saving import Saver
from dfsfuse.vfs.write.uploads import Task, Uploads

ROOM_WAIT_S: Final = 60.0
"""How long write() waits for memory while none is released."""
LOOK_AGAIN_S: Final = 0.05
"""Others may meanwhile have written what they had reserved memory for: it must be saved too."""
UNSAVED_SEGMENTS_MAX: Final = 256
"""This many uploaded segments that no batch refers to yet are committed without waiting for a flush."""
APPENDED_SEGMENTS_MAX: Final = 8
"""The same for appended ones, which stay in memory until then."""


class _Taken(NamedTuple):
    """What a write triggered."""

    grown: int
    begun: list[Task]
    is_crowded: bool
    is_long: bool


class Writer:
    """See the module. Stateless."""

    def __init__(
        self, context: Context, saver: Saver, background: BackgroundSaver, backlog: Backlog, uploads: Uploads
    ) -> None:
        self._context = context
        self._saver = saver
        self._background = background
        self._backlog = backlog
        self._uploads = uploads

    def write(self, file: OpenFile, offset: int | None, data: bytes | memoryview, *, is_mapped: bool = False) -> int:
        """Take the data; `offset` None means at the end of the file. Raises ReadOnlyError at once if too few servers
        are there, and what a background upload failed with. `is_mapped`: pages of a shared mapping; what failed before
        is told by fsync(), not here, where the pages would be lost by it."""
        size = len(data)
        if is_mapped and not self._context.store.writable() and self._uploads.budget.reserve(size, 0.0):
            stored = 0
        else:
            self._context.check_writable()
            if not size:
                return 0
            self._backlog.slow_down(file.ino)
            stored = self._stored_size(file.ino) if offset is None else 0
            self._make_room(file, size)
        try:
            try:
                while not (tasks := self._take(file, offset, stored, data, tells_failure=not is_mapped)):
                    self._saver.save(file)
            except BaseException:
                self._uploads.budget.release(size)
                raise
            self._uploads.budget.release(size - tasks.grown)
            self._uploads.submit(file, tasks.begun)
            if tasks.is_crowded:
                self._save_taken(file)
            elif tasks.is_long:
                self._background.save_later(file, seal=False)
        finally:
            withdrawal.over()
        return size

    def _save_taken(self, file: OpenFile) -> None:
        """Save what was written. If that fails it stays unsaved, and the next write or flush gets the error: a write()
        that has taken its data has not failed, and a program that repeated it would append it twice."""
        try:
            self._saver.save(file)
        except (DfsError, OSError) as failure:
            with file.lock:
                if not file.is_unsaved:
                    raise  # it is given up
                file.error = failure

    def _take(
        self, file: OpenFile, offset: int | None, stored: int, data: bytes | memoryview, *, tells_failure: bool
    ) -> _Taken | None:
        """Add the data to the file's unsaved data. Returns None if what is unsaved has to be saved first, as it was
        written in the other mode (appended, or to a place)."""
        with file.lock:
            failure = file.take_error() if tells_failure else None
            if failure is not None:
                raise failure
            if not file.begin(is_append=offset is None):
                return None
            at = offset if offset is not None else file.end or stored
            if at + len(data) > FILE_MAX_BYTES:
                raise posix_error(errno.EFBIG)
            withdrawal.pass_point()
            is_first = not file.has_data
            grown, full = file.write(at, data, self._context.clock(), self._context.monotonic())
            if is_first:
                self._backlog.written(file)
            limit = APPENDED_SEGMENTS_MAX if file.is_appended else UNSAVED_SEGMENTS_MAX
            return _Taken(grown, self._uploads.begin(full), file.is_crowded(at), len(file.sealed) >= limit)

    def _stored_size(self, ino: int) -> int:
        def look(view: View) -> int:
            return inodes.load(view, ino).size

        return self._context.store.read(look, max_age_s=self._context.max_age_s)

    def _make_room(self, file: OpenFile, size: int) -> None:
        budget = self._uploads.budget
        if budget.reserve(size, ROOM_WAIT_S):
            return
        deadline_s = self._context.monotonic() + ROOM_WAIT_S
        while True:
            freed = budget.freed_bytes
            self._saver.save(file)
            if budget.reserve(size, 0.0):
                return
            self._background.save_everything()
            if budget.reserve(size, LOOK_AGAIN_S):
                return
            if budget.wait_until_freed(freed, LOOK_AGAIN_S):
                deadline_s = self._context.monotonic() + ROOM_WAIT_S
            elif self._backlog.is_failing or self._context.monotonic() > deadline_s:
                raise UnavailableError("written data waits in memory, since the servers do not take it: try again")
