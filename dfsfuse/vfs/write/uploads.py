"""Uploads of sealed segments, and the memory that unsaved data may take.

A task in the pool does one thing: `segments.write`. It waits for the servers only, with the data layer's
deadlines; so waiting for a task takes a bounded time, and no task waits for another. What failed stays
sealed, with its data, and is retried by the next flush.

Threads: called by any. `OpenFile.lock` guards an item's fields, as it does those of its file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from dfs_server.protocol.pieces import Buffer
from dfsfuse.errors import MaybeDoneError, UnavailableError
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.vfs.context import PATIENCE_S, Context, Written, log
from dfsfuse.vfs.open.open_file import OpenFile, PendingSegment
from dfsfuse.vfs.write import uploaded
from dfsfuse.vfs.write.budget import Budget


class Task(NamedTuple):
    """A segment to be written, and how its end is signalled."""

    item: PendingSegment
    data: Buffer
    upload: Future[None]


class Uploads:
    """See the module."""

    def __init__(self, context: Context, budget: Budget) -> None:
        self._context = context
        self.budget = budget

    def begin(self, items: Iterable[PendingSegment]) -> list[Task]:
        """Return what must be done to upload these, unless it is being done already. The caller holds the file's lock,
        releases it, and then calls `submit`."""
        tasks = []
        for item in items:
            if item.written is None and (item.upload is None or item.upload.done()):
                assert item.data is not None
                self.budget.upload_begins()
                item.upload = Future()
                tasks.append(Task(item, item.data, item.upload))
        return tasks

    def submit(self, file: OpenFile, tasks: Sequence[Task]) -> None:
        """Hand them to the pool."""
        for task in tasks:
            self._context.uploads.submit(self._run, file, task)

    def finish(self, file: OpenFile, items: Sequence[PendingSegment]) -> None:
        """Wait until all of these are uploaded. Raises the first failure; the others have ended by then too. The caller
        holds the commit lock, so no other thread makes segments of what is small."""
        if len(items) == 1 and items[0].is_small and items[0].upload is None:
            self._finish_small(file, items[0])
            return
        with file.lock:
            tasks = self.begin(items)
            waiting = [item.upload for item in items if item.written is None and item.upload is not None]
        if len(tasks) == 1:
            self._run(file, tasks[0])  # a small file needs no other thread
        else:
            self.submit(file, tasks)
        try:
            failures = [failure for upload in waiting if (failure := upload.exception(PATIENCE_S)) is not None]
        except TimeoutError as late:
            raise MaybeDoneError(f"a part of the file is on its way for more than {PATIENCE_S:.0f} s") from late
        if failures:
            raise failures[0]

    def _finish_small(self, file: OpenFile, item: PendingSegment) -> None:
        """Finish a segment that waits for no server, as in most files: there is nothing to wait for."""
        with file.lock:
            if item.written is not None:
                return
            data = item.data
        assert data is not None
        failure = self._write(file, item, data)
        if failure is not None:
            raise failure

    def renew(self, file: OpenFile, items: Iterable[PendingSegment]) -> None:
        """Give those that may or may not be in the map new segments of the same bytes. If they are
        in it, another mount may replace them and so drop their segments: the servers delete these after the grace
        period, whatever refers to them by then. The same for those that have been up so long that they may be swept."""
        for item in items:
            if item.written is None or not (item.doubt is not None or self._is_old(item, uploaded.KEEP_NS)):
                continue
            old = item.written.segment
            data = item.data if item.data is not None else self._context.segments.read(old, 0, item.length)
            began_ns = self._context.clock()
            made = self._context.segments.write(data, item.rotation)
            with file.lock:
                item.began_ns = began_ns
                spare = () if item.spare is None else (item.spare.segment.id,)
                item.earlier = (*item.earlier, old.id, *spare)
                item.written, item.spare = made, None

    def check(self, tx: Transaction, items: Iterable[PendingSegment]) -> None:
        """Check in the transaction that is to refer to these. Raises UnavailableError if one may be swept before."""
        for item in items:
            if item.written is not None and not item.written.inline:
                uploaded.check(tx, item.began_ns, self._context.clock())

    def is_waiting_long(self, file: OpenFile) -> bool:
        """Return whether anything of the file has been uploaded for so long that it is better saved now."""
        with file.lock:
            return any(self._is_old(item, uploaded.SOON_NS) for item in file.sealed)

    def _is_old(self, item: PendingSegment, limit_ns: int) -> bool:
        if item.written is None or item.written.inline:
            return False
        return uploaded.is_old(item.began_ns, self._context.clock(), limit_ns)

    def forget(self, file: OpenFile) -> list[PendingSegment]:
        """Give up all unsaved data of a file that is gone, or has no name. Returns what was sealed."""
        with file.lock:
            for region in file.buffer.regions():
                size = sum(len(interval.data) for interval in file.buffer.take(region))
                file.dirty_since_s.pop(region)
                self.budget.release(size)
            items, file.sealed = file.sealed, []
            file.written_ns = None
        self.release(file, items)
        return items

    def release(self, file: OpenFile, items: Sequence[PendingSegment]) -> None:
        """Release the memory of these items; one that is being uploaded releases it when done."""
        with file.lock:
            for item in items:
                if item.upload is None or item.upload.done():
                    self._free(item)
                item.is_forgotten = True

    def _run(self, file: OpenFile, task: Task) -> None:
        self._write(file, task.item, task.data, task.upload)

    def _write(
        self, file: OpenFile, item: PendingSegment, data: Buffer, upload: Future[None] | None = None
    ) -> Exception | None:
        """Write one segment, and record the outcome. Returns why that failed, if it did."""
        failure: Exception | None = None
        written: Written | None = None
        began_ns = self._context.clock()
        try:
            written = self._context.segments.write(data, item.rotation)
        except Exception as error:  # noqa: BLE001 (whatever it is, the waiting threads must get it)
            failure = error
            is_told = isinstance(error, UnavailableError)  # reported for all files at once when they are saved
            level = logging.DEBUG if is_told else logging.WARNING
            log.log(level, "inode %d: a part of the file could not be written: %s", file.ino, error)
        with file.lock:
            item.written, item.began_ns = written, began_ns
            if failure is not None and not item.is_forgotten:
                file.error = failure
            if item.is_forgotten or (written is not None and not written.inline and not item.is_appended):
                self._free(item)
            if upload is not None:
                self.budget.upload_ends()
                if failure is None:
                    upload.set_result(None)
                else:
                    upload.set_exception(failure)
        return failure

    def _free(self, item: PendingSegment) -> None:
        self.budget.release(item.held_bytes)
        item.data = None
