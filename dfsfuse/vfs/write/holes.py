"""Holes: fallocate(2) makes them, lseek(2) with SEEK_DATA and SEEK_HOLE finds them.

A hole is where there is no extent; it reads as zeros and takes no room. Room cannot be reserved in advance: a file that
is "allocated" has its size and nothing else. Unsaved data is saved first, so that the map alone decides: one save,
after which any number of searches finds the file clean.

Long ranges are cleared in steps of bounded batches, from the front; once these have begun their program is not released
(`dfsfuse.common.withdrawal`). A segment of which little is visible afterwards is reported to the compactor, so that the
room of the hole is regained. Threads: `OpenFile.commit_lock`; stateless.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from dfsfuse.common import withdrawal
from dfsfuse.data import extents
from dfsfuse.data.extents import REGION_BYTES, Region, covered
from dfsfuse.data.runs import is_crowded
from dfsfuse.errors import posix_error
from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.namespace.ops import inodes
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.vfs.context import FILE_MAX_BYTES, Context
from dfsfuse.vfs.open.open_file import OpenFile
from dfsfuse.vfs.write import regions
from dfsfuse.vfs.write.compaction import Compactor
from dfsfuse.vfs.write.saving import Saver

KEEP_SIZE: Final = 0x01
"""FALLOC_FL_* of <linux/falloc.h>."""
PUNCH_HOLE: Final = 0x02
ZERO_RANGE: Final = 0x10
_MODES: Final = frozenset({0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE})


def records(view: View, ino: int, inode: Inode, first: int, end: int) -> Iterator[tuple[int, Region]]:
    """Yield the region records first <= index < end, in order, in growing windows: a sparse file may have any size."""
    end = min(end, regions.count(inode.size))
    if not inode.stored_bytes:
        return
    if regions.count(inode.size) <= regions.FEW_REGIONS:
        indexes = range(first, end)
        found = regions.find(view, ino, inode, indexes)
        yield from ((index, region) for index, region in zip(indexes, found, strict=True) if region.extents)
        return
    window = regions.STEP_REGIONS
    while first < end:
        stop = min(first + window, end)
        for key, value in view.scan(*keys.regions(ino, first, stop)):
            yield keys.index_of(key), regions.decode(value)
        first, window = stop, window * 2


def data_from(view: View, ino: int, inode: Inode, offset: int) -> Iterator[tuple[int, int]]:
    """Yield the stretches of data (start, end) from an offset on, in order; adjacent ones are not joined."""
    for index, region in records(view, ino, inode, offset // REGION_BYTES, regions.count(inode.size)):
        base = index * REGION_BYTES
        for extent in region.extents:
            if base + extent.end > offset:
                yield max(base + extent.offset, offset), min(base + extent.end, inode.size)


class Cleared(NamedTuple):
    """The inode after a hole was made, for the caller to save; how far that got; regions that are now crowded."""

    inode: Inode
    reached: int
    crowded: list[int]


def clear(tx: Transaction, ino: int, inode: Inode, start: int, end: int) -> Cleared:
    """Make a hole from `start` to `end`, or of the first part of that."""
    stored = inode.stored_bytes
    changed = 0
    crowded = []
    for index, old in records(tx, ino, inode, start // REGION_BYTES, regions.count(end)):
        base = index * REGION_BYTES
        if changed == regions.STEP_REGIONS:
            end = base
            break
        low, high = max(start - base, 0), min(end - base, REGION_BYTES)
        region, dropped = extents.clear(old, low, high - low)
        if region != old:
            regions.put(tx, ino, index, region, dropped)
            stored += covered(region) - covered(old)
            changed += 1
            if is_crowded(region):
                crowded.append(index)
    return Cleared(msgspec.structs.replace(inode, stored_bytes=stored), end, crowded)


class Holes:
    """See the module."""

    def __init__(self, context: Context, saver: Saver, compactor: Compactor) -> None:
        self._context = context
        self._saver = saver
        self._compactor = compactor

    def allocate(self, file: OpenFile, offset: int, length: int, mode: int) -> None:
        """fallocate(2). Raises OSError (EINVAL, EFBIG, EOPNOTSUPP for what only a local disk can do)."""
        if offset < 0 or length <= 0:
            raise posix_error(errno.EINVAL)
        if mode not in _MODES:
            raise posix_error(errno.EOPNOTSUPP)
        if offset + length > FILE_MAX_BYTES:
            raise posix_error(errno.EFBIG)
        self._context.check_writable()
        end = offset + length
        size = 0 if mode & KEEP_SIZE else end
        with file.commit_lock:
            self._saver.save_locked(file)
            try:
                if mode & (PUNCH_HOLE | ZERO_RANGE):
                    at = offset
                    while at < end:
                        at = self._clear(file.ino, at, end, size)
                elif size:
                    self._clear(file.ino, end, end, size)
            finally:
                withdrawal.over()

    def _clear(self, ino: int, start: int, end: int, size: int) -> int:
        now_ns = self._context.clock()

        def step(tx: Transaction) -> Cleared:
            old = inodes.load(tx, ino)
            cleared = clear(tx, ino, old, start, end) if start < end else Cleared(old, end, [])
            if cleared.reached < end:
                withdrawal.pass_point()
            inode = msgspec.structs.replace(cleared.inode, size=max(cleared.inode.size, size))
            if inode != old:
                changed_ns = inodes.change_time_ns(old, now_ns)
                inodes.save(tx, ino, msgspec.structs.replace(inode, mtime_ns=now_ns, ctime_ns=changed_ns))
            return cleared

        cleared = self._context.store.transact(step, durable=False)
        self._compactor.later(ino, cleared.crowded)
        return cleared.reached

    def seek(self, file: OpenFile, offset: int, whence: int) -> int:
        """lseek(2) with SEEK_DATA or SEEK_HOLE; the end of a file is a hole. Raises OSError (ENXIO beyond it)."""
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise posix_error(errno.EINVAL)
        if file.is_unsaved:
            self._saver.save(file)

        def look(view: View) -> int:
            inode = inodes.load(view, file.ino)
            if not 0 <= offset < inode.size:
                raise posix_error(errno.ENXIO)
            place = offset
            for start, end in data_from(view, file.ino, inode, offset):
                if whence == os.SEEK_DATA:
                    return start
                if start > place:
                    break
                place = end
            if whence == os.SEEK_DATA:
                raise posix_error(errno.ENXIO)
            return place

        return self._context.store.read(look, max_age_s=self._context.max_age_s)
