"""Open files and their handles: open, create, read, write, flush, fsync, release.

close() is flush() and then, for the last duplicate of a descriptor, release(); what must be reported to the program is
reported by flush(). What could not be saved is given up when its file is closed if the program was told that its
close() failed; otherwise, as when the program was killed, it stays and is saved in the background. Opening asks the
servers for the newest state (close-to-open); later reads may be a little old.

Threads: `_lock` guards the handles; the rest is in the table of open files. See context.py.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec

from dfsfuse.errors import DfsError, posix_error
from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.namespace.ops import directories, inodes
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.vfs.attributes import AttributeChanges, Attributes, attributes_of, blocks
from dfsfuse.vfs.caller import Caller
from dfsfuse.vfs.context import Context, log
from dfsfuse.vfs.health.incomplete import Incomplete
from dfsfuse.vfs.names.set_attributes import AttributeSetter
from dfsfuse.vfs.open.handles import Handle
from dfsfuse.vfs.open.open_file import OpenFile
from dfsfuse.vfs.open.open_files import OpenFiles
from dfsfuse.vfs.open.orphan_keeper import OrphanKeeper
from dfsfuse.vfs.read.access_times import AccessTimes
from dfsfuse.vfs.read.reading import Reader
from dfsfuse.vfs.write import unsaved
from dfsfuse.vfs.write.background_saving import BackgroundSaver
from dfsfuse.vfs.write.backlog import Backlog
from dfsfuse.vfs.write.holes import Holes
from dfsfuse.vfs.write.saving import Saver
from dfsfuse.vfs.write.unsaved import Place
from dfsfuse.vfs.write.writing import Writer

CREATE_TRIES: Final = 20
"""How often a file that exists but is replaced before it is open is looked up again."""


class _Stored(NamedTuple):
    """What the map says about a file's attributes."""

    inode: Inode


