"""The worker: commits pending changes that no operation waits for, and releases the lease when writing pauses.

Pure: procedures of `steps`, which the worker's thread carries out, or a task of the simulation.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Final

from dfsfuse.errors import DfsError
from dfsfuse.log.lease import SETTLE_AFTER_S
from dfsfuse.namespace.map.committing import KEEP_EVERY_S, Committer, KeptError
from dfsfuse.namespace.map.state import MapState
from dfsfuse.namespace.map.steps import AwaitWork, Linger, Pause, Procedure, WithLog

LINGER_S: Final = 0.002
"""How long the worker waits for more changes before it commits; between two batches too. An operation is answered
faster in that time than beside a batch, which keeps this process and the servers busy."""
RETRY_S: Final = 1.0
"""How long the worker waits after an unexpected exception."""

log = logging.getLogger(__name__)


class Worker:
    """See the module."""

    def __init__(self, state: MapState, committer: Committer) -> None:
        self._state = state
        self._committer = committer

    def work(self) -> Procedure[None]:
        """Commit pending changes, and release the lease when writing pauses; until the end.

        Only the first of many operations wakes the worker: as long as they go on, it checks for work every
        `SETTLE_AFTER_S`. It leaves the log to operations while one of them commits everything anyway.
        """
        committer, state = self._committer, self._state
        while committer.has_worker:
            yield AwaitWork(None)
            committer.wake_event.clear()
            committer.is_awake = True
            wait_s = LINGER_S
            while committer.has_worker and committer.is_awake:
                yield Linger(wait_s)
                if not committer.has_worker:
                    return
                wait_s = SETTLE_AFTER_S
                if committer.waiting:
                    continue
                try:
                    if state.journal.is_left_to_callers(state.clock()) or not (yield from self.commit_waiting()):
                        yield from self.settle_if_idle()
                    else:
                        wait_s = LINGER_S
                except Exception:
                    log.exception("cannot commit pending changes, or release the lease: trying again")
                    wait_s = RETRY_S

    def commit_waiting(self) -> Procedure[bool]:
        """Commit the changes that are pending, unless all of them are left to their callers for now. Returns whether
        more are pending afterwards."""
        if self._state.journal.is_left_to_callers(self._state.clock()):
            return False
        try:
            more: bool = yield WithLog(self._commit_waiting())
        except KeptError:
            yield Pause(KEEP_EVERY_S)
            return True
        return more

    def _commit_waiting(self) -> Procedure[bool]:
        """With the log."""
        yield from self._committer.drain()
        return bool(self._state.journal)

    def settle_if_idle(self) -> Procedure[bool]:
        """Release the lease if nothing is pending. Returns False if something is, or if something was committed while
        the log was busy: a client that has waited for its turn must not lose it because of an earlier pause."""
        if self._state.journal or not self._state.lease.is_idle(self._state.clock()):
            return False
        settled: bool = yield WithLog(self._settle_if_idle())
        return settled

    def _settle_if_idle(self) -> Procedure[bool]:
        """With the log."""
        if self._state.journal or not self._state.lease.is_idle(self._state.clock()):
            return False
        with contextlib.suppress(DfsError):
            yield from self._committer.settle()
        self._committer.is_awake = False  # still with the log: the next commit wakes the worker
        return True
