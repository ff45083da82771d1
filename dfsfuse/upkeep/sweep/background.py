"""Automatic sweeping in a mount: once a day, by one of all mounts, and without haste.

A turn saves what has waited for long in this mount, so that it is not mistaken for what a dead client left. Then, if
no mount has swept for a day, it sweeps: orphaned pieces (`sweep`), and the sessions and locks of dead mounts
(`sweep_sessions`). The map is read bypassing the mount's cache, so that foreground work is not delayed. A failure does
no harm: it is done again the next day.

Threads: one of its own, between `start` and `close`; it calls `turn` again and again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from dfsfuse.common.worker import Worker
from dfsfuse.data.transport import ClusterLike
from dfsfuse.errors import DfsError, StoppedError
from dfsfuse.namespace.map.transactions import MapStore
from dfsfuse.upkeep.map_reader import Pages
from dfsfuse.upkeep.sweep import sessions as sweep_sessions
from dfsfuse.upkeep.sweep.sweeping import Sweeper, claim

EVERY_S: Final = 600.0

log = logging.getLogger(__name__)


class BackgroundSweep:
    """See the module. `save` saves what has waited for long; `wait` is for tests, and returns whether to stop."""

    def __init__(
        self,
        cluster: ClusterLike,
        pages: Pages,
        store: MapStore,
        save: Callable[[], None],
        client: bytes,
        *,
        wait: Callable[[float], bool] | None = None,
        time_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._thread = Worker("sweep", EVERY_S, "sweeping")
        self._wait = wait or self._thread.wait
        self._store = store
        self._save = save
        self._client = client
        self._time_ns = time_ns
        self._sweeper = Sweeper(cluster, pages, wait=self._wait)

    def start(self) -> None:
        """Start; the first turn is a while away."""
        self._thread.start(self._step)

    def close(self) -> None:
        """Stop. A sweep in progress is abandoned."""
        self._thread.close()

    def _step(self) -> None:
        try:
            self.turn()
        except DfsError as error:
            log.info("sweeping is postponed: %s", error)

    def turn(self) -> bool:
        """Do what is due. Returns whether there was a sweep. Raises `StoppedError`, DfsError."""
        self._save()
        if not self._store.writable() or not claim(self._store, self._time_ns(), self._client):
            return False
        swept = self._sweeper.sweep(drop=True)
        if swept.hindrance:
            log.warning("unreferenced pieces are left in place: %s ('dfc fsck' says more)", swept.hindrance)
        if swept.dropped:
            log.info("%d pieces that dead clients left will be deleted", swept.dropped)
        self._sweep_sessions()
        return True

    def _sweep_sessions(self) -> None:
        seen = self._store.read(sweep_sessions.look)
        patience_s = sweep_sessions.patience_s(seen)
        if patience_s and self._wait(patience_s):
            raise StoppedError
        ended = self._store.transact(lambda tx: sweep_sessions.end_dead(tx, seen))
        if ended.sessions:
            log.info("the locks of %d dead mounts were removed", len(ended.sessions))