class Files:
    """See the module."""

    def __init__(
        self,
        context: Context,
        table: OpenFiles,
        saver: Saver,
        writer: Writer,
        background_saver: BackgroundSaver,
        backlog: Backlog,
        setter: AttributeSetter,
        holes: Holes,
        times: AccessTimes,
        incomplete: Incomplete,
        orphan_keeper: OrphanKeeper,
    ) -> None:
        self._context = context
        self._incomplete = incomplete
        self._table = table
        self._saver = saver
        self._writer = writer
        self._background_saver = background_saver
        self._backlog = backlog
        self._setter = setter
        self._access_times = times
        self._reader = Reader(context, times)
        self._holes = holes
        self._lock = threading.Lock()
        self._handles: dict[int, Handle] = {}
        self._numbers = itertools.count(1)
        self._orphan_keeper = orphan_keeper

    # ------------------------------------------------------------------ attributes

    def attributes(self, ino: int, inode: Inode) -> Attributes:
        """Return the answer to stat(2): the record, overlaid with what was written here and is not saved yet. The
        record is reread if it may have been read before what is unsaved now was saved."""
        file = self._table.get(ino)
        if file is None or not file.writes:
            return self._stored_attributes(ino, inode)

        def take(place: Place) -> tuple[int, int | None, int]:
            end = file.end_without(place.without)
            return end + place.by if end else 0, file.written_ns, file.unsaved_bytes

        def look(view: View) -> _Stored:
            return _Stored(inodes.find(view, ino) or inode)

        stored, (end, written_ns, unsaved_bytes) = unsaved.over(self._context, file, look, take)
        shown = self._stored_attributes(ino, stored.inode)
        return msgspec.structs.replace(
            shown,
            size=max(shown.size, end),
            mtime_ns=shown.mtime_ns if written_ns is None else written_ns,
            ctime_ns=shown.ctime_ns if written_ns is None else max(written_ns, shown.ctime_ns),
            blocks=max(shown.blocks, blocks(unsaved_bytes)),
        )

    def _stored_attributes(self, ino: int, inode: Inode) -> Attributes:
        shown = attributes_of(ino, inode)
        atime_ns = self._access_times.shown_ns(ino, inode)
        return shown if atime_ns == inode.atime_ns else msgspec.structs.replace(shown, atime_ns=atime_ns)

    def is_open(self, ino: int) -> bool:
        """Return whether anyone here has it open."""
        return self._table.get(ino) is not None

    def may_be_mapped(self, ino: int) -> bool:
        """Return whether someone here has it open in a mode that allows writing through a shared mapping."""
        file = self._table.get(ino)
        return file is not None and file.mappable > 0

    def is_reading_noticed(self, number: int) -> bool:
        """Return whether reading through this handle would set the access time now."""
        handle = self._get(number)
        if not (handle.may_read and handle.is_noticed):
            return False
        ino = handle.file.ino
        inode = self._context.store.read(lambda view: inodes.find(view, ino), max_age_s=self._context.max_age_s)
        return inode is None or self._access_times.is_due(ino, inode)

    def is_any_read(self) -> bool:
        """Return whether a handle is open for reading, through which a program may have mapped its file."""
        with self._lock:
            return any(handle.may_read for handle in self._handles.values())

    def change(self, ino: int, changes: AttributeChanges, caller: Caller, *, durable: bool = False) -> Attributes:
        """setattr()."""
        if changes.atime_ns is not None:
            self._access_times.set_by_hand(ino)
        file = self._table.pin_if_open(ino)
        try:
            return self.attributes(ino, self._setter.change(ino, changes, file, caller.route, durable=durable))
        finally:
            if file is not None:
                self._table.unpin(file)

    # ------------------------------------------------------------------ open and close

    def open(self, ino: int, flags: int) -> int:
        """Return a handle on a regular file. Raises OSError (ENOENT, EISDIR, ELOOP for a symbolic link, else ENXIO),
        and `IncompleteError` where files that cannot be assembled are not opened for reading."""
        file = self._table.pin(ino)
        try:
            inode = self._context.store.read(lambda view: _regular(view, ino))
            if flags & os.O_ACCMODE != os.O_WRONLY and not flags & os.O_TRUNC:
                self._incomplete.check_open(ino)
            self._opened(file, inode)
            if not inode.nlink and not file.is_unlinked:
                self._orphan_keeper.opened(ino)
            if flags & os.O_TRUNC:
                self._setter.change(ino, AttributeChanges(size=0), file)
        except BaseException:
            self._table.unpin(file)
            raise
        return self._add(file, flags)

    def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Attributes, int]:
        """open(2) with O_CREAT: a new file, or the existing one (EEXIST with O_EXCL)."""
        self._backlog.slow_down()
        for _ in range(CREATE_TRIES):
            with suppress(FileNotFoundError):
                return self._create(parent, name, mode, flags, caller)
        return self._create(parent, name, mode, flags, caller)

    def _create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Attributes, int]:
        """Try once; an existing file may be removed before it is open (ENOENT)."""
        ino = self._context.numbers.take()
        now_ns = self._context.clock()
        new = inodes.new(stat.S_IFREG | stat.S_IMODE(mode), caller.uid, caller.gid, now_ns)

        def work(tx: Transaction) -> tuple[int, Inode]:
            directories.check_route(tx, caller.route)
            found = None if flags & os.O_EXCL else directories.find(tx, parent, name)
            if found is None:
                return ino, directories.make(tx, parent, name, ino, new, now_ns)
            return found.ino, inodes.load(tx, found.ino)

        file = self._table.pin(ino)
        is_handles = False
        """Whether the pin belongs to a handle by now."""
        try:
            # Closing a file that was open for writing commits its name with its data: in one batch, not in two.
            is_followed = flags & os.O_ACCMODE != os.O_RDONLY
            made, inode = self._context.store.transact(work, durable=False, is_followed=is_followed)
            if made == ino:
                if caller.holds:
                    self._table.hold(ino)
                handle = self._add(file, flags)
                is_handles = True
                return attributes_of(ino, inode), handle
        finally:
            if not is_handles:
                self._table.unpin(file)
        handle = self.open(made, flags)
        try:
            inode = self._context.store.read(lambda view: inodes.load(view, made), max_age_s=self._context.max_age_s)
        except BaseException:
            self.release(handle)
            raise
        if caller.holds:
            self._table.hold(made)
        return self.attributes(made, inode), handle

    def close_failed(self, number: int, *, is_reported: bool) -> None:
        """Handle a failed flush(), which the program is about to be told of; or will not be: it is ending, or was let
        go."""
        with self._lock:
            handle = self._handles.get(number)
        if handle is not None:  # otherwise the program was released, and everything is closed already
            with handle.file.lock:
                handle.failed_at = handle.file.writes if is_reported else None

    def release(self, number: int, *, keep: bool = False) -> None:
        """Close the handle. What flush() has not saved is saved; a failure is logged. `keep`: what cannot be saved now
        is saved in the background, unless a program was told that close() failed, after the last write."""
        with self._lock:
            handle = self._handles.pop(number, None)
        if handle is None:
            raise posix_error(errno.EBADF)
        file = handle.file
        with file.lock:
            file.mappable -= handle.may_map
        try:
            if file.is_unsaved and not file.is_unlinked:
                self._save(handle, wait=self._context.wait_for_close)
        except (DfsError, OSError) as failure:
            if not (keep and handle.may_write and self._keep(handle, failure)):
                log.error("inode %d: the last writes are lost: %s", file.ino, failure)
        finally:
            self._table.unpin(file)

    def _keep(self, handle: Handle, failure: Exception) -> bool:
        """Let the background save what could not be saved now. Returns False if no program may expect that."""
        file = handle.file
        with file.lock:
            if not file.has_data or file.is_unlinked or handle.failed_at == file.writes:
                return False
        log.error("inode %d: the last writes are not saved yet and will be retried: %s", file.ino, failure)
        self._background_saver.save_later(file)
        return True

    def _opened(self, file: OpenFile, inode: Inode) -> None:
        with file.lock:
            if not file.is_unsaved:
                file.rotation = inode.rotation

    def _add(self, file: OpenFile, flags: int) -> int:
        names = self._context.store.witness()
        with file.lock:
            handle = Handle(file, flags, names, file.losses.witness())
            file.mappable += handle.may_map
        with self._lock:
            number = next(self._numbers)
            self._handles[number] = handle
            return number

    def _get(self, number: int) -> Handle:
        handle = self._handles.get(number)  # one operation on a dictionary needs no lock
        if handle is None:
            raise posix_error(errno.EBADF)
        return handle

    # ------------------------------------------------------------------ data

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Return up to `size` bytes, fewer only at the end of the file."""
        handle = self._get(number)
        if not handle.may_read:
            raise posix_error(errno.EBADF)
        return self._reader.read(handle.file, offset, size, handle.ahead, is_noticed=handle.is_noticed)

    def write(
        self,
        number: int,
        offset: int,
        data: bytes | memoryview,
        *,
        append: bool | None = None,
        is_mapped: bool = False,
    ) -> int:
        """Take the data; `append` (None: as the file was opened) at the end that the file has when it is committed."""
        handle = self._get(number)
        if not handle.may_write:
            raise posix_error(errno.EBADF)
        append = bool(handle.flags & os.O_APPEND) if append is None else append
        return self._writer.write(handle.file, None if append else offset, data, is_mapped=is_mapped)

    def allocate(self, number: int, offset: int, length: int, mode: int) -> None:
        """fallocate(2)."""
        handle = self._get(number)
        if not handle.may_write:
            raise posix_error(errno.EBADF)
        self._holes.allocate(handle.file, offset, length, mode)

    def seek(self, number: int, offset: int, whence: int) -> int:
        """lseek(2), for SEEK_DATA and SEEK_HOLE."""
        return self._holes.seek(self._get(number).file, offset, whence)

    def flush(self, number: int) -> None:
        """Handle close() on a descriptor: save everything, or (durability=fsync) begin to. The data of a file without a
        name is not worth it."""
        handle = self._get(number)
        if handle.may_write and not handle.file.is_unlinked:
            self._save(handle, wait=self._context.wait_for_close)

    def fsync(self, number: int) -> None:
        """Save the whole file now."""
        self._save(self._get(number), wait=True)

    def _save(self, handle: Handle, *, wait: bool) -> None:
        """Also raises what was lost since it was opened, even if others were told of it before."""
        file = handle.file
        if wait:
            try:
                self._saver.save(file)
            finally:
                with file.lock:
                    lost = file.losses.take(handle.data)  # even if it is what is being raised
            if lost is not None:
                raise lost
            self._context.store.flush(handle.names)
            return
        with file.lock:
            failure = file.losses.take(handle.data) or file.take_error()
        if failure is not None:
            raise failure
        if file.is_unsaved:
            self._background_saver.save_later(file)
            self._backlog.slow_down(file.ino)

    def save_inode(self, ino: int) -> None:
        """Save everything that was written to a file, through any handle, now: durable and visible to others."""
        file = self._table.pin_if_open(ino)
        if file is None:
            return
        try:
            if file.is_unsaved and not file.is_unlinked:
                self._saver.save(file)
        finally:
            self._table.unpin(file)
        self._context.store.flush()

    def save_all(self) -> None:
        """Save every file. Raises the first failure after all were tried."""
        failures: list[Exception] = []
        for file in self._table.all():
            try:
                if not file.is_unlinked:
                    self._saver.save(file)
            except (DfsError, OSError) as failure:
                failures.append(failure)
        if failures:
            raise failures[0]


def _regular(view: View, ino: int) -> Inode:
    inode = inodes.load(view, ino)
    if inode.is_file:
        return inode
    if inode.is_directory:
        raise posix_error(errno.EISDIR)
    raise posix_error(errno.ELOOP if stat.S_ISLNK(inode.mode) else errno.ENXIO)
