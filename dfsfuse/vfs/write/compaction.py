"""Compaction: replaces the many segments of a crowded region by one. In the background.

The segment holds the region's data and none of its holes (runs.py), so a sparse file takes no more room than before.

What was written is already durable, so no caller waits for this, and a failure is not reported: it is retried after a
pause, a few times, and then by the next flush of the region. The region is read, which takes no lock, written as one
new segment, and put into the map by a transaction that leaves what was written meanwhile on top: neither readers nor
writers are kept waiting, and a writer who never pauses cannot keep a region from being compacted. The old segments are
dropped in the same batch; clients that still read them have the grace period for it.

Memory: one region at a time. Threads: `later` may be called by any, the work is done by one thread of the executor's.
`_lock` guards what waits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final

from dfsfuse.data import extents, runs
from dfsfuse.data.extents import Region, Write
from dfsfuse.data.placement import rotation_of_region
from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.namespace.ops import inodes
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.vfs.context import Context, log
from dfsfuse.vfs.write import regions, uploaded
from dfsfuse.vfs.write.regions import Patch

ATTEMPTS: Final = 5
RETRY_S: Final = 5.0
WAITING_MAX: Final = 10_000
"""Regions beyond this number are left to their next flush."""


class Compactor:
    """See the module. `pause` waits for a number of seconds, or until `close`."""

    def __init__(self, context: Context, executor: Executor, pause: Callable[[float], object] | None = None) -> None:
        self._context = context
        self._executor = executor
        self._closing = threading.Event()
        self._pause = pause or self._closing.wait
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, int]] = deque()
        """Inode and index of a region. Guarded by the lock."""
        self._is_working = False
        """Whether a task in the executor will process what waits. Guarded by the lock."""

    def later(self, ino: int, indexes: Sequence[int]) -> None:
        """Queue these crowded regions of a file."""
        with self._lock:
            new = [(ino, index) for index in indexes if (ino, index) not in self._waiting]
            self._waiting.extend(new[: max(0, WAITING_MAX - len(self._waiting))])
            if self._is_working or not self._waiting or self._closing.is_set():
                return
            self._is_working = True
        self._executor.submit(self._work)

    def close(self) -> None:
        """Wait for the current region; what else waits is left to its next flush."""
        self._closing.set()
        self._executor.shutdown(wait=True)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or self._closing.is_set():
                    self._is_working = False
                    return
                ino, index = self._waiting.popleft()
            self._try(ino, index)

    def _try(self, ino: int, index: int) -> None:
        for attempt in range(ATTEMPTS):
            if self._closing.is_set():
                return
            try:
                if self.compact(ino, index):
                    return
            except FileNotFoundError:
                return
            except Exception as failure:  # noqa: BLE001 (no caller waits; the region is as good as before)
                log.info("inode %d: region %d remains in many parts for now: %s", ino, index, failure)
                if attempt < ATTEMPTS - 1:
                    self._pause(RETRY_S)

    def compact(self, ino: int, index: int) -> bool:
        """Make one segment of a region with many. Returns whether the region is now as it should be. Raises DfsError,
        OSError."""
        context = self._context

        def look(view: View) -> tuple[Inode, Region]:
            inode = inodes.load(view, ino)
            return inode, regions.find(view, ino, inode, [index])[0]

        inode, old = context.store.read(look, max_age_s=context.max_age_s)
        if not runs.is_crowded(old):
            return True
        writes = runs.writes_of(old)
        data = self._gather(old, writes)
        began_ns = context.clock()
        written = context.segments.write(data, rotation_of_region(inode.rotation or 0, index))
        patch = Patch(index, written.segment, written.inline, tuple(writes))

        def put(tx: Transaction) -> bool:
            uploaded.check(tx, began_ns, context.clock())
            return regions.compact(tx, ino, index, old, patch)

        done = context.store.transact(put)
        if not done and not written.inline:
            context.store.transact(lambda tx: tx.drop(written.segment.id))
        return done

    def _gather(self, region: Region, writes: Sequence[Write]) -> bytes:
        """Return the bytes of a region's stretches, one after the other."""
        parts = []
        for write in writes:
            for span in extents.spans(region, write.offset, write.length):
                if span.segment is None:
                    parts.append(bytes(span.length))
                else:
                    parts.append(self._context.segments.read(span.segment, span.segment_offset, span.length))
        return b"".join(parts)
