"""From unsaved data to the map: flush, and what a flush sets off.

A flush seals what is dirty, waits until all of it is up, and then commits: one batch as a rule, several of bounded
size for a lot of data, in order of the regions, so that a client that dies leaves a prefix. Patches are laid over the
regions as they are in the transaction; two mounts that write different parts of a file both survive. Regions with too
many extents are told to the compactor (compaction.py), which nobody waits for. Appended data is committed in one batch,
which decides its place (appending.py).

What failed stays unsaved and is tried again by the next flush. Threads: `OpenFile.commit_lock`; see context.py.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec

from dfsfuse.errors import DfsError, MaybeDoneError, UnavailableError
from dfsfuse.namespace import inodes
from dfsfuse.namespace.inodes import error
from dfsfuse.namespace.records import Inode
from dfsfuse.namespace.transactions import Transaction, View
from dfsfuse.vfs import appending, regions
from dfsfuse.vfs.appending import Laid
from dfsfuse.vfs.compaction import Compactor
from dfsfuse.vfs.context import FILE_MAX_BYTES, Context, log
from dfsfuse.vfs.open_file import OpenFile, Sealed
from dfsfuse.vfs.open_files import OpenFiles
from dfsfuse.vfs.regions import Saved
from dfsfuse.vfs.removal import Reaper
from dfsfuse.vfs.uploads import Task, Uploads

ROOM_WAIT_S: Final = 60.0
"""How long write() waits for memory while uploads make progress."""
UNSAVED_SEGMENTS_MAX: Final = 256
"""So many segments that are up and that no batch refers to yet are committed without waiting for a flush."""
APPENDED_SEGMENTS_MAX: Final = 8
"""The same for appended ones, which stay in memory until then."""


class _Taken(NamedTuple):
    """What a write set off."""

    grown: int
    begun: list[Task]
    is_crowded: bool
    is_long: bool


class Saver:
    """See the module."""

    def __init__(
        self, context: Context, files: OpenFiles, uploads: Uploads, reaper: Reaper, compactor: Compactor
    ) -> None:
        self._context = context
        self._compactor = compactor
        self._reaper = reaper
        self._files = files
        self._uploads = uploads

    # ------------------------------------------------------------------ write

    def write(self, file: OpenFile, offset: int | None, data: bytes | memoryview) -> int:
        """Take the data; `offset` None means at the end of the file. Raises ReadOnlyError at once if too few servers
        are there, and what a background upload failed with."""
        self._context.check_writable()
        size = len(data)
        if not size:
            return 0
        stored = self._stored_size(file.ino) if offset is None else 0
        self._make_room(file, size)
        try:
            while not (tasks := self._take(file, offset, stored, data)):
                self.save(file)
        except BaseException:
            self._uploads.budget.release(size)
            raise
        self._uploads.budget.release(size - tasks.grown)
        self._uploads.submit(file, tasks.begun)
        if tasks.is_crowded:
            self.save(file)
        elif tasks.is_long:
            self.save_later(file, seal=False)
        return size

    def _take(self, file: OpenFile, offset: int | None, stored: int, data: bytes | memoryview) -> _Taken | None:
        """Into the file's unsaved data. None: what is unsaved has to be saved first, as it was written the other way
        (appended, or to a place)."""
        with file.lock:
            failure = file.take_error()
            if failure is not None:
                raise failure
            if not file.begin(is_append=offset is None):
                return None
            at = offset if offset is not None else file.end or stored
            if at + len(data) > FILE_MAX_BYTES:
                raise error(errno.EFBIG)
            grown, full = file.write(at, data, self._context.clock(), self._context.monotonic())
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
        others = sorted(self._files.all(), key=lambda other: other.unsaved_bytes, reverse=True)
        for candidate in [file, *(other for other in others if other is not file)]:
            try:
                self.save(candidate)
            except (DfsError, OSError) as failure:
                if candidate is file:
                    raise
                with candidate.lock:
                    if candidate.is_unsaved:  # else it is given up, and each handle is told
                        candidate.error = failure
            if budget.reserve(size, ROOM_WAIT_S):
                return
        raise UnavailableError("written data waits in memory, since the servers do not take it fast enough")

    # ------------------------------------------------------------------ flush

    def save(self, file: OpenFile) -> None:
        """Make all that was written durable, now. Raises DfsError and OSError; what failed can be tried again."""
        with file.commit_lock:
            self.save_locked(file)

    def save_later(self, file: OpenFile, *, seal: bool = True) -> None:
        """The same in the background. Without `seal` only what is sealed already. A failure is told to the next who
        writes or flushes."""
        pinned = self._files.pin(file.ino)
        with pinned.lock:
            was_due, pinned.is_commit_due = pinned.is_commit_due, True
        if was_due:
            self._files.unpin(pinned)
        else:
            self._context.background.submit(self._save_in_background, pinned, seal)

    def _save_in_background(self, file: OpenFile, seal: bool) -> None:
        with file.lock:
            file.is_commit_due = False
        try:
            with file.commit_lock:
                self.save_locked(file, seal=seal)
        except Exception as failure:  # noqa: BLE001 (nobody waits: it is kept for who comes next)
            if self._keep(file, failure):
                return  # it stays pinned: its data is tried again by the next flush, or when the mount ends
        self._files.unpin(file)

    @staticmethod
    def _keep(file: OpenFile, failure: Exception) -> bool:
        """What could not be saved is kept for later. Is the file to stay pinned for that?"""
        with file.lock:
            if not file.is_unsaved:
                log.error("inode %d: what was written is given up: %s", file.ino, failure)
                return False  # each handle is told
            log.error("inode %d: what was written is not saved yet: %s", file.ino, failure)
            file.error = failure
            was_kept, file.is_kept = file.is_kept, True
            return not was_kept

    def save_long_unsaved(self) -> None:
        """Save in the background what has been up for long: nobody refers to it, and it must not be taken for lost."""
        for file in self._files.all():
            if self._uploads.is_waiting_long(file):
                with suppress(FileNotFoundError):  # closed meanwhile, and being deleted
                    self.save_later(file, seal=False)

    def save_locked(self, file: OpenFile, *, seal: bool = True) -> None:
        """`save`, for who holds the file's commit lock."""
        with file.lock:
            if not file.is_unsaved:
                file.error = None
                return
            if seal and not file.is_appended:
                file.seal_all()
            items, written_ns, is_appended = list(file.sealed), file.written_ns, file.is_appended and file.has_data
        crowded = self._save_appended(file, written_ns) if is_appended else self._save_placed(file, items, written_ns)
        with file.lock:
            file.error = None
            if file.written_ns == written_ns:
                file.written_ns = None
            was_kept, file.is_kept = file.is_kept, False
        if was_kept:
            self._files.unpin(file)
        self._compactor.later(file.ino, sorted(crowded))

    def _save_placed(self, file: OpenFile, items: Sequence[Sealed], written_ns: int | None) -> set[int]:
        """Commit what was written to places of its own. Gives the crowded regions."""
        self._uploads.finish(file, items)
        crowded: set[int] = set()
        for batch in _batches(items):
            self._uploads.renew(file, batch)
            try:
                saved = self._commit(file.ino, batch, written_ns, file.rotation)
            except UnavailableError:
                raise  # it was not sent
            except BaseException as failure:
                self._doubt(file, batch, failure)
                raise
            with file.lock:
                file.sealed = [item for item in file.sealed if item not in batch]
            self._uploads.let_go(file, batch)
            if saved is None:
                raise self._gone(file)
            crowded.update(saved.crowded)
        return crowded

    def _gone(self, file: OpenFile) -> OSError:
        """What was written has no file any more: it is given up."""
        self._reaper.drop_later(file.ino, self._uploads.forget(file))
        failure = error(errno.ESTALE, "the file was removed by another mount")
        with file.lock:
            file.losses.add(failure)
        return failure

    @staticmethod
    def _doubt(file: OpenFile, items: Sequence[Sealed], failure: BaseException, *, is_over: bool = False) -> None:
        """A batch with these failed, and may come through all the same. `is_over`: it was of appended data, whose
        commit is over with that."""
        sequence = failure.sequence if isinstance(failure, MaybeDoneError) else None
        with file.lock:
            file.appends += is_over
            for item in items:
                item.is_doubtful = True
                item.doubts = (*item.doubts, sequence) if sequence is not None else item.doubts

    # ------------------------------------------------------------------ what was appended

    def _save_appended(self, file: OpenFile, written_ns: int | None) -> set[int]:
        """Commit all that was appended up to now, in one batch. Gives the crowded regions."""
        with file.lock:
            doubtful = [item for item in file.sealed if item.is_doubtful]
        crowded = self._append(file, doubtful, written_ns) if doubtful else set()
        with file.lock:
            gone = []
            if len(file.sealed) > len({item.region for item in file.sealed}):
                gone = file.unseal()  # left by failures; many small segments are too much for a batch
            file.seal_all()
            items = list(file.sealed)
        self._reaper.drop_later(file.ino, gone)
        return crowded | self._append(file, items, written_ns) if items else crowded

    def _append(self, file: OpenFile, items: list[Sealed], written_ns: int | None) -> set[int]:
        items = sorted(items, key=lambda item: item.start)
        self._uploads.finish(file, items)
        self._uploads.renew(file, items)
        laid, moved = self._lay(file, items, written_ns)
        if laid is None:
            for item in items:
                assert item.data is not None
                item.spare = item.spare or self._context.segments.write(item.data, item.rotation)
            laid, moved = self._lay(file, items, written_ns)
        if laid is None:
            raise self._gone(file)
        self._uploads.let_go(file, items)
        self._reaper.drop_later(file.ino, moved)
        return set() if laid.saved is None else set(laid.saved.crowded)

    def _lay(self, file: OpenFile, items: list[Sealed], written_ns: int | None) -> tuple[Laid | None, list[Sealed]]:
        """One commit of appended data, and what is sealed no more because it moved. See `_commit_appended`."""
        with file.lock:
            file.appends += 1
        try:
            laid = self._commit_appended(file, items, written_ns)
        except BaseException as failure:
            self._doubt(file, items, failure, is_over=True)
            raise
        with file.lock:
            file.appends += 1
            return laid, file.appended(items, laid.place) if laid is not None else []

    def _commit_appended(self, file: OpenFile, items: Sequence[Sealed], written_ns: int | None) -> Laid | None:
        """None: the items need spares; or, if they have them, the file is gone."""
        ino, rotation = file.ino, file.rotation

        def work(tx: Transaction) -> Laid | None:
            inode = inodes.find(tx, ino)
            if inode is None or not inode.is_file:
                return None
            self._uploads.check(tx, items)
            was_made = any(map(self._context.store.was_made, {doubt for item in items for doubt in item.doubts}))
            laid = appending.lay(tx, ino, inode, items, was_made=was_made)
            if laid is not None and laid.saved is not None:
                inodes.save(tx, ino, _written(laid.saved.inode, written_ns, rotation))
            return laid

        return self._context.store.transact(work)

    # ------------------------------------------------------------------ what has places of its own

    def _commit(self, ino: int, items: Sequence[Sealed], written_ns: int | None, rotation: int | None) -> Saved | None:
        patches = [item.patch() for item in items]
        earlier = [(item.region, segment) for item in items for segment in item.earlier]

        def work(tx: Transaction) -> Saved | None:
            inode = inodes.find(tx, ino)
            if inode is None or not inode.is_file:
                for segment in [*(patch.segment.id for patch in patches), *(segment for _, segment in earlier)]:
                    tx.drop(segment)
                return None
            self._uploads.check(tx, items)
            saved = regions.save(tx, ino, inode, patches)
            inodes.save(tx, ino, _written(saved.inode, written_ns, rotation))
            regions.drop_unused(tx, ino, earlier)
            return saved

        return self._context.store.transact(work)


def _written(inode: Inode, written_ns: int | None, rotation: int | None) -> Inode:
    """The inode after a flush: its time of change is that of the last write, not that of the flush."""
    if inode.rotation is None:
        inode = msgspec.structs.replace(inode, rotation=rotation)
    if written_ns is None:
        return inode
    return msgspec.structs.replace(inode, mtime_ns=written_ns, ctime_ns=max(inode.ctime_ns, written_ns))


def _batches(items: Sequence[Sealed]) -> Iterator[list[Sealed]]:
    """The items in the order of their regions (those of one region in theirs), in portions for one batch each."""
    in_order = sorted(items, key=lambda item: item.region)
    at = 0
    for portion in regions.portions([item.patch() for item in in_order]):
        yield in_order[at : at + len(portion)]
        at += len(portion)
