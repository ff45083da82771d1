"""The thread that commits what was answered before its commit, and lets go of the lease when writing pauses.

Knows no log and no changes: its owner (`dfsfuse.namespace.log_map`) does the work.
"""

from __future__ import annotations

import logging
import threading
from typing import Final, Protocol

LINGER_S: Final = 0.002
"""How long answered changes wait for more before they are on their way. Between batches too: what is answered in that
time is answered faster than beside a batch, for which this process and the servers work."""
SETTLE_AFTER_S: Final = 0.005
"""A pause of this length ends a turn of writing: the lease is let go."""
RETRY_S: Final = 1.0
"""After a failure that nobody foresaw."""

log = logging.getLogger(__name__)


class Owner(Protocol):
    """Who has something to commit. Both are called by the committer's thread only."""

    def commit_waiting(self) -> bool:
        """Commit what was answered so far, and nobody waits for. True if something waits again."""
        ...

    def settle_if_idle(self) -> bool:
        """Let go of the lease if nothing waits. False if something does."""
        ...


class Committer:
    """A thread that commits what was answered before its commit, and lets go of the lease when writing pauses."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="committer", daemon=True)

    @property
    def is_running(self) -> bool:
        """Whether changes may be answered before they are committed."""
        return self._thread.ident is not None and not self._stop.is_set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Something waits, or was committed."""
        self._wake.set()

    def close(self) -> None:
        """End; what waits is left to the owner."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            settled = False
            while not settled and not self._stop.wait(LINGER_S):
                more = False
                try:
                    more = self._owner.commit_waiting()
                except Exception:
                    log.exception("what was answered could not be committed yet")
                self._wake.clear()
                try:
                    settled = not more and not self._wake.wait(SETTLE_AFTER_S) and self._owner.settle_if_idle()
                except Exception:
                    log.exception("the lease could not be let go of yet")
                    self._stop.wait(RETRY_S)
