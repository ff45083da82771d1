"""The progress of a healing run, written into the map every few seconds for others to see.

Never delays healing for long, and never makes it fail: it is only news. Written as non-durable, so a mount that answers
under its lease commits it along with other things.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import msgspec

from dfsfuse.errors import DfsError
from dfsfuse.namespace.map.transactions import MapStore
from dfsfuse.upkeep.heal import state as heal_state
from dfsfuse.upkeep.heal.report import Report
from dfsfuse.upkeep.heal.state import HEALING, HealState

TELL_EVERY_S: Final = 2.0

log = logging.getLogger(__name__)


class Progress:
    """A context manager: leaving it without calling `ended` records that the run was given up."""

    def __init__(
        self,
        store: MapStore,
        record: bytes,
        state: HealState,
        clock: Callable[[], float],
        time_ns: Callable[[], int],
    ) -> None:
        self._store = store
        self._clock = clock
        self._time_ns = time_ns
        self._began = self._told_at = clock()
        self._lacked = state.lacking
        self.record = record
        self.state = state
        """As last written."""

    @classmethod
    def begun(
        cls,
        store: MapStore,
        seen: bytes | None,
        state: HealState,
        clock: Callable[[], float],
        time_ns: Callable[[], int],
    ) -> Self | None:
        """Begin a run; `seen` was the record. None if another healer has begun one meanwhile. Raises DfsError."""
        record = store.transact(lambda tx: heal_state.claim(tx, seen, state))
        return None if record is None else cls(store, record, state, clock, time_ns)

    def ran_s(self) -> float:
        """Return how long it has been running."""
        return self._clock() - self._began

    def told(self, report: Report) -> None:
        """Report the progress so far."""
        now = self._clock()
        if now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            begun = msgspec.structs.replace(self.state, lacking=self._lacked)
            self._write(heal_state.going_on(begun, report, now - self._began, self._time_ns()))

    def ended(self, report: Report) -> None:
        """Report that everything was checked."""
        self._write(heal_state.ended(self.state, report, self._time_ns()))

    def _write(self, state: HealState) -> None:
        """Write another state; skipped if another healer has taken over the record."""
        try:
            record = self._store.transact(lambda tx: heal_state.claim(tx, self.record, state), durable=False)
        except (DfsError, OSError) as error:
            log.debug("the progress of healing cannot be written: %s", error)
            return
        if record is not None:
            self.record, self.state = record, state

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.state.phase == HEALING:
            self._write(heal_state.stopped(self.state, self._time_ns()))
