"""The file system without FUSE, as called by a binding or a command.

Inode-based; names are bytes. Every operation raises `OSError` with the errno of a local file system, or a
`dfsfuse.errors.DfsError`. Permissions are not checked here: the kernel does that (default_permissions). Each method is
a line or two; the work is done in the module it names. Knows no FUSE binding, no server, no log.

Promises: metadata operations are atomic and take effect in order. Under the writer lease they are durable at the next
close() of a written file or fsync() (docs/decisions/0013), else when they return. File data is close-to-open: what was
written is durable and visible to others when flush() (durability=close) or fsync() returns, and open() sees the newest.
`Caller` (caller.py) says who asks, and by which names.

Threads: any number of callers. Two threads of its own for uploads, one for compaction, one for everything else that
nothing waits for; they start when needed and end with `close`. The order of locks is in context.py.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from typing import Final

import msgspec

from dfsfuse.common.events import Events
from dfsfuse.errors import posix_error
from dfsfuse.namespace.map.transactions import MapStore
from dfsfuse.namespace.ops import directories, inodes
from dfsfuse.namespace.ops.inode_numbers import InodeNumbers
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records.keys import ROOT
from dfsfuse.vfs import file_clock
from dfsfuse.vfs.attributes import AttributeChanges, Attributes, DirectoryEntry, Room, Space, space_of
from dfsfuse.vfs.caller import SUPERUSER, Caller, this_process
from dfsfuse.vfs.context import Context, Segments, log
from dfsfuse.vfs.health.health import Health, health_of_many
from dfsfuse.vfs.health.incomplete import Incomplete
from dfsfuse.vfs.locks.locking import Locking
from dfsfuse.vfs.names.changed import changes_of
from dfsfuse.vfs.names.folder_handles import FolderHandles
from dfsfuse.vfs.names.names_seen import NamesSeen
from dfsfuse.vfs.names.removal import Reaper
from dfsfuse.vfs.names.set_attributes import AttributeSetter
from dfsfuse.vfs.names.tree import Tree
from dfsfuse.vfs.names.xattrs import Xattrs
from dfsfuse.vfs.open import content_state
from dfsfuse.vfs.open.files import Files
from dfsfuse.vfs.open.open_file import OpenFile
from dfsfuse.vfs.open.open_files import OpenFiles
from dfsfuse.vfs.open.orphan_keeper import OrphanKeeper
from dfsfuse.vfs.read.access_times import AccessTimes
from dfsfuse.vfs.settings import MountSettings
from dfsfuse.vfs.write.background_saving import BackgroundSaver
from dfsfuse.vfs.write.backlog import Backlog
from dfsfuse.vfs.write.budget import Budget
from dfsfuse.vfs.write.compaction import Compactor
from dfsfuse.vfs.write.ending import Ending
from dfsfuse.vfs.write.holes import Holes
from dfsfuse.vfs.write.putting import Chunk, Progress, Putter
from dfsfuse.vfs.write.saving import Saver
from dfsfuse.vfs.write.uploads import Uploads
from dfsfuse.vfs.write.writing import Writer

__all__ = ["AttributeChanges", "Attributes", "DirectoryEntry", "Room", "Space", "Vfs"]

DEFAULTS: Final = MountSettings()
UNKNOWN_ROOM_BYTES: Final = 2**43
"""What statfs reports if the room is unknown: programs that check before they write should try."""


class Vfs:
    """One mount of one namespace.

    `usable` returns which of the `servers` (id -> name) are believed to answer; `room` how much room there is.
    `background`, `uploads` and `compaction` replace the threads, for tests; `close` shuts them down too.
    """

    def __init__(
        self,
        store: MapStore,
        segments: Segments,
        *,
        servers: Mapping[int, str],
        settings: MountSettings = DEFAULTS,
        usable: Callable[[], frozenset[int]] | None = None,
        room: Callable[[], Room] | None = None,
        clock: Callable[[], int] = file_clock.now_ns,
        monotonic: Callable[[], float] = time.monotonic,
        client: bytes | None = None,
        events: Events | None = None,
        background: Executor | None = None,
        uploads: Executor | None = None,
        compaction: Executor | None = None,
    ) -> None:
        everyone = frozenset(servers)
        self._context = context = Context(
            store=store,
            segments=segments,
            numbers=InodeNumbers(store),
            servers=servers,
            usable=usable or (lambda: everyone),
            clock=clock,
            monotonic=monotonic,
            max_age_s=settings.max_age_s,
            wait_for_close=settings.durability == "close",
            client=client or os.urandom(8),
            grace_s=settings.removal_grace_s,
            background=background or ThreadPoolExecutor(1, thread_name_prefix="vfs-background"),
            uploads=uploads or ThreadPoolExecutor(2, thread_name_prefix="vfs-upload"),
        )
        self.events = events or Events()
        self._room = room or (lambda: Room(UNKNOWN_ROOM_BYTES, UNKNOWN_ROOM_BYTES))
        self._uploads = Uploads(context, Budget(settings.dirty_limit_bytes, monotonic))
        self._table = table = OpenFiles(self._closed, self._is_unneeded)
        self._reaper = Reaper(context, table)
        self.orphan_keeper = OrphanKeeper(context, table, self._reaper)
        self._compactor = Compactor(context, compaction or ThreadPoolExecutor(1, thread_name_prefix="vfs-compaction"))
        self._backlog = backlog = Backlog(monotonic, settings.save_after_s)
        saver = Saver(context, table, self._uploads, backlog, self._reaper, self._compactor)
        self.background_saver = BackgroundSaver(context, table, saver, backlog)
        writer = Writer(context, saver, self.background_saver, backlog, self._uploads)
        self._incomplete = Incomplete(context, settings.incomplete)
        self._access_times = times = AccessTimes(context, settings.atime, folders=settings.diratime)
        setter = AttributeSetter(context, saver, self._uploads, self._reaper, self._compactor)
        holes = Holes(context, saver, self._compactor)
        self._files = Files(
            context,
            table,
            saver,
            writer,
            self.background_saver,
            backlog,
            setter,
            holes,
            times,
            self._incomplete,
            self.orphan_keeper,
        )
        self.locks = Locking(store, self._files.save_inode, self.events, lifetime_s=settings.lock_lifetime_s)
        self._tree = Tree(context, table, self._incomplete, times)
        self._folders = FolderHandles(context, self._incomplete, times)
        self._xattrs = Xattrs(context)
        self._putter = Putter(context, self._tree, self._reaper)
        self._names = NamesSeen()
        self.ending = Ending(context, table, saver, self.background_saver, self._uploads, self._names)

    def close(self) -> None:
        """Save everything and end the threads. Raises what the saving raises. The store and the segments stay open."""
        self._access_times.close()
        try:
            self.background_saver.close()
            self._files.save_all()
        finally:
            self.locks.close()
            self.orphan_keeper.close()
            for ino in self._table.end():
                self._reaper.delete_later(ino)
            self._reaper.finish()
            self._compactor.close()
            self._context.background.shutdown(wait=True)
            self._context.uploads.shutdown(wait=True)

    def changed_elsewhere(self, keys_changed: list[bytes] | None) -> None:
        """Take note that the map has learnt that another mount changed these keys (None: perhaps all)."""
        self.orphan_keeper.learnt(keys_changed)
        self.events.on_files_changed(None if keys_changed is None else changes_of(keys_changed))

    def look_for_changes(self) -> None:
        """Learn what other mounts have changed, unless that is known already."""
        self._context.store.read(lambda _: None, max_age_s=self._context.max_age_s / 2)

    def answering(self) -> frozenset[int]:
        """Return the ids of the servers that are believed to answer. Costs nothing."""
        return self._context.usable()

    def all_servers_answer(self) -> bool:
        """Return whether all servers are believed to answer. Costs nothing."""
        return len(self._context.usable()) == len(self._context.servers)

    def now_ns(self) -> int:
        """Return the time that a file gets if it is changed now."""
        return self._context.clock()

    def lacks_servers(self) -> bool:
        """Return whether operations may wait long for servers just now: too few are believed to answer for writing, or
        so many owe an answer that they are waited for. Never waits."""
        return not self._context.seems_writable() or self._context.store.is_stalled()

    def is_open(self, ino: int) -> bool:
        """Return whether someone here has the file or folder open."""
        return self._files.is_open(ino) or self._folders.is_open(ino)

    def may_be_mapped(self, ino: int) -> bool:
        """Return whether a program here may be able to write to the file through a shared mapping."""
        return self._files.may_be_mapped(ino)

    def is_unsaved(self, ino: int) -> bool:
        """Return whether something was written to the file here that is not saved yet."""
        file = self._table.get(ino)
        return file is not None and file.is_unsaved

    def is_reading_noticed(self, handle: int) -> bool:
        """Return whether reading through this handle would set the file's access time now."""
        return self._files.is_reading_noticed(handle)

    def is_any_read(self) -> bool:
        """Return whether a file is open here for reading."""
        return self._files.is_any_read()

    def save_long_unsaved(self) -> None:
        """Save in the background what has been on the servers for a long time without a batch that refers to it."""
        for file in self._table.all():
            if self._uploads.is_waiting_long(file):
                with suppress(FileNotFoundError):  # closed meanwhile, and being deleted
                    self.background_saver.save_later(file, seal=False)

    def is_held(self, ino: int) -> bool:
        """Return whether a caller that holds what it finds has looked it up, and not forgotten it."""
        return self._table.is_held(ino)

    def _closed(self, file: OpenFile) -> None:
        """Clean up a file that is no longer in use."""
        if file.is_unsaved:
            if not file.is_unlinked:
                log.error("inode %d: %d bytes that could not be saved are lost", file.ino, file.unsaved_bytes)
            self._reaper.drop_later(file.ino, self._uploads.forget(file))

    def _is_unneeded(self, ino: int) -> None:
        """Schedule the deletion of an orphan that is not in use here."""
        self._reaper.delete_later(ino)

    # ------------------------------------------------------------------ names (tree.py)

    def lookup(
        self,
        parent: int,
        name: bytes,
        caller: Caller = SUPERUSER,
        *,
        found_as: Callable[[bytes, int], None] | None = None,
    ) -> Attributes:
        """Return what has this name in the folder. Raises OSError (ENOENT, ENOTDIR...)."""
        found = self._files.attributes(*self._tree.lookup(parent, name, holds=caller.holds, found_as=found_as))
        self._names.saw(parent, name, found.ino)
        return found

    def lookup_listed(
        self, parent: int, names: Sequence[bytes], found_as: Callable[[Sequence[tuple[bytes, int]]], None]
    ) -> list[Attributes | None]:
        """`lookup` of many names at once, which were just listed, for a caller that holds what it finds. None: not
        found this way; then nothing is held."""
        looked_up = self._tree.lookup_listed(parent, names, found_as)
        found = [(name, *one) for name, one in zip(names, looked_up, strict=True) if one is not None]
        try:
            shown = iter([self._files.attributes(ino, inode) for _, ino, inode in found])
        except BaseException:
            for _, ino, _ in found:
                self._table.forget(ino, 1)
            raise
        self._names.saw_many(parent, [(name, ino) for name, ino, _ in found])
        return [None if one is None else next(shown) for one in looked_up]

    def forget(self, ino: int, holds: int = 1) -> None:
        """Take back this many holds; then the inode need not be kept any more if it has no name."""
        self._table.forget(ino, holds)

    def resolve(self, names: Sequence[bytes], *, newest: bool = False) -> Attributes:
        """Return what is at the end of these names, from the root on; one step for a binding that knows only paths.

        `newest`: in the newest state, as open(2) must see it.
        """
        found, inode = self._tree.resolve(names, newest=newest)
        self._names.saw_path(names, found)
        return self._files.attributes(found[-1] if found else ROOT, inode)

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Attributes:
        """Create a file, fifo, socket or device."""
        if stat.S_IFMT(mode) in (stat.S_IFDIR, stat.S_IFLNK):
            raise posix_error(errno.EINVAL)
        mode = mode if stat.S_IFMT(mode) else mode | stat.S_IFREG
        made = self._files.attributes(*self._tree.make(parent, name, mode, caller, rdev=rdev))
        self._names.saw(parent, name, made.ino)
        return made

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attributes:
        """Create a folder."""
        mode = stat.S_IFDIR | stat.S_IMODE(mode)
        made = self._files.attributes(*self._tree.make(parent, name, mode, caller))
        self._names.saw(parent, name, made.ino)
        return made

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attributes:
        """Create a symbolic link."""
        mode = stat.S_IFLNK | 0o777
        return self._files.attributes(*self._tree.make(parent, name, mode, caller, target=target))

    def readlink(self, ino: int) -> bytes:
        """Return a symbolic link's target. Raises OSError (EINVAL)."""
        return self._tree.readlink(ino)

    def link(self, ino: int, parent: int, name: bytes, caller: Caller = SUPERUSER) -> Attributes:
        """Add a name to a file. Raises OSError (EPERM for a folder, EEXIST...)."""
        return self._files.attributes(ino, self._tree.link(ino, parent, name, caller))

    def unlink(self, parent: int, name: bytes, caller: Caller = SUPERUSER) -> None:
        """Remove a name of anything but a folder. Raises OSError (EISDIR...)."""
        self._tree.unlink(parent, name, caller)

    def rmdir(self, parent: int, name: bytes, caller: Caller = SUPERUSER) -> None:
        """Remove an empty folder. Raises OSError (ENOTDIR, ENOTEMPTY...)."""
        self._tree.rmdir(parent, name, caller)

    def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        flags: int = 0,
        caller: Caller = SUPERUSER,
    ) -> None:
        """rename(2), renameat2(2): `flags` are RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT. The caller owns the
        whiteout."""
        self._tree.rename(parent, name, new_parent, new_name, flags, caller)
        self._names.moved(parent, name, new_parent, new_name)

    # ------------------------------------------------------------------ attributes (set_attributes.py, xattrs.py)

    def getattr(self, ino: int, handle: int | None = None) -> Attributes:  # noqa: ARG002 (bindings pass what they have)
        """Return the answer to stat(2), including what is written here and not saved yet."""
        return self._files.attributes(ino, self._tree.get(ino))

    def setattr(
        self,
        ino: int,
        changes: AttributeChanges,
        handle: int | None = None,  # noqa: ARG002 (the same)
        caller: Caller = SUPERUSER,
        *,
        durable: bool = False,
    ) -> Attributes:
        """Change mode, owner, times or size. `durable`: wait until a change without a size is committed."""
        return self._files.change(ino, changes, caller, durable=durable)

    def getxattr(self, ino: int, name: bytes) -> bytes:
        """Return an extended attribute. Raises OSError (ENODATA, EOPNOTSUPP)."""
        return self._xattrs.get(ino, name)

    def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0, caller: Caller = SUPERUSER) -> None:
        """Set one; `flags` are XATTR_CREATE or XATTR_REPLACE."""
        self._xattrs.set(ino, name, value, flags, caller.route)

    def listxattr(self, ino: int) -> list[bytes]:
        """Return the names of all."""
        return self._xattrs.list(ino)

    def removexattr(self, ino: int, name: bytes, caller: Caller = SUPERUSER) -> None:
        """Remove one. Raises OSError (ENODATA...)."""
        self._xattrs.remove(ino, name, caller.route)

    def statfs(self) -> Space:
        """Return the answer to statvfs(3)."""
        return space_of(self._room(), directories.NAME_MAX_BYTES)

    # ------------------------------------------------------------------ files (files.py)

    def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Attributes, int]:
        """open(2) with O_CREAT: return attributes and a handle. Raises OSError (EEXIST with O_EXCL...)."""
        made, handle = self._files.create(parent, name, mode, flags, caller)
        self._names.saw(parent, name, made.ino)
        return made, handle

    def open(self, ino: int, flags: int) -> int:
        """Return a handle on a regular file, in its newest state."""
        return self._files.open(ino, flags)

    def read(self, handle: int, offset: int, size: int) -> bytes:
        """Return up to `size` bytes, fewer only at the end. Raises IncompleteError."""
        return self._files.read(handle, offset, size)

    def write(
        self,
        handle: int,
        offset: int,
        data: bytes | memoryview,
        *,
        append: bool | None = None,
        is_mapped: bool = False,
    ) -> int:
        """Take all of the data. `append`: at the end, wherever that is; None: if it was opened that way. Raises
        ReadOnlyError, NoSpaceError..."""
        return self._files.write(handle, offset, data, append=append, is_mapped=is_mapped)

    def fallocate(self, handle: int, offset: int, length: int, mode: int = 0) -> None:
        """fallocate(2): the size, holes, zeros; room is not reserved. Raises OSError (EOPNOTSUPP...)."""
        self._files.allocate(handle, offset, length, mode)

    def lseek(self, handle: int, offset: int, whence: int) -> int:
        """Return where data (SEEK_DATA) or a hole (SEEK_HOLE) begins. Raises OSError (ENXIO)."""
        return self._files.seek(handle, offset, whence)

    def flush(self, handle: int) -> None:
        """Handle the closing of a descriptor: save what was written (or begin to, with durability=fsync)."""
        self._files.flush(handle)

    def fsync(self, handle: int) -> None:
        """Save what was written, now."""
        self._files.fsync(handle)

    def close_failed(self, handle: int, *, is_reported: bool) -> None:
        """Handle a failed flush(); `is_reported`: whether the program is told."""
        self._files.close_failed(handle, is_reported=is_reported)

    def release(self, handle: int, *, keep: bool = False) -> None:
        """Forget the handle. `keep`: what cannot be saved, and what was not reported, is saved later."""
        self._files.release(handle, keep=keep)

    def put_stream(
        self,
        parent: int,
        name: bytes,
        chunks: Iterable[Chunk],
        *,
        mode: int = 0o644,
        caller: Caller | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
        progress: Progress | None = None,
    ) -> Attributes:
        """Put a whole file, with the holes that its chunks have, in the place of whatever file has this name,
        atomically; nobody ever sees half of it. It belongs to the caller (None: the user of this process), but a file
        that is replaced passes on its mode and owner (putting.py)."""
        caller = caller or this_process()
        new = inodes.new(stat.S_IFREG | stat.S_IMODE(mode), caller.uid, caller.gid, self._context.clock())
        new = msgspec.structs.replace(
            new,
            atime_ns=new.atime_ns if atime_ns is None else records.clamped_time(atime_ns),
            mtime_ns=new.mtime_ns if mtime_ns is None else records.clamped_time(mtime_ns),
        )
        return self._files.attributes(*self._putter.put(parent, name, chunks, new, progress))

    # ------------------------------------------------------------------ folders (folder_handles.py)

    def opendir(self, ino: int) -> int:
        """Return a handle on a snapshot of a folder's newest state."""
        return self._folders.open(ino)

    def readdir(self, handle: int, offset: int = 0) -> Iterator[DirectoryEntry]:
        """Yield the snapshot's entries from `offset` on, `.` and `..` first, incomplete files as `NAME
        [incomplete]`."""
        return self._folders.read(handle, offset)

    def releasedir(self, handle: int) -> None:
        """Forget the snapshot."""
        self._folders.close(handle)

    def fsyncdir(self, handle: int) -> None:
        """Make all names durable that were created, changed or removed here until now. Raises what prevented one of
        them."""
        self._folders.sync(handle)

    def list_folder(self, ino: int) -> list[tuple[bytes, Attributes]]:
        """Return a folder's newest state in one pass: real names and attributes, without `.` and `..`."""
        return [(name, self._files.attributes(child, inode)) for name, child, inode in self._folders.list(ino)]

    def content_state(self, ino: int, regions: Sequence[int]) -> bytes | None:
        """Return what identifies the newest content of these regions of a file (content_state.py); None if it is
        gone."""
        return self._context.store.read(lambda view: content_state.of(ino, regions, view.get_many))

    # ------------------------------------------------------------------ pieces (incomplete.py, health.py)

    def incomplete(self, inos: Iterable[int]) -> set[int]:
        """Return those of these files that cannot be assembled now; asks even if all servers are up."""
        return self._incomplete.among(inos)

    def health(self, inos: Sequence[int]) -> dict[int, Health]:
        """Return where the pieces of these files are; for regular files only."""
        return health_of_many(self._context, inos)
