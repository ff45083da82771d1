"""What happens to an inode whose last name is gone.

If other mounts are not waited for (a grace of 0: `dfc`), a small inode that is not needed here is deleted together
with its name, in the same batch. Everything else becomes an orphan, marked in the map with its claims
(`dfsfuse.namespace.ops.orphans`), and is deleted later: when this mount no longer needs it and the grace is over, in
which other mounts that have the file open can say that they need it too (orphan_keeper.py). So a file stays until it is
closed everywhere, and an open() that is overtaken by a rename still gets the file that it has looked up.

Many orphans are deleted in one step, and a long file in several: batches have a bounded size. Segments that were
uploaded for a file and never became part of it are dropped here too, in the background.

Threads: any number of callers; `_lock` guards what waits. Deletes on the background thread, or on the keeper's.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from dfsfuse.common.portions import by_count
from dfsfuse.errors import DfsError
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.namespace.ops import inodes, orphans
from dfsfuse.namespace.ops.directories import Removed
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.vfs.context import PATIENCE_S, Context, log
from dfsfuse.vfs.open.open_file import PendingSegment
from dfsfuse.vfs.open.open_files import OpenFiles
from dfsfuse.vfs.write import regions

AT_ONCE: Final = 250
"""At most this many orphans are deleted in one batch."""
END_DEADLINE_S: Final = 10.0
"""A mount that ends leaves what takes longer to the sweep of others."""


def delete_or_orphan(tx: Transaction, removed: Removed, files: OpenFiles, context: Context) -> bool:
    """Delete the inode if it has no name any more, or mark it as an orphan; in the transaction that removed the name.

    Returns whether it is an orphan now.
    """
    ino, inode = removed
    if inode.nlink:
        return False
    is_small = not inode.is_file or regions.count(inode.size) <= regions.FEW_REGIONS
    if context.grace_s or not files.begin_deletion(ino) or not is_small:
        inodes.save(tx, ino, inode)
        orphans.begin(tx, ino, context.client, inode.ctime_ns)
        return True
    if inode.is_file:
        regions.resize(tx, ino, inode, 0)
    tx.delete(keys.inode(ino))
    return False


class Reaper:
    """Deletes orphans. `files` knows whether one is needed here after all."""

    def __init__(self, context: Context, files: OpenFiles) -> None:
        self._context = context
        self._files = files
        self._lock = threading.Lock()
        self._waiting: deque[tuple[float, int]] = deque()
        """When each may be deleted, in order."""
        self._is_scheduled = False
        """Whether the background will process what waits."""

    # ------------------------------------------------------------------ orphans

    def delete_later(self, ino: int) -> None:
        """Delete the orphan, which this mount no longer needs, in the background, after the grace."""
        with self._lock:
            self._waiting.append((self._context.monotonic() + self._context.grace_s, ino))
            if self._context.grace_s or self._is_scheduled:
                return
            self._is_scheduled = True
        self._context.background.submit(self._work)

    def _work(self) -> None:
        with self._lock:
            self._is_scheduled = False
        self.delete_due()

    def waiting(self) -> list[int]:
        """Return those that this mount is to delete."""
        with self._lock:
            return [ino for _, ino in self._waiting]

    def delete_due(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Delete those whose grace is over, until `is_over`. What fails is retried the next time."""
        while not is_over() and self._delete_some(self._context.monotonic()):
            pass

    def finish(self) -> None:
        """Delete all that is left when the mount ends, unless it takes long."""
        deadline = self._context.monotonic() + END_DEADLINE_S
        while self._context.monotonic() < deadline and self._delete_some(float("inf")):
            pass
        left = len(self.waiting())
        if left:
            log.warning("%d inodes without a name are left for other mounts to delete", left)

    def _delete_some(self, due: float) -> bool:
        """Delete a batch of those that are due. Returns False if there are none, or if it fails."""
        with self._lock:
            some: list[tuple[float, int]] = []
            while self._waiting and len(some) < AT_ONCE and self._waiting[0][0] <= due:
                some.append(self._waiting.popleft())
        deletable = [ino for _, ino in some if self._files.begin_deletion(ino)]
        try:
            for ino in {ino for _, ino in some}.difference(deletable):
                self._files.orphaned(ino)  # someone here has come to need it meanwhile
            self.delete(deletable)
        except DfsError as failure:
            log.warning("%d inodes without a name could not be deleted yet: %s", len(deletable), failure)
            with self._lock:
                self._waiting.extendleft(item for item in reversed(some) if item[1] in deletable)
            return False
        finally:
            for ino in deletable:
                self._files.end_deletion(ino)
        return bool(some)

    def delete(self, inos: Sequence[int]) -> None:
        """Delete these orphans, in as many steps as it takes, except those that other mounts need. One whose records
        cannot be read stays. Raises DfsError."""
        now_ns = self._context.clock()
        left = list(inos)
        try:
            while left:
                left = self._context.store.transact(lambda tx, left=left: self._step(tx, left, now_ns), durable=False)  # type: ignore[misc]
        except OSError as failure:
            for ino in inos if len(inos) > 1 else ():
                self.delete([ino])
            if len(inos) == 1:
                log.warning("inode %d has no name and cannot be deleted: %s", inos[0], failure)

    def _step(self, tx: Transaction, inos: Sequence[int], now_ns: int) -> list[int]:
        """Return those that are not done."""
        room = regions.STEP_REGIONS
        left: list[int] = []
        for ino, inode in _load(tx, inos):
            wanted = min(regions.count(inode.size), regions.STEP_REGIONS) if inode.stored_bytes else 0
            if wanted > room:
                left.append(ino)
                continue
            room -= wanted
            if orphans.others(tx, ino, self._context.client, now_ns):
                orphans.leave(tx, ino, self._context.client)
                continue
            is_over = True
            if inode.is_file:
                inode, is_over = regions.resize(tx, ino, inode, 0)
            if is_over:
                tx.delete(keys.inode(ino))
                orphans.end(tx, ino)
            else:
                inodes.save(tx, ino, inode)
                left.append(ino)
        return left

    # ------------------------------------------------------------------ segments

    def drop_later(self, ino: int, items: Sequence[PendingSegment]) -> None:
        """Drop these segments, which will not become part of the file, when they have arrived. Excluded are appended
        ones for which that is uncertain: it is unknown where to look for them."""
        items = [item for item in items if not (item.doubt is not None and item.is_appended)]
        if items:
            self._context.background.submit(self._drop, ino, items)

    def _drop(self, ino: int, items: Sequence[PendingSegment]) -> None:
        try:
            arrived = [item for item in items if item.upload is None or item.upload.exception(PATIENCE_S) is None]
            written = [
                (item.region, made) for item in arrived for made in (item.written, item.spare) if made is not None
            ]
            earlier = [(item.region, segment) for item in items for segment in item.earlier]
            self.drop(ino, [*earlier, *((region, made.segment.id) for region, made in written if not made.inline)])
        except Exception as failure:  # noqa: BLE001 (no caller waits; the segments take up room until swept)
            log.warning("inode %d: unneeded parts of the file could not be dropped: %s", ino, failure)

    def drop(self, ino: int, segments: Sequence[tuple[int, bytes]]) -> None:
        """Drop those of these segments (region, id) that the file does not refer to."""
        for portion in by_count(segments, regions.STEP_REGIONS):
            self._context.store.transact(lambda tx, portion=portion: regions.drop_unused(tx, ino, portion))  # type: ignore[misc]


def _load(tx: Transaction, inos: Sequence[int]) -> list[tuple[int, Inode]]:
    """Return those that exist and have no name; the others are no longer orphans. Everything that their deletion reads
    is requested at once."""
    found = list(zip(inos, inodes.find_many(tx, list(inos)), strict=True))
    tx.get_many([keys.orphan(ino) for ino in inos])
    nameless = [(ino, inode) for ino, inode in found if inode is not None and not inode.nlink]
    for ino in set(inos).difference(ino for ino, _ in nameless):
        orphans.end(tx, ino)
    regions.ask_for_short(tx, nameless)
    return nameless
