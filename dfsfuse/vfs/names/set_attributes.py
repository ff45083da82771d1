"""setattr(): mode, owner, times and size.

A size is reached in steps of bounded batches, each of which makes the other changes too. Unsaved data of the file is
saved first; or given up, if the new size is 0; or stays as it is, if the file already has that size with it. The region
that was cut is reported to the compactor if it has too many extents, or if little of its segments is still visible. If
its program is released meanwhile, a file is cut in one batch or not at all; what takes several is completed
(`dfsfuse.common.withdrawal`). Threads: `OpenFile.commit_lock` is held: no flush comes in between.
"""

from __future__ import annotations

import errno
import stat
from contextlib import nullcontext

import msgspec

from dfsfuse.common import withdrawal
from dfsfuse.errors import posix_error
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.namespace.ops import directories, inodes
from dfsfuse.namespace.ops.directories import Route
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.vfs.attributes import AttributeChanges
from dfsfuse.vfs.context import FILE_MAX_BYTES, Context
from dfsfuse.vfs.names.removal import Reaper
from dfsfuse.vfs.open.open_file import OpenFile, PendingSegment
from dfsfuse.vfs.write import regions
from dfsfuse.vfs.write.compaction import Compactor
from dfsfuse.vfs.write.saving import Saver
from dfsfuse.vfs.write.uploads import Uploads


def changed(inode: Inode, changes: AttributeChanges, now_ns: int) -> Inode:
    """Return the inode with everything but the size changed."""
    mode = inode.mode
    if changes.mode is not None:
        mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(changes.mode)
    return msgspec.structs.replace(
        inode,
        mode=mode,
        uid=inode.uid if changes.uid is None else changes.uid,
        gid=inode.gid if changes.gid is None else changes.gid,
        atime_ns=inode.atime_ns if changes.atime_ns is None else records.clamped_time(changes.atime_ns),
        mtime_ns=inode.mtime_ns if changes.mtime_ns is None else records.clamped_time(changes.mtime_ns),
        ctime_ns=inodes.change_time_ns(inode, now_ns),
    )


class AttributeSetter:
    """See the module. Stateless."""

    def __init__(self, context: Context, saver: Saver, uploads: Uploads, reaper: Reaper, compactor: Compactor) -> None:
        self._compactor = compactor
        self._context = context
        self._reaper = reaper
        self._saver = saver
        self._uploads = uploads

    def change(
        self, ino: int, changes: AttributeChanges, file: OpenFile | None, route: Route = (), *, durable: bool = False
    ) -> Inode:
        """Make the changes; `file` if it is open here (pinned by the caller). `route`: the names by which the caller
        got here. `durable`: a change without a size is committed before this returns. Raises OSError (ENOENT,
        EISDIR...; ESTALE if one of them now leads elsewhere)."""
        with file.commit_lock if file is not None else nullcontext():
            if changes.size is None:
                inode = self._change_attributes(ino, changes, route, durable=durable)
            else:
                try:
                    inode = self._resize(ino, changes.size, changes, file, route)
                finally:
                    withdrawal.over()
            if file is not None and changes.mtime_ns is not None:
                with file.lock:
                    file.written_ns = None  # the time that was set stays until something is written again
            return inode

    def _change_attributes(self, ino: int, changes: AttributeChanges, route: Route, *, durable: bool) -> Inode:
        now_ns = self._context.clock()

        def work(tx: Transaction) -> Inode:
            inode = inodes.load(tx, ino)
            directories.check_route(tx, route)
            inode = changed(inode, changes, now_ns)
            inodes.save(tx, ino, inode)
            return inode

        return self._context.store.transact(work, durable=durable)

    def _keep_size(self, ino: int, size: int, changes: AttributeChanges, file: OpenFile, route: Route) -> Inode | None:
        """Change the times, as on ext4, without saving anything, if the file with its unsaved data already has that
        size. Returns None if it has not, or there is no such data, or it is unknown."""
        with file.lock:
            if not file.has_data or any(item.doubt is not None for item in file.sealed):
                return None
            appended = file.end - file.start if file.is_appended else 0
            end = 0 if file.is_appended else file.end
        now_ns = self._context.clock()

        def work(tx: Transaction) -> Inode | None:
            inode = inodes.load(tx, ino)
            directories.check_route(tx, route)
            if max(inode.size + appended, end) != size:
                return None
            inode = changed(msgspec.structs.replace(inode, mtime_ns=now_ns), changes, now_ns)
            inodes.save(tx, ino, inode)
            return inode

        inode = self._context.store.transact(work, durable=False)
        if inode is not None:
            with file.lock:
                file.written_ns = max(now_ns, file.written_ns or now_ns)
        return inode

    def _resize(self, ino: int, size: int, changes: AttributeChanges, file: OpenFile | None, route: Route) -> Inode:
        if size < 0:
            raise posix_error(errno.EINVAL)
        if size > FILE_MAX_BYTES:
            raise posix_error(errno.EFBIG)
        if file is not None and size and (kept := self._keep_size(ino, size, changes, file, route)) is not None:
            return kept
        given_up: list[PendingSegment] = []
        if file is not None and size:
            self._saver.save_locked(file)
        elif file is not None:
            with file.lock:
                file.seal_all()
                given_up = list(file.sealed)
                file.cuts += bool(given_up)
        now_ns = self._context.clock()

        def step(tx: Transaction) -> tuple[Inode, bool, list[int]]:
            before = inodes.load(tx, ino)
            if not before.is_file:
                raise posix_error(errno.EISDIR if before.is_directory else errno.EINVAL)
            directories.check_route(tx, route if is_first else ())
            inode, is_reached = regions.resize(tx, ino, before, size)
            crowded = regions.crowded_end(tx, ino, inode) if size < before.size and is_reached else []
            inode = msgspec.structs.replace(inode, mtime_ns=now_ns, ctime_ns=inodes.change_time_ns(before, now_ns))
            inode = changed(inode, changes, now_ns)
            if not is_reached:
                withdrawal.pass_point()
            inodes.save(tx, ino, inode)
            return inode, is_reached, crowded

        is_first, is_reached = True, False
        try:
            while not is_reached:
                inode, is_reached, crowded = self._context.store.transact(step, durable=False)
                is_first = False  # what has begun is completed, whatever name the file gets meanwhile
        except BaseException:
            if file is not None:
                with file.lock:
                    file.cuts += bool(given_up)
            raise
        if file is not None:
            with file.lock:
                file.cuts += bool(given_up)
                file.sealed = [item for item in file.sealed if item not in given_up]
                file.rotation = inode.rotation
                if not file.sealed and not file.buffer.dirty_bytes:
                    file.written_ns = None
            self._uploads.release(file, given_up)
            self._reaper.drop_later(ino, given_up)  # and not above: if that batch may have failed, they stay
        self._compactor.later(ino, crowded)
        return inode
