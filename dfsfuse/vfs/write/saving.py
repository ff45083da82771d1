"""From unsaved data to the map: flush, and what a flush triggers.

A flush seals what is dirty, waits until all of it is up, and then commits: one batch as a rule, several of bounded size
for a lot of data, in order of the regions, so that a client that dies leaves a prefix. Patches are laid over the
regions as they are in the transaction; two mounts that write different parts of a file both survive. Regions with too
many extents are reported to the compactor (compaction.py), which works in the background. Appended data is committed in
one batch, which decides its place (appending.py).

Saving a file is a generator of steps, which yields wherever it waits for something that goes on by itself. `save` takes
the steps of one file one after the other; `save_many` those of many files in turn: then what is small of all of them
goes up together and shares batches. Each file keeps its own failure, its own doubts and its own order.

What failed stays unsaved and is retried by the next flush. Threads: `OpenFile.commit_lock`; see context.py.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Generator, Iterator, Mapping, Sequence

import msgspec

from dfsfuse.errors import MaybeDoneError, UnavailableError, posix_error
from dfsfuse.namespace.map.transactions import Begun, Transaction
from dfsfuse.namespace.ops import inodes
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.vfs.context import Context
from dfsfuse.vfs.names.removal import Reaper
from dfsfuse.vfs.open.open_file import Doubt, OpenFile, PendingSegment
from dfsfuse.vfs.open.open_files import OpenFiles
from dfsfuse.vfs.write import appending, regions
from dfsfuse.vfs.write.appending import Laid
from dfsfuse.vfs.write.backlog import Backlog
from dfsfuse.vfs.write.compaction import Compactor
from dfsfuse.vfs.write.regions import Saved
from dfsfuse.vfs.write.uploads import Uploads

Steps = Generator[None, None, set[int]]
"""Yields where it waits; returns the crowded regions."""


class Saver:
    """See the module."""

    def __init__(
        self,
        context: Context,
        files: OpenFiles,
        uploads: Uploads,
        backlog: Backlog,
        reaper: Reaper,
        compactor: Compactor,
    ) -> None:
        self._context = context
        self._compactor = compactor
        self._reaper = reaper
        self._files = files
        self._uploads = uploads
        self._backlog = backlog

    def save(self, file: OpenFile, *, until_s: float = math.inf) -> None:
        """Make everything that was written durable now; or what was written until then, as far as it can be separated.

        Raises DfsError and OSError; what failed can be retried.
        """
        with file.commit_lock:
            self.save_locked(file, until_s=until_s)

    def save_locked(self, file: OpenFile, *, until_s: float = math.inf) -> None:
        """`save`, for a caller that holds the file's commit lock."""
        for _ in self._steps(file, until_s):
            pass

    def save_many(self, files: Mapping[OpenFile, float]) -> dict[OpenFile, Exception]:
        """Save these, each until its time, in as few batches as they fit into. The caller holds all their commit locks.

        Returns the failures of those that could not be saved. When servers are missing, the rest is not tried: each
        file would wait for them again.
        """
        failures: dict[OpenFile, Exception] = {}
        if len(files) > 1:
            self._send_ahead(files)
        left = {file: self._steps(file, until_s) for file, until_s in files.items()}
        begun: set[OpenFile] = set()
        while left:
            for file, steps in list(left.items()):
                refusal = next((one for one in failures.values() if isinstance(one, UnavailableError)), None)
                if refusal is not None and file not in begun and not self._context.seems_writable():
                    failures[file] = refusal
                    del left[file]
                    continue
                begun.add(file)
                try:
                    next(steps)
                except StopIteration:
                    del left[file]
                except Exception as failure:  # noqa: BLE001 (whatever it is, the others are not concerned)
                    failures[file] = failure
                    del left[file]
        return failures

    def _send_ahead(self, files: Mapping[OpenFile, float]) -> None:
        """Upload what is too large for a batch, of all these files at once."""
        for file, until_s in files.items():
            with file.lock:
                if not file.is_appended:
                    file.seal_all(until_s)
                begun = self._uploads.begin([item for item in file.sealed if not item.is_small])
            self._uploads.submit(file, begun)

    def _steps(self, file: OpenFile, until_s: float) -> Steps:
        with file.lock:
            if not file.is_unsaved:
                file.error = None
                return set()
            is_appended = file.is_appended and file.has_data
            if not is_appended:
                file.seal_all(until_s)
            items, written_ns = file.ready(until_s), file.written_ns
        is_done = was_kept = False
        try:
            if is_appended:
                crowded = yield from self._save_appended(file, written_ns, until_s)
            else:
                crowded = yield from self._save_placed(file, items, written_ns)
            is_done = bool(items) or is_appended
            with file.lock:
                if not file.has_data:
                    file.error = None
                    if file.written_ns == written_ns:
                        file.written_ns = None
                    was_kept, file.is_kept = file.is_kept, False
        finally:
            self._backlog.saved(file, is_done=is_done)
        if was_kept:
            self._files.unpin(file)
        if crowded:
            self._compactor.later(file.ino, sorted(crowded))
        return crowded

    def _save_placed(self, file: OpenFile, items: Sequence[PendingSegment], written_ns: int | None) -> Steps:
        """Commit what was written to places of its own."""
        self._uploads.finish(file, items)
        crowded: set[int] = set()
        for batch in _batches(items):
            self._uploads.renew(file, batch)
            try:
                begun = self._commit(file.ino, batch, written_ns, file.rotation)
                yield
                begun.wait()
            except UnavailableError:
                raise  # it was not sent
            except BaseException as failure:
                self._doubt(file, batch, failure)
                raise
            saved = begun.result
            with file.lock:
                file.sealed = [item for item in file.sealed if item not in batch]
            self._uploads.release(file, batch)
            if saved is None:
                raise self._gone(file)
            crowded.update(saved.crowded)
        return crowded

    def _gone(self, file: OpenFile) -> OSError:
        """Give up what was written, since it has no file any more."""
        self._reaper.drop_later(file.ino, self._uploads.forget(file))
        failure = posix_error(errno.ESTALE, "the file was removed by another mount")
        with file.lock:
            file.losses.add(failure)
        return failure

    @staticmethod
    def _doubt(
        file: OpenFile, items: Sequence[PendingSegment], failure: BaseException, *, is_over: bool = False
    ) -> None:
        """Record that a batch with these failed, and may nevertheless have been made. `is_over`: it was of appended
        data, whose commit is over with that."""
        sequence = failure.sequence if isinstance(failure, MaybeDoneError) else None
        with file.lock:
            file.appends += is_over
            for item in items:
                item.doubt = (item.doubt or Doubt()).also(sequence)

    # ------------------------------------------------------------------ what was appended

    def _save_appended(self, file: OpenFile, written_ns: int | None, until_s: float) -> Steps:
        """Commit what was appended until then, in one batch."""
        with file.lock:
            doubtful = [item for item in file.sealed if item.doubt is not None]
        crowded: set[int] = set()
        if doubtful:
            crowded = yield from self._append(file, doubtful, written_ns)
        with file.lock:
            gone = []
            if len(file.sealed) > len({item.region for item in file.sealed}):
                gone = file.unseal()  # left by failures; many small segments are too much for a batch
            file.seal_all(until_s)
            items = file.ready(until_s)
        self._reaper.drop_later(file.ino, gone)
        if items:
            crowded |= yield from self._append(file, items, written_ns)
        return crowded

    def _append(self, file: OpenFile, items: list[PendingSegment], written_ns: int | None) -> Steps:
        items = sorted(items, key=lambda item: item.start)
        self._uploads.finish(file, items)
        self._uploads.renew(file, items)
        laid, moved = yield from self._lay(file, items, written_ns)
        if laid is None:
            for item in items:
                assert item.data is not None
                item.spare = item.spare or self._context.segments.write(item.data, item.rotation)
            laid, moved = yield from self._lay(file, items, written_ns)
        if laid is None:
            raise self._gone(file)
        self._uploads.release(file, items)
        self._reaper.drop_later(file.ino, moved)
        return set() if laid.saved is None else set(laid.saved.crowded)

    def _lay(
        self, file: OpenFile, items: list[PendingSegment], written_ns: int | None
    ) -> Generator[None, None, tuple[Laid | None, list[PendingSegment]]]:
        """Make one commit of appended data. Returns also what is no longer sealed because it moved. See
        `_commit_appended`."""
        with file.lock:
            file.appends += 1
        try:
            begun = self._commit_appended(file, items, written_ns)
            yield
            begun.wait()
        except BaseException as failure:
            self._doubt(file, items, failure, is_over=True)
            raise
        laid = begun.result
        with file.lock:
            file.appends += 1
            return laid, file.appended(items, laid.place) if laid is not None else []

    def _commit_appended(
        self, file: OpenFile, items: Sequence[PendingSegment], written_ns: int | None
    ) -> Begun[Laid | None]:
        """Return None if the items need spares; or, if they have them, if the file is gone."""
        ino, rotation = file.ino, file.rotation

        def work(tx: Transaction) -> Laid | None:
            inode = inodes.find(tx, ino)
            if inode is None or not inode.is_file:
                return None
            self._uploads.check(tx, items)
            was_made = any(
                map(
                    self._context.store.was_made,
                    {batch for item in items if item.doubt is not None for batch in item.doubt.batches},
                )
            )
            laid = appending.lay(tx, ino, inode, items, self._context.segments.joined, was_made=was_made)
            if laid is not None and laid.saved is not None:
                inodes.save(tx, ino, _written(laid.saved.inode, written_ns, rotation))
            return laid

        return self._context.store.begin(work)

    # ------------------------------------------------------------------ what has places of its own

    def _commit(
        self, ino: int, items: Sequence[PendingSegment], written_ns: int | None, rotation: int | None
    ) -> Begun[Saved | None]:
        patches = [item.patch() for item in items]
        earlier = [(item.region, segment) for item in items for segment in item.earlier]

        def work(tx: Transaction) -> Saved | None:
            inode = inodes.find(tx, ino)
            if inode is None or not inode.is_file:
                for segment in [*(patch.segment.id for patch in patches), *(segment for _, segment in earlier)]:
                    tx.drop(segment)
                return None
            self._uploads.check(tx, items)
            saved = regions.save(tx, ino, inode, patches, self._context.segments.joined)
            inodes.save(tx, ino, _written(saved.inode, written_ns, rotation))
            if earlier:
                regions.drop_unused(tx, ino, earlier)
            return saved

        return self._context.store.begin(work)


def _written(inode: Inode, written_ns: int | None, rotation: int | None) -> Inode:
    """Return the inode after a flush: its ctime is that of the last write, not that of the flush."""
    if inode.rotation is None:
        inode = msgspec.structs.replace(inode, rotation=rotation)
    if written_ns is None:
        return inode
    return msgspec.structs.replace(inode, mtime_ns=written_ns, ctime_ns=max(inode.ctime_ns, written_ns))


def _batches(items: Sequence[PendingSegment]) -> Iterator[list[PendingSegment]]:
    """Yield the items in the order of their regions (those of one region in theirs), in portions for one batch each."""
    if len(items) == 1:  # as of most files
        yield list(items)
        return
    in_order = sorted(items, key=lambda item: item.region)
    at = 0
    for portion in regions.portions([item.patch() for item in in_order]):
        yield in_order[at : at + len(portion)]
        at += len(portion)
