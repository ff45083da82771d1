"""Orphans between mounts: those of others that are open here are claimed, those of the dead are swept.

A mount that removes a file's last name leaves the others a grace (removal.py). A mount that has the file open learns
from the map that the inode has become an orphan, and *claims* it; then it is deleted only when no mount uses it any
more. A mount that has files open and is otherwise idle learns nothing, so it checks for changes often enough for the
grace.

Claims are renewed every few hours, including those of files that were removed here and are still open here. Each mount
sweeps once an hour what dead clients left: orphans whose claims are all void (`dfsfuse.namespace.ops.orphans`).

Threads: one of its own, between `start` and `close`; `learnt` and `opened` may be called from any thread and never
wait. The thread calls `turn` again and again; so do tests.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final

from dfsfuse.common.portions import by_count
from dfsfuse.common.worker import Worker
from dfsfuse.errors import DfsError
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.namespace.ops import inodes, orphans
from dfsfuse.namespace.records import keys
from dfsfuse.vfs.context import Context, log
from dfsfuse.vfs.names.removal import AT_ONCE, Reaper
from dfsfuse.vfs.open.open_files import OpenFiles

GRACE_S: Final = 10.0
"""How long a mount keeps what was removed in it. Longer than others need to learn of it and to claim it."""
EVERY_S: Final = 2.0
LOOKS_IN_GRACE: Final = 3
"""How often a mount with open files checks for changes within the grace."""
SWEEP_S: Final = 3600.0
FIRST_SWEEP_S: Final = 60.0


class OrphanKeeper:
    """See the module."""

    def __init__(self, context: Context, files: OpenFiles, reaper: Reaper) -> None:
        self._context = context
        self._files = files
        self._reaper = reaper
        self._lock = threading.Lock()
        self._suspected: set[int] = set()
        """Inodes that are open here and may have become orphans. Guarded by the lock."""
        now = context.monotonic()
        self._sweep_at = now + FIRST_SWEEP_S
        self._renew_at = now + orphans.RENEW_S
        self._thread = Worker("orphan-keeper", EVERY_S, "looking after inodes without a name", stop_s=None)

    def learnt(self, changed_keys: Iterable[bytes] | None) -> None:
        """Take note that another mount changed these keys (None: perhaps all)."""
        if changed_keys is None:
            changed = {file.ino for file in self._files.all()}
        else:
            found = {keys.orphan_of(key) for key in changed_keys if keys.is_orphan(key)}
            changed = {ino for ino in found if self._files.get(ino) is not None}
        if changed:
            with self._lock:
                self._suspected |= changed

    def opened(self, ino: int) -> None:
        """Take note that it was opened and no longer has a name."""
        with self._lock:
            self._suspected.add(ino)

    # ------------------------------------------------------------------ the thread

    def start(self) -> None:
        """Begin."""
        self._thread.start(self._step)

    def close(self) -> None:
        """End."""
        self._thread.close()

    def _step(self) -> None:
        try:
            self.turn()
        except (DfsError, OSError) as failure:  # it is tried again
            log.warning("deleting inodes without a name was postponed: %s", failure)

    def turn(self) -> None:
        """Do everything that is due."""
        if not self._context.store.writable():
            return
        if self._files.all():  # then learn what others have removed, unless that is known
            self._context.store.read(lambda _: None, max_age_s=self._context.grace_s / LOOKS_IN_GRACE)
        self._claim_suspected()
        self._reaper.delete_due(self._thread.is_stopping)
        now = self._context.monotonic()
        if now >= self._renew_at:
            self._renew_at = now + orphans.RENEW_S
            self._renew()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            self.sweep()

    # ------------------------------------------------------------------ claims

    def _claim_suspected(self) -> None:
        with self._lock:
            suspected, self._suspected = self._suspected, set()
        try:
            claimed = self._claim(sorted(suspected))
        except DfsError:
            with self._lock:
                self._suspected |= suspected
            raise
        for ino in claimed:
            self._files.orphaned(ino)

    def _renew(self) -> None:
        self._claim(sorted({*self._files.orphans(), *self._reaper.waiting()}))

    def _claim(self, inos: list[int]) -> list[int]:
        """Declare that this mount needs those that are orphans, and return them. Skips those whose records cannot be
        read."""
        now_ns = self._context.clock()

        def work(tx: Transaction, portion: list[int]) -> list[int]:
            found = zip(portion, inodes.find_many(tx, portion), strict=True)
            tx.get_many([keys.orphan(ino) for ino in portion])
            claimed = [ino for ino, inode in found if inode is not None and not inode.nlink]
            for ino in claimed:
                orphans.claim(tx, ino, self._context.client, now_ns)
            return claimed

        def attempt(portion: list[int]) -> list[int]:
            try:
                return self._context.store.transact(lambda tx: work(tx, portion), durable=False)
            except OSError as failure:
                if len(portion) == 1:
                    log.warning("inode %d has no name and cannot be claimed: %s", portion[0], failure)
                    return []
            return [claimed for ino in portion for claimed in attempt([ino])]

        return [claimed for portion in by_count(inos, AT_ONCE) for claimed in attempt(portion)]

    # ------------------------------------------------------------------ the sweep

    def sweep(self) -> int:
        """Delete what dead clients left. Returns how many orphans were not in use."""
        now_ns = self._context.clock()
        found = self._context.store.read(lambda view: view.scan(*keys.orphans()))
        left = [keys.orphan_of(key) for key, record in found if orphans.is_void(record, now_ns)]
        if not left:
            return 0
        log.info("deleting %d inodes without a name left by dead clients", len(left))
        deletable = [ino for ino in left if self._files.begin_deletion(ino)]
        try:
            for portion in by_count(deletable, AT_ONCE):
                self._reaper.delete(portion)
        finally:
            for ino in deletable:
                self._files.end_deletion(ino)
        with self._lock:
            self._suspected.update(set(left).difference(deletable))  # open here, though that was not reported
        return len(deletable)
